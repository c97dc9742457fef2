"""A real language model at its real size: SmolLM2-135M, six residual streams, whole dictionaries.

`python benchmarks/smollm2_run.py --data FOLDER --saes FOLDER --output FOLDER` runs the pipeline on
the SAEs that `benchmarks/smollm2_saes.py` trained, on text that it did not train on: every feature
of the later layers within three blocks is a target of every important feature. BOS and the token
after it, an attention sink whose activations dwarf all others, are left out. Writes
`results/smollm2_run.json`: time of every stage, memory, what was tested, and the edges. `--again`
reads a finished run once more, and keeps the time and memory that are on record.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from real_runs import fig, outcome
from record import RESULTS, write
from smollm2_saes import fresh_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--saes", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=50_000)
    parser.add_argument("--sources", type=int, default=4096, help="most important of each layer")
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--memory-gb", type=float, default=1.5, help="of responses, at a time")
    parser.add_argument("--gated-pairs", type=int, default=60)
    parser.add_argument("--again", action="store_true")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    text = fresh_text(given.data, given.output / "text.txt")
    settings: dict[str, Any] = {
        "model_name": "smollm2-135m", "sae_release": given.saes, "dataset": text,
        "n_tokens": given.tokens, "positions": "2:", "top_k_features": given.sources,
        "n_samples": given.samples,
        "whole_dictionary": "true", "memory_gb": given.memory_gb, "gated_pairs": given.gated_pairs
    }
    run = given.output / "run"
    options = [f"--set={name}={value}" for name, value in settings.items()]
    if given.again:
        known = json.loads((RESULTS / "smollm2_run.json").read_text())["numbers"]
        seconds, memory = known["wall_seconds"], known["peak_memory_gib"]
    else: seconds, memory = fig("run-pipeline", "--output-dir", str(run), *options)
    told = {name: value for name, value in settings.items()
            if name not in ("sae_release", "dataset")}
    found = outcome(run, seconds, memory)
    # of stages that an earlier command made, the time that is on record
    found["wall_seconds"] = max(seconds, sum(found["seconds_by_stage"].values()))
    print(write("smollm2_run", told, found))


if __name__ == "__main__":
    main()
