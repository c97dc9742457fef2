"""This package's way of training SAEs against sae-lens' own defaults, at equal steps and equal L0.

`python benchmarks/sae_recipes.py --data FOLDER` trains every architecture twice on the demo's
model and on stories260K, on the same rows in the same order, and writes `results/sae_recipes.json`.
"Defaults": sae-lens' config classes and trainer as they come (learning rate 3e-4, constant; no
scale of the input), with this width, batch and number of steps. Where the sparsity follows from a
penalty, either way is trained until L0 is within 5 % of the target; then the thresholds of both are
set to the same L0 on text of its own, and both are judged on a third text.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import sae_lens
import torch
from record import RESULTS, write
from sae_lens import SAETrainer
from sae_lens.config import LoggingConfig, SAETrainerConfig

from feature_interaction_graph.config import Config
from feature_interaction_graph.engine.corpus import Corpus, corpus_from_text
from feature_interaction_graph.loading import load_model
from feature_interaction_graph.training.rows import sampled_activations, shuffled_batches
from feature_interaction_graph.training.saes import (
    ARCHITECTURES, SaeSettings, fit_sae, new_sae, quality_report, save_sae, trainer_progress
)
from feature_interaction_graph.training.stories import story_corpus
from feature_interaction_graph.training.thresholds import calibrate_thresholds, measured_l0

TARGET, WIDTH, BATCH, CLOSE, TRIES = 16, 512, 1024, 0.05, 6
KNOBS = {"standard": "l1_coefficient", "gated": "l1_coefficient", "jumprelu": "l0_coefficient"}


def texts(run: str, data: Path, n_tokens: int) -> tuple[Any, list[Corpus], str]:
    "A model, text to train on, to set thresholds on and to judge on, and the hook point."
    if run == "demo":
        model = load_model(Config.preset("demo"))
        corpora = [story_corpus(n, seed=seed, labelled=False)
                   for n, seed in ((n_tokens, 21), (30_000, 22), (30_000, 23))]
        return model, corpora, "blocks.2.hook_resid_pre"
    model = load_model(Config(model_name=str(data / "models" / "stories260K"), sae_release="none"))
    slices = [(data / "text" / f"tinystories_{name}_slice.txt").read_text(encoding="utf-8")
              for name in ("train", "val")]
    half = len(slices[1]) // 2
    parts = ((slices[0], n_tokens), (slices[1][:half], 30_000), (slices[1][half:], 30_000))
    corpora = [corpus_from_text(text, model.tokenizer, 128, bos=True, max_tokens=n)
               for text, n in parts]
    return model, corpora, "blocks.2.hook_resid_pre"


def ours(kind: str, rows: torch.Tensor, knob: float | None, steps: int, seed: int, place: str
         ) -> Any:
    "This package's settings."
    # a JumpReLU SAE of ours is told the number of latents itself
    name = "target_l0" if kind == "jumprelu" else KNOBS.get(kind)
    options = {} if name is None else {name: knob}
    sae = new_sae(kind, rows.shape[1], WIDTH, TARGET, steps, {"hook_name": place}, options)
    return fit_sae(sae, shuffled_batches(rows, BATCH, seed), steps, BATCH, SaeSettings().lr, "cpu",
                   False)


def theirs(kind: str, rows: torch.Tensor, knob: float | None, steps: int, seed: int, place: str
           ) -> Any:
    "sae-lens' defaults; Matryoshka has no default widths, so it gets ours."
    from sae_lens.saes.sae import SAEMetadata
    prefix = ARCHITECTURES[kind][0]
    told: dict[str, Any] = {"d_in": rows.shape[1], "d_sae": WIDTH,
                            "metadata": SAEMetadata(hook_name=place)}
    if knob is not None: told[KNOBS[kind]] = knob
    else: told["k"] = TARGET
    if prefix.startswith("Matryoshka"):
        told["matryoshka_widths"] = [WIDTH >> shift for shift in (3, 2, 1, 0)]
    sae = getattr(sae_lens, f"{prefix}TrainingSAE")(
        getattr(sae_lens, f"{prefix}TrainingSAEConfig")(**told))
    config = SAETrainerConfig(total_training_samples=steps * BATCH, train_batch_size_samples=BATCH,
                              lr_end=3e-5,    # as its runner sets it; without decay of no effect
                              logger=LoggingConfig(log_to_wandb=False))
    with trainer_progress(False):
        return SAETrainer(cfg=config, sae=sae, data_provider=shuffled_batches(rows, BATCH, seed)
                          ).fit()


def at_target(way: Any, kind: str, rows: torch.Tensor, calibration: torch.Tensor, steps: int,
              seed: int, place: str) -> tuple[Any, list[tuple[float, float]]]:
    "An SAE by one way whose L0 is the target: its thresholds are set last."
    trials: list[tuple[float, float]] = []
    direct = way is ours and kind == "jumprelu"
    knob = TARGET if direct else {"standard": 3.0, "gated": 3.0, "jumprelu": 1.0}.get(kind)
    # thresholds can only take firings away from a plain ReLU
    best, off, goal = None, math.inf, TARGET * (1.05 if kind == "standard" else 1.0)
    for _ in range(TRIES if knob else 1):
        torch.manual_seed(seed)
        made = save_sae(way(kind, rows, knob, steps, seed, place), None)
        l0 = max(measured_l0(made, calibration), 1e-2)
        trials.append((knob or TARGET, l0))
        far = abs(math.log(l0 / goal)) + 9 * (kind == "standard" and l0 < TARGET)
        if far < off: best, off = made, far
        if knob is None or off < CLOSE: break
        slope = 1.0 if direct else -0.7
        if len(trials) > 1:
            (k0, l0_before), (k1, l0_now) = trials[-2:]
            found = math.log(l0_now / l0_before) / math.log(k1 / k0) if k1 != k0 else slope
            if found * slope > 0 and 0.1 < abs(found) < 10: slope = found
        knob *= min(8.0, max(1 / 8, (goal / l0) ** (1 / slope)))
    if kind == "topk": return best, trials
    return calibrate_thresholds(best, calibration, TARGET), trials


def compare(run: str, data: Path, kinds: list[str], steps: int, n_tokens: int, seeds: int
            ) -> dict[str, Any]:
    "Both ways for every kind and seed."
    model, (train, calibration, test), place = texts(run, data, n_tokens)
    rows, other = (sampled_activations(model, corpus, place) for corpus in (train, calibration))
    found: dict[str, Any] = {}
    for kind in kinds:
        found[kind] = {}
        for name, way in (("ours", ours), ("defaults", theirs)):
            each = []
            for seed in range(seeds):
                sae, trials = at_target(way, kind, rows, other, steps, seed, place)
                (judged,) = quality_report(model, {place: sae}, test)
                each.append({"explained_variance": judged.explained_variance,
                             "ce_recovered": judged.ce_recovered, "L0": judged.L0,
                             "dead": judged.dead_features, "trials": trials})
            found[kind][name] = each
            print(run, kind, name, [{key: round(value, 4) for key, value in one.items()
                                     if key != "trials"} for one in each],
                  [one["trials"][-1] for one in each], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--runs", nargs="*", default=["demo", "stories260k"])
    parser.add_argument("--kinds", nargs="*", default=list(ARCHITECTURES))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--tokens", type=int, default=200_000)
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    path = RESULTS / "sae_recipes.json"
    numbers: dict[str, Any] = json.loads(path.read_text())["numbers"] if path.is_file() else {}
    for run in given.runs:
        for kind in given.kinds:
            numbers.setdefault(run, {}).update(
                compare(run, given.data, [kind], given.steps, given.tokens, given.seeds))
            write("sae_recipes", {"width": WIDTH, "target_l0": TARGET, "batch": BATCH,
                                  "steps": given.steps, "tokens": given.tokens,
                                  "seeds": given.seeds}, numbers)


if __name__ == "__main__":
    main()
