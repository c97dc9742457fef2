"""What features fire on, in sentences: how many live features have one that holds on unseen text,
how many of those do what it says when they are clamped, and whether planted rules are found.

`python benchmarks/hypotheses.py demo` measures every layer of the demo; `stories260k` and
`smollm2 --saes FOLDER` those of real models (`--data`, `--saes`: as `benchmarks/estimators.py` has
them). Each
writes its part of `results/hypotheses.json`. Live: at least 20 firings in either half of the text.
"""
import dataclasses
import json
import tempfile
import time
from typing import Any

import numpy as np
from real_models import run_config, run_parser
from record import RESULTS, write

from feature_interaction_graph.activations import collect_activations
from feature_interaction_graph.dictionary.predicates import Predicates, predicates_of
from feature_interaction_graph.dictionary.rule_tests import (
    ClampCheck, check_by_clamp, check_by_edit
)
from feature_interaction_graph.dictionary.rules import (
    Explanation, FeatureRule, RuleSearch, Term, explain_features
)
from feature_interaction_graph.dictionary.store import ActivationStore
from feature_interaction_graph.loading import load_corpus, load_model_and_saes

GOOD, LIVE, MANY = 0.8, 20, 180


def live_features(store: ActivationStore, layer: int) -> list[int]:
    "Features that fire at least `LIVE` times in either half of the text."
    fires, odd = store.csr(layer) != 0, store.rows[:, 0] % 2 == 1
    counts = [np.asarray(fires[half].sum(0)).ravel() for half in (odd, ~odd)]
    return np.flatnonzero(np.minimum(*counts) >= LIVE).tolist()


def worth(pair: tuple[Explanation, ClampCheck]) -> float:
    "What is shown first: sure of its rule, and not of two words only."
    scores = pair[0].scores
    return -scores.low * float(np.log(scores.n_firings))


def layer_numbers(
    model: Any, saes: Any, store: ActivationStore, layer: int, known: Predicates
) -> dict[str, Any]:
    "Shares of one layer, by kind of sentence, and what the interventions say of the best kind."
    asked, numbers = live_features(store, layer), dict[str, Any]()
    ways = {"single rule": {"predicates": known, "max_terms": 1},
            "up to three terms": {"predicates": known, "max_terms": 3}}
    if store.corpus.labels is not None:
        labels = predicates_of(store, families=["label"])
        ways = {"single label": {"predicates": labels, "max_terms": 1}, **ways}
    for name, how in ways.items():
        begin = time.process_time()
        explained = explain_features(store, layer, asked, **how)
        f1 = np.array([each.scores.f1 for each in explained])
        numbers[name] = {"good": int((f1 >= GOOD).sum()), "median_f1": float(np.median(f1)),
                         "low_above_half": int(sum(each.scores.low > 0.5 for each in explained)),
                         "auroc": float(np.nanmedian([each.scores.auroc for each in explained])),
                         "cpu_seconds": time.process_time() - begin}
    checks = check_by_clamp(model, saes, store, explained, known, seed=0)
    edits = check_by_edit(model, saes, store, explained, known)
    good = f1 >= GOOD
    passed = np.array([each.p_value < 0.05 for each in checks])
    numbers |= {
        "live": len(asked),
        "clamped": {"passed": int(passed.sum()), "good": int(good.sum()),
                    "passed_of_good": int((passed & good).sum()),
                    "q_below_05": sum(each.q_value < 0.05 for each in checks),
                    "median_match": float(np.nanmedian([each.match for each in checks]))},
        "edited": {"n": len(edits), "fired": float(np.mean([each.fired for each in edits])),
                   "fired_otherwise": float(np.mean([each.fired_otherwise for each in edits]))},
        "examples": [{"id": each.id, "rule": each.rule, **each.scores._asdict(),
                      "match": check.match, "match_p": check.p_value}
                     for each, check in sorted(zip(explained, checks, strict=True), key=worth)[:12]]
    }
    return numbers


def planted_rule(
    known: Predicates, columns: Any, n_terms: int, rng: np.random.Generator
) -> FeatureRule:
    """A rule of different families, true at some row drawn at random; a term after the first is an
    exception three times in ten."""
    rows = known.matrix.shape[0]
    while True:
        there = known.matrix.indices[slice(*known.matrix.indptr[[(row := int(rng.integers(rows))),
                                                                 row + 1]])]
        numbers = rng.permutation(there)[:n_terms]
        terms = [Term((int(number),)) for number in numbers]
        for place in range(1, len(terms)):
            if rng.random() < 0.3: terms[place] = Term((int(rng.choice(columns)),), False)
        families = [known.families[term.members[0]] for term in terms]
        if len(set(families)) == n_terms: return FeatureRule(tuple(terms))


def planted_recall(store: ActivationStore, known: Predicates, noise: float) -> dict[str, Any]:
    """`MANY` rules of one to three terms, as many of each, true at 50 rows of either half at least;
    the firings are theirs with a share `noise` moved elsewhere. Found: F1 with the rule itself on
    unseen text of at least .99."""
    rng, odd = np.random.default_rng(0), store.rows[:, 0] % 2 == 1
    search, found = RuleSearch(known, ~odd), {1: [], 2: [], 3: []}
    often = np.flatnonzero(np.asarray(known.matrix.sum(0)).ravel() > 200)
    while len(found[3]) < MANY // 3:
        n_terms = min(found, key=lambda n: len(found[n]))
        rule = planted_rule(known, often, n_terms, rng)
        true, terms = rule.holds(known), rule.terms
        if min(true[odd].sum(), true[~odd].sum()) < 50: continue
        shorter = [FeatureRule(terms[:k] + terms[k + 1:]).holds(known)
                   for k in range(n_terms)] if n_terms > 1 else []
        # every term matters: without it the sentence is another
        if any((true & each).sum() * 2 / (true.sum() + each.sum()) > 0.95 for each in shorter):
            continue
        fires = true & (rng.random(len(true)) >= noise)
        fires |= rng.random(len(true)) < noise * true.mean()
        mine = search.best(np.flatnonzero(fires[~odd])).holds(known)
        found[n_terms].append(2 * (mine & true)[odd].sum() / (mine[odd].sum() + true[odd].sum()))
    return {str(n): {"n": len(f1), "found": int(sum(np.array(f1) >= 0.99)),
                     "nearly": int(sum(np.array(f1) >= 0.9)),
                     "median_f1": float(np.median(f1))} for n, f1 in found.items()}


def main() -> None:
    parser = run_parser(__doc__, ("demo", "stories260k", "smollm2"))
    parser.add_argument("--tokens", type=int, default=50_000)
    parser.add_argument("--planted", action="store_true", help="Only the planted rules, again.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cfg = run_config(given.run, given.data, given.saes, given.tokens)
        cfg = dataclasses.replace(cfg, output_dir=folder)
        model, saes = load_model_and_saes(cfg)
        store = collect_activations(model, saes, cfg, load_corpus(cfg, model))
        known = predicates_of(store)
        numbers: dict[str, Any] = {"predicates": len(known), "rows": store.n_tokens, "layers": {}}
        if given.planted: numbers = json.loads((RESULTS / "hypotheses.json").read_text())[
            "numbers"][given.run]
        for layer in () if given.planted else store.layers:
            numbers["layers"][str(layer)] = layer_numbers(model, saes, store, layer, known)
            shown = {name: value for name, value in numbers["layers"][str(layer)].items()
                     if name != "examples"}
            print(layer, shown, flush=True)
        if given.run == "demo":
            numbers["planted"] = {str(noise): planted_recall(store, known, noise)
                                  for noise in (0.0, 0.1)}
            print(numbers["planted"])
    path = RESULTS / "hypotheses.json"
    before = json.loads(path.read_text())["numbers"] if path.is_file() else {}
    settings = {"tokens": given.tokens, "good": GOOD, "live": LIVE, "max_terms": 3}
    print(write("hypotheses", settings, before | {given.run: numbers}))


if __name__ == "__main__":
    main()
