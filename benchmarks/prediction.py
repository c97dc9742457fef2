"""What can be predicted of steering in contexts that were never measured: change averaged over
contexts, change in one context, and beyond the window.

`python benchmarks/prediction.py demo`, and `stories260k` or `smollm2` with `--data FOLDER --saes
FOLDER`, write `results/prediction_<name>.json`. Sources: a random sample of the
features that fire in 100 sequences or more. One third of the sequences is held out. Effect: from
the 10th to the 90th percentile of the source's own activations, at one position, on every live
feature of every later layer. R^2 over all (context, target), centred; 95 % intervals from a
bootstrap over sources.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from real_models import run_config, run_parser
from record import write

from feature_interaction_graph.control.context_effects import (
    ClampedContexts, activation_change, clamped_contexts, fit_context_effects, fit_transport
)
from feature_interaction_graph.engine.branched import last_block, start_block
from feature_interaction_graph.engine.encoders import FeatureReader
from feature_interaction_graph.engine.hooked_transformer import interaction_engine
from feature_interaction_graph.engine.sampling import scan_corpus
from feature_interaction_graph.loading import load_corpus, load_model_and_saes

ROOT = Path(__file__).parent.parent
LOW, HIGH = 0, 2            # of the doses (10, 50, 90)


class Score:
    "Sums for R^2 by source, so that sources can be resampled."
    def __init__(self, n_sources: int) -> None:
        self.sums = np.zeros((n_sources, 4))                 # n, sum, sum of squares, squared error

    def add(self, source: np.ndarray, observed: torch.Tensor, predicted: torch.Tensor) -> None:
        rows = torch.stack(
            [torch.full((len(observed),), float(observed.shape[1])), observed.sum(1),
             observed.square().sum(1), (observed - predicted).square().sum(1)], 1
        ).double().numpy()
        np.add.at(self.sums, source, rows)

    def result(self, n_resamples: int = 1000) -> dict[str, float]:
        def r2(sums: np.ndarray) -> np.ndarray:
            return 1 - sums[..., 3] / (sums[..., 2] - sums[..., 1] ** 2 / sums[..., 0])
        draws = np.random.default_rng(0).integers(0, len(self.sums), (n_resamples, len(self.sums)))
        low, high = np.percentile(r2(self.sums[draws].sum(1)), [2.5, 97.5])
        return {"r2": float(r2(self.sums.sum(0))), "ci_low": float(low), "ci_high": float(high)}


def derivatives(
    model: Any, saes: Any, corpus: Any, clamps: ClampedContexts, shares: tuple[float, ...]
) -> tuple[dict[float, dict[int, torch.Tensor]], float]:
    """Exact derivative of every target stream, per unit of the source: at the clean point (share
    -1) or that far from the lowest to the highest dose."""
    engine, reader = interaction_engine(model), FeatureReader(saes[clamps.layer])
    points = {
        layer: FeatureReader(saes[layer], torch.tensor([0])).hook_point for layer in clamps.changes
    }
    unit = reader.decoder[torch.as_tensor(clamps.sources[clamps.source])] * reader.scale(
        clamps.streams[clamps.layer]
    )
    found = {share: {layer: torch.zeros_like(clamps.streams[layer]) for layer in points}
             for share in shares}
    begin = time.perf_counter()
    needed = np.unique(clamps.sequence)
    for first in range(0, len(needed), 32):
        batch = needed[first:first + 32]
        inside = torch.as_tensor(np.flatnonzero(np.isin(clamps.sequence, batch)))
        clean = engine.record(corpus.tokens[batch, :int(corpus.lengths[batch].max())],
                              corpus.lengths[batch], starts=[start_block(reader.hook_point)],
                              last=max(last_block(point) for point in points.values()))
        rows = torch.as_tensor(np.searchsorted(batch, clamps.sequence[inside]))
        positions = torch.as_tensor(clamps.position[inside])
        for share in shares:
            push = clamps.push[inside]
            at = ((push[:, LOW] + share * (push[:, HIGH] - push[:, LOW]))[:, None] * unit[inside]
                  if share >= 0 else torch.zeros_like(unit[inside]))
            def branch(added: torch.Tensor, rows: torch.Tensor = rows,
                       positions: torch.Tensor = positions, clean: Any = clean) -> Any:
                return engine.branch(
                    clean, reader.hook_point, rows, positions, added, list(points.values()), 0
                )
            with torch.no_grad(): _, tangent = torch.func.jvp(branch, (at,), (unit[inside],))
            for layer, point in points.items():
                found[share][layer][inside] = tangent[point.name][:, 0]
    return found, time.perf_counter() - begin


def steps(model: Any, saes: Any, corpus: Any, train: ClampedContexts, test: ClampedContexts,
          samples: list[int], s0_layers: dict[int, ClampedContexts]) -> Any:
    "Every way of predicting single contexts, and the averages."
    timings: dict[str, float] = {}
    def timed(name: str, call: Any) -> Any:
        begin = time.perf_counter()
        value = call()
        timings[name] = time.perf_counter() - begin
        return value
    fits = {}
    for n in samples:
        for state in ("none", "features", "stream"):
            fits[state, n] = timed(
                f"{state}, {n}",
                lambda state=state, n=n: fit_context_effects(train, saes, state=state, n_samples=n)
            )
    most = max(samples)
    jacobian, seconds = derivatives(model, saes, corpus, test, (-1.0,))
    timings["one derivative per context"] = seconds
    quadrature = (0.5 - 12 ** -0.5, 0.5 + 12 ** -0.5)
    middle, seconds = derivatives(model, saes, corpus, test, quadrature)
    timings["two derivatives per context"] = seconds
    train_jacobian, _ = derivatives(model, saes, corpus, train, (-1.0,))
    rest = ClampedContexts(
        **{**train.__dict__,
           "changes": {layer: change - train.push[..., None] * train_jacobian[-1.0][layer][:, None]
                       for layer, change in train.changes.items()}}
    )
    corrected = timed("what the derivative leaves",
                      lambda: fit_context_effects(rest, saes, state="stream", n_samples=most))
    single: dict[str, dict[str, Any]] = {}
    averaged: dict[str, Any] = {}
    source, n_sources = test.source, len(test.sources)
    gap = (test.doses[:, HIGH] - test.doses[:, LOW])[:, None]
    paths: dict[int, np.ndarray] = {}
    for layer in test.changes:
        distance, reader = str(layer - test.layer), FeatureReader(saes[layer])
        live = torch.as_tensor(np.flatnonzero(_live(model, saes, corpus, layer) > 0))
        clean, moved = test.streams[layer], test.changes[layer]
        def between(low: torch.Tensor, high: torch.Tensor, clean: torch.Tensor = clean,
                    reader: FeatureReader = reader, live: torch.Tensor = live) -> torch.Tensor:
            return (
                activation_change(reader, clean, high) - activation_change(reader, clean, low)
            )[:, live]
        def spread(slope: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return test.push[:, LOW:LOW + 1] * slope, test.push[:, HIGH:HIGH + 1] * slope
        observed = between(moved[:, LOW], moved[:, HIGH])
        in_train = activation_change(reader, train.streams[layer], train.changes[layer])[..., live]
        mean, stream_mean, n_mean = (
            torch.zeros(n_sources, size) for size in (len(live), clean.shape[1], 1)
        )
        for index in range(n_sources):
            rows = torch.as_tensor(np.flatnonzero(train.source == index)[:most])
            width = float(train.doses[rows[0], HIGH] - train.doses[rows[0], LOW])
            mean[index] = (in_train[rows, HIGH] - in_train[rows, LOW]).mean(0) / width
            stream_mean[index] = (
                train.changes[layer][rows, HIGH] - train.changes[layer][rows, LOW]
            ).mean(0) / width
        decoder = FeatureReader(saes[test.layer]).decoder[torch.as_tensor(test.sources)]
        at = torch.as_tensor(source)
        weights = reader.weight[:, live]
        paths[layer] = mean.numpy()
        predictions = {
            "identity: the push stays as it is": between(*spread(decoder[at])),
            "decoder-encoder products": gap * (decoder @ weights)[at],
            "sum over paths of mean edges": gap * torch.as_tensor(
                _path_sum(test, layer, mean.numpy(), s0_layers, saes, live.numpy()),
                dtype=torch.float32
            )[at],
            "mean edges": gap * mean[at],
            "mean edges before the threshold, target's own threshold": between(
                *spread(stream_mean[at])
            ),
            "exact derivative in each context (ceiling of anything linear)": between(
                *spread(jacobian[-1.0][layer])
            ),
        }
        for (state, n), fit in fits.items():
            changes = fit.change(test, layer)
            told = {"none": "response curve",
                    "features": "response curve and gates (features that fire)",
                    "stream": "response curve and gates (stream)"}[state]
            predictions[f"{told}, {n} contexts"] = between(changes[:, LOW], changes[:, HIGH])
        whole = (
            corrected.change(test, layer) + test.push[..., None] * jacobian[-1.0][layer][:, None]
        )
        predictions["one derivative in the context, the rest from the corpus"] = between(
            whole[:, LOW], whole[:, HIGH]
        )
        path = sum(middle[share][layer] for share in quadrature) / 2
        low = fits["stream", most].change(test, layer)[:, LOW]
        predictions["two derivatives in the context, along the way"] = between(
            low, low + gap * path
        )
        for name, predicted in predictions.items():
            score = Score(n_sources)
            score.add(source, observed, predicted)
            single.setdefault(name, {})[distance] = score.result()
        averaged[distance] = {
            name: _averaged(observed, predicted, source, n_sources) for name, predicted
            in (("mean edges", gap * mean[at]),
                (f"response curve and gates (stream), {most} contexts",
                 predictions[f"response curve and gates (stream), {most} contexts"]))
        }
        print(distance, {name: round(part[distance]["r2"], 3) for name, part in single.items()},
              averaged[distance], flush=True)
    return single, averaged, timings


def _averaged(
    observed: torch.Tensor, predicted: torch.Tensor, source: np.ndarray, n_sources: int
) -> dict[str, float]:
    """R^2 of the change averaged over the held-out contexts of each source; the noise of that
    average from two halves of them."""
    means, halves, told = [], [], []
    for index in range(n_sources):
        rows = np.random.default_rng(index).permutation(np.flatnonzero(source == index))
        means.append(observed[rows].mean(0))
        halves.append(observed[rows[::2]].mean(0) - observed[rows[1::2]].mean(0))
        told.append(predicted[rows].mean(0))
    truth = torch.stack(means).double()
    noise = torch.stack(halves).double()
    guess = torch.stack(told).double()
    def r2(rows: np.ndarray) -> tuple[float, float, float]:
        at = torch.as_tensor(rows)
        variance = truth[at].var().item()
        spread = noise[at].square().mean().item() / 4
        error = (truth[at] - guess[at]).square().mean().item()
        return (
            1 - error / variance, 1 - spread / variance, 1 - (error - spread) / (variance - spread)
        )
    draws = np.array(
        [r2(np.random.default_rng(draw).integers(0, n_sources, n_sources)) for draw in range(300)]
    )
    raw, ceiling, corrected = r2(np.arange(n_sources))
    return {"raw": raw, "ceiling": ceiling, "corrected": corrected,
            "corrected_ci_low": float(np.percentile(draws[:, 2], 2.5)),
            "corrected_ci_high": float(np.percentile(draws[:, 2], 97.5))}


_LIVE: dict[int, np.ndarray] = {}

def _live(model: Any, saes: Any, corpus: Any, layer: int) -> np.ndarray:
    "Standard deviation of every feature of a layer over the corpus; one pass for all layers."
    if not _LIVE:
        readers = {str(each): FeatureReader(sae) for each, sae in saes.items()}
        for name, scan in scan_corpus(model, corpus, readers, progress=False).items():
            _LIVE[int(name)] = scan.std
    return _LIVE[layer]


def slopes(clamps: ClampedContexts, reader: FeatureReader, layer: int) -> np.ndarray:
    """Mean edges (activation per activation) of all clamped features to all features of `layer`:
    [n_features of the source layer, n_features]."""
    found = np.zeros((int(clamps.sources.max()) + 1, reader.width))
    for index, feature in enumerate(clamps.sources):
        rows = torch.as_tensor(np.flatnonzero(clamps.source == index))
        # of all contexts at once they would take tens of gigabytes
        change = activation_change(reader, clamps.streams[layer][rows],
                                   clamps.changes[layer][rows])
        found[feature] = ((change[:, HIGH] - change[:, LOW]).mean(0)
                          / (clamps.doses[rows[0], HIGH] - clamps.doses[rows[0], LOW])).numpy()
    return found


def _path_sum(test: ClampedContexts, layer: int, direct: np.ndarray,
              between: dict[int, ClampedContexts], saes: Any, live: np.ndarray) -> np.ndarray:
    """The older rule: a direct edge plus every way over intermediate layers, as if total effects
    added up (two hops)."""
    total = direct.copy()
    for middle, clamps in between.items():
        if test.layer < middle < layer:
            onward = slopes(clamps, FeatureReader(saes[layer]), layer)[:, live]
            first = _FIRST[middle][:, :len(onward)]
            total += first @ onward
    _FIRST[layer] = np.zeros((len(direct), FeatureReader(saes[layer]).width))
    _FIRST[layer][:, live] = direct
    return total


_FIRST: dict[int, np.ndarray] = {}


def beyond(model: Any, saes: Any, corpus: Any, train: ClampedContexts, test: ClampedContexts,
           cut: ClampedContexts, n_samples: int) -> dict[str, Any]:
    "Predictions at layers after the cut, from what is known up to the cut and the map from there."
    fit = fit_context_effects(train, saes, state="stream", n_samples=n_samples)
    transport = fit_transport(cut, saes)
    found: dict[str, Any] = {}
    at_cut = fit.change(test, cut.layer)
    for layer in cut.changes:
        reader = FeatureReader(saes[layer])
        clean = test.streams[layer]
        live = torch.as_tensor(np.flatnonzero(_live(model, saes, corpus, layer) > 0))
        carried = [
            transport(at_cut[:, dose], test.streams[cut.layer], layer) for dose in (LOW, HIGH)
        ]
        observed, predicted = (
            (
                activation_change(reader, clean, high) - activation_change(reader, clean, low)
            )[:, live] for low, high
            in ((test.changes[layer][:, LOW], test.changes[layer][:, HIGH]), tuple(carried))
        )
        score = Score(len(test.sources))
        score.add(test.source, observed, predicted)
        edges = np.zeros((len(test.sources), len(live)))
        onward = slopes(cut, reader, layer)[:, live.numpy()]
        seen = activation_change(
            FeatureReader(saes[cut.layer]), train.streams[cut.layer], train.changes[cut.layer]
        )
        for index in range(len(test.sources)):
            rows = torch.as_tensor(np.flatnonzero(train.source == index)[:n_samples])
            edges[index] = (
                (seen[rows, HIGH] - seen[rows, LOW]).mean(0).numpy()[:len(onward)] @ onward
            )
        at = torch.as_tensor(edges, dtype=torch.float32)[torch.as_tensor(test.source)]
        found[str(layer - test.layer)] = {
            "cut": cut.layer - test.layer, "single_context": score.result(),
            "averaged": _averaged(observed, predicted, test.source, len(test.sources)),
            "averaged_by_edges_alone": _averaged(observed, at, test.source, len(test.sources))
        }
        print("beyond", cut.layer, layer, found[str(layer - test.layer)], flush=True)
    return found


def main() -> None:
    parser = run_parser(__doc__, ("demo", "stories260k", "smollm2"))
    parser.add_argument("--sources", type=int, default=40)
    parser.add_argument("--tokens", type=int, help="default 300,000 for the demo, else 390,000")
    parser.add_argument("--samples-at-cut", type=int, default=60,
                        help="contexts in which each feature of a layer in between is clamped")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    n_tokens = chosen.tokens or (300_000 if chosen.run == "demo" else 390_000)
    cfg = run_config(chosen.run, chosen.data, chosen.saes, n_tokens)
    model, saes = load_model_and_saes(cfg)
    corpus = load_corpus(cfg, model, saes)
    begin = time.perf_counter()
    layer = sorted(saes)[1]
    firings = scan_corpus(
        model, corpus, {"all": FeatureReader(saes[layer])}, frozenset(["all"]), progress=False
    )["all"].firings
    assert firings is not None
    held = np.zeros(len(corpus), bool)
    held[np.random.default_rng(5).permutation(len(corpus))[:len(corpus) // 3]] = True
    frequent = [feature for feature in range(saes[layer].cfg.d_sae)
                if (~held[np.unique(firings.sequence[firings.of(feature)])]).sum() >= 100]
    sources = [(layer, int(feature)) for feature
               in np.sort(np.random.default_rng(0).permutation(frequent)[:chosen.sources])]
    both = clamped_contexts(model, saes, sources, corpus, n_samples=600, progress=False)
    in_test = held[both.sequence]
    train, test = both.take(np.flatnonzero(~in_test)), both.take(np.flatnonzero(in_test))
    clamped = time.perf_counter() - begin
    print(f"{len(frequent)} eligible, {len(both.sources)} sources, {len(train)} + {len(test)} "
          f"contexts, {clamped:.0f} s", flush=True)
    last = max(saes)
    middles = {}
    for other in range(layer + 1, last):
        every = [(other, index) for index in range(saes[other].cfg.d_sae)]
        middles[other] = clamped_contexts(
            model, saes, every, corpus.take(torch.as_tensor(np.flatnonzero(~held))),
            n_samples=chosen.samples_at_cut, min_samples=10, progress=False
        )
    samples = [100, 300]
    single, averaged, seconds = steps(model, saes, corpus, train, test, samples, middles)
    composed = {f"window {window}": beyond(
                    model, saes, corpus, train, test, middles[layer + window], max(samples)
                ) for window in range(1, last - layer) if layer + window in middles}
    rows = {"contexts per source in training": float(len(train) / len(train.sources)),
            "rows per context": 4, "seconds of all clamps of the sources": clamped}
    write(f"prediction_{chosen.run}",
          numbers={"single_context": single, "averaged": averaged, "beyond_the_window": composed,
                   "seconds": seconds | rows}, settings={
              "source_layer": layer, "sources": [index for _, index in sources],
              "eligible": len(frequent), "train_contexts": len(train), "test_contexts": len(test),
              "samples_at_cut": chosen.samples_at_cut, "doses": "10th to 90th percentile",
              "held_out_sequences": int(held.sum()), "n_samples": samples
          })


if __name__ == "__main__": main()
