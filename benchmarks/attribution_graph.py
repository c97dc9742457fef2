"""Edges of all active features of one prompt: batches of targets through the frozen model against
one backward pass per target, and against a prompt that is repeated for every target of a batch.

`python benchmarks/attribution_graph.py` traces a prompt of the demo, once with the demo's own
residual-stream SAEs (one block between two of them: the closed form) and once with two of them left
out (two blocks: batched gradients). All ways give the same numbers, which is checked; the slow ones
are run on `--sample` targets of every layer and scaled up. Memory is counted: the bytes of all
tensors that a way has made and that are still alive, at worst, its graph of derivatives included.
"""
import argparse
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).parent))
from record import write

from feature_interaction_graph.config import Config
from feature_interaction_graph.loading import load_corpus, load_model_and_saes
from feature_interaction_graph.tracing.frozen import FrozenModel, Rows, run_frozen
from feature_interaction_graph.tracing.nodes import (
    Nodes, leaves_of, likely_tokens, nodes_of, rows_of, writers_of
)
from feature_interaction_graph.tracing.paths import GradientPaths, paths_to, positions_of

Way = Callable[[Rows], torch.Tensor]


class Prompt:
    "A prompt of `length` tokens of the demo's text, with the SAEs of `layers`."
    def __init__(self, length: int, layers: tuple[int, ...]) -> None:
        cfg = Config.preset("demo")
        model, saes = load_model_and_saes(cfg)
        tokens = load_corpus(cfg, model).tokens[:1, :length]
        self.frozen = FrozenModel(model, {layer: saes[layer] for layer in layers}, tokens)
        self.nodes: Nodes = nodes_of(self.frozen, likely_tokens(self.frozen.logits))
        self.writers = writers_of(self.frozen, self.nodes)

    def targets(self, layer: int) -> np.ndarray:
        "The active features of a layer."
        return np.flatnonzero((self.nodes.kind == 1) & (self.nodes.layer == layer))

    def contract(self, gradients: dict, edges: torch.Tensor, row: int) -> None:
        "The edges of one target from its gradients at every cut."
        for point, gradient in gradients.items():
            mine = self.writers[point]
            for position, some in positions_of(mine.position):
                edges[row, mine.node[some]] = mine.vector[some] @ gradient[position]

    def one_by_one(self, layer: int) -> Way:
        "One backward pass per target, on one graph that is kept."
        leaves = {point: leaf.requires_grad_(True)
                  for point, leaf in leaves_of(self.frozen, self.writers).items()}
        arrived = run_frozen(self.frozen, leaves, tangent=False)[layer]
        def way(rows: Rows) -> torch.Tensor:
            edges = torch.zeros(len(rows), len(self.nodes))
            for row in range(len(rows)):
                seed = torch.zeros_like(arrived)
                seed[rows.position[row]] = rows.vector[row]
                found = torch.autograd.grad(arrived, list(leaves.values()), seed,
                                            retain_graph=True, allow_unused=True)
                self.contract({point: each[0] for point, each in zip(leaves, found, strict=True)
                               if each is not None}, edges, row)
            return edges
        return way

    def repeated(self, layer: int, batch: int = 64) -> Way:
        "The prompt once for every target of a batch, one backward pass for all of them."
        frozen = self.frozen
        def way(rows: Rows) -> torch.Tensor:
            edges = torch.zeros(len(rows), len(self.nodes))
            for part in torch.arange(len(rows)).split(batch):
                size = len(part)
                tokens, frozen.tokens = frozen.tokens, frozen.tokens.expand(size, -1)
                leaves = {point: leaf.expand(size, -1, -1).clone().requires_grad_(True)
                          for point, leaf in leaves_of(frozen, self.writers).items()}
                arrived = arrivals(frozen, leaves, layer)
                frozen.tokens = tokens
                seed = torch.zeros_like(arrived)
                seed[torch.arange(size), rows.position[part]] = rows.vector[part]
                found = torch.autograd.grad(arrived, list(leaves.values()), seed,
                                            allow_unused=True)
                for point, gradient in zip(leaves, found, strict=True):
                    if gradient is None: continue
                    mine = self.writers[point]
                    for position, some in positions_of(mine.position):
                        edges[part[:, None], mine.node[some]] = (
                            gradient[:, position] @ mine.vector[some].T)
            return edges
        return way


def arrivals(frozen: FrozenModel, leaves: dict, layer: int) -> torch.Tensor:
    "What arrives where `layer` reads, for every copy of the prompt."
    from feature_interaction_graph.engine.hook_points import catch
    point = frozen.sites[layer].reader.hook_point
    # the cut stands at the same point and is made later, so what is caught first is what arrives
    with catch(frozen.layers, [point]) as caught: run_frozen(frozen, leaves, tangent=False)
    return caught[point.name]


def traced(prompt: Prompt, layer: int) -> Way:
    fast = paths_to(prompt.frozen, prompt.writers, layer)
    return lambda rows: fast.edges(rows, len(prompt.nodes))


def batched_gradients(prompt: Prompt, layer: int) -> Way:
    paths = GradientPaths(prompt.frozen, prompt.writers, layer)
    return lambda rows: paths.edges(rows, len(prompt.nodes))


WAYS: dict[str, Callable[[Prompt, int], Way]] = {
    "traced": traced, "batched gradients": batched_gradients, "one by one": Prompt.one_by_one,
    "prompt repeated": Prompt.repeated}


class Counted(TorchDispatchMode):
    """Bytes of the tensors that are made and still alive, within the context; `most`: at worst.
    What was there before is not counted."""
    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known = weakref.WeakKeyDictionary[Any, int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        old = {each.untyped_storage() for each in tree_leaves((args, kwargs))
               if isinstance(each, torch.Tensor)}
        for each in tree_leaves(found):
            if not isinstance(each, torch.Tensor): continue
            storage = each.untyped_storage()
            if storage in self.known or storage in old: continue
            self.known[storage] = size = storage.nbytes()
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self.freed, size)
        return found

    def freed(self, size: int) -> None: self.now -= size


def mebibytes(length: int, layers: tuple[int, ...], layer: int, n_targets: int = 256) -> dict:
    "What each way holds at most while it finds the edges of so many targets, its graph included."
    prompt, found = Prompt(length, layers), {}
    rows = rows_of(prompt.frozen, prompt.nodes, prompt.targets(layer)[:n_targets])
    for name, make in WAYS.items():
        with Counted() as counted: make(prompt, layer)(rows)
        found[name] = counted.most / 2**20
    return {**found, "edges themselves": len(rows) * len(prompt.nodes) * 4 / 2**20}


def measure(length: int, layers: tuple[int, ...], sample: int, memory: bool) -> dict:
    "Seconds of every way for all active features, as ratios to `traced`, and what they agree to."
    prompt, seconds, apart, counts = Prompt(length, layers), {}, {}, {}
    for layer in layers[1:]:
        every = prompt.targets(layer)
        chosen = np.random.default_rng(0).permutation(len(every))[:sample]
        rows = rows_of(prompt.frozen, prompt.nodes, every)
        few = rows.take(torch.as_tensor(np.sort(chosen)))
        here = {name: make(prompt, layer) for name, make in WAYS.items()}
        reference = here["one by one"](few)
        counts[layer] = len(every)
        for name, way in here.items():
            asked = rows if name in ("traced", "batched gradients") else few
            began = time.process_time()
            edges = way(asked)
            spent = (time.process_time() - began) * len(rows) / len(asked)
            seconds[name] = seconds.get(name, 0.0) + spent
            edges = edges[torch.as_tensor(np.sort(chosen))] if asked is rows else edges
            gap = float((edges - reference).abs().max() / reference.abs().max())
            apart[name] = max(apart.get(name, 0.0), gap)
    found = {"targets": counts, "nodes": len(prompt.nodes),
             "largest_difference": {name: gap for name, gap in apart.items()},
             "times_as_long_as_traced": {name: value / seconds["traced"]
                                         for name, value in seconds.items()}}
    assert all(gap < 1e-4 for gap in apart.values()), apart
    if memory:
        found["mebibytes_of_256_targets"] = held = mebibytes(length, layers, layers[-1])
        assert held["traced"] < held["prompt repeated"] / 2, held
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=96)
    parser.add_argument("--sample", type=int, default=48, help="targets per layer of slow ways")
    parser.add_argument("--no-memory", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    numbers = {name: measure(args.length, layers, args.sample, not args.no_memory)
               for name, layers in (("every layer", (0, 1, 2, 3, 4)), ("every other", (0, 2, 4)))}
    print(numbers)
    print(write("attribution_graph", vars(args), numbers))
