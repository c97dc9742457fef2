"""The wheel: what it carries, that requirements can be met, that the demo and the tutorials run in
an environment that has it, what it asks for, and nothing else."""
import email
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import colab  # noqa: E402

TUTORIALS = sorted((ROOT / "nbs" / "tutorials").glob("*.ipynb"))
PAGES = sorted((ROOT / "nbs").glob("[a-z]*/[0-9]*.ipynb"))
CFG = colab.settings(ROOT)
# What only shows the results of benchmarks; the others measure, and are for the slow test.
LIGHT = ("01_benchmarks", "02_tracr", "08_predictions", "13_hypotheses")


def required(name: str) -> list[Requirement]:
    return [Requirement(each) for each in shlex.split(CFG[name])]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A wheel built from a copy of the repository: building leaves nothing behind."
    pytest.importorskip("setuptools")
    copy, out = (tmp_path_factory.mktemp("wheel") / name for name in ("repository", "out"))
    skip = shutil.ignore_patterns(".*", "_*site", "_proc", "_docs", "build", "*.egg-info",
                                  "outputs", "__pycache__", "nbs", "tests")
    shutil.copytree(ROOT, copy, ignore=skip)
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps",
                    "--no-build-isolation", "--wheel-dir", str(out), str(copy)], check=True)
    (built,) = out.glob("*.whl")
    return built


def test_a_wheel_carries_the_demo_and_the_numbers_of_benchmarks(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (about,) = [name for name in names if name.endswith("METADATA")]
        told = email.message_from_bytes(archive.read(about))
    package = CFG["lib_name"]
    results = {Path(name).name for name in names if name.startswith(f"{package}/results/")}
    assert results == {path.name for path in (ROOT / "benchmarks" / "results").glob("*.json")}
    assert any(name.startswith(f"{package}/demo/") for name in names)
    assert any(name.startswith(f"{package}/assets/") for name in names)
    assert not any(name.startswith(("nbs/", "tests/", "tools/")) for name in names)
    assert {"notebooks", "dev", "ray"} <= set(told.get_all("Provides-Extra"))
    assert wheel.stat().st_size < 20 * 2**20


def closure(wanted: list[Requirement]) -> list[importlib.metadata.Distribution]:
    "What is installed here of `wanted` and everything these ask for."
    found: dict[str, importlib.metadata.Distribution] = {}
    queue = [(each.name, each.extras) for each in wanted]
    while queue:
        name, extras = queue.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        try: one = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError: continue
        if key in found and not extras: continue
        found[key] = one
        for line in one.requires or []:
            each = Requirement(line)
            if each.marker is None or any(each.marker.evaluate({"extra": extra})
                                          for extra in ("", *extras)):
                queue.append((each.name, each.extras))
    return list(found.values())


@pytest.fixture(scope="session")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel and what it asks for, linked from this one: no
    checkout, and no package for development."""
    if os.name == "nt": pytest.skip("links files")
    folder = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for one in closure(required("requirements")):
        for file in {file.parts[0] for file in one.files or [] if file.parts[0] != ".."}:
            place = Path(str(one.locate_file(file)))
            if place.exists() and not (site / file).exists(): (site / file).symlink_to(place)
    with zipfile.ZipFile(wheel) as archive: archive.extractall(site)
    return folder / "bin" / "python"


def run(python: Path, *words: str, cwd: Path, seconds: int = 600) -> str:
    "What a program says in the clean environment, which knows of no network."
    env = {name: value for name, value in os.environ.items()
           if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    env |= {"HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "IN_TEST": "1"}
    done = subprocess.run([str(python), *words], cwd=cwd, env=env, capture_output=True, text=True,
                          timeout=seconds)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


RUNNER = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for file in sys.argv[1:]:
    shell.reset(new_session=False)
    for cell in json.load(open(file, encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        left_out = "#| eval: false" in source or "#| slow" in source
        if cell["cell_type"] == "code" and not left_out:
            shell.run_cell(source).raise_error()
    print("ran", file)
"""


def run_notebooks(python: Path, notebooks: list[Path], folder: Path) -> None:
    (folder / "runner.py").write_text(RUNNER, encoding="utf-8")
    for path in notebooks: shutil.copy2(path, folder)
    said = run(python, "runner.py", *(path.name for path in notebooks), cwd=folder, seconds=1800)
    assert said.count("ran ") == len(notebooks)


def test_the_environment_is_clean_and_its_results_are_there(clean: Path, tmp_path: Path) -> None:
    code = """
import importlib.util, feature_interaction_graph as package
assert "site-packages" in package.__file__, package.__file__
assert package.benchmark_result("clamp")["numbers"]
print(*(name for name in ("nbdev", "pytest", "ruff", "mypy") if importlib.util.find_spec(name)))
"""
    assert run(clean, "-c", code, cwd=tmp_path).split() in ([], ["pytest"])


def test_tutorials_of_results_run_with_the_wheel_alone(clean: Path, tmp_path: Path) -> None:
    run_notebooks(clean, [path for path in TUTORIALS if path.stem in LIGHT], tmp_path)


@pytest.mark.slow
def test_every_tutorial_runs_with_the_wheel_alone(clean: Path, tmp_path: Path) -> None:
    run_notebooks(clean, [path for path in TUTORIALS if path.stem not in LIGHT], tmp_path)


@pytest.mark.slow
def test_the_demo_runs_with_the_wheel_alone(clean: Path, tmp_path: Path) -> None:
    run(clean, "-m", "feature_interaction_graph.cli", "run-pipeline", "--preset", "demo",
        "--n-tokens", "20000", "--top-k", "60", "--output-dir", "demo", "--quiet", cwd=tmp_path)
    graph = json.loads((tmp_path / "demo" / "summary.json").read_text())["graph"]
    assert graph["n_edges"] > 0 and (tmp_path / "demo" / "graph.html").stat().st_size > 10_000


def imported(path: Path) -> set[str]:
    "The packages that the cells of a notebook import outside functions."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return set(re.findall(r"^(?:from|import) (\w+)", source, re.M)) - sys.stdlib_module_names


MODULES = {"scikit-learn": "sklearn", "sae-lens": "sae_lens", "transformer-lens":
           "transformer_lens", "igraph": "igraph", "gguf": "gguf"}


def modules(*names: str) -> set[str]:
    return {MODULES.get(each.name, each.name.replace("-", "_")) for name in names
            for each in required(name)}


def test_pages_need_only_what_the_cell_for_colab_installs() -> None:
    "Tutorials, concepts and guides not even the packages that tests need."
    fine = modules("requirements") | {
        CFG["lib_name"], "IPython", "huggingface_hub", "packaging", "PIL"}
    more = modules("notebooks_requirements", "smollm2_requirements")
    wrong = {}
    for path in PAGES:
        allowed = fine if path.parent.name in (*colab.SEEN, "about") else fine | more
        if unknown := imported(path) - allowed: wrong[path.name] = unknown
    assert not wrong and len(PAGES) > 200, wrong


def test_every_page_opens_in_colab() -> None:
    assert not [place for place, path in colab.pages(ROOT).items()
                if (notebook := json.loads(path.read_text(encoding="utf-8")))
                != colab.with_both(notebook, place, CFG)], "run python tools/colab.py write"
    assert colab.install("tutorials/01_a.ipynb", CFG).startswith("# on Colab only")
    assert colab.install("engine/01_a.ipynb", CFG).startswith("#| hide\n# on Colab only")
    assert colab.badge("engine/01_a.ipynb", CFG).endswith("/blob/main/nbs/engine/01_a.ipynb)")


def test_on_colab_the_cell_installs_and_elsewhere_it_does_nothing() -> None:
    asked: list[tuple[str, str]] = []

    class Shell:
        def __init__(self, name: str) -> None: self.name = name
        def __str__(self) -> str: return self.name
        def run_line_magic(self, magic: str, line: str) -> None: asked.append((magic, line))

    code = colab.install("tutorials/01_a.ipynb", CFG)
    for name in ("<ipykernel.zmqshell>", "<google.colab._shell.Shell object>"):
        exec(code, {"get_ipython": lambda name=name: Shell(name)})
    ((magic, line),) = asked
    assert magic == "pip" and shlex.split(line) == [
        "install", "-q", f"{CFG['lib_name']}[notebooks] @ git+{CFG['git_url']}"]


def test_requirements_leave_room_for_the_versions_of_colab() -> None:
    "Those of its runtime of 2025.10; nothing it has is replaced but what is older than we need."
    theirs = {"torch": "2.8.0", "numpy": "2.0.2", "pandas": "2.2.2", "scipy": "1.16.2",
              "matplotlib": "3.10.0", "ipywidgets": "7.7.1", "h5py": "3.14.0", "networkx": "3.5",
              "statsmodels": "0.14.5", "tqdm": "4.67.1", "psutil": "5.9.5", "rich": "13.9.4",
              "safetensors": "0.6.2", "tokenizers": "0.22.1", "typer": "0.19.2"}
    ours = {each.name: each.specifier for each in required("requirements")}
    assert not {name: version for name, version in theirs.items()
                if name in ours and not ours[name].contains(version)}


@pytest.mark.slow
@pytest.mark.parametrize(("version", "pins"), [
    ("3.11", ()), ("3.12", ("torch==2.8.0", "numpy==2.0.2")), ("3.13", ())])
def test_requirements_can_be_met(version: str, pins: tuple[str, ...], tmp_path: Path) -> None:
    """pip finds versions for every requirement (and, on Colab's Python, beside its torch and NumPy)
    without installing any. What is published without a wheel is built first."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    built = subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(tmp_path),
                            "transformers-stream-generator"], capture_output=True, text=True)
    if built.returncode: pytest.skip("needs a package index")
    done = subprocess.run(
        [*pip, "install", "--dry-run", "--ignore-installed", "--only-binary", ":all:",
         "--python-version", version, "--target", str(tmp_path / "none"), "--find-links",
         str(tmp_path), "--report", str(tmp_path / "report.json"), *pins,
         *shlex.split(CFG["requirements"])], capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    found = {each["metadata"]["name"].lower(): each["metadata"]["version"]
             for each in report["install"]}
    assert found["sae-lens"] and all(found[pin.partition("==")[0]].startswith(
        pin.partition("==")[2]) for pin in pins)


def test_what_is_required_is_used() -> None:
    "Each requirement is imported somewhere in the package, or CONTRIBUTING says why it is there."
    source = "\n".join(path.read_text(encoding="utf-8")
                       for path in (ROOT / CFG["lib_path"]).rglob("*.py"))
    told = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    unused = [each.name for each in required("requirements")
              if not re.search(rf"^\s*(?:import|from) {MODULES.get(each.name, each.name)}"
                               .replace("-", "_"), source, re.M)]
    assert not [name for name in unused if f"`{name}`:" not in told], unused
