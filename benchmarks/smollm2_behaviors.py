"""Behaviours of real English in SmolLM2-135M: does the model have them, which features carry them,
how faithful are the circuits, and do they steer?

`python benchmarks/smollm2_behaviors.py --saes FOLDER` tries all ready-made English behaviours and
finds a circuit for each that the model has, in the SAEs that `benchmarks/smollm2_saes.py` trained;
names after it do only these, the others stay as they are in `results/smollm2_behaviors.json`. Every
circuit is judged on prompts it was not found on. Steering: the circuit's features get the values
that they have in the counterfactual prompt, everything else is left alone; beside it as many random
features of the same layers.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from behaviors import SHARE, TARGET, circuit_numbers
from record import RESULTS, write

from feature_interaction_graph.circuits.behaviors import MIN_ACCURACY, Behavior, behavior_report
from feature_interaction_graph.circuits.library import (
    ENGLISH_BEHAVIORS, held_out, predefined_behavior
)
from feature_interaction_graph.circuits.scores import behavior_model
from feature_interaction_graph.circuits.validation import random_circuits
from feature_interaction_graph.config import Config
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.engine.names import parse_feature_id
from feature_interaction_graph.loading import load_model_and_saes

RANDOM = 10                 # random circuits that a steered one is compared with


def interchanged(
    model: Any, saes: Any, features: list[tuple[int, int]], judged: Behavior
) -> dict[str, Any]:
    """The metric and the share of right answers where `features` have their values of the
    counterfactual prompt; `flip`: how far the metric moves towards that of a prompt in which all
    features have them."""
    on = behavior_model(model, saes, judged)
    circuit = on.ablated.mask(features)
    others = random_circuits(on, circuit, RANDOM)
    keep = torch.stack([torch.ones_like(circuit), ~circuit, torch.zeros_like(circuit)])
    whole, steered, all_of_them = on.values(keep, "resample").mean(1).tolist()
    by_chance = on.values(~others, "resample").mean(1)
    scale = whole - all_of_them
    return {"whole": whole, "steered": steered, "all_features": all_of_them,
            "flip": (whole - steered) / scale,
            "flip_of_random": ((whole - by_chance) / scale).tolist(),
            "right": on.right(keep, "resample").tolist()}


def one_behavior(model: Any, saes: Any, name: str, n_prompts: int, n_features: int
                 ) -> dict[str, Any]:
    try: found = predefined_behavior(name, model, n_prompts)
    except InputError as error: return {"reason": str(error)}
    report = behavior_report(model, found)
    print(report, flush=True)
    numbers: dict[str, Any] = {"report": vars(report) | {"worst": report.worst},
                               "example": [found.prompts[0], found.answers[0]]}
    if report.worst < MIN_ACCURACY: return numbers
    judged = held_out(name, model, found, n_prompts)
    try: numbers |= circuit_numbers(model, saes, found, judged, n_features, 0)
    except InputError as error: return numbers | {"reason": str(error)}
    features = [parse_feature_id(node["id"]) for node in numbers["nodes"]]
    numbers["steering"] = interchanged(model, saes, features, judged)
    print("  steering:", numbers["steering"], flush=True)
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(ENGLISH_BEHAVIORS))
    parser.add_argument("--saes", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--features", type=int, default=200, help="that a graph is measured of")
    given = parser.parse_args()
    cfg = Config(model_name="smollm2-135m", sae_release=str(given.saes))
    model, saes = load_model_and_saes(cfg)
    path = RESULTS / "smollm2_behaviors.json"
    settings = {"prompts": given.prompts, "features": given.features, "share": SHARE,
                "target": TARGET, "min_accuracy": MIN_ACCURACY, "random": RANDOM}
    for name in given.names:
        new = {name: one_behavior(model, saes, name, given.prompts, given.features)}
        known = json.loads(path.read_text())["numbers"] if path.is_file() else {}
        write("smollm2_behaviors", settings, {**known, **new})


if __name__ == "__main__":
    main()
