"""The two runs of the documentation, end to end through the command line, with their numbers.

`python benchmarks/real_runs.py demo` runs the embedded demo. `python benchmarks/real_runs.py
stories260k --data FOLDER` trains SAEs on every residual hook point of stories260K (Llama
architecture, trained by the author of llama2.c) with `fig train-saes`, then runs the whole pipeline
on TinyStories text. FOLDER holds `models/stories260K` and `text/tinystories_*_slice.txt`.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from record import write

from feature_interaction_graph.candidates import Candidates
from feature_interaction_graph.config import Config
from feature_interaction_graph.dictionary.store import ActivationStore
from feature_interaction_graph.engine.names import parse_feature_id
from feature_interaction_graph.features import top_examples
from feature_interaction_graph.graph import load_graph
from feature_interaction_graph.interactions import InteractionTable, measure_interactions
from feature_interaction_graph.loading import load_model_and_saes

ROOT = Path(__file__).parent.parent


def fig(*arguments: str) -> tuple[float, float]:
    """Runs `fig` with these arguments; its wall time in seconds and the largest memory of any child
    so far in GiB."""
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "feature_interaction_graph.cli", *arguments, "--quiet"], check=True
    )
    return (
        time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    )


def telling_edges(folder: Path, n_edges: int = 8) -> dict[str, list[dict[str, Any]]]:
    """The strongest edges, in standard deviations of both ends, between features with different
    labels (where there are none, with different texts): the largest excitatory and the largest
    inhibitory.

    Each comes with the text in which its source and its target fire most.
    """
    store = ActivationStore.open(folder / "activations.h5")
    graph = load_graph(folder / "graph.json")
    label = dict(graph.nodes(data="label"))
    chosen = [(source, target, edge) for source, target, edge in graph.edges(data=True)
              if label[source] != label[target] or not label[source]]
    chosen.sort(key=lambda entry: -abs(entry[2]["strength_std"]))

    def text_of(name: str) -> str:
        # where only the first token fires it, that is what there is to show
        some = (top_examples(store, *parse_feature_id(name), k=1, window=8, from_position=2)
                or top_examples(store, *parse_feature_id(name), k=1, window=8))
        return str(some[0]).strip().partition("  ")[2]

    found: dict[str, list[dict[str, Any]]] = {"excitatory": [], "inhibitory": []}
    for source, target, edge in chosen:
        mine = found.get(edge["interaction_type"])
        if mine is None or len(mine) == n_edges: continue
        texts = {"source": text_of(source), "target": text_of(target)}
        if not label[source] and texts["source"] == texts["target"]: continue
        numbers = {name: edge[name] for name in ("strength", "strength_std", "ci_lower", "ci_upper",
                                                 "q_value", "n_samples", "share_nonzero")}
        mine.append({"source": source, "target": target, "labels": [label[source], label[target]],
                     "contexts": texts, **numbers})
        if all(len(edges) == n_edges for edges in found.values()): break
    return found


def outcome(folder: Path, seconds: float, memory: float) -> dict[str, Any]:
    "The numbers of a finished run."
    summary = json.loads((folder / "summary.json").read_text())
    kept = {name: summary[name] for name in ("counts", "skipped", "graph", "contexts", "placebo")}
    return {"wall_seconds": seconds, "peak_memory_gib": memory,
            "seconds_by_stage": summary["seconds"], **kept, "telling": telling_edges(folder)}


def jaccard(one: InteractionTable, other: InteractionTable, specific: bool) -> float:
    "Of the edges (or of all that is significant) of two measurements, the share in both."
    names = ("src_layer", "src_feature", "tgt_layer", "tgt_feature", "offset")
    first, second = (set(zip(*(kept.columns[name].tolist() for name in names), strict=True))
                     for kept in ((table.edges() if specific else table.significant())
                                  for table in (one, other)))
    return len(first & second) / len(first | second)


def second_measurement(folder: Path, **other_text: Any) -> dict[str, Any]:
    """The pairs of a finished run measured again on other text (settings that name it), from the
    doses on: what of the edges is found again, beside what the run predicts."""
    cfg = Config.load(folder / "config.json").replace(
        **other_text, output_dir=str(folder / "second"))
    model, saes = load_model_and_saes(cfg)
    first = InteractionTable.load(folder / "interactions.h5")
    second = measure_interactions(model, saes, Candidates.load(folder / "candidates.h5"), cfg)
    return {"predicted": first.meta["stability"], "edges": jaccard(first, second, True),
            "significant": jaccard(first, second, False),
            "n_edges": [len(table.edges()) for table in (first, second)],
            "n_significant": [len(table.significant()) for table in (first, second)]}


def demo(output: Path) -> None:
    seconds, memory = fig(
        "run-pipeline", "--preset", "demo", "--output-dir", str(output), "--force"
    )
    training = json.loads(
        (ROOT / "feature_interaction_graph" / "demo" / "training.json").read_text()
    )
    write(
        "demo_run", {"preset": "demo"},
        {**outcome(output, seconds, memory),
         "second_measurement": second_measurement(output, seed=1), "training": training}
    )


def stories260k(data: Path, output: Path, steps: int, width: int, k: int) -> None:
    model, saes = data / "models" / "stories260K", output / "saes"
    points = [f"blocks.{layer}.hook_resid_pre" for layer in range(5)] + ["blocks.4.hook_resid_post"]
    if not (saes / "quality.json").exists():
        fig(
            "train-saes",
            "--model",
            str(model),
            "--dataset",
            str(data / "text" / "tinystories_train_slice.txt"),
            "--n-tokens",
            "250000",
            "--hook-points",
            ",".join(points),
            "--width",
            str(width),
            "--k",
            str(k),
            "--steps",
            str(steps),
            "--output-dir",
            str(saes),
            "--set",
            "context_length=256",
        )
    seconds, memory = fig(
        "run-pipeline",
        "--model",
        str(model),
        "--sae-release",
        str(saes),
        "--dataset",
        str(data / "text" / "tinystories_val_slice.txt"),
        "--n-tokens",
        "100000",
        "--output-dir",
        str(output / "run"),
        "--set",
        "context_length=256",
        "--force",
    )
    text = (data / "text" / "tinystories_val_slice.txt").read_text(encoding="utf-8")
    rest = output / "rest.txt"              # the run reads the first 100,000 tokens, 40 % of it
    rest.write_text(text[len(text) // 2:], encoding="utf-8")
    again = second_measurement(output / "run", dataset=str(rest))
    settings = {
        "model": "stories260K",
        "text": "TinyStories: one slice for training the SAEs, another for measuring",
        "hook_points": points,
        "width": width,
        "k": k,
        "steps": steps,
    }
    write(
        "stories260k_run",
        settings,
        {"saes": json.loads((saes / "quality.json").read_text()),
         **outcome(output / "run", seconds, memory), "second_measurement": again},
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", choices=["demo", "stories260k"])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("-k", type=int, default=12)
    chosen = parser.parse_args()
    if chosen.run == "demo":
        demo(chosen.output / "demo")
    else:
        stories260k(
            chosen.data, chosen.output / "stories260k", chosen.steps, chosen.width, chosen.k
        )


if __name__ == "__main__":
    main()
