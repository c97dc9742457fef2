"Responses kept by a run: in its folder, reused with it, and read as it read them."
import numpy as np
import pytest

from feature_interaction_graph import read_responses
from feature_interaction_graph.config import Config
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.measurement import blocks, responses
from feature_interaction_graph.shell.pipeline import Run

SMALL = dict(n_tokens=4000, n_importance_tokens=1000, top_k_features=4, layer_window=1,
             n_samples=12, candidate_method="coactivation", placebo=4, keep="significant",
             layers=[0, 1, 2])


def quiet(cfg: Config, said: list[str]) -> Run:
    return Run(cfg, progress=False, say=said.append)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    "A run that keeps its responses."
    cfg = Config.preset("demo", **SMALL, output_dir=str(tmp_path_factory.mktemp("run")),
                        keep_responses=True)
    run = quiet(cfg, [])
    with pytest.MonkeyPatch.context() as patch:
        # blocks are as large as a quarter of the free memory, which others use as well
        patch.setattr(blocks, "free_memory", lambda: 2**33)
        _ = run.interactions
        yield run


def test_the_folder_of_a_run_is_read_as_the_run_read_it(kept):
    table, (model, saes) = kept.interactions, kept.loaded
    targets = sorted({(int(layer), int(feature)) for layer, feature in zip(
        kept.candidates["tgt_layer"], kept.candidates["tgt_feature"], strict=True)})
    read = read_responses(kept.cfg.output_path, saes, targets, model=model, corpus=kept.texts[1])
    assert len(read) == len(table) > 0 and read.meta["kept"] == table.meta["kept"]
    for name, values in table.columns.items():
        np.testing.assert_array_equal(values, read.columns[name], err_msg=name)
    assert not (kept.cfg.output_path / "interactions.unfinished").exists()


def test_a_run_whose_responses_are_gone_measures_again(kept):
    file, said = kept.cfg.output_path / "responses.h5", []
    _ = quiet(kept.cfg, said).interactions
    assert any("interactions: reused" in line for line in said)
    before = file.read_bytes()
    file.unlink()
    _ = quiet(kept.cfg, said := []).interactions
    assert any("interactions: wrote" in line for line in said) and file.read_bytes() == before


def test_a_full_disk_is_told_and_nothing_is_written(tmp_path, monkeypatch):
    cfg = Config.preset("demo", **SMALL, output_dir=str(tmp_path), keep_responses=True)
    monkeypatch.setattr(responses, "free_disk", lambda folder: 1000)
    with pytest.raises(InputError, match="responses to keep take up to .* GB are free"):
        _ = quiet(cfg, []).interactions
    assert not list(tmp_path.rglob("*responses*")) and not (tmp_path / "interactions.h5").exists()
