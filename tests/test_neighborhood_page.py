"""The page of pyvis in a real browser: it is drawn, nothing is asked of a network, labels are text,
and what is chosen in the picture is marked in the table."""
from collections.abc import Iterator
from pathlib import Path

import pytest
from headless import Browser, browsing
from test_explorer_axe import RUN, axe  # noqa: F401  a fixture
from test_visualization_browser import ATTACKED, HOSTILE, layered_graph

from feature_interaction_graph.drawing.neighborhood_page import pyvis_neighborhood


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with browsing(chromium) as browser:
        browser.size(1000, 900)
        yield browser


def test_it_is_drawn_and_asks_for_nothing(browser: Browser, tmp_path: Path) -> None:
    G, path = layered_graph(4, 12, 0.15), tmp_path / "L1_F3.html"
    page = pyvis_neighborhood(G, "L1_F3", output_path=path)
    browser.open(path)
    around = {"L1_F3", *G.successors("L1_F3"), *G.predecessors("L1_F3")}
    piece = G.subgraph(around)
    rows = browser.do("[...document.querySelectorAll('tbody tr')].map(row => row.innerText)")
    assert len(rows) == piece.number_of_edges() and page.html == path.read_text(encoding="utf-8")
    for source, target, strength in piece.edges(data="strength"):
        shown = f"{strength:.4g}".replace("-", "−")
        assert any(f"({source})" in row and f"({target})" in row and shown in row for row in rows)
    pixels = browser.do("""const canvas = document.querySelector('#network canvas');
      const at = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      let many = 0; for (let one = 3; one < at.length; one += 4) many += at[one] > 0;
      return many;""")
    assert pixels > 3000 and not browser.faults
    assert set(browser.requests) <= {"about:blank", path.as_uri()} | {
        one for one in browser.requests if one.startswith("data:")}
    browser.do("document.querySelectorAll('tbody tr')[2].click(); return 1")
    assert browser.do("[...document.querySelectorAll('tbody tr')].findIndex("
                      "row => row.classList.contains('chosen'))") == 2


@pytest.mark.parametrize("label", HOSTILE)
def test_labels_are_text(browser: Browser, tmp_path: Path, label: str) -> None:
    G, path = layered_graph(3, 5, 0.4), tmp_path / "page.html"
    for facts in G.nodes.values(): facts["label"] = label
    pyvis_neighborhood(G, "L1_F3", output_path=path)
    browser.open(path)
    for x in range(60, 900, 90): browser.pointer("mouseMoved", x, 330)
    assert browser.do(ATTACKED) == "" and not browser.faults
    assert browser.do("document.querySelectorAll('tbody tr').length") > 0
    assert browser.do("[...document.querySelectorAll('script')].length") == 2


def test_no_serious_violation(browser: Browser, tmp_path: Path, axe: str) -> None:  # noqa: F811
    G, path = layered_graph(4, 12, 0.15), tmp_path / "page.html"
    pyvis_neighborhood(G, "L1_F3", output_path=path)
    for dark in (False, True):
        browser.size(1000, 900, dark=dark)
        browser.open(path)
        browser.call("Runtime.evaluate", expression=axe)
        found = browser.do(RUN)
        assert found["passes"] > 12 and found["faults"] == []
