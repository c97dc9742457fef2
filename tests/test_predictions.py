"The rules that decide about the five predictions, on cases whose answer is known."
import importlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from feature_interaction_graph.engine.errors import InputError

@pytest.fixture(scope="module")
def rules():
    folder = str(Path(__file__).parent.parent / "benchmarks")
    sys.path.insert(0, folder)
    try: yield importlib.import_module("predictions")
    finally: sys.path.remove(folder)


@pytest.mark.parametrize(
    ("low", "high", "bound", "expected"),
    [(0.51, 0.6, {"above": 0.5}, "true"), (0.4, 0.49, {"above": 0.5}, "false"),
     (0.45, 0.6, {"above": 0.5}, "undecided"), (0.5, 0.6, {"above": 0.5}, "undecided"),
     (0.001, 0.009, {"below": 0.01}, "true"), (0.02, 0.03, {"below": 0.01}, "false"),
     (0.009, 0.011, {"below": 0.01}, "undecided"), (None, None, {"below": 0.01}, "undecided"),
     (float("nan"), 1.0, {"above": 0.5}, "undecided")]
)
def test_a_verdict_needs_the_whole_interval_on_one_side(rules, low, high, bound, expected):
    assert rules.verdict(low, high, **bound) == expected


def test_a_verdict_has_one_bound(rules):
    for bounds in ({}, {"above": 0.1, "below": 0.2}):
        with pytest.raises(ValueError, match="one bound"): rules.verdict(0.0, 1.0, **bounds)


def test_all_parts_of_a_prediction_must_hold(rules):
    assert rules.combine(["true", "true"]) == "true"
    assert rules.combine(["true", "undecided"]) == "undecided" and rules.combine([]) == "undecided"
    assert rules.combine(["true", "undecided", "false"]) == "false"


def test_the_interval_of_a_ratio_is_that_of_its_clusters(rules):
    "100 clusters of 50 equal outcomes each know as much as 100 coins, not as 5,000."
    random, covered, widths = np.random.default_rng(0), 0, []
    for seed in range(200):
        part = 50.0 * (random.random(100) < 0.3)
        found = rules.ratio(part, np.full(100, 50.0), n_boot=400, seed=seed)
        covered += found["ci_low"] <= 0.3 <= found["ci_high"]
        widths.append(found["ci_high"] - found["ci_low"])
    assert 0.9 <= covered / 200 <= 0.99
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.sqrt(0.3 * 0.7 / 100), rel=0.08)
    assert rules.ratio(np.zeros(0), np.zeros(0))["value"] is None
    # nothing seen where little was expected is no proof that there is nothing: exact, for counts
    none = rules.ratio(np.zeros(15), np.full(15, 0.1))
    assert none["value"] == none["ci_low"] == 0
    assert none["ci_high"] * 1.5 == pytest.approx(stats.chi2.ppf(0.975, 2) / 2)
    assert rules.verdict(none["ci_low"], none["ci_high"], above=1.0) == "undecided"
    assert rules.ratio(np.zeros(15), np.full(15, 10.0))["ci_high"] < 1


def test_breadth_does_not_grow_with_the_number_of_firings(rules):
    random = np.random.default_rng(0)
    counts = np.array([3, 5, 1, 8, 2, 11])
    tokens = np.repeat(np.arange(6), counts)
    simulated = np.mean(
        [len(np.unique(random.choice(tokens, 10, replace=False))) for _ in range(4000)]
    )
    assert rules.rarefied(counts, 10) == pytest.approx(simulated, abs=0.05)
    assert rules.rarefied(1000 * np.ones(4), 20) == pytest.approx(
        rules.rarefied(10**6 * np.ones(4), 20), rel=1e-2
    )
    assert rules.rarefied(np.array([40]), 20) == pytest.approx(1.0) and np.isnan(
        rules.rarefied(np.array([5]), 20)
    )
    assert rules.rarefied(np.ones(30), 20) == pytest.approx(20.0)


def test_heavy_tails_are_told_from_exponential_and_light_ones(rules):
    random = np.random.default_rng(0)
    heavy = rules.heavy_tail(np.floor(10 * (1 - random.random(4000)) ** (-1 / 1.5)).astype(int))
    assert heavy["verdict"] == "true" and heavy["heavier_law_wins"]
    light = rules.heavy_tail(random.binomial(200, 0.2, 4000))
    assert light["verdict"] == "false" and light["spread"]["value"] < 0.9
    geometric = rules.heavy_tail(random.geometric(0.4, 4000))
    assert geometric["verdict"] != "true" and geometric["spread"]["value"] == pytest.approx(
        1, abs=0.12
    )
    assert rules.heavy_tail(np.ones(10, dtype=int))["verdict"] == "undecided"


def test_a_rank_correlation_within_layers_sees_neither_layers_nor_what_is_given(rules):
    random, layer = np.random.default_rng(0), np.repeat([0, 1, 2], 60)
    between = rules.rank_correlation(
        layer + 0.1 * random.standard_normal(180), layer + 0.1 * random.standard_normal(180), layer,
        n_boot=200, n_null=200
    )
    assert between["ci_low"] < 0 < between["ci_high"] and between["p_null"] > 0.01
    common = random.standard_normal(180)
    one = common + 0.3 * random.standard_normal(180)
    other = common + 0.3 * random.standard_normal(180)
    plain = rules.rank_correlation(one, other, layer, n_boot=200, n_null=200)
    assert plain["ci_low"] > 0.6 and plain["p_null"] == pytest.approx(1 / 201)
    given = rules.rank_correlation(one, other, layer, common, n_boot=200, n_null=200)
    assert abs(given["value"]) < 0.25


def edge_frame(signs_by_source):
    rows = [{"source": source, "activation": True, "strength": float(sign)}
            for source, signs in enumerate(signs_by_source) for sign in signs]
    return pd.DataFrame(rows)


def test_the_share_of_excitatory_edges_knows_that_a_source_has_one_sign(rules):
    "Sources of one sign each, 5 of 8 excitatory, are no evidence of a preference; all of 40 are."
    few = rules.excitatory_share(edge_frame([[1] * 50] * 5 + [[-1] * 50] * 3), "activation")
    assert (few["value"] == pytest.approx(0.625) and few["p_null"] > 0.3
            and few["ci_low"] < 0.5 < few["ci_high"])
    many = rules.excitatory_share(edge_frame([[1] * 9 + [-1]] * 40), "activation")
    assert many["value"] == pytest.approx(0.9) and many["p_null"] < 0.01
    assert rules.excitatory_share(
        edge_frame([[1]]).assign(activation=False), "activation"
    )["value"] is None


@pytest.mark.parametrize("factor", [1, 5])
def test_density_inside_is_that_of_the_wiring(rules, factor):
    random = np.random.default_rng(0)
    layers, source_layers = np.repeat([1, 2], 300), np.zeros(40, dtype=int)
    inside, bins = np.isin(np.arange(600), random.permutation(600)[:60]), random.integers(0, 3, 600)
    chance = 0.05 * (1 + bins)[None] * np.where(inside, factor, 1)[None]
    found = rules.density_inside(
        random.random((40, 600)) < chance, layers, source_layers, inside, bins
    )
    over = found["over_random"]
    assert over["value"] == pytest.approx(factor, rel=0.15)
    assert (over["ci_low"] > 1) == (factor > 1) and (found["p_null"] < 0.01) == (factor > 1)


def test_pairs_of_one_layer_are_not_counted_between_layers(rules):
    found, inside = np.ones((2, 8), dtype=bool), np.arange(8) < 2
    result = rules.density_inside(
        found, np.array([1, 2] * 4), np.array([1, 0]), inside, np.zeros(8, dtype=int)
    )
    assert (result["inside"]["value"] == 1 and result["over_random"]["value"] == 1
            and result["n_sources"] == 2)


def test_steering_is_judged_at_every_distance(rules):
    def at(r2, spread=0.02): return {"r2": r2, "ci_low": r2 - spread, "ci_high": r2 + spread}
    numbers = {"single_context": {"mean edges": {"1": at(0.34), "2": at(0.21)},
                                  "pre-activation": {"1": at(0.61), "2": at(0.51)}}, "averaged": {}}
    judged = rules.judge_steering(numbers)
    assert (
        judged["best"]["1"]["step"] == "pre-activation" and judged["best"]["1"]["verdict"] == "true"
    )
    assert judged["best"]["2"]["verdict"] == "undecided" and judged["verdict"] == "undecided"
    # is listed, and does not count
    numbers["single_context"]["one derivative in the context"] = {"1": at(0.9), "2": at(0.9)}
    assert rules.judge_steering(numbers)["best"] == judged["best"] and len(
        rules.judge_steering(numbers)["steps"]
    ) == 3
    numbers["single_context"]["pre-activation"]["2"] = at(0.4)
    assert rules.judge_steering(numbers)["verdict"] == "false"


def test_options_and_refusals(rules, tmp_path, capsys):
    chosen = rules.arguments(["gpt2-small", "--dataset", "text.txt"])
    assert chosen.sources == 60 and rules.arguments(["demo"]).sources == 150
    cfg = rules.run_config("gpt2-small", chosen.data, chosen.saes, 5000, chosen.dataset)
    assert cfg.n_tokens == 5000 and cfg.dataset == "text.txt" and cfg.model_name == "gpt2-small"
    for words, message in ((["llama"], "invalid choice"),
                           (["demo", "--sources", "3"], "--sources is 3; give 10 or more"),
                           (["gpt2-small", "--saes", str(tmp_path)], "--saes is for stories260k")):
        with pytest.raises(SystemExit): rules.arguments(words)
        assert message in capsys.readouterr().err
    with pytest.raises(InputError, match="stories260k needs stories260K in"):
        rules.run_config("stories260k", tmp_path, tmp_path, 5000)
    with pytest.raises(SystemExit, match="stories260k needs"):
        rules.main(["stories260k", "--data", str(tmp_path)])


def test_without_the_hub_gpt2_small_is_refused_in_one_sentence(rules, tmp_path, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("Once upon a time.\n")
    def refused(cfg): raise InputError("gpt2 is not on this machine.")
    monkeypatch.setattr(rules, "load_model_and_saes", refused)
    with pytest.raises(SystemExit, match="^gpt2 is not on this machine.$"):
        rules.main(["gpt2-small", "--dataset", str(text)])
