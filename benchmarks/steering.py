"""Naive against compensated steering at equal target effect, on the demo and on stories260K.

`python benchmarks/steering.py demo` and `python benchmarks/steering.py stories260k --data FOLDER
--saes FOLDER` write their part of `results/steering.json`. Sources, targets, protected features and
contexts are chosen by the rules in `choose`, with a seed, before anything is compensated; every
source is reported.
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from real_models import run_config, run_parser
from record import RESULTS, write

from feature_interaction_graph.control.clamps import Clamp
from feature_interaction_graph.control.comparison import bootstrap, interval
from feature_interaction_graph.control.contexts import (
    ContextRuns, Contexts, FeatureRanges, activations, choose_contexts, feature_ranges
)
from feature_interaction_graph.control.effects import clamp_values, measure_effects
from feature_interaction_graph.loading import load_corpus, load_model_and_saes
from feature_interaction_graph.steering import (
    CompensatedSteering, compare_steering, steer_compensated
)

ROOT = Path(__file__).parent.parent
SETTINGS: dict[str, Any] = {
    "sources": 16, "seed": 0, "min_firings": 150, "calibration_contexts": 16,
    "held_out_contexts": 24, "neutral_contexts": 12, "protected": 20, "n_compensators": 180,
    "ridges": [0.01, 0.03, 0.1, 0.3], "ridge_sources": 4, "rest": 0.2, "corrections": 2,
    "variant_sources": 5, "curve_sources": 3, "curve": [8, 24, 72]
}


def sources_of(
    ranges: FeatureRanges, layers: list[int], n: int, seed: int
) -> list[tuple[int, int, str]]:
    """`n` sources, stratified over all layers but the last: random live features with
    `min_firings` firings; alternately switched off and on.

    Off: set to 0 where they fire. On: set to the 90th percentile of their activations at random
    tokens where they are silent.
    """
    random = np.random.default_rng(seed)
    chosen = []
    for index in range(n):
        layer = layers[index % (len(layers) - 1)]
        enough = np.flatnonzero(ranges.firings(layer) >= SETTINGS["min_firings"])
        taken = {feature for at, feature, _ in chosen if at == layer}
        feature = int(random.choice([feature for feature in enough if int(feature) not in taken]))
        chosen.append((layer, feature, ("off", "on")[(index // (len(layers) - 1) + index) % 2]))
    return chosen


def naive_change(
    model: Any, saes: Any, ranges: FeatureRanges, contexts: Contexts, clamp: Clamp
) -> tuple[np.ndarray, ContextRuns]:
    "Change, in standard deviations, of every live feature of later layers in every context."
    runs = ContextRuns(model, saes, contexts.compact(), clamp.layer,
                       {layer: ranges.live(layer) for layer in saes if layer > clamp.layer})
    rows = np.arange(len(contexts))
    steered = runs.run(rows, clamp_values(runs, [clamp], rows)).pre
    std = np.array([ranges.std(layer)[feature]
                    for layer, feature in zip(runs.layer, runs.feature, strict=True)])
    return (
        (activations(steered, runs.threshold) - activations(runs.clean, runs.threshold)) / std, runs
    )


def choose(
    model: Any, saes: Any, ranges: FeatureRanges, layer: int, feature: int, way: str, seed: int
) -> dict[str, Any]:
    """Contexts, target and protected features of one source.

    Target: of the features that move in at least a third of the calibration contexts, the one that
    moves most on average, in a random one of the later layers in which that is 0.5 standard
    deviations or more (if there is none: of all later layers; if that is less than 0.1: whatever
    moves most). Protected: the 20 others, in all later layers, that move most.
    """
    where = "firing" if way == "off" else "silent"
    n = SETTINGS["calibration_contexts"] + SETTINGS["held_out_contexts"]
    contexts = choose_contexts(ranges, (layer, feature), n, where=where, seed=seed)
    order = np.random.default_rng(seed).permutation(len(contexts))
    calibration = contexts.take(order[: SETTINGS["calibration_contexts"]])
    held_out = contexts.take(order[SETTINGS["calibration_contexts"]:])
    clamp = Clamp(layer, feature, 0.0 if way == "off" else float(ranges.usual(layer, [feature])[0]))
    each, runs = naive_change(model, saes, ranges, calibration, clamp)
    moved, size = each.mean(0), np.abs(each.mean(0))
    steady = np.where((each != 0).mean(0) >= 1 / 3, size, 0.0)
    steady = steady if steady.max() >= 0.1 else size
    strong = [
        later for later in np.unique(runs.layer) if steady[runs.layer == later].max() >= 0.5
    ] or [runs.layer[steady.argmax()]]
    target_layer = np.random.default_rng((seed, layer, feature)).choice(strong)
    at = int(np.argmax(np.where(runs.layer == target_layer, steady, -1)))
    others = [index for index in np.argsort(-size) if index != at][: SETTINGS["protected"]]
    key = [(int(one), int(other)) for one, other in zip(runs.layer, runs.feature, strict=True)]
    neutral = choose_contexts(
        ranges, (layer, feature), SETTINGS["neutral_contexts"], where="silent", seed=seed + 1
    )
    return {"clamp": clamp, "target": key[at], "protect": [key[index] for index in others],
            "calibration": calibration, "held_out": held_out, "neutral": neutral,
            "calibration_change": float(moved[at])}


class Plans:
    """All plans of one source; what is fitted at some contexts is fitted once and used for every
    number of corrections."""
    def __init__(
        self, model: Any, saes: Any, ranges: FeatureRanges, chosen: Mapping[str, Any], ridge: float
    ) -> None:
        clamp = chosen["clamp"]
        self.clamp, self.fitted = clamp, {}
        def fit(contexts: Contexts, **how: Any) -> CompensatedSteering:
            settings = {
                name: SETTINGS[name] for name in ("n_compensators", "rest", "corrections")
            } | {"ridge": ridge} | how
            return steer_compensated(model, saes, contexts, [clamp], chosen["target"], ranges,
                                     protect=chosen["protect"], **settings)
        self.fit = fit

    def at(self, contexts: Contexts) -> CompensatedSteering:
        "The plan fitted at `contexts`, with all corrections."
        key = (contexts.position.tobytes(), contexts.tokens[0].numpy().tobytes())
        if key not in self.fitted: self.fitted[key] = self.fit(contexts)
        return self.fitted[key]

    def after(self, corrections: int) -> Callable[[Contexts], CompensatedSteering]:
        "The plan with so many corrections."
        return lambda contexts: ([*self.at(contexts).rounds, self.at(contexts)])[corrections]


def choose_ridge(
    model: Any, saes: Any, ranges: FeatureRanges, listed: list[tuple[int, int, str]]
) -> tuple[float, dict[str, float]]:
    """The ridge that removes most of the side effect, mean over `listed`, at their calibration
    contexts, with one correction."""
    tried: dict[float, list[float]] = {ridge: [] for ridge in SETTINGS["ridges"]}
    for index, (layer, feature, way) in enumerate(listed):
        chosen = choose(model, saes, ranges, layer, feature, way, index)
        for ridge, removed in tried.items():
            removed.append(reduced(Plans(model, saes, ranges, chosen, ridge).fit(
                                       chosen["calibration"], corrections=1
                                   ))["all"])
    means = {ridge: float(np.mean(removed)) for ridge, removed in tried.items()}
    return (max(means, key=lambda ridge: means[ridge]),
            {str(ridge): value for ridge, value in means.items()})


def reduced(plan: CompensatedSteering) -> dict[str, float | None]:
    """Share of the side effect removed (rows, at the contexts of the plan; naive at full dose), and
    the target's change kept (None where it has none)."""
    column = plan.column(*plan.targets[0])
    moved = plan.change("naive")[:, column].mean()
    found = {"all": 1 - plan.side_effect().mean() / plan.side_effect("naive").mean(),
             "protected": 1 - plan.side_effect(protected=True).mean()
             / plan.side_effect("naive", protected=True).mean(),
             "target": plan.change()[:, column].mean() / moved if moved else None,
             "n_clamps": plan.n_clamps}
    return {name: None if value is None else float(value) for name, value in found.items()}


def one_source(model: Any, saes: Any, ranges: FeatureRanges, layer: int, feature: int, way: str,
               seed: int, ridge: float) -> dict[str, Any]:
    "Everything about one source; `seed` is also its number."
    begin = time.perf_counter()
    chosen = choose(model, saes, ranges, layer, feature, way, seed)
    plans = Plans(model, saes, ranges, chosen, ridge)
    shared = plans.fit(
        chosen["calibration"], shared=True, ridge=300.0, n_compensators=60, corrections=0
    )
    named = {"naive": [chosen["clamp"]], "0 corrections": plans.after(0),
             "1 correction": plans.after(1), "2 corrections": plans.after(2), "shared": shared}
    result = compare_steering(
        model, saes, chosen["held_out"], named, chosen["target"], ranges,
        calibration=chosen["calibration"], neutral=chosen["neutral"] if way == "on" else None,
        protect=chosen["protect"], equal_to="1 correction", seed=seed
    )
    row: dict[str, Any] = {
        "layer": layer, "feature": feature, "way": way, "target": list(chosen["target"]),
        "calibration_change": chosen["calibration_change"], "contexts": len(chosen["held_out"]),
        "share": result.share, "dose": chosen["clamp"].value
    }
    row["plans"] = {str(name): {key: float(value) for key, value in values.items()}
                    for name, values in result.rows.T.to_dict().items()}
    kinds: dict[str, dict[str, bool]] = {
        "all": {}, "protected": {"protected": True}, "all_of_mean": {"of_mean": True},
        "protected_of_mean": {"protected": True, "of_mean": True}
    }
    row["removed"] = {name: {kind: result.reduction(name, **how) for kind, how in kinds.items()}
                      for name in list(named)[1:]}
    row["hops"] = result.hops.to_dict("records")
    held_out = plans.at(chosen["held_out"])
    row["foretold"] = foretold(held_out.rounds[0])
    if seed < SETTINGS["variant_sources"]:
        row["variants"] = {
            "same layer only": reduced(
                plans.fit(chosen["held_out"], compensator_layers=[layer], corrections=1)
            ),
            "before the target's layer": reduced(
                plans.fit(chosen["held_out"],
                          compensator_layers=list(range(layer, chosen["target"][0])), corrections=1)
            ),
            "up to the target's layer": reduced(held_out.rounds[1]),
            "mean effects of the calibration contexts": reduced(
                plans.fit(chosen["held_out"],
                          effects=calibration_matrix(model, saes, ranges, chosen, held_out),
                          ridge=30.0, corrections=1)
            ),
        }
    if seed < SETTINGS["curve_sources"]:
        row["curve"] = {
            str(size): reduced(plans.fit(chosen["held_out"], max_clamps=size, corrections=1))
            for size in SETTINGS["curve"]
        }
        row["curve"]["all"] = reduced(held_out.rounds[1])
    row["seconds"] = time.perf_counter() - begin
    return row


def calibration_matrix(model: Any, saes: Any, ranges: FeatureRanges, chosen: Mapping[str, Any],
                       plan: CompensatedSteering) -> Any:
    "Mean effects of the plan's compensators at the calibration contexts."
    clamp = chosen["clamp"]
    watched = {
        at: np.union1d(ranges.live(at), [clamp.feature] if at == clamp.layer else []).astype(int)
        for at in saes if at >= clamp.layer
    }
    runs = ContextRuns(model, saes, chosen["calibration"].compact(), clamp.layer, watched)
    keys = [compensating.key for compensating in plan.compensating]
    usual = np.array([float(ranges.usual(at, [feature])[0]) for at, feature in keys])
    return measure_effects(runs, keys, 0.5 * usual, steered=[clamp])


def foretold(plan: CompensatedSteering) -> dict[str, dict[str, float]]:
    """How well the matrix foretold, before any correction, the change of each feature in each
    context, by layer distance: R2 of what the clamps together did."""
    first = min(clamp.layer for clamp in plan.steered)
    rows = {}
    for layer in np.unique(plan.layer[plan.off_target]):
        mine = plan.off_target & (plan.layer == layer)
        seen, said, naive = (
            plan.change(which)[:, mine] for which in ("compensated", "predicted", "naive")
        )
        by_clamps = ((seen - naive) ** 2).sum()
        pre = (plan.compensated - plan.naive)[:, mine], (plan.predicted - plan.naive)[:, mine]
        moved = (pre[0] ** 2).sum()
        rows[str(int(layer) - first)] = {
            "r2_of_activation": float(1 - ((seen - said) ** 2).sum() / by_clamps) if by_clamps > 0
            else float("nan"),
            "r2_of_pre_activation": float(1 - ((pre[0] - pre[1]) ** 2).sum() / moved) if moved > 0
            else float("nan")
        }
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    "Means over sources with bootstrap intervals over sources."
    def of(values: list[float | None]) -> dict[str, float]:
        numbers = np.array(
            [value for value in values if value is not None and not np.isnan(value)], float
        )
        low, high = interval(numbers[bootstrap(len(numbers))].mean(1))
        return {"mean": float(numbers.mean()), "low": low, "high": high,
                "median": float(np.median(numbers)), "least": float(numbers.min())}
    found: dict[str, Any] = {"removed": {}, "variants": {}, "output": {}}
    for name in rows[0]["removed"]:
        found["removed"][name] = {kind: of([row["removed"][name][kind][0] for row in rows])
                                  for kind in rows[0]["removed"][name]}
        found["removed"][name]["reached 50 % of all"] = sum(
            row["removed"][name]["all"][0] >= 0.5 for row in rows
        )
        found["removed"][name]["reached 80 % of the protected"] = sum(
            row["removed"][name]["protected"][0] >= 0.8 for row in rows
        )
    for name in rows[0]["variants"]:
        found["variants"][name] = {
            kind: of([row["variants"][name][kind] for row in rows if "variants" in row])
            for kind in rows[0]["variants"][name]
        }
    for name in rows[0]["plans"]:
        found["output"][name] = {
            kind: of([row["plans"][name][kind] for row in rows]) for kind
            in ("kl", "kl_later", "later_side_effect", "precision", "target_change", "n_clamps")
        }
        on = [row for row in rows if row["way"] == "on"]
        found["output"][name] |= {
            kind: of([row["plans"][name][kind] for row in on]) for kind
            in ("neutral_kl", "neutral_kl_later", "neutral_perplexity", "neutral_perplexity_clean")
        }
        if name != "naive":
            for kind, some in (
                ("kl", rows), ("kl_later", rows), ("neutral_kl", on), ("neutral_kl_later", on)
            ):
                found["output"][name][f"{kind}_no_worse"] = [
                    sum(row["plans"][name][kind] <= row["plans"]["naive"][kind] + 1e-6
                        for row in some), len(some)
                ]
    return found


def main() -> None:
    parser = run_parser(__doc__)
    parser.add_argument(
        "--redo", type=int, nargs="*",
        help="numbers of sources to measure again; the others are kept from the results file"
    )
    parser.add_argument("--sources", type=int, default=SETTINGS["sources"])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cfg = run_config(asked.run, asked.data, asked.saes, 60_000)
    model, saes = load_model_and_saes(cfg)
    ranges = feature_ranges(model, saes, load_corpus(cfg, model, saes), progress=False)
    rows, listed = [], sources_of(ranges, sorted(saes), asked.sources, SETTINGS["seed"])
    path = RESULTS / "steering.json"
    before = json.loads(path.read_text())["numbers"] if path.exists() else {}
    if asked.redo is None:
        ridge, tried = choose_ridge(model, saes, ranges, listed[: SETTINGS["ridge_sources"]])
    else: ridge, tried = before[asked.run]["ridge"], before[asked.run]["ridges"]
    print("ridge", ridge, tried, flush=True)
    for index, (layer, feature, way) in enumerate(listed):
        if asked.redo is not None and index not in asked.redo:
            rows.append(before[asked.run]["sources"][index])
            continue
        rows.append(one_source(model, saes, ranges, layer, feature, way, index, ridge))
        one = rows[-1]["removed"]["1 correction"]
        print(layer, feature, way, rows[-1]["target"],
              {kind: round(value[0], 2) for kind, value in one.items()}, "kl",
              {name: round(values["kl"], 4) for name, values in rows[-1]["plans"].items()},
              round(rows[-1]["seconds"], 1), flush=True)
    found = {"sources": rows, "summary": summary(rows), "ridge": ridge, "ridges": tried}
    before = json.loads(path.read_text())["numbers"] if path.exists() else {}
    # JSON has no NaN
    found = json.loads(json.dumps(found), parse_constant=lambda name: None)
    write("steering", SETTINGS | {"threads": 1, "tokens": 60_000}, before | {asked.run: found})


if __name__ == "__main__":
    main()
