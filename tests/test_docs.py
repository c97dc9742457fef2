"The docs site without Quarto: its order, its search, and that a page is read before its menu."
import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from feature_interaction_graph import load_graph
from feature_interaction_graph.drawing.packed import data_in

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
docs = pytest.importorskip("docs", reason="the docs need pandoc and nbdev")

CHROMIUM = os.environ.get("CHROMIUM") or next(
    (path for name in ("chromium", "chromium-browser", "google-chrome")
     if (path := shutil.which(name))), None)
PAGES = {
    "index.ipynb": ("the package", "What it is for.", "## Install\n\nOne command."),
    "00_config.ipynb": ("config", "Every setting of a run.", "## Choices\n\nA seed & `<a dose>`."),
    "engine/05_corpus.ipynb": ("corpus", "Tokens of a text.",
                               "## Padding\n\nNever read: dose.\n\nTwice."),
    "tutorials/01_lesson.ipynb": ("a lesson", "From text to edges.", "## Clamping\n\nSet a dose."),
}


def test_a_reader_meets_tutorials_first_and_no_folder_is_lost():
    contents = ["index.ipynb", "00_config.ipynb",
                {"section": "engine", "contents": ["engine/05_corpus.ipynb"]},
                {"section": "novel", "contents": ["novel/00_new.ipynb"]},
                {"section": "tutorials", "contents": ["tutorials/01_lesson.ipynb"]}]
    found = docs.ordered(contents)
    assert found[0] == "index.ipynb"
    assert [entry["section"] for entry in found[1:]] == ["Tutorials", "The pipeline", "Engine",
                                                         "Novel"]
    assert sorted(docs.flat(found)) == sorted(docs.flat(contents))


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    "A site of four pages."
    proc, dest = (tmp_path_factory.mktemp("docs") / name for name in ("proc", "site"))
    for name, (title, about, text) in PAGES.items():
        stem = re.sub(r"^\d+_", "", Path(name).stem)
        front = f"---\noutput-file: {stem}.html\ntitle: {title}\ndescription: {about}\n---"
        cells = [{"cell_type": "raw", "source": front, "metadata": {}},
                 {"cell_type": "markdown", "source": text, "metadata": {}}]
        (proc / name).parent.mkdir(parents=True, exist_ok=True)
        (proc / name).write_text(json.dumps({"cells": cells}), encoding="utf-8")
    names = [*(name for name in PAGES if "/" not in name),
             *({"section": name.partition("/")[0], "contents": [name]}
               for name in PAGES if "/" in name)]
    (proc / "sidebar.yml").write_text(json.dumps(
        {"website": {"sidebar": {"contents": docs.ordered(names)}}}), encoding="utf-8")
    assert docs.site(proc, dest) == ["config.html", "engine/corpus.html", "index.html",
                                     "tutorials/lesson.html"]
    return dest


def test_the_text_comes_before_the_menu_and_only_its_section_is_open(site):
    page = (site / "engine" / "corpus.html").read_text(encoding="utf-8")
    assert page.index("<main") < page.index('<nav id="menu"') < page.index("search-index.js")
    assert re.findall(r"<details( open)?><summary>([^<]*)", page) == [
        ("", "Tutorials"), ("", "The pipeline"), (" open", "Engine")]
    assert 'class="here" aria-current="page" href="../engine/corpus.html"' in page


def asked(site: Path, page: str, question: str) -> list[list[str]]:
    "What the search lists: text and address of each row, in a browser."
    script = f"""<script>
      const field = document.getElementById("query");
      field.value = {json.dumps(question)};
      field.dispatchEvent(new Event("input"));
      const rows = [...document.querySelectorAll("#found li")].map(row =>
        [row.textContent, row.dataset.href || ""]);
      document.body.append(Object.assign(document.createElement("pre"),
        {{id: "answer", textContent: JSON.stringify(rows)}}));
    </script>"""
    driven = site / Path(page).with_name("driven.html")
    driven.write_text((site / page).read_text(encoding="utf-8").replace("</body>",
                                                                       script + "</body>"),
                      encoding="utf-8")
    assert CHROMIUM is not None
    dom = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
         f"--user-data-dir={site / 'profile'}", driven.resolve().as_uri()],
        capture_output=True, timeout=120, check=True).stdout.decode("utf-8")
    driven.unlink()
    (answer,) = re.findall(r'<pre id="answer">(.*?)</pre>', dom, re.DOTALL)
    return json.loads(html.unescape(answer))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium; install it or set CHROMIUM")
def test_the_search_finds_sections_by_all_their_words(site):
    found = {where: text for text, where in asked(site, "engine/corpus.html", "dose")}
    assert [*found] == ["../tutorials/lesson.html#clamping", "../config.html#choices",
                        "../engine/corpus.html#padding"]
    assert found["../engine/corpus.html#padding"] == "corpus: PaddingNever read: dose. Twice."
    # shown as text, never as a tag
    assert found["../config.html#choices"] == "config: ChoicesA seed & <a dose>."
    assert [row[1] for row in asked(site, "index.html", "dose clamp")] == [
        "tutorials/lesson.html#clamping"]
    assert asked(site, "index.html", "CORPUS")[0][1].startswith("engine/corpus.html")
    ((told, nowhere),) = asked(site, "index.html", "zebra")
    assert told == "No page has all of these words; try fewer." and not nowhere
    assert asked(site, "index.html", "  ") == []


def test_the_first_page_holds_the_explorer_and_the_readme_a_picture(tmp_path):
    index = tmp_path / "index.ipynb"
    shutil.copytree(docs.ROOT / "nbs" / "images", tmp_path / "images")
    shutil.copy2(docs.ROOT / "nbs" / "index.ipynb", index)
    assert "![" in index.read_text(encoding="utf-8")
    docs.live_explorer(tmp_path)
    page = "\n".join("".join(cell["source"]) for cell in json.loads(index.read_text())["cells"])
    assert page.count("<iframe") == 1 and "demo_graph.png" not in page
    explorer = (tmp_path / "explorer.html").read_text(encoding="utf-8")
    assert 'id="graph-data"' in explorer and "default-src 'none'" in explorer
    assert (tmp_path / docs.GRAPH).stat().st_size < 300_000
    (data,) = data_in(explorer)
    assert data["model"] == "stories260K" and "/" not in data["name"]
    config = load_graph(tmp_path / docs.GRAPH).graph["config"]
    assert not [value for value in config.values() if str(value).startswith("/")]
    assert "nbs/images/demo_graph.png" in (docs.ROOT / "README.md").read_text(encoding="utf-8")


def test_the_badge_is_a_link_without_a_picture_from_elsewhere(tmp_path):
    place = tmp_path / "page.ipynb"
    badge = "[![Open in Colab](https://x.org/badge.svg)](https://x.org/nbs/page.ipynb)"
    place.write_text(json.dumps({"cells": [
        {"cell_type": "markdown", "source": badge, "metadata": {}}]}), encoding="utf-8")
    assert docs.page(place, tmp_path) == ({}, "[Open in Colab](https://x.org/nbs/page.ipynb)")
    assert docs.page(place, tmp_path, web=False)[1] == badge


def test_the_page_of_changes_holds_them(tmp_path):
    (tmp_path / "about").mkdir()
    source = Path(docs.ROOT) / "nbs" / "about" / "04_changelog.ipynb"
    shutil.copy(source, tmp_path / "about")
    docs.changelog(tmp_path)
    made = json.loads((tmp_path / "about" / "04_changelog.ipynb").read_text(encoding="utf-8"))
    text = "\n".join("".join(cell["source"]) for cell in made["cells"]
                     if cell["cell_type"] == "markdown")
    written = (Path(docs.ROOT) / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## Unreleased" in text and written.splitlines()[-1] in text
    # one title, and no link to itself
    assert len(re.findall("^# ", text, re.M)) == 1 and "CHANGELOG.md](" not in text


def test_every_picture_has_words(tmp_path):
    "Its own `fig-alt`, or the heading and the first sentence before it; on the page no caption."
    from execnb.nbio import mk_cell, new_nb, write_nb
    from nbdev import serve_drv
    from processing import Pages
    dot = ("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9"
           "awAAAABJRU5ErkJggg==")
    drawn = [{"output_type": "display_data", "metadata": {}, "data": {"image/png": dot}}]
    texts = ["# A page\n> what it is", "## Seen [here](x.ipynb)\n\nHow $x$ `falls` off. And more.",
             None, "#### A picture", None, None]
    cells = [mk_cell(text, "markdown") if text else mk_cell("draw()") for text in texts]
    for place, source in ((2, "draw()"), (4, "draw()"), (5, '#| fig-alt: "Three [bars]"\ndraw()')):
        cells[place].source, cells[place].outputs = source, drawn
    cells.append(mk_cell("# on Colab only; keeps what is there\ninstall()"))
    write_nb(new_nb(cells), tmp_path / "00_page.ipynb")
    serve_drv.main((tmp_path / "00_page.ipynb", tmp_path / "made.ipynb", Pages))
    _, text = docs.page(tmp_path / "made.ipynb", tmp_path)
    assert "on Colab only" not in text and "\n\n```python\ndraw()" in text
    assert "<summary>" not in text
    read = "from feature_interaction_graph.tracking.results import benchmark_result"
    told = mk_cell("print(1)")
    told.outputs = [{"output_type": "stream", "name": "stdout", "text": ["1"]}]
    write_nb(new_nb([cells[0], mk_cell(read), cells[2], told]), tmp_path / "01_report.ipynb")
    serve_drv.main((tmp_path / "01_report.ipynb", tmp_path / "made.ipynb", Pages))
    report = docs.page(tmp_path / "made.ipynb", tmp_path)[1]
    assert report.count("<summary>Code</summary>\n\n```python\n") == 2
    assert "![What the code above draws](" in report and "\n\n```python\nprint(1)" in report
    assert re.findall(r"!\[(.*)\]\(", text) == [
        "Seen here. How x falls off", "A picture. How x falls off", r"Three \[bars\]"]
