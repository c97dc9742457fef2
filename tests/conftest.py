"""What all tests share: no network, no telemetry, the data beside the project where it is there, a
browser where there is one."""
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="disabled", TOKENIZERS_PARALLELISM="false",
                  PLOTLY_RENDERER="json", MPLBACKEND="agg")
# Workers inherit what is set in the process that starts them; with more than one thread each they
# would wait for one another at every operation.
if "PYTEST_XDIST_WORKER" in os.environ: os.environ["OMP_NUM_THREADS"] = "1"
else: os.environ.setdefault("OMP_NUM_THREADS", str(min(2, os.cpu_count() or 1)))
ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--nbflags", default="", help='flags of notebook cells to run as well, e.g. "slow gpu"'
    )


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of third-party models, texts and benchmarks beside the project; tests that need it
    are skipped without it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir(): pytest.skip("needs the folder ../shared/data")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    "The browser's command; tests that need one are skipped without it."
    found = next((path for name in ("chromium", "chromium-browser", "google-chrome")
                  if (path := shutil.which(name))), None)
    if found is None: pytest.skip("needs chromium")
    return found


@pytest.fixture
def ragged_corpus() -> Callable:
    "Makes a corpus of random tokens, each sequence after a BOS and of its own length."
    import torch

    from feature_interaction_graph.engine.corpus import Corpus, as_corpus
    def made(n_sequences: int, length: int, n_vocab: int) -> Corpus:
        generator = torch.Generator().manual_seed(3)
        tokens = torch.randint(1, n_vocab, (n_sequences, length), generator=generator)
        tokens[:, 0] = 0
        lengths = torch.randint(4, length + 1, (n_sequences,), generator=generator)
        return as_corpus(tokens, lengths=lengths, bos_id=0)
    return made
