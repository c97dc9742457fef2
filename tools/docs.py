"""The documentation, from the notebooks: `python tools/docs.py site|readme|check-readme|quarto`.

* `site`: the whole site into _site/, without Quarto; nbdev prepares the pages (_proc), pandoc makes
  them HTML
* `readme`: README.md from nbs/index.ipynb
* `check-readme`: exits 1 when README.md is not what nbs/index.ipynb gives
* `quarto`: the published site into _docs/, with the Quarto binary, from the same prepared pages

All of them share `prepare`, so a page says the same in every form.
"""
import base64
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pypandoc
import yaml
from nbdev import serve_drv
from nbdev.config import get_config
from nbdev.doclinks import _build_modidx, nbglob
from nbdev.quarto import nbdev_sidebar, refresh_quarto_yml
from processing import Pages

ROOT = get_config().config_path
BASE = get_config().doc_host + get_config().doc_baseurl + "/"
# its picture is a request to elsewhere, which these pages do without
BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]")
GRAPH = "images/landing.h5"              # the graph that the first page shows, below nbs
GFM = ("commonmark+autolink_bare_uris+emoji+footnotes+gfm_auto_identifiers+pipe_tables+raw_html"
       "+strikeout+task_lists+tex_math_dollars")
SITE = ROOT / "tools" / "site"           # page.html (a template of pandoc's) and what it loads
# what a reader meets first; a folder that is not named here comes last
SECTIONS = {"concepts": "Concepts", "howto": "How to", "tutorials": "Tutorials",
            "about": "About", "": "The pipeline", "measurement": "Measurement",
            "graphs": "Graphs", "structure": "Structure of graphs", "dictionary": "Features",
            "tracing": "Attribution graphs", "patching": "Patching", "circuits": "Circuits",
            "lenses": "Lenses", "control": "Steering", "drawing": "Drawing",
            "evidence": "Evidence",
            "vision": "Vision transformers", "digits": "Digits", "training": "Training",
            "planted": "Planted models", "hosts": "Models and SAEs",
            "tracking": "Tracking", "shell": "The command line", "engine": "Engine"}


def ordered(contents: list[Any]) -> list[Any]:
    "The sidebar by `SECTIONS`, the first page before them."
    first, *root = [entry for entry in contents if isinstance(entry, str)]
    folders = {entry["section"]: entry["contents"] for entry in contents
               if not isinstance(entry, str)} | {"": root}
    names = [*(name for name in SECTIONS if name in folders),
             *(name for name in folders if name not in SECTIONS)]
    return [first, *({"section": SECTIONS.get(name, name.capitalize()), "contents": folders[name]}
                     for name in names)]


def write_sidebar(nbs: Path) -> None:
    "The sidebar that nbdev finds, in the order of a reader."
    nbdev_sidebar.__wrapped__()
    file = nbs / "sidebar.yml"
    known = yaml.safe_load(file.read_text(encoding="utf-8"))
    sidebar = known["website"]["sidebar"]
    sidebar["contents"] = ordered(sidebar["contents"])
    file.write_text(yaml.safe_dump(known, sort_keys=False), encoding="utf-8")


def live_explorer(proc: Path) -> None:
    """On the first page the explorer itself in place of its picture: of the small graph that is
    kept for it. The README keeps the picture."""
    from feature_interaction_graph import load_graph, render_explorer
    G = load_graph(proc / GRAPH)
    render_explorer(G, proc / "explorer.html", G.graph.get("title") or None)
    index = proc / "index.ipynb"
    notebook = json.loads(index.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        source, n = re.subn(r"!\[([^\]]*)\]\(images/demo_graph\.png\)", FRAME,
                            "".join(cell["source"]))
        if n: cell["source"] = source
    index.write_text(json.dumps(notebook), encoding="utf-8")


def changelog(proc: Path) -> None:
    "On the page of changes CHANGELOG.md itself, without its title, in place of a link to it."
    _, _, text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").partition("-->")
    for path in proc.glob("about/*_changelog.ipynb"):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if "CHANGELOG.md](" in "".join(cell["source"]): cell["source"] = text.strip()
        path.write_text(json.dumps(notebook), encoding="utf-8")


FOLDED = '<details class="code"><summary>Code</summary>\n\n{}\n\n</details>'
FRAME = """```{=html}
<iframe class="live" src="explorer.html" title="The explorer" loading="lazy"></iframe>
<p>Live: what was measured in stories260K, a small Llama that somebody else trained. Search for a
word such as <em>mom</em>, click a feature or an edge, or take
<a href="explorer.html">the explorer in a page of its own</a>.</p>
```"""


def prepare() -> Path:
    """Process every notebook into _proc as `nbdev_docs` does before it calls Quarto; nothing is
    cached."""
    proc, nbs = ROOT / "_proc", get_config().nbs_path
    _build_modidx()
    write_sidebar(nbs)
    shutil.rmtree(proc, ignore_errors=True)
    jobs = []
    for src in nbglob(nbs, file_glob="", skip_file_re=r"^[.]").map(Path):
        dest = proc / src.relative_to(nbs)
        dest.parent.mkdir(parents=True, exist_ok=True)
        if src.suffix == ".ipynb": jobs.append((src, dest, Pages))
        else: shutil.copy2(src, dest)
    # nbdev's remark on an import inside a function
    os.environ["PYTHONWARNINGS"] = "ignore:Found cells containing imports"
    with ProcessPoolExecutor(
        min(2, os.cpu_count() or 1), mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        list(pool.map(serve_drv.main, jobs))
    live_explorer(proc)
    changelog(proc)
    return proc


def directives(source: str) -> tuple[dict[str, str], str]:
    "The `#| key: value` lines at the top of a cell, and the code below them."
    lines, n = source.splitlines(), 0
    while n < len(lines) and re.match(r"\s*#\s*\|", lines[n]): n += 1
    pairs = (re.sub(r"^\s*#\s*\|", "", line).partition(":") for line in lines[:n])
    return {key.strip(): value.strip() for key, _, value in pairs}, "\n".join(lines[n:]).strip()


def output(out: dict[str, Any], name: str, folder: Path, web: bool, alt: str = "") -> str:
    "One cell output as pandoc markdown; pictures, which `alt` tells, are at `folder / name`."
    data = {
        kind: "".join(v) for kind, v in out.get("data", {}).items() if isinstance(v, str | list)
    }
    if "text/markdown" in data: return data["text/markdown"]
    if "image/png" in data:
        file = folder / name
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_bytes(base64.b64decode(data["image/png"]))
        width = out.get("metadata", {}).get("image/png", {}).get("width")
        told = re.sub(r"([\\\[\]])", r"\\\1", alt)
        return f"![{told}]({name}){{width={width}px}}" if web and width else f"![{told}]({name})"
    if "text/html" in data: return "```{=html}\n" + data["text/html"] + "\n```"
    text = re.sub(
        r"\x1b\[[0-9;]*[A-Za-z]", "", "".join(out.get("text", data.get("text/plain", "")))
    ).rstrip()
    block = "```\n" + text + "\n```"
    return "" if not text else f"::: {{.out}}\n{block}\n:::" if web else block


def relink(source: str, web: bool) -> str:
    "Relative links: to the rendered page of a notebook on the site, into nbs/ in the README."
    def target(m: re.Match[str]) -> str:
        url = m.group(1)
        if re.match(r"[a-z]+:|#|/", url): return m.group(0)
        if not web: return f"](nbs/{url})"
        return "](" + re.sub(
            r"(?:\d+[a-zA-Z0-9]*_)?(\w+)\.ipynb", lambda n: n.group(1).lower() + ".html", url
        ) + ")"
    return re.sub(r"\]\(([^)\s]+)\)", target, source)


def page(notebook: Path, folder: Path, web: bool = True) -> tuple[dict[str, Any], str]:
    "Front matter and markdown of a processed notebook; its pictures go to `folder`."
    meta: dict[str, Any] = {}
    parts = []
    for i, cell in enumerate(json.loads(notebook.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "raw": meta |= yaml.safe_load(source.strip().strip("-")) or {}
        elif cell["cell_type"] == "markdown":
            parts.append(relink(BADGE.sub("[Open in Colab]", source) if web else source, web))
        else:
            options, code = directives(source)
            if options.get("include") == "false": continue
            fence = f"```python\n{code}\n```" if code and options.get("echo") != "false" else ""
            parts.append(FOLDED.format(fence) if fence and "code-fold" in options else fence)
            alt = yaml.safe_load(options.get("fig-alt", '""'))
            parts += [output(out, f"{notebook.stem}_files/{i}-{j}.png", folder, web, alt)
                      for j, out in enumerate(cell["outputs"])]
    return meta, "\n\n".join(p for p in parts if p)


def navigation(contents: list[Any], titles: dict[str, tuple[str, str]], here: str) -> str:
    "The sidebar as seen from the page `here`: a section is open where it holds that page."
    up, parts = "../" * here.count("/"), []
    for entry in contents:
        if isinstance(entry, str):
            href, title = titles[entry]
            mark = ' class="here" aria-current="page"' if href == here else ""
            parts.append(f'<a{mark} href="{up}{href}">{title}</a>')
        else:
            pages = entry["contents"]
            inside = any(titles[name][0] == here for name in flat(pages))
            parts.append(f"<details{' open' if inside or here == 'index.html' else ''}><summary>"
                         f"{entry['section']}</summary>{navigation(pages, titles, here)}</details>")
    return "".join(parts)


def flat(contents: list[Any]) -> list[str]:
    return [name for entry in contents
            for name in ([entry] if isinstance(entry, str) else flat(entry["contents"]))]


class Sections(HTMLParser):
    "Heading, anchor and prose of each section of a page, for the search."

    def __init__(self, main: str) -> None:
        super().__init__()
        self.found: list[list[str]] = [["", "", ""]]
        self.within: list[str] = []
        self.feed(main)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("h2", "h3", "h4"): self.found.append(["", dict(attrs).get("id") or "", ""])
        elif tag in ("p", "li", "td"): self.found[-1][2] += " "     # what follows is another word
        if tag in ("h2", "h3", "h4", "p", "li", "td", "pre", "math"): self.within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.within: del self.within[len(self.within) - 1 - self.within[::-1].index(tag):]

    def handle_data(self, data: str) -> None:
        if not self.within or {"pre", "math"} & {*self.within}: return
        self.found[-1][0 if self.within[-1].startswith("h") else 2] += data

    def told(self, most: int = 600) -> list[list[str]]:
        "Without empty ones; of prose the first `most` letters."
        tidy = [[" ".join(part.split()) for part in section] for section in self.found]
        return [[heading, anchor, text[:most]] for heading, anchor, text in tidy if heading or text]


def site(proc: Path, dest: Path) -> list[str]:
    "Writes the whole site to `dest`; returns its pages."
    shutil.rmtree(dest, ignore_errors=True)
    skip = shutil.ignore_patterns("*.ipynb", "*.yml", ".*")
    shutil.copytree(proc, dest, ignore=skip)
    for name in ("style.css", "search.js", "reach.js"): shutil.copy2(SITE / name, dest)
    contents = yaml.safe_load(
        (proc / "sidebar.yml").read_text(encoding="utf-8")
    )["website"]["sidebar"]["contents"]
    pages = {name: page(proc / name, (dest / name).parent) for name in flat(contents)}
    titles = {name: (Path(name).with_name(meta["output-file"]).as_posix(), meta["title"])
              for name, (meta, _) in pages.items()}
    index = []
    for name, (meta, text) in pages.items():
        href, up = titles[name][0], "../" * name.count("/")
        about = meta.get("description", "")
        values = dict(site=get_config().title, up=up, title=meta["title"], description=about,
                      sidenav=navigation(contents, titles, href))
        # columns of tables are as wide as what they hold, however long a line of the source is
        options = [f"--template={SITE / 'page.html'}", "--toc", "--mathml", "--columns=1000000",
                   *(a for k, v in values.items() for a in ("-V", f"{k}={v}"))]
        # what a picture shows is for those who do not see it, not a second caption
        html = pypandoc.convert_text(text, "html5", format="markdown-implicit_figures",
                                     extra_args=options)
        file = dest / href
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(html.replace(f'href="{BASE}', f'href="{up}'), encoding="utf-8")
        main = re.sub(r"^.*?</h1>|</main>.*$", "", html, flags=re.DOTALL)
        index.append({"href": href, "title": meta["title"], "about": about,
                      "sections": Sections(main).told() or [["", "", about]]})
    (dest / "search-index.js").write_text(
        f"const SEARCH_INDEX = {json.dumps(index, ensure_ascii=False)};\n", encoding="utf-8")
    return sorted(href for href, _ in titles.values())


def readme(folder: Path) -> str:
    "README.md as nbs/index.ipynb gives it; its pictures go to `folder`."
    with tempfile.TemporaryDirectory() as temporary:
        index = Path(temporary) / get_config().readme_nb
        serve_drv.main((get_config().nbs_path / index.name, index, Pages))
        meta, text = page(index, folder, web=False)
    return f"# {meta['title']}\n\n" + pypandoc.convert_text(
        f"{meta['description']}\n\n{text}", GFM, format="markdown", extra_args=["--columns=120"])


def quarto(proc: Path) -> None:
    "The published site, by the Quarto binary."
    subprocess.run(["quarto", "render", "--no-cache"], cwd=proc, check=True)
    shutil.rmtree(get_config().doc_path, ignore_errors=True)
    shutil.move(proc / get_config().doc_path.name, ROOT)


def main(task: str) -> None:
    refresh_quarto_yml()
    if task == "readme": (ROOT / "README.md").write_text(readme(ROOT), encoding="utf-8")
    elif task == "check-readme":
        with tempfile.TemporaryDirectory() as folder: expected = readme(Path(folder))
        if expected.split() != (ROOT / "README.md").read_text(encoding="utf-8").split():
            sys.exit(
                "README.md is not what nbs/index.ipynb gives: run `python tools/docs.py readme`"
            )
    elif task == "site": print(*site(prepare(), ROOT / "_site"))
    elif task == "quarto": quarto(prepare())
    else: sys.exit(__doc__)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(sys.argv[1] if len(sys.argv) == 2 else "")
