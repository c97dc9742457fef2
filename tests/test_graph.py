"""The graph against independent references (pandas, NetworkX), its files against fuzzing and
hostile input."""
import json
import math
import random
import sys
import tracemalloc
import types

import networkx as nx
import numpy as np
import pandas as pd
import pytest

from feature_interaction_graph.analysis import get_edge_type_subgraph
from feature_interaction_graph.config import Config
from feature_interaction_graph.drawing.html import select_for_display
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.features import FEATURE_COLUMNS, FeatureTable
from feature_interaction_graph.graph import (
    build_interaction_graph,
    find_nodes,
    get_subgraph,
    graph_summary,
    load_graph,
    part_of,
    save_graph,
    to_pytorch_geometric,
)
from feature_interaction_graph.graphs import columns
from feature_interaction_graph.graphs.feature_graph import FeatureGraph, FeatureMultiGraph
from feature_interaction_graph.graphs.hyperedges import DIRECTIONS, edge_size, gate_phrase
from feature_interaction_graph.measurement.table import COLUMNS, InteractionTable
from feature_interaction_graph.subgraphs import BehaviorSubgraph

AWKWARD_TEXT = ["", " padded ", "line\nbreak\ttab", "\r\n", "\x00\x07\x1b", "\ud800 alone",
                "\ufffe\uffff", "json:{", "json:", "</data><node id='x'/>", "]]>", "&amp;&#0;",
                "日本 é 😀", "'\"\\", "<script>alert(1)</script>"]


def random_table(n_rows: int, seed: int = 0) -> InteractionTable:
    """Random measurements over 4 layers, 3 offsets and 2 methods; (source, target, offset, method)
    is unique."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {"src_layer": rng.integers(0, 3, n_rows), "src_feature": rng.integers(0, 12, n_rows),
         "tgt_feature": rng.integers(0, 12, n_rows),
         "offset": rng.integers(0, 3, n_rows).astype(np.int32),
         "method": rng.choice(["clamping", "jacobian"], n_rows)}
    )
    frame["tgt_layer"] = frame["src_layer"] + rng.integers(1, 3, n_rows)
    frame = frame.drop_duplicates().reset_index(drop=True)
    n_rows = len(frame)
    frame["strength"] = rng.normal(size=n_rows)
    for name in (
        "strength_std", "pre_strength", "std", "variance", "ci_low", "ci_high", "p_value",
        "share_nonzero", "share_same_sign", "pre_std", "pre_p_value", "dose_low", "dose_high"
    ):
        frame[name] = rng.random(n_rows)
    frame["q_value"] = rng.random(n_rows) ** 4
    frame["n_samples"] = rng.integers(8, 100, n_rows).astype(np.int32)
    frame["interaction_type"] = np.where(
        rng.random(n_rows) < 0.1, "none",
        np.where(frame["strength"] > 0, "excitatory", "inhibitory")
    )
    meta = {"config": {"significance_level": 0.05, "edge_strength_threshold": 0.2},
            "counts": {"attempted": n_rows}, "versions": {}}
    return InteractionTable({name: frame[name].to_numpy() for name in COLUMNS}, meta)


def feature_table(**known: list) -> FeatureTable:
    "A table with the given columns; the others are NaN, labels empty."
    n_rows = len(known["layer"])
    return FeatureTable(
        {name: np.array(known.get(name, [""] * n_rows if name == "label" else [np.nan] * n_rows))
         for name in FEATURE_COLUMNS}
    )


@pytest.fixture(scope="module")
def table() -> InteractionTable: return random_table(900)


def same(left: object, right: object) -> bool:
    "Equal in value and in type, all the way down; NaN equals NaN."
    if type(left) is not type(right): return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list): return len(left) == len(right) and all(map(same, left, right))
    return left == right or (isinstance(left, float) and math.isnan(left) and math.isnan(right))


def same_graph(left: nx.DiGraph, right: nx.DiGraph) -> bool:
    edges = [list(G.edges(keys=True) if G.is_multigraph() else G.edges) for G in (left, right)]
    return (left.is_multigraph() == right.is_multigraph() and same(left.graph, right.graph)
            and list(left) == list(right) and edges[0] == edges[1]
            and all(same(left.nodes[node], right.nodes[node]) for node in left)
            and all(same(left.edges[edge], right.edges[edge]) for edge in edges[0]))


# ---- building

@pytest.mark.parametrize("multigraph", [False, True])
def test_edges_are_those_of_a_pandas_selection(table, multigraph):
    frame = pd.DataFrame(table.columns)
    kept = frame[
        (frame.q_value < 0.05) & (frame.strength.abs() > 0.2) & (frame.interaction_type != "none")
    ].copy()
    kept["rank"] = kept.strength.abs() + 1000 * (kept.method == "clamping")
    if not multigraph:
        kept = kept.loc[
            kept.groupby(["src_layer", "src_feature", "tgt_layer", "tgt_feature"])["rank"].idxmax()
        ]
    expected = {(f"L{row.src_layer}_F{row.src_feature}", f"L{row.tgt_layer}_F{row.tgt_feature}",
                 row.method, row.offset): row for row in kept.itertuples()}
    assert 50 < len(expected) < len(frame) / 2
    G = build_interaction_graph(table, multigraph=multigraph)
    found = {(source, target, edge["method"], edge["offset"]): edge
             for source, target, edge in G.edges(data=True)}
    assert set(found) == set(expected)
    for key, edge in found.items():
        row = expected[key]
        assert (
            edge["strength"], edge["q_value"], edge["ci_lower"], edge["ci_upper"],
            edge["std_strength"], edge["n_samples"]
        ) == (row.strength, row.q_value, row.ci_low, row.ci_high, row.std, row.n_samples)
        assert edge["abs_strength"] == abs(row.strength) and edge["gating_score"] == pytest.approx(
            row.std / abs(row.strength)
        )
        assert all(type(value) in (int, float, str) for value in edge.values())
    assert (G.graph["selection"]["tested"] == len(frame)
            and G.graph["selection"]["edges"] == len(expected))


def test_every_surviving_offset_is_accounted_for(table):
    G, M = build_interaction_graph(table), build_interaction_graph(table, multigraph=True)
    assert any(edge["n_offsets"] > 1 for *_, edge in G.edges(data=True))
    for source, target, edge in G.edges(data=True):
        assert edge["n_offsets"] == M.number_of_edges(source, target) == 1 + len(
            [part for part in edge["other_offsets"].split("; ") if part]
        )


def test_a_config_overrides_the_measured_one(table):
    strict = build_interaction_graph(
        table, Config(significance_level=0.001, edge_strength_threshold=0.5)
    )
    assert all(edge["q_value"] < 0.001 and edge["abs_strength"] > 0.5
               for *_, edge in strict.edges(data=True))
    assert 0 < strict.number_of_edges() < build_interaction_graph(table).number_of_edges()
    assert strict.graph["config"]["significance_level"] == 0.001


def test_no_surviving_edge_is_one_sentence_with_the_numbers(table):
    columns = {**table.columns, "q_value": np.full_like(table.columns["q_value"], 0.031)}
    with pytest.raises(InputError, match=rf"none of the {len(columns['strength'])} tested .* q < "
                                         r"0.01 .*smallest q is 0.031"):
        build_interaction_graph(InteractionTable(columns))
    with pytest.raises(InputError, match="holds no interactions"):
        build_interaction_graph(table.where(np.array([], dtype=int)))


def test_undefined_measurements_never_become_edges():
    table = random_table(60, seed=3)
    for name, value in (("q_value", np.nan), ("strength", np.inf), ("strength", np.nan)):
        columns = {key: values.copy() for key, values in table.columns.items()}
        columns[name][::2] = value
        G = build_interaction_graph(InteractionTable(columns, table.meta), multigraph=True)
        assert all(math.isfinite(edge["strength"]) and edge["q_value"] < 0.05
                   for *_, edge in G.edges(data=True))


def test_passed_features_go_before_measured_ones_and_blanks_are_filled():
    table = random_table(200, seed=1)
    ids = [(layer, feature) for layer in range(5) for feature in range(11)]
    table.features = feature_table(
        layer=[layer for layer, _ in ids], feature=[feature for _, feature in ids],
        label=[f"measured {layer}.{feature}" for layer, feature in ids],
        importance=[0.5] * len(ids), activation_freq=[0.1] * len(ids)
    )
    passed = feature_table(layer=[1], feature=[2], label=["passed"])
    G = build_interaction_graph(table, features=passed)
    assert G.nodes["L1_F2"] == {
        "layer": 1, "feature_idx": 2, "label": "passed", "importance": 0.5, "activation_freq": 0.1
    }
    assert G.nodes["L1_F3"]["label"] == "measured 1.3"
    unknown = G.nodes["L1_F11"]
    assert unknown["label"] == "" and math.isnan(unknown["importance"]) and math.isnan(
        unknown["activation_freq"]
    )


def test_a_placebo_test_travels_with_its_edge(table):
    columns = {**table.columns, "placebo_p_value": np.linspace(0, 1, len(table))}
    row_of = {
        (s, i, t, j, offset): row for row, (s, i, t, j, offset, method) in enumerate(
            zip(*(table.columns[name].tolist() for name
                  in ("src_layer", "src_feature", "tgt_layer", "tgt_feature", "offset", "method")),
                strict=True)
        ) if method == "clamping"
    }
    edges = [(source, target, edge) for source, target, edge
             in build_interaction_graph(InteractionTable(columns, table.meta)).edges(data=True)
             if edge["method"] == "clamping"]
    for source, target, edge in edges:
        key = (*map(int, source[1:].split("_F")), *map(int, target[1:].split("_F")), edge["offset"])
        assert edge["placebo_p_value"] == columns["placebo_p_value"][row_of[key]]
    assert edges and "placebo_p_value" not in next(
        iter(build_interaction_graph(table).edges.values())
    )


# ---- pieces and summaries

@pytest.mark.parametrize("direction", ["both", "in", "out"])
@pytest.mark.parametrize("n_hops", [0, 1, 2])
def test_subgraph_agrees_with_ego_graphs(table, direction, n_hops):
    G = build_interaction_graph(table)
    seeds, strength = ["L1_F2", "L2_F7"], 0.6
    strong = nx.DiGraph([(source, target) for source, target, edge in G.edges(data=True)
                         if edge["abs_strength"] >= strength])
    strong.add_nodes_from(G)
    walk = strong.reverse() if direction == "in" else strong
    reached = set().union(
        *(nx.ego_graph(walk, seed, radius=n_hops, undirected=direction == "both") for seed in seeds)
    )
    piece = get_subgraph(G, seeds, n_hops, strength, direction)
    assert set(piece) == reached and set(piece.edges) == {
        edge for edge in strong.edges if set(edge) <= reached
    }
    assert all(piece.nodes[node] == G.nodes[node] for node in piece) and all(
        piece.edges[edge] == G.edges[edge] for edge in piece.edges
    )


@pytest.mark.parametrize("multigraph", [False, True])
def test_pieces_have_the_order_of_the_graph(table, multigraph):
    """NetworkX's own subgraphs have that of a set of names, another one in every process: the same
    piece would be another file each time."""
    whole = build_interaction_graph(table, multigraph=multigraph)
    nodes = random.Random(0).sample(sorted(whole), len(whole))
    G = whole.__class__()
    G.add_nodes_from((node, whole.nodes[node]) for node in nodes)
    G.add_edges_from(whole.edges(keys=True, data=True) if multigraph else whole.edges(data=True))
    G.graph.update(whole.graph)
    kinds = {kind for *_, kind in G.edges(data="interaction_type")}
    pieces = [part_of(G, nodes[::3]), get_subgraph(G, nodes[0], 1),
              get_edge_type_subgraph(G, sorted(kinds)[0]), select_for_display(G, 5)]
    for piece in pieces:
        assert len(piece) > 3 and list(piece) == [node for node in G if node in piece]
        assert list(piece.edges) == [edge for edge in G.edges if edge in piece.edges] and all(
            piece.edges[edge] == G.edges[edge] for edge in piece.edges
        )
    assert set(pieces[0].edges) == set(G.subgraph(nodes[::3]).edges) and pieces[0].graph == G.graph
    next(iter(pieces[0].nodes.values()))["label"] = "changed"
    assert all(facts.get("label") != "changed" for facts in G.nodes.values())


def test_subgraph_of_a_multigraph_keeps_parallel_edges(table):
    M = build_interaction_graph(table, multigraph=True)
    assert same_graph(get_subgraph(M, list(M), 0), M)


@pytest.mark.parametrize(
    ("features", "words"),
    [("L1_F222", "L1_F2"), ((9, 1), "closest are L"),
     (["L1_F2", "nonsense"], "nonsense is not one of"), (5, "5 names no feature"),
     ([(1, 2, 3)], "names no feature"), ([("L1", 2)], "names no feature")]
)
def test_unknown_features_are_answered_with_close_ones(table, features, words):
    with pytest.raises(InputError, match=words):
        find_nodes(build_interaction_graph(table), features)


def test_bad_directions_and_hops_are_refused(table):
    G = build_interaction_graph(table)
    with pytest.raises(InputError, match="sideways"): get_subgraph(G, "L1_F2", direction="sideways")
    with pytest.raises(InputError, match="-1"): get_subgraph(G, "L1_F2", n_hops=-1)


def test_summary_agrees_with_pandas(table):
    G = build_interaction_graph(table)
    summary = graph_summary(G, top=7)
    frame = pd.DataFrame([{"source": G.nodes[source]["layer"], "target": G.nodes[target]["layer"],
                           **edge} for source, target, edge in G.edges(data=True)])
    assert summary.types == frame.interaction_type.value_counts().to_dict()
    counts = frame.groupby(["source", "target", "interaction_type"]).size()
    for pair in summary.layer_pairs:
        assert pair["inhibitory"] == counts.get((pair["source"], pair["target"], "inhibitory"), 0)
    assert sum(
        pair[kind] for pair in summary.layer_pairs for kind in summary.types
    ) == summary.n_edges
    assert [
        edge["strength"] for edge in summary.strongest
    ] == frame.strength.loc[frame.abs_strength.sort_values(ascending=False).index[:7]].tolist()
    assert (
        max(dict(G.degree).values()) == summary.hubs[0]["in_degree"] + summary.hubs[0]["out_degree"]
    )
    json.dumps(summary.to_dict())
    assert f"{summary.n_edges:,} edges" in str(summary)


def test_pytorch_geometric_gets_rows_in_node_order(table, monkeypatch):
    package, data = types.ModuleType("torch_geometric"), types.ModuleType("torch_geometric.data")
    data.Data = lambda **tensors: types.SimpleNamespace(**tensors)
    monkeypatch.setitem(sys.modules, "torch_geometric", package)
    monkeypatch.setitem(sys.modules, "torch_geometric.data", data)
    G = build_interaction_graph(table)
    tensors = to_pytorch_geometric(G)
    assert (tensors.x.shape == (len(G), 3) and tensors.edge_index.shape == (2, G.number_of_edges())
            and tensors.edge_attr.shape == (G.number_of_edges(), 4))
    for (source, target), (strength, size, kind, gating) in zip(
        tensors.edge_index.T.tolist(), tensors.edge_attr.tolist(), strict=True
    ):
        edge = G.edges[tensors.node_ids[source], tensors.node_ids[target]]
        assert strength == pytest.approx(edge["strength"]) and size == pytest.approx(
            abs(edge["strength"])
        ) and gating == pytest.approx(edge["gating_score"])
        assert kind == (edge["strength"] < 0)
    assert [
        f"L{int(row[0])}_F{i}"
        for row, i in zip(tensors.x.tolist(), tensors.feature_idx.tolist(), strict=True)
    ] == tensors.node_ids


def test_missing_torch_geometric_is_one_sentence(table, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_geometric", None)
    monkeypatch.setitem(sys.modules, "torch_geometric.data", None)
    with pytest.raises(InputError, match="pip install torch_geometric"):
        to_pytorch_geometric(build_interaction_graph(table))


# ---- gates

def random_gates(table: InteractionTable, n_rows: int = 40, seed: int = 0) -> types.SimpleNamespace:
    """A gating table: half of its pairs are measured in `table`, half are not; (source, gate,
    target, offset) is unique."""
    rng, columns = np.random.default_rng(seed), table.columns
    rows = rng.choice(len(table), n_rows, replace=False)
    frame = pd.DataFrame({name: columns[name][rows].astype(np.int64) for name
                          in ("src_layer", "src_feature", "tgt_layer", "tgt_feature", "offset")})
    frame.loc[::2, "tgt_feature"] = 50 + rng.integers(0, 5, len(frame.loc[::2]))
    frame["gate_layer"], frame["gate_feature"] = rng.integers(0, 3, n_rows), 100 + np.arange(n_rows)
    frame["effect_off"], frame["effect_on"] = rng.normal(size=n_rows), rng.normal(size=n_rows)
    frame["interaction"] = frame["effect_on"] - frame["effect_off"]
    frame["ci_low"], frame["ci_high"], frame["p_value"] = (
        frame["interaction"] - 0.1, frame["interaction"] + 0.1, rng.random(n_rows)
    )
    frame["q_value"], frame["n_samples"] = rng.random(n_rows) ** 3, rng.integers(8, 100, n_rows)
    frame["direction"] = rng.choice(list(DIRECTIONS), n_rows)
    return types.SimpleNamespace(
        columns={name: frame[name].to_numpy(copy=True) for name in frame}, frame=frame
    )


@pytest.fixture(scope="module")
def gates(table) -> types.SimpleNamespace: return random_gates(table)


def kept_gates(
    gates: types.SimpleNamespace, level: float = 0.05, threshold: float = 0.2
) -> dict[tuple, object]:
    "The rows that should become hyperedges, by (source, gate, target, offset)."
    frame = gates.frame[(gates.frame.q_value < level) & (gates.frame.interaction.abs() > threshold)]
    return {(f"L{row.src_layer}_F{row.src_feature}", f"L{row.gate_layer}_F{row.gate_feature}",
             f"L{row.tgt_layer}_F{row.tgt_feature}", row.offset): row for row in frame.itertuples()}


@pytest.mark.parametrize("multigraph", [False, True])
def test_hyperedges_are_the_significant_gates(table, gates, multigraph):
    expected = kept_gates(gates)
    G = build_interaction_graph(table, multigraph=multigraph, gates=gates)
    found = {(gate["source"], gate["gate"], gate["target"], gate["offset"]): gate
             for gate in G.graph["hyperedges"]}
    assert (5 < len(expected) < len(gates.frame) and set(found) == set(expected)
            and len(found) == len(G.graph["hyperedges"]))
    for key, gate in found.items():
        row = expected[key]
        assert (
            gate["direction"], gate["effect_off"], gate["effect_on"], gate["interaction"],
            gate["ci_lower"], gate["ci_upper"], gate["p_value"], gate["q_value"], gate["n_samples"]
        ) == (row.direction, row.effect_off, row.effect_on, row.interaction, row.ci_low,
              row.ci_high, row.p_value, row.q_value, row.n_samples)
        assert all(node in G for node in key[:3]) and all(
            type(value) in (int, float, str) for value in gate.values()
        )
    assert (G.graph["selection"]["gates_tested"] == len(gates.frame)
            and G.graph["selection"]["gates_survived"] == len(expected))
    assert graph_summary(G).hyperedges == pd.Series(
        [row.direction for row in expected.values()]
    ).value_counts().to_dict()
    assert all(gate_phrase(gate) in str(graph_summary(G, top=99)) for gate in G.graph["hyperedges"])


def test_a_gated_pair_keeps_its_edge_or_gets_one_of_type_gating(table, gates):
    plain, G = build_interaction_graph(table), build_interaction_graph(table, gates=gates)
    expected, pairs = kept_gates(gates), {}
    for (source, gate, target, offset), row in expected.items():
        pairs.setdefault((source, target), []).append((gate, offset, row))
    frame, kinds = pd.DataFrame(table.columns), {"kept": 0, "measured": 0, "unknown": 0}
    # what was there is there, with nothing changed
    for pair in plain.edges:
        assert (plain.edges[pair].items() <= G.edges[pair].items()
                and ("gated_by" in G.edges[pair]) == (pair in pairs))
    for (source, target), gating in pairs.items():
        edge = G.edges[source, target]
        assert edge["n_gates"] == len(gating) and edge["gate_strength"] == max(
            abs(row.interaction) for *_, row in gating
        )
        assert {part.split()[0] for part in edge["gated_by"].split("; ")} == {
            gate for gate, *_ in gating
        }
        if plain.has_edge(source, target):
            kinds["kept"] += 1
            continue
        _, offset, row = max(gating, key=lambda entry: abs(entry[2].interaction))
        measured = frame[
            (frame.src_layer == row.src_layer) & (frame.src_feature == row.src_feature) & (
                frame.tgt_layer == row.tgt_layer
            ) & (frame.tgt_feature == row.tgt_feature) & (frame.offset == offset)
        ]
        assert edge["interaction_type"] == "gating" and edge["offset"] == offset
        if len(measured):
            first = measured.sort_values("method").iloc[0]
            assert (edge["strength"] == first.strength and edge["q_value"] == first.q_value
                    and edge["method"] == first.method)
            kinds["measured"] += 1
        else:
            assert (edge["strength"] == (row.effect_on + row.effect_off) / 2
                    and math.isnan(edge["q_value"]) and edge["n_samples"] == row.n_samples)
            kinds["unknown"] += 1
    assert min(kinds.values()) > 0, kinds
    assert set(G.edges) == set(plain.edges) | set(pairs)


def test_a_multigraph_has_one_edge_a_gate(table, gates):
    plain = build_interaction_graph(table, multigraph=True)
    M = build_interaction_graph(table, multigraph=True, gates=gates)
    expected = kept_gates(gates)
    own = {(source, edge["gate"], target, edge["offset"]): edge
           for source, target, edge in M.edges(data=True) if edge["interaction_type"] == "gating"}
    assert (
        set(own) == set(expected) and M.number_of_edges() == plain.number_of_edges() + len(expected)
    )
    assert all(edge["strength"] == expected[key].interaction
               and edge["direction"] == expected[key].direction for key, edge in own.items())
    for source, target, key, edge in M.edges(keys=True, data=True):
        same_offset = sum(found[0] == source and found[2] == target and found[3] == edge["offset"]
                          for found in expected)
        if plain.has_edge(source, target, key): assert edge.get("n_gates", 0) == same_offset


def test_gates_alone_make_a_graph_and_a_mean_of_zero_survives(table, gates):
    columns = {**table.columns, "q_value": np.ones(len(table)), "strength": np.zeros(len(table))}
    for multigraph in (False, True):
        G = build_interaction_graph(
            InteractionTable(columns, table.meta), gates=gates, multigraph=multigraph
        )
        assert (G.number_of_edges() > 0
                and {kind for *_, kind in G.edges(data="interaction_type")} == {"gating"})
        assert get_subgraph(G, list(G), 0, 0.2).number_of_edges() == G.number_of_edges() and all(
            edge_size(edge) > 0.2 for *_, edge in G.edges(data=True)
        )
    assert any(edge["strength"] == 0 for *_, edge in build_interaction_graph(
                   InteractionTable(columns, table.meta), gates=gates
               ).edges(data=True))
    empty = table.where(np.array([], dtype=int))
    assert build_interaction_graph(empty, gates=gates).number_of_edges() > 0
    hopeless = types.SimpleNamespace(
        columns={**gates.columns, "q_value": np.ones(len(gates.frame))}
    )
    with pytest.raises(InputError, match="none of the"):
        build_interaction_graph(InteractionTable(columns, table.meta), gates=hopeless)
    assert (build_interaction_graph(table, gates=hopeless).graph["hyperedges"] == []
            and "hyperedges" not in build_interaction_graph(table).graph)
    with pytest.raises(InputError, match="no column 'q_value'"):
        build_interaction_graph(table, gates=types.SimpleNamespace(
                                    columns={name: values for name, values in gates.columns.items()
                                             if name != "q_value"}
                                ))


@pytest.mark.parametrize("multigraph", [False, True])
def test_the_first_nodes_of_a_circuit_can_be_written_and_read(table, gates, tmp_path, multigraph):
    "Its gates are those among the nodes that stay: a file with others is refused."
    G = build_interaction_graph(table, gates=gates, multigraph=multigraph)
    for rank, node in enumerate(sorted(G), start=1): G.nodes[node].update(rank=rank, seed=True)
    circuit = BehaviorSubgraph(G, {"behavior": "any"})
    for n in (len(G) // 4, len(G) - 5, len(G)):
        top = circuit.top(n)
        assert len(load_graph(top.save(tmp_path / "top.json")).graph["hyperedges"]) == sum(
            {gate[end] for end in ("source", "gate", "target")} <= set(top.nodes)
            for gate in G.graph["hyperedges"]
        )
    assert 0 < len(circuit.top(len(G) - 5).graph.graph["hyperedges"]) < len(G.graph["hyperedges"])


def test_a_piece_has_the_gates_whose_three_ends_are_in_it(table, gates):
    G = build_interaction_graph(table, gates=gates)
    for gate in G.graph["hyperedges"]:
        ends = [gate["source"], gate["gate"], gate["target"]]
        assert gate in get_subgraph(G, ends, 0).graph["hyperedges"]
        for missing in ends:
            assert gate not in get_subgraph(
                G, [end for end in ends if end != missing], 0
            ).graph["hyperedges"]
        assert (gate["gate"] in get_subgraph(G, gate["target"], 1, direction="in")
                and gate["target"] in get_subgraph(G, gate["gate"], 1, direction="out"))
        assert gate["gate"] not in get_subgraph(G, gate["target"], 1, direction="out")
    piece = get_subgraph(G, ends, 0)
    piece.graph["hyperedges"][0]["direction"] = "changed"
    assert gate["direction"] != "changed"


@pytest.mark.parametrize("suffix", ["graphml", "json", "h5", "pkl"])
@pytest.mark.parametrize("multigraph", [False, True])
def test_gates_survive_files_exactly(table, tmp_path, suffix, multigraph):
    gates = random_gates(table, seed=4)
    gates.columns["effect_on"][::3] = np.nan
    gates.columns["ci_high"][::4] = np.inf
    G = build_interaction_graph(table, multigraph=multigraph, gates=gates)
    assert any(gate["effect_on"] is None for gate in G.graph["hyperedges"]) and any(
        gate["ci_upper"] is None for gate in G.graph["hyperedges"]
    )
    assert same_graph(load_graph(save_graph(G, tmp_path / f"graph.{suffix}"), allow_pickle=True), G)


@pytest.mark.parametrize(
    ("broken", "words"),
    [("a string", "list was expected"), ([3], "dictionary was expected"),
     ({"gate": "L9_F9"}, "gate 'L9_F9', which is no node"),
     ({"source": ["L0_F0"]}, "which is no node"), ({"direction": "XOR"}, "direction 'XOR'"),
     ({"direction": ["AND"]}, "direction"), ({"interaction": None}, "interaction = None"),
     ({"interaction": math.nan}, "interaction = nan"), ({"effect_on": math.inf}, "effect_on = inf"),
     ({"effect_off": "0"}, "effect_off = '0'"), ({"offset": 0.5}, "offset = 0.5"),
     ({"n_samples": True}, "n_samples = True"), ({"q_value": 10**400}, "q_value = 1000")]
)
def test_broken_hyperedges_are_refused_with_one_sentence(table, gates, tmp_path, broken, words):
    G = build_interaction_graph(table, gates=gates)
    G.graph["hyperedges"] = ([*G.graph["hyperedges"][:2], {**G.graph["hyperedges"][2], **broken}]
                             if isinstance(broken, dict) else broken)
    for suffix in ("json", "graphml", "h5"):
        with pytest.raises(InputError, match=words) as refusal:
            load_graph(save_graph(G, tmp_path / f"graph.{suffix}"))
        assert len(str(refusal.value)) < 600 and "\n" not in str(refusal.value)


def test_pytorch_geometric_gets_gates_as_triples(table, gates, monkeypatch):
    package, data = types.ModuleType("torch_geometric"), types.ModuleType("torch_geometric.data")
    data.Data = lambda **tensors: types.SimpleNamespace(**tensors)
    monkeypatch.setitem(sys.modules, "torch_geometric", package)
    monkeypatch.setitem(sys.modules, "torch_geometric.data", data)
    G = build_interaction_graph(table, gates=gates)
    tensors = to_pytorch_geometric(G)
    triples = [tuple(tensors.node_ids[row] for row in triple)
               for triple in tensors.hyperedge_index.T.tolist()]
    assert triples == [
        (gate["source"], gate["gate"], gate["target"]) for gate in G.graph["hyperedges"]
    ]
    for row, gate in zip(tensors.hyperedge_attr.tolist(), G.graph["hyperedges"], strict=True):
        assert row == pytest.approx([gate["effect_off"], gate["effect_on"], gate["interaction"],
                                     list(DIRECTIONS).index(gate["direction"])])
    kinds = [row[2] for row in tensors.edge_attr.tolist()]
    assert [kind == 2 for kind in kinds] == [
        kind == "gating" for *_, kind in G.edges(data="interaction_type")
    ] and 2 in kinds
    assert to_pytorch_geometric(build_interaction_graph(table)).hyperedge_index.shape == (3, 0)


# ---- files

def awkward_graph(seed: int, multigraph: bool) -> nx.DiGraph:
    "A graph whose attributes take every type and every unpleasant value."
    rng = random.Random(seed)
    def value(depth: int = 0) -> object:
        kind = rng.randrange(9 if depth < 2 else 7)
        if kind == 0: return rng.choice(AWKWARD_TEXT) + rng.choice(AWKWARD_TEXT)
        if kind == 1: return "".join(chr(rng.randrange(0x3000)) for _ in range(5))
        if kind == 2: return rng.choice([0, -1, 2**70, rng.randrange(1000)])
        if kind == 3:
            return rng.choice([0.0, -0.0, 1.0, 1e-320, 1 / 3, 1e300, math.inf, -math.inf, math.nan])
        if kind < 7: return [True, False, None][kind - 4]
        if kind == 7: return [value(depth + 1) for _ in range(3)]
        return {text: value(depth + 1) for text in rng.sample(AWKWARD_TEXT, 3)}
    G = nx.MultiDiGraph() if multigraph else nx.DiGraph()
    G.graph.update({"config": value(), "node_for_adding": value(), "self": value()})
    for feature in range(12):
        G.add_nodes_from([(f"L0_F{feature}",
                           {"layer": 0, "feature_idx": feature, "label": rng.choice(AWKWARD_TEXT),
                            "node_for_adding": value(), "any thing": value()})])
    for number in range(20):
        key = [rng.choice([number, f"key {number}"])] if multigraph else []
        G.add_edges_from([(f"L0_F{rng.randrange(12)}", f"L0_F{rng.randrange(12)}", *key,
                           {"strength": rng.random(), "interaction_type": "excitatory",
                            "v": value(), "id": value()})])
    return G


@pytest.mark.parametrize("suffix", ["graphml", "json", "h5", "pkl"])
@pytest.mark.parametrize("multigraph", [False, True])
def test_round_trip_keeps_every_value_and_type(tmp_path, suffix, multigraph):
    for seed in range(25):
        G = awkward_graph(seed, multigraph)
        again = load_graph(save_graph(G, tmp_path / f"graph.{suffix}"), allow_pickle=True)
        assert same_graph(G, again), f"seed {seed}"
        assert isinstance(again, FeatureMultiGraph if multigraph else FeatureGraph)


def test_numpy_attributes_come_back_as_python(tmp_path):
    G = nx.DiGraph(doses=np.array([0.5, 1.0]))
    G.add_node("L0_F0", layer=np.int64(0), feature_idx=np.int32(0), importance=np.float32(0.5))
    for suffix in ("graphml", "json", "h5", "pkl"):
        again = load_graph(save_graph(G, tmp_path / f"graph.{suffix}"), allow_pickle=True)
        assert (same(again.nodes["L0_F0"], {"layer": 0, "feature_idx": 0, "importance": 0.5})
                and again.graph["doses"] == [0.5, 1.0])


def test_networkx_reads_our_files(table, tmp_path):
    G = build_interaction_graph(table)
    graphml = nx.read_graphml(save_graph(G, tmp_path / "graph.graphml"))
    assert set(graphml.edges) == set(G.edges) and all(
        graphml.edges[edge]["strength"] == G.edges[edge]["strength"] for edge in G.edges
    )
    linked = nx.node_link_graph(
        json.loads(save_graph(G, tmp_path / "graph.json").read_text()), edges="edges"
    )
    assert set(linked.edges) == set(G.edges) and all(
        same(linked.edges[edge], G.edges[edge]) for edge in G.edges
    )


def test_we_read_files_of_networkx(table, tmp_path):
    G = build_interaction_graph(table)
    G.graph.clear()
    for attributes in G.nodes.values():
        attributes.update(importance=0.25, activation_freq=0.5, label="json: looks like ours")
    nx.write_graphml(G, tmp_path / "graph.graphml")
    assert same_graph(load_graph(tmp_path / "graph.graphml"), G)
    for key in ("edges", "links"):
        (tmp_path / "graph.json").write_text(json.dumps(nx.node_link_data(G, edges=key)))
        assert same_graph(load_graph(tmp_path / "graph.json"), G)


def test_graphml_defaults_of_other_tools_are_applied(tmp_path):
    (tmp_path / "graph.graphml").write_text(
        '<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><key id="l" for="node" '
        'attr.name="layer" attr.type="int"><default>2</default></key>'
        '<key id="f" for="node" attr.name="feature_idx" attr.type="int"/><graph '
        'edgedefault="directed"><node id="L2_F1"><data key="f">1</data></node></graph></graphml>'
    )
    assert load_graph(tmp_path / "graph.graphml").nodes["L2_F1"] == {"layer": 2, "feature_idx": 1}


@pytest.mark.parametrize("suffix", ["json", "graphml", "h5"])
def test_memory_beside_the_graph_does_not_grow_with_it(tmp_path, monkeypatch, suffix):
    "The same peak above the graph for three times the edges, which the file grows by."
    monkeypatch.setattr(columns, "_BLOCK", 500)
    peaks, sizes = [], []
    for n_edges in (3_000, 9_000):
        G = nx.DiGraph()
        G.add_nodes_from((f"L0_F{k}", {"layer": 0, "feature_idx": k}) for k in range(100))
        for k in range(n_edges):
            G.add_edge(f"L0_F{k % 100}", f"L0_F{k // 100}", interaction_type="excitatory",
                       **{name: k / 7 + len(name) for name in ("strength", "std_strength",
                                                               "p_value", "q_value", "variance")})
        path = tmp_path / f"graph.{suffix}"
        tracemalloc.start()
        save_graph(G, path)
        written = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        tracemalloc.start()
        again = load_graph(path)
        held, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert again.number_of_edges() == n_edges
        peaks.append((written, most - held))
        sizes.append(held)
    assert sizes[1] > 2.5 * sizes[0]
    for few, many in zip(*peaks, strict=True): assert many < 1.3 * few + 2**16, peaks


HOSTILE = {
    "bomb.graphml": b'<!DOCTYPE g [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
                    b'<graphml><graph><node id="&b;"/></graph></graphml>',
    "outside.graphml": b'<!DOCTYPE g [<!ENTITY a SYSTEM "file:///etc/hostname">]>'
                       b'<graphml><graph><node id="&a;"/></graph></graphml>',
    "wide.graphml": ('<?xml version="1.0" encoding="utf-16"?><!DOCTYPE g [<!ENTITY a "ha">]>'
                     '<graphml><graph><node id="&a;"/></graph></graphml>').encode("utf-16"),
    "deep.graphml": b"<graphml>" + b"<graph>" * 50_000,
    "type.graphml": b'<graphml><key id="d" for="node" attr.name="layer" attr.type="object"/>'
                    b'<graph><node id="n"><data key="d">x</data></node></graph></graphml>',
    "value.graphml": b'<graphml><key id="d" for="node" attr.name="layer" attr.type="int"/>'
                     b'<graph><node id="n"><data key="d">two</data></node></graph></graphml>',
    "key.graphml": b'<graphml><graph><node id="n">'
                   b'<data key="nowhere">x</data></node></graph></graphml>',
    "edge.graphml": b'<graphml><graph><edge source="a" target="b"/></graph></graphml>',
    "svg.graphml": b"<svg/>",
    "bare.graphml": b"<graphml/>",
    "empty.graphml": b"",
    "deep.json": b"[" * 200_000,
    "array.json": b"[1, 2]",
    "nodes.json": b'{"nodes": [3], "edges": []}',
    "ids.json": b'{"nodes": [{"layer": 1}], "edges": []}',
    "edge.json": b'{"nodes": [], "edges": [{"source": "a", "target": "b"}]}',
    "float.json": b'{"nodes": [{"id": "a", "layer": {"$float": "nonsense"}}], "edges": []}',
    "future.json": b'{"format": "feature-interaction-graph", "version": 99, '
                   b'"nodes": [], "edges": []}',
    "strength.json": b'{"nodes": [{"id": "a", "layer": 0, "feature_idx": 0}], '
                     b'"edges": [{"source": "a", "target": "a", "strength": NaN, '
                     b'"interaction_type": "excitatory"}]}',
    "bytes.json": b"\xff\xfe\x00",
    "empty.json": b"",
    "digits.json": b'{"nodes": [{"id": "a", "layer": ' + b"9" * 6000 + b'}], "edges": []}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_with_one_sentence(tmp_path, name):
    (tmp_path / name).write_bytes(HOSTILE[name])
    with pytest.raises(InputError, match=r"\A[^\n]{20,400}\Z"): load_graph(tmp_path / name)


@pytest.mark.parametrize("suffix", ["graphml", "json"])
def test_damaged_files_are_read_or_refused_but_never_crash(tmp_path, suffix):
    content = save_graph(awkward_graph(0, True), tmp_path / f"whole.{suffix}").read_bytes()
    rng, path, refused = random.Random(0), tmp_path / f"damaged.{suffix}", 0
    for trial in range(300):
        damaged = bytearray(content[:rng.randrange(len(content))] if trial % 2 else content)
        for _ in range(rng.randrange(4)):
            if damaged: damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try: load_graph(path)
        except InputError: refused += 1
    assert refused > 150


def test_truncated_pickle_and_missing_file_are_sentences(tmp_path):
    path = save_graph(awkward_graph(0, False), tmp_path / "graph.pkl")
    with pytest.raises(InputError, match="allow_pickle=True"): load_graph(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="not a pickled graph"): load_graph(path, allow_pickle=True)
    with pytest.raises(InputError, match="could not be read"): load_graph(tmp_path / "nowhere.json")
    with pytest.raises(InputError, match="names no graph format"):
        load_graph(tmp_path / "graph.gml")
    with pytest.raises(InputError, match="GEXF, which is written for Gephi"):
        load_graph(tmp_path / "graph.gexf")


@pytest.mark.parametrize(("attribute", "words"),
                         [({"seeds": {1, 2}}, "set"), ({"source": "x"}, "rename"),
                          ({"f": {"$float": "nan"}}, "no graph file can hold"), ({3: 4}, "rename")])
def test_what_cannot_be_written_leaves_the_old_file(tmp_path, attribute, words):
    G = awkward_graph(0, False)
    path = save_graph(G, tmp_path / "graph.json")
    before = path.read_bytes()
    G.edges[next(iter(G.edges))].update(attribute)
    with pytest.raises(InputError, match=words): save_graph(G, path)
    assert (path.read_bytes() == before
            and [entry.name for entry in tmp_path.iterdir()] == ["graph.json"])


def test_ids_that_xml_cannot_hold_are_refused_for_graphml(tmp_path):
    G = nx.DiGraph()
    G.add_node("L0_F0\x00", layer=0, feature_idx=0)
    with pytest.raises(InputError, match="save the graph as .json"):
        save_graph(G, tmp_path / "graph.graphml")
    for name in ("graph.json", "graph.h5"):
        assert "L0_F0\x00" in load_graph(save_graph(G, tmp_path / name))


def test_edges_before_the_threshold_need_no_moving_target(table):
    """With evidence on pre-activations a silent target keeps its edge; the same rows without that
    evidence do not."""
    columns = {
        **table.columns, "strength": np.zeros(len(table)),
        "pre_strength": np.where(table.columns["strength"] == 0, 0.1, table.columns["strength"])
    }
    before = InteractionTable(columns, {**table.meta, "evidence": "pre-activation"}, table.features)
    graph = build_interaction_graph(before)
    assert graph.number_of_edges() == build_interaction_graph(table).number_of_edges()
    assert all(
        edge["strength"] == 0 and edge["pre_strength"] != 0 for *_, edge in graph.edges(data=True)
    )
    with pytest.raises(InputError, match="strength"):
        build_interaction_graph(InteractionTable(columns, table.meta, table.features))
