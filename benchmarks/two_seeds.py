"""The demo model trained twice: do two seeds learn the same features, and wire them alike?

`python benchmarks/two_seeds.py --folder FOLDER` trains a second demo model with seed 1, and its
SAEs, into FOLDER with `tools/make_demo.py` (weights, stories and SAEs differ in seed; an hour on
one core; what is there already is not made again), matches the features of both, measures both
graphs in the same way and compares them. Writes `results/two_seeds.json`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import torch
from record import write

from feature_interaction_graph.activations import collect_activations
from feature_interaction_graph.analysis import cluster_roles, compare_graphs, match_features
from feature_interaction_graph.config import Config
from feature_interaction_graph.engine.names import parse_feature_id
from feature_interaction_graph.features import FeatureTable, feature_table
from feature_interaction_graph.graph import build_interaction_graph
from feature_interaction_graph.interactions import clamp_measure
from feature_interaction_graph.loading import check_reconstruction, load_corpus, load_model_and_saes
from feature_interaction_graph.measurement.table import InteractionTable
from feature_interaction_graph.structure.comparison import compare_effects
from feature_interaction_graph.structure.matching import FeatureMatching, Side, activation_matrix
from feature_interaction_graph.structure.roles import assign_roles, role_graph

ROOT = Path(__file__).parent.parent


def train(folder: Path, steps: int) -> None:
    "The stages of `tools/make_demo.py`; finished ones are skipped."
    if not (folder / "model" / "model.safetensors").exists():
        _make("model", folder, "--work", str(folder / "work"), "--steps", str(steps))
    _make("saes", folder)
    record = folder / "training.json"
    if "sae_quality" not in json.loads(record.read_text()): _make("report", folder)


def _make(stage: str, folder: Path, *more: str) -> None:
    subprocess.run([sys.executable, str(ROOT / "tools" / "make_demo.py"), stage, "--out",
                    str(folder), "--seed", "1", *more], check=True)


def labelled(cfg: Config, model: Any, saes: Any, corpus: Any) -> FeatureTable:
    "Statistics and labels of every feature."
    with tempfile.TemporaryDirectory() as folder:
        return feature_table(
            collect_activations(
                model, saes, replace(cfg, output_dir=folder, importance_method="frequency"), corpus,
                progress=False
            )
        )


def matched_share(
    matching: FeatureMatching, labels: list[FeatureTable], random: np.random.Generator
) -> dict[str, Any]:
    """How many features match, and, as a check that played no part in it, how many pairs carry the
    same label; partners permuted within layers beside it."""
    name = [
        {(int(layer), int(feature)): label for layer, feature, label
         in zip(table["layer"], table["feature"], table["label"], strict=True)} for table in labels
    ]
    def same(pairs: list[tuple[str, str]]) -> float:
        return float(np.mean([name[0][parse_feature_id(a)] == name[1][parse_feature_id(b)]
                              for a, b in pairs]))
    pairs = list(matching.pairs.items())
    layers = np.array([parse_feature_id(a)[0] for a, _ in pairs])
    permuted = []
    for _ in range(20 if pairs else 0):
        partner = np.arange(len(pairs))
        for layer in np.unique(layers):
            partner[layers == layer] = random.permutation(partner[layers == layer])
        permuted.append(same([(pairs[i][0], pairs[j][1]) for i, j in enumerate(partner.tolist())]))
    return {"by": matching.by, "assigned": len(matching.one), "accepted": len(pairs),
            "threshold": matching.threshold, "error": matching.error,
            "by_layer": {str(layer): list(counts) for layer, counts in matching.by_layer().items()},
            "same_label": same(pairs) if pairs else None,
            "same_label_permuted": float(np.mean(permuted)) if pairs else None,
            "median_score": float(np.median(matching.score)),
            "median_null": float(np.median(matching.null_scores)), "label_by_score": [
                {"from": low, "n": len(part), "same_label": same(part) if part else None}
                for low in (0.0, 0.2, 0.4, 0.6, 0.8, 0.95) for part in [_between(matching, low)]
            ], "scores": np.histogram(matching.score, np.linspace(-0.2, 1, 61))[0].tolist(),
            "null_scores": (
                np.histogram(matching.null_scores, np.linspace(-0.2, 1, 61))[0] / matching.n_null
            ).tolist()}


def _between(matching: FeatureMatching, low: float) -> list[tuple[str, str]]:
    "Assigned pairs, accepted or not, with scores from `low` to the next level."
    levels = (0.0, 0.2, 0.4, 0.6, 0.8, 0.95, 1.01)
    rows = (matching.score >= low) & (matching.score < levels[levels.index(low) + 1])
    return list(zip(matching.one[rows].tolist(), matching.other[rows].tolist(), strict=True))


def by_threshold(
    one: nx.DiGraph, other: nx.DiGraph, matching: FeatureMatching
) -> list[dict[str, float]]:
    "Edge overlap among features that match at least so well."
    rows = []
    for least in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95):
        rows_in = matching.score >= max(least, matching.threshold)
        pairs = dict(
            zip(matching.one[rows_in].tolist(), matching.other[rows_in].tolist(), strict=True)
        )
        found = compare_graphs(
            one, other, pairs, weight="strength_std", n_null=10, n_bootstrap=100, roles=False
        )
        rows.append({"least": least, "features": found.counts["shared"],
                     **{name: getattr(found["jaccard"], name) for name in ("value", "low", "high")},
                     "permuted": found["jaccard"].permuted.null_mean,
                     "rewired": found["jaccard"].rewired.null_mean if found["jaccard"].rewired
                     else None, "sign_agreement": found["sign_agreement"].value})
    return rows


def numbers_of(found: Any) -> dict[str, Any]:
    "A comparison as plain numbers, without the lists."
    return {"counts": found.counts, "agreements": found.to_dict()["agreements"],
            "spectra": found.spectra, "in_words": str(found)}


def by_distance(
    one: nx.DiGraph, other: nx.DiGraph, pairs: dict[str, str]
) -> dict[str, dict[str, float]]:
    "Jaccard index and sign agreement of the edges between matched features, by layer distance."
    back = {b: a for a, b in pairs.items() if a in one and b in other}
    forth = {a: b for b, a in back.items()}
    edges = [{(a, b): edge["strength"] for a, b, edge in one.edges(data=True)
              if a in forth and b in forth},
             {(back[a], back[b]): edge["strength"] for a, b, edge in other.edges(data=True)
              if a in back and b in back}]
    def distance(edge: tuple[str, str]) -> int:
        return parse_feature_id(edge[1])[0] - parse_feature_id(edge[0])[0]
    rows = {}
    for step in range(1, 5):
        here, there = ({edge for edge in some if distance(edge) == step} for some in edges)
        common = here & there
        if here | there:
            rows[str(step)] = {"edges_1": len(here), "edges_2": len(there),
                               "jaccard": len(common) / len(here | there), "sign_agreement": float(
                                   np.mean([edges[0][edge] * edges[1][edge] > 0 for edge in common])
                               ) if common else float("nan")}
    return rows


def strength_of_common(
    one: nx.DiGraph, other: nx.DiGraph, pairs: dict[str, str]
) -> list[dict[str, float]]:
    """Of the edges of one graph between matched features, in five classes of |strength_std|: how
    many the other has, with the same sign."""
    rows = [(abs(edge["strength_std"]), other.has_edge(pairs[a], pairs[b])
             and other.edges[pairs[a], pairs[b]]["strength"] * edge["strength"] > 0)
            for a, b, edge in one.edges(data=True) if pairs.get(a) in other
            and pairs.get(b) in other and np.isfinite(edge["strength_std"])]
    rows.sort()
    return [
        {"strength_std": float(np.median([size for size, _ in part])),
         "found": float(np.mean([hit for _, hit in part])), "n": len(part)}
        for part in (rows[i * len(rows) // 5:(i + 1) * len(rows) // 5] for i in range(5)) if part
    ]


def telling(
    one: nx.DiGraph, other: nx.DiGraph, pairs: dict[str, str], n: int = 8
) -> dict[str, list[dict[str, Any]]]:
    """The strongest edges (in standard deviations) of the first graph between features of different
    labels: those the second has too, and those it has not."""
    rows: dict[str, list[dict[str, Any]]] = {"common": [], "missing": []}
    label = dict(one.nodes(data="label"))
    for a, b, edge in sorted(one.edges(data=True), key=lambda edge: -abs(edge[2]["strength_std"])):
        if pairs.get(a) not in other or pairs.get(b) not in other or label[a] == label[b]: continue
        there = other.get_edge_data(pairs[a], pairs[b])
        rows["missing" if there is None else "common"].append(
            {"edge": f"{label[a]} -> {label[b]}", "strength_std": edge["strength_std"],
             "other": None if there is None else there["strength_std"]}
        )
    return {kind: some[:n] for kind, some in rows.items()}


def measured(
    model: Any, saes: Any, sources: list[str], corpus: Any, features: FeatureTable, n_samples: int
) -> tuple[InteractionTable, nx.DiGraph]:
    "Every feature of every later layer as target."
    table = clamp_measure(model, saes, [parse_feature_id(source) for source in sources], corpus,
                          n_samples=n_samples, progress=False)
    graph = build_interaction_graph(table, features=features)
    # targets that fire nowhere in this text
    silent = [(a, b) for a, b, size in graph.edges(data="strength_std") if not np.isfinite(size)]
    graph.remove_edges_from(silent)
    graph.remove_nodes_from([node for node in list(graph) if not graph.degree(node)])
    return table, graph


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "outputs" / "demo_seed1")
    parser.add_argument("--steps", type=int, default=5000,
                        help="training steps of the second model; the embedded one had 5000")
    parser.add_argument(
        "--sources", type=int, default=150, help="matched features per layer that are clamped"
    )
    parser.add_argument("--tokens", type=int, default=60_000)
    parser.add_argument("--least", type=float, default=0.5,
                        help="correlation from which two features count as the same")
    parser.add_argument("--n-samples", type=int, default=60)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    train(chosen.folder, chosen.steps)
    begin, random = time.perf_counter(), np.random.default_rng(0)
    cfg = Config.preset("demo", n_tokens=2 * chosen.tokens)
    # The check reads a page of English, of which this model knows no word; it is made below, on
    # stories.
    second = replace(cfg, model_name=str(chosen.folder / "model"),
                     sae_release=str(chosen.folder / "saes"), check_reconstruction=False)
    sides = [load_model_and_saes(cfg), load_model_and_saes(second)]
    whole = load_corpus(cfg, *sides[0])
    halves = [whole.take(torch.arange(start, len(whole), 2)) for start in (0, 1)]
    check_reconstruction(*sides[1], halves[0].take(torch.arange(20)))
    labels = [labelled(cfg, *side, halves[0]) for side in sides]
    print(f"labelled after {time.perf_counter() - begin:.0f} s", flush=True)
    one, other = (Side(saes, model) for model, saes in sides)
    matching = match_features(one, other, "activation", halves[0], least=chosen.least)
    again = match_features(one, other, "activation", halves[1], least=chosen.least)
    by_decoder = match_features(Side(sides[0][1]), Side(sides[1][1]), "decoder")
    print(matching, by_decoder, f"{time.perf_counter() - begin:.0f} s", sep="\n", flush=True)
    last = max(sides[0][1])
    layers = {layer: [a for a in matching.pairs if parse_feature_id(a)[0] == layer]
              for layer in sides[0][1] if layer != last}
    firing = [{layer: np.diff(part.indptr)
               for layer, part in activation_matrix(*side, list(layers), halves[1]).items()}
              for side in sides]
    def often(a: str, b: str) -> bool:
        (layer, i), (_, j) = parse_feature_id(a), parse_feature_id(b)
        return bool(min(firing[0][layer][i], firing[1][layer][j]) >= 40)
    layers = {
        layer: [a for a in some if often(a, matching.pairs[a])] for layer, some in layers.items()
    }
    sources = [a for some in layers.values() for a
               in np.array(some)[np.sort(random.permutation(len(some))[:chosen.sources])].tolist()]
    tables, graphs = [], []
    for side, names, text, table in ((sides[0], sources, halves[0], labels[0]),
                                     (sides[1], [matching.pairs[a] for a in sources], halves[0],
                                      labels[1]), (sides[0], sources, halves[1], labels[0])):
        found, graph = measured(*side, names, text, table, chosen.n_samples)
        tables.append(found)
        graphs.append(graph)
        print(f"{len(found):,} effects, {graph.number_of_edges():,} edges, "
              f"{time.perf_counter() - begin:.0f} s", flush=True)
    pairs, identity = matching.pairs, {node: node for node in graphs[0]}
    how: dict[str, Any] = {"weight": "strength_std", "n_null": 25}
    between = compare_graphs(graphs[0], graphs[1], matching, roles=False, **how)
    within = compare_graphs(graphs[0], graphs[2], roles=False, **how)
    print(between, within, f"{time.perf_counter() - begin:.0f} s", sep="\n", flush=True)
    # Out-degrees and roles only where they are known: among the features that were clamped, and the
    # last layer, which nobody has to clamp.
    kept = {*sources, *(a for a in pairs if parse_feature_id(a)[0] == last)}
    square = [graphs[0].subgraph(kept).copy(), graphs[1].subgraph([pairs[a] for a in kept]).copy(),
              graphs[2].subgraph(kept).copy()]
    for graph in square:
        graph.remove_nodes_from([node for node in list(graph) if not graph.degree(node)])
    jobs = compare_graphs(square[0], square[1], matching, **how)
    jobs_again = compare_graphs(square[0], square[2], **how)
    print(jobs, jobs_again, f"{time.perf_counter() - begin:.0f} s", sep="\n", flush=True)
    roles = [cluster_roles(graph, n_null=10) for graph in square[:2]]
    print(*roles, f"{time.perf_counter() - begin:.0f} s", sep="\n", flush=True)
    numbers = {
        "training": [{name: json.loads(path.read_text())[name] for name
                      in ("seed", "steps", "held_out_loss", "generator_entropy", "sae_quality")}
                     for path in (ROOT / "feature_interaction_graph" / "demo" / "training.json",
                                  chosen.folder / "training.json")],
        "matching": [matched_share(one, labels, random) for one in (matching, by_decoder)],
        "matched_again": float(np.mean([again.pairs.get(a) == b for a, b in pairs.items()
                                        if a in set(again.one.tolist())])),
        "by_threshold": by_threshold(graphs[0], graphs[1], matching), "seeds": numbers_of(between),
        "halves": numbers_of(within),
        "square": {"seeds": numbers_of(jobs), "halves": numbers_of(jobs_again)},
        "effects": {"seeds": compare_effects(tables[0], tables[1], matching),
                    "halves": compare_effects(tables[0], tables[2])},
        "by_distance": {"seeds": by_distance(graphs[0], graphs[1], pairs),
                        "halves": by_distance(graphs[0], graphs[2], identity)},
        "by_strength": {"seeds": strength_of_common(graphs[0], graphs[1], pairs),
                        "halves": strength_of_common(graphs[0], graphs[2], identity)},
        "telling": telling(graphs[0], graphs[1], pairs),
        "roles": [{"n_roles": len(one.roles), "names": [role.name for role in one.roles],
                   "words": [[word for word, *_ in role.words] for role in one.roles],
                   "sizes": [len(role.members) for role in one.roles], "stability": one.stability,
                   "prediction": one.prediction.to_dict(), "information": one.information.to_dict(),
                   "criterion": one.criterion} for one in roles],
        "role_graphs": [[{"source": a, "target": b, **edge}
                         for a, b, edge in role_graph(graph, assigned).edges(data=True)]
                        for graph, assigned
                        in ((square[0], roles[0]), (square[1], assign_roles(roles[0], square[1])))],
        "seconds": time.perf_counter() - begin
    }
    settings = {"seeds": [0, 1], "tokens": chosen.tokens, "sources_per_layer": chosen.sources,
                "sources": len(sources), "n_samples": chosen.n_samples, "level": 0.01,
                "least": chosen.least, "steps": chosen.steps, "threads": 1}
    print(write("two_seeds", settings, numbers))


if __name__ == "__main__":
    main()
