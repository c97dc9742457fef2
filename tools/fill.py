"""Run notebooks under nbdev's skip rules and store their outputs: `python tools/fill.py [--flags
"slow"] nbs/00_config.ipynb ...`.

A notebook runs in its own folder with the repository first on the path, as the tests run it; it is
written back, cleaned, only if every cell passed. Outputs that would differ on the next machine are
left out: progress bars, widget views, and the paths of this one."""
import argparse
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from execnb.nbio import read_nb, write_nb
from execnb.shell import CaptureShell
from nbdev.clean import clean_nb
from nbdev.config import get_config
from nbdev.process import NBProcessor

ROOT = get_config().config_path.resolve()
WIDGET = "application/vnd.jupyter.widget-view+json"
PROGRESS = re.compile(r"\d+%\||\d+it \[|\r|it/s|s/it")


def neutral(text: str) -> str:
    "`text` without the folders of this machine."
    text = re.sub(re.escape(tempfile.gettempdir()) + r"/[\w.-]+", "TEMPORARY", text)
    for path, name in ((ROOT, "."), (Path(sys.prefix), "ENVIRONMENT"), (Path.home(), "~")):
        text = text.replace(str(path), name)
    return text


def keep(output: dict[str, Any]) -> bool:
    """Whether an output says the same to the next reader: no progress bar, no widget without its
    state."""
    if WIDGET in output.get("data", {}): return False
    return not (output["output_type"] == "stream" and output["name"] == "stderr"
                and PROGRESS.search("".join(output["text"])))


def cleaned(output: dict[str, Any]) -> dict[str, Any]:
    "The same output with neutral text in every text form of it."
    if "text" in output: output["text"] = neutral("".join(output["text"])).splitlines(True)
    for kind, value in output.get("data", {}).items():
        if kind.startswith("text/"): output["data"][kind] = neutral("".join(value)).splitlines(True)
    return output


def fill(file: Path, forced: set[str]) -> None:
    "Execute `file` and write its outputs back."
    nb = read_nb(file)
    directives = [
        getattr(cell, "directives_", {}) for cell in NBProcessor(file, process=True).nb.cells
    ]
    skip = set(get_config().tst_flags.split()) - forced

    def skipped(cell: Any) -> bool:
        names = directives[cell.idx_]
        return cell.cell_type != "code" or names.get("eval:", [""])[0] == "false" or bool(
            skip & names.keys()
        )

    os.chdir(file.parent)
    shell = CaptureShell(file)
    for cell in nb.cells:
        if skipped(cell): continue
        cell["outputs"] = []
        shell.cell(cell)
        if shell.exc:
            sys.stderr.write(shell.prettytb(file) + "\n")
            sys.exit(1)
        cell["outputs"] = [cleaned(output) for output in cell["outputs"] if keep(output)]
    clean_nb(nb)
    write_nb(nb, file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--flags", default="", help='flags of cells to run as well, e.g. "slow"')
    parser.add_argument("notebooks", nargs="+", type=Path)
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    os.environ.update(
        IN_TEST="1", HF_HUB_OFFLINE="1", PLOTLY_RENDERER="notebook_connected", TQDM_MININTERVAL="5"
    )
    for notebook in [n.absolute() for n in args.notebooks]: fill(notebook, set(args.flags.split()))
