"""Circuits among all active features of SmolLM2-135M, without a measured graph: how few features
keep a behaviour going, by a learned mask and by elimination, and do they steer?

`python benchmarks/smollm2_circuits.py --saes FOLDER` (SAEs of `benchmarks/smollm2_saes.py`) writes
`results/smollm2_circuits.json`; names after it do only these, the others stay as they are. Answers
are drawn from few names, countries or words, and every circuit is judged on prompts it was not
found on: other sentences about the same things. All prompts of a behaviour have one length, so
that what is left out has its mean at that position, not over all of them. The mask keeps an eighth
of the active features; elimination goes on among these, and, beside it, starts from all. Everything
outside is set to its mean. Steering: the circuit's features get the values that they have in the
counterfactual prompt; beside it random sets with as many features in each layer.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import RESULTS, write
from smollm2_behaviors import interchanged

from feature_interaction_graph.circuits.behaviors import MIN_ACCURACY, Behavior, behavior_report
from feature_interaction_graph.circuits.library import english_behavior
from feature_interaction_graph.circuits.masks import MaskSettings, learn_circuit
from feature_interaction_graph.circuits.scores import BehaviorModel, behavior_model
from feature_interaction_graph.circuits.search import eliminate
from feature_interaction_graph.circuits.validation import random_circuits, share_of
from feature_interaction_graph.config import Config
from feature_interaction_graph.loading import load_model_and_saes

# names, countries or words; how many prompts are drawn, of which those of one length are taken
DRAWN = {"ioi": (4, 64), "factual recall": (26, 250), "induction": (8, 500), "pronoun": (None, 220),
         "subject-verb agreement": (None, 64)}
PROMPTS, SHARE, RANDOM, STEPS = 40, 1 / 8, 5, 300


def prompts_of(name: str, tokenizer: Any) -> tuple[Behavior, Behavior]:
    "Those a circuit is found on, and others."
    n_words, n = DRAWN[name]
    drawn = english_behavior(name, tokenizer, n, n_words=n_words)
    lengths = np.array([len(tokenizer(prompt).input_ids) for prompt in drawn.prompts])
    most = np.bincount(lengths).argmax()
    same = np.flatnonzero(lengths == most)[:PROMPTS + 24].tolist()
    return drawn.take(same[:PROMPTS]), drawn.take(same[PROMPTS:])


def judged(on: BehaviorModel, ranking: list[int], sizes: list[int]) -> list[dict[str, Any]]:
    "Faithfulness of the first so many features and of as many at random, and what is left without."
    empty = on.values(on.nothing())[0]
    gap = float(on.clean.mean() - empty.mean())
    found = []
    for size in sizes:
        kept = on.nothing()[0].index_fill(0, torch.tensor(ranking[:size]), True)
        inside, without = on.values(torch.stack([kept, ~kept]))
        by_chance = (on.values(random_circuits(on, kept, RANDOM)).mean(1) - empty.mean()) / gap
        found.append({
            "size": size, "faithfulness": vars(share_of(inside, on.clean, empty)),
            "without": vars(share_of(without, on.clean, empty)), "random": by_chance.tolist(),
            "right": float(on.right(kept[None])[0])
        })
        print("  ", found[-1], flush=True)
    return found


def one_behavior(model: Any, saes: Any, name: str) -> dict[str, Any]:
    found, other = prompts_of(name, model.tokenizer)
    reports = {"found_on": behavior_report(model, found),
               "judged_on": behavior_report(model, other)}
    print(name, *reports.values(), flush=True)
    numbers: dict[str, Any] = {"n_words": DRAWN[name][0], "example": [found.prompts[0],
                                                                     found.answers[0]]}
    numbers |= {key: vars(report) | {"worst": report.worst} for key, report in reports.items()}
    if reports["found_on"].worst < MIN_ACCURACY: return numbers
    on, fresh = (behavior_model(model, saes, each) for each in (found, other))
    active = on.ablated.active()
    size = int(SHARE * active.sum())
    sizes = [size // 2**halving for halving in range(6)]
    begin = time.perf_counter()
    first = learn_circuit(on, active, size, MaskSettings(steps=STEPS), progress=False)
    mask = on.nothing()[0].index_fill(0, torch.tensor(first.ranking[:size]), True)
    then = eliminate(on, mask, steps=3, last=min(sizes))
    learned = time.perf_counter() - begin
    alone = eliminate(on, active, steps=3, last=min(sizes))
    eliminated = time.perf_counter() - begin - learned
    numbers |= {"n_active": int(active.sum()), "mask": size, "seconds_mask": learned,
                "seconds_elimination": eliminated}
    numbers["curve"] = judged(fresh, then.ranking, sizes)
    numbers["elimination alone"] = judged(fresh, alone.ranking, sizes)
    numbers["by_layer"] = {
        str(layer): sum(layer == each for each, _ in on.ablated.names(first.ranking[:size]))
        for layer in on.ablated.saes
    }
    enough = [row["size"] for row in numbers["curve"] if row["faithfulness"]["value"] >= 0.7]
    steered = min(enough, default=size)
    numbers["steering"] = {"size": steered} | interchanged(
        model, saes, on.ablated.names(then.ranking[:steered]), other)
    print("  steering:", numbers["steering"], flush=True)
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(DRAWN))
    parser.add_argument("--saes", type=Path, required=True)
    given = parser.parse_args()
    model, saes = load_model_and_saes(Config(model_name="smollm2-135m",
                                             sae_release=str(given.saes)))
    path = RESULTS / "smollm2_circuits.json"
    settings = {"prompts": PROMPTS, "held_out": 24, "share": SHARE, "steps": STEPS,
                "random": RANDOM}
    for name in given.names:
        new = {name: one_behavior(model, saes, name)}
        known = json.loads(path.read_text())["numbers"] if path.is_file() else {}
        write("smollm2_circuits", settings, {**known, **new})


if __name__ == "__main__":
    main()
