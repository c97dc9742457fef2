"""Breaks the code on purpose, one line at a time, and says whether a page or a test notices.

    python tools/mutations.py            every mutation of the table
    python tools/mutations.py decay      those whose name or file holds this word

Nothing here is touched: a copy of the project is broken, in the module and in its page alike. Each mutation is tried on
the page that it is in, then on what else is named with it, until something fails. Exit status 1 if a mutation survived.
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "feature_interaction_graph"


class Mutation(NamedTuple):
    "In `module`, `old` (which stands there once) becomes `new`; `also`: pages and tests besides the module's own page."
    name: str
    module: str
    old: str
    new: str
    also: tuple[str, ...] = ()


MUTATIONS = [
]


def page_of(module: Path) -> Path:
    "The notebook that a module is written by."
    named = re.search(r"File to edit: (?:\.\./)+(nbs/\S+\.ipynb)", module.read_text())
    assert named is not None, module
    return Path(named[1])


def once(text: str, mutation: Mutation, where: object) -> str:
    "`text` with the mutation in it."
    if text.count(mutation.old) != 1:
        sys.exit(f"{mutation.name}: {mutation.old!r} stands {text.count(mutation.old)} times in {where}, not once; "
                 "correct the table.")
    return text.replace(mutation.old, mutation.new)


def broken(copy: Path, mutation: Mutation) -> dict[Path, str]:
    "What the module and its page are to hold."
    module = copy / PACKAGE / mutation.module
    page = copy / page_of(module)
    notebook = json.loads(page.read_text())
    exported = [cell for cell in notebook["cells"]
                if cell["cell_type"] == "code" and "".join(cell["source"]).startswith("#| export")]
    sources = ["".join(cell["source"]) for cell in exported]
    changed = once("\0".join(sources), mutation, page.relative_to(copy)).split("\0")
    for cell, source in zip(exported, changed, strict=True): cell["source"] = source.splitlines(keepends=True)
    return {module: once(module.read_text(), mutation, module.relative_to(copy)),
            page: json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"}


def command(check: str) -> list[str]:
    "How a page or a test (`tests/test_x.py`, with `::name` if only one) is run."
    if check.endswith(".ipynb"): return ["nbdev_test", "--path", check, "--n_workers", "1"]
    return ["pytest", "-q", "-x", "-p", "no:xdist", "-p", "no:cacheprovider", "-o",
            "addopts=--strict-markers -m 'not slow'", check]


def complaint(output: str) -> str:
    "The line that says what went wrong."
    lines = [line for line in output.splitlines() if re.search(r"^(E  +)?\w*(Error|Exception|Exit)\b", line)]
    failed = [line for line in output.splitlines() if "Executing Cell" in line or line.startswith("FAILED")]
    return " | ".join(line.strip()[:100] for line in [*failed[:1], *lines[-1:]])


def killer(copy: Path, mutation: Mutation) -> str | None:
    "The first check that fails with the mutation, and how; None if all pass."
    texts = broken(copy, mutation)
    before = {file: file.read_bytes() for file in texts}
    page = page_of(copy / PACKAGE / mutation.module)
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        for file, text in texts.items(): file.write_text(text)
        for check in (str(page), *mutation.also):
            run = subprocess.run(command(check), cwd=copy, env=environment, capture_output=True, text=True)
            if run.returncode: return f"{check}: {complaint(run.stdout + run.stderr)}"
    finally:
        for file, content in before.items(): file.write_bytes(content)
    return None


def copied(folder: Path) -> Path:
    "The project as it stands here, without what git ignores."
    listed = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if not (ROOT / name).is_file(): continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


def main(words: list[str]) -> int:
    "Tries the chosen mutations; the number that survived."
    chosen = [one for one in MUTATIONS if not words or any(word in f"{one.module} {one.name}" for word in words)]
    if not chosen: sys.exit(f"no mutation is called {' or '.join(words)}; their names are in {Path(__file__).name}.")
    survived = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(Path(folder))
        for one in chosen: broken(copy, one)                      # before hours are spent: is the table right?
        for one in chosen:
            begin = time.monotonic()
            found = killer(copy, one)
            survived += found is None
            print(f"{'SURVIVED' if found is None else 'killed  '} {one.module}: {one.name} "
                  f"({time.monotonic() - begin:.0f} s){'' if found is None else f', by {found}'}", flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} mutations were noticed.")
    return min(survived, 1)


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
