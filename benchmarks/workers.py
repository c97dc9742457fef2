"""One measurement by this process and by two workers of Ray, one thread each.

`python benchmarks/workers.py` asks what `--sources` features of each layer of the demo do to
`--targets` of each later one, once the text is read and once the workers are there: both in turn,
`--repeats` times, with the same table every time, which is checked. Efficiency is the time of one
process over twice that of two workers; medians. The CPU seconds of the busier worker stand beside
it: on a machine that is used by others as well, wall time says little, and seconds of a processor
say what the cut itself costs (parts of different size, texts that are read twice).
"""
import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

sys.path.insert(0, str(Path(__file__).parent))
from record import write

from feature_interaction_graph.config import Config
from feature_interaction_graph.engine.workers import RayWorkers, workers
from feature_interaction_graph.loading import load_corpus, load_model_and_saes
from feature_interaction_graph.measurement.blocks import Here, RunSettings
from feature_interaction_graph.measurement.distributed import OnWorkers, Sent
from feature_interaction_graph.measurement.kept import MeasuredBlock
from feature_interaction_graph.measurement.prepared import Prepared, prepare
from feature_interaction_graph.measurement.question import ask

N_WORKERS = 2


def prepared_question(given: argparse.Namespace) -> Prepared:
    "The demo's features at random, `--sources` that can be measured from each layer."
    cfg = Config.preset("demo", n_tokens=given.tokens)
    model, saes = load_model_and_saes(cfg)
    corpus, random = load_corpus(cfg, model, saes), np.random.default_rng(0)
    def some(layer: int, n: int) -> list[tuple[int, int]]:
        return [(layer, int(i)) for i in random.permutation(saes[layer].cfg.d_sae)[:n]]
    layers = list(saes)
    sources = [key for layer in layers[:-1] for key in some(layer, given.sources)]
    targets = [key for layer in layers[1:] for key in some(layer, given.targets)]
    question = ask(saes, sources, targets, None, n_samples=given.samples)
    return prepare(model, saes, corpus, question, progress=False)


def taken(work: Callable[[], Any]) -> tuple[Any, float, float]:
    "What `work` gives, seconds, and CPU seconds of this process."
    start, processor = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - start, time.process_time() - processor


def worker_seconds() -> dict[int, float]:
    "CPU seconds of every worker so far, by process."
    found = {}
    for process in psutil.Process().children(recursive=True):
        if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::_Worker"):
            times = process.cpu_times()
            found[process.pid] = times.user + times.system
    return found


def check_same(here: dict[int, MeasuredBlock], there: dict[int, MeasuredBlock]) -> None:
    "Every number of both tables, to the last bit."
    assert here.keys() == there.keys()
    for number, block in here.items():
        for name, values in block.columns.items():
            np.testing.assert_array_equal(values, there[number].columns[name], err_msg=name)


def main() -> None:
    "Measures, checks, prints and writes."
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("tokens", 40_000), ("sources", 300), ("targets", 200), ("samples", 200),
                        ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    torch.set_num_threads(1)
    prepared, scan, _ = taken(lambda: prepared_question(given))
    settings, place = RunSettings(placebo=32), OnWorkers("ray", N_WORKERS)
    blocks = dict(enumerate(place.cut(prepared, settings)[0]))
    rows: dict[str, list[float]] = {name: [] for name in (
        "local_s", "local_cpu_s", "ray_s", "ray_cpu_s", "busier_worker_cpu_s", "load")}
    started = time.perf_counter()
    with workers("ray", N_WORKERS, Sent.of(prepared, settings)) as crew:
        assert isinstance(crew, RayWorkers)
        crew.ready()
        start_up = time.perf_counter() - started
        for _ in range(given.repeats):
            here, seconds, own = taken(lambda: dict(Here().measured(prepared, blocks, settings)))
            rows["local_s"].append(seconds)
            rows["local_cpu_s"].append(own)
            before = worker_seconds()
            there, seconds, own = taken(
                lambda: dict(place.measured_by(crew, prepared, blocks, settings)))
            after = worker_seconds()
            spent = [after[number] - before[number] for number in after]
            assert len(spent) == N_WORKERS
            rows["ray_s"].append(seconds)
            rows["ray_cpu_s"].append(sum(spent) + own)
            rows["busier_worker_cpu_s"].append(max(spent))
            rows["load"].append(psutil.getloadavg()[0])
            check_same(here, there)
            print({name: round(values[-1], 2) for name, values in rows.items()}, flush=True)
    middle = {name: statistics.median(values) for name, values in rows.items()}
    numbers = {
        "efficiency": middle["local_s"] / (N_WORKERS * middle["ray_s"]),
        "efficiency_of_cpu": middle["local_cpu_s"] / (N_WORKERS * middle["busier_worker_cpu_s"]),
        "cpu_ray_over_local": middle["ray_cpu_s"] / middle["local_cpu_s"],
        "identical": True, "start_up_s": start_up, "loading_and_scan_s": scan,
        "rows": sum(len(block.columns["strength"]) for block in here.values()),
        "parts": len(place.pieces(prepared, blocks)), "medians": middle, "repeats": rows,
    }
    print({name: value for name, value in numbers.items() if name != "repeats"})
    print(write("workers", vars(given) | {"n_workers": N_WORKERS, "threads_each": 1}, numbers))


if __name__ == "__main__": main()
