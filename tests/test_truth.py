"What a measurement must find, and must not, on models whose wiring is known."
import numpy as np
import pytest

from feature_interaction_graph.interactions import clamp_measure
from feature_interaction_graph.planted.models import plant, plant_attention, plant_common_cause
from feature_interaction_graph.planted.scores import edge_score
from feature_interaction_graph.planted.wiring import random_wiring

def measured(planted, sources, corpus, **how):
    return clamp_measure(
        planted.model, planted.saes, sources, corpus, progress=False, **how
    ).to_pandas()


@pytest.mark.parametrize("offset", [1, 2, 3])
def test_an_attention_edge_is_found_at_its_offset_and_nowhere_else(offset):
    planted = plant_attention(offset)
    (wire,) = planted.wiring.edges
    source = planted.feature(wire.block, wire.source)
    target = planted.feature(wire.block + 1, wire.target)
    table = measured(planted, [(wire.block, source)], planted.corpus(150, 24, seed=2),
                     targets=[(wire.block + 1, target)], horizon=4, placebo=8)
    found = table[(table["q_value"] < 0.05) & (table["interaction_type"] != "none")]
    assert found["offset"].tolist() == [offset] and (
        table["strength"][table["offset"] != offset] == 0
    ).all()


def test_two_effects_of_a_common_cause_are_no_edge():
    "They fire together, far more often than by chance, and one does not move the other."
    planted = plant_common_cause()
    corpus = planted.corpus(200, 24, seed=1)
    one, other = planted.feature(1, 1), planted.feature(2, 2)
    simulator = planted.simulator(corpus)
    fires = simulator.activations[1][:, 1:, one] > 0, simulator.activations[2][:, 1:, other] > 0
    assert (fires[0] & fires[1]).mean() > 2 * fires[0].mean() * fires[1].mean()
    table = measured(planted, [(1, one)], corpus, targets=[(2, other)])
    assert (table["strength"] == 0).all() and (table["p_value"] == 1).all()


def test_a_source_that_fires_once_per_sequence_is_measured():
    planted = plant(random_wiring(6, once=1), seed=6)
    corpus = planted.corpus(150, 24, seed=1)
    (variable,) = [given.variable for given in planted.wiring.inputs if given.once]
    (wire,) = [edge for edge in planted.wiring.edges if edge.source == variable]
    source = (0, planted.feature(0, variable))
    target = (wire.block + 1, planted.feature(wire.block + 1, wire.target))
    fires = planted.simulator(corpus).activations[0][:, 1:, source[1]] > 0
    assert (fires.sum(1) <= 1).all() and fires.sum() > 50
    (row,) = measured(planted, [source], corpus, targets=[target]).to_dict("records")
    truth = planted.effects(corpus, sources={0: [source[1]]})
    true = truth[
        (truth["tgt_layer"] == target[0]) & (truth["tgt_feature"] == target[1])
    ]["strength"].item()
    assert row["q_value"] < 0.01 and np.sign(row["strength"]) == np.sign(true)
    # another draw of the same firings
    assert abs(row["strength"] - true) < 0.1 * abs(true)


@pytest.mark.parametrize("angle", [90.0, 60.0])
def test_all_edges_of_a_random_wiring_and_no_other(angle):
    "One model per angle; `benchmarks/truth.py` does this for many, with every estimator."
    planted = plant(random_wiring(4, n_blocks=3), angle=angle, seed=4)
    corpus = planted.corpus(300, 20, seed=4)
    effects = planted.effects(corpus, horizon=2)
    counts = effects.groupby(["src_layer", "src_feature"])["n_samples"].max()
    sources = [key for key, count in counts.items() if count >= 100]
    score = edge_score(measured(planted, sources, corpus, horizon=2, placebo=4), effects, 0.05)
    assert (score.precision >= 0.99 and score.recall >= 0.98 and score.sign_accuracy == 1.0
            and score.n_demanded > 100)
