"""The MNIST system on real digits: accuracy kept with an SAE in the way, at the number of active
latents that was asked for.

`python benchmarks/mnist.py --train FILE --test FILE` (each an .npz file with x and y; or `--data`,
a folder with MNIST's four files) trains a classifier and an SAE for every kind and seed, then SAEs
for other targets, and writes `results/mnist.json`. `--work FOLDER` keeps what is done, so that an
interrupted run goes on. `--compare` adds the same with BatchTopK, which trains dead latents on what
is left over, to the file that is there; `--resample`, the same with dead latents started anew;
`--calibration` measures the other targets again.
"""

import argparse
import itertools
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import RESULTS, write

from feature_interaction_graph.digits.classifier import (
    DigitClassifier, accuracy, load_classifier, save_classifier, train_classifier
)
from feature_interaction_graph.digits.dictionary import fidelity, hidden_sae
from feature_interaction_graph.digits.features import feature_bank, logit_effects
from feature_interaction_graph.digits.images import DigitSet, read_digits
from feature_interaction_graph.training.saes import SaeSettings, read_sae
from feature_interaction_graph.training.thresholds import calibrate_thresholds, measured_l0

TARGETS = (5, 10, 20, 40, 80)
N_CALIBRATION = 1500     # training digits that nothing is trained on


def classifier(work: Path, digits: DigitSet, kind: str, seed: int, steps: int) -> DigitClassifier:
    "Trained, or as an earlier run left it."
    path = work / f"{kind}_{seed}.safetensors"
    if path.is_file(): return load_classifier(path)
    model = train_classifier(digits, kind, steps=steps, seed=seed)
    save_classifier(model, path)
    return model


def judged(
    model: DigitClassifier, sets: tuple[DigitSet, DigitSet, DigitSet], target: float,
    settings: SaeSettings
) -> tuple[Any, dict[str, Any]]:
    "An SAE, and what it keeps on test digits."
    train, calibration, test = sets
    started = time.process_time()
    sae = hidden_sae(model, train, calibration, test, target, settings)
    seconds = time.process_time() - started
    found = fidelity(model, sae, test, train)
    numbers = {**vars(found), "lost_points": 100 * found.lost,
               "lost_points_boolean": 100 * (found.baseline - found.boolean),
               "lost_points_boolean_plain": 100 * (found.baseline - found.boolean_plain),
               "sparsity": sae.cfg.metadata.sparsity, "cpu_seconds": seconds}
    return sae, numbers


def of_features(model: DigitClassifier, sae: Any, test: DigitSet) -> dict[str, Any]:
    "How many features prefer a digit, and whether the logit they raise is that digit's."
    bank, effects = feature_bank(model, sae, test), logit_effects(model, sae, test)
    sure = (bank.q_values.min(1) < 0.01) & (bank.rate > 0)
    same = bank.mode[sure] == effects.boosted.numpy()[sure]
    return {"live": int((bank.rate > 0).sum()), "prefer_a_digit": int(sure.sum()),
            "raise_the_digit_they_fire_on": float(same.mean())}


def spread(rows: list[dict[str, Any]], name: str) -> dict[str, float]:
    "Mean and standard deviation over seeds."
    values = [row[name] for row in rows]
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)),
            "worst": float(max(values))}


NAMES = ("baseline", "lost_points", "lost_points_boolean", "lost_points_boolean_plain", "L0",
         "explained_variance", "boolean_explained_variance", "cpu_seconds")


def cell(
    work: Path, sets: tuple[DigitSet, DigitSet, DigitSet], kind: str, target: float, steps: int,
    settings: SaeSettings
) -> dict[str, Any]:
    "One SAE of one classifier, as it is judged here or was by an earlier run."
    other = "" if settings.architecture == "jumprelu" else f"_{settings.architecture}"
    if settings.resample: other += f"_anew_{settings.resample}"
    place = work / f"{kind}_{settings.seed}_{target}{other}"
    kept = place.with_suffix(".json")
    if not (kept.is_file() and place.is_dir()):
        model = classifier(work, sets[0], kind, settings.seed, steps)
        sae, numbers = judged(model, sets, target, settings)
        numbers["features"] = of_features(model, sae, sets[2])
        numbers["validation"] = accuracy(model, sets[1])
        sae.save_model(place)
        kept.write_text(json.dumps(numbers))
        print(kind, settings.seed, target, settings.architecture, f"{numbers['baseline']:.4f} lost "
              f"{numbers['lost_points']:.2f} points, boolean "
              f"{numbers['lost_points_boolean']:.2f}, L0 {numbers['L0']:.2f}, dead "
              f"{numbers['report']['dead']}", flush=True)
    return json.loads(kept.read_text())


def calibrated(
    work: Path, sets: tuple[DigitSet, DigitSet, DigitSet], found: dict[str, Any], target: float
) -> dict[str, Any]:
    """How far from `target` an SAE ends, its thresholds set on digits that nothing was trained on,
    and on all training digits."""
    model, sae = load_classifier(work / "relu_0.safetensors"), read_sae(work / f"relu_0_{target}")
    train, calibration, test = (model.hidden(digits.pixels).detach() for digits in sets)
    l0 = measured_l0(calibrate_thresholds(sae, torch.cat([train, calibration]), target), test)
    names = ("l0_trained", "l0_calibration", "l0_held_out", "relative_error", "standard_error",
             "trials")
    return {"target": target, **{name: found["sparsity"][name] for name in names},
            "relative_error_of_all": l0 / target - 1, "lost_points": found["lost_points"],
            "explained_variance": found["explained_variance"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--train", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2500, help="of the classifier")
    parser.add_argument("--sae-steps", type=int, default=800)
    parser.add_argument("--kinds", nargs="+", default=["relu", "geglu"])
    parser.add_argument("--compare", action="store_true", help="Only the same with BatchTopK.")
    parser.add_argument("--calibration", action="store_true", help="Only other numbers of latents.")
    parser.add_argument("--resample", action="store_true",
                        help="Only the same with dead latents started anew.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.work.mkdir(parents=True, exist_ok=True)
    every = read_digits(given.train or given.data, "train")
    # some copies are sorted by digit
    every = every.take(torch.randperm(len(every), generator=torch.Generator().manual_seed(0)))
    test = read_digits(given.test or given.data, "test")
    sets = every.take(slice(0, -N_CALIBRATION)), every.take(slice(-N_CALIBRATION, None)), test
    base = SaeSettings("jumprelu", width=512, steps=given.sae_steps, batch_size=512, lr=2e-3,
                       progress=False)
    kinds, seeds = given.kinds, range(given.seeds)
    ways = {"batchtopk": {"architecture": "batchtopk"}} if given.compare else {}
    if given.resample: ways["resampled"] = {"resample": 4}
    if ways:
        before = json.loads((RESULTS / "mnist.json").read_text())
        table = before["numbers"]
        for (way, change), kind in itertools.product(ways.items(), kinds):
            rows = [cell(given.work, sets, kind, 20, given.steps, replace(
                base, seed=seed, **change)) for seed in seeds]
            table[way] = table.get(way, {}) | {
                kind: {name: spread(rows, name) for name in NAMES} | {"seeds": rows}}
        print(write("mnist", before["settings"], table))
        return
    if given.calibration:
        before = json.loads((RESULTS / "mnist.json").read_text())
        before["numbers"]["calibration"] = [
            calibrated(given.work, sets, cell(given.work, sets, "relu", target, given.steps, base),
                       target) for target in TARGETS]
        print(write("mnist", before["settings"], before["numbers"]))
        return
    cells = [(kind, seed, 20) for kind in kinds for seed in seeds]
    cells += [("relu", 0, target) for target in TARGETS if target != 20]
    found = {(kind, seed, target): cell(given.work, sets, kind, target, given.steps, replace(
        base, seed=seed)) for kind, seed, target in cells}
    numbers: dict[str, Any] = {}
    for kind in kinds:
        rows = [found[kind, seed, 20] for seed in seeds]
        numbers[kind] = {name: spread(rows, name) for name in NAMES}
        numbers[kind]["seeds"] = rows
    numbers["calibration"] = [calibrated(given.work, sets, found["relu", 0, target], target)
                              for target in TARGETS]
    settings = {"seeds": given.seeds, "steps": given.steps, "sae_steps": given.sae_steps,
                "width": 128, "latents": 512, "architecture": "jumprelu",
                "train": len(sets[0]), "calibration": len(sets[1]), "test": len(test)}
    print(write("mnist", settings, numbers))


if __name__ == "__main__":
    main()
