"""One measurement on workers of Ray: the same to the last bit, whatever is lost on the way; and
what is said where it cannot be."""
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run
from test_resuming import SETTINGS, SHARDS, listing, told

from feature_interaction_graph.config import Config
from feature_interaction_graph.engine import workers as engine_workers
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.engine.hook_points import plain_twin
from feature_interaction_graph.engine.weights import saes_fingerprint, weights_fingerprint
from feature_interaction_graph.engine.workers import packed, threads_each, workers
from feature_interaction_graph.loading import load_corpus, load_model_and_saes
from feature_interaction_graph.measurement import blocks, distributed
from feature_interaction_graph.measurement.blocks import RunSettings, measure
from feature_interaction_graph.measurement.distributed import OnWorkers, place_of
from feature_interaction_graph.measurement.prepared import prepare
from feature_interaction_graph.measurement.question import ask


@pytest.fixture(scope="module")
def ray():
    """A cluster of two processors that is there already, as for whoever works on one; it is ended
    with the tests of this file."""
    found = pytest.importorskip("ray", reason="ray is an extra (pip install ...[ray])")
    with engine_workers.ray_cluster(2, 2**26): yield found


@pytest.fixture(scope="module")
def asked():
    "Model, SAEs, text and a small question with three source layers, all with one thread."
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cfg = Config.preset("demo", n_tokens=2000)
    model, saes = load_model_and_saes(cfg)
    sources = [(layer, feature) for layer in (0, 1, 2) for feature in range(20)]
    targets = [(3, feature) for feature in range(50)]
    question = ask(saes, sources, targets, None, n_samples=10)
    yield model, saes, load_corpus(cfg, model, saes), question
    torch.set_num_threads(threads)


PLACEBO, CUT = RunSettings(placebo=2), RunSettings(block_bytes=4 * 10 * 2 * 64 * 8)


def answer(asked, settings: RunSettings, **how):
    return measure(*asked, settings, progress=False, **how)


def same(found, expected) -> None:
    for part in ("columns", "curves", "tests", "sample"):
        here, there = getattr(found, part), getattr(expected, part)
        assert list(here) == list(there)
        for name, values in there.items():
            np.testing.assert_array_equal(here[name], values, err_msg=name)
            assert here[name].dtype == values.dtype and here[name].flags.writeable


@pytest.fixture
def crews(monkeypatch) -> list:
    "Every crew from now on."
    real = engine_workers.RayWorkers.__init__
    def noted(self, *how, **more) -> None:
        real(self, *how, **more)
        found.append(self)
    found: list = []
    monkeypatch.setattr(engine_workers.RayWorkers, "__init__", noted)
    return found


def test_two_workers_give_the_same_table(ray, asked, crews):
    expected = answer(asked, PLACEBO)
    assert len(expected.columns["strength"]) > 500
    same(answer(asked, PLACEBO, place=place_of("ray", 2)), expected)
    assert len(crews[0].every) == 2 and not crews[0].lost
    assert ray.is_initialized()                   # whoever found a cluster leaves it as it was


def test_stopped_and_gone_on_with_and_a_worker_killed(ray, asked, crews, monkeypatch, tmp_path):
    "Stopped on Ray; gone on with here, and on Ray, where a worker is killed: the same each time."
    expected, real, saved = answer(asked, CUT), blocks.save_block, []
    def stops(*how) -> None:
        if len(saved) == 2: raise KeyboardInterrupt
        saved.append(real(*how))
    monkeypatch.setattr(blocks, "save_block", stops)
    here, there = tmp_path / "here", tmp_path / "there"
    with pytest.raises(KeyboardInterrupt) as stopped:
        answer(asked, CUT, place=OnWorkers("ray", 2), checkpoint=here)
    assert any("2 of" in note for note in stopped.value.__notes__)
    assert len(list(here.glob("*.npz"))) == 2
    shutil.copytree(here, there)
    monkeypatch.setattr(blocks, "save_block", real)
    same(answer(asked, CUT, checkpoint=here), expected)

    def kills(crew, answers) -> object:
        "As soon as one has got something to do: it has no time to be done before it dies."
        idle = [*crew.free, *crew.coming.values()]
        busy = [each for each in crew.every if each not in idle]
        if busy and not killed:
            killed.append(busy[0])
            ray.kill(busy[0])
        return waits(crew, answers)
    killed, waits = [], engine_workers.RayWorkers.first
    monkeypatch.setattr(engine_workers.RayWorkers, "first", kills)
    same(answer(asked, CUT, place=OnWorkers("ray", 2), checkpoint=there), expected)
    assert sum(crews[1].lost.values()) == 1 and len(crews[1].every) == 3


def test_what_fails_in_a_part_is_raised_with_its_name(ray):
    def unlucky(shared, part) -> int:
        if part == "thirteen": raise ZeroDivisionError("by zero")
        return len(part)
    with workers("ray", 1, None) as crew:
        assert dict(crew.done(unlucky, ["one", "three"], "ab")) == {0: 3, 1: 5}
        with pytest.raises(ZeroDivisionError, match="by zero") as found:
            list(crew.done(unlucky, ["one", "thirteen"], ["part 1", "part 13"]))
    assert found.value.__notes__ == ["in part 13"]


@pytest.mark.slow
def test_a_run_that_was_stopped_on_ray_goes_on_anywhere(ray, tmp_path, monkeypatch, capsys):
    """With one process, with workers again; the graph is that of a run that nobody stopped. (The
    same for a measurement alone is tested every time, above.)"""
    on_ray, real, kept = ("--executor", "ray", "--workers", "2"), blocks.save_block, []
    assert run("run-pipeline", *SETTINGS, "--quiet", "--output-dir", tmp_path / "whole") == 0
    def stops(*how) -> None:
        if len(kept) == 3: raise KeyboardInterrupt
        kept.append(real(*how))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "save_block", stops)
        stopped = run("run-pipeline", *SETTINGS, *on_ray, "--quiet", "--output-dir",
                      tmp_path / "here")
    assert stopped != 0 and len(list((tmp_path / "here" / SHARDS).glob("*.npz"))) == 3
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    measured, here = [], blocks.measure_block
    def counts(*how):
        measured.append(1)
        return here(*how)
    monkeypatch.setattr(blocks, "measure_block", counts)
    expected = told(tmp_path / "whole")
    for folder, how in (("here", ("--executor", "local")), ("there", on_ray)):
        assert run("run-pipeline", *SETTINGS, *how, "--quiet", "--output-dir",
                   tmp_path / folder) == 0
        assert without_place(told(tmp_path / folder)) == without_place(expected)
        assert listing(tmp_path / folder) == listing(tmp_path / "whole")
    assert 4 <= len(measured) < 12                   # here, what was left; there, nothing
    capsys.readouterr()
    assert run("run-pipeline", *SETTINGS, "--executor", "local", "--output-dir",
               tmp_path / "there") == 0
    assert "interactions: reused" in capsys.readouterr().out


def without_place(told: dict[str, bytes]) -> dict[str, bytes]:
    "Without the words that say where a run was measured."
    return {name: re.sub(rb'(&quot;|")executor(&quot;|"): ?(&quot;|")\w+(&quot;|")', b"", text)
            for name, text in told.items()}


def test_a_worker_with_other_versions_is_refused(ray, monkeypatch):
    monkeypatch.setattr(engine_workers, "_versions", lambda: {"torch": "0.9"})
    with (pytest.raises(InputError, match=r"a worker has torch \S+ \(here 0.9\).*same versions"),
          workers("ray", 1, None) as crew): crew.ready()


def test_more_workers_than_processors_are_refused(ray):
    with (pytest.raises(InputError, match="n_workers is 3 but there are 2 processors; ask for"),
          workers("ray", 3, None)): pass


def test_a_gpu_that_no_machine_has_is_missed_in_a_sentence(ray):
    if ray.cluster_resources().get("GPU"): pytest.skip("there is one")
    with (pytest.raises(InputError, match="no machine of the Ray cluster has one"),
          workers("ray", 2, None, cuda=True)): pass


@pytest.mark.parametrize("kind", ["as loaded", "hugging face"])
def test_a_model_arrives_as_it_was_sent(asked, kind):
    "A plain one, and one with a plain twin."
    pytest.importorskip("ray", reason="ray is an extra (pip install ...[ray])")
    model, saes, corpus, question = asked
    if kind == "hugging face": model = plain_twin(model)
    sent = distributed.Sent.of(prepare(model, saes, corpus, question, progress=False), CUT)
    again = engine_workers._arrived(packed(sent)).prepared
    assert again.model is not model and type(again.model) is type(model)
    assert weights_fingerprint(again.model) == weights_fingerprint(model)
    assert saes_fingerprint(again.saes) == saes_fingerprint(saes)
    assert plain_twin(again.model).training == plain_twin(model).training


def test_without_ray_one_sentence_says_how_to_get_it(asked, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="needs ray, which is not installed; .*graph.ray.', or"):
        answer(asked, CUT, place=OnWorkers("ray", 2), checkpoint=tmp_path / "parts")
    assert run("measure-interactions", *SETTINGS, "--executor", "ray", "--quiet", "--output-dir",
               tmp_path / "run") == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("fig: executor 'ray' needs ray, which is not installed")
    assert not list(Path(tmp_path).rglob("*.npz"))


def test_what_is_no_executor_is_refused(tmp_path, capsys):
    with pytest.raises(InputError, match="executor is 'spark'; choose one of local, ray"):
        Config(executor="spark")
    with (pytest.raises(InputError, match="executor is 'spark'; choose one of local, ray"),
          workers("spark", 2, None)): pass
    with pytest.raises(InputError, match="n_workers is 0; it must be at least 1"):
        Config(n_workers=0)
    assert run("run-pipeline", *SETTINGS, "--executor", "spark", "--output-dir", tmp_path) == 2
    assert "executor is 'spark'; choose one of local, ray." in capsys.readouterr().err


def test_an_error_in_a_part_has_its_name_in_this_process_too(asked, monkeypatch):
    def fails(*how): raise ZeroDivisionError("by zero")
    monkeypatch.setattr(distributed, "gather_block", fails)
    with pytest.raises(ZeroDivisionError) as found:
        answer(asked, CUT, place=OnWorkers("local", 2))
    (note,) = found.value.__notes__
    assert note == "in block 0 of sources, layers 0"


def test_threads_are_shared_out():
    assert [threads_each(n, [16]) for n in (1, 2, 3, 5, 16)] == [16, 8, 5, 3, 1]
    assert threads_each(3, [4, 8]) == 4 and threads_each(4, [4, 8]) == 2
