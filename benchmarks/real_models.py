"""The models that benchmarks run on: how a command line names them, and the settings to load them
with."""

import argparse
from pathlib import Path

from smollm2_saes import fresh_text

from feature_interaction_graph.config import Config
from feature_interaction_graph.engine.errors import InputError

ROOT = Path(__file__).parent.parent


def run_parser(
    description: str | None, runs: tuple[str, ...] = ("demo", "stories260k")
) -> argparse.ArgumentParser:
    "A parser that asks which run, and where the model and the SAEs lie that do not come along."
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

    Raises `InputError` where the model or the SAEs of stories260K, or the SAEs of SmolLM2, are not
    there."""
    if run == "smollm2": return smollm2_config(data, saes, n_tokens)
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


def smollm2_config(data: Path, saes: Path, n_tokens: int) -> Config:
    """SmolLM2-135M on the SAEs of `benchmarks/smollm2_saes.py` and on text that they were not
    trained on, without the attention sink; the text is written beside the SAEs.

    Raises `InputError` where the SAEs are not there."""
    if not saes.is_dir():
        raise InputError(f"smollm2 needs SAEs in {saes}, which is not there; train them with "
                         "benchmarks/smollm2_saes.py and give --saes.")
    text = fresh_text(data, saes.parent / "smollm2_text.txt")
    return Config(model_name="smollm2-135m", sae_release=str(saes), dataset=str(text),
                  n_tokens=n_tokens, positions="2:")
