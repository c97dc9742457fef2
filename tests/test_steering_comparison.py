"""Comparing plans: against numbers computed from the passes themselves, equal target effect,
intervals, and what is refused."""
import numpy as np
import pytest
import torch

from feature_interaction_graph.control.clamps import Clamp
from feature_interaction_graph.control.comparison import (
    Monitor, bootstrap, clamps_at, equal_share, interval, outcome
)
from feature_interaction_graph.control.contexts import (
    choose_contexts, feature_ranges, logit_difference
)
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.planted.models import plant
from feature_interaction_graph.planted.wiring import Edge, Input, Wiring
from feature_interaction_graph.steering import (
    compare_steering, plot_comparison, steer, steer_compensated
)

@pytest.fixture(scope="module")
def setting():
    drawn = [Input(variable, rate=1.0, low=2.5, high=3.5) for variable in (2, 3, 4)]
    drawn += [Input(0, rate=0.6), Input(1, rate=1.0, low=1.0, high=1.5),
              Input(5, rate=1.0, low=1.0, high=1.5)]
    edges = [Edge(0, 2, 1, 0.8), Edge(0, 3, 1, 0.7), Edge(0, 4, 1, -0.5), Edge(1, 3, 1, -0.9),
             Edge(1, 4, 1, 0.3), Edge(5, 4, 1, 0.8), Edge(3, 2, 2, 0.5)]
    planted = plant(Wiring(6, 3, drawn, edges), negative=0.0)
    ranges = feature_ranges(
        planted.model, planted.saes, planted.corpus(80, 16, seed=1), progress=False
    )
    def key(layer, variable): return layer, planted.feature(layer, variable)
    calibration, held_out = choose_contexts(ranges, key(1, 0), 40).split()
    naive = [Clamp(*key(1, 0), 0.4, "add")]
    plan = steer_compensated(planted.model, planted.saes, calibration, naive, key(2, 2), ranges,
                             protect=[key(2, 3), key(2, 4)], rest=0.0, ridge=1e-9,
                             compensators=[key(1, 1), key(1, 5)], shared=True)
    return planted, ranges, key, calibration, held_out, naive, plan


def compare(setting, plans=None, **how):
    planted, ranges, key, calibration, held_out, naive, plan = setting
    how = {"calibration": calibration, "protect": [key(2, 3), key(2, 4)]} | how
    return compare_steering(
        planted.model, planted.saes, held_out, plans or {"naive": naive, "compensated": plan},
        key(2, 2), ranges, **how
    )


def test_every_number_is_that_of_the_passes(setting):
    planted, ranges, key, _, held_out, naive, plan = setting
    metric = logit_difference(3, 4)
    result = compare(setting, metrics={"3 - 4": metric})
    std = np.array([ranges.std(layer)[feature] for layer, feature in result.watched])
    for name, clamps in (("naive", naive), ("compensated", plan.at(held_out).clamps)):
        run = steer(planted.model, planted.saes, held_out, clamps, read=result.watched)
        columns = [run.features.index(pair) for pair in result.watched]
        change = run.change[run.where].numpy()[:, columns] / std
        row = result.rows.loc[name]
        off = [pair != key(2, 2) for pair in result.watched]
        side = np.linalg.norm(change[:, off], axis=1)
        np.testing.assert_allclose(row["side_effect"], side.mean(), rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(
            row["side_effect_l1"], np.abs(change[:, off]).sum(1).mean(), rtol=1e-3, atol=1e-6
        )
        np.testing.assert_allclose(
            row["mean_side_effect"], np.linalg.norm(change[:, off].mean(0)), rtol=1e-3, atol=1e-6
        )
        target = change[:, result.watched.index(key(2, 2))].mean()
        np.testing.assert_allclose(row["target_change"], target, rtol=1e-3)
        np.testing.assert_allclose(row["precision"], abs(target) / side.mean(), rtol=1e-3)
        clean, steered = run.clean_logits.double().softmax(-1), run.logits.double().softmax(-1)
        kl = (clean * (clean / steered).log()).sum(-1)
        np.testing.assert_allclose(row["kl"], kl[run.where].mean(), rtol=1e-2, atol=1e-6)
        later = np.mean([kl[at, position:].mean() for at, position in enumerate(held_out.position)])
        np.testing.assert_allclose(row["kl_later"], later, rtol=1e-2, atol=1e-6)
        moved = metric(run.logits[run.where]) - metric(run.clean_logits[run.where])
        np.testing.assert_allclose(row["metric 3 - 4"], moved.mean(), atol=1e-4)
        assert row["side_effect_low"] <= row["side_effect"] <= row["side_effect_high"]
    assert (result.rows.loc["compensated", "n_clamps"] == 3
            and result.rows.loc["naive", "n_clamps"] == 1)


def test_linear_wiring_has_no_side_effect_left_on_the_protected(setting):
    result = compare(setting)
    value, low, high = result.reduction("compensated", protected=True)
    assert low > 0.998 and value > 0.998 and high <= 1 and result.reduction(
        "compensated", protected=True, of_mean=True
    )[0] > 0.998
    assert abs(
        result.rows.loc["naive", "target_change"] - result.rows.loc["compensated", "target_change"]
    ) < 1e-3
    hops = result.hops[result.hops["plan"] == "naive"]
    # a linear model does at new contexts what it did at the old
    assert hops["distance"].tolist() == [1, 2] and (hops["r2"] > 0.99).all()
    plot_comparison(result)


def test_target_effects_are_made_equal(setting):
    planted, ranges, key, calibration, _, naive, plan = setting
    for size in (0.8, 0.3):
        scaled = [Clamp(*key(1, 0), size, "add")]
        result = compare(setting, {"naive": scaled, "compensated": plan})
        assert abs(result.share * size - 0.4) < 1e-3
        assert abs(result.rows.loc["naive", "target_change"]
                   - result.rows.loc["compensated", "target_change"]) < 1e-3
    wanted = 0.5 * float((plan.naive - plan.clean)[:, plan.column(*key(2, 2))].mean())
    assert abs(
        equal_share(planted.model, planted.saes, calibration, naive, key(2, 2), wanted) - 0.5
    ) < 1e-3


def test_neutral_contexts_and_plans_as_functions(setting):
    planted, ranges, key, _, held_out, naive, plan = setting
    neutral = choose_contexts(ranges, key(1, 0), 10, where="silent", seed=3)
    calls = []
    def doing_nothing(contexts):
        calls.append(len(contexts))
        return [Clamp(*key(1, 0), 0.0, "add")]
    result = compare(setting, {"naive": naive, "nothing": doing_nothing, "compensated": plan},
                     neutral=neutral, equal_to="compensated")
    assert len(calls) == 3 and calls[-1] == 10
    row = result.rows.loc["nothing"]
    assert row["side_effect"] < 1e-6 and row["neutral_kl"] < 1e-6 and abs(
        row["neutral_perplexity"] - row["neutral_perplexity_clean"]
    ) < 1e-4 and row["n_clamps"] == 0
    run = steer(planted.model, planted.saes, neutral, naive)
    np.testing.assert_allclose(
        result.rows.loc["naive", "neutral_kl"], run.kl[run.where].mean(), rtol=2e-2, atol=1e-6
    )
    losses = [
        loss[at, position:].nanmean() for loss in run.losses[1:]
        for at, position in enumerate(neutral.position) if position + 1 < run.corpus.lengths[at]
    ]
    np.testing.assert_allclose(result.rows.loc["naive", "neutral_perplexity"],
                               np.exp(np.mean([float(loss) for loss in losses])), rtol=1e-2)
    assert clamps_at(plan, held_out)[0] == naive[0]


def test_intervals_cover():
    "The bootstrap interval of a mean holds the true mean in about 95 of 100 samples."
    random = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        sample = random.normal(1.0, 2.0, 40)
        low, high = interval(sample[bootstrap(40, 400, trial)].mean(1))
        hits += low <= 1.0 <= high
    assert 178 <= hits <= 199


def test_what_is_refused(setting):
    planted, ranges, key, calibration, held_out, naive, plan = setting
    for words, ask in (
        ("needs 'naive'", lambda: compare(setting, {"naive": naive})),
        ("share sequences", lambda: compare(setting, calibration=held_out)),
        ("includes the target", lambda: compare(setting, protect=[key(2, 2)])),
        ("not a list of clamps", lambda: compare(setting, {"naive": plan, "other": plan})),
        ("does not exist", lambda: compare(setting, protect=[(2, 9999)]))
    ):
        with pytest.raises(InputError, match=words) as refusal: ask()
        assert str(refusal.value).endswith(".") and "\n" not in str(refusal.value)


def test_batches_do_not_matter(setting):
    planted, ranges, key, _, held_out, naive, plan = setting
    fitted = steer_compensated(planted.model, planted.saes, held_out, naive, key(2, 2), ranges,
                               compensators=[key(1, 1)], n_compensators=1)
    monitor = Monitor([key(2, 2), key(2, 3)], np.ones(2), np.ones(2, bool), np.zeros(2, bool), {})
    one, other = (outcome(planted.model, planted.saes, held_out, fitted.clamps, monitor,
                          batch_size=size) for size in (3, 64))
    np.testing.assert_allclose(one.change, other.change, atol=1e-4)
    np.testing.assert_allclose(one.kl_later, other.kl_later, atol=1e-5)
    assert one.n_clamps == pytest.approx(other.n_clamps) and torch.is_tensor(
        fitted.compensating[0].value
    )
