"""Whether heads found by patching and heads that the edges of feature graphs pass through are the
same heads: induction and agreement, in the demo and in stories260K (there: sentences that come
twice, and the pronoun that agrees with a name).

`python benchmarks/heads.py --saes FOLDER` (SAEs of stories260K, as `fig train-saes` writes them for
every `hook_resid_pre` and the last `hook_resid_post`; `--data`: as in `benchmarks/estimators.py`).
By patching: mean change of the answers' logit difference when a head gets its output of the
counterfactual prompt. By features: the influence on the answer that passes the head, over the
pruned attribution graphs of the same prompts. Rank correlation over all heads, with a p-value by
permuting heads, and the overlap of the largest.
"""
import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent))
from real_models import ROOT, run_config
from record import write

from feature_interaction_graph.circuits.behaviors import Behavior, behavior_report
from feature_interaction_graph.circuits.heads import head_patching
from feature_interaction_graph.circuits.library import predefined_behavior
from feature_interaction_graph.loading import load_model_and_saes
from feature_interaction_graph.tracing.graph import attribute
from feature_interaction_graph.tracing.head_loadings import head_influence, head_loadings
from feature_interaction_graph.tracing.pruning import prune_graph


def repeats(model, n: int, seed: int = 0) -> Behavior:
    """Sentences that come twice, the second time without their last word; in the counterfactual the
    first one ends in another. The answer is the first token of the word."""
    random, rows = np.random.default_rng(seed), []
    names = "Tom Lily Ben Anna Sam Mia Tim Sue Max Lucy".split()
    things = "ball book car doll cat dog tree box cake hat frog bird".split()
    def ids(text: str) -> list[int]: return model.tokenizer.encode(text)
    while len(rows) < n:
        (one, two), ends = (random.choice(words, 2, replace=False).tolist()
                            for words in (names, things))
        again = f"Then {one} and {two} saw a big"
        texts = [f"{one} and {two} saw a big {each}. {again}" for each in ends]
        answers = [ids(f"{again} {each}")[len(ids(again))] for each in ends]
        if answers[0] == answers[1] or len(ids(texts[0])) != len(ids(texts[1])): continue
        rows.append((*texts, [answers[0]], [answers[1]]))
    prompts, others, answers, wrong = zip(*rows, strict=True)
    return Behavior("repeats", prompts, answers, others, wrong)


def numbers_of(split: np.ndarray, patched: np.ndarray) -> dict:
    "How two numbers per head agree."
    one, two = np.abs(patched).ravel(), split.ravel()
    rank = float(stats.spearmanr(one, two).statistic)
    random = np.random.default_rng(0)
    by_chance = [stats.spearmanr(random.permutation(one), two).statistic for _ in range(2000)]
    top = [set(np.argsort(-each)[:4].tolist()) for each in (one, two)]
    name = [divmod(int(each.argmax()), patched.shape[1]) for each in (one, two)]
    return {"rank_correlation": rank, "p_value": float(np.mean(np.array(by_chance) >= rank)),
            "shared_of_largest_4": len(top[0] & top[1]), "largest_by_patching": name[0],
            "largest_by_features": name[1], "patched": patched.round(4).tolist(),
            "influence": split.round(4).tolist()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--saes", type=Path, default=ROOT / "outputs" / "stories260k" / "saes")
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--max-features", type=int, default=600)
    args = parser.parse_args()
    torch.set_num_threads(1)
    began, found = time.perf_counter(), {}
    for run, names in (("demo", ("induction", "agreement")),
                       ("stories260k", ("repeats", "pronoun"))):
        model, saes = load_model_and_saes(run_config(run, args.data, args.saes, 1000))
        for name in names:
            behavior = (repeats(model, 4 * args.prompts) if name == "repeats" else
                        predefined_behavior(name, model, 4 * args.prompts, 0))
            report = behavior_report(model, behavior)
            behavior = behavior.take(range(min(args.prompts, len(behavior))))
            patched = head_patching(model, behavior).mean
            split = np.zeros_like(patched)
            for prompt, (answer, *_) in zip(behavior.prompts, behavior.answers, strict=True):
                if isinstance(answer, str):                  # its token, after this prompt
                    ids = [model.tokenizer.encode(text) for text in (prompt, prompt + answer)]
                    answer = ids[1][len(ids[0])]
                whole = attribute(model, saes, prompt, answer, max_features=args.max_features)
                split += head_influence(head_loadings(model, saes, prune_graph(whole)))
            found[f"{run}: {name}"] = {"shown": report.accuracy, "n_prompts": len(behavior),
                                       **numbers_of(split / len(behavior), patched)}
            told = {key: value for key, value in found[f"{run}: {name}"].items()
                    if key not in ("patched", "influence")}
            print(run, name, told, f"{time.perf_counter() - began:.0f} s", flush=True)
    settings = {"prompts": args.prompts, "max_features": args.max_features}
    print(write("heads", settings, {**found, "seconds": time.perf_counter() - began}))
