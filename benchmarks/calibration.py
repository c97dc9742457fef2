"""Do p-values and q-values keep their promise? 200 planted nulls, and what a rule of thumb for
gating makes of noise.

`python benchmarks/calibration.py` writes `results/calibration.json`. Each null is a planted model
with 20 pairs whose effect is different in every sample and zero on average (a hidden symmetric
factor multiplies it), measured on text of its own. Beside it stands a model in which the same pairs
have a small true mean, so that a false discovery *rate* can be counted.
"""

import argparse
import json
from typing import Any

import numpy as np
from record import RESULTS, write
from scipy import stats

from feature_interaction_graph.engine.statistics import adjust
from feature_interaction_graph.interactions import clamp_measure
from feature_interaction_graph.measurement.gating import measure_gating
from feature_interaction_graph.planted.models import PlantedModel, null_planted, plant_gate

DESIGNS: dict[str, dict[str, int]] = {
    "100 samples (t)": {"n_samples": 100},
    "30 samples (t)": {"n_samples": 30},
    "10 samples (sign-flip)": {"n_samples": 10},
    "100 samples, 4 per sequence (clustered t)": {"n_samples": 100, "max_per_sequence": 4},
    "sequential, 25 to 100 samples": {"n_samples": 25, "max_samples": 100},
}


def p_values(planted: PlantedModel, pairs: list[tuple[tuple[int, int], tuple[int, int]]], seed: int,
             design: dict[str, int]) -> np.ndarray:
    "p of the given pairs, in their order."
    corpus = planted.corpus(160, 16, seed=seed)
    sources, targets = ([pair[end] for pair in pairs] for end in (0, 1))
    table = clamp_measure(planted.model, planted.saes, sources, corpus, targets=targets,
                          progress=False, seed=seed, **design).columns
    rows = {(source, target): p for source, target, p
            in zip(table["src_feature"].tolist(), table["tgt_feature"].tolist(), table["p_value"],
                   strict=True)}
    return np.array([rows[source[1], target[1]] for source, target in pairs])


def nulls(n_models: int, names: list[str]) -> dict[str, Any]:
    """Per design: histogram of null p, Kolmogorov-Smirnov against uniform, and the realised false
    discovery rate at q < 0.05."""
    designs = {name: DESIGNS[name] for name in names}
    collected: dict[str, list[np.ndarray]] = {name: [] for name in designs}
    rates: dict[str, list[tuple[float, float, int]]] = {name: [] for name in designs}
    for model in range(n_models):
        (null, pairs), (real, other) = null_planted(model, 20), null_planted(
            model + 10_000, 20, effect=0.25
        )
        for name, design in designs.items():
            if name != "100 samples (t)" and model >= n_models // 2: continue
            false = p_values(null, pairs, model, design)
            true = p_values(real, other, model + 1, design)
            found = adjust(np.concatenate([false, true])) < 0.05
            rates[name].append((found[:20].sum() / max(found.sum(), 1), found[20:].mean(),
                                int((adjust(false) < 0.05).any())))
            collected[name].append(false)
        if model % 20 == 19:
            print(model + 1,
                  {name: np.mean(rows, 0).round(3).tolist() for name, rows in rates.items()},
                  flush=True)
    results = {}
    for name, parts in collected.items():
        p = np.concatenate(parts)
        # cannot be uniform: few values, or K times p
        discrete = "sign-flip" in name or "sequential" in name
        rate, power, any_found = np.mean(rates[name], 0)
        results[name] = {
            "n_models": len(parts), "n_p_values": len(p),
            "histogram": np.histogram(p, 20, (0, 1))[0].tolist(), "share_below": {
                str(level): float((p < level).mean()) for level in (0.001, 0.01, 0.05, 0.1)
            }, "ks_p": None if discrete else float(stats.kstest(p, "uniform").pvalue),
            "false_discovery_rate": float(rate), "power": float(power),
            "nulls_with_any_discovery": float(any_found),
            "false_discovery_rate_standard_error": float(
                np.std([row[0] for row in rates[name]]) / np.sqrt(len(parts))
            )
        }
    return results


def gating_rules(n_models: int = 10) -> dict[str, Any]:
    """Share of cases called "gating" by coefficient of variation > 2 (an earlier tool's rule; it
    keeps an edge only if its mean effect is
    significant, p < 0.01) and by the 2 x 2 clamp: plain noise, and planted gates."""
    names = ("noise with mean 0", "noise around a mean", "sign-flip gate", "AND gate", "no gate")
    counts: dict[str, list[tuple[bool, bool, bool]]] = {name: [] for name in names}
    def ask(name: str, planted: PlantedModel, pairs: list[tuple[tuple[int, int], tuple[int, int]]],
            seed: int) -> None:
        corpus = planted.corpus(300, 24, seed=seed)
        sources, targets = ([pair[end] for pair in pairs] for end in (0, 1))
        table = clamp_measure(
            planted.model, planted.saes, sources, corpus, targets=targets, progress=False
        ).columns
        gates = measure_gating(
            planted.model, planted.saes, pairs, corpus, progress=False
        ).significant(0.05).columns
        for (_, source), (_, target) in pairs:
            row = (table["src_feature"] == source) & (table["tgt_feature"] == target)
            by_cv = table["std"][row][0] / (abs(table["strength"][row][0]) + 1e-8) > 2
            gated = ((gates["src_feature"] == source) & (gates["tgt_feature"] == target)).any()
            counts[name].append(
                (bool(by_cv), bool(by_cv and table["p_value"][row][0] < 0.01), bool(gated))
            )
    for seed in range(n_models):
        ask("noise with mean 0", *null_planted(seed, 5), seed)
        ask("noise around a mean", *null_planted(seed, 5, effect=0.2), seed)
        for name, kind in (("sign-flip gate", "sign-flip"), ("AND gate", "AND")):
            planted = plant_gate(kind, seed=seed)
            ask(name, planted, [((0, planted.feature(0, 0)), (1, planted.feature(1, 2)))], seed)
            if kind == "AND":
                ask("no gate", planted, [((0, planted.feature(0, 0)), (1, planted.feature(1, 0)))],
                    seed)
    return {name: {"cases": len(rows), **dict(zip(("cv_above_2", "cv_above_2_and_kept", "by_clamp"),
                                                  np.mean(rows, 0).tolist(), strict=True))}
            for name, rows in counts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument(
        "--designs", nargs="*", default=list(DESIGNS),
        help="only these; results/calibration.json keeps what it says of the others"
    )
    chosen = parser.parse_args()
    path = RESULTS / "calibration.json"
    if set(chosen.designs) == set(DESIGNS):
        numbers = {"gating_rules": gating_rules(), "nulls": nulls(chosen.models, chosen.designs)}
    else:
        numbers = json.loads(path.read_text())["numbers"]
        numbers["nulls"] |= nulls(chosen.models, chosen.designs)
    write("calibration", {"models": chosen.models, "pairs_per_model": 20, "level": 0.05}, numbers)


if __name__ == "__main__":
    main()
