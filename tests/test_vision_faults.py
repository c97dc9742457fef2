"""Faults of an earlier system of gated attribution maps: each has a case here on which it would
show."""
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig
from scipy import stats

from feature_interaction_graph.vision import faithfulness as faithful
from feature_interaction_graph.vision.attribution import slopes_of
from feature_interaction_graph.vision.cases import Prototypes, case_table
from feature_interaction_graph.vision.comparison import (
    compare_configurations, held_out_choice, metric_rows
)
from feature_interaction_graph.vision.faithfulness import (
    Questions, faithfulness, flipping_area, rank_correlation, removal_probabilities, saco
)
from feature_interaction_graph.vision.gate import Gate, gate_scores, gated_transmm
from feature_interaction_graph.vision.images import ImageSet, Normalisation
from feature_interaction_graph.vision.patch_features import top_patches
from feature_interaction_graph.vision.sweep import SweepPlan, run_sweep
from feature_interaction_graph.vision.vit import Vit, VitShape

SHAPE = VitShape((12, 12), 4, 3, 16, 3, 2, 32, 3, activation="relu")


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    made = Vit(SHAPE, Normalisation((0.5, 0.4, 0.3), (0.2, 0.3, 0.25))).eval().requires_grad_(False)
    for parameter in made.parameters(): torch.nn.init.normal_(parameter, std=0.3)
    return made


@pytest.fixture(scope="module")
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (12, 3, 12, 12), dtype=np.uint8)
    return ImageSet(pixels, np.arange(12) % 3, ("0", "1", "2"),
                    tuple(f"{at}.png" for at in range(12)))


def sae_of(kind: str = "none") -> StandardSAE:
    torch.manual_seed(1)
    made = StandardSAE(StandardSAEConfig(d_in=16, d_sae=24, normalize_activations=kind))
    for parameter in made.parameters(): torch.nn.init.normal_(parameter, std=0.4)
    return made


def test_the_sum_over_features_is_derivative_times_reconstruction(vit, images):
    "So a gate of features is compared with one of none, and nobody projects on all rows."
    slopes, sae = slopes_of(vit, vit.normalisation.apply(images.pixels)), sae_of()
    stream, by = slopes.tape.leaving[0][:, 1:], slopes.by_stream[0][:, 1:]
    with torch.no_grad():
        each = sae.encode(stream) * (by @ sae.W_dec.T)
        whole = (by * (sae(stream) - sae.b_dec)).sum(-1)
    scores = gate_scores(slopes, 0, sae)
    torch.testing.assert_close(scores, each.sum(-1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(scores, whole, atol=1e-5, rtol=1e-4)


def test_tokens_of_different_norm_are_compared_on_one_scale(vit, images):
    "An SAE of normalised inputs writes longer rows at longer tokens."
    slopes, sae = slopes_of(vit, vit.normalisation.apply(images.pixels)), sae_of("layer_norm")
    stream, by = slopes.tape.leaving[0][:, 1:], slopes.by_stream[0][:, 1:]
    with torch.no_grad():
        full = sae.decode(sae.encode(stream))
        empty = sae.decode(torch.zeros_like(sae.encode(stream)))
    torch.testing.assert_close(gate_scores(slopes, 0, sae), (by * (full - empty)).sum(-1),
                               atol=1e-5, rtol=1e-4)


def test_a_fall_is_that_of_the_class_first_predicted(vit, images):
    "Not of whatever class wins after patches are gone."
    seen = vit.normalisation.apply(images.pixels)
    target, gone = vit(seen).argmax(1), np.ones((12, 1, 9), bool)
    found = removal_probabilities(vit, seen, gone, target)[:, 0]
    flat = seen.mean((2, 3), keepdim=True).expand_as(seen)
    after = vit(flat).softmax(-1)
    assert (after.argmax(1) != target).any()
    np.testing.assert_allclose(found, after.gather(1, target[:, None])[:, 0], atol=1e-6)


def test_what_stands_in_for_a_patch_is_each_channels_mean_of_the_first_image(vit, images):
    "Neither one number for all channels, nor the mean of an image that has changed already."
    seen = vit.normalisation.apply(images.pixels[:2])
    target, gone = vit(seen).argmax(1), np.zeros((2, 2, 9), bool)
    gone[:, 0, 4], gone[:, 1, [4, 7, 8]] = True, True
    found = removal_probabilities(vit, seen, gone, target)
    for one in range(2):
        for question, patches in enumerate(([4], [4, 7, 8])):
            changed = seen[one].clone()
            for patch in patches:
                row, column = 4 * (patch // 3), 4 * (patch % 3)
                changed[:, row:row + 4, column:column + 4] = seen[one].mean((1, 2))[:, None, None]
            expected = vit(changed[None]).softmax(-1)[0, target[one]]
            assert found[one, question] == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("patches", [49, 196, 197, 64])
def test_bins_have_one_size(patches):
    "Totals of bins of 4 and of 3 patches cannot be compared."
    bins = Questions(bins=13).bins_of(patches)
    order = np.arange(patches)[None]
    sizes = faithful._bins(order, bins).sum(-1)
    assert patches % bins == 0 and len(set(sizes.ravel().tolist())) == 1 and bins <= 13


def test_the_area_does_not_depend_on_how_many_patches_there_are():
    for patches in (49, 196): assert flipping_area(np.full((1, patches + 1), 0.4)) == [
        pytest.approx(0.4)]


def test_an_undefined_measure_is_no_zero():
    "It is left out, and counted."
    flat = rank_correlation(np.ones((1, 20)), np.random.default_rng(0).random((1, 20)))
    assert np.isnan(flat).all() and np.isnan(saco(np.zeros((1, 5)), np.ones((1, 5)))).all()
    names = [str(at) for at in range(6)]
    values = np.array([0.1, 0.5, np.nan, 0.4, 0.2, 0.3])
    rows = metric_rows({"transmm": {"saco": np.zeros(6)}, "other": {"saco": values}}, names)
    told = compare_configurations(rows)
    assert told.left_out[0] == 1 and told.n_pairs[0] == 5
    assert told.gain[0] == pytest.approx(np.nanmean(values))


def test_random_subsets_are_many_and_given_by_their_seed():
    asked = Questions()
    assert asked.subsets >= 100
    first, again = (asked.sets(3, 49) for _ in range(2))
    assert (first == again).all() and (first.sum(-1) == 4).all()
    assert (first[0] != first[1]).any()                      # each image has its own
    # the standard error of a rank correlation of 20 points is .23, of 100 it is .1
    draw = np.random.default_rng(0)
    spread = [np.std([stats.spearmanr(*draw.random((2, n))).statistic for _ in range(300)])
              for n in (20, asked.subsets)]
    assert spread[0] > 0.2 and spread[1] < 0.12


def test_all_that_was_tried_is_corrected_and_the_choice_is_judged_elsewhere():
    draw, names = np.random.default_rng(0), [str(at) for at in range(60)]
    found = {f"gate {at}": {"saco": draw.normal(size=60)} for at in range(40)}
    rows = metric_rows({"transmm": {"saco": np.zeros(60)}} | found, names)
    told = compare_configurations(rows)
    assert (told.p_value < 0.05).any() and (told.q_value > 0.05).all()
    chosen, judged = held_out_choice(rows)
    best = told.set_index("configuration").gain
    assert judged.n_pairs[0] == 30 and judged.configuration[0] == chosen
    assert judged.gain[0] < best.max()


def test_pairs_are_of_one_image_whatever_their_order():
    draw, names = np.random.default_rng(0), [f"{at}.png" for at in range(30)]
    base = draw.normal(size=30)
    found = {"transmm": {"saco": base}, "gate": {"saco": base + 0.1 + 1e-6 * base}}
    rows = metric_rows(found, names)
    shuffled = rows.sample(frac=1, random_state=0)
    lost = shuffled.drop(shuffled[(shuffled.image == "3.png")
                                  & (shuffled.configuration == "gate")].index)
    for given, n in ((shuffled, 30), (lost, 29)):
        told = compare_configurations(given)
        assert told.gain[0] == pytest.approx(0.1, abs=1e-4) and told.n_pairs[0] == n
    assert len(case_table(pd.concat([lost]), "gate")) == 29


def test_a_prototype_is_of_the_image_it_names(vit, images):
    "Also where the set has lost an image."
    fewer = images.take([at for at in range(12) if at != 2])
    shown = Prototypes.of(vit, {0: sae_of()}, fewer)
    busy = int(np.argmax(shown.firings[0].getnnz(0)))
    for one in top_patches(shown.firings[0], busy, fewer, 4):
        number = images.names.index(one.image)
        alone = Prototypes.of(vit, {0: sae_of()}, images.take([number]))
        assert alone.firings[0][one.patch, busy] == pytest.approx(one.activation, rel=1e-4)


def test_many_images_and_maps_share_their_passes(vit, images, monkeypatch):
    "No image is run alone, and no question twice."
    seen, rows = vit.normalisation.apply(images.pixels), []
    plain = Vit.run
    monkeypatch.setattr(Vit, "run", lambda self, stream, *more, **named: (
        rows.append(len(stream)), plain(self, stream, *more, **named))[1])
    target = vit(seen).argmax(1)
    maps = {name: torch.rand(12, 9) for name in ("one", "two")}
    maps["again"] = maps["one"]
    rows.clear()
    faithfulness(vit, seen, maps, target, Questions(subsets=10, bins=9))
    alone = 12 * 3 * (1 + 10 + 10 + 9)
    assert sum(rows) < 0.7 * alone and max(rows) > 1 and len(rows) < 0.05 * alone


def test_files_hold_no_python_objects_and_all_probabilities(vit, images, tmp_path):
    plan = SweepPlan(((0,),), ("combined",), methods=("transmm",), questions=Questions(subsets=10))
    run_sweep(vit, {0: sae_of()}, images, plan, tmp_path, "set", progress=False)
    for path in tmp_path.rglob("*.npz"):
        with np.load(path, allow_pickle=False) as kept:
            assert all(kept[name].dtype != object for name in kept.files)
    table = pd.read_csv(tmp_path / "set" / "classification_results.csv")
    np.testing.assert_allclose(table[["p_0", "p_1", "p_2"]].sum(axis=1), 1, rtol=1e-5)
    told = json.loads((tmp_path / "set" / Gate((0,), most=5.0).name / "results.json").read_text())
    assert set(told["metrics"]) == {"SaCo", "FaithfulnessCorrelation", "PixelFlipping"}
    again = run_sweep(vit, {0: sae_of()}, images, plan, tmp_path, "set", progress=False)
    assert set(again.image) == set(images.names)             # names, not places, are kept


def test_no_setting_is_dead(vit, images):
    "Everything a gate or a question can be told changes what comes out."
    seen, saes = vit.normalisation.apply(images.pixels), {0: sae_of(), 1: sae_of()}
    slopes = slopes_of(vit, seen)
    gate = Gate((0,))
    usual = gated_transmm(slopes, saes, gate)
    for name, value in (("layers", (0, 1)), ("mode", "no_sae"), ("most", 3.0), ("strength", 0.2)):
        other = gated_transmm(slopes, saes, replace(gate, **{name: value}))
        assert not torch.allclose(other, usual), name
    asked = Questions(subsets=20, subset_size=3, bins=9)
    first = faithfulness(vit, seen, {"map": usual}, slopes.target, asked)["map"]
    for name, value, metric in (("subsets", 30, "correlation"), ("subset_size", 4, "correlation"),
                                ("seed", 1, "correlation"), ("bins", 3, "saco"),
                                ("step", 3, "flipping")):
        other = faithfulness(vit, seen, {"map": usual}, slopes.target,
                             replace(asked, **{name: value}))["map"]
        assert not np.allclose(other[metric], first[metric], equal_nan=True), name
