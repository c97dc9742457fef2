"""The explorer in a real browser: what is drawn, what the panel says, what each control does, that
no label and no foreign script ever runs, and that nothing is asked of a network.

Skipped where no Chromium is installed.
"""
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from headless import Browser, browsing

from feature_interaction_graph.dictionary.examples import Example
from feature_interaction_graph.evidence.facts import Findings
from feature_interaction_graph.graph import load_graph
from feature_interaction_graph.steering import predict_cascade
from feature_interaction_graph.tracing.files import load_attribution
from feature_interaction_graph.visualization import (
    render_cascade_overlay, render_explorer, render_interactive_graph, render_neighborhood
)

MARK = "document.documentElement.setAttribute('data-attacked', 'yes')"
HOSTILE = [f"<script>{MARK}</script>", f"</script><script>{MARK}</script>",
           f"<img src=x onerror=\"{MARK}\">", f"\"><svg onload={MARK}>", f"javascript:{MARK}",
           "<!--<script>", "quotes ' \" ` and \\", "emoji 🙂👩‍👩‍👧",
           "שלום עולם مرحبا", "NUL \0 here",
           "x" * 10_000]
ATTACKED = "document.documentElement.dataset.attacked || ''"


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with browsing(chromium) as browser:
        browser.size(1280, 800)
        yield browser


def layered_graph(n_layers: int, per_layer: int, probability: float, seed: int = 0) -> nx.DiGraph:
    rng = np.random.default_rng(seed)
    G = nx.DiGraph(
        selection={"tested": 4321, "significance_level": 0.01},
        counts={"attempted": 5000, "measured": 4321, "skipped": {"too few samples": 679}}
    )
    for layer in range(n_layers):
        for feature in range(per_layer):
            G.add_node(f"L{layer}_F{feature}", layer=layer, feature_idx=feature,
                       label=f"words of kind {layer}{chr(97 + feature % 26)}",
                       importance=float(rng.lognormal()), activation_freq=float(rng.beta(1, 20)))
    for source in G:
        for target in G:
            if (0 < G.nodes[target]["layer"] - G.nodes[source]["layer"] <= 2
                and rng.random() < probability):
                strength = float(rng.normal())
                G.add_edge(source, target, strength=strength, abs_strength=abs(strength),
                           strength_std=strength / 2,
                           interaction_type="excitatory" if strength > 0 else "inhibitory",
                           ci_lower=strength - 0.1, ci_upper=strength + 0.1, p_value=1e-300,
                           q_value=1e-4 if strength > -1 else 0.005, n_samples=100, offset=0,
                           pre_strength=1.5 * strength, variance=float(rng.gamma(1)),
                           placebo_q_value=float(rng.random()), method="clamping",
                           share_same_sign=float(rng.uniform(0.6, 1)))
    return G


@pytest.fixture(scope="module")
def G() -> nx.DiGraph: return layered_graph(6, 50, 0.02)


@pytest.fixture(scope="module")
def page(G: nx.DiGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "graph.html"
    render_interactive_graph(
        G, path, "Three hundred features", top_contexts={"L1_F3": ["he said «hello» to her"]}
    )
    return path


def test_the_whole_graph_is_drawn_and_counted(G, page, browser):
    browser.open(page)
    found = browser.facts()
    assert int(found["nodesDrawn"]) == 300 and found["selected"] == ""
    assert int(found["edgesDrawn"]) == int(found["edgesShown"]) == min(G.number_of_edges(), 600)
    counts, overview = browser.text("#counts"), browser.text()
    assert "300 features" in counts and "4,321 interactions tested" in counts
    assert "679 too few samples" in counts and "Overview" in overview
    strongest = max(G.edges(data=True), key=lambda edge: abs(edge[2]["strength"]))
    assert G.nodes[strongest[0]]["label"] in overview and G.nodes[strongest[1]]["label"] in overview
    assert not browser.faults and [each for each in browser.requests if each != "about:blank"] == [
        page.resolve().as_uri()]


def test_the_picture_has_both_colours_and_nodes_everywhere(page, browser, tmp_path):
    from PIL import Image
    browser.open(page)
    shot = Image.open(browser.picture(tmp_path / "page.png")).convert("RGB")
    pixels = np.asarray(shot).astype(int)[125:760, :920]
    near = np.abs(pixels - (0x64, 0x74, 0x8A)).sum(axis=-1) < 60
    toward_green = pixels[..., 1] - pixels[..., 0] > 40
    toward_red = pixels[..., 0] - pixels[..., 2] > 50
    # thin, half transparent curves
    assert near.sum() > 4000 and toward_green.sum() > 5000 and toward_red.sum() > 2000
    columns = np.flatnonzero(near.sum(axis=0) > 60)
    # six layers, apart, over the whole width
    assert columns.min() < 80 and columns.max() > 700 and (np.diff(columns) > 30).sum() >= 5


def test_an_address_opens_the_panel_of_a_feature(G, page, browser):
    browser.open(page, "#select=L1_F3")
    text = browser.text()
    assert browser.facts()["selected"] == "L1_F3" and "words of kind 1d" in text
    assert "L1_F3 · layer 1, feature 3" in text
    assert browser.do("return document.querySelector('mark').textContent") == "hello"
    assert f"edges in {G.in_degree('L1_F3')} edges out {G.out_degree('L1_F3')} " in text
    neighbours = [*G.successors("L1_F3"), *G.predecessors("L1_F3")]
    assert len(neighbours) > 1 and all(neighbour in text for neighbour in neighbours)
    for neighbour in G.successors("L1_F3"):
        strength = G.edges["L1_F3", neighbour]["strength"]
        assert f"{strength:+.3g}".replace("-", "−") in text
    for title, edges, sign in (
        ("It excites", G.out_edges, 1), ("It inhibits", G.out_edges, -1),
        ("It is excited by", G.in_edges, 1), ("It is inhibited by", G.in_edges, -1)
    ):
        expected = sum(strength * sign > 0 for *_, strength in edges("L1_F3", data="strength"))
        assert f"{title} {expected} " in text if expected else title not in text


def test_an_address_sets_filters_and_hops(G, page, browser):
    strong = [edge for edge in G.edges(data=True) if edge[2]["strength"] >= 0.5]
    browser.open(page, "#min=0.5&types=excitatory")
    assert int(browser.facts()["edgesShown"]) == len(strong)
    reached = {"L1_F3", *G.successors("L1_F3"), *G.predecessors("L1_F3")}
    browser.open(page, "#select=L1_F3&hops=1")
    found = browser.facts()
    assert int(found["nodesDrawn"]) == len(reached)
    assert int(found["edgesDrawn"]) == G.subgraph(reached).number_of_edges()
    browser.open(page, "#select=L1_F3&hops=1&side=out")
    assert int(browser.facts()["featuresShown"]) == 1 + G.out_degree("L1_F3")
    browser.open(page, "#select=L9_F9&hops=77&min=abc&types=none&measure=%3Cb%3E&edge=a~b&tab=x"
                       "&path=a~b~9&dose=x~y&layers=a:b&group=none&q=x&at=1,2")
    found = browser.facts()
    assert found["selected"] == "" and found["nodesDrawn"] == "300" and found["edgesDrawn"] == "0"


def test_the_neighbourhood_lifts_the_cut_of_the_overview(browser, tmp_path):
    """Of a graph with far more edges than the overview shows: a feature none of whose edges is
    strong shows its edges when it is chosen, and all of its neighbours when only those are asked
    for."""
    dense = layered_graph(6, 50, 0.2, seed=1)
    size = sorted((abs(edge["strength"]) for *_, edge in dense.edges(data=True)), reverse=True)
    weak = min(dense, key=lambda node: (max((abs(edge["strength"]) for *_, edge in [
        *dense.in_edges(node, data=True), *dense.out_edges(node, data=True)]), default=9), node))
    around = {weak, *dense.successors(weak), *dense.predecessors(weak)}
    for one, other in dense.edges:      # all weak, also among the neighbours
        if one in around and other in around: dense.edges[one, other]["strength"] *= 0.01
    render_interactive_graph(dense, tmp_path / "dense.html")
    browser.open(tmp_path / "dense.html", f"#select={weak}")
    found = browser.facts()
    assert int(found["edgesShown"]) <= 600 < dense.number_of_edges() and size[600] > 0.05
    browser.do("await push(named('Show only its neighbours'))")
    found = browser.facts()
    assert len(around) > 10 and int(found["featuresShown"]) == len(around)
    assert int(found["edgesShown"]) == dense.subgraph(around).number_of_edges() > 0
    # and the slider now cuts what is around the feature
    browser.do("await set('slider', 1000)")
    assert browser.facts()["edgesShown"] == "0" and "around it" in browser.text("#cut-of")
    browser.do("await push(named('Show the whole graph'))")
    assert 0 < int(browser.facts()["edgesShown"]) <= 600


def test_every_feature_is_found_by_id_label_and_expression_and_drawn(G, page, browser):
    browser.open(page)
    found = browser.do("""
      const answer = {}, options = () => [...document.querySelectorAll('[role=option]')];
      const type = async text => { $('search').focus(); await set('search', text, 'input'); };
      const enter = async () => { $('search').dispatchEvent(new KeyboardEvent('keydown',
        { key: 'Enter', bubbles: true })); await wait(3); };
      await type('kind 2c');
      answer.found = options().map(row => row.querySelector('small').textContent.split(' ')[0]);
      answer.role = $('search').getAttribute('aria-expanded');
      await enter(); answer.chosen = facts().selected;
      await type('l4_f7');
      answer.exact = options()[0].querySelector('small').textContent.split(' ')[0];
      await enter(); answer.chosenById = facts().selected; answer.address = location.hash;
      await type('/^L[24]_F1\\\\d$/'); answer.regex = $('found').textContent;
      await type('/(/'); answer.broken = $('found').textContent;
      await type('no such words'); answer.nothing = $('found').textContent;
      answer.empty = $('results').hidden;
      $('search').dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', bubbles: true }));
      history.back(); await new Promise(done => setTimeout(done, 200)); await wait(3);
      answer.back = facts().selected;
      return answer;""")
    labels = {node for node, label in G.nodes(data="label") if "kind 2c" in label}
    assert set(found["found"]) == labels and found["chosen"] in labels and found["role"] == "true"
    assert found["exact"] == found["chosenById"] == "L4_F7"
    assert found["address"] == "#select=L4_F7" and found["back"] == found["chosen"]
    assert found["regex"] == "20 features found" and found["empty"]
    assert "no feature" in found["nothing"] and "no regular expression" in found["broken"]
    missed = browser.do("""
      const missed = [];
      for (let layer = 0; layer < 6; layer++) for (let feature = 0; feature < 50; feature++) {
        const id = `L${layer}_F${feature}`;
        $('search').focus(); $('search').value = id;
        $('search').dispatchEvent(new Event('input', { bubbles: true }));
        $('search').dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', bubbles: true }));
        await wait(1);
        if (facts().selected !== id) missed.push(id);
      }
      return missed;""")
    assert missed == []


def test_toggles_slider_unit_and_filters_do_what_they_say(G, page, browser):
    browser.open(page)
    edges = [edge for *_, edge in G.edges(data=True)]
    def shown(script: str) -> int:
        browser.do(script)
        return int(browser.facts()["edgesShown"])
    toggle = "$('types').querySelector('input[value=inhibitory]').click(); await wait(3)"
    assert shown(toggle) == sum(edge["strength"] > 0 for edge in edges)
    strongest = max(edges, key=lambda edge: abs(edge["strength"]))["strength"]
    assert shown("await set('slider', 1000)") == (strongest > 0)
    assert shown("await set('slider', 0)") == sum(edge["strength"] > 0 for edge in edges)
    assert shown(toggle) == len(edges)
    browser.do("await set('measure', 'strength_std')")
    assert "standard deviations" in browser.text()
    browser.do("await set('measure', 'strength')")
    assert shown("await set('filter-q', 0.001)") == sum(edge["q_value"] <= 0.001 for edge in edges)
    assert shown("await set('filter-placebo', 0.2)") == sum(
        edge["q_value"] <= 0.001 and edge["placebo_q_value"] <= 0.2 for edge in edges)
    assert shown("await set('filter-q', 1)") == sum(
        edge["placebo_q_value"] <= 0.2 for edge in edges)
    browser.do("await set('filter-placebo', 1)")
    assert shown("await set('filter-same', 0.9)") == sum(
        edge["share_same_sign"] >= 0.9 for edge in edges)
    browser.do("await set('filter-same', 0)")
    inside = [node for node, layer in G.nodes(data="layer") if 1 <= layer <= 3]
    browser.do("await set('layer-from', 1)")
    assert shown("await set('layer-to', 3)") == G.subgraph(inside).number_of_edges()
    assert int(browser.facts()["featuresShown"]) == len(inside)
    assert "layers=1%3A3" in browser.do("location.hash")


def test_pointing_names_a_feature_and_clicking_opens_it(G, page, browser):
    browser.open(page)
    spot = browser.do("""
      const box = $('over').getBoundingClientRect();
      for (let x = 20; x < box.width; x += 4) for (let y = 60; y < box.height; y += 4) {
        $('over').dispatchEvent(new PointerEvent('pointermove', { pointerId: 1,
          clientX: box.left + x, clientY: box.top + y, bubbles: true }));
        if (/L\\d+_F\\d+ · /.test($('tip').textContent) && !$('tip').hidden)
          return [box.left + x, box.top + y];
      }""")
    browser.pointer("mouseMoved", *spot)
    tip = browser.text("#tip")
    first = re.search(r"L\d+_F\d+", tip)[0]
    assert G.nodes[first]["label"] in tip
    assert f"{G.in_degree(first)} in, {G.out_degree(first)} out" in tip
    browser.click(*spot)
    assert browser.facts()["selected"] == first
    browser.pointer("mouseMoved", 500, 700)
    browser.pointer("mousePressed", 500, 700)
    browser.pointer("mouseMoved", 560, 720)
    browser.pointer("mouseReleased", 560, 720)
    assert browser.facts()["selected"] == first
    row = browser.do("const row = $('panel').querySelector('section .row'); const said = "
                     "row.textContent; row.click(); await wait(3); return said")
    edge = browser.facts()["edge"].split("~")
    assert first in edge and G.has_edge(*edge) and f"edge={edge[0]}%7E{edge[1]}" in browser.do(
        "location.hash")
    other = edge[1] if edge[0] == first else edge[0]
    assert G.nodes[other]["label"] in row
    browser.do(f"await push(named({json.dumps('target →' if other == edge[1] else '← source')}))")
    assert browser.facts()["selected"] == other


def test_an_edge_shows_its_evidence_and_the_address_brings_it_back(G, page, browser):
    source, target, edge = max(G.edges(data=True), key=lambda edge: abs(edge[2]["strength"]))
    browser.open(page, f"#select={source}&edge={source}~{target}")
    text = browser.text()
    signed = f"{edge['strength']:+.3g}".replace("-", "−")
    def told(value: float) -> str: return f"{value:.3g}".replace("-", "−")
    for words in (f"strength {signed}", f"95 % interval {told(edge['ci_lower'])} to",
                  f"before the activation {edge['pre_strength']:+.3g}".replace("-", "−"),
                  "samples 100", "q 1.0e−4", "p < 1e−37",
                  f"placebo q {edge['placebo_q_value']:.2g}",
                  f"variance over samples {told(edge['variance'])}",
                  f"same sign in {100 * edge['share_same_sign']:.3g} %"):
        assert words in text, words
    assert browser.facts()["edge"] == f"{source}~{target}"
    browser.do("await push(named('Close'))")
    assert browser.facts()["edge"] == "" and browser.facts()["selected"] == source


def test_tokens_are_coloured_by_their_activation(G, browser, tmp_path):
    seen = Example(0, 1, 2.0, ["she", " said", " no"], [0.0, 2.0, 1.0], 1)
    render_interactive_graph(G, tmp_path / "page.html", top_contexts={"L1_F3": [seen]})
    browser.open(tmp_path / "page.html", "#select=L1_F3")
    shares = browser.do("[...document.querySelectorAll('.token')].map(one => [one.textContent, "
                        "one.style.getPropertyValue('--share'), one.className])")
    assert shares == [[" said", "85", "token firing"], [" no", "50", "token"]]
    assert "she said no" in browser.text()


def evidence_for(source: str, target: str) -> Findings:
    "Of every kind one, with numbers that no other number on the page equals."
    doses = [0.0, 0.75, 1.5, 2.25, 3.0]
    curve = {"doses": doses, "mean": [0.0, 0.011, 0.52, 1.31, 2.07],
             "low": [0.0, -0.19, 0.33, 1.08, 1.79], "high": [0.0, 0.21, 0.71, 1.54, 2.35],
             "fit": [0.0, 0.0, 0.53, 1.3, 2.08], "shape": "threshold", "typical": [0.6, 2.1],
             "n": 37, "rising": 0.892, "falling": 0.027}
    context = {"tokens": ["she", " said", " <b>no</b>", " now"], "source": [0.0, 2.5, 0.5, 0.0],
               "target": [0.0, 0.0, 1.5, 0.75], "firing": 1, "reads": 2, "change": 1.47,
               "dose": 2.25}
    heads = {"total": -0.417, "n": 23, "more": 5, "carriers": [
        {"carrier": "1.3", "mean": -0.613, "ci_low": -0.74, "ci_high": -0.49, "q_value": 0.0034,
         "share": 1.47},
        {"carrier": "bypass", "mean": 0.196, "ci_low": 0.12, "ci_high": 0.27, "q_value": 0.041,
         "share": -0.47}]}
    prompt = {"prompt": "When <i>Mary</i> and John", "weight": -0.0631, "positions": [1, 3],
              "words": [" Mary", " John"], "edges": 4}
    rule = {"rule": "the token is “no” </b>", "f1": 0.831, "low": 0.77, "high": 0.885,
            "precision": 0.93, "recall": 0.751, "auroc": 0.962, "q_value": 0.00072,
            "n_firings": 418, "match": 0.287, "match_p": 0.0123, "edits": 57,
            "edits_fired": 0.632, "edits_otherwise": 0.0421}
    return Findings(
        {f"{source}~{target}": {"curve": curve, "contexts": [context], "heads": heads,
                                "prompts": [prompt]}},
        {source: {"rules": [rule], "promoted": [[" yes<b>", 1.234], ["\n", 0.567]],
                  "suppressed": [[" no", -0.891]], "link": "https://example.org/1"}})


def test_what_stands_behind_an_edge_is_shown_number_by_number(G, browser, tmp_path):
    source, target = next(iter(G.edges))
    known = evidence_for(source, target)
    render_interactive_graph(G, tmp_path / "page.html", evidence=known)
    browser.open(tmp_path / "page.html", f"#select={source}&edge={source}~{target}")
    facts, text = known.edges[f"{source}~{target}"], browser.text()
    def cells(name: str) -> list[list[str]]:
        return browser.do(f"[...$('{name}').querySelectorAll('tbody tr')].map(row => "
                          "[...row.children].map(cell => cell.textContent))")
    def number(word: str) -> float: return float(word.replace("−", "-").rstrip(" %"))
    curve = facts["curve"]
    for at, (dose, change, interval) in enumerate(cells("curve-numbers")):
        low, high = interval.split(" to ")
        assert [number(word) for word in (dose, change, low, high)] == pytest.approx(
            [curve[name][at] for name in ("doses", "mean", "low", "high")], rel=5e-3, abs=1e-9)
    assert "Response: threshold 37 samples" in text and "89.2 % of the samples rise" in text
    assert "2.7 % fall" in text
    # the picture: as many dots as doses, at heights that are linear in the means
    dots = browser.do("[...document.querySelectorAll('.curve .dot')].map(dot => "
                      "[Number(dot.getAttribute('cx')), Number(dot.getAttribute('cy'))])")
    for spots, values in zip(zip(*dots, strict=True), (curve["doses"], curve["mean"]),
                             strict=True):
        assert abs(np.corrcoef(spots, values)[0, 1]) > 0.9999
    assert np.corrcoef([y for _, y in dots], curve["mean"])[0, 1] < 0        # up is more
    shares = browser.do("""[...document.querySelectorAll('#strongest .token')].map(one =>
        [one.textContent, one.style.getPropertyValue('--share'),
         one.style.getPropertyValue('--line'), one.className, one.title])""")
    assert [one[:3] for one in shares] == [[" said", "85", ""], [" <b>no</b>", "29", "4.0px"],
                                           [" now", "0", "2.5px"]]
    assert "firing" in shares[0][3] and "read" in shares[1][3] and "source 0.5, target 1.5" in (
        shares[1][4])
    assert "+1.47 at dose 2.25" in text
    for row, one in zip(cells("carrier-numbers"), facts["heads"]["carriers"], strict=True):
        low, high = row[2].split(" to ")
        assert row[0] == one["carrier"]
        assert [number(word) for word in (row[1], low, high, row[3], row[4])] == pytest.approx(
            [one["mean"], one["ci_low"], one["ci_high"], 100 * one["share"], one["q_value"]])
    assert "Parts of −0.417" in text and "23 sequences" in text and "5 smaller parts" in text
    assert ("When <i>Mary</i> and John −0.0631 from “Mary” (1) to “John” (3), the strongest of 4"
            in text)
    assert not browser.faults
    other = list(G.edges)[1]
    browser.open(tmp_path / "page.html", f"#edge={other[0]}~{other[1]}")
    assert "Response:" not in browser.text() and "Which heads" not in browser.text()


def test_hypotheses_and_logits_of_a_feature_are_shown(G, browser, tmp_path):
    source, target = next(iter(G.edges))
    render_interactive_graph(G, tmp_path / "page.html", evidence=evidence_for(source, target))
    browser.open(tmp_path / "page.html", f"#select={source}")
    text = browser.text()
    for words in ("the token is “no” </b>", "F1 0.831 [0.77, 0.885]", "precision 0.93",
                  "recall 0.751", "AUROC 0.962", "q 7.2e−4", "418 firings",
                  "as its texts do: 0.287 (p 0.012)", "fires in 63.2 % of 57",
                  "another token 4.21 %", "promotes yes<b> +1.23 ↵ +0.567",
                  "suppresses no −0.891"):
        assert words in text, words
    link = browser.do("document.querySelector('a.plain').href")
    assert link == "https://example.org/1" and not browser.faults
    assert [each for each in browser.requests if each.startswith("http")] == []


def test_paths_are_ranked_by_their_product_beside_the_measured_total(G, page, browser):
    source, target = next((one, other) for one, other in G.edges if any(
        G.has_edge(one, middle) and G.has_edge(middle, other) for middle in G))
    browser.open(page, f"#select={source}")
    browser.do(f"""await push(named('Paths from it'));
        await set('path-to', {json.dumps(target)}, 'change')""")
    text = browser.text()
    def products(node: str, value: float, steps: int) -> list[float]:
        if node == target: return [value]
        return [] if not steps else [found for _, after, by in G.out_edges(node, data="strength")
                                     for found in products(after, value * by, steps - 1)]
    values = sorted(products(source, 1.0, 4), key=abs, reverse=True)
    assert len(values) >= 2
    def told(value: float) -> str: return f"{value:+.3g}".replace("-", "−")
    assert f"measured total {told(G.edges[source, target]['strength'])} [" in text
    assert f"strongest path {told(values[0])}" in text
    assert f"paths of up to 4 edges {len(values)} " in text
    assert f"sum of their products {told(sum(values))}"[:30] in text
    rows = browser.do("[...document.querySelectorAll('.path em')].map(one => one.textContent)")
    assert rows == [told(value) for value in values[:12]]
    browser.do("document.querySelectorAll('.path')[1].click(); await wait(3)")
    steps = browser.do("document.querySelectorAll('.path small')[1].textContent"
                       ".split(' × ').length")
    assert int(browser.facts()["edgesShown"]) == steps
    assert f"path={source}%7E{target}%7E4" in browser.do("location.hash")
    browser.do("await push(named('Show the whole graph'))")
    assert browser.facts()["featuresShown"] == "300"
    browser.do(f"await set('path-to', {json.dumps(source)}, 'change')")
    assert "Choose two different features" in browser.text()
    browser.do("""await set('path-from', 'L5_F1', 'change');
        await set('path-to', 'L0_F1', 'change')""")
    assert "No path of edges" in browser.text()


def test_a_dose_predicts_what_the_package_predicts(G, page, browser):
    source = max(G, key=lambda node: (G.out_degree(node) if G.nodes[node]["layer"] == 1 else 0))
    browser.open(page, f"#select={source}")
    browser.do("await push(named('Steer it')); await set('dose-exact', 2.5, 'change')")
    told = [browser.do("[...document.querySelectorAll('#cascade .row')].map(row => "
                       "[row.querySelector('small').textContent.split(' ')[0], "
                       "row.querySelector('em').textContent])")][0]
    table = predict_cascade(G, {source: 2.5}).table
    assert len(told) == min(15, len(table)) > 3
    for (feature, words), row in zip(told, table.itertuples(), strict=False):
        change, half = (float(one.replace("−", "-")) for one in words.split(" ± "))
        assert feature == row.feature and change == pytest.approx(row.change, rel=6e-3)
        assert half == pytest.approx(1.96 * row.se, rel=6e-2)
    assert f"dose={source}%7E2.5" in browser.do("location.hash")
    browser.do("await set('dose', -400)")      # the slider: of 1000 the reach, 5
    assert browser.do("$('dose-exact').value") == "-2"
    first = browser.do("document.querySelector('#cascade em').textContent")
    change = predict_cascade(G, {source: -2.0}).table["change"].iloc[0]
    assert float(first.split(" ± ")[0].replace("−", "-")) == pytest.approx(change, rel=6e-3)
    def rest() -> float:
        words = browser.do("document.querySelector('#steered').innerText.split('\\n')")
        return float(words[words.index("size of the rest") + 1])
    before = rest()
    target = browser.do("document.querySelector('#cascade .row small').textContent.split(' ')[0]")
    browser.do("await push('compensate')")
    assert rest() < 0.9 * before
    # what it says it would push, in the package's own prediction: less of the rest, as much target
    words = browser.do("document.querySelector('#steered').innerText")
    shifts = {name: float(by.replace("−", "-")) for name, by in
              re.findall(r"(L\d+_F\d+) ([+−][\d.e−]+)", words)}
    both: dict[str, float] = {}
    for pushed, by in {source: -2.0, **shifts}.items():
        for row in predict_cascade(G, {pushed: by}).table.itertuples():
            both[row.feature] = both.get(row.feature, 0.0) + row.change
    aside = np.array([by for name, by in both.items() if name not in (target, *shifts)])
    assert shifts and both[target] == pytest.approx(change, rel=0.05)
    assert np.sqrt((aside ** 2).sum()) == pytest.approx(rest(), rel=0.05)
    browser.do("await push(named('Stop steering'))")
    assert "Choose a feature" in browser.text()


def test_a_measured_run_stands_beside_the_prediction(G, browser, tmp_path):
    source = max(G, key=G.out_degree)
    target = predict_cascade(G, {source: 2.0}).table["feature"].iloc[0]
    render_interactive_graph(G, tmp_path / "page.html",
                             measured={source: [(2.0, {target: 0.75})]})
    browser.open(tmp_path / "page.html", f"#tab=steer&dose={source}~2")
    assert "measured +0.75" in browser.text("#cascade")
    browser.do("await set('dose-exact', 3, 'change')")
    assert "measured" not in browser.text("#cascade")


def test_communities_open_on_a_click(G, browser, tmp_path):
    names = {node: f"bundle {facts['feature_idx'] % 4}" for node, facts in G.nodes(data=True)}
    render_explorer(G, tmp_path / "page.html", node_groups=names)
    browser.open(tmp_path / "page.html")
    browser.do("await set('group', '*', 'change')")
    assert browser.facts()["nodesDrawn"] == "4" and "bundle 3" in browser.text()
    assert "4 communities, 12 of 12 effects" in browser.text("#shown")
    spot = browser.do("""
      const box = $('over').getBoundingClientRect();
      for (let x = 20; x < box.width; x += 8) for (let y = 50; y < box.height; y += 8) {
        $('over').dispatchEvent(new PointerEvent('pointermove', { pointerId: 1,
          clientX: box.left + x, clientY: box.top + y, bubbles: true }));
        if ($('over').classList.contains('pointing')) return [box.left + x + 4, box.top + y + 4];
      }""")
    browser.click(*spot)
    opened = browser.do("$('group').value")
    members = [node for node in G if names[node] == opened]
    assert int(browser.facts()["featuresShown"]) == len(members)
    assert int(browser.facts()["edgesShown"]) == G.subgraph(members).number_of_edges()
    assert "It acts on 3" in browser.text()
    browser.key("Escape")
    browser.key("Escape")
    assert browser.facts()["featuresShown"] == "300"


def test_a_graph_without_standard_deviations_opens(G, browser, tmp_path):
    plain = G.copy()
    for *_, edge in plain.edges(data=True): del edge["strength_std"]
    render_interactive_graph(plain, tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    assert browser.facts()["nodesDrawn"] == "300" and not browser.faults
    assert browser.do("$('measure').offsetParent") is None


def test_roles_and_communities_take_turns(G, browser, tmp_path):
    names = {node: f"bundle {facts['feature_idx'] % 4}" for node, facts in G.nodes(data=True)}
    roles = {node: f"part {facts['feature_idx'] % 3}" for node, facts in G.nodes(data=True)}
    render_explorer(G, tmp_path / "page.html", node_groups=names, node_roles=roles)
    browser.open(tmp_path / "page.html", "#group=*")
    assert browser.facts()["nodesDrawn"] == "4" and "4 communities" in browser.text("#shown")
    browser.do("await set('group-by', 'role', 'change')")
    assert browser.facts()["nodesDrawn"] == "3" and "3 roles" in browser.text("#shown")
    assert "wired alike" in browser.text() and "by=role" in browser.do("location.hash")
    browser.do("await set('group', 'part 1', 'change')")
    members = [node for node in G if roles[node] == "part 1"]
    assert int(browser.facts()["featuresShown"]) == len(members)
    assert int(browser.facts()["edgesShown"]) == G.subgraph(members).number_of_edges()
    browser.open(tmp_path / "page.html", "#by=role&group=part 2")
    assert browser.do("$('group').value") == "part 2" and "a role of" in browser.text()
    render_explorer(G, tmp_path / "page.html", node_groups={}, node_roles=roles)
    browser.open(tmp_path / "page.html", "#group=*")
    assert browser.facts()["nodesDrawn"] == "3" and "Roles" in browser.text()
    browser.do("await set('group', '', 'change')")
    browser.open(tmp_path / "page.html", "#select=L1_F3")
    assert "Its role" in browser.text() and not browser.faults


CLICKS = """
  const counted = { clicks: 0, typed: 0 };
  const press = async one => { if (!one) throw new Error('nothing there to click');
    const box = one.getBoundingClientRect();
    if (!(box.width > 0 && box.height > 0)) throw new Error('it cannot be seen');
    counted.clicks++; one.click(); await wait(3); };
  const look = async text => { counted.clicks++; $('search').focus(); counted.typed++;
    await set('search', text, 'input');
    $('search').dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', bubbles: true }));
    await wait(3); };
"""


def saved_piece(
    path: Path, text: str, expected: nx.DiGraph, numbers: tuple[str, ...]
) -> nx.DiGraph:
    "The graph in a file that the page saved: the nodes and edges of `expected`, and its `numbers`."
    path.write_text(text, encoding="utf-8")
    piece = load_graph(path)
    assert set(piece) == set(expected) and set(piece.edges) == set(expected.edges)
    for edge in expected.edges:
        for number in numbers:
            assert piece.edges[edge][number] == pytest.approx(
                expected.edges[edge][number], rel=1e-5)
    return piece


def test_three_questions_in_few_clicks(G, browser, tmp_path):
    """What does this feature cause? Why does the model close the quotation? What breaks if I push
    this feature? Counted as a person would: a click into the search field, its text, and every
    further click on something that can be seen."""
    named = G.copy()
    into = max((node for node in G if G.nodes[node]["layer"] == 5), key=G.in_degree)
    named.nodes[into]["label"] = "quote_close"
    pushed = max((node for node in G if G.nodes[node]["layer"] == 0), key=G.out_degree)
    named.nodes[pushed]["label"] = "opening quote"
    effects = {target: edge["strength"] for _, target, edge in G.out_edges(pushed, data=True)}
    first = max(effects, key=lambda node: abs(effects[node]))
    render_explorer(named, tmp_path / "page.html", node_groups={})
    path = tmp_path / "page.html"

    browser.open(path)                                   # what does it cause?
    found = browser.do(CLICKS + "await look('opening quote'); return counted")
    text = browser.text()
    assert found == {"clicks": 1, "typed": 1}
    assert all(target in text for target in effects) and ("It excites" in text)

    browser.open(path)                                   # why does it close the quotation?
    found = browser.do(CLICKS + """await look('quote_close');
        counted.causes = [...document.querySelectorAll('#panel section')].filter(one =>
          /It is (excited|inhibited) by/.test(one.textContent)).length;
        await press(document.querySelector('#panel section .row')); return counted""")
    causes = {source: edge["strength"] for source, _, edge in G.in_edges(into, data=True)}
    edge = browser.facts()["edge"].split("~")
    assert found["clicks"] == 2 and found["causes"] and edge[1] == into and edge[0] in causes
    assert f"{causes[edge[0]]:+.3g}".replace("-", "−") in browser.text("#edge")

    browser.open(path)                                   # what breaks if I push it?
    found = browser.do(CLICKS + """await look('opening quote'); await press(named('Steer it'));
        return counted""")
    table = predict_cascade(G, {pushed: 1.0}).table
    rows = browser.do("document.querySelectorAll('#cascade .row').length")
    assert found == {"clicks": 2, "typed": 1} and rows == min(15, len(table))
    assert table["feature"].iloc[0] in browser.text("#cascade") and first in set(table["feature"])
    found = browser.do(CLICKS + "await press($('compensate')); return counted")
    assert found["clicks"] == 1 and "compensators" in browser.text()


@pytest.mark.slow
def test_each_of_twenty_thousand_features_is_found_and_drawn(browser, tmp_path):
    rng = np.random.default_rng(0)
    G = nx.DiGraph()
    for at in range(20_000):
        G.add_node(f"L{at // 2000}_F{at % 2000}", layer=at // 2000, feature_idx=at % 2000,
                   label=f"word {at % 97}", importance=float(rng.gamma(1.0)))
    ids = list(G)
    for source, target in zip(rng.integers(18_000, size=60_000), rng.integers(2_000, 20_000,
                              size=60_000), strict=True):
        if source // 2000 < target // 2000:
            G.add_edge(ids[source], ids[target], strength=float(rng.normal()),
                       interaction_type="excitatory")
    render_explorer(G, tmp_path / "all.html", node_groups={})
    assert (tmp_path / "all.html").stat().st_size < 15e6
    browser.open(tmp_path / "all.html")
    lost = browser.do("""
      const lost = [];
      for (let at = 0; at < 20000; at++) {
        const id = `L${Math.floor(at / 2000)}_F${at % 2000}`;
        $('search').value = id; $('search').dispatchEvent(new Event('input', { bubbles: true }));
        const first = document.querySelector('#result-0 small');
        if (!first || first.textContent.split(' ')[0] !== id) lost.push(`${id} not found`);
        if (at % 20) continue;            // every twentieth is chosen as well, and must be drawn
        $('search').dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', bubbles: true }));
        await wait(2);
        const { selected, nodesDrawn } = facts();
        const pen = $('over').getContext('2d');
        const ring = pen.getImageData(0, 0, $('over').width, $('over').height).data
          .some(value => value > 0);
        if (selected !== id || !(nodesDrawn > 0) || !ring) lost.push(`${id} not drawn`);
      }
      return lost;""")
    assert lost == []


def test_two_graphs_are_compared_side_by_side(G, browser, tmp_path):
    other = G.copy()
    lost = sorted(G.edges)[:20]
    other.remove_edges_from(lost)
    kept = sorted(other.edges)
    for edge in kept[:30]: other.edges[edge]["strength"] *= -1
    for edge in kept[30:60]: other.edges[edge]["strength"] *= 1.5
    new = next((one, two) for one in G for two in G if G.nodes[one]["layer"] == 0
               and G.nodes[two]["layer"] == 1 and not G.has_edge(one, two))
    other.add_edge(*new, strength=0.5, interaction_type="excitatory")
    render_explorer(G, tmp_path / "page.html", other=other, node_groups={}, name="first seed")
    browser.open(tmp_path / "page.html", "#tab=compare")
    text = browser.text("#compared")
    a, b = (np.array([graph.edges[edge]["strength"] for edge in kept]) for graph in (G, other))
    assert f"features in both 300 edges in both {len(kept)} " in text
    assert "edges of the first only 20 edges of the second only 1 " in text
    assert f"same sign {100 * np.mean(a * b > 0):.3g} %" in text
    assert f"correlation of strengths {np.corrcoef(a, b)[0, 1]:.3g}" in text
    largest = max(G.edges, key=lambda edge: abs(
        G.edges[edge]["strength"] - (other.edges[edge]["strength"] if edge in kept else 0)))
    first = browser.do("document.querySelector('#panel section .row small').textContent")
    assert first.startswith(" → ".join(largest))
    browser.do("await push('side-by-side')")
    assert browser.do("!$('stage-2').hidden && $('canvas-2').width > 200")
    assert browser.do("$('stage-title').textContent") == "first seed"
    browser.do("document.querySelector('#panel section .row').click(); await wait(3)")
    assert browser.facts()["edge"] == "~".join(largest)
    pixels = browser.do("const pen = $('over-2').getContext('2d'); return pen.getImageData(0, 0, "
                        "$('over-2').width, $('over-2').height).data.some(value => value > 0)")
    assert pixels                       # what is chosen in one is marked in the other
    assert "beside=1" in browser.do("location.hash")


SAVED = """
  const made = {}, url = URL.createObjectURL, click = HTMLAnchorElement.prototype.click;
  URL.createObjectURL = blob => { made.blob = blob; return '#'; };
  HTMLAnchorElement.prototype.click = function () { made.name = this.download; };
  const got = async act => { delete made.blob; await act(); await wait(3);
    for (let turn = 0; turn < 100 && !made.blob; turn++) await wait(1);
    const bytes = new Uint8Array(await made.blob.arrayBuffer());
    return [made.name, made.blob.type, bytes.length < 4e6 && !made.blob.type.startsWith('image/png')
      ? await made.blob.text() : String.fromCharCode(...bytes.slice(1, 4))]; };
"""


def test_what_is_shown_can_be_saved_in_every_format(G, page, browser, tmp_path):
    browser.open(page, "#select=L1_F3&hops=1&tab=save")
    names = ["png", "svg", "json", "graphml", "gexf", "circuit"]
    found = browser.do(SAVED + f"""const all = {{}};
      for (const name of {names}) all[name] = await got(() => $('save-' + name).click());
      all.button = await got(() => $('json').click());
      all.picture = await got(() => $('png').click());
      return all;""")
    expected = G.subgraph({"L1_F3", *G.successors("L1_F3"), *G.predecessors("L1_F3")})
    assert found["png"][2] == found["picture"][2] == "PNG"
    assert found["button"][2] == found["json"][2]
    for name in ("json", "graphml"):
        piece = saved_piece(tmp_path / f"piece.{name}", found[name][2], expected,
                            ("strength", "pre_strength", "variance", "placebo_q_value"))
        assert piece.nodes["L1_F3"]["label"] == G.nodes["L1_F3"]["label"]
    picture = ElementTree.fromstring(found["svg"][2])
    texts = [one.text for one in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert G.nodes["L1_F3"]["label"] in texts and "layer 1" in texts
    assert len(list(picture.iter("{http://www.w3.org/2000/svg}path"))) > 5
    gexf = tmp_path / "piece.gexf"
    gexf.write_text(found["gexf"][2], encoding="utf-8")
    drawn = nx.read_gexf(gexf)
    assert set(drawn) == set(expected) and set(drawn.edges()) == set(expected.edges)
    circuit = json.loads(found["circuit"][2])
    assert {(row["source"], row["target"]) for row in circuit["links"]} == {
        tuple(f"{G.nodes[end]['layer']}_{G.nodes[end]['feature_idx']}_1" for end in edge)
        for edge in expected.edges}
    # their page leaves out features on more than two thirds of the tokens, and draws none on the
    # first of one token
    assert {row["ctx_idx"] for row in circuit["nodes"]} == {1}
    assert len(circuit["metadata"]["prompt_tokens"]) == 2
    path = tmp_path / "circuit.json"
    path.write_text(found["circuit"][2], encoding="utf-8")
    assert len(load_attribution(path).nodes) == len(expected)


def test_a_view_is_saved_and_loaded(page, browser, tmp_path):
    browser.open(page, "#select=L1_F3&hops=2&q=0.5&tab=save")
    name, _, text = browser.do(SAVED + "return got(() => $('save-view').click())")
    view = json.loads(text)
    assert name == "view.json" and "select=L1_F3" in view["view"] and "at=1%2C0%2C0" in view["view"]
    assert browser.do("$('link').value").endswith(view["view"])
    load = """const files = new DataTransfer();
      files.items.add(new File([TEXT], 'view.json')); $('load-view').files = files.files;
      $('load-view').dispatchEvent(new Event('change'));
      await new Promise(done => setTimeout(done, 100)); await wait(3);"""
    browser.open(page, "#tab=save")
    browser.do(load.replace("TEXT", json.dumps("{}")))
    assert "is no view of the explorer" in browser.text("#view-told")
    browser.do(load.replace("TEXT", json.dumps(text)))
    found = browser.facts()
    assert found["selected"] == "L1_F3" and browser.do("$('hops').value") == "2"
    assert browser.do("$('filter-q').value") == "0.5"


@pytest.fixture(scope="module")
def gated(G: nx.DiGraph) -> nx.DiGraph:
    """The graph with three gates: of the strongest edge, of a pair without a mean effect, and with
    a gate that has no edges of its own."""
    gated, (source, target, _) = G.copy(), max(
        G.edges(data="strength"), key=lambda edge: abs(edge[2])
    )
    others = [node for node in G if node not in (source, target)]
    silent, unmoved = next((first, second) for first in others for second in others
                           if G.nodes[first]["layer"] == 1 and G.nodes[second]["layer"] == 3
                           and not G.has_edge(first, second))
    gated.add_node("L0_F999", layer=0, feature_idx=999, label="a gate and nothing else",
                   importance=0.0, activation_freq=0.1)
    def gate(source, gate, target, direction, off, on):
        return {"source": source, "gate": gate, "target": target, "direction": direction,
                "effect_off": off, "effect_on": on, "interaction": on - off,
                "ci_lower": on - off - 0.1, "ci_upper": on - off + 0.1, "p_value": 1e-7,
                "q_value": 1e-6, "n_samples": 60, "offset": 0}
    gated.graph["hyperedges"] = [gate(source, others[0], target, "NOT", 0.81, 0.0),
                                 gate(silent, "L0_F999", unmoved, "sign-flip", -1.5, 1.5),
                                 gate(silent, others[1], unmoved, "AND", 0.0, 0.5)]
    gated.edges[source, target].update(gated_by=f"{others[0]} NOT", n_gates=1, gate_strength=0.81)
    gated.add_edge(silent, unmoved, strength=0.0, strength_std=0.0, interaction_type="gating",
                   gated_by=f"L0_F999 sign-flip; {others[1]} AND", n_gates=2, gate_strength=3.0,
                   ci_lower=-0.2, ci_upper=0.2, q_value=0.8, n_samples=60, offset=0)
    return gated


def test_gates_are_listed_drawn_and_saved(G, gated, browser, tmp_path):
    path, (first, second, _) = tmp_path / "gated.html", gated.graph["hyperedges"]
    render_interactive_graph(gated, path)
    browser.open(path)
    assert "gating 1" in browser.text(".toolbar") and browser.facts()["gatesDrawn"] == "0"
    assert re.search(r"Strongest gates.*sign-flip", browser.text())
    browser.open(path, f"#select={second['source']}")
    text = browser.text()
    assert (f"{G.nodes[second['source']]['label']} flipped by a gate and nothing else → "
            f"{G.nodes[second['target']]['label']} off −1.50, on +1.50"
            in text and "Gated, it acts on 1" in text and "off 0.00, on +0.50" in text)
    assert (f"{second['source']} flipped by L0_F999 → {second['target']} · sign-flip · "
            "difference +3 [2.9, 3.1] · q 1.0e−6 · n 60") in text
    assert browser.facts()["gatesDrawn"] == "2"
    browser.open(path, f"#select={first['target']}")
    assert re.search(r"Gates of effects on it 1 .* AND NOT .* off \+0.81, on 0.00", browser.text())
    browser.open(path, "#select=L0_F999")
    assert "Effects it gates 1" in browser.text() and "edges in 0 edges out 0" in browser.text()
    # the gate, the target of what it gates; not the source
    browser.open(path, "#select=L0_F999&hops=1&min=2.5")
    around = browser.facts()
    assert around["nodesDrawn"] == "2" and around["edgesDrawn"] == "0"
    # a mean of 0 with an interaction of 3 passes 2.5
    browser.open(path, "#select=L0_F999&hops=2&min=2.5")
    both = browser.facts()
    assert both["nodesDrawn"] == "3" and both["edgesDrawn"] == "1" and both["gatesDrawn"] == "1"
    _, _, text = browser.do(SAVED + "return got(() => $('json').click())")
    (tmp_path / "piece.json").write_text(text)
    assert load_graph(tmp_path / "piece.json").graph["hyperedges"] == [second]
    browser.open(path, f"#select={first['source']}&edge={first['source']}~{first['target']}")
    text, label = browser.text(), gated.nodes[first["gate"]]["label"]
    assert "Gates of this effect 1" in text and f"AND NOT {label}" in text
    assert "off +0.81, on 0.00" in text and "while the gate feature was clamped" in text
    browser.open(path, "#types=excitatory,inhibitory&min=2.9")
    assert browser.facts()["edgesShown"] == str(
        sum(abs(strength) >= 2.9 for *_, strength in G.edges(data="strength")))


def test_no_label_runs_and_every_label_is_shown_as_text(G, gated, browser, tmp_path):
    hostile = gated.copy()
    assert len(hostile) == 301
    for number, node in enumerate(hostile):
        hostile.nodes[node]["label"] = HOSTILE[number % len(HOSTILE)]
    path, open_door = tmp_path / "hostile.html", tmp_path / "open.html"
    render_explorer(
        hostile, path, HOSTILE[1], top_contexts=dict.fromkeys(G, HOSTILE), other=gated,
        node_groups={node: HOSTILE[number % 7] for number, node in enumerate(G)}
    )
    text = path.read_text(encoding="utf-8")
    # not the page's policy alone keeps it from running: also without it nothing does
    policy = r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>"
    open_door.write_text(re.sub(policy, "", text), encoding="utf-8")
    for file in (path, open_door):
        for number, label in enumerate(HOSTILE):
            browser.open(file, f"#select={list(hostile)[number]}")
            shown = browser.do("document.querySelector('#panel h2').textContent")
            plain = label.replace("\0", "␣")
            assert shown == (plain if len(plain) <= 400 else plain[:399] + "…")
            told = browser.do("[...document.querySelectorAll('#panel ol li')].map("
                              "one => one.textContent)")
            assert told == HOSTILE
        browser.do("""$('search').focus(); await set('search', '/./', 'input');
            await set('group', '*', 'change'); await push('tab-save'); await push('tab-compare');
            await push('side-by-side'); await push('tab-evidence');
            const box = $('over').getBoundingClientRect();
            for (let x = 0; x < 900; x += 9) for (let y = 100; y < 760; y += 9)
              $('over').dispatchEvent(new PointerEvent('pointermove', { pointerId: 1, clientX: x,
                clientY: y }));""")
        for fragment in ("", f"#select={HOSTILE[0]}", f"#group={HOSTILE[0]}"):
            browser.open(file, fragment)
            assert browser.do(ATTACKED) == "" and not browser.faults
    browser.open(path, "#select=L1_F1&hops=1")
    for name in ("svg", "graphml", "gexf"):
        browser.do("await push('tab-save')")
        ElementTree.fromstring(browser.do(SAVED + f"return got(() => $('save-{name}').click())")[2])


def test_the_policy_refuses_every_other_script(page, browser, tmp_path):
    foreign = f"<script>{MARK}</script><img src=x onerror=\"{MARK}\">"
    text = page.read_text(encoding="utf-8").replace("</body>", foreign + "</body>")
    guarded, open_door = tmp_path / "guarded.html", tmp_path / "open.html"
    guarded.write_text(text, encoding="utf-8")
    open_door.write_text(
        re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", text), encoding="utf-8"
    )
    browser.open(guarded)
    assert browser.do(ATTACKED) == ""
    browser.open(open_door)
    # the same attack without the policy: this test can fail
    assert browser.do(ATTACKED) == "yes"


# What checkers of accessibility call aria-required-children, aria-required-parent, button-name,
# label, color-contrast (WCAG: 4.5), duplicate-id, scrollable-region-focusable.
CHECKS = """
  const seen = one => one.offsetParent !== null && getComputedStyle(one).visibility === 'visible';
  const faults = [], say = (one, what) => faults.push(`${what}: ${one.outerHTML.slice(0, 160)}`);
  for (const [role, child] of [['listbox', 'option'], ['tablist', 'tab']])
    for (const one of document.querySelectorAll(`[role=${role}]`)) if (seen(one)) {
      if (!one.children.length) say(one, 'required children');
      for (const inside of one.children)
        if (inside.getAttribute('role') !== child) say(inside, 'children');
    }
  for (const one of document.querySelectorAll(
    'button, input, select, a, [role=tab], [role=application], [role=separator]'))
    if (seen(one)) {
      const label = one.getAttribute('aria-label') || one.textContent.trim() || one.placeholder
        || (one.labels && [...one.labels].map(each => each.textContent.trim()).join(''));
      if (!label) say(one, 'no name');
    }
  const ids = [...document.querySelectorAll('[id]')].map(one => one.id);
  if (new Set(ids).size < ids.length) faults.push('an id twice');
  for (const name of ['controls', 'activedescendant', 'labelledby'])
    for (const one of document.querySelectorAll(`[aria-${name}]`))
      if (!$(one.getAttribute(`aria-${name}`))) say(one, `aria-${name}`);
  const parts = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(value => value / 255).map(value =>
    value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, at) => sum + value * [0.2126, 0.7152, 0.0722][at], 0);
  const back = one => { for (let at = one; at; at = at.parentElement) {
    const colour = parts(getComputedStyle(at).backgroundColor);
    if (colour.length < 4 || colour[3] === 1) return colour; } return [255, 255, 255]; };
  let texts = 0;
  for (const one of document.querySelectorAll('body *')) {
    const says = [...one.childNodes].some(part => part.nodeType === 3 && part.data.trim());
    if (!seen(one) || !says) continue;
    for (let at = one; at; at = at.parentElement)
      if (getComputedStyle(at).opacity !== '1') say(at, 'faded');
    const [a, b] = [light(parts(getComputedStyle(one).color)), light(back(one))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    texts++;
    if (contrast < 4.5) say(one, `contrast ${contrast.toFixed(2)}`);
  }
  return { faults, texts };
"""


@pytest.mark.parametrize("dark", [False, True])
def test_what_checkers_of_accessibility_look_for(gated, browser, tmp_path, dark):
    path = tmp_path / "page.html"
    render_explorer(gated, path, top_contexts={"L1_F3": ["he said «hello» to her"]},
                    other=gated)
    browser.size(1280, 800, dark=dark)
    try:
        for fragment in ("", "#select=L1_F3&types=gating", "#tab=paths", "#tab=compare",
                         "#tab=save", "#group=*", "#tab=steer&dose=L1_F3~1"):
            browser.open(path, fragment)
            assert browser.do("document.documentElement.dataset.theme") == (
                "dark" if dark else "light")
            found = browser.do(CHECKS)
            assert found["faults"] == [] and found["texts"] > 20, fragment
        browser.open(path)
        for asked in ("kind", "no such words"):
            browser.do(f"""$('search').focus(); await set('search', '{asked}', 'input');
                document.querySelector('details').open = true;""")
            assert browser.do(CHECKS)["faults"] == []
    finally: browser.size(1280, 800)


def test_keys_reach_everything(G, page, browser):
    browser.open(page, "#select=L1_F3")
    browser.do("$('over').focus()")
    edges = G.out_edges("L1_F3", data="strength")
    strongest = max(edges, key=lambda edge: abs(edge[2]))[1]
    browser.key("ArrowRight")
    assert browser.facts()["selected"] == strongest
    browser.key("ArrowDown")
    below = browser.facts()["selected"]
    assert G.nodes[below]["layer"] == G.nodes[strongest]["layer"] and below != strongest
    browser.key("ArrowUp")
    assert browser.facts()["selected"] == strongest
    browser.key("n", "n")
    assert int(browser.facts()["featuresShown"]) < 300
    browser.key("Escape")
    assert browser.facts()["selected"] == "" and browser.facts()["featuresShown"] == "300"
    browser.key("/", "/")
    assert browser.do("document.activeElement.id") == "search"
    browser.do("$('tab-evidence').focus()")
    browser.key("ArrowRight")
    assert browser.facts()["tab"] == "paths"


def test_a_phone_can_use_it(page, browser):
    browser.size(390, 844, phone=True)
    try:
        browser.open(page, "#select=L1_F3")
        found = browser.do("""return [document.documentElement.scrollWidth, $('over').clientHeight,
            $('panel').getBoundingClientRect().top, innerHeight]""")
        assert found[0] <= 390 and found[1] > 300
    finally: browser.size(1280, 800)


def test_neighbourhood_overlay_and_frame_open_too(G, browser, tmp_path):
    around, steered, notebook = (
        tmp_path / f"{name}.html" for name in ("around", "steered", "notebook"))
    shown = render_neighborhood(G, "L2_F4", 1, around)
    render_cascade_overlay(G, {"L3_F1": 0.5, "L4_F2": -2.0}, "L2_F4", steered)
    browser.open(around)
    assert browser.facts()["selected"] == "L2_F4"
    browser.open(steered, "#select=L4_F2")
    assert "predicted change −2" in browser.text()
    notebook.write_text(f"<body data-ready='true'>{shown._repr_html_()}</body>", encoding="utf-8")
    browser.open(notebook)
    from PIL import Image
    for _ in range(50):
        browser.do("await wait(10)")
        shot = Image.open(browser.picture(tmp_path / "frame.png")).convert("RGB")
        pixels = np.asarray(shot).astype(int)
        if ((pixels[..., 1] - pixels[..., 0]) > 60).sum() > 200: break        # green curves
    else: pytest.fail("the frame stays empty")


def test_a_page_that_cannot_be_read_says_so(page, browser, tmp_path):
    text, damaged = page.read_text(encoding="utf-8"), tmp_path / "damaged.html"
    damaged.write_text(re.sub(r'(id="graph-data">.{600})', r"\1AAAA", text), encoding="utf-8")
    with pytest.raises(RuntimeError): browser.open(damaged)
    assert "could not be read" in browser.text("#counts")
