"""Roles: planted ones are found in any layer, none are found where there are none, gates count, and
the graph of roles adds up."""
import networkx as nx
import numpy as np
import pytest

from feature_interaction_graph.analysis import cluster_roles
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.structure.communities import agreement
from feature_interaction_graph.structure.nulls import edge_list, rewire, scatter
from feature_interaction_graph.structure.roles import (
    _best_of_chance,
    assign_roles,
    kmeans,
    profiles_of,
    role_graph,
    role_information,
    role_name,
    role_profiles,
    split_agreement,
    squared_distances,
)

def with_jobs(
    seed: int = 0, contrast: float = 1.5, gates: bool = False
) -> tuple[nx.DiGraph, np.ndarray]:
    """Four layers of 36: exciters, inhibitors, features that are inhibited, and (with `gates`)
    gates that have only hyperedges to tell them."""
    random, G = np.random.default_rng(seed), nx.DiGraph()
    job = {f"L{layer}_F{index}": index % (4 if gates else 3) for layer in range(4)
           for index in range(36)}
    for node in job:
        G.add_node(node, layer=int(node[1]), feature_idx=int(node.split("F")[1]),
                   label=f"{('sun', 'frost', 'field', 'door')[job[node]]} {node}")
    for a in G:
        for b in G:
            if G.nodes[a]["layer"] >= G.nodes[b]["layer"]: continue
            rate = 0.08 * np.exp(contrast * (job[a] in (0, 1)))
            if random.random() < min(rate, 0.9):
                negative = random.random() < (0.85 if job[a] == 1 or job[b] == 2 else 0.15)
                size = float(random.lognormal()) * (-1 if negative else 1)
                G.add_edge(a, b, interaction_type="inhibitory" if negative else "excitatory",
                           strength=size, ci_lower=size - 0.1, ci_upper=size + 0.1)
    if gates:
        doors = [node for node in job if job[node] == 3 and node[1] == "1"]
        ends = [node for node in job if node[1] == "3"]
        G.graph["hyperedges"] = [
            {"source": f"L0_F{random.integers(36)}", "gate": str(door),
             "target": str(random.choice(ends)), "direction": "AND", "effect_off": 0.0,
             "effect_on": 1.0, "interaction": 1.0, "offset": 0} for door in doors for _ in range(12)
        ]
    return G, np.array([job[node] for node in G])


def test_planted_jobs_come_back_across_layers_and_graphs():
    G, jobs = with_jobs()
    roles = cluster_roles(G, n_roles=3, n_null=10, n_bootstrap=10)
    inner = np.array([G.nodes[node]["layer"] in (1, 2) for node in G])
    found = np.array(list(roles.membership.values()))
    assert len(roles.roles) == 3 and agreement(found[inner], jobs[inner])[0] > 0.8
    assert {one.words[0][0] for one in roles.roles} == {
        "sun", "frost", "field"
    } and roles.stability["bootstrap"] > 0.6 and roles.prediction.z > 4
    other, other_jobs = with_jobs(seed=1)
    there = np.array(list(assign_roles(roles, other).values()))
    assert agreement(there[inner], other_jobs[inner])[0] > 0.75
    assert {node for one in roles.roles for node in one.members} == set(G) and sum(
        sum(one.layers.values()) for one in roles.roles
    ) == len(G)
    assert len(roles.to_pandas()) == 3 and "3 roles" in str(roles) and isinstance(
        roles.to_dict()["centres"], list
    )


def test_the_number_of_roles_is_earned():
    """The coarser of two nested divisions wins where both are there (acts or is acted on; excites
    or inhibits), and both are far above scattered graphs."""
    free = cluster_roles(with_jobs()[0], n_null=10, n_bootstrap=2, max_roles=5)
    assert len(free.roles) in (2, 3) and min(
        free.criterion[2]["excess"], free.criterion[3]["excess"]
    ) > 0.5 > max(free.criterion[4]["excess"], free.criterion[5]["excess"])


def test_no_roles_in_a_random_graph():
    scattered = split_agreement(
        profiles_of(scatter(edge_list(with_jobs()[0]), np.random.default_rng(0)))[1], 3,
        np.random.default_rng(0)
    )
    assert scattered < 0.6
    G = with_jobs(contrast=0.0)[0]
    random = np.random.default_rng(3)
    for *_, edge in G.edges(data=True):
        sign = random.choice([-1, 1])
        edge.update(
            strength=float(sign), interaction_type="excitatory" if sign > 0 else "inhibitory"
        )
    nothing = cluster_roles(G, n_null=8, n_bootstrap=2, max_roles=4)
    assert len(nothing.roles) == 1 and "no roles" in str(nothing)


def test_choosing_the_number_is_part_of_what_chance_may_do():
    """Where nothing but chance is at work, 1 graph in n_null + 1 gets roles; tested at the best
    number alone, forgetting that it was chosen, several times as many."""
    random, found, alone = np.random.default_rng(0), 0, 0
    for _ in range(2000):
        # 20 graphs alike, 7 numbers of roles; rarely, one agrees far more than most
        one, *others = random.exponential(size=(20, 7)) ** 2 * np.linspace(1, 0.5, 7)
        chance = np.array(others).T
        excess = one - chance.mean(1)
        found += excess.max() > _best_of_chance(chance.tolist())
        alone += one[excess.argmax()] > chance[excess.argmax()].max()
    assert 0.035 < found / 2000 < 0.065 and alone / 2000 > 0.12


@pytest.mark.slow
def test_few_graphs_without_roles_get_some():
    G = with_jobs()[0]
    edges, random, found = edge_list(G), np.random.default_rng(0), 0
    for number in range(24):
        part, H = scatter(edges, random), nx.DiGraph()
        H.add_nodes_from(G.nodes(data=True))
        for a, b, sign, size in zip(
            part.source, part.target, part.sign, part.strength, strict=True
        ):
            H.add_edge(part.nodes[a], part.nodes[b],
                       interaction_type={1: "excitatory", -1: "inhibitory"}[int(sign)],
                       strength=float(size))
        found += len(
            cluster_roles(H, n_null=19, n_bootstrap=0, n_seeds=1, max_roles=6, seed=number).roles
        ) > 1
    assert found <= 4


def test_gates_are_a_role():
    G, jobs = with_jobs(gates=True)
    profiles = role_profiles(G)
    assert profiles.cells[-3:] == ("gated, as source", "gates", "gated, as target")
    first = np.array([G.nodes[node]["layer"] for node in G]) == 1
    column = profiles.values[:, profiles.cells.index("gates")]
    assert column[first & (jobs == 3)].min() > 1 > column[first & (jobs != 3)].max() and np.isnan(
        column[~first]
    ).all()
    three = cluster_roles(G, n_roles=3, n_null=2, n_bootstrap=0)
    assert len(three.roles) == 3 and three.criterion.keys() == {3}


def test_profiles_do_not_know_units_or_numbers():
    """Strength in other units per pair of layers, other feature numbers, another order of nodes:
    the same profiles."""
    G, _ = with_jobs()
    H = nx.relabel_nodes(G, {node: f"L{node[1]}_F{900 - int(node.split('F')[1])}" for node in G})
    for _, b, edge in H.edges(data=True): edge["strength"] = edge["strength"] * 7.0 ** int(b[1])
    H = nx.DiGraph(H.reverse().reverse())
    ours, theirs = role_profiles(G, weight="strength"), role_profiles(H, weight="strength")
    order = [
        theirs.nodes.index(f"L{node[1]}_F{900 - int(node.split('F')[1])}") for node in ours.nodes
    ]
    np.testing.assert_allclose(ours.values, theirs.values[order], atol=1e-9)
    # and weights do count
    assert np.nanmax(np.abs(role_profiles(G).values - ours.values)) > 0.1


def test_partners_show_what_degrees_cannot():
    G, _ = with_jobs()
    half = G.edge_subgraph(
        [(a, b) for a, b in G.edges if (int(a.split("F")[1]) - int(b.split("F")[1])) % 2 == 0]
    ).copy()
    parity = {node: int(node.split("F")[1]) % 2 for node in half}
    profiles = role_profiles(half, partners=parity)
    mine = np.array([parity[node] for node in profiles.nodes])
    column = profiles.values[:, profiles.cells.index("out excitatory with 1")]
    assert np.nanmean(column[mine == 1]) > 0.4 > -0.4 > np.nanmean(column[mine == 0])
    edges = edge_list(half)
    assert role_information(edges, mine) == pytest.approx(1, abs=0.02) and role_information(
        rewire(edges, np.random.default_rng(0)), mine
    ) < 0.1
    with pytest.raises(InputError, match="partners"):
        assign_roles(cluster_roles(half, n_roles=2, partners=parity, n_null=2, n_bootstrap=0), half)


def test_kmeans_with_gaps_is_kmeans_without_them():
    random = np.random.default_rng(0)
    truth = random.integers(3, size=300)
    x = np.array([[0, 0, 5.0, 5], [6, 0, 0, 0], [0, 7, 0, 3]])[truth] + random.standard_normal(
        (300, 4)
    )
    gaps = np.where(random.random(x.shape) < 0.25, np.nan, x)
    gaps[np.isnan(gaps).all(1), 0] = 0.0
    for data in (x, gaps):
        found = squared_distances(data, kmeans(data, 3, random)).argmin(1)
        assert agreement(found, truth)[0] > (0.99 if data is x else 0.8)
    np.testing.assert_allclose(
        squared_distances(x, x[:5]), ((x[:, None] - x[:5])**2).sum(-1), atol=1e-9
    )
    # the mean of what is known, times 2
    np.testing.assert_allclose(
        squared_distances(np.array([[1.0, np.nan]]), np.array([[0.0, 9.0]])), [[2.0]]
    )
    same = np.ones((6, 2))
    assert kmeans(same, 3, random).shape == (3, 2)


def test_role_graph_adds_up():
    G, jobs = with_jobs()
    membership = dict(zip(G, jobs.tolist(), strict=True))
    summary = role_graph(G, membership, n_null=5)
    for a, b, edge in summary.edges(data=True):
        sizes = np.array([each["strength"] for one, other, each in G.edges(data=True)
                          if (membership[one], membership[other]) == (a, b)])
        assert (edge["n_edges"] == len(sizes) and edge["net"] == pytest.approx(sizes.sum())
                and edge["excitatory"] == pytest.approx(sizes[sizes > 0].sum()))
        assert (edge["inhibitory"] == pytest.approx(sizes[sizes < 0].sum())
                and edge["net_error"] == pytest.approx(0.2 / 3.92 * len(sizes)**0.5))
    assert sum(edge["n_edges"] for *_, edge in summary.edges(data=True)) == G.number_of_edges()
    # the same rewired graphs, drawn here
    edges, random = edge_list(G), np.random.default_rng(0)
    place = np.array([membership[node] for node in edges.nodes])
    nulls = [rewire(edges, random) for _ in range(5)]
    for a, b, edge in summary.edges(data=True):
        counts = [((place[null.source] == a) & (place[null.target] == b)).sum() for null in nulls]
        assert edge["expected"] == pytest.approx(np.mean(counts))
        if (spread := np.std(counts, ddof=1)) > 0:
            assert edge["z"] == pytest.approx((edge["n_edges"] - np.mean(counts)) / spread)
    assert np.isnan(
        next(
            iter(role_graph(G, membership, weight="ci_lower", n_null=0).edges(data=True))
        )[2]["net_error"]
    )


def test_names_say_what_stands_out():
    assert role_name(
        {"out excitatory 1": 1.5, "out excitatory 2+": 1.0, "in inhibitory 1": -0.9, "gates": 0.1}
    ) == "excites more, is inhibited less"
    assert role_name(
        {"out excitatory 1": 0.1}
    ) == "usual" and role_name({"gates": 2.0}) == "gates more"


@pytest.mark.parametrize(
    ("ask", "said"), [(lambda G: cluster_roles(nx.DiGraph()), "no edges"),
                      (lambda G: cluster_roles(G, n_roles=100), "1 to 72"),
                      (lambda G: role_profiles(G, distances=(2, 1)), "ascending"),
                      (lambda G: role_profiles(G, distances=()), "ascending"),
                      (lambda G: role_profiles(G, partners={}), "no category"),
                      (lambda G: role_graph(G, {"L0_F0": 0}), "no role"),
                      (lambda G: role_profiles(G, weight="unheard"), "unheard")]
)
def test_refusals(ask, said):
    with pytest.raises(InputError, match=said): ask(with_jobs()[0])
