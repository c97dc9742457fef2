"""Edges, their attribution and the search for circuits: other architectures, faults that other
packages have had, questions without an answer."""
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from feature_interaction_graph import PromptPairs, discover, path_patching
from feature_interaction_graph.circuits.behaviors import Behavior
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.engine.hook_points import HookPoint
from feature_interaction_graph.patching.attribution import (
    attribute_attention, attribute_components
)
from feature_interaction_graph.patching.circuit_curves import circuit_curve
from feature_interaction_graph.patching.discovery import rank_edges
from feature_interaction_graph.patching.edge_circuit import load_circuit
from feature_interaction_graph.patching.edge_model import EdgeModel
from feature_interaction_graph.patching.edge_search import acdc_edges, edge_distance
from feature_interaction_graph.patching.edge_scores import EDGE_METHODS, score_edges
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


# grouped heads and rotary embedding; parallel blocks; ALiBi, the stream added inside
@pytest.mark.parametrize("name", ["llama", "gpt_neox", "bloom"])
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


def test_a_model_whose_heads_do_not_add_up_is_refused():
    with pytest.raises(InputError, match="cannot be taken apart into edges"):
        EdgeModel(random_model("gemma2"), random_pairs())


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
