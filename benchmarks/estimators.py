"""Linear estimators beside clamping, and how stable an edge set is, on the demo and on stories260K.

`python benchmarks/estimators.py demo` and `python benchmarks/estimators.py stories260k --data
FOLDER --saes FOLDER` write `results/estimators_<name>.json`. Estimators: Spearman correlation and
sign agreement with clamped mean effects, by layer distance, and seconds, all in one run on one
thread. Stability: sources of layer 1, the corpus cut into two halves, the whole measurement done in
each.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from real_models import run_config, run_parser
from record import RESULTS, write
from scipy import stats

from feature_interaction_graph.engine.encoders import FeatureReader
from feature_interaction_graph.engine.sampling import scan_corpus
from feature_interaction_graph.engine.transport import transport_scores
from feature_interaction_graph.engine.weight_paths import direct_path_scores
from feature_interaction_graph.interactions import clamp_measure
from feature_interaction_graph.measurement.decisions import decide, stability_of
from feature_interaction_graph.loading import load_corpus, load_model_and_saes
from feature_interaction_graph.measurement.jacobian import jacobian_measure

KEYS = ["src_layer", "src_feature", "tgt_layer", "tgt_feature"]
ROOT = Path(__file__).parent.parent


def sources_of(
    model: Any, saes: Any, corpus: Any, layer: int, n: int, n_sequences: int
) -> list[tuple[int, int]]:
    "`n` random features of `layer` that fire in at least `n_sequences` sequences."
    scan = scan_corpus(
        model, corpus, {"all": FeatureReader(saes[layer])}, frozenset(["all"]), progress=False
    )["all"].firings
    assert scan is not None
    enough = [feature for feature in range(saes[layer].cfg.d_sae)
              if len(np.unique(scan.sequence[scan.of(feature)])) >= n_sequences]
    return [(layer, int(feature))
            for feature in np.sort(np.random.default_rng(0).permutation(enough)[:n])]


def estimators(
    model: Any, saes: Any, corpus: Any, sources: list[tuple[int, int]]
) -> dict[str, Any]:
    "Agreement of every estimator with the clamp, and its cost."
    layer, later = sources[0][0], [other for other in saes if other > sources[0][0]]
    index = torch.tensor([feature for _, feature in sources])
    def matrices(score: Callable[[int], torch.Tensor]) -> pd.DataFrame:
        parts = [
            pd.DataFrame(
                {"src_layer": layer, "src_feature": np.repeat(index.numpy(), values.shape[1]),
                 "tgt_layer": other, "tgt_feature": np.tile(np.arange(values.shape[1]), len(index)),
                 "pre_strength": values.ravel()}
            ) for other in later for values in [score(other).numpy()]
        ]
        return pd.concat(parts)
    def transport(conditional: bool) -> pd.DataFrame:
        found = transport_scores(model, saes, corpus, source_layers=[layer], target_layers=later,
                                 n_probes=2, conditional=conditional, progress=False)
        return matrices(lambda other: found.scores(layer, other, sources=index))
    common = {"n_samples": 100, "progress": False}
    methods: dict[str, Callable[[], pd.DataFrame]] = {
        "clamping": lambda: clamp_measure(model, saes, sources, corpus, **common).to_pandas(),
        "Jacobian": lambda: jacobian_measure(model, saes, sources, corpus, **common).to_pandas(),
        "integrated gradients (8 steps)": lambda: jacobian_measure(
            model, saes, sources, corpus, steps=8, **common
        ).to_pandas(),
        "LRP rules": lambda: jacobian_measure(
            model, saes, sources, corpus, rules="lrp", **common
        ).to_pandas(),
        "transport where the source fires": lambda: transport(True),
        "transport": lambda: transport(False),
        "direct path": lambda: matrices(
            lambda other: direct_path_scores(saes, layer, other, index)
        ),
    }
    rows, reference = {}, pd.DataFrame()
    for name, measure in methods.items():
        begin = time.perf_counter()
        table = measure()
        seconds = time.perf_counter() - begin
        if name == "clamping":
            reference = table[[*KEYS, "pre_strength", "strength", "pre_p_value", "q_value"]].rename(
            columns={"pre_strength": "clamped", "strength": "clamped_after"})
        both = reference.merge(
            table[[*KEYS, "pre_strength", *(["strength"] if "strength" in table else [])]], on=KEYS
        )
        rows[name] = {"seconds": seconds,
                      "by_distance": {str(distance): _agreement(part) for distance, part
                                      in both.groupby(both["tgt_layer"] - layer)}}
        shown = both.sample(600, random_state=0)
        rows[name]["scatter"] = {"clamped": shown["clamped"].round(4).tolist(),
                                 "estimated": shown["pre_strength"].round(4).tolist()}
        print(name, round(seconds, 1), rows[name]["by_distance"], flush=True)
    return rows


def _agreement(both: pd.DataFrame) -> dict[str, float]:
    known = both["pre_strength"].notna()
    sure = known & (both["pre_p_value"] < 0.001)
    found = {"n_pairs": int(known.sum()), "spearman": float(
                 stats.spearmanr(both["clamped"][known], both["pre_strength"][known]).statistic
             ), "sign_agreement": float(
                 (np.sign(both["clamped"]) == np.sign(both["pre_strength"]))[sure].mean()
             )}
    if "strength" in both:
        moved = both["q_value"] < 0.01
        found |= {"spearman_after_threshold": float(
                      stats.spearmanr(both["clamped_after"], both["strength"]).statistic
                  ), "sign_agreement_after_threshold": float(
                      (np.sign(both["clamped_after"]) == np.sign(both["strength"]))[moved].mean()
                  )}
    return found


def _jaccard(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / max((one | other).sum(), 1))


def stability(
    model: Any, saes: Any, corpus: Any, sources: list[tuple[int, int]], target_layers: list[int],
    sizes: list[int], only_sequential: bool = False
) -> list[dict[str, Any]]:
    "Jaccard index of the edge sets (q < 0.01) of two independent halves of the corpus, by design."
    order = torch.as_tensor(np.random.default_rng(1).permutation(len(corpus)))
    halves = [corpus.take(torch.sort(part).values) for part in (order[::2], order[1::2])]
    designs: list[dict[str, Any]] = [{"n_samples": n} for n in sizes]
    designs += [{"n_samples": n, "max_samples": 4 * n} for n in (25, 50)]
    if only_sequential: designs = designs[len(sizes):]
    rows = []
    for design in designs:
        for evidence in ("activation", "pre-activation"):
            # a fixed design takes the same samples for both
            if evidence == "activation" or "max_samples" in design:
                how = {**design, "target_layers": target_layers, "evidence": evidence,
                       "progress": False}
                tables = [clamp_measure(model, saes, sources, half, **how) for half in halves]
            columns = [dict(table.columns) for table in tables]
            for part in columns: decide(part, evidence=evidence)
            edges = [
                (part["q_value"] < 0.01) & (part["interaction_type"] != "none") for part in columns
            ]
            value = [
                part["strength" if evidence == "activation" else "pre_strength"] for part in columns
            ]
            strong = [mine & (np.abs(part) > 0.2) for mine, part in zip(edges, value, strict=True)]
            both = edges[0] & edges[1]
            row = {**design, "evidence": evidence,
                   "mean_samples": float(np.mean([part["n_samples"].mean() for part in columns])),
                   "n_edges": [int(mine.sum()) for mine in edges], "n_tested": len(edges[0]),
                   "jaccard": _jaccard(*edges), "jaccard_strong": _jaccard(*strong),
                   "by_target_layer": {str(layer): _jaccard(
                                           *(mine & (part["tgt_layer"] == layer)
                                             for mine, part in zip(edges, columns, strict=True))
                                       ) for layer in target_layers},
                   "sign_agreement": float((np.sign(value[0]) == np.sign(value[1]))[both].mean())
                   if both.any() else None, "predicted_jaccard": stability_of(
                       columns[0], 0.01, "fdr_bh", evidence, 3 if "max_samples" in design else 1
                   ).get("jaccard")}
            rows.append(row)
            print(row, flush=True)
    return rows


def main() -> None:
    parser = run_parser(__doc__)
    parser.add_argument(
        "--only-sequential", action="store_true",
        help="measure the sequential designs again, keep the rest of the results file"
    )
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    cfg = run_config(
        chosen.run, chosen.data, chosen.saes, 400_000 if chosen.run == "demo" else 390_000
    )
    model, saes = load_model_and_saes(cfg)
    corpus = load_corpus(cfg, model, saes)
    for_estimators = sources_of(model, saes, corpus, 1, 60, 200)
    for_stability = sources_of(model, saes, corpus, 1, 150, 900)
    later = sorted(layer for layer in saes if layer > 1)
    part = corpus.take(torch.arange(0, len(corpus), 6))
    settings = {"sources": len(for_estimators), "layer": 1, "n_samples": 100,
                "tokens_for_estimators": part.n_tokens, "sources_for_stability": len(for_stability),
                "tokens_for_stability": corpus.n_tokens, "level": 0.01, "threads": 1}
    reach, sizes = [later[0], later[-2] if len(later) > 2 else later[-1]], [25, 50, 100, 200, 400]
    rows = stability(model, saes, corpus, for_stability, reach, sizes, chosen.only_sequential)
    if chosen.only_sequential:
        numbers = json.loads((RESULTS / f"estimators_{chosen.run}.json").read_text())["numbers"]
        numbers["stability"] = [
            row for row in numbers["stability"] if "max_samples" not in row
        ] + rows
    else: numbers = {"estimators": estimators(model, saes, part, for_estimators), "stability": rows}
    write(f"estimators_{chosen.run}", settings, numbers)


if __name__ == "__main__":
    main()
