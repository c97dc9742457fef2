"""How the cost of a measurement grows with each of its sizes.

`python benchmarks/scaling.py` clamps sources of a small random transformer and reads every feature
of later layers, with one size doubled twice while the others stay: sources, samples, target layers
(the window), context length at the same number of tokens, features of a dictionary at the same
number of firings a position, tokens. Seconds are those of the processor, by stage: scanning the
text, pushing, reading (products, tests, rows that are significant). The exponent is the slope of
ln(seconds) over ln(size) by least squares over the three sizes; every repeat gives one, of all
sizes in turn, and the spread is their standard deviation. The fixed part of a cost lowers it.
"""

import argparse
import time
from typing import Any

import numpy as np
import torch
from record import write
from transformers import AutoModelForCausalLM, GPT2Config
from whole_dictionaries import random_sae

from feature_interaction_graph.engine.corpus import as_corpus
from feature_interaction_graph.engine.residuals import clean_residuals
from feature_interaction_graph.measurement.blocks import RunSettings, gather_block, read_block
from feature_interaction_graph.measurement.prepared import prepare
from feature_interaction_graph.measurement.question import Question

LAYERS, D_MODEL, FIRES, SOURCE = 6, 128, 32, 1
BASE = {"sources": 32, "samples": 16, "window": 1, "context": 64, "dictionary": 1024,
        "tokens": 16_384}
STAGES = ("scanning", "pushing", "reading")


def model_of() -> torch.nn.Module:
    "A random transformer."
    torch.manual_seed(0)
    shape = dict(n_layer=LAYERS, n_embd=D_MODEL, n_head=4, n_positions=512, vocab_size=512)
    config = GPT2Config(bos_token_id=0, eos_token_id=0, **shape)
    return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def seconds_of(model: torch.nn.Module, size: dict[str, int]) -> dict[str, float]:
    "Seconds of each stage at one size."
    torch.manual_seed(1)
    corpus = as_corpus(torch.randint(1, 512, (size["tokens"] // size["context"], size["context"])))
    later = list(range(SOURCE + 1, SOURCE + 1 + size["window"]))
    points = {layer: f"blocks.{layer}.hook_resid_pre" for layer in (SOURCE, *later)}
    streams = clean_residuals(model, corpus.tokens[:2048 // size["context"]], list(points.values()))
    saes = {layer: random_sae(layer, streams[point].flatten(0, 1), size["dictionary"], FIRES)
            for layer, point in points.items()}
    question = Question({SOURCE: np.arange(size["sources"])}, dict.fromkeys(later),
                        {SOURCE: later}, n_samples=size["samples"], keep="significant")
    settings, marks = RunSettings(), [time.process_time()]
    prepared = prepare(model, saes, corpus, question, settings.batch_size, False)
    marks.append(time.process_time())
    block = {SOURCE: prepared.measurable[SOURCE]}
    assert len(block[SOURCE]) == size["sources"]
    gathered = gather_block(prepared, block, settings)
    marks.append(time.process_time())
    read_block(prepared, block, gathered, {})
    marks.append(time.process_time())
    return dict(zip(STAGES, np.diff(marks).tolist(), strict=True))


def exponents(rounds: list[list[dict[str, float]]], steps: tuple[int, ...]) -> dict[str, Any]:
    "Of each stage and of all: the mean of the slopes of the rounds, and their spread."
    found = {}
    for stage in (*STAGES, "all"):
        seconds = np.array([[sum(row.values()) if stage == "all" else row[stage] for row in round_]
                            for round_ in rounds])
        slopes = np.polyfit(np.log(steps), np.log(seconds).T, 1)[0]
        found[stage] = {"exponent": float(slopes.mean()), "spread": float(slopes.std(ddof=1)),
                        "seconds": np.median(seconds, axis=0).tolist()}
    return found


def main() -> None:
    "Measures and writes the numbers."
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--repeats", type=int, default=4)
    repeats, steps, model = asked.parse_args().repeats, (1, 2, 4), model_of()
    seconds_of(model, BASE)                   # what is loaded once
    rounds: dict[str, list[list[dict[str, float]]]] = {name: [] for name in BASE}
    for number in range(repeats):
        for name, base in BASE.items():
            rounds[name].append([seconds_of(model, {**BASE, name: base * step}) for step in steps])
            print(number, name, rounds[name][-1], flush=True)
    write("scaling", {"base": BASE, "steps": steps, "repeats": repeats, "layers": LAYERS,
                      "d_model": D_MODEL, "fires": FIRES},
          {name: exponents(found, steps) for name, found in rounds.items()})


if __name__ == "__main__": main()
