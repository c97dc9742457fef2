"""What it costs to count which features fire together, with every feature of the dictionaries.

`python benchmarks/atlas_at_size.py` makes a store of random firings whose
frequencies follow Zipf's law, 60 a position, where half of what fires in a layer fired in the layer
before; then counts all pairs of neighbouring layers. In the same run, on the same firings held in
memory: scipy's two sparse products of each pair, one that counts and one that adds up activations,
without the sorting, sharing out and summaries that make an atlas of them; and the counting as it
was before, in dense blocks of 256 MiB for which the store is read again and again. Seconds are
those of the processor; memory is the peak of the process above what it held before.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.sparse
import torch

sys.path.insert(0, str(Path(__file__).parent))
from graph_files import settled, status
from record import write

from feature_interaction_graph.coactivation import build_coactivation_atlas
from feature_interaction_graph.config import Config
from feature_interaction_graph.dictionary.store import ActivationStore, FiringBlock, write_store
from feature_interaction_graph.engine.corpus import Corpus

FIRES, ROWS, DENSE = 60, 8192, 2**28


def firings(tokens: int, width: int, layers: int) -> Iterator[list[FiringBlock]]:
    "Blocks of positions: what fires in each layer."
    rng = np.random.default_rng(0)
    shares = 1 / (np.arange(width) + 10.0)
    ends = np.cumsum(shares / shares.sum())
    orders = [rng.permutation(width) for _ in range(layers)]
    for start in range(0, tokens, ROWS):
        n = min(ROWS, tokens - start)
        ranks, blocks = rng.random((n, FIRES + 4)), []
        for order in orders:
            again = rng.random(ranks.shape) < 0.5
            ranks = np.where(again, ranks, rng.random(ranks.shape))
            features = np.sort(order[np.minimum(np.searchsorted(ends, ranks), width - 1)], axis=1)
            once = np.diff(features, axis=1, prepend=-1) != 0
            row, feature = np.nonzero(once)[0], features[once]
            value = torch.from_numpy(rng.gamma(2.0, 1.0, len(row)) + 0.01).float()
            blocks.append(FiringBlock(n, torch.from_numpy(row), torch.from_numpy(feature), value))
        yield blocks


def make(path: Path, tokens: int, width: int, layers: int) -> ActivationStore:
    "A store of those firings."
    corpus = Corpus(torch.ones(tokens // 100, 100, dtype=torch.int64),
                    torch.full((tokens // 100,), 100), starts_with_bos=False)
    names = {layer: (f"blocks.{layer}.hook_resid_pre", width) for layer in range(layers)}
    with write_store(path, corpus, names) as writers:
        for blocks in firings(corpus.n_tokens, width, layers):
            for layer, block in enumerate(blocks): writers[layer].add(block)
    return ActivationStore.open(path)


def dense_blocks(store: ActivationStore, a: int, b: int) -> int:
    "As before: blocks of sources, dense against all targets. Returns the pairs that were counted."
    here = np.flatnonzero(store.statistics(a)["count"])
    later = np.flatnonzero(store.statistics(b)["count"])
    size, found = max(1, DENSE // (16 * len(later))), 0
    for first in range(0, len(here), size):
        some = here[first:first + size]
        counts, sums = (np.zeros((len(some), len(later)), kind) for kind in (np.int64, np.float64))
        for start in range(0, store.n_tokens, 16_384):
            fires = (store.csr(a, start, start + 16_384)[:, some] != 0).astype(np.float64)
            values = store.csr(b, start, start + 16_384)[:, later].astype(np.float64)
            for into, factor in ((counts, (values != 0).astype(np.float64)), (sums, values)):
                product = (fires.T.tocsr() @ factor).tocoo()
                into[product.row, product.col] += product.data.astype(into.dtype)
        places = counts.nonzero()
        found += scipy.sparse.csr_matrix((sums[places], places), shape=sums.shape).nnz
    return found


def main() -> None:
    "Measures and writes the numbers."
    asked = argparse.ArgumentParser()
    for name, default in (("tokens", 20_000), ("width", 8192), ("layers", 3)):
        asked.add_argument(f"--{name}", type=int, default=default)
    options = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = make(Path(folder) / "store.h5", options.tokens, options.width, options.layers)
        numbers: dict[str, float] = {"store_bytes": store.path.stat().st_size}
        numbers["firings"] = sum(int(store.statistics(layer)["count"].sum())
                                 for layer in store.layers)
        numbers["store_bytes_per_firing"] = round(numbers["store_bytes"] / numbers["firings"], 2)
        before, start = settled(), time.process_time()
        Path("/proc/self/clear_refs").write_text("5")
        atlas = build_coactivation_atlas(store, Config(layer_window=1), max_features=options.width,
                                         progress=False)
        numbers["atlas_seconds"] = round(time.process_time() - start, 2)
        numbers["atlas_peak_mb"] = round((status("VmHWM") - before) / 1e6)
        atlas.save(Path(folder) / "atlas.h5")
        numbers["atlas_bytes"] = (Path(folder) / "atlas.h5").stat().st_size
        numbers["pairs_of_features"] = sum(counts.nnz for counts in atlas.counts.values())
        numbers["atlas_bytes_per_pair"] = round(
            numbers["atlas_bytes"] / numbers["pairs_of_features"], 2)
        numbers |= dict.fromkeys(("scipy_counts_seconds", "scipy_seconds", "before_seconds"), 0.0)
        for a, b in atlas.layer_pairs:
            left, right = ((store.csr(layer) != 0).astype(np.int32) for layer in (a, b))
            start = time.process_time()
            product = left.T.tocsr() @ right
            numbers["scipy_counts_seconds"] += round(time.process_time() - start, 2)
            sums = left.T.tocsr().astype(np.float64) @ store.csr(b).astype(np.float64)
            numbers["scipy_seconds"] += round(time.process_time() - start, 2)
            assert sums.nnz == product.nnz
            kept = atlas.layers[a].features, atlas.layers[b].features
            assert (product[kept[0]][:, kept[1]] != atlas.counts[a, b]).nnz == 0
            del product, sums, left, right
            start = time.process_time()
            assert dense_blocks(store, a, b) == atlas.counts[a, b].nnz
            numbers["before_seconds"] += round(time.process_time() - start, 2)
        for name in ("scipy", "before"):
            numbers[f"atlas_over_{name}"] = round(
                numbers["atlas_seconds"] / numbers[f"{name}_seconds"], 2)
    print(numbers)
    write("atlas_at_size", {**vars(options), "fires": FIRES,
                            "layer_pairs": options.layers - 1}, numbers)


if __name__ == "__main__": main()
