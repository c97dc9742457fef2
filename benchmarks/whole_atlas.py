"""What an index and the notable pairs of whole dictionaries cost, in seconds, memory and bytes.

`python benchmarks/whole_atlas.py --tokens 1000000 --layers 2 --window 1` makes a store of random
firings (see `atlas_at_size`): 60 a position, frequencies by Zipf's law, half of what fires in a
layer fired in the layer before. It is indexed, and every pair of features of every pair of layers
is counted and judged. At the same time, in a process of its own so that whatever else the machine
does slows both, on the same firings held in memory: scipy's sparse product of the first pair of
layers, which counts and does nothing else, 512 sources at a time (the whole product would not fit
into memory); one block in sixteen is compared count by count. Every run adds its size to
`results/whole_atlas.json`. Seconds are those of the processor; memory is the peak of the process,
libraries and all.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from atlas_at_size import FIRES, make
from graph_files import settled, status
from record import RESULTS, write

from feature_interaction_graph.config import Config
from feature_interaction_graph.dictionary.cofirings import joint_counts
from feature_interaction_graph.dictionary.by_feature import (
    IndexedStore, index_store, where_it_fires
)
from feature_interaction_graph.measurement.indexed_atlas import find_notable_pairs, index_atlas

AT_ONCE, COMPARED = 512, 16


class Stage:
    "Seconds of the processor and the peak of memory of what is done inside."
    def __init__(self, numbers: dict[str, float], name: str) -> None:
        self.numbers, self.name = numbers, name

    def __enter__(self) -> None:
        settled()
        Path("/proc/self/clear_refs").write_text("5")
        self.start = time.process_time()

    def __exit__(self, *_: object) -> None:
        self.numbers[f"{self.name}_seconds"] = round(time.process_time() - self.start, 2)
        self.numbers[f"{self.name}_peak_mb"] = round(status("VmHWM") / 1e6)
        print(self.name, self.numbers[f"{self.name}_seconds"], flush=True)


def ones(matrix: Any) -> scipy.sparse.csr_matrix:
    "The same pattern, each number 1."
    return scipy.sparse.csr_matrix((np.ones(matrix.nnz, np.int32), matrix.indices, matrix.indptr),
                                   shape=matrix.shape)


def by_scipy(store: IndexedStore, a: int, b: int) -> dict[str, float]:
    "Counts the pairs of two layers by scipy's product."
    columns, rows = store.columns(a, 0, store.widths[a]), store.csr(b)
    left, right = ones(columns.T), ones(rows)
    seconds = pairs = 0.0
    for number, first in enumerate(range(0, left.shape[0], AT_ONCE)):
        start = time.process_time()
        product = left[first:first + AT_ONCE] @ right
        seconds += time.process_time() - start
        pairs += product.nnz
        if number % COMPARED == 0:
            counts = joint_counts(columns[:, first:first + AT_ONCE], rows)
            assert np.array_equal(product.toarray(), counts)
    return {"scipy_seconds_first_pair": round(seconds, 2), "pairs_that_fire_together": pairs}


def found_fast(store: IndexedStore, numbers: dict[str, float]) -> None:
    "Seconds to read where one feature fires, from the index and by a pass over the layer."
    layer = store.layers[0]
    feature = int(np.argsort(store.statistics(layer)["count"])[store.widths[layer] // 2])
    for name, read in (("index", lambda: where_it_fires(store, layer, feature)),
                       ("pass", lambda: super(IndexedStore, store).column(layer, feature))):
        read()
        start = time.process_time()
        read()
        numbers[f"one_feature_by_{name}_seconds"] = round(time.process_time() - start, 4)


def judged(
    indexed: IndexedStore, options: argparse.Namespace, pairs_path: Path
) -> dict[str, float]:
    "The numbers of counting and judging, and of scipy's product beside it."
    numbers: dict[str, float] = {}
    cfg = Config(layer_window=options.window)
    with Stage(numbers, "marginals"): atlas = index_atlas(indexed, cfg)
    first = map(str, atlas.layer_pairs[0])
    beside = subprocess.Popen([sys.executable, __file__, "--product", str(indexed.path), *first],
                              stdout=subprocess.PIPE, text=True)
    with Stage(numbers, "pairs"):
        pairs = find_notable_pairs(atlas, cfg, pairs_path, max_bytes=options.max_bytes,
                                   progress=False)
    numbers |= json.loads(beside.communicate()[0])
    numbers |= {"layer_pairs": len(atlas.layer_pairs),
                "judged": sum(len(atlas.layers[a].features) * len(atlas.layers[b].features)
                              for a, b in atlas.layer_pairs),
                "notable": sum(pairs.found.values()), "left_out": pairs.left_out(),
                "pairs_bytes": pairs_path.stat().st_size}
    numbers["seconds_per_pair"] = round(numbers["pairs_seconds"] / len(atlas.layer_pairs), 2)
    numbers["pairs_over_scipy"] = round(
        numbers["seconds_per_pair"] / numbers["scipy_seconds_first_pair"], 2)
    return numbers


def measured(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    "The numbers of one size."
    numbers: dict[str, float] = {}
    with Stage(numbers, "making"):
        store = make(folder / "store.h5", options.tokens, options.width, options.layers)
    with Stage(numbers, "index"): indexed = index_store(store, progress=False)
    numbers |= judged(indexed, options, folder / "pairs.h5") | sizes_of(indexed)
    found_fast(indexed, numbers)
    return numbers


def sizes_of(indexed: IndexedStore) -> dict[str, float]:
    "Firings, and bytes of store and index."
    fired = sum(int(indexed.statistics(layer)["count"].sum()) for layer in indexed.layers)
    found: dict[str, float] = {"firings": fired}
    for name, path in (("store", indexed.path), ("index", indexed.index_path)):
        found[f"{name}_bytes"] = path.stat().st_size
        found[f"{name}_bytes_per_firing"] = round(found[f"{name}_bytes"] / fired, 2)
    return found


def main() -> None:
    "Measures one size and adds it to the file."
    asked = argparse.ArgumentParser()
    for name, default in (("tokens", 1_000_000), ("width", 24_576), ("layers", 2), ("window", 1),
                          ("max_bytes", 2**30)):
        asked.add_argument(f"--{name}", type=int, default=default)
    asked.add_argument("--folder", help="for the store, instead of the system's own")
    asked.add_argument("--product", nargs=3, help="only scipy's product: store and two layers")
    options = asked.parse_args()
    if options.product:
        path, a, b = options.product
        print(json.dumps(by_scipy(IndexedStore.open(path), int(a), int(b))))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        numbers = measured(options, Path(folder))
    print(json.dumps(numbers, indent=1))
    path, sizes = RESULTS / "whole_atlas.json", {}
    if path.exists(): sizes = json.loads(path.read_text(encoding="utf-8"))["numbers"]
    size = (f"{options.tokens} tokens, {options.layers} layers of {options.width}, "
            f"window {options.window}")
    write("whole_atlas", {"fires": FIRES, "max_bytes": options.max_bytes}, sizes | {size: numbers})


if __name__ == "__main__": main()
