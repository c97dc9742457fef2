"""Figures of the notebooks and modules: `python tools/page_metrics.py [ROOT]` prints them.

`figures(root)` gives them as a dictionary; the tests hold the ones that must not get worse.
- *cells*: export cells that are not only imports. How long they are, and which of them have a
  public name that no visible code cell among the next four names (`unshown`).
- *lines*: code lines over 100 columns, in notebooks, modules, tests, benchmarks and tools.
- *modules*: their lengths. *functions*: parameters, lengths, and public ones whose docstring does
  not say what they refuse (`silent_refusals`) or which shapes they take (`shapeless`).
- *asserts*: in cells that are not exported, and per public name.
"""
import ast
import json
import re
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WIDTH, REACH = 100, 4
PACKAGE = "feature_interaction_graph"
DIRECTIVE = re.compile(r"^#\|\s*(\w+)", re.M)
ARRAYS = re.compile(r"\b(np\.ndarray|ndarray|Tensor)\b")
SHAPED = re.compile(r"\b(Float|Int|Bool|Num|Shaped)\[")


@dataclass(frozen=True)
class Cell:
    "One code cell: where it is, its text, and the top-level names it defines."
    notebook: str
    index: int
    source: str

    @property
    def directives(self) -> set[str]: return set(DIRECTIVE.findall(self.source))

    @property
    def exported(self) -> bool: return "export" in self.directives

    @property
    def visible(self) -> bool: return not self.directives & {"export", "hide", "default_exp"}

    @property
    def lines(self) -> list[str]:
        return [line for line in self.source.splitlines()
                if line.strip() and not line.startswith("#|")]

    @property
    def tree(self) -> ast.Module:
        code = (line for line in self.source.splitlines() if not line.startswith(("%", "!")))
        return ast.parse("\n".join(code))

    @property
    def only_imports(self) -> bool:
        return all(
            isinstance(node, ast.Import | ast.ImportFrom | ast.If) for node in self.tree.body
        )

    @property
    def names(self) -> list[str]:
        "Functions, classes and variables defined at the top."
        found = []
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef): found.append(node.name)
            targets = node.targets if isinstance(node, ast.Assign) else [
                node.target] if isinstance(node, ast.AnnAssign) else []
            found += [target.id for target in targets if isinstance(target, ast.Name)]
        return found

    @property
    def n_asserts(self) -> int:
        "Assertions, those of numpy and torch and `pytest.raises` among them."
        def asserts(node: ast.AST) -> bool:
            if isinstance(node, ast.Assert): return True
            name = getattr(getattr(node, "func", None), "attr", getattr(
                getattr(node, "func", None), "id", ""))
            return isinstance(node, ast.Call) and (name.startswith("assert_") or name == "raises")
        return sum(asserts(node) for node in ast.walk(self.tree))


def notebooks(root: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    "Every notebook under nbs: its path below it, and its cells."
    for path in sorted((root / "nbs").rglob("*.ipynb")):
        name = path.relative_to(root / "nbs").as_posix()
        if not any(part.startswith((".", "_")) for part in name.split("/")):
            yield name, json.loads(path.read_text(encoding="utf-8"))["cells"]


def code_cells(root: Path) -> Iterator[tuple[Cell, list[Cell]]]:
    "Every code cell, and the code cells among the next `REACH` cells."
    for name, cells in notebooks(root):
        made = {index: Cell(name, index, "".join(cell["source"]))
                for index, cell in enumerate(cells) if cell["cell_type"] == "code"}
        for index, cell in made.items():
            near = range(index + 1, index + 1 + REACH)
            yield cell, [made[at] for at in near if at in made]


def public(names: list[str]) -> list[str]:
    return [name for name in names if not name.startswith("_")]


def unshown(cell: Cell, after: list[Cell]) -> bool:
    "Whether a public name of an export cell is named by no visible code soon after."
    code = "\n".join(each.source for each in after if each.visible)
    return any(not re.search(rf"\b{name}\b", code) for name in public(cell.names))


def functions(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef, bool]]:
    "Every function and method, and whether users may call it."
    def visit(node: ast.AST, seen: bool) -> Iterator[tuple[ast.FunctionDef, bool]]:
        for child in getattr(node, "body", []):
            if isinstance(child, ast.FunctionDef):
                yield child, seen and not child.name.startswith("_")
            if isinstance(child, ast.ClassDef):
                yield from visit(child, seen and not child.name.startswith("_"))
    yield from visit(tree, True)


def parameters(function: ast.FunctionDef) -> list[ast.arg]:
    given = function.args
    return [each for each in [*given.posonlyargs, *given.args, *given.kwonlyargs]
            if each.arg not in ("self", "cls")]


def refuses_silently(function: ast.FunctionDef) -> bool:
    "Raises `InputError` itself, and its docstring does not say so."
    raised = [node.exc for node in ast.walk(function) if isinstance(node, ast.Raise) and node.exc]
    refuses = any("InputError" in ast.unparse(each) for each in raised)
    said = ast.get_docstring(function) or ""
    return refuses and not re.search(r"InputError|[Rr]efuse", said)


def shapeless(function: ast.FunctionDef) -> bool:
    "Takes or returns bare arrays, and neither an annotation nor the docstring gives a shape."
    said = ast.get_docstring(function) or ""
    annotations = [ast.unparse(each.annotation) for each in parameters(function) if each.annotation]
    if function.returns: annotations.append(ast.unparse(function.returns))
    bare = [each for each in annotations if ARRAYS.search(each) and not SHAPED.search(each)]
    return bool(bare) and not re.search(r"\[[\w ,.*+-]+\]", said) and not any(
        SHAPED.search(each) for each in annotations)


def percentile(values: list[int], share: float) -> int:
    return sorted(values)[round(share * (len(values) - 1))]


def figures(root: Path) -> dict[str, Any]:
    "All figures of the project in `root`."
    cells = list(code_cells(root))
    body = [(cell, after) for cell, after in cells if cell.exported and not cell.only_imports]
    lengths = [len(cell.lines) for cell, _ in body]
    modules = {path.relative_to(root / PACKAGE).as_posix(): path.read_text(encoding="utf-8")
               for path in sorted((root / PACKAGE).rglob("*.py"))
               if path.name not in ("_modidx.py", "__init__.py")}
    made = [(name, function, seen) for name, text in modules.items()
            for function, seen in functions(ast.parse(text))]
    scripts = [path for folder in ("tests", "benchmarks", "tools")
               for path in sorted((root / folder).glob("*.py"))]
    texts = [(f"nbs/{cell.notebook}[{cell.index}]", cell.source) for cell, _ in cells]
    texts += [(f"{path.parent.name}/{path.name}", path.read_text(encoding="utf-8"))
              for path in scripts]
    sizes = [text.count("\n") for text in modules.values()]
    n_names = sum(len(public(cell.names)) for cell, _ in body)
    n_asserts = sum(cell.n_asserts for cell, _ in cells if not cell.exported)
    n_asserts += sum(Cell("", 0, path.read_text(encoding="utf-8")).n_asserts
                     for path in (root / "tests").glob("*.py"))
    counts = [len(parameters(function)) for _, function, _ in made]
    return {
        "export_cells": len(body), "cell_median": statistics.median(lengths),
        "cell_p90": percentile(lengths, 0.9), "cell_max": max(lengths),
        "largest_cells": sorted(((len(cell.lines), cell.notebook, cell.index, cell.names[:2])
                                 for cell, _ in body), reverse=True)[:12],
        "unshown": [(cell.notebook, cell.index, public(cell.names)) for cell, after in body
                    if unshown(cell, after)],
        "long_lines": [(where, line) for where, text in texts for line in text.splitlines()
                       if len(line) > WIDTH],
        "modules": len(sizes), "module_median": statistics.median(sizes),
        "module_max": max(sizes), "module_total": sum(sizes),
        "largest_modules": sorted(zip(sizes, modules, strict=True), reverse=True)[:6],
        "many_parameters": sorted(((count, name, function.name) for count, (name, function, _)
                                   in zip(counts, made, strict=True) if count > 8), reverse=True),
        "long_functions": sorted(((function.end_lineno - function.lineno + 1, name, function.name)
                                  for name, function, _ in made
                                  if function.end_lineno - function.lineno >= 40), reverse=True),
        "undocumented": [(name, function.name) for name, function, seen in made
                         if seen and not ast.get_docstring(function)],
        "silent_refusals": [(name, function.name) for name, function, seen in made
                            if seen and refuses_silently(function)],
        "shapeless": [(name, function.name) for name, function, seen in made
                      if seen and shapeless(function)],
        "public_names": n_names, "asserts": n_asserts,
        "asserts_per_name": round(n_asserts / n_names, 2),
    }


if __name__ == "__main__":
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()
    for name, value in figures(root).items():
        if isinstance(value, list):
            print(f"{name}: {len(value)}")
            for line in value[:40]: print("   ", *line)
        else: print(f"{name}: {value}")
