"""Planted models: wirings that cannot be are refused, and what is built is what was asked for, also
in the corners the notebooks do not visit."""
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from feature_interaction_graph.engine.corpus import as_corpus
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.engine.residuals import clean_residuals
from feature_interaction_graph.planted.models import (
    Flaws, null_planted, plant, plant_chain, plant_gate
)
from feature_interaction_graph.planted.simulator import (
    Readout, Simulator, block_step, gate_direction, source_effects
)
from feature_interaction_graph.planted.transformer import N_POSITIONS, make_dictionary, offset_head
from feature_interaction_graph.planted.wiring import (
    Edge, Input, Wiring, draw_tokens, null_wiring, random_wiring, vocabulary
)

ONE, TWO = [Input(0)], [Input(0), Input(1)]

REFUSED = {
    "unknown kind": (lambda: Edge(0, 1, 0, 1.0, kind="conv"), "of kind 'conv'"),
    "no weight": (lambda: Edge(0, 1, 0, 0.0), "weight 0.0"),
    "weight NaN": (lambda: Edge(0, 1, 0, float("nan")), "weight nan"),
    "attention without offset": (lambda: Edge(0, 1, 0, 1.0, kind="attention"), "offset 0"),
    "attention into the future": (
        lambda: Edge(0, 1, 0, 1.0, kind="attention", offset=-1), "offset -1"
    ),
    "attention with a gate": (
        lambda: Edge(0, 1, 0, 1.0, kind="attention", offset=1, gate=2, gate_kind="AND"),
        "attention only copies"
    ),
    "attention with a threshold": (
        lambda: Edge(0, 1, 0, 1.0, kind="attention", offset=1, threshold=0.5),
        "attention only copies"
    ),
    "MLP with an offset": (lambda: Edge(0, 1, 0, 1.0, offset=1), "an MLP sees one position only"),
    "MLP to itself": (lambda: Edge(1, 1, 0, 1.0), "from a variable to itself"),
    "gate without kind": (lambda: Edge(0, 1, 0, 1.0, gate=2), "only one of gate and gate_kind"),
    "kind without gate": (
        lambda: Edge(0, 1, 0, 1.0, gate_kind="AND"), "only one of gate and gate_kind"
    ),
    "unknown gate kind": (lambda: Edge(0, 1, 0, 1.0, gate=2, gate_kind="XOR"), "gate_kind 'XOR'"),
    "gated by the source": (
        lambda: Edge(0, 1, 0, 1.0, gate=0, gate_kind="AND"), "must be a third variable"
    ),
    "gated by the target": (
        lambda: Edge(0, 1, 0, 1.0, gate=1, gate_kind="AND"), "must be a third variable"
    ),
    "gate and saturation": (lambda: Edge(0, 1, 0, 1.0, gate=2, gate_kind="AND", saturation=1.0),
                            "a gate and also a threshold"),
    "negative threshold": (lambda: Edge(0, 1, 0, 1.0, threshold=-0.1), "threshold -0.1"),
    "no room before saturation": (lambda: Edge(0, 1, 0, 1.0, saturation=0.0), "saturation 0.0"),
    "input that is never on": (lambda: Input(0, rate=0.0), "rate 0.0"),
    "input upside down": (lambda: Input(0, low=2.0), "give 0 < low <= high"),
    "given without a rate": (lambda: Input(1, given=0), "only one of given and rate_given"),
    "rate_given above 1": (lambda: Input(1, given=0, rate_given=1.5), "rate_given 1.5"),
    "nothing": (lambda: Wiring(0, 1, []), "at least 1 of each"),
    "unknown variable": (lambda: Wiring(2, 1, ONE, [Edge(0, 5, 0, 1.0)]), "names v5"),
    "unknown gate": (
        lambda: Wiring(2, 1, ONE, [Edge(0, 1, 0, 1.0, gate=7, gate_kind="AND")]), "names v7"
    ),
    "unknown input": (lambda: Wiring(2, 1, [Input(3)]), "input v3 names v3"),
    "unknown hidden": (lambda: Wiring(2, 1, TWO, hidden=frozenset([9])), "hidden names v9"),
    "input twice": (lambda: Wiring(1, 1, [Input(0), Input(0)]), "an input twice"),
    "given a later input": (lambda: Wiring(2, 1, [Input(0, given=1, rate_given=0.5), Input(1)]),
                            "not an input listed before"),
    "unknown block": (lambda: Wiring(2, 1, ONE, [Edge(0, 1, 1, 1.0)]), "blocks 0 to 0"),
    "no cause": (lambda: Wiring(2, 1, ONE), "v1 is neither an input"),
    "read too early": (lambda: Wiring(3, 2, ONE, [Edge(1, 2, 0, 1.0), Edge(0, 1, 1, 1.0)]),
                       "move the edge to block 2"),
    "gate read too early": (lambda: Wiring(3, 2, ONE, [Edge(0, 2, 0, 1.0, gate=1, gate_kind="NOT"),
                                                       Edge(0, 1, 1, 1.0)]), "reads v1"),
    "two tokens": (lambda: Wiring(1, 1, ONE, n_tokens=2), "at least 3 tokens"),
    "one block at random": (lambda: random_wiring(0, n_blocks=1), "at least 2 of each"),
    "no pairs": (lambda: null_wiring(0), "at least 1"),
    "angle 0": (lambda: make_dictionary(4, 8, angle=0), "10 (hard to tell apart) to 90"),
    "offset beyond the context": (lambda: offset_head(N_POSITIONS), "attention offset 512"),
    "no such flaw": (lambda: Flaws(error=-0.1), "flaws.error is -0.1"),
    "negative number of dead": (lambda: Flaws(dead=-1), "flaws.dead -1"),
    "unknown encoder": (lambda: plant_chain(encoder="untied"), "'dual' or 'tied'"),
    "share of negative": (lambda: plant_chain(negative=1.5), "negative is 1.5"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_sentence(name):
    attempt, words = REFUSED[name]
    with pytest.raises(InputError, match=re.escape(words)) as refused: attempt()
    assert str(refused.value).endswith(".") and "\n" not in str(refused.value)


@pytest.fixture(scope="module")
def chain(): return plant_chain()


def test_questions_it_cannot_answer(chain):
    corpus = chain.corpus(20, 12)
    for attempt, words in (
        (lambda: chain.feature(7, 0), "layers 0 to 2"),
        (lambda: chain.feature(0, 0, half=1), "not split"),
        (lambda: chain.corpus(10, 1), "at least 1 sequence of 2 tokens"),
        (lambda: chain.corpus(10, 1000), "at most 512"),
        (lambda: chain.effects(corpus, reading="true"), "'intended' or 'actual'"),
        (lambda: chain.truth(as_corpus(corpus.tokens, lengths=torch.arange(20) % 11 + 2, bos_id=0)),
         "ragged")
    ):
        with pytest.raises(InputError, match=words): attempt()
    with pytest.raises(InputError, match="has no feature"): chain.feature(0, 1)


def test_a_variable_written_by_attention_can_be_read_by_the_mlp_of_the_same_block():
    wiring = Wiring(3, 1, ONE, [Edge(0, 1, 0, 0.5, kind="attention", offset=1), Edge(1, 2, 0, 2.0)])
    state = np.zeros((1, 3, 3))
    state[0, 0, 0] = 1.0
    assert block_step(wiring, 0, state)[0].tolist() == [[1, 0, 0], [0, 0.5, 1.0], [0, 0, 0]]


@pytest.mark.parametrize(
    "kind, at_none, at_half, at_full",
    [("AND", 0.0, 0.5, 1.0), ("NOT", 1.0, 0.5, 0.0), ("sign-flip", -1.0, 0.0, 1.0)]
)
def test_gates_between_off_and_on(kind, at_none, at_half, at_full):
    wiring = Wiring(3, 1, TWO, [Edge(0, 2, 0, 1.0, gate=1, gate_kind=kind)])
    for gate, expected in (
        (-1.0, at_none), (0.0, at_none), (0.25, at_half), (0.5, at_full), (3.0, at_full)
    ):
        assert block_step(
            wiring, 0, np.array([[[1.0, gate, 0.0]]])
        )[0, 0, 2] == pytest.approx(expected)


def read_states(planted, corpus):
    names = [sae.cfg.metadata.hook_name for _, sae in sorted(planted.saes.items())]
    streams = clean_residuals(planted.hf_model, corpus.tokens, names)
    return [streams[name].double().numpy() @ planted.dictionary.dual.T for name in names]


@pytest.mark.parametrize("seed", range(8))
def test_the_transformer_computes_any_wiring(seed):
    random = np.random.default_rng(seed)
    angle = float(random.choice([90, 60, 30]))
    n_blocks = int(random.integers(2, 6))
    offsets = random.integers(1, 10, random.integers(0, 5)).tolist()
    names = ("excitatory", "inhibitory", "chains", "fan_in", "common_causes", "correlated",
             "and_gates", "not_gates", "sign_flips", "once")
    counts = random.integers(0, 3, len(names)).tolist()
    wiring = random_wiring(
        seed, n_blocks=n_blocks, attention=offsets, **dict(zip(names, counts, strict=True))
    )
    planted = plant(wiring, angle=angle, seed=seed)
    corpus = planted.corpus(6, 40, seed)
    for mine, true in zip(
        read_states(planted, corpus), planted.simulator(corpus).states, strict=True
    ):
        np.testing.assert_allclose(mine, true, atol=2e-4)


def test_every_shape_at_once():
    edges = [Edge(0, 2 + index, 0, 1.0, threshold=threshold, saturation=saturation)
             for index, (threshold, saturation)
             in enumerate([(0.0, None), (0.7, None), (0.0, 0.6), (0.7, 0.3)])]
    edges += [Edge(0, 6, 0, -0.8, gate=1, gate_kind="product"),
              Edge(1, 6, 1, 0.5, kind="attention", offset=200)]
    planted = plant(
        Wiring(7, 2, [Input(0, rate=0.9), Input(1, rate=0.9, symmetric=True)], edges), angle=45
    )
    corpus = planted.corpus(3, N_POSITIONS)
    for mine, true in zip(
        read_states(planted, corpus), planted.simulator(corpus).states, strict=True
    ):
        np.testing.assert_allclose(mine, true, atol=2e-4)


def test_more_sources_than_one_head_can_carry_and_the_whole_context():
    edges = [
        Edge(index, 70 + index % 5, 0, 0.3, kind="attention", offset=1 + index % 2 * 9)
        for index in range(70)
    ] + [Edge(index, 70 + index % 5, 0, 0.2, kind="attention", offset=1) for index in range(70)]
    planted = plant(Wiring(75, 1, [Input(index, rate=0.05) for index in range(70)], edges))
    assert planted.hf_model.config.num_attention_heads == 3
    corpus = planted.corpus(2, N_POSITIONS)
    np.testing.assert_allclose(
        read_states(planted, corpus)[1], planted.simulator(corpus).states[1], atol=2e-4
    )


def test_vocabulary_and_text_are_reproducible_and_prefixes_stay():
    wiring = random_wiring(5)
    values = vocabulary(wiring, 1)
    assert (values == vocabulary(wiring, 1)).all() and (values != vocabulary(wiring, 2)).any() and (
        values[0] == 0
    ).all()
    assert (draw_tokens(wiring, values, 9, 12, 3) == draw_tokens(wiring, values, 9, 12, 3)).all()
    assert (draw_tokens(wiring, values, 9, 12, 3)[:, 1:] > 0).all()


@pytest.mark.parametrize("n_tokens", [3, 4, 11, 12])
def test_symmetric_inputs_are_balanced_over_what_is_drawn(n_tokens):
    wiring = Wiring(
        2, 1, [Input(0, rate=0.5), Input(1, rate=1.0, symmetric=True)], n_tokens=n_tokens
    )
    values = vocabulary(wiring)
    assert values.shape == (n_tokens, 2)
    drawn = np.unique(draw_tokens(wiring, values, 200, 10)[:, 1:])
    assert len(drawn) % 2 == 0 and abs(values[drawn, 1].sum()) < 1e-9


def test_null_effects_have_mean_exactly_zero_over_the_vocabulary_and_the_planted_mean_otherwise():
    for effect in (0.0, 0.3):
        planted, pairs = null_planted(0, 5, effect=effect)
        every_token = np.concatenate([np.zeros((len(planted.values) - 1, 1), int),
                                      np.arange(1, len(planted.values))[:, None]], 1)
        simulator = Simulator(planted.wiring, planted.values[every_token], planted.intended)
        corpus = as_corpus(torch.as_tensor(every_token), bos_id=0)
        rows = planted.effects(corpus, n_samples=None).set_index(
            ["src_layer", "src_feature", "tgt_layer", "tgt_feature"]
        )
        for (layer, source), (later, target) in pairs:
            ratio = (planted.intended[later].encoder.max(0)[target]
                     / planted.intended[layer].encoder.max(0)[source])
            assert rows.loc[(layer, source, later, target), "strength"] == pytest.approx(
                effect * ratio, abs=1e-9
            )
            assert 0.3 < rows.loc[(layer, source, later, target), "std"] / ratio < 0.8
        # targets never near their threshold
        assert simulator.states[1][:, 1:, 5:10].min() > 0.5


def test_split_features_share_the_firings_of_their_variable():
    planted = plant(random_wiring(2), flaws=Flaws(split=3, dead=2), negative=0.0)
    corpus = planted.corpus(60, 20)
    simulator = planted.simulator(corpus)
    for layer, readout in planted.intended.items():
        split = sorted(
            {int(variable) for variable, half in zip(readout.variable, readout.half, strict=True)
             if half}
        )
        assert (
            len(split) == 3 and readout.encoder.shape[1] == planted.wiring.n_variables - 1 + 3 + 2
        )
        for variable in split:
            first, second = (
                simulator.activations[layer][:, 1:, planted.feature(layer, variable, half)]
                for half in (0, 1)
            )
            whole = np.maximum(simulator.states[layer][:, 1:, variable], 0)
            gain = readout.encoder[variable, planted.feature(layer, variable)]
            fires = whole > 0.1
            assert not ((first > 0) & (second > 0)).any() and 0.3 < (first[fires] > 0).mean() < 0.7
            np.testing.assert_allclose((first + second)[fires], gain * whole[fires], atol=1e-9)
    stream = clean_residuals(
        planted.hf_model, corpus.tokens, ["blocks.0.hook_resid_pre"]
    )["blocks.0.hook_resid_pre"]
    active = planted.saes[0].encode(stream)
    assert not bool(active[..., planted.intended[0].variable < 0].any())
    np.testing.assert_allclose(active[:, 1:].numpy(), simulator.activations[0][:, 1:], atol=1e-4)


def test_a_perfect_sae_reconstructs_and_a_disturbed_one_does_not():
    wiring = random_wiring(3, inhibitory=0)
    for error, low, high in ((0.0, 0.99, 1.0), (0.2, 0.5, 0.97)):
        planted = plant(wiring, flaws=Flaws(error=error), negative=0.0)
        stream = clean_residuals(
            planted.hf_model, planted.corpus(40, 20).tokens, ["blocks.2.hook_resid_pre"]
        )["blocks.2.hook_resid_pre"][:, 1:]
        rest = planted.saes[2](stream) - stream
        assert low <= 1 - float(rest.var(dim=(0, 1)).sum() / stream.var(dim=(0, 1)).sum()) <= high


def test_features_of_absence():
    planted = plant_chain((0.8,), negative=1.0)
    corpus = planted.corpus(50, 20)
    assert all((readout.encoder[:, readout.variable >= 0].min(0) < 0).all()
               for readout in planted.intended.values())
    rows = planted.effects(corpus).set_index(["src_layer", "tgt_layer"])
    G = planted.truth(corpus)
    # absence drives absence
    assert len(rows) == 2 and all(
        edge["interaction_type"] == "excitatory" for *_, edge in G.edges(data=True)
    )
    mixed = plant(random_wiring(0), negative=0.5)
    text = mixed.corpus(60, 20)
    for source, target, edge in mixed.truth(text, gates=False).edges(data=True):
        if edge["path"] != "persistence": continue
        same = mixed_sign(mixed, source) == mixed_sign(mixed, target)
        assert (edge["interaction_type"] == "excitatory") == same


def mixed_sign(planted, name: str) -> float:
    layer, feature = (int(part) for part in re.fullmatch(r"L(\d+)_F(\d+)", name).groups())
    return float(np.sign(planted.intended[layer].decoder[feature].sum()))


@pytest.mark.parametrize(
    "off, on, direction", [(0.0, 0.0, "none"), (1.0, 1.0, "none"), (0.0, -1.0, "AND"),
                           (0.5, 0.1, "NOT"), (-0.5, 0.4, "sign-flip"), (-0.5, 0.1, "NOT"),
                           (1.0, 0.5, "modulation"), (0.4, 0.9, "modulation")]
)
def test_directions(off, on, direction): assert gate_direction(off, on) == direction


@pytest.mark.parametrize("kind", ["AND", "NOT", "sign-flip"])
def test_planted_gates_are_found_in_the_truth(kind):
    planted = plant_gate(kind)
    (edge,) = planted.truth(planted.corpus(80, 20)).graph["hyperedges"]
    assert (edge["direction"] == kind and edge["gate"] == f"L0_F{planted.feature(0, 1)}"
            and edge["interaction"] == edge["effect_on"] - edge["effect_off"])


def test_held_layers_leave_only_what_goes_past_the_features():
    wiring = Wiring(4, 2, ONE, [Edge(0, 1, 0, 0.8), Edge(1, 2, 1, 0.9), Edge(0, 3, 0, 0.7),
                                Edge(3, 2, 1, 0.5)], hidden=frozenset([3]))
    planted = plant(wiring, negative=0.0)
    corpus = planted.corpus(60, 20)
    source, target = (0, planted.feature(0, 0)), (2, planted.feature(2, 2))
    ratio = planted.intended[2].encoder[2, target[1]] / planted.intended[0].encoder[0, source[1]]
    # v3 is hidden: nobody can hold it
    for hold, expected in ((False, 0.8 * 0.9 + 0.7 * 0.5), (True, 0.7 * 0.5)):
        rows = planted.effects(corpus, hold=hold).set_index(
            ["src_layer", "src_feature", "tgt_layer", "tgt_feature"]
        )
        assert rows.loc[(*source, *target), "strength"] == pytest.approx(expected * ratio)


def test_a_path_is_a_wire_only_at_the_distance_of_its_rule():
    edges = [Edge(0, 1, 0, 0.8, kind="attention", offset=1),
             Edge(0, 2, 0, 0.9, kind="attention", offset=1),
             Edge(2, 1, 1, 0.5, kind="attention", offset=2)]
    planted = plant(Wiring(3, 2, ONE, edges), negative=0.0)
    G = planted.truth(planted.corpus(60, 20), horizon=4, multigraph=True)
    ends = f"L0_F{planted.feature(0, 0)}", f"L2_F{planted.feature(2, 1)}"
    assert {
        edge["offset"]: (edge["path"], edge["direct"]) for edge in G.get_edge_data(*ends).values()
    } == {1: ("wire", True), 3: ("indirect", False)}
    assert G.number_of_edges() > planted.truth(planted.corpus(60, 20), horizon=4).number_of_edges()


def test_effects_beyond_the_end_of_a_sequence_are_not_counted():
    wiring = Wiring(2, 1, [Input(0, rate=1.0)], [Edge(0, 1, 0, 0.5, kind="attention", offset=2)])
    plain = Readout(
        np.eye(2), np.zeros(2), np.full(2, 0.1), np.eye(2), np.arange(2), np.zeros(2, int)
    )
    start = np.zeros((3, 5, 2))
    start[:, 1:, 0] = np.random.default_rng(0).uniform(0.5, 1.5, (3, 4))
    found = source_effects(Simulator(wiring, start, {0: plain, 1: plain}), 0, 0, horizon=3)[1]
    assert (found["n_samples"][:, 1].tolist() == [12, 9, 6, 3]
            and found["share_nonzero"][:, 1].tolist() == [0, 0, 1, 0])
    assert found["strength"][2, 1] == pytest.approx(0.5) and found["std"][2, 1] == pytest.approx(
        0, abs=1e-9
    )


def test_wirings_can_be_changed_and_compared():
    wiring = random_wiring(4)
    assert replace(wiring, edges=list(wiring.edges)) == wiring and hash(wiring) == hash(
        replace(wiring)
    )
    assert ({edge.kind for edge in wiring.edges} == {"mlp", "attention"}
            and {edge.gate_kind for edge in wiring.edges} == {None, "AND", "NOT", "sign-flip"})


def test_a_once_input_and_its_effect_stand_once_in_every_sequence():
    planted = plant(random_wiring(6, once=2))
    corpus = planted.corpus(30, 16)
    once = [given.variable for given in planted.wiring.inputs if given.once]
    assert ((planted.values[corpus.tokens.numpy()][..., once] > 0).sum(1) == 1).all()
    assert len(corpus.labels.names) == len(planted.wiring.live(planted.wiring.n_blocks))
