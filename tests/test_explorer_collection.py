"""Features picked by hand in the explorer: with keys and the mouse, shown alone, saved in a file
and in the address, loaded, and written as a graph that the package reads."""
import json
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest
from headless import Browser, browsing
from test_visualization_browser import SAVED, layered_graph, saved_piece

from feature_interaction_graph.tracing.files import load_attribution
from feature_interaction_graph.visualization import render_explorer

SPOTS = """
  const box = $('over').getBoundingClientRect(), found = {};
  for (let x = 20; x < box.width; x += 4) for (let y = 40; y < box.height; y += 4) {
    $('over').dispatchEvent(new PointerEvent('pointermove', { pointerId: 1,
      clientX: box.left + x, clientY: box.top + y, bubbles: true }));
    const id = /L\\d+_F\\d+(?= · )/.exec($('tip').hidden ? '' : $('tip').textContent);
    if (id) found[id[0]] = [box.left + x, box.top + y];
  }
  return found;
"""
LOAD = """
  const files = new DataTransfer();
  files.items.add(new File([TEXT], 'some.json')); $('load-collection').files = files.files;
  $('load-collection').dispatchEvent(new Event('change'));
  await new Promise(done => setTimeout(done, 100)); await wait(3);
"""


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with browsing(chromium) as browser:
        browser.size(1280, 800)
        yield browser


@pytest.fixture(scope="module")
def G() -> nx.DiGraph:
    G = layered_graph(4, 14, 0.2)
    source, target = max(G.edges, key=lambda edge: G.edges[edge]["strength"])
    gate = next(node for node in G if node not in (source, target) and G.nodes[node]["layer"] == 0)
    G.graph["hyperedges"] = [
        {"source": source, "gate": gate, "target": target, "direction": "AND", "effect_off": 0.0,
         "effect_on": 2.0, "interaction": 2.0, "ci_lower": 1.5, "ci_upper": 2.5, "p_value": 1e-7,
         "q_value": 1e-6, "n_samples": 60, "offset": 0}]
    return G


@pytest.fixture(scope="module")
def page(G: nx.DiGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("collection") / "explorer.html"
    render_explorer(G, path, "Fifty-six features", node_groups={})
    return path


def picked(browser: Browser) -> list[str]:
    "The collection as the address has it."
    return browser.do("return (new URLSearchParams(location.hash.slice(1)).get('picked') || '')"
                      ".split('~').filter(Boolean)")


def test_features_are_picked_with_keys(browser, page):
    browser.open(page, "#select=L1_F3")
    browser.do("$('over').focus()")
    browser.key("c", "c")
    assert picked(browser) == ["L1_F3"] and browser.facts()["picked"] == "1"
    browser.key("ArrowRight")
    other = browser.facts()["selected"]
    browser.key("c", "c")
    assert picked(browser) == ["L1_F3", other]
    browser.key("c", "c")
    assert picked(browser) == ["L1_F3"]
    browser.do("$('search').focus()")
    browser.key("c", "c")                                   # a letter of a search is no command
    assert picked(browser) == ["L1_F3"] and browser.do("$('search').value") == "c"


def test_features_are_picked_with_the_mouse(browser, page):
    browser.open(page)
    spots = browser.do(SPOTS)
    assert len(spots) > 30
    first, second = list(spots)[3], list(spots)[20]
    for feature in (first, second):
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            browser.pointer(kind, *spots[feature], modifiers=8)
    browser.do("await wait(2)")
    assert picked(browser) == [first, second] and browser.facts()["selected"] == ""
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        browser.pointer(kind, *spots[first], modifiers=8)
    browser.do("await wait(2)")
    assert picked(browser) == [second]
    # the box: everything of one column, and nothing else; the picture does not move
    column = {feature: at for feature, at in spots.items() if feature.startswith("L0_")}
    across, down = zip(*column.values(), strict=True)
    browser.pointer("mouseMoved", min(across) - 12, min(down) - 14, modifiers=8)
    browser.pointer("mousePressed", min(across) - 12, min(down) - 14, modifiers=8)
    browser.pointer("mouseMoved", max(across) + 12, max(down) + 14, modifiers=8)
    browser.pointer("mouseReleased", max(across) + 12, max(down) + 14, modifiers=8)
    browser.do("await wait(2)")
    assert set(picked(browser)) == {second, *(f"L0_F{feature}" for feature in range(14))}
    again = browser.do(SPOTS)
    assert all(abs(again[one][0] - spots[one][0]) <= 4 for one in again if one in spots)


def test_the_panel_adds_drops_and_counts(G, browser, page):
    browser.open(page, "#select=L1_F3&hops=1&tab=collection")
    near = {"L1_F3", *G.successors("L1_F3"), *G.predecessors("L1_F3")}
    browser.do("await push('pick-shown')")
    assert set(picked(browser)) == near
    text = browser.text("#collected")
    assert f"features {len(near)} edges among them {G.subgraph(near).number_of_edges()}" in text
    browser.do("await push('pick-chosen')")
    near.discard("L1_F3")
    assert set(picked(browser)) == near
    browser.do("await push(document.querySelector('[aria-label^=\"Drop \"]'))")
    assert len(picked(browser)) == len(near) - 1
    browser.do("await push('tab-evidence'); await push('collect')")
    assert "L1_F3" in picked(browser)
    assert browser.do("$('collect').textContent") == "Drop from collection"
    browser.do("await push('tab-collection'); await push('clear-collection')")
    assert picked(browser) == [] and "Nothing is picked" in browser.text()
    assert browser.do("$('only').disabled && $('save-collection').disabled") is True


def test_the_collection_is_shown_alone_whatever_the_cut(G, browser, page):
    source, target = max(G.edges, key=lambda edge: G.edges[edge]["strength"])
    gate = G.graph["hyperedges"][0]["gate"]
    chosen = {source, target, gate, "L2_F2", "L3_F3"}
    browser.open(page, f"#min=2&tab=collection&picked={'~'.join(chosen)}")
    browser.do("await push('only')")
    inside = G.subgraph(chosen)
    found = browser.facts()
    assert int(found["nodesDrawn"]) == len(chosen)
    assert int(found["edgesShown"]) == inside.number_of_edges()
    assert "gates among them 1" in browser.text("#collected")
    # its own cut, and the overview's is back afterwards
    browser.do("await set('slider', 1000)")
    assert int(browser.facts()["edgesShown"]) <= 1 < G.number_of_edges()
    browser.do("await push('only')")
    strong = [edge for edge in G.edges if abs(G.edges[edge]["strength"]) >= 2]
    assert int(browser.facts()["edgesShown"]) == len(strong)
    # something else that is chosen does not creep in
    browser.open(page, f"#only=1&picked={'~'.join(chosen)}&select=L1_F9")
    assert "L1_F9" not in chosen and browser.facts()["selected"] == "L1_F9"
    assert int(browser.facts()["featuresShown"]) == len(chosen)


def test_a_collection_is_saved_and_loaded(browser, page, tmp_path):
    browser.open(page, "#picked=L1_F3~L2_F5~L0_F0&tab=collection")
    name, _, text = browser.do(SAVED + "return got(() => $('save-collection').click())")
    saved = json.loads(text)
    assert name == "collection.json" and saved["features"] == ["L1_F3", "L2_F5", "L0_F0"]
    browser.open(page, "#tab=collection")
    for wrong in ("{}", "no JSON", json.dumps(saved | {"features": [1]})):
        browser.do(LOAD.replace("TEXT", json.dumps(wrong)))
        assert "is no collection of the explorer" in browser.text("#collection-told")
        assert picked(browser) == []
    saved["features"].append("L9_F9")
    browser.do(LOAD.replace("TEXT", json.dumps(json.dumps(saved))))
    assert picked(browser) == saved["features"][:3]
    assert "1 feature of the file is not in this graph" in browser.text("#collection-told")
    # the address alone brings it back, and so does a saved view
    address = browser.do("location.hash")
    browser.open(page, address)
    assert browser.facts()["picked"] == "3" and "features 3" in browser.text("#collected")
    _, _, view = browser.do("await push('tab-save');" + SAVED
                            + "return got(() => $('save-view').click())")
    assert "picked=L1_F3%7EL2_F5%7EL0_F0" in json.loads(view)["view"]


def test_the_collection_is_written_as_a_graph(G, browser, page, tmp_path):
    source, target = max(G.edges, key=lambda edge: G.edges[edge]["strength"])
    chosen = [source, target, G.graph["hyperedges"][0]["gate"], *list(G)[-9:], "L1_F1"]
    browser.open(page, f"#min=1.5&picked={'~'.join(chosen)}&tab=collection")
    shown = browser.facts()["featuresShown"]
    found = browser.do(SAVED + """const all = {};
      for (const name of ['json', 'graphml', 'gexf', 'circuit'])
        all[name] = await got(() => $('collection-' + name).click());
      return all;""")
    expected = G.subgraph(chosen)
    for name in ("json", "graphml"):
        saved_piece(tmp_path / f"piece.{name}", found[name][2], expected, ("strength",))
    gates = json.loads(found["json"][2])["graph"]["hyperedges"]
    assert [gate["gate"] for gate in gates] == [G.graph["hyperedges"][0]["gate"]]
    gexf = tmp_path / "piece.gexf"
    gexf.write_text(found["gexf"][2], encoding="utf-8")
    assert set(nx.read_gexf(gexf)) == set(expected)
    path = tmp_path / "circuit.json"
    path.write_text(found["circuit"][2], encoding="utf-8")
    assert len(load_attribution(path).nodes) == len(expected)
    # the picture is what it was
    assert browser.facts()["featuresShown"] == shown == str(len(G)) and not browser.faults


def test_two_graphs_share_one_collection(G, browser, tmp_path):
    second = nx.relabel_nodes(G, {node: node.replace("_F", "_F1") for node in G})
    second.graph["hyperedges"] = []
    for node, facts in second.nodes(data=True):
        facts["feature_idx"] = int(node.split("_F")[1])
    pairs = {node: node.replace("_F", "_F1") for node in G if node != "L2_F2"}
    path = tmp_path / "two.html"
    render_explorer(G, path, other=second, node_groups={}, pairs=pairs)
    browser.open(path, "#picked=L1_F3~L2_F2&tab=collection&beside=1&only=1")
    assert int(browser.facts()["featuresShown"]) == 2 and not browser.faults
    browser.do("""const over = $('over-2'), box = over.getBoundingClientRect();
      over.dispatchEvent(new PointerEvent('pointermove', { pointerId: 1, clientX: box.left + 5,
        clientY: box.top + 60, bubbles: true })); await wait(3);""")
    # of the second graph: the one that has a counterpart
    assert "features 1" in browser.text("#collected") and not browser.faults
    assert picked(browser) == ["L1_F3", "L2_F2"]
