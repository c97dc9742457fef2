"""Patching by rows against a plain hook loop: same model, same pairs, same numbers, one run.

`python benchmarks/patching_speed.py [--quick]` writes `results/patching_speed.json`. Two sweeps:

- every head at every position, against one whole forward pass of all pairs for each (the manner of
  TransformerLens's `get_act_patch_attn_head_out_by_pos`);
- paths from every head into the queries, keys and values of every later head, each alone, against
  the definition: one pass for each sender, all other heads and MLPs overwritten by hooks, and one
  for each path.

Times are processor seconds of this process, on one thread, so that other work on the machine counts
little, recording and checks included. Differences are relative to the metric. Pairs: the demo's
agreement set, which differs late in the prompt; a larger random model on pairs that differ late, as
most published sets do; and on pairs that differ in the second token, where rows save least.
`bound`: how large a ratio could be at most, by the arithmetic that cannot be saved (see `bounds`).
"""
import argparse
import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from record import write
from transformers import AutoModelForCausalLM, GPT2Config

from feature_interaction_graph.config import Config
from feature_interaction_graph.engine.hook_points import (
    HookPoint, decoder_layers, edit, map_block, model_output, plain_twin
)
from feature_interaction_graph.loading import load_model_and_saes
from feature_interaction_graph.patching.activation import activation_patching
from feature_interaction_graph.patching.components import PairRuns
from feature_interaction_graph.patching.pairs import PromptPairs
from feature_interaction_graph.patching.paths import path_patching
from feature_interaction_graph.patching.sets import named_pairs


def scored(runs: PairRuns) -> np.ndarray:
    "The metric of every pair in a whole pass under the hooks of the moment, less that of the base."
    logits = model_output(runs.engine.twin, runs.base).logits
    last = logits[torch.arange(len(runs)), runs.lengths - 1]
    return (runs.metric(last) - runs.values).numpy()


@torch.no_grad()
def plain_sweep(model: Any, pairs: PromptPairs) -> np.ndarray:
    "Every head at every position, one whole pass each."
    runs = PairRuns(model, pairs, direction="noising")
    layers, n_heads = decoder_layers(runs.engine.twin), runs.engine.twin.config.n_head
    found = np.zeros((len(layers) * n_heads, runs.base.shape[1], len(runs)))
    for layer in range(len(layers)):
        point = HookPoint("z", layer)
        lent = runs.streams(point, other=True)
        size = lent.shape[-1] // n_heads
        for head in range(n_heads):
            columns = slice(head * size, head * size + size)
            for position in range(runs.base.shape[1]):
                def exchange(z: torch.Tensor, at: int = position, columns: slice = columns,
                             lent: torch.Tensor = lent) -> torch.Tensor:
                    z = z.clone()
                    z[:, at, columns] = lent[:, at, columns]
                    return z
                with edit(layers, point, exchange):
                    found[layer * n_heads + head, position] = scored(runs)
    return found


@torch.no_grad()
def plain_paths(model: Any, pairs: PromptPairs) -> np.ndarray:
    """Every head into the queries, keys or values of every later head: one whole pass for each
    sender, in which all projections are kept, and one for each path."""
    runs = PairRuns(model, pairs, direction="noising")
    layers, n_heads = decoder_layers(runs.engine.twin), runs.engine.twin.config.n_head
    size = runs.engine.twin.config.n_embd // n_heads
    projections = [map_block(layer).attention.c_attn for layer in layers]
    ends = receivers(len(layers), n_heads)
    found = np.zeros((n_heads * (len(layers) - 1), len(ends), len(runs)))
    # before any hook is there
    own = {HookPoint(kind, layer): runs.streams(HookPoint(kind, layer))
           for layer in range(len(layers)) for kind in ("z", "mlp_out")}
    lent = {layer: runs.streams(HookPoint("z", layer), other=True) for layer in range(len(layers))}
    for sender in range(len(found)):
        kept: dict[Any, torch.Tensor] = {}
        layer, at = sender // n_heads, sender % n_heads * size
        fixed = own[HookPoint("z", layer)].clone()
        fixed[..., at:at + size] = lent[layer][..., at:at + size]
        with contextlib.ExitStack() as hooks:
            for module in projections:
                hooks.callback(module.register_forward_hook(
                    lambda module, args, output, kept=kept: kept.update({module: output})).remove)
            for point, value in {**own, HookPoint("z", layer): fixed}.items():
                hooks.enter_context(edit(layers, point, lambda _, value=value: value))
            model_output(runs.engine.twin, runs.base)
        for column, (block, head, part) in enumerate(ends):
            if block <= layer: continue
            begin = ("qkv".index(part) * n_heads + head) * size
            def put(module: Any, args: Any, output: torch.Tensor, begin: int = begin,
                    kept: dict[Any, torch.Tensor] = kept) -> torch.Tensor:
                output = output.clone()
                output[..., begin:begin + size] = kept[module][..., begin:begin + size]
                return output
            handle = projections[block].register_forward_hook(put)
            found[sender, column] = scored(runs)
            handle.remove()
    return found


def receivers(n_layers: int, n_heads: int) -> list[tuple[int, int, str]]:
    "Queries, keys and values of every head after the first block."
    return [(block, head, part) for block in range(1, n_layers) for head in range(n_heads)
            for part in "qkv"]


def row_sweep(model: Any, pairs: PromptPairs) -> np.ndarray:
    return activation_patching(model, pairs, "head", direction="noising").effects


def row_paths(model: Any, pairs: PromptPairs) -> np.ndarray:
    config = plain_twin(model).config
    n_heads, ends = config.n_head, receivers(config.n_layer, config.n_head)
    found = np.zeros((n_heads * (config.n_layer - 1), len(ends), len(pairs)))
    for block in range(1, config.n_layer):
        senders = [f"head {layer}.{head}" for layer in range(block) for head in range(n_heads)]
        mine = [column for column, end in enumerate(ends) if end[0] == block]
        names = [f"head {ends[column][0]}.{ends[column][1]} {ends[column][2]}" for column in mine]
        found[:len(senders), mine] = path_patching(model, pairs, senders, names).effects
    return found


def compared(
    plain: Callable, rows: Callable, model: Any, pairs: PromptPairs
) -> dict[str, float]:
    "Processor seconds of both, their ratio, and how far the numbers are apart."
    seconds, results = [], []
    for way in (plain, rows):
        begun = time.process_time()
        results.append(way(model, pairs))
        seconds.append(time.process_time() - begun)
    scale = float(PairRuns(model, pairs).values.abs().max())
    apart = float(np.abs(results[0] - results[1]).max()) / scale
    slow, fast = seconds
    return {"plain_s": round(slow, 3), "rows_s": round(fast, 3), "ratio": round(slow / fast, 1),
            "largest_difference": apart, "n_effects": int(results[0].size)}


def bounds(
    first: list[int], length: int, n_layers: int, n_heads: int, width: float
) -> dict[str, float]:
    """How many times less arithmetic than whole passes an exact answer needs, for both sweeps: the
    largest ratio that any way of recomputing what changes can have. `first`: where each pair
    begins to differ; `width`: size of the vocabulary over that of the stream.

    Products with weights alone, in units of the stream's width squared; a block has 12: queries,
    keys, values and output matrix 1 each, the MLP 8. What cannot be saved: a patched head at one
    position changes one position of its own block and all later positions of later blocks; of the
    last block only keys and values are needed but for the last position, whose logits are asked.
    """
    def after(block: int, n: int) -> float:
        "Blocks after `block` at n positions, and the logits of the last."
        later = n_layers - 1 - block
        return width + (12 * n * (later - 1) + 2 * n + 10 if later else 0)
    whole = length * (12 * n_layers + width)
    sweep = paths = n_paths = 0.0
    for begin in first:
        for block in range(n_layers - 1):
            sweep += sum(9 + after(block, length - at) for at in range(begin, length))
        sweep += 9 + width
        for block in range(1, n_layers):
            n = length - begin if block < n_layers - 1 else 1
            paths += block * (n * (8 + 1 / n_heads) + after(block, length - begin))
            n_paths += block
    return {"heads by position": len(first) * n_layers * length * whole / sweep,
            "paths": n_paths * whole / paths}


def id_pairs(n: int, length: int, at: int, n_vocab: int) -> PromptPairs:
    "Pairs of random tokens that differ in the token at `at`."
    clean = torch.randint(3, n_vocab, (n, length), generator=torch.Generator().manual_seed(0))
    corrupted = clean.clone()
    corrupted[:, at] = 3 + (clean[:, at] + 7) % (n_vocab - 3)
    return PromptPairs(clean.tolist(), corrupted.tolist(), [5] * n, [9] * n)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the demo alone, once; not written")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    demo, _ = load_model_and_saes(Config.preset("demo"))
    torch.manual_seed(0)
    sizes = {"n_layer": 6, "n_embd": 256, "n_head": 4, "n_positions": 32, "vocab_size": 2000}
    larger = AutoModelForCausalLM.from_config(GPT2Config(**sizes)).eval().requires_grad_(False)
    for parameter in larger.parameters():
        if parameter.ndim > 1: parameter.data *= 3      # attention far from uniform
    cases = {
        "demo, agreement": (demo, named_pairs("agreement", demo, 16)),
        "6 layers, differing late": (larger, id_pairs(8, 16, 10, 2000)),
        "6 layers, differing early": (larger, id_pairs(8, 16, 1, 2000)),
    }
    numbers = {}
    for name, (model, pairs) in cases.items():
        if quick and model is not demo: continue
        runs, config = PairRuns(model, pairs), plain_twin(model).config
        most = bounds(runs.first.tolist(), runs.base.shape[1], config.n_layer, config.n_head,
                      config.vocab_size / config.n_embd)
        ways = {"heads by position": (plain_sweep, row_sweep), "paths": (plain_paths, row_paths)}
        numbers[name] = {
            asked: {**compared(*both, model, pairs), "bound": round(most[asked], 1)}
            for asked, both in ways.items()
        }
        print(name, numbers[name], flush=True)
    settings = {"larger": sizes, "pairs": 16, "larger_pairs": 8}
    if not quick: write("patching_speed", settings, numbers)
