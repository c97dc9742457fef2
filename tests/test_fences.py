"""What the pages tell a reader to type: Python runs from top to bottom, commands and their options
exist."""
import ast
import configparser
import doctest
import json
import re
import shlex
import socket
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import typer
from feature_interaction_graph import config
from feature_interaction_graph.cli import app

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = typer.main.get_command(app).commands
# A fence in any other language, or in none, says neither that it runs nor that it does not.
RUN, CHECKED, NOT_RUN = "python", ("sh", "bash"), ("text", "json", "mermaid")


@dataclass(frozen=True)
class Fence:
    "A block of code in a page, and the line of the page (or docstring) it starts at."
    page: str
    line: int
    language: str
    code: str

    def __str__(self) -> str: return f"{self.page}:{self.line}"


def fences(page: str, text: str) -> list[Fence]:
    "The fences of a text; whatever stands between two lines of three backticks or more."
    found = re.finditer(r"^([ \t]*)(`{3,}|~{3,})[ \t]*(\S*).*\n((?:.*\n)*?)\1\2[ \t]*$", text, re.M)
    return [Fence(page, text[:each.start()].count("\n") + 1, each[3].strip("{}."),
                  textwrap.dedent(each[4])) for each in found]


def prompts(page: str, text: str) -> list[Fence]:
    "The `>>>` examples of a text, outside fences."
    return [Fence(page, example.lineno + 1, RUN, example.source)
            for example in doctest.DocTestParser().get_examples(text)]


def markdown(path: Path) -> str:
    "The text of a page: a file, or the markdown cells of a notebook."
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md": return text
    return "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"]
                       if cell["cell_type"] == "markdown")


def docstrings() -> Iterator[tuple[str, str]]:
    "Module and name, and docstring, of everything in the package that has one."
    for path in sorted((ROOT / "feature_interaction_graph").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                name = getattr(node, "name", "")
                yield f"{path.relative_to(ROOT)}:{name}", ast.get_docstring(node) or ""


PAGES = {path.relative_to(ROOT).as_posix(): markdown(path)
         for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "nbs").rglob("*.md")),
                      *sorted((ROOT / "nbs").rglob("*.ipynb"))]}
FENCES = [fence for page, text in PAGES.items() for fence in fences(page, text)]
IN_DOCSTRINGS = [fence for name, text in docstrings()
                 for fence in fences(name, text) + prompts(name, text)]
# README.md is made of this page, so its fences run there.
TO_RUN = sorted({fence.page for fence in FENCES + IN_DOCSTRINGS if fence.language == RUN}
                - {"nbs/index.ipynb"})


def smaller(patch: pytest.MonkeyPatch, function: Callable[..., Any], **defaults: Any) -> None:
    "Other defaults of `function`; those of a dataclass are its `__init__`'s."
    code, positional = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[:code.co_argcount][code.co_argcount - len(positional):]
    known = dict(zip(names, positional, strict=True)), dict(function.__kwdefaults__ or {})
    assert defaults.keys() <= known[0].keys() | known[1].keys(), (function, defaults)
    for attribute, values in zip(("__defaults__", "__kwdefaults__"), known, strict=True):
        new = {name: defaults.get(name, value) for name, value in values.items()}
        patch.setattr(function, attribute,
                      tuple(new.values()) if attribute == "__defaults__" else new or None)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    "An empty folder to be in, no network, and a `demo` that takes seconds where it took a minute."
    from feature_interaction_graph.analysis import (
        cluster_roles, compare_graphs, compute_graph_statistics
    )
    from feature_interaction_graph.circuits.library import predefined_behavior
    from feature_interaction_graph.circuits.validation import ValidationSettings
    from feature_interaction_graph.subgraphs import CircuitSettings
    monkeypatch.chdir(tmp_path)
    def offline(*address: object) -> None: raise OSError("a page must not need the network")
    monkeypatch.setattr(socket.socket, "connect", offline)
    monkeypatch.setitem(config.PRESETS, "demo", dict(
        n_tokens=6000, n_importance_tokens=1000, top_k_features=25, layer_window=2, n_samples=24,
        n_transport_tokens=3000, output_dir=str(tmp_path)
    ))
    for null in (compute_graph_statistics, cluster_roles): smaller(monkeypatch, null, n_null=3)
    smaller(monkeypatch, compare_graphs, n_null=3, n_bootstrap=5)
    smaller(monkeypatch, predefined_behavior, n=8)
    smaller(monkeypatch, CircuitSettings.__init__, n_exact=10, steps=2, n_seeds=60)
    smaller(monkeypatch, ValidationSettings.__init__, n_random=5)
    return tmp_path


def carry_out(blocks: list[Fence]) -> dict[str, Any]:
    "Runs them one after the other in one namespace, which is returned."
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in blocks:
        # lines of a traceback are those of the page
        code = compile("\n" * block.line + block.code, block.page, "exec")
        exec(code, namespace)
    return namespace


@pytest.mark.parametrize("page", TO_RUN)
def test_python_of_a_page_runs_from_top_to_bottom(page: str, small: Path) -> None:
    blocks = [fence for fence in FENCES + IN_DOCSTRINGS
              if fence.page == page and fence.language == RUN]
    made = carry_out(blocks)
    if page != "README.md": return
    assert made["G"].number_of_edges() and len(made["best"]) and made["circuit"].nodes
    assert (small / "agreement.png").stat().st_size > 1000


def test_readme_is_among_the_pages_that_run() -> None:
    assert {"README.md", "nbs/01_loading.ipynb"} <= set(TO_RUN)
    code = {page: [fence.code.split() for fence in FENCES if fence.page == page]
            for page in ("README.md", "nbs/index.ipynb")}
    assert code["README.md"] == code["nbs/index.ipynb"]


def test_every_fence_says_what_it_is() -> None:
    unclear = [f"{fence}: {fence.language!r}" for fence in FENCES + IN_DOCSTRINGS
               if fence.language not in (RUN, *CHECKED, *NOT_RUN)]
    assert not unclear, f"write ```python, ```sh, or ```text for what is not run: {unclear}"
    # each line of backticks belongs to a fence
    for page, text in PAGES.items():
        mine = [fence for fence in FENCES if fence.page == page]
        assert len(re.findall(r"^[ \t]*(?:```|~~~)", text, re.M)) == 2 * len(mine), page


def check_fig(words: list[str]) -> None:
    "Parses a call of `fig` as `fig` itself would, without carrying it out."
    known = [word for word in words if word not in ("--help", "-h", "--version")]
    if not known: return
    name, *rest = known
    assert name in COMMANDS, f"fig has no command {name!r}"
    if not rest: return                              # it is only spoken of
    COMMANDS[name].make_context(name, list(rest), resilient_parsing="..." in rest)
    settings = {each.name for each in fields(config.Config)}
    for option, value in zip(rest, rest[1:], strict=False):
        if option == "--preset": assert value in config.PRESETS, value
        if option == "--set": assert value.partition("=")[0] in settings, value


def check_make(words: list[str]) -> None:
    "Every target, and every variable that is set, is one of the Makefile."
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.M))
    variables = set(re.findall(r"^(\w+) \?=", makefile, re.M))
    for word in words:
        name, equals, _ = word.partition("=")
        assert name in (variables if equals else targets), f"the Makefile has no {name!r}"


def check_command(line: str) -> None:
    "One line for a shell: what it calls, with these options, is there."
    words = shlex.split(line, comments=True)
    while words:
        here = words[:words.index("&&")] if "&&" in words else words
        words = words[len(here) + 1:]
        program, *rest = here
        if program == "fig": check_fig(rest)
        elif program == "make": check_make(rest)
        else: assert program in {"git", "cd", "pip", "python", "pytest", "nbdev_test"}, program
        if program == "pytest" and "-m" in rest:
            told = configparser.ConfigParser()
            told.read(ROOT / "pytest.ini")
            assert f"{rest[rest.index('-m') + 1]}:" in told["pytest"]["markers"], line
        for word in rest:
            if re.fullmatch(r"[\w./]+\.(py|ipynb|sh)", word): assert (ROOT / word).exists(), word


def commands() -> Iterator[tuple[str, str]]:
    "Where, and what: the lines of shell fences, and calls of `fig` and `make` within sentences."
    for fence in FENCES + IN_DOCSTRINGS:
        if fence.language in CHECKED:
            for line in fence.code.replace("\\\n", " ").splitlines():
                if line.strip(): yield str(fence), line
    for page, text in PAGES.items():
        outside = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
        # a line may break within; `fig.savefig` and the like are Python
        for call in re.findall(r"(?<!`)`((?:fig|make)\s[^`]+)`", outside):
            yield page, " ".join(call.split())


@pytest.mark.parametrize(("page", "line"), sorted(set(commands())))
def test_commands_exist_with_their_options(page: str, line: str) -> None:
    check_command(line)


BROKEN = {
    "fig run-pipelines --preset demo": "no command 'run-pipelines'",
    "fig run-pipeline --presets demo": "--presets", "fig run-pipeline --preset dmeo": "dmeo",
    "fig run-pipeline --set n_sample=3": "n_sample", "make demonstration": "no 'demonstration'",
    "make demo TROCH=cpu": "no 'TROCH'", "cd x && fig nothing": "no command 'nothing'",
    "python tools/fil.py nbs/index.ipynb": "tools/fil.py", "pytest -m quick": "quick",
    "fgi run-pipeline": "fgi"
}


@pytest.mark.parametrize(("line", "words"), BROKEN.items())
def test_a_wrong_command_would_be_seen(line: str, words: str) -> None:
    with pytest.raises(Exception, match=words): check_command(line)


def test_a_broken_fence_would_be_seen(small: Path) -> None:
    page = "Text.\n\n```python\nx = 1\n```\n\n``` python\nassert x == 1\nundefined\n```\n"
    blocks = fences("page.md", page)
    assert [fence.line for fence in blocks] == [3, 7]
    with pytest.raises(NameError, match="undefined") as seen: carry_out(blocks)
    assert seen.traceback[-1].lineno + 1 == 9
    (nothing,), (example,) = fences("x", "```\n1 +\n```\n"), prompts("x", "So:\n\n>>> 1 / 0\n")
    assert nothing.language == "" and example.language == RUN
    with pytest.raises(ZeroDivisionError): carry_out([example])
    with pytest.raises(OSError, match="network"): socket.create_connection(("127.0.0.1", 9))


def broken_links(page: Path, text: str) -> list[str]:
    "Relative links to notebooks that lead nowhere, from where the page stands or from `nbs`."
    links = re.findall(r"\]\(([^)#\s:]+\.ipynb)[)#]", text)
    places = page.parent, ROOT / "nbs"
    return [link for link in links if not any((place / link).is_file() for place in places)]


def test_links_to_notebooks_lead_to_them() -> None:
    "As a reader of the repository follows them, where no site renames the pages."
    pages = {page: "\n".join(
                 "".join(cell["source"]) for cell in json.loads(page.read_text())["cells"]
                 if cell["cell_type"] == "markdown"
             ) for page in (ROOT / "nbs").rglob("[!.]*.ipynb")}
    pages |= {ROOT / name: (ROOT / name).read_text(encoding="utf-8")
              for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")}
    broken = {
        page.name: found for page, text in pages.items() if (found := broken_links(page, text))
    }
    assert not broken and len(pages) > 100
    assert broken_links(ROOT / "README.md", "[a](nbs/nowhere.ipynb)") == ["nbs/nowhere.ipynb"]
