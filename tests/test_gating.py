"""Gates: against plain forward passes with two hooks, on their way into graphs and files, and what
is refused."""
from math import comb

import numpy as np
import pytest
import torch
from sae_lens import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.sae import SAEMetadata
from transformers import AutoModelForCausalLM, LlamaConfig

from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.graph import build_interaction_graph, load_graph, save_graph
from feature_interaction_graph.interactions import clamp_measure
from feature_interaction_graph.measurement.gating import (
    GATING_COLUMNS, GatingTable, direction_of, gate_screen, measure_gating
)
from feature_interaction_graph.planted.models import null_planted, plant_gate

@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig(
        num_hidden_layers=3, hidden_size=16, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=32, vocab_size=50, bos_token_id=0, eos_token_id=0
    )
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim == 2: parameter.data.normal_(0, 0.3)
    return model


def sae_at(hook_name: str, seed: int) -> JumpReLUSAE:
    generator = torch.Generator().manual_seed(seed)
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=16, d_sae=30, metadata=SAEMetadata(
                                            hook_name=hook_name, model_name="tiny", prepend_bos=True
                                        ))).requires_grad_(False)
    sae.W_enc.data = torch.randn(16, 30, generator=generator)
    sae.W_dec.data = torch.nn.functional.normalize(torch.randn(30, 16, generator=generator), dim=-1)
    sae.threshold.data.fill_(0.5)
    return sae


@pytest.fixture
def saes() -> dict:
    return {1: sae_at("blocks.1.hook_resid_pre", 1), 3: sae_at("blocks.2.hook_resid_post", 2)}


@pytest.fixture
def corpus(ragged_corpus):
    return ragged_corpus(80, 12, 50)


def test_four_corners_are_those_of_plain_forward_passes(model, saes, corpus):
    """With every firing used, the two effects are means over passes in which one hook sets both
    features."""
    source, gate, target = 3, 9, 7
    table = measure_gating(model, saes, [((1, source), (3, target))], corpus, gates=[(1, gate)],
                           n_samples=10**5, max_per_sequence=100, min_samples=2, progress=False)
    assert len(table) == 1
    row = {name: values[0] for name, values in table.columns.items()}
    sae, last = saes[1], saes[3]
    everywhere = []
    for sequence, length in zip(corpus.tokens, corpus.lengths.tolist(), strict=True):
        found = []
        handle = model.model.layers[1].register_forward_pre_hook(
            lambda module, args, kwargs, found=found: found.append(
                args[0] if args else kwargs["hidden_states"]
            ), with_kwargs=True
        )
        model(sequence[None, :length])
        handle.remove()
        everywhere.append(sae.encode(found[0])[0])
    fired = [values[1:, source][values[1:, source] > 0] for values in everywhere]
    low, high = np.percentile(torch.cat(fired).numpy(), [10, 90])
    on = np.percentile(
        torch.cat([values[1:, gate][values[1:, gate] > 0] for values in everywhere]).numpy(), 90
    )
    effects = []
    for sequence, length, values in zip(
        corpus.tokens, corpus.lengths.tolist(), everywhere, strict=True
    ):
        for position in (values[:, source] > 0).nonzero()[:, 0].tolist():
            if position == 0: continue
            corner = {}
            for alpha in (low, high):
                for beta in (0.0, on):
                    def push(module, args, kwargs, position=position, values=values, alpha=alpha,
                             beta=beta):
                        stream = (args[0] if args else kwargs["hidden_states"]).clone()
                        stream[0, position] += (
                            alpha - values[position, source]
                        ) * sae.W_dec[source] + (beta - values[position, gate]) * sae.W_dec[gate]
                        return ((stream, *args[1:]), kwargs) if args else (
                            args, {**kwargs, "hidden_states": stream}
                        )
                    out = []
                    hooks = [
                        model.model.layers[1].register_forward_pre_hook(push, with_kwargs=True),
                        model.model.layers[2].register_forward_hook(
                            lambda module, args, output, out=out: out.append(
                                output[0] if isinstance(output, tuple) else output
                            )
                        )
                    ]
                    model(sequence[None, :length])
                    for hook in hooks: hook.remove()
                    corner[alpha, beta] = float(
                        last.encode(out[0].reshape(1, length, -1))[0, position, target]
                    )
            effects.append(
                [(corner[high, beta] - corner[low, beta]) / (high - low) for beta in (0.0, on)]
            )
    off_on = np.mean(effects, 0)
    assert row["n_samples"] == len(effects) > 20
    np.testing.assert_allclose([row["effect_off"], row["effect_on"], row["interaction"]],
                               [*off_on, off_on[1] - off_on[0]], atol=1e-4)
    assert abs(row["interaction"]) > 1e-2


def test_directions():
    found = direction_of(np.array([0.0, 0.9, -0.5, 0.4, 0.1]), np.array([0.8, 0.05, 0.5, 0.9, 0.6]))
    assert found.tolist() == ["AND", "NOT", "sign-flip", "modulation", "AND"]


def test_screen_finds_what_a_mean_hides():
    generator = np.random.default_rng(0)
    gate, other = generator.random(100) < 0.5, generator.random(100) < 0.5
    effects = np.where(gate, 0.7, -0.7)[:, None] + generator.normal(0, 0.1, (100, 1))
    p = gate_screen(effects, np.stack([gate, other], 1))
    assert p[0, 0] < 1e-30 and p[1, 0] > 1e-3


@pytest.mark.parametrize("kind", ["sign-flip", "AND", "NOT"])
def test_a_gate_survives_in_the_graph_and_its_files(kind, tmp_path):
    "Even one whose mean effect is 0: as an edge of its own type, as a hyperedge, in every format."
    planted = plant_gate(kind)
    corpus = planted.corpus(200, 24, seed=1)
    source = (0, planted.feature(0, 0))
    gate = (0, planted.feature(0, 1))
    target = (1, planted.feature(1, 2))
    table = clamp_measure(planted.model, planted.saes, [source], corpus, progress=False)
    gates = measure_gating(planted.model, planted.saes, table, corpus, progress=False)
    graph = build_interaction_graph(table, gates=gates)
    ids = ["L{}_F{}".format(*end) for end in (source, gate, target)]
    (hyperedge,) = [edge for edge in graph.graph["hyperedges"]
                    if [edge["source"], edge["gate"], edge["target"]] == ids]
    assert hyperedge["direction"] == kind and hyperedge["q_value"] < 0.01
    assert graph.edges[ids[0], ids[2]]["interaction_type"] == (
        "gating" if kind == "sign-flip" else "excitatory"
    )
    for suffix in ("graphml", "json", "h5", "pkl"):
        path = save_graph(graph, tmp_path / f"graph.{suffix}")
        again = load_graph(path, allow_pickle=suffix == "pkl")
        assert (again.graph["hyperedges"] == graph.graph["hyperedges"]
                and again.edges[ids[0], ids[2]] == graph.edges[ids[0], ids[2]])


def test_noise_is_no_gate():
    planted, pairs = null_planted(3, 6)
    gates = measure_gating(
        planted.model, planted.saes, pairs, planted.corpus(300, 24, seed=3), progress=False
    )
    assert len(gates.significant(0.01)) == 0 and gates.meta["counts"]["screened"] > 20


def test_refusals(model, saes, corpus):
    edges = [((1, 3), (3, 7))]
    for ask, words in (
        (lambda: measure_gating(model, saes, [], corpus), "no pair was given"),
        (lambda: measure_gating(model, saes, [((3, 7), (1, 3))], corpus), "downstream"),
        (lambda: measure_gating(model, saes, edges, corpus, gates=[(1, 99)]), "does not exist"),
        (lambda: measure_gating(model, saes, edges, corpus, gates=[(3, 1)]), "layer 3"),
        (lambda: measure_gating(model, saes, edges, corpus, min_samples=1000, progress=False),
         "fires in 1000 sequences"),
        (lambda: GatingTable({"src_layer": np.zeros(1)}), "without the column")
    ):
        with pytest.raises(InputError, match=words): ask()


def test_an_empty_table_has_its_columns(model, saes, corpus):
    table = measure_gating(
        model, saes, [((1, 3), (3, 7))], corpus, screen_level=0.0, progress=False
    )
    assert (len(table) == 0 and set(table.columns) == set(GATING_COLUMNS)
            and table.meta["counts"]["clamped"] == 0 and str(table) == "no hyperedge")


def test_sides_without_spread_differ_by_chance_in_two_of_all_splits():
    on = np.arange(20) < 9
    assert gate_screen(on[:, None] * 1.0, on[:, None])[0, 0] == pytest.approx(2 / comb(20, 9))


def test_the_best_gates_are_those_of_each_pair_and_offset(model, saes, corpus):
    pairs = [((1, 3), (3, target)) for target in range(4)]
    how = dict(n_samples=40, min_split=5, horizon=1, screen_level=1.1, progress=False)
    every = measure_gating(model, saes, pairs, corpus, max_gates=30, **how).to_pandas()
    best = measure_gating(model, saes, pairs, corpus, max_gates=2, **how).to_pandas()
    group = ["tgt_feature", "offset"]
    assert (best.groupby(group).size() == 2).all() and best.groupby(group).ngroups == 8
    for which, some in every.groupby(group):
        smallest = some.sort_values("screen_q_value", kind="stable")["screen_q_value"].iloc[:2]
        chosen = best[(best["tgt_feature"] == which[0]) & (best["offset"] == which[1])]
        np.testing.assert_allclose(sorted(chosen["screen_q_value"]), smallest)
