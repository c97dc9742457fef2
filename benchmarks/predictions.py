"""The five predictions made before anything was measured: each with its number, a 95 % interval
and a verdict by a rule stated beforehand.

`python benchmarks/predictions.py demo|stories260k|smollm2|gpt2-small` writes
`results/predictions_<name>.json`. One code path for all: random live sources of all layers but the
last, every feature of later layers as a target. gpt2-small needs the hub (or its cache) and hours
on a CPU. `RULES` says what decides; a verdict is "true" where the whole interval lies on the
predicted side of the bound, "false" where it lies on the other side, "undecided" in between.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from real_models import run_config, run_parser
from record import RESULTS, write
from scipy import stats
from scipy.special import gammaln

from feature_interaction_graph.activations import collect_activations
from feature_interaction_graph.analysis import degree_law, detect_communities, find_hubs
from feature_interaction_graph.circuits.graph import behavior_graph
from feature_interaction_graph.circuits.library import predefined_behavior, predefined_behaviors
from feature_interaction_graph.config import Config
from feature_interaction_graph.engine.encoders import sae_hook_point
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.engine.mechanisms import mlp_before
from feature_interaction_graph.engine.names import parse_feature_id
from feature_interaction_graph.engine.statistics import adjust
from feature_interaction_graph.features import FeatureTable, feature_table
from feature_interaction_graph.graph import build_interaction_graph
from feature_interaction_graph.interactions import clamp_measure
from feature_interaction_graph.loading import load_corpus, load_model_and_saes
from feature_interaction_graph.measurement.mechanisms import within_layer_measure
from feature_interaction_graph.structure.nulls import permuted_within
from feature_interaction_graph.subgraphs import extract_behavior_subgraph

ROOT = Path(__file__).parent.parent
LEVEL = 0.01
PLACEBO = 32          # random directions per source layer that effects are compared with
RULES = {
    "sparse": (
        "Share of all tested pairs (live targets of later layers) with q < 0.01 after "
        "Benjamini-Hochberg, change of the activation, 100 samples per source, that are specific "
        "as well (more than random pushes as long do, q < 0.01; so are the edges of all five, but "
        "those within a layer): true if its interval over sources lies below 1 %."
    ),
    "hubs": (
        "Heavy-tailed, for out-degree (edges per 1,000 tested targets) and for in-degree (last "
        "layer): what exceeds the start of the tail varies more than if it were exponential "
        "(standard deviation over that of a geometric of the same mean above 1), and a power law "
        "or lognormal beats the exponential by likelihood ratio, p < 0.05. General: the rank "
        "correlations, within layers, of out-degree with activation frequency and with breadth "
        "(different tokens in 20 firings) are above 0, for activation and for pre-activation "
        "edges. True if all of these hold, false if one is refuted."
    ),
    "signs": (
        "Across layers the share of excitatory edges is above 1/2; within a layer (through the "
        "MLP) it is at most 0.55: balanced or inhibitory. Both must hold for the change of the "
        "activation and for that of the pre-activation, because an activation that is 0 can only "
        "rise."
    ),
    "modular": (
        "Density of edges between the features of a behaviour's circuit, measured on the corpus, "
        "over that of random features in place of its targets (same layers, same fifth of "
        "in-degree, same sources): true if the interval of the pooled ratio lies above 1 and no "
        "single behaviour is below."
    ),
    "steering": (
        "R2 of single-context predictions on held-out contexts, best step that knows only what was "
        "measured on the corpus and the clean state of the context (no derivative taken there): "
        "true at a layer distance if the interval lies at or above 0.5; true overall if true at "
        "every distance, false if false at one."
    ),
}


def verdict(
    low: float | None, high: float | None, *, above: float | None = None, below: float | None = None
) -> str:
    """Whether the interval `low` to `high` lies `above` (or `below`) a bound: true, false, or
    undecided (it holds the bound, or there is no interval)."""
    if (above is None) == (below is None): raise ValueError("give one bound: above or below")
    if low is None or high is None or not np.isfinite([low, high]).all(): return "undecided"
    if above is not None: return "true" if low > above else "false" if high < above else "undecided"
    assert below is not None
    return "true" if high < below else "false" if low > below else "undecided"


def combine(verdicts: Sequence[str]) -> str:
    "All must hold: false if one is false, undecided if there is none or one is undecided."
    if "false" in verdicts: return "false"
    return "true" if verdicts and all(each == "true" for each in verdicts) else "undecided"


def number(
    value: float, low: float | None = None, high: float | None = None, **more: Any
) -> dict[str, Any]:
    def kept(one: float | None) -> float | None:
        return None if one is None or not np.isfinite(one) else float(one)
    return {"value": kept(value), "ci_low": kept(low), "ci_high": kept(high), **more}


def ratio(part: np.ndarray, whole: np.ndarray, n_boot: int = 2000, seed: int = 0) -> dict[str, Any]:
    """sum(part) / sum(whole) with the 95 % interval of drawing the clusters (one entry each) again.

    `part`: counts. Where all are 0 no draw can differ: the upper end is that of a Poisson count."""
    random, n = np.random.default_rng(seed), len(part)
    if n < 2 or not whole.sum():
        return number(part.sum() / whole.sum() if n and whole.sum() else np.nan, n_clusters=n)
    drawn = random.multinomial(n, np.full(n, 1 / n), size=n_boot)
    below = drawn @ whole
    values = (drawn @ part)[below > 0] / below[below > 0]
    low, high = np.percentile(values, [2.5, 97.5])
    if not part.any(): high = -np.log(0.025) / whole.sum()
    return number(part.sum() / whole.sum(), low, high, n_clusters=n)


# What the features are

def rarefied(counts: np.ndarray, size: int) -> float:
    """Expected number of different tokens in `size` of the firings (Hurlbert 1971): does not grow
    with how often a feature fires. NaN for fewer firings."""
    n = counts.sum()
    if n < size: return float("nan")
    def log_ways(total: np.ndarray | float) -> np.ndarray:
        return gammaln(np.asarray(total) + 1.0) - gammaln(np.asarray(total) - size + 1.0)
    left = n - counts
    missed = np.where(left >= size, np.exp(log_ways(np.maximum(left, size)) - log_ways(n)), 0.0)
    return float((1 - missed).sum())


def feature_facts(store: Any, size: int = 20) -> pd.DataFrame:
    "Layer, feature, frequency, number of sequences and breadth of every feature that fires."
    sequence, position = store.rows.T
    tokens, parts = store.corpus.tokens.numpy()[sequence, position], []
    for layer in store.layers:
        active = store.csr(layer).tocsc()
        for feature in range(active.shape[1]):
            rows = active.indices[active.indptr[feature]:active.indptr[feature + 1]]
            if len(rows):
                counts = np.unique(tokens[rows], return_counts=True)[1]
                parts.append((layer, feature, len(rows) / store.n_tokens,
                              len(np.unique(sequence[rows])), rarefied(counts, size)))
    return pd.DataFrame(parts, columns=["layer", "feature", "frequency", "n_sequences", "breadth"])


def random_sources(
    facts: pd.DataFrame, n: int, n_sequences: int, layers: Sequence[int], seed: int = 0
) -> list[tuple[int, int]]:
    "`n` features of `layers` at random, of those that fire in `n_sequences` sequences."
    able = facts[(facts["n_sequences"] >= n_sequences) & facts["layer"].isin(list(layers))]
    chosen = able.sample(min(n, len(able)), random_state=seed).sort_values(["layer", "feature"])
    return list(zip(chosen["layer"].tolist(), chosen["feature"].tolist(), strict=True))


def edges_among(
    columns: Mapping[str, np.ndarray], facts: pd.DataFrame, specific: bool = True
) -> pd.DataFrame:
    """The pairs with a live target, one row each, and whether they are edges (q < `LEVEL` over
    these pairs) by both kinds of evidence; `specific`: as well where other directions were pushed
    along, else significant alone."""
    names = ["src_layer", "src_feature", "tgt_layer", "tgt_feature", "strength", "strength_std",
             "pre_strength", "p_value", "pre_p_value", "n_samples"]
    compared = specific and "placebo_p_value" in columns
    if compared: names += ["placebo_p_value", "share_nonzero"]
    pairs = pd.DataFrame({name: columns[name] for name in names})
    live = pd.MultiIndex.from_frame(facts[["layer", "feature"]])
    pairs = pairs[
        pd.MultiIndex.from_frame(pairs[["tgt_layer", "tgt_feature"]]).isin(live)
    ].reset_index(drop=True)
    pairs["source"] = pairs["src_layer"] * 10**6 + pairs["src_feature"]
    pairs["target"] = pairs["tgt_layer"] * 10**6 + pairs["tgt_feature"]
    for evidence, prefix in (("activation", ""), ("pre-activation", "pre_")):
        pairs[evidence] = (adjust(pairs[f"{prefix}p_value"].to_numpy()) < LEVEL) & (
            pairs[f"{prefix}strength"] != 0
        )
        if not compared: continue
        family = pairs["placebo_p_value"].where((pairs["share_nonzero"] > 0) | (prefix == "pre_"))
        pairs[evidence] &= ~(adjust(family.to_numpy()) >= LEVEL)
    return pairs


def by_source(pairs: pd.DataFrame, found: pd.Series) -> dict[str, Any]:
    "Share of pairs in which `found`, clustered by source."
    groups = found.groupby(pairs["source"])
    return ratio(groups.sum().to_numpy(float), groups.size().to_numpy(float))


# 1: sparse

def sparse(
    pairs: pd.DataFrame, by_samples: Mapping[int, pd.DataFrame], n_all: int
) -> dict[str, Any]:
    shares: dict[str, Any] = {
        evidence: by_source(pairs, pairs[evidence]) for evidence in ("activation", "pre-activation")
    }
    for bound in (0.01, 0.03, 0.1, 0.3):
        shares[f"activation, |strength_std| >= {bound}"] = by_source(
            pairs, pairs["activation"] & (pairs["strength_std"].abs() >= bound)
        )
    shares["activation, all targets"] = number(pairs["activation"].sum() / n_all)
    samples = {
        str(n): {evidence: by_source(part, part[evidence])
                 for evidence in ("activation", "pre-activation")}
        | {"strong": by_source(part, part["activation"] & (part["strength_std"].abs() >= 0.1))}
        for n, part in by_samples.items()
    }
    distance = pairs["tgt_layer"] - pairs["src_layer"]
    distances = {str(each): {evidence: by_source(
                                 pairs[distance == each], pairs.loc[distance == each, evidence]
                             ) for evidence in ("activation", "pre-activation")}
                 for each in np.unique(distance)}
    main = shares["activation"]
    return {
        "n_pairs": len(pairs), "n_pairs_all_targets": n_all, "n_sources": pairs["source"].nunique(),
        "shares": shares, "by_samples": samples, "by_distance": distances,
        "verdict": verdict(main["ci_low"], main["ci_high"], below=0.01)
    }


# 2: heavy-tailed hubs that are general features

def heavy_tail(degrees: np.ndarray, seed: int = 0) -> dict[str, Any]:
    "Law of the tail; spread of what exceeds its start, in units of an exponential tail's; verdict."
    try: law = degree_law(degrees, n_boot=50, seed=seed)
    except InputError as error: return {"reason": str(error), "verdict": "undecided"}
    tail = degrees[degrees >= law.lowest] - law.lowest
    # a geometric of mean m has the variance m (1 + m)
    def spread_of(values: np.ndarray) -> np.ndarray:
        mean = values.mean(-1)
        return values.std(-1, ddof=1) / np.sqrt(np.maximum(mean * (1 + mean), 1e-12))
    drawn = np.random.default_rng(seed).choice(tail, (2000, len(tail)))
    spread = number(float(spread_of(tail)), *np.percentile(spread_of(drawn), [2.5, 97.5]))
    heavier = any(
        law.comparisons[f"{one}/exponential"][0] > 0
        and law.comparisons[f"{one}/exponential"][1] < 0.05 for one in ("power_law", "lognormal")
    )
    answer = verdict(spread["ci_low"], spread["ci_high"], above=1.0)
    return {
        "n": law.n, "lowest": law.lowest, "n_tail": law.n_tail, "median": float(np.median(degrees)),
        "largest": int(degrees.max()), "alpha": law.alpha, "p_fit": law.p_fit,
        "comparisons": {name: list(each) for name, each in law.comparisons.items()},
        "law": law.verdict, "spread": spread, "heavier_law_wins": heavier,
        "verdict": "undecided" if answer == "true" and not heavier else answer
    }


def _ranks(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    "Ranks within groups, from -1/2 to 1/2."
    ranked = np.zeros(len(values))
    for group in np.unique(groups):
        mine = groups == group
        ranked[mine] = (stats.rankdata(values[mine]) - 0.5) / mine.sum() - 0.5
    return ranked


def rank_correlation(
    one: np.ndarray, other: np.ndarray, groups: np.ndarray, given: np.ndarray | None = None,
    n_boot: int = 500, n_null: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Rank correlation within `groups` (of what is left after `given`), interval over features,
    p-value against `other` permuted within groups."""
    known = np.isfinite(one) & np.isfinite(other) & (True if given is None else np.isfinite(given))
    one, other, groups, given = (
        one[known], other[known], groups[known], None if given is None else given[known]
    )
    if known.sum() < 10: return number(np.nan, n=int(known.sum()))
    def correlation(rows: np.ndarray, order: np.ndarray | None = None) -> float:
        x = _ranks(one[rows], groups[rows])
        y = _ranks((other if order is None else other[order])[rows], groups[rows])
        if given is not None:
            z = _ranks(given[rows], groups[rows])
            x, y = x - z * (x @ z) / max(z @ z, 1e-12), y - z * (y @ z) / max(z @ z, 1e-12)
        return float(x @ y / max(np.sqrt((x @ x) * (y @ y)), 1e-12))
    random, rows = np.random.default_rng(seed), np.arange(len(one))
    drawn = [correlation(random.integers(len(rows), size=len(rows))) for _ in range(n_boot)]
    value = correlation(rows)
    null = np.array([correlation(rows, permuted_within(groups, random)) for _ in range(n_null)])
    return number(value, *np.percentile(drawn, [2.5, 97.5]), n=len(rows),
                  p_null=float((1 + (np.abs(null) >= abs(value)).sum()) / (n_null + 1)))


def degrees_of(pairs: pd.DataFrame, found: pd.Series, end: str) -> pd.DataFrame:
    "Edges and tested pairs of every source (or target)."
    groups = found.groupby(pairs[end])
    table = pd.DataFrame({"edges": groups.sum(), "tested": groups.size()})
    table["layer"], table["feature"] = table.index // 10**6, table.index % 10**6
    return table.reset_index(drop=True)


def hubs(pairs: pd.DataFrame, facts: pd.DataFrame, graph: Any) -> dict[str, Any]:
    last = pairs["tgt_layer"].max()
    out = degrees_of(pairs, pairs["activation"], "source")
    into = degrees_of(pairs, pairs["activation"], "target")
    tails = {"out": heavy_tail(np.round(1000 * out["edges"] / out["tested"]).to_numpy(int)),
             "in": heavy_tail(into.loc[into["layer"] == last, "edges"].to_numpy(int))}
    kinds = {"activation": pairs["activation"], "pre-activation": pairs["pre-activation"],
             "activation, |strength_std| >= 0.1": pairs["activation"] & (
                 pairs["strength_std"].abs() >= 0.1
             )}
    correlations: dict[str, Any] = {}
    for end, name in (("source", "out"), ("target", "in")):
        for kind, found in kinds.items():
            table = degrees_of(pairs, found, end).merge(facts, on=["layer", "feature"])
            share, layer = (table["edges"] / table["tested"]).to_numpy(), table["layer"].to_numpy()
            frequency, breadth = table["frequency"].to_numpy(), table["breadth"].to_numpy()
            # 4,000 targets need fewer draws than 200 sources
            few = {} if name == "out" else {"n_boot": 100, "n_null": 100}
            correlations[f"{name}-degree, {kind}"] = {
                "frequency": rank_correlation(share, frequency, layer, **few),
                "breadth": rank_correlation(share, breadth, layer, **few),
                "breadth given frequency": rank_correlation(
                    share, breadth, layer, frequency, **few
                ),
                "frequency given breadth": rank_correlation(share, frequency, layer, breadth, **few)
            }
    listed = {}
    for end in ("out", "in"):
        rows = find_hubs(graph, 10, f"{end}_degree", n_boot=100, n_null=20).to_dict()["hubs"]
        for row in rows:
            mine = facts[(facts["layer"] == row["layer"]) & (
                             facts["feature"] == parse_feature_id(row["node"])[1]
                         )]
            peers = facts[facts["layer"] == row["layer"]]
            row["frequency_percentile"] = float(
                (peers["frequency"] < mine["frequency"].iloc[0]).mean()
            )
            row["breadth_percentile"] = float(
                (peers["breadth"] < mine["breadth"].iloc[0]).sum() / peers["breadth"].notna().sum()
            )
        listed[end] = rows
    ruling = [correlations[f"out-degree, {kind}"][what] for kind in ("activation", "pre-activation")
              for what in ("frequency", "breadth")]
    general = combine([verdict(each["ci_low"], each["ci_high"], above=0.0) for each in ruling])
    heavy = combine([tail["verdict"] for tail in tails.values()])
    return {"tails": tails, "correlations": correlations, "hubs": listed,
            "n_samples": [int(pairs["n_samples"].min()), int(pairs["n_samples"].max())],
            "heavy": heavy, "general": general, "verdict": combine([heavy, general])}


# 3: signs across and within layers

def excitatory_share(
    pairs: pd.DataFrame, evidence: str, n_null: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Share of excitatory edges, interval over sources, and p-value against turning all signs of a
    source around at random."""
    edges = pairs[pairs[evidence]]
    up = edges["strength" if evidence == "activation" else "pre_strength"] > 0
    groups = up.groupby(edges["source"])
    excited, size = groups.sum().to_numpy(float), groups.size().to_numpy(float)
    found = ratio(excited, size)
    if found["value"] is None: return found | {"n_edges": 0}
    turned = np.random.default_rng(seed).random((n_null, len(size))) < 0.5
    null = (turned @ (size - excited) + (~turned) @ excited) / size.sum()
    p_null = float((1 + (np.abs(null - 0.5) >= abs(found["value"] - 0.5)).sum()) / (n_null + 1))
    return found | {"n_edges": len(edges), "p_null": p_null, "null_std": float(null.std())}


def signs(across: pd.DataFrame, within: pd.DataFrame) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    answers = []
    for evidence in ("activation", "pre-activation"):
        numbers[evidence] = {"across": excitatory_share(across, evidence),
                             "within": excitatory_share(within, evidence),
                             "density_within": by_source(within, within[evidence]),
                             "density_across": by_source(across, across[evidence])}
        answers += [verdict(*(numbers[evidence]["across"][end] for end in ("ci_low", "ci_high")),
                            above=0.5),
                    verdict(*(numbers[evidence]["within"][end] for end in ("ci_low", "ci_high")),
                            below=0.55)]
        for place, part in (("across", across), ("within", within)):
            strong = part[part["strength_std"].abs() >= 0.1] if evidence == "activation" else None
            if strong is not None:
                numbers[evidence][f"{place}, |strength_std| >= 0.1"] = excitatory_share(
                    strong, evidence
                )
    distance = across["tgt_layer"] - across["src_layer"]
    numbers["by_distance"] = {str(each): {
                                  evidence: excitatory_share(across[distance == each], evidence)
                                  for evidence in ("activation", "pre-activation")
                              } for each in np.unique(distance)}
    return numbers | {
        "verdict": combine(answers), "verdicts": dict(
            zip(("across", "within", "across, pre", "within, pre"), answers, strict=True)
        )
    }


# 4: modular behaviours

def circuits(run: str, model: Any, saes: Any, n_behaviors: int) -> dict[str, dict[str, Any]]:
    """Circuits found by benchmarks/behaviors.py in the same SAEs; where there is none, of up to
    `n_behaviors` ready-made behaviours that the model has."""
    path, known = RESULTS / "behaviors.json", {}
    if run == "smollm2":
        path = RESULTS / "smollm2_behaviors.json"
        found = json.loads(path.read_text())["numbers"]
        return {name: {"nodes": [node["id"] for node in each["nodes"]],
                       "from": f"results/{path.name}"}
                for name, each in found.items() if "nodes" in each}
    if path.is_file() and run in ("demo", "stories260k"):
        found = json.loads(path.read_text())["numbers"]
        mine = ({"pronoun": found["stories260k"]} if run == "stories260k" and "stories260k" in found
                else found if run == "demo" else {})
        known = {name: {"nodes": [node["id"] for node in each["nodes"]],
                        "from": "results/behaviors.json"} for name, each in mine.items()
                 if name != "stories260k" and "nodes" in each}
    if len(known) >= min(n_behaviors, 3) or run == "stories260k": return known
    for name in [name for name in predefined_behaviors(model) if name not in known]:
        if len(known) >= n_behaviors: break
        try:
            behavior = predefined_behavior(name, model, 48)
            graph = behavior_graph(model, saes, behavior, n_features=150, n_samples=30)
            nodes = extract_behavior_subgraph(
                model, saes, graph, behavior, budget=60, target=0.8, n_exact=30, steps=3
            ).nodes
        except InputError as error:
            print(name, "left out:", error, flush=True)
            continue
        known[name] = {"nodes": list(nodes),
                       "from": "found here: 150 features, 48 prompts, faithfulness 0.8, at most 60"}
        print(name, len(nodes), "features", flush=True)
    return known


def density_inside(
    found: np.ndarray, layers: np.ndarray, source_layers: np.ndarray, inside: np.ndarray,
    bins: np.ndarray, n_null: int = 500, seed: int = 0
) -> dict[str, Any]:
    """Density of edges from the sources (rows of `found`) to the targets `inside`, over that of
    random targets of the same layer and bin.

    `found` [n_sources, n_targets]: edges; a pair counts where the target's layer is later.
    `layers`, `bins`, `inside`: of the targets.
    """
    random, later = np.random.default_rng(seed), layers[None] > source_layers[:, None]
    chosen = np.flatnonzero(inside)
    pools = [
        np.flatnonzero((layers == layers[each]) & (bins == bins[each]) & ~inside) for each in chosen
    ]
    kept = np.array([len(pool) > 0 for pool in pools])
    chosen, pools = chosen[kept], [pool for pool in pools if len(pool)]
    edges, tested = (found & later)[:, chosen].sum(1), later[:, chosen].sum(1)
    draws = np.array([[pool[random.integers(len(pool))] for pool in pools] for _ in range(n_null)])
    # [n_null, n_sources]
    null = np.array([(found[:, drawn] & later[:, drawn]).sum(1) for drawn in draws])
    outside = later & ~inside[None]
    used = tested > 0
    expected, total = null.mean(0)[used], null.sum(1)
    return {"n_targets": len(chosen), "n_sources": int(used.sum()),
            "inside": ratio(edges[used].astype(float), tested[used].astype(float)),
            "outside": ratio(
                (found & outside).sum(1)[used].astype(float), outside.sum(1)[used].astype(float)
            ), "random": float(total.sum() / max(n_null * tested.sum(), 1)),
            "over_random": ratio(edges[used].astype(float), expected),
            "p_null": float((1 + (total >= edges.sum()).sum()) / (n_null + 1)),
            "_clusters": (edges[used].astype(float), expected)}


def modular(model: Any, saes: Any, corpus: Any, pairs: pd.DataFrame, facts: pd.DataFrame,
            found: Mapping[str, dict[str, Any]], n_samples: int) -> dict[str, Any]:
    degree = degrees_of(pairs, pairs["activation"], "target")
    degree["bin"] = (degree["edges"] / degree["tested"]).groupby(degree["layer"]).transform(
        lambda share: np.minimum((5 * (stats.rankdata(share) - 0.5) / len(share)).astype(int), 4))
    bins = degree.set_index(["layer", "feature"])["bin"]
    able = {(row.layer, row.feature)
            for row in facts[facts["n_sequences"] >= max(20, n_samples // 2)].itertuples()}
    rows: dict[str, Any] = {}
    pooled: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"edges": [], "strong edges": []}
    for name, circuit in found.items():
        members = [parse_feature_id(node) for node in circuit["nodes"]]
        sources = sorted(each for each in members if each in able and each[0] < max(saes))
        if len(sources) < 2: continue
        table = edges_among(clamp_measure(model, saes, sources, corpus, n_samples=n_samples, seed=1,
                                          placebo=PLACEBO, progress=False).columns, facts)
        targets = pd.MultiIndex.from_frame(
            table[["tgt_layer", "tgt_feature"]]
        ).unique().intersection(bins.index, sort=False)
        row_of = pd.DataFrame(
            {"row": range(len(sources))}, index=pd.MultiIndex.from_tuples(sources)
        )
        column_of = pd.DataFrame({"column": range(len(targets))}, index=targets)
        place = table.merge(row_of, left_on=["src_layer", "src_feature"], right_index=True).merge(
            column_of, left_on=["tgt_layer", "tgt_feature"], right_index=True)
        layers, inside = targets.get_level_values(0).to_numpy(), targets.isin(members)
        rows[name] = {
            "n_members": len(members), "n_measured": len(sources), "from": circuit["from"]
        }
        for kind in pooled:
            matrix = np.zeros((len(sources), len(targets)), dtype=bool)
            mine = place[
                place["activation"] & ((kind == "edges") | (place["strength_std"].abs() >= 0.1))
            ]
            matrix[mine["row"], mine["column"]] = True
            rows[name][kind] = density_inside(
                matrix, layers, np.array([layer for layer, _ in sources]), inside,
                bins.loc[targets].to_numpy()
            )
            pooled[kind].append(rows[name][kind].pop("_clusters"))
        over = rows[name]["edges"]["over_random"]
        rows[name]["verdict"] = verdict(over["ci_low"], over["ci_high"], above=1.0)
        print(name, rows[name], flush=True)
    if not rows:
        return {"behaviors": {}, "verdict": "undecided",
                "reason": "no circuit with two features that fire often enough"}
    whole = {kind: ratio(np.concatenate([one for one, _ in parts]),
                         np.concatenate([other for _, other in parts]))
             for kind, parts in pooled.items()}
    answer = verdict(whole["edges"]["ci_low"], whole["edges"]["ci_high"], above=1.0)
    if any(row["verdict"] == "false" for row in rows.values()):
        answer = "false" if answer == "false" else "undecided"
    return {"behaviors": rows, "pooled": whole, "verdict": answer}


# 5: steering

def steering(run: str) -> dict[str, Any]:
    "Read from results/prediction_<run>.json."
    path = RESULTS / f"prediction_{run}.json"
    if not path.is_file():
        return {"verdict": "undecided", "reason": f"results/{path.name} has not been written yet"}
    return judge_steering(json.loads(path.read_text())["numbers"])


def judge_steering(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """The best step of `single_context` at every distance that takes no derivative in the context,
    and whether half of the variance is explained there."""
    steps: dict[str, dict[str, dict[str, float]]] = {
        step: {distance: each for distance, each in by_distance.items()
               if isinstance(each, dict) and "r2" in each}
        for step, by_distance in numbers["single_context"].items() if isinstance(by_distance, dict)
    }
    from_corpus = {step: each for step, each in steps.items() if "derivative" not in step}
    distances = sorted({distance for each in steps.values() for distance in each},
                       key=lambda distance: (len(distance), distance))
    rows = {}
    for distance in distances:
        step = max((name for name in from_corpus if distance in steps[name]),
                   key=lambda name: steps[name][distance]["r2"])
        best = steps[step][distance]
        rows[distance] = {"step": step, **number(best["r2"], best["ci_low"], best["ci_high"]),
                          "verdict": verdict(best["ci_low"], best["ci_high"], above=0.5)}
    return {
        "best": rows, "steps": {
            step: {distance: number(each["r2"], each.get("ci_low"), each.get("ci_high"))
                   for distance, each in by_distance.items()} for step, by_distance in steps.items()
        }, "averaged": numbers.get("averaged", {}),
        "verdict": combine([row["verdict"] for row in rows.values()])
    }


# All together

def predictions(run: str, cfg: Config, n_sources: int, n_samples: int, n_behaviors: int,
                sample_sizes: Sequence[int], n_few: int) -> tuple[dict, dict]:
    "Settings and numbers of all five."
    begin = time.perf_counter()
    def timed(what: str) -> None: print(f"{time.perf_counter() - begin:6.0f} s  {what}", flush=True)
    model, saes = load_model_and_saes(cfg)
    corpus = load_corpus(cfg, model, saes)
    with tempfile.TemporaryDirectory() as folder:
        store = collect_activations(
            model, saes, cfg.replace(output_dir=folder, importance_method="frequency"), corpus,
            progress=False
        )
        facts, features = feature_facts(store), feature_table(store, model.tokenizer)
    timed(f"{len(facts)} live features")
    layers = sorted(saes)[:-1]
    sources = random_sources(facts, n_sources, n_samples, layers)
    if len(sources) < 10:
        raise InputError(f"only {len(sources)} features fire in {n_samples} sequences; give more "
                         "tokens or fewer samples.")
    table = clamp_measure(model, saes, sources, corpus, n_samples=n_samples, placebo=PLACEBO,
                          progress=False)
    pairs = edges_among(table.columns, facts)
    timed(f"{len(pairs):,} pairs")
    few = random_sources(facts, n_few, max(sample_sizes), layers, seed=1)
    measured = {n: clamp_measure(model, saes, few, corpus, n_samples=n, placebo=PLACEBO,
                                 progress=False) for n in sample_sizes}
    by_samples = {n: edges_among(rows.columns, facts) for n, rows in measured.items()}
    timed("sample sizes")
    inside = [(layer, feature) for layer, feature in sources
              if mlp_before(sae_hook_point(saes[layer])) is not None]
    within = edges_among(within_layer_measure(
                             model, saes, inside, corpus, n_samples=n_samples, progress=False
                         ).columns, facts)
    timed(f"{len(within):,} pairs within layers")
    graph = build_interaction_graph(table, None, features)
    numbers: dict[str, Any] = {}
    def keep(name: str, make: Callable[[], dict[str, Any]]) -> None:
        numbers[name] = make()
        timed(f"{name}: {numbers[name]['verdict']}")
    keep("sparse", lambda: sparse(pairs, by_samples, len(table)))
    keep("hubs", lambda: hubs(pairs, facts, graph))
    keep("signs", lambda: signs(pairs, within))
    alone = edges_among(table.columns, facts, specific=False)
    counted = {n: edges_among(rows.columns, facts, specific=False)
               for n, rows in measured.items()}
    significant = {"sparse": sparse(alone, counted, len(table)), "hubs": hubs(alone, facts, graph),
                   "signs": signs(alone, within)}
    keep("modular", lambda: modular(model, saes, corpus, pairs, facts,
                                    circuits(run, model, saes, n_behaviors), n_samples // 2))
    numbers["modular"]["communities"] = communities_among(table, sources, features)
    keep("steering", lambda: steering(run))
    numbers["significant"] = significant
    able = facts[facts["layer"].isin(layers)]
    settings = {
        "n_sources": len(sources), "n_samples": n_samples, "n_tokens": corpus.n_tokens,
        "n_live": len(facts), "level": LEVEL, "rules": RULES,
        "share_of_live_that_can_be_sources": float((able["n_sequences"] >= n_samples).mean()),
        "n_sources_sample_sizes": len(few), "sources_by_layer": {
            str(layer): sum(each == layer for each, _ in sources) for layer in layers
        }, "seconds": time.perf_counter() - begin
    }
    return settings, numbers


def communities_among(
    table: Any, sources: Sequence[tuple[int, int]], features: FeatureTable
) -> dict[str, Any]:
    """Modularity of the graph among the random sources (all of its pairs were tested), against
    rewired graphs."""
    chosen = set(sources)
    columns = table.columns
    ends = zip(columns["tgt_layer"].tolist(), columns["tgt_feature"].tolist(), strict=True)
    try:
        graph = build_interaction_graph(
            table.where(np.array([end in chosen for end in ends])), None, features
        )
        found = detect_communities(graph, n_seeds=3, n_null=10, weight="strength_std")
    except InputError as error: return {"reason": str(error)}
    return {
        "n_nodes": len(graph), "n_edges": graph.number_of_edges(),
        "modularity": found.modularity.to_dict(), "n_communities": found.n_communities.to_dict()
    }


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = run_parser(__doc__, ("demo", "stories260k", "smollm2", "gpt2-small"))
    parser.add_argument("--dataset", help="text file or hub dataset in place of the run's own")
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--sources", type=int, help="default 150, for gpt2-small 60")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--behaviors", type=int, default=6)
    parser.add_argument(
        "--few", type=int, default=20, help="sources measured with other numbers of samples"
    )
    parser.add_argument("--only-steering", action="store_true",
                        help="read the steering numbers again, keep the rest of the results file")
    chosen = parser.parse_args(words)
    own = chosen.run in ("stories260k", "smollm2")
    if not own and chosen.saes != parser.get_default("saes"):
        parser.error("--saes is for stories260k and smollm2; the other runs know their SAEs.")
    for name, least in (
        ("tokens", 1000), ("sources", 10), ("samples", 10), ("behaviors", 1), ("few", 10)
    ):
        value = getattr(chosen, name)
        if value is not None and value < least:
            parser.error(f"--{name} is {value}; give {least} or more.")
    if chosen.sources is None: chosen.sources = 60 if chosen.run == "gpt2-small" else 150
    return chosen


def main(words: Sequence[str] | None = None) -> None:
    chosen = arguments(words)
    torch.set_num_threads(1)
    name = f"predictions_{chosen.run.replace('-', '_')}"
    if chosen.only_steering:
        path = RESULTS / f"{name}.json"
        if not path.is_file():
            raise SystemExit(
                f"results/{path.name} is not there yet; run without --only-steering first."
            )
        before = json.loads(path.read_text())
        before["numbers"]["steering"], before["settings"]["rules"] = steering(chosen.run), RULES
        path.write_text(json.dumps(before, indent=1) + "\n")
        return
    try:
        n_tokens = chosen.tokens or (200_000 if chosen.run == "gpt2-small" else 120_000)
        cfg = run_config(chosen.run, chosen.data, chosen.saes, n_tokens, chosen.dataset)
        sizes = (chosen.samples // 4, chosen.samples // 2, chosen.samples, 2 * chosen.samples)
        settings, numbers = predictions(
            chosen.run, cfg, chosen.sources, chosen.samples, chosen.behaviors, sizes, chosen.few
        )
    except InputError as error: raise SystemExit(str(error)) from error
    write(name, settings, numbers)


if __name__ == "__main__":
    main()
