"""How a notebook is processed for the docs: nbdev's own way, every public method beside its class,
and no import that is for type checkers only."""
import ast
import json
import re
from typing import Any

from execnb.nbio import mk_cell
from nbdev.config import get_config
from nbdev.process import Processor
from nbdev.processors import FilterDefaults, _want_doc, add_show_docs

class Placeholder(type):
    "A class that stands for one the docs must name but need not import; so do its attributes."

    def __getattr__(cls, name: str) -> "Placeholder":
        if name.startswith("__"): raise AttributeError(name)
        return placeholder(f"{cls.__qualname__}.{name}")


def placeholder(name: str) -> Placeholder:
    return Placeholder(name, (), {"__module__": "builtins", "__qualname__": name})


class NameTypes(Processor):
    """Defines what stands under `if TYPE_CHECKING:`, for `show_doc` evaluates string annotations.

    A model library is imported there so that it need not be at run time; importing it for a
    signature would take seconds a page."""

    def begin(self) -> None:
        for cell in reversed(
            [c for c in self.nb.cells if c.cell_type == "code" and "TYPE_CHECKING" in c.source]
        ):
            blocks = [t for t in cell.parsed_() or []
                      if isinstance(t, ast.If) and getattr(t.test, "id", "") == "TYPE_CHECKING"]
            imports = [node for block in blocks for node in block.body
                       if isinstance(node, ast.Import | ast.ImportFrom)]
            names = [alias.asname or alias.name.partition(".")[0] for node in imports
                     for alias in node.names]
            lines = [f"{name} = placeholder({name!r})" for name in names]
            if lines:
                self.nb.cells.insert(
                    cell.idx_ + 1,
                    mk_cell("\n".join(
                                ["#| include: false", "from processing import placeholder", *lines]
                            ))
                )


class NameEverything(Processor):
    """Brings in all names of the page's own module, private ones too, for annotations may name what
    stands further down."""

    def begin(self) -> None:
        for cell in self.nb.cells:
            found = re.search(r"^#\|\s*default_exp\s+(\S+)", cell.source, re.M)
            if cell.cell_type != "code" or not found: continue
            module = f"{get_config().lib_name}.{found[1]}"
            lines = ["#| include: false", "import importlib",
                     f"module = vars(importlib.import_module({module!r}))",
                     "globals().update({name: value for name, value in module.items() "
                     "if not name.startswith('__')})"]
            return self.nb.cells.insert(cell.idx_ + 1, mk_cell("\n".join(lines)))


class ShowMethods(Processor):
    """Adds a `show_doc` for every public method and property in the body of an exported class:
    nbdev shows only the class itself."""

    def begin(self) -> None:
        for cell in reversed([c for c in self.nb.cells if _want_doc(c)]):
            classes = [t for t in cell.parsed_() or []
                       if isinstance(t, ast.ClassDef) and not t.name.startswith("_")]
            calls = [self.call(cls.name, f) for cls in classes for f in cls.body
                     if isinstance(f, ast.FunctionDef) and not f.name.startswith("_")]
            for call in reversed(calls): self.nb.cells.insert(cell.idx_ + 2, mk_cell(call))

    @staticmethod
    def call(cls: str, method: ast.FunctionDef) -> str:
        "The line that documents `method`: properties are shown through the function behind them."
        kinds = {getattr(d, "id", getattr(d, "attr", "")) for d in method.decorator_list}
        member = f"{cls}.{method.name}"
        if "property" in kinds: member += ".fget"
        if "cached_property" in kinds: member += ".func"
        return f"show_doc({member}, name={cls + '.' + method.name!r}, title_level=4)"


class NoInstall(Processor):
    "Leaves the cell that installs the package on Colab to Colab."

    def begin(self) -> None:
        for cell in self.nb.cells:
            if cell.cell_type == "code" and "# on Colab only" in cell.source:
                cell.source = f"#| include: false\n{cell.source}"


class FoldReports(Processor):
    """Folds code that makes tables and figures of what benchmarks found, and what it needs: who
    wants it opens it. What prints stays."""

    def begin(self) -> None:
        code = [cell for cell in self.nb.cells if cell.cell_type == "code"]
        if not any("import benchmark_result" in cell.source for cell in code): return
        for cell in code:
            if "default_exp" in cell.source or "include: false" in cell.source: continue
            if any(out["output_type"] == "stream" for out in cell.outputs): continue
            cell.source = f"#| code-fold: true\n{cell.source}"


class AltTexts(Processor):
    """Says of every picture what it shows, for those who do not see it: `#| fig-alt` of its cell,
    or the heading above it and the first sentence that stands before it."""

    def begin(self) -> None:
        heading = said = ""
        for cell in self.nb.cells:
            if cell.cell_type == "markdown":
                titles = re.findall(r"^#+ +(.+)$", cell.source, re.M)
                prose = re.sub(r"^(#|>|\||```).*$", "", cell.source, flags=re.M).strip()
                if titles: heading = plain_text(titles[-1])
                if prose: said = first_sentence(prose)
            elif any("image/png" in out.get("data", {}) for out in cell.get("outputs", [])):
                if re.search(r"^#\s*\|\s*fig-alt:", cell.source, re.M): continue
                told = ". ".join(part.rstrip(".:") for part in (heading, said) if part)
                told = told or "What the code above draws"
                cell.source = f"#| fig-alt: {json.dumps(told, ensure_ascii=False)}\n{cell.source}"


def plain_text(markdown: str) -> str:
    "Without links, marks of code and formulas."
    return re.sub(r"[`*]|\[(?=[^\]]*\]\()|\]\([^)]*\)|\$+", "", markdown).strip()


def first_sentence(prose: str, most: int = 200) -> str:
    "The first sentence of a paragraph as plain text, cut at a word where it is longer than `most`."
    text = " ".join(plain_text(prose.split("\n\n")[0]).split())
    sentence = re.split(r"(?<=[.!?:]) ", text)[0]
    return sentence if len(sentence) <= most else sentence[:most].rpartition(" ")[0] + " …"


def unlink_private(cell: Any) -> None:
    "Names that begin with an underscore have no place in the docs, so nothing may point there."
    def plain(text: str) -> str:
        return re.sub(r"\[(`[^`]+`)\]\([^)\s]*#(?:\w+\.)?_\w*\)", r"\1", text)
    if cell.cell_type == "markdown" and cell.source: cell.source = plain(cell.source)
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if "text/markdown" in data:
            data["text/markdown"] = [plain(line) for line in data["text/markdown"]]


class Pages(FilterDefaults):
    "nbdev's own processing of a notebook for the docs with the additions above."

    def base_procs(self) -> list[Any]:
        procs = super().base_procs()
        at = procs.index(add_show_docs) + 1
        return [*procs[:at], ShowMethods, NameTypes, NameEverything, NoInstall, FoldReports,
                AltTexts, *procs[at:], unlink_private]
