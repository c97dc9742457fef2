"""Cascades from measured edges: positions, several interventions, windows, error bars; effects in
context against plain passes."""

import networkx as nx
import numpy as np
import pytest
import torch

from feature_interaction_graph.control.context_effects import (
    ClampedContexts, SourceEffect, fit_context_effects, ridge_weights
)
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.steering import predict_cascade

def graph(*edges: tuple[str, str, dict]) -> nx.DiGraph:
    "A graph by hand; intervals of half-width 1.96 x `se`."
    G = nx.MultiDiGraph()
    for source, target, how in edges:
        strength, se = how["strength"], how.get("se", 0.0)
        G.add_edge(source, target, strength=strength, ci_lower=strength - 1.96 * se,
                   ci_upper=strength + 1.96 * se, offset=how.get("offset", 0))
    return G


def test_positions_add_up_along_a_composition() -> None:
    G = graph(
        ("L0_F0", "L1_F0", {"strength": 0.5, "offset": 2}),
        ("L1_F0", "L2_F0", {"strength": 0.5, "offset": 1}), ("L1_F0", "L2_F0", {"strength": 3.0})
    )
    told = predict_cascade(G, {"L0_F0": 2.0})
    assert (told.change("L2_F0", 3) == pytest.approx(0.5)
            and told.change("L2_F0", 2) == pytest.approx(3.0) and told.change("L2_F0", 0) == 0.0)


def test_a_measured_total_effect_is_not_added_to_its_paths() -> None:
    edges = [("L0_F0", "L1_F0", {"strength": 1.0}), ("L1_F0", "L2_F0", {"strength": 1.0}),
             ("L0_F0", "L2_F0", {"strength": 1.0})]
    assert predict_cascade(graph(*edges), {"L0_F0": 1.0}).change("L2_F0") == pytest.approx(1.0)
    assert predict_cascade(
        graph(*edges), {"L0_F0": 1.0}, window=1
    ).change("L2_F0") == pytest.approx(1.0)


def test_linear_systems_are_predicted_exactly_however_they_are_cut() -> None:
    """Random linear layers: the product of the layers' matrices is the total effect; every window
    gives it."""
    random = np.random.default_rng(0)
    steps = [random.standard_normal((4, 4)) for _ in range(4)]
    edges = []
    for first in range(4):
        total = np.eye(4)
        for last in range(first, 4):
            total = total @ steps[last]
            edges += [(f"L{first}_F{i}", f"L{last + 1}_F{j}", {"strength": total[i, j]})
                      for i in range(4) for j in range(4)]
    G = graph(*edges)
    truth = np.array([1.0, -2.0, 0.0, 0.5]) @ steps[0] @ steps[1] @ steps[2] @ steps[3]
    for window in (1, 2, 3, 4, None):
        told = predict_cascade(G, {"L0_F0": 1.0, "L0_F1": -2.0, "L0_F3": 0.5}, window=window)
        assert np.allclose([told.change((4, j)) for j in range(4)], truth), window


def test_a_clamped_feature_in_between_keeps_its_own_value_and_passes_on_only_that() -> None:
    "Same layers; one feature of layer 2 is held: the rest of the stream goes on without it."
    random = np.random.default_rng(1)
    first, second = random.standard_normal((3, 3)), random.standard_normal((3, 3))
    total = first @ second
    edges = [
        (f"L0_F{i}", f"L1_F{j}", {"strength": first[i, j]}) for i in range(3) for j in range(3)
    ]
    edges += [
        (f"L1_F{i}", f"L2_F{j}", {"strength": second[i, j]}) for i in range(3) for j in range(3)
    ]
    edges += [
        (f"L0_F{i}", f"L2_F{j}", {"strength": total[i, j]}) for i in range(3) for j in range(3)
    ]
    between = first[0].copy()
    between[1] = 0.25
    for window in (1, None):
        told = predict_cascade(graph(*edges), {"L0_F0": 1.0, "L1_F1": 0.25}, window=window)
        assert np.allclose([told.change((2, j)) for j in range(3)], between @ second)
        assert told.change("L1_F1") == 0.0 and told.change("L1_F2") == pytest.approx(first[0, 2])


def test_errors_of_a_composition_against_simulation() -> None:
    G = graph(("L0_F0", "L1_F0", {"strength": 0.5, "se": 0.1}),
              ("L0_F0", "L1_F1", {"strength": -0.3, "se": 0.2}),
              ("L1_F0", "L2_F0", {"strength": 0.8, "se": 0.15}),
              ("L1_F1", "L2_F0", {"strength": 0.4, "se": 0.1}))
    row = predict_cascade(G, {"L0_F0": 3.0}).table.set_index("feature").loc["L2_F0"]
    random = np.random.default_rng(0)
    def drawn(mean: float, se: float) -> np.ndarray: return random.normal(mean, se, 400_000)
    simulated = 3 * (drawn(0.5, 0.1) * drawn(0.8, 0.15) + drawn(-0.3, 0.2) * drawn(0.4, 0.1))
    assert (row["change"] == pytest.approx(simulated.mean(), abs=0.005)
            and row["se"] == pytest.approx(simulated.std(), rel=0.01))


def test_several_gates_move_the_strength_each_from_the_mean() -> None:
    G = nx.DiGraph()
    G.add_edge("L0_F0", "L1_F0", strength=0.5, ci_lower=0.4, ci_upper=0.6, offset=0)
    G.graph["hyperedges"] = [
        {"source": "L0_F0", "gate": f"L0_F{k}", "target": "L1_F0", "effect_off": off,
         "effect_on": on, "offset": 0} for k, off, on in ((1, 0.2, 0.9), (2, 0.6, 0.1))
    ]
    def told(*active: str) -> float:
        return predict_cascade(G, {"L0_F0": 1.0}, active=active).change("L1_F0")
    assert told() == pytest.approx(0.5 - 0.3 + 0.1) and told("L0_F1") == pytest.approx(
        0.5 + 0.4 + 0.1
    ) and told("L0_F1", "L0_F2") == pytest.approx(0.5 + 0.4 - 0.4)
    assert predict_cascade(G, {"L0_F0": 1.0}).change("L1_F0") == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("interventions", "words"),
    [({"L9_F1": 1.0}, "not among"), ({}, "no intervention"), ({"L1_F0": 1.0}, "no measured effect")]
)
def test_wrong_questions(interventions: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        predict_cascade(graph(("L0_F0", "L1_F0", {"strength": 1.0})), interventions)


def test_dual_ridge_equals_the_primal_one() -> None:
    "Predictors written out, (push, push^2) x (1, z), and solved the ordinary way."
    generator = torch.Generator().manual_seed(0)
    push, states = torch.randn(30, 3, generator=generator), torch.randn(30, 5, generator=generator)
    changes = torch.randn(30, 3, 4, generator=generator)
    def predictors(push: torch.Tensor, states: torch.Tensor, spread: float) -> torch.Tensor:
        scaled = push.T.reshape(-1, 1) / spread
        context = torch.cat([torch.ones(len(states), 1), states], 1).repeat(push.shape[1], 1)
        return torch.cat([scaled * context, scaled ** 2 * context], 1)
    spread = float(push.abs().mean())
    x = predictors(push, states, spread)
    weights, ridge = ridge_weights(x @ x.T, changes.transpose(0, 1).flatten(0, 1), 30)
    effect = SourceEffect(push, states, weights, spread, ridge)
    unit = float((x @ x.T).diagonal().mean())
    primal = torch.linalg.solve(
        x.T @ x + ridge * unit * torch.eye(x.shape[1]), x.T @ changes.transpose(0, 1).flatten(0, 1)
    )
    new_push = torch.randn(7, 3, generator=generator)
    new_states = torch.randn(7, 5, generator=generator)
    expected = (predictors(new_push, new_states, spread) @ primal).unflatten(0, (3, 7)).transpose(
        0, 1
    )
    assert torch.allclose(effect(new_push, new_states), expected, atol=1e-4)
    assert torch.allclose(effect.gates(), primal[1:6] / spread, atol=1e-4)


def test_predictions_look_only_at_the_clean_context() -> None:
    "Wiping the changes of the contexts to predict changes nothing."
    from feature_interaction_graph.control.context_effects import clamped_contexts
    from feature_interaction_graph.planted.models import plant_gate
    planted = plant_gate("AND")
    clamps = clamped_contexts(planted.model, planted.saes, [(0, planted.feature(0, 0))],
                              planted.corpus(100, 16), n_samples=80, progress=False)
    fit = fit_context_effects(clamps, planted.saes)
    blank = ClampedContexts(**{**clamps.__dict__,
                               "changes": {layer: torch.full_like(change, torch.nan)
                                           for layer, change in clamps.changes.items()}})
    assert torch.equal(fit.change(clamps, 1), fit.change(blank, 1))
