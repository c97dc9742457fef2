"""The way of every notebook to Colab: `python tools/colab.py write|check`.

write      puts, below the title of every notebook, a badge that opens it in Colab, and a cell that
installs the package there and does nothing elsewhere
check      names the notebooks that lack them or have others, and exits 1

Both follow from settings.ini. In tutorials the installing cell is to be seen; on the other pages it
is hidden, for they are read more often than they are run."""
import configparser
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
SEEN = ("tutorials", "concepts", "howto")    # folders whose pages are for running


def settings(root: Path = ROOT) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(delimiters=["="])
    parser.read(root / "settings.ini", encoding="utf-8")
    return parser["DEFAULT"]


def badge(place: str, cfg: configparser.SectionProxy) -> str:
    "The badge of the notebook at `place` below `nbs`."
    where = f"{cfg['user']}/{cfg['repo']}/blob/{cfg['branch']}/{cfg['nbs_path']}/{place}"
    return f"[![Open in Colab]({BADGE})](https://colab.research.google.com/github/{where})"


def install(place: str, cfg: configparser.SectionProxy) -> str:
    "The cell that installs, where it is not there, what the notebook at `place` needs."
    hide = "" if place.partition("/")[0] in SEEN and "/" in place else "#| hide\n"
    return f'''{hide}# on Colab only; keeps the torch and NumPy that are there
if "google.colab" in str(get_ipython()):
    source = "git+{cfg['git_url']}"
    package = f"{cfg['lib_name']}[notebooks] @ {{source}}"
    get_ipython().run_line_magic("pip", f"install -q '{{package}}'")'''


def cells_of(place: str, cfg: configparser.SectionProxy) -> list[dict[str, Any]]:
    "Both cells; their ids follow from the place, so that writing again changes nothing."
    made = []
    for kind, source in (("markdown", badge(place, cfg)), ("code", install(place, cfg))):
        cell = {"cell_type": kind, "metadata": {}, "source": source.splitlines(True),
                "id": hashlib.sha256(f"{kind}:{place}".encode()).hexdigest()[:8]}
        made.append(cell if kind == "markdown" else cell | {"execution_count": None, "outputs": []})
    return made


def is_ours(cell: dict[str, Any]) -> bool:
    source = "".join(cell["source"])
    return BADGE in source or source.removeprefix("#| hide\n").startswith("# on Colab only;")


def with_both(notebook: dict[str, Any], place: str,
              cfg: configparser.SectionProxy) -> dict[str, Any]:
    "The notebook with its badge and its cell, right below the title."
    first, *rest = [cell for cell in notebook["cells"] if not is_ours(cell)]
    return notebook | {"cells": [first, *cells_of(place, cfg), *rest]}


def pages(root: Path = ROOT) -> dict[str, Path]:
    "Every notebook but the first page, which is the README as well, by its place below `nbs`."
    nbs = root / settings(root)["nbs_path"]
    found = {path.relative_to(nbs).as_posix(): path for path in sorted(nbs.rglob("*.ipynb"))
             if not any(part.startswith(".") for part in path.relative_to(nbs).parts)}
    found.pop("index.ipynb", None)
    return found


def main(task: str) -> None:
    cfg, wrong = settings(), []
    for place, path in pages().items():
        notebook = json.loads(path.read_text(encoding="utf-8"))
        wanted = with_both(notebook, place, cfg)
        if wanted == notebook: continue
        wrong.append(place)
        if task == "write":
            path.write_text(json.dumps(wanted, indent=1, ensure_ascii=False, sort_keys=True) + "\n",
                            encoding="utf-8")
    if task == "check" and wrong:
        sys.exit(f"{', '.join(wrong)}: no badge for Colab, or another; run "
                 "`python tools/colab.py write`")


if __name__ == "__main__":
    if sys.argv[1:] not in (["write"], ["check"]): sys.exit(__doc__)
    main(sys.argv[1])
