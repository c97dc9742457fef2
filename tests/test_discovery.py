"""Edges, their attribution and the search for circuits: other architectures, faults that other
packages have had, questions without an answer."""
import contextlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from feature_interaction_graph import PromptPairs, discover, path_patching
from feature_interaction_graph.circuits.behaviors import Behavior
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.engine.hook_points import (
    HookPoint, catch, decoder_layers, edit, map_block, model_output
)
from feature_interaction_graph.patching.attribution import (
    attribute_attention, attribute_components
)
from feature_interaction_graph.patching.circuit_curves import circuit_curve
from feature_interaction_graph.patching.discovery import rank_edges
from feature_interaction_graph.patching.edge_circuit import load_circuit
from feature_interaction_graph.patching.edge_model import EdgeModel
from feature_interaction_graph.patching.edge_search import acdc_edges, edge_distance
from feature_interaction_graph.patching.edge_scores import (
    EDGE_METHODS, _by_mask, _by_receivers, score_edges
)
from feature_interaction_graph.planted.induction import (
    INDUCTION_EDGES, induction_prompts, induction_transformer
)

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
from architectures import random_model  # noqa: E402


def random_pairs(n=3, length=7, n_vocab=97, seed=0):
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randint(3, n_vocab, (n, length), generator=generator)
    corrupted = clean.clone()
    for row in range(n): corrupted[row, 1 + row] = 3 + (int(clean[row, 1 + row]) + 7) % 90
    return PromptPairs(clean.tolist(), corrupted.tolist(), [5] * n, [9] * n)


@pytest.fixture(scope="module")
def planted():
    "The induction model and its pairs."
    return induction_transformer(8), PromptPairs(*induction_prompts(8, 6, 6), name="induction")


# grouped heads and rotary embedding; parallel blocks; ALiBi, the stream added inside; norms behind
# heads and MLPs, soft caps, windows
@pytest.mark.parametrize("name", ["llama", "gpt_neox", "bloom", "gemma2", "olmo3", "glm4"])
def test_edges_are_paths_in_other_architectures(name):
    model, pairs = random_model(name), random_pairs()
    on = EdgeModel(model, pairs)
    torch.testing.assert_close(on.whole, on.values(torch.ones(1, len(on.grid)))[0])
    torch.testing.assert_close(on.empty, on.runs.other_values, atol=1e-4, rtol=1e-4)
    edges = [("head 0.1", "head 1.0 k"), ("head 0.0", "head 1.1 v"), ("mlp_out 0", "head 1.1 q"),
             ("resid_pre 0", "mlp_out 0"), ("mlp_out 0", "mlp_out 1"), ("head 1.0", "logits")]
    cut = torch.stack([~on.grid.mask([edge]) for edge in edges])
    found = on.values(cut.float()) - on.whole
    for edge, effect in zip(edges, found, strict=True):
        path = path_patching(model, pairs, [edge[0]], [edge[1]]).effects[0, 0]
        assert np.abs(effect.numpy() - path).max() < 1e-5 * max(1, float(on.whole.abs().max()))
        assert np.abs(path).max() > 0


def mixed_by_hand(on, keep):
    """The metric when every head, MLP and the logits see a stream of their own: each head by a pass
    of the plain hooked model that gives its block that stream. Queries, keys and values of a head
    have to be cut alike."""
    runs, layers = on.runs, decoder_layers(on.runs.engine.twin)
    cut = dict(zip(on.grid.names, (1 - keep).tolist(), strict=True))
    every, n_heads = torch.arange(len(on)), on.blocks.n_heads
    made = {"resid_pre 0": runs.streams(HookPoint("resid_pre", 0))}
    lent = dict(zip([each.name for each in on.grid.senders], on.lent, strict=True))
    def stream(receiver, depth):
        def given(name):
            share = cut.get((name, receiver), 0.0)
            return (1 - share) * made[name] + share * lent[name]
        found = given("resid_pre 0")
        for layer, block in enumerate(layers[:depth]):
            heads = sum(given(f"head {layer}.{head}") for head in range(n_heads))
            found = found + map_block(block).attn_out(heads)
            if (name := f"mlp_out {layer}") in made: found = found + given(name)
        return found
    def seen(layer, entering, catching, silent=False):
        "What the plain model has at a point when the block is given a stream."
        with contextlib.ExitStack() as hooks:
            hooks.enter_context(edit(layers, HookPoint("resid_pre", layer), lambda _: entering))
            if silent: hooks.enter_context(edit(layers, HookPoint("attn_out", layer),
                                                torch.zeros_like))
            caught = hooks.enter_context(catch(layers, [HookPoint(catching, layer)]))
            model_output(runs.engine.twin, runs.base)
        return caught[HookPoint(catching, layer).name]
    for layer, block in enumerate(layers):
        for head in range(n_heads):
            z = seen(layer, stream(f"head {layer}.{head} q", layer), "z")
            size = z.shape[-1] // n_heads
            alone = torch.zeros_like(z)
            alone[..., head * size:(head + 1) * size] = z[..., head * size:(head + 1) * size]
            made[f"head {layer}.{head}"] = map_block(block).out_projection(alone)
        name = f"mlp_out {layer}"
        made[name] = seen(layer, stream(name, layer + 1), "mlp_out", silent=True)
    ends = stream("logits", len(layers))[every, runs.lengths - 1]
    with edit(layers, HookPoint("resid_post", len(layers) - 1),
              lambda live: ends[:, None].expand_as(live)):
        return runs.metric(model_output(runs.engine.twin, runs.base).logits[:, -1])


@pytest.mark.parametrize("name", ["gemma2", "gemma3", "olmo2", "exaone4"])
@torch.no_grad()
def test_sets_of_edges_behind_norms_are_what_hooked_passes_give(name):
    "Many edges cut at once, of heads that share a norm among them: two of these do not add up."
    model, pairs = random_model(name), random_pairs()
    on, generator = EdgeModel(model, pairs), torch.Generator().manual_seed(0)
    of_head = [(one, two[:-2] if two.startswith("head") else two) for one, two in on.grid.names]
    for share in (0.2, 0.5, 0.9):
        kept = {edge: float(torch.rand(1, generator=generator) > share)
                for edge in dict.fromkeys(of_head)}
        keep = torch.tensor([kept[edge] for edge in of_head])
        expected, found = mixed_by_hand(on, keep), on.values(keep[None])[0]
        assert (found - expected).abs().max() < 1e-5 * max(1, float(expected.abs().max()))
    pair = [("head 0.0", "logits"), ("head 0.1", "logits")]
    alone = torch.stack([~on.grid.mask([edge]) for edge in pair] + [~on.grid.mask(pair)]).float()
    one, two, both = on.values(alone) - on.whole
    assert (both - one - two).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["gemma2", "llama"])
def test_estimates_are_derivatives_of_cutting_a_little(name):
    "A norm behind the heads included: by differences, of single edges."
    on = EdgeModel(random_model(name), random_pairs())
    found = score_edges(on, "eap").effects[:, 0]
    order = np.argsort(-np.abs(found).max(1))
    for edge in order[:40:8].tolist():
        keep = torch.ones(2, len(on.grid))
        keep[:, edge] += torch.tensor([0.02, -0.02])
        more, less = on.values(keep)
        slope = (less - more).numpy() / 0.04
        np.testing.assert_allclose(found[edge], slope, atol=0.02 * np.abs(found[edge]).max())


def test_estimates_behind_norms_are_those_by_receivers():
    "The two ways of one formula, where both hold."
    on = EdgeModel(random_model("llama"), random_pairs())
    rows, away = torch.arange(len(on)), on.lent[0] - on.base[0]
    for more in ({}, {"entering": on.entering[0] + 0.5 * away}, {"given": {3: on.lent[3]}}):
        torch.testing.assert_close(_by_mask(on, rows, **more), _by_receivers(on, rows, **more),
                                   atol=1e-5, rtol=1e-4)


# a norm between heads and their output matrix; attention that is no function of its own
@pytest.mark.parametrize("name, why", [("bitnet", "miss its stream"),
                                       ("gpt_neox_japanese", "no function of queries")])
def test_a_model_whose_heads_do_not_add_up_is_refused(name, why):
    with pytest.raises(InputError, match=f"cannot be taken apart into edges .*{why}"):
        EdgeModel(random_model(name), random_pairs())


def test_prompts_of_different_lengths(planted):
    "Padding changes nothing: each pair has the scores it has alone."
    model, _ = planted
    columns = [[*one, *two] for one, two in zip(
        induction_prompts(8, 2, 6), induction_prompts(8, 2, 7, seed=1), strict=True)]
    both = PromptPairs([list(map(int, row)) for row in columns[0]],
                       [list(map(int, row)) for row in columns[1]], *columns[2:])
    for method in ("eap", "exact"):
        together = score_edges(EdgeModel(model, both), method).effects
        for some in ([0, 1], [2, 3]):
            alone = score_edges(EdgeModel(model, PromptPairs.of(both.take(some))), method).effects
            assert np.abs(together[..., some] - alone).max() < 1e-4


# ---- faults that other packages have had

def test_nothing_is_remembered_from_other_prompts(planted):
    model, pairs = planted
    other = PromptPairs(*induction_prompts(8, 6, 6, seed=5), name="others")
    first = score_edges(EdgeModel(model, pairs), "eap").effects
    second = score_edges(EdgeModel(model, other), "eap").effects
    assert np.abs(first - second).max() > 0.01
    assert np.array_equal(first, score_edges(EdgeModel(model, pairs), "eap").effects)


def test_effects_of_heads_are_not_silently_zero(planted):
    model, pairs = planted
    for found in (attribute_components(model, pairs, "head", method="integrated-activations"),
                  attribute_attention(model, pairs)):
        assert np.abs(found.mean).max() > 0.5
    scores = score_edges(EdgeModel(model, pairs), "exact")
    heads = [number for number, edge in enumerate(scores.components) if "head" in edge[0]]
    assert np.abs(scores.scores[heads]).max() > 0.5


def test_every_layer_is_itself():
    "Not layer 0 for layer k: what is written at block k is what the model has there."
    model, pairs = random_model("llama"), random_pairs()
    on = EdgeModel(model, pairs)
    seen = on.trace(torch.arange(len(on)))
    written = dict(zip([each.name for each in on.grid.senders], torch.cat(seen.written),
                       strict=True))
    for layer in range(on.runs.engine.n_layers):
        known = on.runs.streams(HookPoint("mlp_out", layer))
        torch.testing.assert_close(written[f"mlp_out {layer}"], known, atol=1e-5, rtol=1e-4)
        heads = sum(out for name, out in written.items() if name.startswith(f"head {layer}."))
        known = on.runs.streams(HookPoint("attn_out", layer))
        torch.testing.assert_close(heads, known, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(written["mlp_out 0"], written["mlp_out 1"], atol=1e-3)


def test_the_model_is_as_it_was(planted):
    model, pairs = planted
    before = model(torch.tensor(pairs.clean)).logits
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks)
                for module in model.modules())
    discover(model, pairs, n_edges=3)
    attribute_attention(model, pairs)
    with pytest.raises(InputError, match="no token"): discover(model, random_pairs())
    assert torch.equal(before, model(torch.tensor(pairs.clean)).logits)
    assert hooks == sum(len(module._forward_hooks) + len(module._forward_pre_hooks)
                        for module in model.modules())


def test_negative_scores_are_kept(planted):
    "What lowers the metric is as much of a circuit as what raises it."
    model, pairs = planted
    order, scores = rank_edges(EdgeModel(model, pairs), "exact")
    turned = PromptPairs(pairs.clean, pairs.corrupted, pairs.wrong_answers, pairs.answers)
    back, negative = rank_edges(EdgeModel(model, turned), "exact")
    assert np.array_equal(order[:5], back[:5]) and np.allclose(scores[:5], -negative[:5])


# ---- circuits

@pytest.mark.parametrize("threshold", [0.02, 0.1])
def test_acdc_is_its_loop(threshold):
    "Edges tried at once keep what one after the other keeps, each against the last that was cut."
    on = EdgeModel(random_model("llama"), random_pairs())
    kept, now = torch.ones(len(on.grid), dtype=torch.bool), 0.0
    for edge in range(len(on.grid) - 1, -1, -1):
        kept[edge] = False
        distance = float(edge_distance(on, kept[None].float())[0])
        if distance - now < threshold: now = distance
        else: kept[edge] = True
    assert 0 < int(kept.sum()) < len(kept)
    assert torch.equal(acdc_edges(on, threshold), kept)


def test_a_circuit_survives_its_file(planted, tmp_path):
    circuit = discover(*planted, method="exact")
    assert set(circuit.edges) == set(INDUCTION_EDGES) and circuit.faithfulness > 0.95
    again = load_circuit(circuit.save(tmp_path / "circuit.json"))
    assert str(again) == str(circuit) and again.facts == circuit.facts
    curve = circuit_curve(EdgeModel(*planted), again)
    assert curve.smallest() == 5


def test_pairs_in_batches_have_the_scores_of_all(planted, monkeypatch):
    model, pairs = planted
    on = EdgeModel(model, pairs)
    whole = {method: score_edges(on, method).effects for method in EDGE_METHODS}
    monkeypatch.setattr(EdgeModel, "rows_that_fit", 5)
    small = EdgeModel(model, pairs)
    for method, effects in whole.items():
        assert np.abs(score_edges(small, method).effects - effects).max() < 1e-4, method


@pytest.mark.parametrize("how, words", [
    ({"method": "guess"}, "method 'guess' is unknown; use eap"),
    ({"n_edges": 1000}, "n_edges is 1000, but the model has 151 edges"),
    ({"n_edges": 0}, "n_edges is 0"), ({"ablation": "median"}, "ablation 'median' is unknown"),
    ({"steps": 0}, "steps is 0"),
])
def test_wrong_questions(planted, how, words):
    with pytest.raises(InputError, match=words): discover(*planted, **how)


def test_pairs_without_partners_are_refused(planted):
    model, pairs = planted
    for wrong, words in (
        (PromptPairs(pairs.clean, pairs.clean, pairs.answers, pairs.wrong_answers),
         "the same tokens, so nothing can be patched"),
        (PromptPairs(pairs.clean, [row[:-1] for row in pairs.corrupted], pairs.answers,
                     pairs.wrong_answers), "patching goes position by position"),
    ):
        with pytest.raises(InputError, match=words): discover(model, wrong)
    alone = Behavior("alone", pairs.clean, pairs.answers, None, pairs.wrong_answers)
    with pytest.raises(InputError, match="without corrupted prompts"): discover(model, alone)
