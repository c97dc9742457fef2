"""What the page is given and what the figures draw, against independent counts."""
import base64
import hashlib
import html.parser
import re

import networkx as nx
import numpy as np
import pytest

from feature_interaction_graph.drawing.html import (
    GraphPage, edge_tilt, layer_order, page_data, select_for_display
)
from feature_interaction_graph.drawing.packed import (
    data_blocks, data_in, packed_page, unpacked_page
)
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.visualization import (
    column_positions,
    plot_degree_distribution,
    plot_interaction_types,
    plot_layer_distance_decay,
    plot_neighborhood,
    render_cascade_overlay,
    render_interactive_graph,
    render_neighborhood,
    save_figure,
)

HOSTILE = ["<script>alert(1)</script>", "</script><img src=x onerror=alert(1)>", "<!--<script>",
           "{{data}} {{script}}", "\u2028\u2029\x00\ud800", "&lt;b&gt;", "'\"`${1}",
           "$x^2$ costs $5", "javascript:alert(1)"]


def layered_graph(
    n_layers: int = 5, per_layer: int = 12, probability: float = 0.1, seed: int = 0
) -> nx.DiGraph:
    rng = np.random.default_rng(seed)
    G = nx.DiGraph()
    for layer in range(n_layers):
        for feature in range(per_layer):
            G.add_node(f"L{layer}_F{feature}", layer=layer, feature_idx=feature,
                       label=f"label {layer}.{feature}", importance=float(rng.random()),
                       activation_freq=float(rng.random()))
    for source in G:
        for target in G:
            if (0 < G.nodes[target]["layer"] - G.nodes[source]["layer"] <= 3
                and rng.random() < probability):
                strength = float(rng.normal())
                G.add_edge(source, target, strength=strength,
                           interaction_type="excitatory" if strength > 0 else "inhibitory",
                           strength_std=2 * strength)
    return G


@pytest.fixture(scope="module")
def G() -> nx.DiGraph: return layered_graph()


def data_of(page: GraphPage) -> dict: return data_in(page.html)[0]


# ---- the page

def test_the_page_holds_every_node_and_edge(G):
    data = data_of(render_interactive_graph(G))
    ids = data["nodes"]["id"]
    assert sorted(ids) == sorted(G) and sorted(data["order"]) == list(range(len(G))) == sorted(
        data["by_size"]
    )
    drawn = {
        (ids[s], ids[t]): (strength, kind) for s, t, strength, kind in zip(
            *(data["edges"][name] for name in ("source", "target", "strength", "type")), strict=True
        )
    }
    assert set(drawn) == set(G.edges)
    for edge, (strength, kind) in drawn.items():
        assert (strength == pytest.approx(G.edges[edge]["strength"], rel=1e-5)
                and kind == G.edges[edge]["interaction_type"])


def test_missing_statistics_are_blank_and_sizes_fall_back_to_strength(G):
    blank = G.copy()
    for attributes in blank.nodes.values():
        attributes.update(importance=float("nan"), activation_freq=float("nan"), label="")
    data = page_data(blank)
    assert set(data["nodes"]["importance"]) == {None} == set(
        data["nodes"]["frequency"]
    ) and "strength" in data["size_name"]
    heaviest = max(blank, key=lambda node: sum(
                       abs(edge["strength"]) for *_, edge
                       in [*blank.in_edges(node, data=True), *blank.out_edges(node, data=True)]
                   ))
    assert data["nodes"]["id"][data["by_size"][-1]] == heaviest


def test_a_graph_of_older_files_without_optional_attributes_is_drawn(G):
    bare = nx.DiGraph()
    bare.add_nodes_from((node, {"layer": facts["layer"], "feature_idx": facts["feature_idx"]})
                        for node, facts in G.nodes(data=True))
    bare.add_edges_from(
        (source, target, {"strength": edge["strength"], "interaction_type": "gating"})
        for source, target, edge in G.edges(data=True)
    )
    data = data_of(render_interactive_graph(bare))
    assert set(data["edges"]["type"]) == {"gating"} and not data["has_std"]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_string_becomes_markup(G, text):
    hostile = G.copy()
    hostile.nodes["L0_F0"]["label"] = text
    page = render_interactive_graph(
        hostile, title=text, top_contexts={"L0_F0": [text]}, node_groups=dict.fromkeys(G, text)
    )
    data = data_of(page)
    assert (data["nodes"]["label"][data["nodes"]["id"].index("L0_F0")] == text
            == data["nodes"]["contexts"][data["nodes"]["id"].index("L0_F0")][0])
    tags: list[str] = []
    class Collect(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list) -> None: tags.append(tag)
    Collect().feed(page.html)
    plain: list[str] = []
    tags, plain = [], tags
    Collect().feed(render_interactive_graph(G, title="plain").html)
    assert tags == plain and tags.count("script") == 2


def test_a_packed_page_survives_any_string_and_is_inert(G):
    rng, data = np.random.default_rng(0), page_data(G)
    for _ in range(40):
        text = "".join(rng.choice(list("<>&/!-scriptSCRIPT\\\"'\u2028\ud83d\0")) for _ in range(12))
        data["nodes"]["label"][0] = data["counts"] = text
        block = data_blocks([data])
        assert data_in(block) == [data] == [unpacked_page(packed_page(data))]
        assert re.fullmatch(r"<script[^<>]*>[A-Za-z0-9+/=]*</script>", block)


def test_packed_numbers_are_those_of_the_graph_to_six_digits(G):
    rng, graph = np.random.default_rng(1), G.copy()
    for *_, edge in graph.edges(data=True):
        edge.update(strength=float(rng.normal() * 10.0 ** rng.integers(-9, 9)), n_samples=300,
                    q_value=float(rng.choice([1e-300, 1e-20, 0.5])), variance=float("nan"))
    data = unpacked_page(packed_page(page_data(graph)))
    for at, edge in enumerate(edge for *_, edge in graph.edges(data=True)):
        told = {name: values[at] for name, values in data["edges"].items()}
        assert told["strength"] == pytest.approx(edge["strength"], rel=1e-5)
        assert told["n_samples"] == 300 and "variance" not in told
        assert told["q_value"] == pytest.approx(max(edge["q_value"], 1e-37), rel=1e-5)


def test_the_policy_names_exactly_the_pages_own_script_and_style(G):
    page = render_interactive_graph(G).html
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    script = page.rsplit("<script>", 1)[1].split("</script>")[0]
    style = page.split("<style>", 1)[1].split("</style>")[0]
    digests = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
               for part in (script, style)]
    assert (
        policy == "default-src 'none'; img-src data:; "
        f"script-src 'sha256-{digests[0]}'; style-src 'sha256-{digests[1]}'"
    )


def test_the_page_names_no_other_place(G, tmp_path):
    render_interactive_graph(G, tmp_path / "graph.html")
    content = (tmp_path / "graph.html").read_text(encoding="utf-8")
    for format in ("http://graphml.graphdrawing.org/xmlns", "http://gexf.net/1.3",
                   "http://www.w3.org/2000/svg"):      # names of formats in files it saves
        content = content.replace(format, "")
    elsewhere = (r"https?:|//\w+\.\w|\bsrc\s*=|@import|url\(|fetch\(|XMLHttpRequest|WebSocket|"
                 r"import\(|<link|<base|<iframe")
    assert not re.findall(elsewhere, content)
    assert [entry.name for entry in tmp_path.iterdir()] == ["graph.html"]


def test_a_failing_page_leaves_the_old_file(G, tmp_path):
    path = tmp_path / "graph.html"
    render_interactive_graph(G, path)
    before = path.read_bytes()
    for options, words in (({"select": "L9_F9"}, "L9_F9"), ({"max_nodes": 0}, "max_nodes is 0"),
                           ({"height": "1px;background:url(x)"}, "CSS length")):
        with pytest.raises(InputError, match=words): render_interactive_graph(G, path, **options)
    with pytest.raises(InputError, match="no nodes"): render_interactive_graph(nx.DiGraph(), path)
    assert path.read_bytes() == before


def test_a_notebook_shows_the_page_in_a_sandboxed_frame(G):
    shown = render_interactive_graph(G, height="70vh")._repr_html_()
    frame = {}
    class Collect(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list) -> None: frame.setdefault(tag, dict(attrs))
    Collect().feed(shown)
    assert (set(frame) == {"div", "iframe"}
            and frame["iframe"]["srcdoc"] == render_interactive_graph(G).html)
    assert ("allow-same-origin" not in frame["iframe"]["sandbox"]
            and "height:70vh" in frame["iframe"]["style"])


# ---- level of detail and order

def test_the_best_connected_nodes_stay_and_seeds_always(G):
    weight = {node: sum(abs(edge["strength"]) for *_, edge
                        in [*G.in_edges(node, data=True), *G.out_edges(node, data=True)])
              for node in G}
    expected = set(sorted(G, key=lambda node: -weight[node])[:20])
    lightest = min(weight, key=weight.get)
    assert set(select_for_display(G, 20)) == expected and lightest not in expected
    seeded = select_for_display(G, 20, seeds=[lightest])
    assert lightest in seeded and len(seeded) == 20
    strong = select_for_display(G, 1000, 0.8)
    assert set(strong.edges) == {
        (s, t) for s, t, strength in G.edges(data="strength") if abs(strength) >= 0.8
    } and set(strong) == set(G)
    data = data_of(render_interactive_graph(G, max_nodes=20))
    assert "drawn: the 20 best connected features" in data["counts"] and data["whole"] == len(G)


def test_order_shortens_edges_and_depends_on_the_graph_alone():
    for seed in range(5):
        G = layered_graph(6, 20, 0.04, seed)
        order = layer_order(G)
        assert sorted(order) == sorted(G) and [G.nodes[node]["layer"] for node in order] == sorted(
            G.nodes[node]["layer"] for node in G
        )
        height = {node: rank % 20 / 20 for rank, node in enumerate(order)}
        rng = np.random.default_rng(seed)
        shuffled = [
            edge_tilt(G, dict(zip(G, np.concatenate([rng.permutation(20) / 20 for _ in range(6)]),
                                  strict=True))) for _ in range(20)
        ]
        assert edge_tilt(G, height) < 0.75 * min(shuffled)
        reordered = nx.DiGraph()
        reordered.add_nodes_from(reversed(list(G.nodes(data=True))))
        reordered.add_edges_from(reversed(list(G.edges(data=True))))
        assert layer_order(reordered) == order


def test_a_plain_chain_is_drawn_straight():
    G = nx.DiGraph()
    for layer in range(4):
        for feature in range(3):
            G.add_node(f"L{layer}_F{feature}", layer=layer, feature_idx=feature)
    for layer in range(3):
        for feature in range(3):
            G.add_edge(f"L{layer}_F{feature}", f"L{layer + 1}_F{(feature + 1) % 3}", strength=1.0,
                       interaction_type="excitatory")
    positions = column_positions(G)
    assert all(positions[source][1] == positions[target][1]
               and positions[source][0] + 1 == positions[target][0] for source, target in G.edges)
    assert len(set(positions.values())) == 12


def test_two_thousand_nodes_are_laid_out_quickly():
    import time
    G = layered_graph(10, 200, 0.002)
    started = time.process_time()
    render_interactive_graph(G)
    assert time.process_time() - started < 20


def test_hubs_are_the_best_connected_of_the_whole_graph(G):
    degrees = dict(G.degree)
    data = data_of(render_interactive_graph(G, max_nodes=30))
    hubs = {
        node for node, hub in zip(data["nodes"]["id"], data["nodes"]["hub"], strict=True) if hub
    }
    assert hubs == {node for node in data["nodes"]["id"] if degrees[node]
                    >= np.percentile(list(degrees.values()), 95)} and 0 < len(hubs) < 10
    assert not any(data_of(render_interactive_graph(G, hub_percentile=None))["nodes"]["hub"])


def test_the_title_names_the_model_that_was_measured(G):
    named = G.copy()
    named.graph["config"] = {"model_name": "pythia <70m>"}
    assert ("<title>Feature interactions of pythia &lt;70m&gt;</title>"
            in render_interactive_graph(named).html)
    assert ("<title>Feature interactions</title>" in render_interactive_graph(G).html
            and "<title>mine</title>" in render_interactive_graph(named, title="mine").html)


# ---- neighbourhoods and overlays

def test_neighbourhood_pages_hold_the_neighbourhood_and_open_its_feature(G):
    data = data_of(render_neighborhood(G, "L2_F3", n_hops=1))
    assert set(data["nodes"]["id"]) == {"L2_F3", *G.successors("L2_F3"), *G.predecessors("L2_F3")}
    assert (data["start"] == "#select=L2_F3&hops=0"
            and data["nodes"]["seed"][data["nodes"]["id"].index("L2_F3")] == 1)
    with pytest.raises(InputError, match="L2_F99"): render_neighborhood(G, "L2_F99")


def test_overlay_values_reach_their_nodes(G):
    data = data_of(render_cascade_overlay(G, {"L3_F1": 0.5, "L4_F2": -2.0}, "L0_F0"))
    values = dict(zip(data["nodes"]["id"], data["nodes"]["value"], strict=True))
    assert values["L3_F1"] == 0.5 and values["L4_F2"] == -2.0 and data["largest_value"] == 2.0 and {
        values[node] for node in G if node not in ("L3_F1", "L4_F2")
    } == {None}
    assert [
        node for node, seed in zip(data["nodes"]["id"], data["nodes"]["seed"], strict=True) if seed
    ] == ["L0_F0"]


# ---- figures

def test_degree_figure_shows_tail_shares(G):
    lines = plot_degree_distribution(G).axes[0].lines
    for line, degrees in zip(lines[:2], (dict(G.out_degree), dict(G.in_degree)), strict=True):
        for k, share in zip(*line.get_data(), strict=True):
            assert share == pytest.approx(sum(degree >= k for degree in degrees.values()) / len(G))
    ks, expected = lines[2].get_data()
    mean = G.number_of_edges() / len(G)
    assert expected[0] == pytest.approx(1 - np.exp(-mean)) and expected[1] == pytest.approx(
        1 - np.exp(-mean) * (1 + mean)
    )


@pytest.mark.parametrize("attribute", ["strength", "strength_std"])
def test_decay_figure_shows_means(G, attribute):
    axes = plot_layer_distance_decay(G, attribute=attribute).axes[0]
    means = {line.get_label(): dict(
                 zip(np.round(line.get_xdata()).astype(int), line.get_ydata(), strict=True)
             ) for line in axes.lines if str(line.get_label()).endswith("mean")}
    for kind in ("excitatory", "inhibitory"):
        for distance in (1, 2, 3):
            values = [abs(edge[attribute]) for source, target, edge in G.edges(data=True)
                      if edge["interaction_type"] == kind
                      and G.nodes[target]["layer"] - G.nodes[source]["layer"] == distance]
            assert means[f"{kind}, mean"][distance] == pytest.approx(np.mean(values))
    with pytest.raises(InputError, match="'speed'"): plot_layer_distance_decay(G, attribute="speed")


def test_type_figure_shows_counts(G):
    axes = plot_interaction_types(G).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    for bars, sign in zip(
        axes.containers[::2] if len(axes.containers) == 4 else axes.containers, (1, -1), strict=True
    ):
        for name, bar in zip(names, bars, strict=True):
            source, target = map(int, name.split(" → "))
            count = sum(1 for s, t, strength in G.edges(data="strength")
                        if (G.nodes[s]["layer"], G.nodes[t]["layer"]) == (source, target)
                        and strength * sign > 0)
            assert bar.get_width() == sign * count


@pytest.mark.parametrize("label", HOSTILE)
def test_figures_and_their_files_take_any_label(G, tmp_path, label):
    hostile = G.copy()
    for attributes in hostile.nodes.values(): attributes["label"] = label
    figure = plot_neighborhood(hostile, "L2_F3", n_hops=1, max_nodes=6)
    content = save_figure(figure, tmp_path / "figure.html").read_text(encoding="utf-8")
    tags: set[str] = set()
    class Collect(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list) -> None: tags.add(tag)
    Collect().feed(content)
    assert tags == {"html", "head", "meta", "title", "style", "body", "header", "h1", "main",
                    "figure", "img"} and content.count("<img") == 1
    import xml.etree.ElementTree as ElementTree
    # the vector picture is well-formed
    ElementTree.fromstring(base64.b64decode(re.search(r"base64,([^\"]+)", content)[1]))


@pytest.mark.parametrize("suffix", ["html", "svg", "pdf", "png"])
def test_the_same_figure_is_the_same_file(G, tmp_path, suffix):
    files = [save_figure(
                 plot_neighborhood(G, "L2_F3", n_hops=1), tmp_path / f"{number}.{suffix}"
             ).read_bytes() for number in range(2)]
    assert files[0] == files[1] and (suffix == "png" or b"CreationDate" not in files[0])


def test_neighbourhood_figure_keeps_the_feature_when_it_drops_others(G):
    figure = plot_neighborhood(G, "L2_F3", n_hops=2, max_nodes=5)
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert len(shown) == 5 and "label 2.3" in shown


def test_figures_of_edgeless_graphs_are_drawn(tmp_path):
    G = nx.DiGraph()
    G.add_node("L0_F0", layer=0, feature_idx=0)
    for draw in (plot_degree_distribution, plot_layer_distance_decay, plot_interaction_types):
        draw(G, tmp_path / "figure.png")
    plot_neighborhood(G, "L0_F0")
    render_interactive_graph(G)
