"""axe-core on the explorer and on the docs' pages, in a real browser, light and dark: no violation
that it calls serious or critical.

Skipped where no Chromium is installed, or no axe-core: it comes with `axe-playwright-python` of the
dev extra; `AXE_CORE` may name another `axe.min.js`.
"""
import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest
from headless import Browser, browsing
from test_visualization_browser import HOSTILE, evidence_for, layered_graph

from feature_interaction_graph.dictionary.examples import Example
from feature_interaction_graph.visualization import render_explorer

RUN = """
  const found = await axe.run(document, {resultTypes: ['violations']});
  return { passes: found.passes.length, faults: found.violations.filter(
    one => ['serious', 'critical'].includes(one.impact)).map(one => [one.id, one.impact,
    one.nodes.slice(0, 4).map(node => `${node.html.slice(0, 140)} ${node.failureSummary}`)]) };
"""


@pytest.fixture(scope="module")
def axe() -> str:
    if named := os.environ.get("AXE_CORE"): return Path(named).read_text(encoding="utf-8")
    spec = importlib.util.find_spec("axe_playwright_python")
    if spec is None or spec.origin is None:
        pytest.skip("axe-core is not installed (axe-playwright-python of the dev extra)")
    return (Path(spec.origin).parent / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with browsing(chromium) as browser: yield browser


def violations(browser: Browser, axe: str) -> list:
    "What is serious; at least a dozen rules must have been passed, so that it did look."
    browser.call("Runtime.evaluate", expression=axe)
    found = browser.do(RUN)
    assert found["passes"] > 12
    return found["faults"]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    G = layered_graph(5, 30, 0.05)
    source, target = next(iter(G.edges))
    G.edges[source, target]["interaction_type"] = "gating"
    G.graph["hyperedges"] = [
        {"source": source, "gate": "L0_F9", "target": target, "direction": "AND", "effect_off": 0.0,
         "effect_on": 0.81, "interaction": 0.81, "ci_lower": 0.7, "ci_upper": 0.9, "p_value": 1e-7,
         "q_value": 1e-6, "n_samples": 60, "offset": 0}]
    for node, label in zip(list(G)[40:], HOSTILE, strict=False): G.nodes[node]["label"] = label
    seen = Example(0, 1, 2.0, ["she", " said", " no"], [0.0, 2.0, 1.0], 1)
    path = tmp_path_factory.mktemp("axe") / "page.html"
    render_explorer(G, path, other=G, evidence=evidence_for(source, target),
                    top_contexts=dict.fromkeys(G, [seen, "he said «hello» to her"]))
    return path


def views(G: nx.DiGraph) -> list[str]:
    source, target = next(iter(G.edges))
    return ["", f"#select={source}&hops=1", f"#edge={source}~{target}", "#tab=paths",
            f"#tab=paths&path={source}~{target}~3", "#tab=compare&beside=1", "#tab=save",
            "#tab=collection", f"#tab=collection&only=1&picked={source}~{target}&select={source}",
            "#group=*", f"#tab=steer&dose={source}~1"]


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_serious_in_the_explorer(page, browser, axe, dark):
    for phone in (False, True):
        browser.size(*((390, 844) if phone else (1280, 800)), dark=dark, phone=phone)
        for fragment in views(layered_graph(5, 30, 0.05)):
            browser.open(page, fragment)
            assert violations(browser, axe) == [], (fragment, phone)
    browser.open(page)
    browser.do("$('search').focus(); await set('search', 'kind', 'input'); "
               "document.querySelector('details').open = true;")
    assert violations(browser, axe) == []


def test_axe_is_not_blind(page, browser, axe, tmp_path):
    "The same page with a button without a name and with pale text."
    text = page.read_text(encoding="utf-8")
    worse = text.replace("</header>", "<button></button><p>one</p></header>")
    (tmp_path / "worse.html").write_text(worse, encoding="utf-8")
    browser.size(1280, 800)
    browser.open(tmp_path / "worse.html")
    assert "button-name" in json.dumps(violations(browser, axe))


@pytest.mark.parametrize("phone", [False, True])
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_serious_in_the_docs(browser, axe, dark, phone):
    root = Path(__file__).parent.parent
    built = [site for site in (root / "_site", root / "_docs") if (site / "index.html").is_file()]
    if not built:
        pytest.skip("the docs are not built here (make docs)")
    for name in ("index.html", "concepts/clamp.html", "tutorials/benchmarks.html",
                 "visualization.html"):
        browser.size(400 if phone else 1280, 800, dark=dark)
        browser.call("Page.navigate", url=(built[0] / name).resolve(strict=True).as_uri())
        browser.do("await new Promise(done => setTimeout(done, 500))")
        assert violations(browser, axe) == [], name
