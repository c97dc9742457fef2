"""Do intervals cover the mean over *all* firings of a source? On the demo and on stories260K.

`python benchmarks/coverage.py demo` and `python benchmarks/coverage.py stories260k --data FOLDER
--saes FOLDER` write `results/coverage_<name>.json`. Every firing of 20 sources of layer 1 in a long
text is clamped, whatever sequence it is in: the population, whose mean is known. Then each source
is measured again and again from few firings, as a user would. Rows are sorted by the share of the
population in which the target answers at all; those in which it never does are left out. Beside the
interval stands that of Student's t from the same mean and standard deviation.
"""

import time
from typing import Any

import numpy as np
from real_models import run_config, run_parser
from record import write
from scipy import stats

from feature_interaction_graph.engine.corpus import Corpus
from feature_interaction_graph.engine.encoders import FeatureReader
from feature_interaction_graph.engine.sampling import scan_corpus
from feature_interaction_graph.interactions import clamp_measure
from feature_interaction_graph.loading import load_corpus, load_model_and_saes

SAMPLES, REPEATS, SOURCES, TARGETS = (8, 20, 40, 100), 20, 20, (2, 3)
SEQUENCES, FIRINGS = 600, 4000      # at least, at most
STRATA = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
Columns = dict[str, np.ndarray]


def sources_of(model: Any, saes: Any, corpus: Corpus) -> list[tuple[int, int]]:
    "Random features of layer 1 that fire often enough, and not too often to clamp every firing."
    scan = scan_corpus(
        model, corpus, {"all": FeatureReader(saes[1])}, frozenset(["all"]), progress=False
    )["all"].firings
    assert scan is not None
    enough = [feature for feature in range(saes[1].cfg.d_sae)
              if len(scan.sequence[scan.of(feature)]) <= FIRINGS
              and len(np.unique(scan.sequence[scan.of(feature)])) >= SEQUENCES]
    return [(1, int(feature))
            for feature in np.sort(np.random.default_rng(0).permutation(enough)[:SOURCES])]


def measured(model: Any, saes: Any, sources: list[tuple[int, int]], corpus: Corpus,
             **how: Any) -> Columns:
    "The columns of one measurement."
    return clamp_measure(model, saes, sources, corpus, target_layers=list(TARGETS),
                         progress=False, **how).columns


def score(found: Columns, truth: Columns) -> dict[str, np.ndarray]:
    "What each row of one measurement says of the population's."
    for name in ("src_feature", "tgt_layer", "tgt_feature", "dose_low", "dose_high"):
        np.testing.assert_array_equal(found[name], truth[name])
    mean, n = truth["strength"], found["n_samples"]
    half = stats.t.isf(0.025, n - 1) * found["std"] / np.sqrt(n)
    unseen = found["share_nonzero"] == 0
    return {
        "covered": (found["ci_low"] <= mean) & (mean <= found["ci_high"]),
        "covered_t": np.abs(found["strength"] - mean) <= half,
        "width": found["ci_high"] - found["ci_low"], "width_t": 2 * half,
        "zero_width": found["ci_low"] == found["ci_high"], "zero_width_t": half == 0,
        "unseen": unseen,
        "beyond_resolution": unseen & (truth["share_nonzero"] > found["resolution"]),
    }


def table(rounds: list[dict[str, np.ndarray]], truth: Columns, n: int) -> list[dict[str, Any]]:
    "One row per stratum of the share of the population in which the target answers."
    rows, spread = [], truth["std"]
    for low, high in zip(STRATA, STRATA[1:], strict=False):
        here = (truth["share_nonzero"] > low) & (truth["share_nonzero"] <= high)
        if here.sum() < 20: continue
        mean = {name: float(np.mean([found[name][here] for found in rounds]))
                for name in rounds[0] if not name.startswith("width")}
        ideal = 2 * 1.96 * spread[here] / np.sqrt(n)
        wide = {name: float(np.median([found[name][here] / ideal for found in rounds]))
                for name in ("width", "width_t")}
        rows.append({"n_samples": n, "share_from": low, "share_to": high,
                     "n_rows": int(here.sum()), **mean, **wide})
        print(rows[-1], flush=True)
    return rows


def run(arguments: Any) -> None:
    cfg = run_config(arguments.run, arguments.data, arguments.saes, n_tokens=200_000)
    model, saes = load_model_and_saes(cfg)
    corpus = load_corpus(cfg, model, saes)
    started, rows = time.time(), []
    sources = sources_of(model, saes, corpus)
    print(f"{time.time() - started:6.0f} s  {len(sources)} sources", flush=True)
    truth = measured(model, saes, sources, corpus, n_samples=10**9, max_per_sequence=10**6)
    print(f"{time.time() - started:6.0f} s  {len(sources)} sources, {len(truth['strength'])} rows, "
          f"{truth['n_samples'].min()} to {truth['n_samples'].max()} firings", flush=True)
    for n in SAMPLES:
        rounds = [score(measured(model, saes, sources, corpus, n_samples=n, seed=seed), truth)
                  for seed in range(REPEATS)]
        rows += table(rounds, truth, n)
    settings = {"n_sequences": len(corpus), "sources": [list(source) for source in sources],
                "target_layers": list(TARGETS), "repeats": REPEATS,
                "firings": [int(truth["n_samples"].min()), int(truth["n_samples"].max())]}
    print(write(f"coverage_{arguments.run}", settings, {"coverage": rows}))


if __name__ == "__main__":
    run(run_parser(__doc__).parse_args())
