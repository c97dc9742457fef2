"`fig vision`: five commands, what they leave behind, and a sentence for every mistake."
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import run
from PIL import Image

from feature_interaction_graph.vision import sweep as sweeping
from feature_interaction_graph.vision.adapters import save_vit
from feature_interaction_graph.vision.images import Normalisation
from feature_interaction_graph.vision.planted_patches import planted_images, train_vit
from feature_interaction_graph.vision.records import read_firings, read_patch_records
from feature_interaction_graph.vision.vit import VitShape


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "A ViT and images in files."
    folder, planted = tmp_path_factory.mktemp("vision"), planted_images(90, seed=1).images
    vit = train_vit(VitShape((20, 20), 4, 1, 16, 2, 2, 32, 4), Normalisation((0.5,), (0.25,)),
                    planted_images(200).images, steps=30)
    save_vit(vit, folder / "vit")
    np.savez(folder / "glyphs.npz", images=planted.pixels, labels=planted.labels)
    return folder


def prepare(place: Path, out: Path, *more: str | Path) -> int:
    return run("vision", "prepare", "--model", place / "vit", "--images", place / "glyphs.npz",
               "--n-train", "50", "--n-test", "40", "--width", "24", "--k", "4", "--steps", "30",
               "--layers", "0", "--quiet", "--output-dir", out, *more)


@pytest.fixture(scope="module")
def study(place):
    assert prepare(place, place / "study") == 0
    return place / "study"


def refused(capsys, *arguments: str | Path) -> str:
    capsys.readouterr()
    assert run(*arguments) == 2
    said = capsys.readouterr()
    lines = said.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("fig: ") and lines[0].endswith("."), said.err
    return lines[0]


def test_from_images_to_cases(study, capsys, monkeypatch):
    asked = ("vision", "sweep", "--output-dir", study, "--mode", "combined", "--mode", "no_sae",
             "--quiet")
    work, done = sweeping._part, []

    def tired(*arguments):
        if len(done) == 1: raise KeyboardInterrupt
        done.append(1)
        return work(*arguments)

    monkeypatch.setattr(sweeping, "_part", tired)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        if run(*asked) != 0: raise KeyboardInterrupt
    assert not (study / "sweep" / "rows.csv").exists()
    assert "finish a sweep first" in refused(capsys, "vision", "compare", "--output-dir", study)
    monkeypatch.setattr(sweeping, "_part", lambda *given: done.append(2) or work(*given))
    assert run(*asked) == 0 and done == [1, 2, 2]            # three parts, one of them kept
    assert "another plan" in refused(capsys, *asked, "--most", "3")
    assert run("vision", "compare", "--output-dir", study) == 0
    said = capsys.readouterr().out
    assert "chosen on half of the images" in said and said.count("gain") >= 15
    told = json.loads((study / "sweep" / "comparison.json").read_text())
    assert {row["metric"] for row in told["against_transmm"]} == {"saco", "correlation", "flipping"}
    capsys.readouterr()
    assert run("vision", "cases", "--output-dir", study, "--n", "1") == 0
    assert not capsys.readouterr().err
    every = pd.read_csv(study / "sweep" / "case_studies" / "all_case_studies.csv")
    assert every["image"].nunique() == 1
    assert "no gate of the sweep" in refused(capsys, "vision", "cases", "--output-dir", study,
                                             "--gate", "layers_7")
    assert not list(study.rglob("*.part")) and not list(study.rglob(".*"))


def test_files_of_a_sweep_say_the_same(study, tmp_path, capsys):
    "Each file of a gate against the table of all numbers, and a debug file that needs no pickle."
    assert run("vision", "sweep", "--output-dir", study, "--mode", "combined", "--mode", "no_sae",
               "--quiet", "--debug") == 0
    rows = pd.read_csv(study / "sweep" / "rows.csv", dtype={"image": str})
    names = {"saco": "SaCo", "correlation": "FaithfulnessCorrelation", "flipping": "PixelFlipping"}
    for name in ("layers_0_combined_clamp_5.0_alpha_1.0", "transmm"):
        below = study / "sweep" / "images" / name
        stats = json.loads((below / "faithfulness_stats.json").read_text())
        bins = pd.read_csv(below / "saco_bin_results.csv", dtype={"image_name": str})
        mine = rows[rows.configuration == name]
        for metric, called in names.items():
            told = np.array(stats["metrics"][called]["mean_scores"], float)
            np.testing.assert_allclose(told, mine[mine.metric == metric].value)
            assert stats["metrics"][called]["overall"]["mean"] == pytest.approx(np.nanmean(told))
        images = [one["filename"] for one in stats["images"]]
        assert images == list(dict.fromkeys(bins.image_name)) == mine.image.unique().tolist()
        with np.load(below / "attributions.npz", allow_pickle=False) as kept: raw = kept["raw"]
        sums = bins.groupby("image_name", sort=False).total_attribution.sum()
        np.testing.assert_allclose(sums, raw.sum(1), rtol=1e-4, atol=1e-6)
        for _, one in bins.groupby("image_name"):
            gap = np.subtract.outer(one.total_attribution.to_numpy(),
                                    one.total_attribution.to_numpy()).clip(0)
            agree = np.where(np.subtract.outer(one.confidence_delta.to_numpy(),
                                               one.confidence_delta.to_numpy()) >= 0, 1, -1)
            assert one.saco_score.iloc[0] == pytest.approx((gap * agree).sum() / gap.sum())
        config = json.loads((below / "experiment_config.json").read_text())
        assert config["subset_size"] == 40 and config["dataset"] == "images"
    for name in rows.configuration.unique():
        kept = sorted((study / "sweep" / "images" / name / "attributions").glob("*.npy"))
        assert len(kept) == 80 and {np.load(path).shape for path in kept} == {(25,), (20, 20)}
    fired = read_firings(study / "sweep" / "images" / "debug" / "layer_0_activations.npz")
    assert fired.shape == (40 * 25, 24) and abs(fired.nnz / 1000 - 4) < 0.6     # --k 4
    debug = read_patch_records(study / "sweep" / "images" / "layers_0_combined_clamp_5.0_alpha_1.0"
                               / "debug" / "layer_0_debug.npz")
    assert debug.names == images and len(debug.indptr) == 40 * 25 + 1


def test_maps_are_arrays_and_pictures(study, capsys):
    assert run("vision", "attribute", "--output-dir", study, "--n", "2", "--gate", "combined") == 0
    kept = sorted((study / "attributions").glob("*.npy"))
    assert len(kept) == 4 and all(np.load(path).shape == (25,) for path in kept)
    assert Image.open(kept[0].with_suffix(".png")).size == (240, 240)
    below, stem = study / "attributions" / "gate_combined", kept[0].stem.removesuffix(
        "_gate_combined")
    raw, large = (np.load(below / f"{stem}_{kind}attribution.npy") for kind in ("raw_", ""))
    assert np.array_equal(raw, np.load(kept[0])) and large.shape == (20, 20)
    assert large.min() == 0 and large.max() == 1
    made = read_patch_records(below / "debug" / "layer_0_debug.npz")
    plain = np.load(kept[1])
    assert kept[1].stem == f"{stem}_transmm" and len(made.names) == 2
    at = made.names.index(stem)
    np.testing.assert_allclose(made.patch_attribution_deltas[at], raw - plain, atol=1e-6)
    for more, words in ((("--method", "magic"), "attribution 'magic' is not known"),
                        (("--gate", "magic"), "gate 'magic' is not known")):
        assert words in refused(capsys, "vision", "attribute", "--output-dir", study, *more)


@pytest.mark.parametrize("mistake, words", [
    (("--layers", "0,7"), "the model has blocks 0 to 1"),
    (("--k", "24"), "latents a row have a positive"), (("--k", "600"), "600 of 24 latents"),
    (("--layers", "zero"), "write layers as 0,1,2"),
    (("--n-train", "80"), "90 images were found"),
    (("--arrays", "x,y"), "has no array called"),
    (("--arrays", "x"), "write two names"),
    (("--images", "nowhere.npz"), "nowhere.npz could not be read"),
    (("--model", "nowhere"), "could not be read")])
def test_mistakes_of_prepare_write_nothing(place, tmp_path, capsys, mistake, words):
    capsys.readouterr()
    assert prepare(place, tmp_path / "out", *mistake) == 2
    said = capsys.readouterr().err
    assert words in said and len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def wrong_images(folder: Path, kind: str) -> Path:
    "Images that are wrong in one way."
    if kind in ("label", "size", "more classes"):
        side, labels = (24 if kind == "size" else 20), np.arange(90) % (6 if "more" in kind else 4)
        if kind == "label": labels[5] = -1
        np.savez(folder / "wrong.npz", labels=labels,
                 images=np.zeros((90, side, side), np.uint8))
        return folder / "wrong.npz"
    for label in ("a", "b"):
        (folder / "images" / label).mkdir(parents=True)
        for number in range(50):
            Image.new("L", (20, 20)).save(folder / "images" / label / f"{number}.png")
    one = folder / "images" / "b" / "7.png"
    if kind == "corrupt": one.write_bytes(one.read_bytes()[:30])
    if kind == "mode": Image.new("RGB", (20, 20)).save(one)
    if kind == "one of another size": Image.new("L", (20, 24)).save(one)
    if kind == "empty class": (folder / "images" / "c").mkdir()
    return folder / "images"


@pytest.mark.parametrize("kind, words", [
    ("label", "image 5 has label -1"), ("size", "images of shape [1, 24, 24] were given"),
    ("more classes", "the images have 6 classes, but the model knows 4"),
    ("corrupt", "7.png cannot be read as an image"), ("mode", "in mode RGB"),
    ("one of another size", "20 by 24 pixels"), ("empty class", "class c has no images")])
def test_wrong_images_cost_one_sentence(place, tmp_path, capsys, kind, words):
    capsys.readouterr()
    assert prepare(place, tmp_path / "out", "--images", wrong_images(tmp_path, kind)) == 2
    said = capsys.readouterr().err
    assert words in said and len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_model_without_attention_maps(place, tmp_path, capsys):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "config.json").write_text('{"model_type": "resnet"}')
    assert prepare(place, tmp_path / "out", "--model", tmp_path / "net") == 2
    assert "has no attention maps" in capsys.readouterr().err


def test_a_study_that_is_damaged(place, study, tmp_path, capsys):
    import shutil
    broken = tmp_path / "study"
    shutil.copytree(study, broken)
    shutil.rmtree(broken / "saes")
    assert "patches.0 is missing; prepare" in refused(capsys, "vision", "attribute", "--output-dir",
                                                      broken)
    (broken / "vision.json").write_text("{}")
    assert "vision.json" in refused(capsys, "vision", "sweep", "--output-dir", broken)
