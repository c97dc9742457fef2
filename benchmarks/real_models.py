"""The two models that benchmarks run on: how a command line names them, and the settings to load
them with."""

import argparse
from pathlib import Path

from feature_interaction_graph.config import Config
from feature_interaction_graph.engine.errors import InputError

ROOT = Path(__file__).parent.parent


def run_parser(
    description: str | None, runs: tuple[str, ...] = ("demo", "stories260k")
) -> argparse.ArgumentParser:
    "A parser that asks which run, and where the model and the SAEs of stories260K lie."
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", choices=runs)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--saes", type=Path, default=ROOT / "outputs" / "stories260k" / "saes")
    return parser


def run_config(
    run: str, data: Path, saes: Path, n_tokens: int, dataset: str | None = None
) -> Config:
    """The settings of a run.

    Raises `InputError` where the model or the SAEs of stories260K are not there."""
    if run != "stories260k":
        return Config.preset(
            run, n_tokens=n_tokens, **({} if dataset is None else {"dataset": dataset})
        )
    for path in (data / "models" / "stories260K", saes):
        if not path.is_dir():
            raise InputError(f"stories260k needs {path.name} in {path.parent}, which is not "
                             "there; give --data and --saes.")
    return Config(
        model_name=str(data / "models" / "stories260K"), sae_release=str(saes), context_length=64,
        n_tokens=n_tokens, dataset=dataset or str(data / "text" / "tinystories_val_slice.txt")
    )
