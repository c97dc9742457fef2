"Every notebook under nbs/ runs top to bottom under nbdev's own rules; each is one test."
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.test import test_nb as run_notebook

CFG = get_config()
NOTEBOOKS = sorted(nbglob(CFG.nbs_path, as_path=True))


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    "Notebooks share this process: what one changes for itself must not reach the next."
    environment, path = dict(os.environ), list(sys.path)
    yield
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = path
    if torch := sys.modules.get("torch"):
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float32)
        torch.set_default_device("cpu")
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")
        pyplot.rcdefaults()
    gc.collect()


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS, f"no notebook under {CFG.nbs_path}"


@pytest.mark.skipif(
    "PYTEST_XDIST_WORKER" not in os.environ, reason="needs several workers (pytest -n 2)"
)
def test_workers_do_not_fight_over_cores() -> None:
    assert os.environ["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize(
    "notebook", NOTEBOOKS, ids=lambda p: p.relative_to(CFG.nbs_path).with_suffix("").as_posix()
)
def test_notebook(notebook: Path, pytestconfig: pytest.Config) -> None:
    forced = pytestconfig.getoption("--nbflags").split()
    passed, _ = run_notebook(
        notebook, skip_flags=CFG.tst_flags.split(), force_flags=forced, basepath=CFG.config_path
    )
    assert passed, f"{notebook.name} failed: see the traceback above"
