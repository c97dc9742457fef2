"""Circuits of behaviours in the demo and in stories260K: how small, how faithful, against random
circuits, beside attention heads.

`python benchmarks/behaviors.py` does all of them (about a minute or two each on one core); `python
benchmarks/behaviors.py agreement pronoun` only these, the others stay as they are in
`results/behaviors.json`. `--run FOLDER`: a finished run of the demo (`benchmarks/real_runs.py
demo`), whose corpus graph is tried as well. `--data`, `--saes`: for stories260K, as
`benchmarks/estimators.py` has them. Every circuit is judged on prompts it was not found on.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import RESULTS, write

from feature_interaction_graph.circuits.behaviors import MIN_ACCURACY, Behavior, behavior_report
from feature_interaction_graph.circuits.graph import behavior_graph, firing_sequences
from feature_interaction_graph.circuits.heads import compare_heads
from feature_interaction_graph.circuits.library import DEMO_BEHAVIORS, demo_behavior
from feature_interaction_graph.circuits.scores import behavior_model
from feature_interaction_graph.circuits.search import eliminate, metric_distance
from feature_interaction_graph.circuits.validation import circuit_stability, validate_subgraph
from feature_interaction_graph.config import Config
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.graphs.files import load_graph
from feature_interaction_graph.loading import load_corpus, load_model_and_saes
from feature_interaction_graph.subgraphs import extract_behavior_subgraph

ROOT = Path(__file__).parent.parent
SHARE = 0.05                # of the live features: the largest circuit allowed
TARGET = 0.9                # fit on the prompts it is found on, at which a circuit is large enough
FEW_NAMES = "induction, 4 names"


def prompts_of(name: str, n: int, seed: int) -> Behavior:
    return demo_behavior("induction", n, seed, n_names=4) if name == FEW_NAMES else demo_behavior(
        name, n, seed
    )


def apart(name: str, found: Behavior, n: int) -> Behavior:
    "Fresh prompts."
    drawn = prompts_of(name, n + 4 * len(found), 1000)
    return drawn.take([index for index, prompt in enumerate(drawn.prompts)
                       if prompt not in set(found.prompts)][:n])


def circuit_numbers(
    model: Any, saes: Any, found: Behavior, judged: Behavior, n_features: int, n_resamples: int,
    corpus_graph: Any = None, live: int | None = None
) -> dict[str, Any]:
    """Everything about one behaviour; `live`: features that fire on a corpus (None: those active on
    the prompts)."""
    begin = time.perf_counter()
    G = behavior_graph(model, saes, found, n_features=n_features, n_samples=40)
    measured = time.perf_counter() - begin
    active = int(behavior_model(model, saes, found).ablated.active().sum())
    budget = int(SHARE * (live or active))
    circuit = extract_behavior_subgraph(model, saes, G, found, budget=budget, target=TARGET)
    seconds = time.perf_counter() - begin
    print(f"  graph of {len(G)} features, {G.number_of_edges()} edges in {measured:.0f} s; "
          f"circuit of {len(circuit)} in {seconds:.0f} s", flush=True)
    verdict = validate_subgraph(model, saes, circuit, judged)
    print(verdict, flush=True)
    numbers = {"validation": verdict.to_dict(), "seconds": seconds, "n_found_on": len(found),
               "budget": budget, "facts": circuit.facts,
               "graph": {"n_nodes": len(G), "n_edges": G.number_of_edges(), "seconds": measured},
               "nodes": [{"id": node, **{key: circuit.graph.nodes[node][key]
                                         for key in ("rank", "seed", "contribution")}}
                         for node in circuit.nodes], "edges": circuit.graph.number_of_edges()}
    numbers["heads"] = heads_numbers(model, saes, circuit, judged)
    if n_resamples:
        numbers["other ablations"] = {
            kind: size_needed(model, saes, found, kind) for kind in ("zero", "resample")
        }
        def again(behavior: Behavior) -> Any:
            return extract_behavior_subgraph(
                model, saes, G, behavior, budget=len(circuit), n_exact=20, steps=3
            )
        stable = circuit_stability(again, found, n_resamples)
        print(" ", stable, flush=True)
        numbers["stability"] = {
            "jaccard": stable.jaccard, "low": stable.low, "high": stable.high, "n": n_resamples,
            "sizes": stable.sizes, "in_all": sum(value == 1 for value in stable.frequency.values()),
            "in_any": len(stable.frequency)
        }
    if corpus_graph is not None:
        try:
            wide = extract_behavior_subgraph(
                model, saes, corpus_graph, found, budget=budget, target=TARGET
            )
            judge = validate_subgraph(model, saes, wide, judged, ablations=["mean"], n_random=20,
                                      n_halves=0, minimality=False, sizes=[])
            numbers["corpus graph"] = {
                "n_nodes": len(wide), "faithfulness": judge.to_dict()["faithfulness"]["mean"],
                "random": judge.random["largest"],
                "reach": (wide.facts["reach"] - wide.facts["empty"])
                / (wide.facts["whole"] - wide.facts["empty"]),
                "seeds_missing": wide.facts["seeds_missing"],
                "seeds_in_graph": wide.facts["seeds_in_graph"]
            }
        except InputError as error: numbers["corpus graph"] = {"reason": str(error)}
        print("  corpus graph:", numbers["corpus graph"], flush=True)
    numbers["seconds_in_all"] = time.perf_counter() - begin
    return numbers


def heads_numbers(model: Any, saes: Any, circuit: Any, judged: Behavior) -> dict[str, Any]:
    few = judged.take(range(min(48, len(judged))))
    heads = compare_heads(model, saes, circuit, few)
    on = behavior_model(model, saes, few)
    ceiling = compare_heads(model, saes, on.ablated.names(range(on.ablated.n_features)), few)
    print(" ", heads, "; all features:", round(ceiling.spearman, 2), flush=True)
    return {"model": heads.model.mean.round(4).tolist(),
            "circuit": heads.circuit.mean.round(4).tolist(), "spearman": heads.spearman,
            "pearson": heads.pearson, "shared_top": heads.shared_top, "value": heads.model.value,
            "ceiling_spearman": ceiling.spearman, "ceiling_pearson": ceiling.pearson,
            "top": heads.model.to_pandas().head(4)[
                ["layer", "head", "effect", "share"]
            ].to_dict("records")}


def size_needed(model: Any, saes: Any, found: Behavior, ablation: str) -> dict[str, Any]:
    """How many features elimination needs for a fit of 0.8 when outside is set to 0, or to the
    counterfactual, on 24 of the prompts."""
    on = behavior_model(model, saes, found.take(range(24)))
    path = eliminate(on, on.ablated.active(), ablation=ablation, steps=4, factor=0.75, last=16)
    found_size = path.smallest(0.8)
    print(f"  {ablation}: fit of 0.8 at {found_size} features", flush=True)
    return {"size": found_size, "share": found_size / path.sizes[0], "sizes": path.sizes,
            "fit": path.fits}


def demo(names: list[str], run: Path | None) -> dict[str, Any]:
    cfg = Config.preset("demo")
    model, saes = load_model_and_saes(cfg)
    numbers: dict[str, Any] = {}
    on = behavior_model(model, saes, demo_behavior("agreement", 4))
    corpus = load_corpus(cfg.replace(n_tokens=50_000), model, saes)
    live = int((firing_sequences(on, corpus) > 0).sum())
    if "live" in names:
        numbers["live"] = {
            "on_corpus": live, "n_tokens": corpus.n_tokens, "n_features": on.ablated.n_features
        }
    graph = load_graph(run / "graph.json") if run is not None else None
    for name in [name for name in names if name != "live"]:
        report = behavior_report(model, prompts_of(name, 200, 7))
        print(report, flush=True)
        numbers[name] = {"report": vars(report) | {"worst": report.worst}}
        if report.worst < MIN_ACCURACY: continue
        many = name in (FEW_NAMES, "induction", "counting")
        found = prompts_of(name, 128 if many else 48, 0)
        numbers[name] |= circuit_numbers(model, saes, found, apart(name, found, 96),
                                         600 if many else 300, 0 if many else 3, graph, live)
    return numbers


def stories260k(data: Path, saes_folder: Path) -> dict[str, Any]:
    """After 'One day, Sue went to the park. Sue was happy because': she, not he. Names of three
    tokens each, so that all prompts have one length, and such
    that the model has their pronoun right in another sentence."""
    model, saes = load_model_and_saes(
        Config(model_name=str(data / "models" / "stories260K"), sae_release=str(saes_folder))
    )
    things = ("park", "big dog", "red ball", "house", "tree", "box")
    did = [
        f"{verb} the {thing}"
        for verb in ("went to", "saw", "ran to", "liked", "found", "looked at") for thing in things
    ]
    texts = [f"One day, {{0}} {each}. {{0}} {mood} because" for each in did
             for mood in ("was happy", "was sad", "smiled", "cried")]
    groups = (("Sue Mia Amy Eva Ida Zoe Ivy Liz Kim Pam Meg Peg Sara Ella Emma Nora Rosa Lucy "
               "Mary Kate Jane Anna Lola Nina").split(),
              ("Max Sam Dan Leo Jim Joe Roy Ray Ron Ted Bob Jay Jack John Paul Luke Fred Mark "
               "Adam Alex Finn Hugo Carl Tony").split())
    def length(text: str) -> int:
        return len(model.tokenizer(text, add_special_tokens=False).input_ids)
    def known(name: str, right: str, wrong: str) -> bool:
        report = behavior_report(model,
                                 Behavior("name", [f"{name} liked to play. {name} smiled because"],
                                          [right], None, [wrong]))
        return length(name) == length("Sue") and report.value > 0.5
    names = [[name for name in group if known(name, right, wrong)]
             for group, right, wrong in zip(groups, (" she", " he"), (" he", " she"), strict=True)]
    print(names, flush=True)
    lengths = [length(text.format("Sue")) for text in texts]
    size = max(set(lengths), key=lengths.count)
    rows = [(text.format(she), text.format(he)) for text in texts
            if length(text.format("Sue")) == size for she in names[0] for he in names[1]]
    random = np.random.default_rng(0)
    rows = [rows[index] for index in random.permutation(len(rows))[:1000]]
    distinct: dict[str, tuple[str, str, str, str]] = {}
    for number, (she, he) in enumerate(rows):
        row = (she, he, " she", " he") if number % 2 == 0 else (he, she, " he", " she")
        distinct.setdefault(row[0], row)
    columns = list(zip(*distinct.values(), strict=True))
    behavior = Behavior("pronoun", columns[0], columns[2], columns[1], columns[3],
                        description="she or he, from a name")
    report = behavior_report(model, behavior)
    print(report, len(behavior), "prompts", flush=True)
    found, judged = behavior.take(range(min(200, len(behavior)))).split(0.5)
    return {"report": vars(report) | {"worst": report.worst}, "example": behavior.prompts[0],
            "names": names, **circuit_numbers(model, saes, found, judged, 400, 3),
            "without a graph": every_size(model, saes, found, judged)}


def every_size(model: Any, saes: Any, found: Behavior, judged: Behavior) -> list[dict[str, float]]:
    """Elimination from all active features, along no graph: fit on the prompts it is made on and on
    the others, at every size."""
    on, other = behavior_model(model, saes, found), behavior_model(model, saes, judged)
    path = eliminate(on, on.ablated.active(), last=16)
    missed = metric_distance(other, other.nothing()[0], "mean")
    rows = []
    for size, fit in zip(path.sizes, path.fits, strict=True):
        kept = other.nothing()[0]
        kept[path.ranking[:size]] = True
        rows.append({"size": size, "fit": fit,
                     "held_out_fit": 1 - metric_distance(other, kept, "mean") / missed})
    print("  all features, by size and held-out fit:",
          {row["size"]: round(row["held_out_fit"], 2) for row in rows}, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", default=["live", *DEMO_BEHAVIORS, FEW_NAMES, "stories260k"]
    )
    parser.add_argument("--run", type=Path)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--saes", type=Path, default=ROOT / "outputs" / "stories260k" / "saes")
    chosen = parser.parse_args()
    path = RESULTS / "behaviors.json"
    torch.set_num_threads(1)
    for name in chosen.names:
        new = ({"stories260k": stories260k(chosen.data, chosen.saes)} if name == "stories260k"
               else demo([name], chosen.run))
        known = json.loads(path.read_text())["numbers"] if path.is_file() else {}
        write("behaviors", {"share": SHARE, "target": TARGET, "min_accuracy": MIN_ACCURACY},
              {**known, **new})


if __name__ == "__main__":
    main()
