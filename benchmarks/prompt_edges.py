"""How many of the strongest edges of a prompt's graph are the model's wiring: structural,
accidental or unknown over a corpus, for many prompts.

`python benchmarks/prompt_edges.py demo` traces and prunes `--prompts` prompts (the first `--length`
tokens of texts of the demo), clamps every feature that is a source among the `--strongest` edges
between features of each, on other texts, and looks the edges up. One share per prompt and kind;
means with 95 % intervals over prompts. `stories260k` asks the same of a Llama and stories of others
(`--data`, and `--saes` as `fig train-saes` writes them for every `hook_resid_pre` and the last
`hook_resid_post`).
"""
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from real_models import run_config, run_parser
from record import write

from feature_interaction_graph.engine.corpus import Corpus
from feature_interaction_graph.interactions import clamp_measure
from feature_interaction_graph.loading import load_corpus, load_model_and_saes
from feature_interaction_graph.tracing.explained import STATUSES
from feature_interaction_graph.tracing.graph import attribute
from feature_interaction_graph.tracing.prompts import shares_over_prompts, strongest_between
from feature_interaction_graph.tracing.pruning import prune_graph

if __name__ == "__main__":
    parser = run_parser(__doc__)
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--length", type=int, default=24)
    parser.add_argument("--strongest", type=int, default=30)
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--horizon", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    cfg = run_config(args.run, args.data, args.saes, 100_000)
    model, saes = load_model_and_saes(cfg)
    text = load_corpus(cfg, model)
    graphs, wanted = [], {}
    for row in range(args.prompts):
        graph = prune_graph(attribute(model, saes, text.tokens[row:row + 1, :args.length]))
        for edge in strongest_between(graph, args.strongest).tolist():
            node = int(graph.edges.indices[edge])
            wanted.setdefault(int(graph.nodes.layer[node]), set()).add(
                int(graph.nodes.feature[node]))
        graphs.append(graph)
    print("traced", {layer: len(found) for layer, found in wanted.items()},
          time.perf_counter() - began, flush=True)
    others = Corpus(text.tokens[args.prompts:], text.lengths[args.prompts:], special=text.special,
                    starts_with_bos=text.starts_with_bos)
    tables = []
    for layer in sorted(wanted):
        later = min(each for each in saes if each > layer) if layer < max(saes) else None
        if later is None: continue
        if not wanted[layer]: continue
        tables.append(clamp_measure(
            model, saes, [(layer, feature) for feature in sorted(wanted[layer])], others,
            target_layers=[later], n_samples=args.samples, horizon=args.horizon, placebo=16,
            progress=False))
        print("measured", layer, time.perf_counter() - began, flush=True)
    found, sizes = {}, {}
    for name, chosen in (("all", graphs),):
        shares = shares_over_prompts(chosen, tables, args.strongest)
        found[name] = {
            "shares": {row.kind: [row.share, row.ci_low, row.ci_high]
                       for row in shares.to_pandas().itertuples()},
            "agree_in_sign": float(np.nanmean(shares.agrees)),
            "per_prompt": shares.shares.round(4).tolist()}
        print(shares)
    numbers = {**found["all"], "kinds": list(STATUSES[::-1]),
               "sources": {str(layer): len(each) for layer, each in wanted.items()},
               "pairs_measured": int(sum(len(table.columns["strength"]) for table in tables)),
               "seconds": time.perf_counter() - began}
    settings = {name: value for name, value in vars(args).items() if name not in ("data", "saes")}
    name = "prompt_edges" if args.run == "demo" else f"prompt_edges_{args.run}"
    print(write(name, settings, numbers))
