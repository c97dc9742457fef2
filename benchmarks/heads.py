"""Whether heads found by patching and heads that the edges of feature graphs pass through are the
same heads: induction and agreement, in the demo and in stories260K (there: sentences that come
twice, and the pronoun that agrees with a name).

`python benchmarks/heads.py --saes FOLDER` (SAEs of stories260K, as `fig train-saes` writes them for
every `hook_resid_pre` and the last `hook_resid_post`; `--data`: as in `benchmarks/estimators.py`).
By patching: mean change of the answers' logit difference when a head gets its output of the
counterfactual prompt. By features, over the attribution graphs of the same prompts: the influence
on the answer that passes the head (`influence`, pruned graphs), and what the head's output on the
prompt adds to the logit difference, less that on the counterfactual (`contrast`, whole graphs and
pruned ones). Rank correlation over all heads, with a p-value by permuting heads, and the overlap of
the largest.

A graph holds attention patterns; a patch does not. So heads are patched once more with patterns and
the denominators of norms held as they are on the prompt (`held`): how contrasts agree with these
says what features and their errors keep of a head's work, and how these agree with the plain
patches says what goes by patterns of later heads, which no edge between features shows.
"""
import argparse
import json
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
from feature_interaction_graph.control.runs import text_of
from feature_interaction_graph.engine.hook_points import HookPoint
from feature_interaction_graph.loading import load_model_and_saes
from feature_interaction_graph.tracing.frozen import OUTPUT, FrozenModel, run_frozen
from feature_interaction_graph.tracing.graph import attribute
from feature_interaction_graph.tracing.head_contrast import head_contrast
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


def contrasts(model, saes, behavior: Behavior, ids: list[tuple[int, int]]) -> dict:
    "What every head brings, by the whole graph and by the pruned one, and with patterns held."
    found = dict.fromkeys(("contrast", "contrast, pruned", "held"), 0.0)
    prompts = zip(behavior.prompts, behavior.counterfactuals, ids, strict=True)
    for prompt, other, (right, wrong) in prompts:
        weights = {right: 1.0, wrong: -1.0}
        graph = attribute(model, saes, prompt, (right, wrong))
        for name, each in (("contrast", graph), ("contrast, pruned", prune_graph(graph))):
            found[name] = found[name] + head_contrast(model, saes, each, other, weights)
        held, away = (FrozenModel(model, saes, text_of(model, saes, text).tokens)
                      for text in (prompt, other))
        found["held"] = found["held"] + patched_while_held(held, away, right, wrong)
    return {name: np.asarray(total) / len(ids) for name, total in found.items()}


@torch.no_grad()
def patched_while_held(
    held: FrozenModel, away: FrozenModel, right: int, wrong: int
) -> np.ndarray:
    "What the logit difference loses when a head gets its other output, patterns and norms held."
    n_layers, n_heads = len(held.layers), len(held.patterns[0])
    head, found = held.twin.get_output_embeddings().weight, np.zeros((n_layers, n_heads))
    reads = head[right] - head[wrong]
    for layer in range(n_layers):
        point = HookPoint("z", layer)
        for number in range(n_heads):
            z = held.streams[point].clone().unflatten(-1, (n_heads, -1))
            z[..., number, :] = away.streams[point].unflatten(-1, (n_heads, -1))[..., number, :]
            normed = run_frozen(held, {point: z.flatten(-2)}, tangent=False)[OUTPUT]
            found[layer, number] = float((held.normed[-1] - normed[-1]) @ reads)
    return found


def numbers_of(split: np.ndarray, patched: np.ndarray) -> dict:
    "How two numbers per head agree."
    one, two = np.abs(patched).ravel(), np.abs(split).ravel()
    rank = float(stats.spearmanr(one, two).statistic)
    random = np.random.default_rng(0)
    by_chance = [stats.spearmanr(random.permutation(one), two).statistic for _ in range(2000)]
    top = [set(np.argsort(-each)[:4].tolist()) for each in (one, two)]
    name = [divmod(int(each.argmax()), patched.shape[1]) for each in (one, two)]
    return {"rank_correlation": rank, "p_value": float(np.mean(np.array(by_chance) >= rank)),
            "pearson": float(np.corrcoef(patched.ravel(), split.ravel())[0, 1]),
            "shared_of_largest_4": len(top[0] & top[1]), "largest_by_patching": name[0],
            "largest_by_features": name[1]}


def token_ids(model, behavior: Behavior) -> list[tuple[int, int]]:
    "The first right and the first wrong answer of every prompt, as ids."
    def one(prompt: str, answer) -> int:
        if not isinstance(answer, str): return int(answer)
        ids = [model.tokenizer.encode(text) for text in (prompt, prompt + answer)]
        return ids[1][len(ids[0])]               # its token, after this prompt
    sides = zip(behavior.prompts, behavior.answers, behavior.counter_answers, strict=True)
    return [(one(prompt, right[0]), one(prompt, wrong[0])) for prompt, right, wrong in sides]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--saes", type=Path, default=ROOT / "outputs" / "stories260k" / "saes")
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--max-features", type=int, default=600)
    parser.add_argument("--runs", nargs="+", default=["demo", "stories260k"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    began, found = time.perf_counter(), {}
    for run, names in (("demo", ("induction", "agreement")),
                       ("stories260k", ("repeats", "pronoun"))):
        if run not in args.runs: continue
        model, saes = load_model_and_saes(run_config(run, args.data, args.saes, 1000))
        for name in names:
            behavior = (repeats(model, 4 * args.prompts) if name == "repeats" else
                        predefined_behavior(name, model, 4 * args.prompts, 0))
            report = behavior_report(model, behavior)
            behavior = behavior.take(range(min(args.prompts, len(behavior))))
            ids = token_ids(model, behavior)
            patched = head_patching(model, behavior).mean
            split = np.zeros_like(patched)
            for prompt, (answer, _) in zip(behavior.prompts, ids, strict=True):
                whole = attribute(model, saes, prompt, answer, max_features=args.max_features)
                split += head_influence(head_loadings(model, saes, prune_graph(whole))) / len(ids)
            effects = {"influence": split, **contrasts(model, saes, behavior, ids)}
            agree = {by: numbers_of(each, patched) for by, each in effects.items()}
            agree["contrast, against held"] = numbers_of(effects["contrast"], effects["held"])
            found[f"{run}: {name}"] = {
                "shown": report.accuracy, "n_prompts": len(behavior), "agreement": agree,
                "patched": patched.round(4).tolist(),
                **{by: each.round(4).tolist() for by, each in effects.items()}}
            told = {by: (round(each["rank_correlation"], 2), round(each["pearson"], 2))
                    for by, each in agree.items()}
            print(run, name, told, f"{time.perf_counter() - began:.0f} s", flush=True)
    settings = {"prompts": args.prompts, "max_features": args.max_features}
    quality = args.saes / "quality.json"
    if quality.is_file(): found["saes of stories260k"] = json.loads(quality.read_text())
    if len(args.runs) == 2:
        print(write("heads", settings, {**found, "seconds": time.perf_counter() - began}))
