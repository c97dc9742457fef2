"""Circuits: equal to the wiring of planted models, numbers against their definitions, heads against
plain hooks, files, and what is refused."""
import dataclasses

import networkx as nx
import numpy as np
import pytest
import torch

from feature_interaction_graph.circuits.behaviors import Behavior
from feature_interaction_graph.circuits.graph import (
    behavior_graph, firing_sequences, behavior_corpus
)
from feature_interaction_graph.circuits.heads import circuit_head_patching, head_patching
from feature_interaction_graph.circuits.library import demo_behavior
from feature_interaction_graph.circuits.scores import (
    attribution, behavior_model, exact_effects, score_features
)
from feature_interaction_graph.circuits.search import Elimination, eliminate, prune
from feature_interaction_graph.circuits.validation import (
    circuit_stability, random_circuits, share_of, validate_subgraph
)
from feature_interaction_graph.drawing.packed import data_in
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.engine.names import feature_id
from feature_interaction_graph.graph import build_interaction_graph, load_graph
from feature_interaction_graph.interactions import clamp_measure
from feature_interaction_graph.measurement.gating import measure_gating
from feature_interaction_graph.planted.models import plant, plant_gate
from feature_interaction_graph.planted.wiring import Edge, Input, Wiring
from feature_interaction_graph.subgraphs import BehaviorSubgraph, extract_behavior_subgraph
from feature_interaction_graph.visualization import (
    plot_circuit, render_interactive_graph, shown_part
)

# ---- planted models


def planted_behavior(planted, variable: int, n: int, seed: int) -> Behavior:
    """Texts with their last token exchanged, the one with more of `variable` at the end as the
    prompt; the metric reads the variable out of the logits."""
    tokens = planted.corpus(6 * n, 12, seed=seed).tokens
    other = tokens.clone()
    other[:, -1] = tokens.roll(1, 0)[:, -1]
    # logits per variable
    weights = planted.hf_model.lm_head.weight.double() @ torch.as_tensor(
        planted.dictionary.vectors
    ).double().T
    readout = torch.linalg.pinv(weights).float()
    def value_of(logits, tokens=None): return (logits @ readout.T)[:, variable]
    gap = value_of(planted.hf_model(tokens).logits[:, -1]) - value_of(
        planted.hf_model(other).logits[:, -1]
    )
    rows = (gap.abs() > 0.05).nonzero()[:, 0][:n]
    turned = (gap[rows] < 0)[:, None]
    return Behavior(
        f"v{variable}", torch.where(turned, other[rows], tokens[rows]).tolist(), metric=value_of,
        counterfactuals=torch.where(turned, tokens[rows], other[rows]).tolist()
    )


def measured_graph(planted, corpus) -> nx.DiGraph:
    layers = sorted(planted.saes)
    sources = [(layer, planted.feature(layer, variable)) for layer in layers[:-1]
               for variable in planted.wiring.live(layer)]
    table = clamp_measure(
        planted.model, planted.saes, sources, corpus, n_samples=40, progress=False
    )
    gated = any(edge.gate is not None for edge in planted.wiring.edges)
    return build_interaction_graph(table, gates=measure_gating(
                                       planted.model, planted.saes, table, corpus, progress=False
                                   ) if gated else None)


WIRINGS = {
    "chain": (lambda: plant(
                  Wiring(6, 3, [Input(0, rate=0.4), Input(3, rate=0.3), Input(4, rate=0.3)],
                         [Edge(0, 1, 0, 0.9), Edge(1, 2, 1, 0.8), Edge(3, 5, 0, 0.7)]), negative=0.0
              ), 2),
    "fork and join": (
        lambda: plant(Wiring(6, 2, [Input(0, rate=0.4), Input(4, rate=0.4)],
                             [Edge(0, 1, 0, 0.9), Edge(0, 2, 0, 0.6), Edge(1, 3, 1, 0.8),
                              Edge(2, 3, 1, 0.7), Edge(4, 5, 0, 0.9)]), negative=0.0), 3
    ),
    "inhibition": (
        lambda: plant(Wiring(4, 2, [Input(0, rate=0.4), Input(1, rate=0.9, low=1.5, high=2.5),
                                    Input(3, rate=0.5)], [Edge(0, 1, 0, -0.6), Edge(3, 2, 0, 0.8)]),
                      negative=0.0), 1
    ),
    "gate": (lambda: plant_gate("AND"), 2),
}


@pytest.mark.parametrize("name", WIRINGS)
def test_circuits_of_planted_models_are_their_wiring(name):
    """Precision and recall 1 against the simulator's total effects on the variable at the end;
    faithful and necessary on other texts."""
    make, variable = WIRINGS[name]
    planted = make()
    corpus = planted.corpus(200, 16, seed=1)
    G = measured_graph(planted, corpus)
    circuit = extract_behavior_subgraph(
        planted.model, planted.saes, G, planted_behavior(planted, variable, 40, 3), budget=40
    )
    last = max(planted.saes)
    end = feature_id(last, planted.feature(last, variable))
    truth = planted.truth(corpus)
    gates = {gate["gate"] for gate in truth.graph["hyperedges"] if gate["target"] == end} | {
        gate["source"] for gate in truth.graph["hyperedges"] if gate["target"] == end}
    assert set(circuit.nodes) == {end, *truth.predecessors(end), *gates} and circuit.nodes
    judged = validate_subgraph(planted.model, planted.saes, circuit,
                               planted_behavior(planted, variable, 30, 11), n_random=0)
    for share in (
        judged.faithfulness["mean"], judged.faithfulness["resample"], judged.necessity["mean"]
    ):
        assert abs(share.value - 1) < 1e-3


def test_only_measured_edges_are_followed():
    """On a graph that has the chain's features in one line only: from one seed, one hop is its
    neighbours on the line; without edges there, nothing."""
    planted = WIRINGS["chain"][0]()
    G = measured_graph(planted, planted.corpus(200, 16, seed=1))
    behavior = planted_behavior(planted, 2, 30, 3)
    everything = sorted(extract_behavior_subgraph(planted.model, planted.saes, G, behavior).nodes)
    line = nx.create_empty_copy(G)
    line.add_edges_from((*pair, {"strength": 1.0, "interaction_type": "excitatory"})
                        for pair in zip(everything, everything[1:], strict=False))
    circuit = extract_behavior_subgraph(
        planted.model, planted.saes, line, behavior, n_seeds=1, n_hops=1, tolerance=-1.0
    )
    (seed,) = circuit.seeds
    assert len(everything) > 3 and set(circuit.nodes) == {
        seed, *line.predecessors(seed), *line.successors(seed)
    } < set(everything)
    line.remove_edges_from([*line.in_edges(seed), *line.out_edges(seed)])
    with pytest.raises(InputError, match="no edge of strength 0"):
        extract_behavior_subgraph(planted.model, planted.saes, line, behavior, n_seeds=1)


# ---- the demo

@pytest.fixture(scope="module")
def demo():
    from feature_interaction_graph.config import Config
    from feature_interaction_graph.loading import load_model_and_saes
    return load_model_and_saes(Config.preset("demo"))


@pytest.fixture(scope="module")
def agreement(demo):
    "Prompts to find on, prompts to judge on, graph, circuit."
    found, judged = demo_behavior("agreement", 40).split(0.5)
    G = behavior_graph(*demo, found, n_features=120, n_samples=24)
    return (
        found, judged, G, extract_behavior_subgraph(*demo, G, found, budget=45, n_exact=30, steps=3)
    )


def test_scores_add_up_and_effects_are_exact(demo):
    on = behavior_model(*demo, demo_behavior("pronoun", 6))
    scores = score_features(on, n_exact=8)
    assert scores.table["effect"].notna().sum() == 8 and abs(scores.missing) < 0.5
    some = scores.table.dropna(subset=["effect"])
    without = on.everything().repeat(8, 1)
    without[torch.arange(8), torch.tensor(some["number"].tolist())] = False
    expected = on.clean.mean() - on.values(without).mean(1)
    np.testing.assert_allclose(some["effect"], expected, atol=1e-4)
    assert ((some["ci_low"] <= some["effect"]) & (some["effect"] <= some["ci_high"])).all()
    inside = torch.zeros_like(on.everything()[0])
    inside[torch.tensor(some["number"].tolist())] = True
    assert float(attribution(on, inside)[~inside].abs().max()) == 0
    alone = exact_effects(on, some["number"].to_numpy()[:1], inside)
    inside_without = inside.clone()
    inside_without[int(some["number"].iloc[0])] = False
    assert torch.allclose(
        alone[0], (on.values(inside[None]) - on.values(inside_without[None]))[0], atol=1e-5
    )


def test_the_circuit_of_agreement(demo, agreement):
    found, judged, G, circuit = agreement
    assert len(circuit) <= 45 and set(circuit.nodes) <= set(G) and set(circuit.graph.edges) <= set(
        G.edges
    )
    assert [circuit.graph.nodes[node]["rank"] for node in circuit.nodes] == list(
        range(1, len(circuit) + 1)
    )
    for source, target in circuit.graph.edges:
        assert circuit.graph.edges[source, target] == G.edges[source, target]
    verdict = validate_subgraph(
        *demo, circuit, judged, n_halves=2, minimality=False, sizes=[len(circuit)]
    )
    assert (verdict.faithfulness["mean"].value > 0.75 and verdict.random["n"] == 20
            and verdict.random["largest"] < 0.2)
    assert verdict.necessity["mean"].value > 0.8 and verdict.share_of_active < 0.05
    assert abs(verdict.curve[-1]["faithfulness"] - verdict.faithfulness["mean"].value) < 1e-6
    assert circuit.top(5).nodes == circuit.nodes[:5] and str(circuit).startswith("agreement: ")


def test_a_circuit_is_found_again(demo, agreement):
    found, _, G, circuit = agreement
    again = extract_behavior_subgraph(*demo, G, found, budget=45, n_exact=30, steps=3)
    assert again.nodes == circuit.nodes and again.facts == circuit.facts


@pytest.mark.parametrize("suffix", ["json", "graphml", "h5"])
def test_files(agreement, tmp_path, suffix):
    circuit = agreement[3]
    again = BehaviorSubgraph.load(circuit.save(tmp_path / f"circuit.{suffix}"))
    assert (again.nodes == circuit.nodes and again.seeds == circuit.seeds
            and again.facts == circuit.facts)
    page = render_interactive_graph(
        load_graph(tmp_path / f"circuit.{suffix}"), seed_nodes=circuit.seeds
    )
    (shown,) = data_in(page.html)
    assert circuit.nodes[0] in shown["nodes"]["id"]


def test_diagram(agreement, tmp_path):
    circuit = agreement[3]
    part = shown_part(circuit, 12, 2)
    assert len(part) == 12 and set(part.edges) <= set(circuit.graph.edges)
    plot_circuit(circuit, tmp_path / "circuit.svg", max_nodes=12)
    text = (tmp_path / "circuit.svg").read_text()
    assert "svg" in text and (tmp_path / "circuit.svg").stat().st_size > 10_000
    awkward = dataclasses.replace(circuit, graph=nx.relabel_nodes(circuit.graph, {}, copy=True))
    for node in awkward.graph: awkward.graph.nodes[node]["label"] = "a $math$ <b>label</b> \x00" * 3
    plot_circuit(awkward, tmp_path / "awkward.png")


def test_random_circuits_have_the_layer_profile(demo):
    on = behavior_model(*demo, demo_behavior("agreement", 4))
    kept = on.ablated.mask([(0, 3), (0, 5), (2, 7), (4, 1), (4, 2), (4, 3)])
    drawn = random_circuits(on, kept, 50, seed=1)
    profile = [int(kept[start:stop].sum())
               for start, stop in zip(on.ablated.starts, on.ablated.starts[1:], strict=False)]
    for row in drawn:
        assert [int(row[start:stop].sum()) for start, stop
                in zip(on.ablated.starts, on.ablated.starts[1:], strict=False)] == profile
    assert not bool((drawn & ~(on.ablated.active() | kept)).any()) and len(
        {tuple(row.nonzero()[:, 0].tolist()) for row in drawn}
    ) == 50


def test_bootstrap_interval_of_a_share_covers():
    "95 % of intervals hold the true share, within what 200 simulations can tell."
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for seed in range(200):
        whole = 4 + torch.randn(60, generator=generator)
        part = 3 + torch.randn(60, generator=generator)
        empty = torch.randn(60, generator=generator)
        share = share_of(part, whole, empty, 400, seed)
        covered += share.low <= 0.75 <= share.high
    assert 178 <= covered <= 199


def test_smallest_size_on_a_path():
    path = Elimination([], [100, 80, 60, 40, 20], [1.0, 0.95, 0.7, 0.9, 0.1])
    assert (path.smallest(0.9) == 80 and path.smallest(0.65) == 40 and path.smallest(0.05) == 20
            and path.smallest(2.0) == 100)


def test_pruning_spares_what_stands_in_for_each_other(demo):
    """No node goes without the others' leave: the metric moves by less than the tolerances of all
    that went."""
    on = behavior_model(*demo, demo_behavior("agreement", 6))
    ends = {"whole": float(on.clean.mean()), "empty": float(on.values(on.nothing()).mean())}
    path = eliminate(on, on.ablated.active(), factor=0.6, steps=2, last=60)
    kept = torch.zeros_like(on.ablated.active())
    kept[path.ranking[:60]] = True
    left, effects = prune(on, kept, **ends, tolerance=0.01)
    gone = int(kept.sum()) - int(left.sum())
    moved = abs(float(on.values(kept[None]).mean() - on.values(left[None]).mean())) / (
        ends["whole"] - ends["empty"]
    )
    assert (gone > 3 and moved <= 0.01 * gone + 1e-6 and len(effects) == int(left.sum())
            and not bool((left & ~kept).any()))


def test_graph_of_prompts(demo):
    on = behavior_model(*demo, demo_behavior("agreement", 6))
    corpus = behavior_corpus(on)
    distinct = {tuple(row.tolist()) for part in (on.tokens.prompts, on.tokens.counterfactuals)
                for row in part}
    assert len(corpus) == len(distinct) and {
        tuple(row.tolist()) for row in corpus.tokens
    } == distinct
    count = firing_sequences(on, corpus)
    place = on.ablated.places[2]
    start = int(on.ablated.starts[2])
    from feature_interaction_graph.engine.residuals import clean_residuals
    stream = clean_residuals(on.ablated.twin, corpus.tokens, [place.point])[place.point.name]
    assert np.array_equal(count[start:start + place.reader.width],
                          (place.sae.encode(stream)[:, 1:] > 0).any(1).sum(0).numpy())


def test_heads_inside_a_circuit_of_everything_but_errors(demo):
    """Patching a head with all features kept is a plain run in which the SAE errors stay those of
    the clean prompt: by hand, for one head."""
    model, saes = demo
    behavior = demo_behavior("agreement", 4)
    on = behavior_model(model, saes, behavior)
    inside = circuit_head_patching(
        model, saes, on.ablated.names(range(on.ablated.n_features)), behavior
    )
    blocks, layer, head = on.ablated.twin.transformer.h, 2, 1
    columns, kept = slice(32 * head, 32 * head + 32), []
    handle = blocks[layer].attn.c_proj.register_forward_pre_hook(
        lambda module, args: kept.append(args[0])
    )
    on.ablated.twin(on.tokens.counterfactuals)
    handle.remove()
    errors = {place.layer: place.clean - place.sae.decode(place.sae.encode(place.clean))
              for place in on.ablated.places}
    def rebuilt(key, stream):
        return torch.cat([on.ablated.places[key].clean[:, :1],
                          (saes[key].decode(saes[key].encode(stream)) + errors[key])[:, 1:]], 1)
    handles = [block.register_forward_pre_hook(
                   lambda module, args, key=key: (rebuilt(key, args[0]), *args[1:])
               ) for key, block in enumerate(blocks)]
    handles.append(blocks[3].register_forward_hook(lambda module, args, output: rebuilt(4, output)))
    def swap(module, args):
        changed = args[0].clone()
        changed[..., columns] = kept[0][..., columns]
        return (changed,)
    handles.append(blocks[layer].attn.c_proj.register_forward_pre_hook(swap))
    after = behavior.value(on.ablated.twin(on.tokens.prompts).logits[:, -1], on.tokens)
    for handle in handles: handle.remove()
    assert torch.allclose(
        on.clean - after, torch.as_tensor(inside.effects[layer, head]).float(), atol=1e-3
    )
    assert abs(head_patching(model, behavior).value - float(on.clean.mean())) < 1e-4


# ---- what is refused

def test_refusals(demo, agreement):
    found, judged, G, circuit = agreement
    quick = {"n_exact": 5, "steps": 1}
    no_edges = nx.create_empty_copy(G)
    far = nx.DiGraph()
    for node in ("L0_F1", "L1_F1"): far.add_node(node, layer=int(node[1]), feature_idx=1)
    far.add_edge("L0_F1", "L1_F1", strength=0.5, interaction_type="excitatory")
    alone = Behavior("alone", found.prompts, found.answers, metric="probability")
    longer = dataclasses.replace(
        found, counterfactuals=[f"{prompt} ." for prompt in found.counterfactuals]
    )
    for ask, words in (
        (lambda: extract_behavior_subgraph(*demo, nx.DiGraph(), found), "no edges"),
        (lambda: extract_behavior_subgraph(*demo, no_edges, found), "no edges"),
        (lambda: extract_behavior_subgraph(*demo, far, found, **quick), "none of the"),
        (lambda: extract_behavior_subgraph(*demo, G, found, min_strength=1e9, **quick),
         "no edge of strength"),
        (lambda: extract_behavior_subgraph(*demo, G, demo_behavior("quotation", 12)),
         "does not have this behaviour"),
        (lambda: extract_behavior_subgraph(*demo, G, found, budget=0), "at least one node"),
        (lambda: extract_behavior_subgraph(*demo, G, alone, ablation="resample"), "counterfactual"),
        (lambda: validate_subgraph(*demo, circuit, judged, ablations=[]), "no kind of ablation"),
        (lambda: validate_subgraph(*demo, circuit, judged, ablations=["mean"], sizes=[999],
                                   n_random=0, minimality=False, n_halves=0), "999"),
        (lambda: validate_subgraph(*demo, ["L0_F9999"], judged), "features 0 to 511"),
        (lambda: head_patching(demo[0], longer), "another length"),
        (lambda: circuit_head_patching(*demo, circuit, judged, ablation="resample"),
         "mean or zero"),
        (lambda: circuit_stability(lambda behavior: ["L0_F1"], judged, 1), "at least 2"),
        (lambda: behavior_graph(*demo, found, n_features=1), "at least 2")
    ):
        with pytest.raises(InputError, match=words): ask()
