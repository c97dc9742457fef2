"""Edges of all active features of one prompt: in closed form through whole blocks, or by batches of
targets through the frozen model, against one backward pass per target, and against a prompt that is
repeated for every target of a batch.

`python benchmarks/attribution_graph.py` traces a prompt of the demo with the demo's own
residual-stream SAEs (one block between two of them), with two of them left out (two blocks), and
with the first and the last alone (four). All ways give the same numbers, which is checked; the slow
ones are run on `--sample` targets of every layer and scaled up. Seconds are processor seconds.

`multiplications` counts what each way multiplies, in matrix products, for all targets: what the
ratio of seconds can be at best on a machine that multiplies equally well in all of them. Through
one block a target needs one product for each source before it. Through k blocks the gradients of a
target at all positions before it have to pass k - 1 blocks, of which nothing but one matrix for
each position and pair of blocks, `d_model` wide, is left: this, and the Jacobians that the matrices
are made of, are the bound (`rows`, `jacobians`).

Memory is counted: the bytes of all tensors that a way has made and that are still alive, at worst,
its graph of derivatives included.
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
from torch.utils.flop_counter import FlopCounterMode

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


def multiplied(work: Callable[[], Any]) -> float:
    "Multiplications of the matrix products of some work, in billions."
    with FlopCounterMode(display=False) as counter: work()
    return counter.get_total_flops() / 2e9


def bound(prompt: Prompt, layer: int) -> dict[str, float]:
    """Multiplications, in billions, that are left when nothing is computed twice: the Jacobian of
    every block but the last at every position; the gradients of every target at every position up
    to its own through one matrix for each pair of blocks; each source read by each target once."""
    model, before = prompt.frozen.twin.config, [each for each in prompt.frozen.sites
                                                if each < layer][-1]
    k, width = layer - before, int(model.hidden_size)
    inner = int(model.n_inner or 4 * width)
    targets = prompt.nodes.position[prompt.targets(layer)]
    sources = prompt.writers[prompt.frozen.sites[before].reader.write_point].position.numpy()
    length, rows = prompt.frozen.tokens.shape[1], float((targets + 1).sum())
    pairs = float((sources[None] <= targets[:, None]).sum())
    return {"jacobians": (k - 1) * length * width * (2 * width * inner + width**2) / 1e9,
            "rows": k * (k - 1) / 2 * rows * width**2 / 1e9,
            "edges": k * pairs * width / 1e9}


def measure(length: int, layers: tuple[int, ...], sample: int, memory: bool) -> dict:
    "Seconds of every way for all active features, as ratios to `traced`, and what they agree to."
    prompt, seconds, apart, counts = Prompt(length, layers), {}, {}, {}
    products, least = dict[str, float](), dict[str, float]()
    for layer in layers[1:]:
        every = prompt.targets(layer)
        chosen = np.random.default_rng(0).permutation(len(every))[:sample]
        rows = rows_of(prompt.frozen, prompt.nodes, every)
        few = rows.take(torch.as_tensor(np.sort(chosen)))
        here = {name: make(prompt, layer) for name, make in WAYS.items()}
        reference = here["one by one"](few)
        counts[layer] = len(every)
        for part, value in bound(prompt, layer).items(): least[part] = least.get(part, 0.0) + value
        for name, way in here.items():
            asked = rows if name in ("traced", "batched gradients") else few
            began = time.process_time()
            edges = way(asked)
            spent = (time.process_time() - began) * len(rows) / len(asked)
            seconds[name] = seconds.get(name, 0.0) + spent
            again = WAYS[name](prompt, layer)            # maps that are there are not made again
            some = few.take(slice(0, 4)) if asked is few else rows
            count = multiplied(lambda again=again, some=some: again(some))
            products[name] = products.get(name, 0.0) + count * len(rows) / len(some)
            edges = edges[torch.as_tensor(np.sort(chosen))] if asked is rows else edges
            gap = float((edges - reference).abs().max() / reference.abs().max())
            apart[name] = max(apart.get(name, 0.0), gap)
    found = {"targets": counts, "nodes": len(prompt.nodes),
             "largest_difference": {name: gap for name, gap in apart.items()},
             "times_as_long_as_traced": {name: value / seconds["traced"]
                                         for name, value in seconds.items()}}
    assert all(gap < 1e-4 for gap in apart.values()), apart
    found["multiplications_in_billions"] = {**products, "bound": sum(least.values()), **least}
    found["times_as_many_as_bound"] = {name: value / sum(least.values())
                                       for name, value in products.items()}
    if memory:
        found["mebibytes_of_256_targets"] = held = mebibytes(length, layers, layers[-1])
        # through many blocks it is the maps between them that are held
        few_blocks = max(np.diff(layers)) <= 2
        assert held["traced"] < held["prompt repeated"] / (2 if few_blocks else 1), held
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
               for name, layers in (("every layer", (0, 1, 2, 3, 4)), ("every other", (0, 2, 4)),
                                    ("first and last", (0, 4)))}
    print(numbers)
    for name in ("every layer", "every other"):
        assert numbers[name]["times_as_long_as_traced"]["one by one"] >= 10, numbers[name]
    print(write("attribution_graph", vars(args), numbers))
