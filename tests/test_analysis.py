"""Analysis of interaction graphs: against NetworkX, against enumeration, against planted
structure, and on bad input."""
import itertools
import json
import math

import networkx as nx
import numpy as np
import pytest

from feature_interaction_graph.analysis import (
    GraphStatistics,
    cluster_roles,
    compare_graphs,
    compute_graph_statistics,
    count_motifs,
    degree_law,
    detect_communities,
    find_hubs,
    get_edge_type_subgraph,
    layer_distance_decay,
    plot_analysis,
)
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.structure.communities import (
    agreement, leiden, pull_of, signed_modularity
)
from feature_interaction_graph.structure.degree_laws import (
    draw_power_law, find_tail, fit_law, vuong
)
from feature_interaction_graph.structure.hubs import METRICS, centrality
from feature_interaction_graph.structure.motifs import (
    MOTIFS, closed_paths, list_motif, motif_counts, product_blocks, strongest_examples
)
from feature_interaction_graph.structure.nulls import (
    against,
    edge_list,
    permuted_within,
    profile,
    rewire,
    rewiring_overlap,
    scatter,
    shuffle_signs,
    shuffle_strengths,
)
from feature_interaction_graph.structure.roles import role_graph
from feature_interaction_graph.structure.topology import topology_numbers

def random_graph(seed=0, widths=(7, 7, 7), density=0.3, within=False, gating=0.1, multigraph=False):
    random = np.random.default_rng(seed)
    G = nx.MultiDiGraph() if multigraph else nx.DiGraph()
    nodes = [(layer, index) for layer, width in enumerate(widths) for index in range(width)]
    G.add_nodes_from((f"L{layer}_F{index}",
                      {"layer": layer, "feature_idx": index, "label": f"w{index}",
                       "importance": 1.0, "activation_freq": 0.1}) for layer, index in nodes)
    for (a, i), (b, j) in itertools.permutations(nodes, 2):
        if (a < b or (within and a == b)) and random.random() < density:
            kind = str(
                random.choice(["excitatory", "inhibitory", "gating"], p=[0.6 - gating, 0.4, gating])
            )
            size = float(random.lognormal())
            G.add_edge(f"L{a}_F{i}", f"L{b}_F{j}", interaction_type=kind,
                       strength=-size if kind == "inhibitory" else size, offset=0)
    return G

def kinds(profiled):
    return [array.tolist() for array in profiled.values()]

# --- null models

@pytest.mark.parametrize("within", [False, True])
def test_rewiring_keeps_degrees_layers_and_signs(within):
    edges = edge_list(random_graph(1, (12, 12, 12), within=within))
    random = np.random.default_rng(0)
    for _ in range(20):
        null = rewire(edges, random)
        assert kinds(profile(null)) == kinds(profile(edges))
        assert (np.sort(null.groups) == np.sort(edges.groups)).all()
        assert len(np.unique(null.keys)) == len(edges) and (null.source != null.target).all()
        assert np.isin(null.keys, edges.keys).mean() < 0.8

@pytest.mark.parametrize("seed", [5, 14, 26])
def test_rewiring_is_uniform_where_types_block_each_other(seed):
    """Two types between the same layers: all simple graphs with the same degrees per type are
    equally likely."""
    edges = edge_list(random_graph(seed, (4, 4), density=0.6, gating=0.0))
    random = np.random.default_rng(1)
    def admissible():
        n_nodes, out = len(edges.nodes), {}
        for sign in (1, -1):
            rows = edges.sign == sign
            options, source = [], edges.source[rows]
            for targets in set(itertools.permutations(edges.target[rows].tolist())):
                keys = frozenset((source * n_nodes + np.array(targets)).tolist())
                if len(keys) == rows.sum(): options.append(keys)
            out[sign] = set(options)
        return [(plus, minus) for plus in out[1] for minus in out[-1] if not plus & minus]
    expected, seen, n_draws = admissible(), {}, 120
    for _ in range(n_draws):
        null = rewire(edges, random)
        state = tuple(frozenset(null.keys[null.sign == sign].tolist()) for sign in (1, -1))
        seen[state] = seen.get(state, 0) + 1
    assert set(seen) <= set(expected)
    assert 3 < len(expected) < 400 and len(seen) > 3
    counts = np.array([seen.get(state, 0) for state in seen])
    chi, mean = ((counts - n_draws / len(seen)) ** 2 / (n_draws / len(seen))).sum(), len(seen) - 1
    assert len(seen) == len(expected) and chi < mean + 5 * math.sqrt(2 * mean)

def test_rewiring_mixes():
    edges, random = edge_list(random_graph(2, (20, 20, 20), density=0.15)), np.random.default_rng(0)
    curve = np.mean([rewiring_overlap(edges, random) for _ in range(10)], axis=0)
    independent = np.mean(
        [np.isin(rewire(edges, random, 80).keys, edges.keys).mean() for _ in range(10)]
    )
    assert abs(curve[25:].mean() - independent) < 0.03

def test_z_is_standard_normal_on_graphs_from_the_null():
    edges = edge_list(random_graph(5, (15, 15, 15), density=0.2, gating=0.0))
    random = np.random.default_rng(0)
    names = ("coherent_feedforward", "incoherent_feedforward", "shared_targets", "opponent_pair",
             "open_chain")
    zs = []
    for _ in range(25):
        start = rewire(edges, random, 100)
        nulls = [motif_counts(rewire(start, random, 60)) for _ in range(20)]
        found = motif_counts(start)
        zs.append([against(name, found[name], [null[name] for null in nulls]).z for name in names])
    assert (np.abs(np.mean(zs, axis=0)) < 0.8).all() and (
        np.abs(np.std(zs, axis=0) - 1.05) < 0.5
    ).all()

def test_scatter_and_shuffles():
    edges, random = edge_list(random_graph(4, within=True)), np.random.default_rng(0)
    loose = scatter(edges, random)
    assert len(np.unique(loose.keys)) == len(edges) and (loose.source != loose.target).all() and (
        np.sort(loose.groups) == np.sort(edges.groups)
    ).all()
    weights = shuffle_strengths(edges, random)
    for group in np.unique(edges.groups):
        rows = edges.groups == group
        assert sorted(weights.strength[rows]) == sorted(edges.strength[rows])
    assert (weights.strength != edges.strength).any()
    signs = shuffle_signs(edges, random, np.zeros(len(edges), dtype=int))
    assert ((np.abs(signs.strength) == np.abs(edges.strength)).all()
            and np.bincount(signs.sign + 1).tolist() == np.bincount(edges.sign + 1).tolist())
    groups = random.integers(5, size=200)
    assert (groups[permuted_within(groups, random)] == groups).all()

def test_scatter_of_a_full_layer_pair():
    edges = edge_list(random_graph(0, (3, 3), density=1.0))
    assert sorted(scatter(edges, np.random.default_rng(0)).keys) == sorted(edges.keys)
    assert sorted(rewire(edges, np.random.default_rng(0)).keys) == sorted(edges.keys)

def test_parallel_edges_and_self_loops_are_counted_and_left_out():
    G = random_graph(0, multigraph=True)
    source, target, _ = next(iter(G.edges(data=True)))
    G.add_edge(source, target, interaction_type="excitatory", strength=50.0, offset=1)
    G.add_edge(source, source, interaction_type="excitatory", strength=1.0, offset=1)
    edges = edge_list(G)
    assert (edges.n_left_out == 2 and len(edges) == G.number_of_edges() - 2
            and 50.0 in edges.strength.tolist())

def test_measure_without_freedom():
    one = against("x", 3.0, [3.0, 3.0, 3.0])
    assert one.z is None and one.p_value == 1 and "same number" in one.reason
    assert against("x", 5.0, [3.0, 3.0, 3.0]).p_value == 0.25
    assert against("x", float("nan"), [1.0, 2.0]).value is None

# --- motifs

def enumerated(G):
    mark = {(a, b): {"excitatory": "+", "inhibitory": "-", "gating": "0"}[kind]
            for a, b, kind in G.edges(data="interaction_type")}
    layer, sign = G.nodes(data="layer"), {"+": 1, "-": -1, "0": 0}
    def count(name):
        motif, total, orders = MOTIFS[name], 0, 0
        n_roles = 1 + max(max(ends) for ends in motif.ends)
        wanted = [
            {"+>": "+", "-|": "-", "->": "+-0"}[edge[1:-1]] for edge in motif.pattern.split(", ")
        ]
        for nodes in itertools.permutations(G, n_roles):
            found = [mark.get((nodes[i], nodes[j]), "?") for i, j in motif.ends]
            if any(one not in allowed for one, allowed in zip(found, wanted, strict=True)): continue
            if name == "open_chain" and (
                (nodes[0], nodes[2]) in mark or (nodes[2], nodes[0]) in mark
            ):
                continue
            if name == "inhibitory_competition" and layer[nodes[0]] != layer[nodes[1]]: continue
            if (name.endswith("feedforward") and sign[found[0]] * sign[found[1]] * sign[found[2]]
                != (1 if name.startswith("coherent") else -1)):
                continue
            total += 1
        orders = {
            "fan_in": 2, "fan_out": 2, "shared_targets": 4, "inhibitory_competition": 2,
            "opponent_pair": 2, "mutual_excitation": 2, "mutual_inhibition": 2, "feedback_loop": 3
        }
        return total // orders.get(name, 1)
    return {name: count(name) for name, motif in MOTIFS.items() if motif.needs != "gates"}

@pytest.mark.parametrize("seed", range(3))
def test_motifs_equal_enumeration(seed):
    G = random_graph(seed, (4, 4, 4), density=0.45, within=True)
    counts, truth = motif_counts(edge_list(G)), enumerated(G)
    assert {name: counts[name] for name in truth} == truth
    edges = edge_list(G)
    for name, count in truth.items(): assert len(set(list_motif(name, edges, edges))) == count, name

def test_products_in_blocks_equal_the_whole():
    matrix = edge_list(random_graph(0, (20, 20, 20))).matrix()
    whole = matrix @ matrix
    parts = list(product_blocks(matrix, matrix, budget=50))
    assert len(parts) > 5 and (
        np.vstack([block.toarray() for _, block in parts]) == whole.toarray()
    ).all()
    assert closed_paths(matrix, matrix, matrix) == int(whole.multiply(matrix).sum())

@pytest.mark.parametrize("name", ["excitatory_chain", "open_chain", "coherent_feedforward",
                                  "fan_in", "opponent_pair", "inhibitory_competition"])
def test_examples_are_the_strongest(name):
    edges = edge_list(random_graph(7, (9, 9, 9), density=0.4))
    strength = dict(zip(edges.keys.tolist(), np.abs(edges.strength).tolist(), strict=True))
    weakest = sorted(
        (min(strength[nodes[i] * len(edges.nodes) + nodes[j]] for i, j in MOTIFS[name].ends)
         for nodes in list_motif(name, edges, edges)), reverse=True
    )
    assert [
        one.weakest for one in strongest_examples(name, edges, [""] * len(edges.nodes), 4)
    ] == pytest.approx(weakest[:4])

def test_gates_of_hyperedges():
    G = random_graph(2)
    source, target = next(
        (a, b) for a, b in G.edges if G.nodes[a]["layer"] == 0 and G.nodes[b]["layer"] == 2
    )
    closing = next(node for node in G.predecessors(target) if node != source)
    apart = next(node for node in G if not G.has_edge(node, target) and node not in (source, target)
                 and G.nodes[node]["layer"] < 2)
    G.graph["hyperedges"] = [
        {"source": source, "gate": gate, "target": target, "direction": "AND", "effect_off": 0.0,
         "effect_on": 1.0, "interaction": 1.0, "ci_lower": None, "ci_upper": None, "p_value": 0.01,
         "q_value": 0.01, "n_samples": 9, "offset": 0} for gate in (closing, apart)
    ]
    census = count_motifs(G, n_null=10)
    assert census["gating_triangle"].value == 1 and census.examples["gating_triangle"][0].nodes == (
        source, closing, target
    )
    assert census["gating_chain"].value == G.has_edge(source, closing) + G.has_edge(source, apart)
    assert count_motifs(random_graph(2), n_null=2)["gating_triangle"].value is None

def test_degrees_alone_fix_chains_and_fans_under_rewiring():
    "Why those motifs are compared with scattered edges."
    edges, random = edge_list(random_graph(1, (15, 15, 15))), np.random.default_rng(0)
    before, after = motif_counts(edges), motif_counts(rewire(edges, random))
    assert all(
        before[name] == after[name] for name, motif in MOTIFS.items() if motif.null == "scattered"
    )

# --- topology, hubs

@pytest.mark.parametrize("within", [False, True])
def test_topology_equals_networkx(within):
    G = random_graph(3, (12, 12, 12), density=0.12, within=within)
    found, plain = topology_numbers(edge_list(G), np.arange(len(G))), G.to_undirected()
    lengths = [length for _, ends in nx.all_pairs_shortest_path_length(G)
               for length in ends.values() if length]
    assert (found["transitivity"] == pytest.approx(nx.transitivity(plain))
            and found["clustering"] == pytest.approx(nx.average_clustering(plain)))
    assert (found["path_length"] == pytest.approx(np.mean(lengths))
            and found["reachable_share"] == pytest.approx(len(lengths) / (36 * 35)))
    assert found["n_components"] == nx.number_weakly_connected_components(G)
    assert found["degree_assortativity"] == pytest.approx(
        nx.degree_pearson_correlation_coefficient(G, x="out", y="in")
    )
    assert found["reciprocity"] == (pytest.approx(nx.overall_reciprocity(G)) if within else None)

def test_every_metric_finds_a_planted_hub():
    G = random_graph(0, (15, 15, 15), density=0.08, gating=0.0)
    facts = {"interaction_type": "excitatory", "strength": 3.0, "offset": 0}
    G.add_edges_from((f"L0_F{index}", "L1_F0", facts) for index in range(15))
    G.add_edges_from(("L1_F0", f"L2_F{index}", facts) for index in range(15))
    for metric in ("total_degree", "total_strength", "betweenness", "in_strength", "out_strength"):
        hub = find_hubs(G, 3, metric, n_boot=30, n_null=10)[0]
        assert hub.node == "L1_F0" and hub.rank == 1 and hub.rank_low <= 1 <= hub.rank_high < 4
        if METRICS[metric][1] == "scattered": assert hub.z > 5, metric
    assert set(METRICS) == {
        find_hubs(G, 1, metric, n_boot=2, n_null=2).metric for metric in METRICS
    }

def test_rank_intervals_of_equals_are_wide():
    G = random_graph(1, (20, 20), density=0.3)
    hubs = find_hubs(G, 5, "out_degree", n_boot=60)
    assert all(hub.rank_high - hub.rank_low > 2 for hub in hubs)

def test_sampled_betweenness_agrees_with_all():
    edges = edge_list(random_graph(2, (40, 40, 40), density=0.05))
    half = np.random.default_rng(0).choice(120, 80, replace=False)
    assert np.corrcoef(
        centrality(edges, "betweenness"), centrality(edges, "betweenness", None, half)
    )[0, 1] > 0.9

# --- degree laws

def test_power_law_fit_equals_the_powerlaw_package():
    powerlaw = pytest.importorskip("powerlaw")
    sample = draw_power_law(2.4, 3, 1500, np.random.default_rng(0))
    reference = powerlaw.Fit(sample, discrete=True, xmin=3, verbose=False)
    fitted = {law: fit_law(law, sample, 3) for law in ("power_law", "exponential")}
    assert fitted["power_law"][0]["alpha"] == pytest.approx(reference.power_law.alpha, abs=0.01)
    assert fitted["exponential"][0]["rate"] == pytest.approx(reference.exponential.Lambda, rel=0.02)
    ratio, _ = vuong(fitted["power_law"][1], fitted["exponential"][1])
    assert ratio == pytest.approx(
        reference.distribution_compare("power_law", "exponential", normalized_ratio=True)[0],
        rel=0.05
    )

@pytest.mark.parametrize("alpha", [1.8, 2.5, 3.2])
def test_tail_of_a_power_law(alpha):
    random = np.random.default_rng(int(alpha * 10))
    sample = np.concatenate([random.integers(1, 6, 800), draw_power_law(alpha, 6, 1200, random)])
    start, fitted, _ = find_tail(sample, 100)
    assert 5 <= start <= 12 and fitted == pytest.approx(alpha, abs=0.2)

def test_samples_are_told_apart():
    right, n_samples = {}, 8
    for name, draw in {
        "power_law": lambda random: draw_power_law(2.5, 2, 1000, random),
        "lognormal": lambda random: np.round(random.lognormal(3, 0.6, 1000)).astype(int),
        "exponential": lambda random: random.geometric(0.05, 1000)
    }.items():
        samples = [draw(np.random.default_rng(seed)) for seed in range(n_samples)]
        right[name] = sum(degree_law(sample, int(sample[sample > 0].min()), n_boot=30).verdict
                          == name for sample in samples)
    assert min(right.values()) >= n_samples - 2, right

def test_goodness_of_fit_is_calibrated():
    "p-values on true power laws are not small more often than they should be."
    ps = [degree_law(
              draw_power_law(2.3, 1, 300, np.random.default_rng(seed)), n_boot=40, seed=seed
          ).p_fit for seed in range(30)]
    assert np.mean(np.array(ps) < 0.1) < 0.3 and np.mean(ps) > 0.3

# --- communities

def test_leiden_finds_signed_groups_that_unsigned_modularity_cannot():
    "All pairs are joined alike; only signs tell the groups apart."
    random, G = np.random.default_rng(0), random_graph(0, (10, 10), density=0.0)
    for i, j in itertools.product(range(10), repeat=2):
        if random.random() < 0.7:
            same = (i < 5) == (j < 5)
            G.add_edge(
                f"L0_F{i}", f"L1_F{j}", interaction_type="excitatory" if same else "inhibitory",
                strength=1.0 if same else -1.0, offset=0
            )
    planted = np.array([int(G.nodes[node]["feature_idx"] >= 5) for node in G])
    assert agreement(leiden(pull_of(edge_list(G))), planted)[0] == 1
    assert agreement(leiden(pull_of(edge_list(G), "ignore")), planted)[0] < 0.9

def test_leiden_reaches_the_best_partition_of_a_tiny_graph():
    G = random_graph(11, (3, 3), density=0.7, gating=0.0)
    pull = pull_of(edge_list(G))
    best = max(signed_modularity(pull, np.array(groups))
               for groups in itertools.product(range(4), repeat=6))
    assert max(
        signed_modularity(pull, leiden(pull, seed=seed)) for seed in range(10)
    ) == pytest.approx(best)

def test_agreement_equals_igraph():
    import igraph
    random = np.random.default_rng(0)
    one, other = random.integers(4, size=60), random.integers(3, size=60)
    rand, information = agreement(one, other)
    assert rand == pytest.approx(
        igraph.compare_communities(one.tolist(), other.tolist(), method="adjusted_rand")
    )
    assert information == pytest.approx(
        igraph.compare_communities(one.tolist(), other.tolist(), method="nmi")
    )

def test_communities_without_excitation():
    G = get_edge_type_subgraph(random_graph(0), "inhibitory")
    with pytest.raises(InputError, match="signs='excitatory'"):
        detect_communities(G, signs="excitatory", n_null=0)
    assert compute_graph_statistics(
        G, n_null=2, n_boot=0, n_seeds=2
    ).communities.treatment.startswith("every edge")

# --- the whole

def test_statistics_of_a_small_graph_are_plain_data():
    G = random_graph(0)
    statistics = compute_graph_statistics(G, n_null=3, n_boot=5, n_seeds=2)
    text = json.dumps(statistics.to_dict(), allow_nan=False)
    assert json.loads(text)["facts"]["n_edges"] == G.number_of_edges()
    assert {"name", "value", "null_mean", "z", "p_value", "reason"} <= set(
        statistics.to_pandas().columns
    )
    assert ("not defined (every edge leads to a later layer" in str(statistics)
            and "not fitted" in str(statistics))
    assert isinstance(statistics, GraphStatistics) and len(plot_analysis(statistics).axes) == 6

def test_statistics_of_awkward_graphs():
    one = random_graph(0, (1, 1), density=1.0)
    for G in (one, random_graph(0, (2, 2), density=1.0), random_graph(1, (6, 6), within=True),
              random_graph(2, (5, 5, 5), gating=0.6), random_graph(0, multigraph=True)):
        statistics = compute_graph_statistics(G, n_null=3, n_boot=0, n_seeds=2)
        json.dumps(statistics.to_dict(), allow_nan=False)
        assert str(statistics)
        plot_analysis(statistics).canvas.draw()
    assert compute_graph_statistics(
        one, n_null=0, communities=False, motifs=False
    )["clustering"].null_mean is None

def test_decay_of_two_layers_has_a_reason():
    decay = layer_distance_decay(random_graph(0, (6, 6)), n_null=5)
    assert decay.rate.value is None and "same number of layers" in str(decay)
    assert "two distances" in layer_distance_decay(random_graph(0), n_null=5).reason

def test_edge_type_subgraph_keeps_gates():
    G = random_graph(0, gating=0.3)
    source, target = next(
        (a, b) for a, b, kind in G.edges(data="interaction_type") if kind == "gating"
    )
    gate = next(node for node in G if node not in (source, target))
    G.graph["hyperedges"] = [
        {"source": source, "gate": gate, "target": target, "direction": "NOT", "effect_off": 1.0,
         "effect_on": 0.0, "interaction": -1.0, "ci_lower": None, "ci_upper": None, "p_value": None,
         "q_value": None, "n_samples": None, "offset": 0}
    ]
    piece = get_edge_type_subgraph(G, "gating")
    assert gate in piece and piece.graph["hyperedges"] == G.graph["hyperedges"]
    assert get_edge_type_subgraph(G, "excitatory").graph["hyperedges"] == []
    assert set(get_edge_type_subgraph(G, "excitatory", keep_isolated=True)) == set(G)
    piece.nodes[gate]["label"] = "changed"
    assert G.nodes[gate]["label"] != "changed"

@pytest.mark.parametrize("analyse", [compute_graph_statistics, count_motifs, find_hubs,
                                     detect_communities, layer_distance_decay, plot_analysis])
def test_empty_graphs_are_refused_in_one_sentence(analyse):
    for G in (nx.DiGraph(), random_graph(0, density=0.0)):
        with pytest.raises(InputError, match="no edges") as caught: analyse(G)
        assert str(caught.value).count(". ") == 0

def test_bad_arguments():
    G = random_graph(0)
    for call, words in [(lambda: find_hubs(G, metric="fame"), "the metrics are total_degree"),
                        (lambda: find_hubs(G, top_k=0), "top_k is 0"),
                        (lambda: detect_communities(G, signs="both"), "oppose, ignore, excitatory"),
                        (lambda: detect_communities(G, resolution=0), "resolution"),
                        (lambda: count_motifs(G, n_null=-1), "n_null is -1"),
                        (lambda: get_edge_type_subgraph(G, "red"), "no type of edge"),
                        (lambda: layer_distance_decay(G, weight="mass"), "finite 'mass'"),
                        (lambda: compute_graph_statistics(G, n_null=-1), "n_null is -1"),
                        (lambda: plot_analysis([1]), "pass an interaction graph"),
                        (lambda: degree_law([1] * 40), "at least 25 values"),
                        (lambda: degree_law([0.5]), "whole numbers")]:
        with pytest.raises(InputError, match=words): call()
    G.edges[next(iter(G.edges))]["interaction_type"] = "odd"
    with pytest.raises(InputError, match="an edge is of type 'odd'; the types are excitatory"):
        compute_graph_statistics(G)

# --- the order in which a graph was put together is not part of it

def in_another_order(G, seed=1):
    random, same = np.random.default_rng(seed), G.__class__(**G.graph)
    nodes, edges = list(G.nodes(data=True)), list(G.edges(data=True))
    same.add_nodes_from(nodes[place] for place in random.permutation(len(nodes)))
    same.add_edges_from(edges[place] for place in random.permutation(len(edges)))
    if "hyperedges" in G.graph:
        same.graph["hyperedges"] = [
            G.graph["hyperedges"][place] for place in random.permutation(len(G.graph["hyperedges"]))
        ]
    return same


@pytest.fixture(scope="module")
def tangled():
    """Parallel edges of equal size and opposite sign, gates, edges within layers, layers of more
    than ten."""
    G = random_graph(seed=3, widths=(12, 12, 12, 12), density=0.3, within=True, multigraph=True)
    for source, target, edge in list(G.edges(data=True))[::5]:
        G.add_edge(
            source, target, interaction_type="inhibitory",
            strength=-edge["strength"] if edge["strength"] > 0 else edge["strength"], offset=1
        )
    ends = np.random.default_rng(0).permutation(list(G))[:45].reshape(15, 3)
    facts = {"direction": "AND", "effect_off": 0.0, "effect_on": 1.0, "interaction": 1.0,
             "ci_lower": None, "ci_upper": None, "p_value": None, "q_value": None,
             "n_samples": None, "offset": 0}
    G.graph["hyperedges"] = [
        {"source": a, "gate": b, "target": c, **facts} for a, b, c in ends.tolist()
    ]
    return G


@pytest.mark.parametrize(
    "analyse", [lambda G: compute_graph_statistics(G, n_null=3, n_boot=5).to_dict(),
                lambda G: count_motifs(G, n_null=3), lambda G: detect_communities(G, n_null=3),
                lambda G: find_hubs(G, metric="betweenness", n_boot=5, n_null=3, max_starts=10),
                lambda G: layer_distance_decay(G, n_null=3),
                lambda G: cluster_roles(G, n_roles=3, n_null=3).to_dict(), lambda G: list(
                    role_graph(G, cluster_roles(G, n_roles=3, n_null=3), n_null=3).edges(data=True)
                ), lambda G: compare_graphs(
                    G, random_graph(seed=4, widths=(12, 12, 12, 12)), n_null=3, n_bootstrap=5
                ), lambda G: compare_graphs(
                    random_graph(seed=4, widths=(12, 12, 12, 12)), G, n_null=3, n_bootstrap=5
                )], ids=["statistics", "motifs", "communities", "hubs", "decay", "roles",
                         "role_graph", "comparison", "compared"]
)
def test_results_do_not_depend_on_the_order_of_nodes_and_edges(tangled, analyse):
    first, again = analyse(tangled), [analyse(in_another_order(tangled, seed)) for seed in (1, 2)]
    assert all(repr(one) == repr(first) for one in again)
