"""Check a rendered site: `python tools/check_site.py SITE PACKAGE`.

Every public symbol of PACKAGE's `_modidx` has its page and its anchor there; local links, pictures
and anchors lead somewhere. Prints what does not and exits 1. Works on the pandoc site and on
Quarto's."""
import importlib
import posixpath
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

class Page(HTMLParser):
    "The ids, links and embedded files of one page."

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.files: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if values.get("id"): self.ids.add(values["id"] or "")
        if tag == "a" and values.get("href"): self.links.append(values["href"] or "")
        if tag in ("img", "script", "iframe") and values.get("src"):
            self.files.append(values["src"] or "")


def problems(site: Path, package: str) -> list[str]:
    "One line for every missing page, anchor or file."
    index = importlib.import_module(f"{package}._modidx").d
    base = index["settings"]["doc_host"] + index["settings"]["doc_baseurl"] + "/"
    pages = {file.relative_to(site).as_posix(): Page(file) for file in sorted(site.rglob("*.html"))}
    found = [] if pages else [f"{site} holds no page"]

    def check(where: str, link: str, name: str) -> None:
        if link.startswith(base): link, name = link.removeprefix(base), ""
        if re.match(r"[a-zA-Z][a-zA-Z+.-]*:|//", link) or link in ("", "#"): return
        path, _, anchor = unquote(link).partition("#")
        path = (posixpath.normpath(posixpath.join(posixpath.dirname(name), path.partition("?")[0]))
                if path else name)
        if path == "." or (site / path).is_dir():
            path = posixpath.join(path, "index.html").removeprefix("./")
        if path not in pages and not (site / path).is_file():
            found.append(f"{where}: {link}: no such file")
        elif anchor and path in pages and anchor not in pages[path].ids:
            found.append(f"{where}: {link}: no such anchor")

    for name, page in pages.items():
        for link in page.links + page.files: check(name, link, name)
    for module, symbols in index["syms"].items():
        for symbol, (link, _) in symbols.items():
            if not any(
                part.startswith("_") for part in symbol.removeprefix(module + ".").split(".")
            ):
                check(symbol, link, "")
    return found


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    lines = problems(Path(sys.argv[1]), sys.argv[2])
    print(*lines, f"{len(lines)} problems in {sys.argv[1]}", sep="\n")
    sys.exit(bool(lines))
