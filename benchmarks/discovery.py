"""Which edges carry a behaviour, by every method of `patching.discovery`, where they are known.

`python benchmarks/discovery.py` ranks the edges of compiled programs (`tracr.py` loads them; small
ones first, as many as fit into `--seconds`, and the rest is named), of a hand-built induction model
and of a planted model. All programs run under a causal mask here: half of them were compiled for
attention to both sides, and of those this is the same wiring on what stands before. Their prompts
are random pairs of one length, after which the outputs at the last position differ. Most programs
have one block and a handful of edges, which chance tells apart too; those of more are told alone as
well (`deeper`).

Truth: an edge is of the circuit if the compiler (the wiring) lets its sender write, and its
receiver read, a direction that differs between the two prompts of some pair. What only other inputs
would show is counted as outside. In the programs only edges between parts that the compiler uses
are there to be ranked, found and cut: the empty heads and MLPs of its padded shape, which would be
told apart by anything, make 7 of 10 edges, and cutting them too changes nothing (checked).
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from record import write
from tracr import FOLDER, Program, load_program

from feature_interaction_graph.engine.conversion import filled_model
from feature_interaction_graph.patching.circuit_curves import circuit_curve, roc_auc
from feature_interaction_graph.patching.discovery import DISCOVERY_METHODS, rank_edges
from feature_interaction_graph.patching.edge_circuit import EdgeCircuit
from feature_interaction_graph.patching.edge_model import EdgeGrid, EdgeModel
from feature_interaction_graph.patching.edge_scores import EDGE_METHODS, score_edges
from feature_interaction_graph.patching.pairs import PromptPairs
from feature_interaction_graph.patching.paths import path_patching
from feature_interaction_graph.planted.induction import (
    INDUCTION_EDGES, induction_prompts, induction_transformer
)
from feature_interaction_graph.planted.models import PlantedModel, plant
from feature_interaction_graph.planted.transformer import _heads
from feature_interaction_graph.planted.wiring import random_wiring

N_PAIRS, LONGEST, STEPS = 8, 6, 5
BY_SCORE = (*EDGE_METHODS, "acdc")


def plain_program(program: Program) -> Any:
    """The program as a GPT-2 without norms, whose logits are its outputs; the stream is padded with
    zeros to a multiple of the heads."""
    from transformers import GPT2Config

    meta, old = program.meta, program.model
    heads, size, d = meta["num_heads"], meta["key_size"], len(program.labels)
    wide = max(size, math.ceil(d / heads))
    width, n_in = heads * wide, len(old.embed.W_E)
    n_vocab = max(n_in, len(meta["output_basis"]))
    def padded(tensor: Tensor, *shape: int) -> Tensor:
        found = torch.zeros(shape)
        found[tuple(slice(0, n) for n in tensor.shape)] = tensor
        return found
    config = GPT2Config(n_layer=meta["num_layers"], n_head=heads, n_embd=width,
                        n_positions=old.cfg.n_ctx, vocab_size=n_vocab, n_inner=meta["mlp_hidden"],
                        activation_function="relu", bos_token_id=0, eos_token_id=0)
    weights = {"transformer.wte.weight": padded(old.embed.W_E, n_vocab, width),
               "transformer.wpe.weight": padded(old.pos_embed.W_pos, old.cfg.n_ctx, width)}
    norms = ["transformer.ln_f"]
    for layer, block in enumerate(old.blocks):
        at, joined, bias = f"transformer.h.{layer}", torch.zeros(width, 3 * width), torch.zeros(
            3 * width)
        out = torch.zeros(width, width)
        for head in range(heads):
            start = head * wide
            for part, name in enumerate("QKV"):
                # scores are divided by the root of the wider head here
                factor = (wide / size) ** 0.5 if name == "Q" else 1.0
                columns = slice(part * width + start, part * width + start + size)
                joined[:d, columns] = getattr(block.attn, f"W_{name}")[head] * factor
                bias[columns] = getattr(block.attn, f"b_{name}")[head] * factor
            out[start:start + size, :d] = block.attn.W_O[head]
        weights |= {f"{at}.attn.c_attn.weight": joined, f"{at}.attn.c_attn.bias": bias,
                    f"{at}.attn.c_proj.weight": out,
                    f"{at}.attn.c_proj.bias": padded(block.attn.b_O, width),
                    f"{at}.mlp.c_fc.weight": padded(block.mlp.W_in, width, meta["mlp_hidden"]),
                    f"{at}.mlp.c_fc.bias": block.mlp.b_in,
                    f"{at}.mlp.c_proj.weight": padded(block.mlp.W_out, meta["mlp_hidden"], width),
                    f"{at}.mlp.c_proj.bias": padded(block.mlp.b_out, width)}
        norms += [f"{at}.ln_1", f"{at}.ln_2"]
    for norm in norms:
        weights |= {f"{norm}.weight": torch.ones(width), f"{norm}.bias": torch.zeros(width)}
    head = torch.zeros(n_vocab, width)
    for row, label in enumerate(meta["output_basis"]): head[row, program.labels.index(label)] = 1
    made: Any = filled_model(config, weights, head)
    made.transformer.ln_f = torch.nn.Identity()
    for block in made.transformer.h: block.ln_1 = block.ln_2 = torch.nn.Identity()
    return made


def check_program(program: Program, made: Any, tokens: Int[Tensor, "n seq_len"]) -> None:
    "The stream of `made` is that of the program, if it attends to one side."
    if not program.meta["causal"]: return
    name = f"blocks.{program.meta['num_layers'] - 1}.hook_resid_post"
    _, cache = program.model.run_with_cache(tokens, names_filter=[name])
    mine = made.transformer(tokens).last_hidden_state[..., :len(program.labels)]
    gap = float((mine - cache[name]).abs().max())
    assert gap < 1e-3, (program.name, gap)


def program_pairs(program: Program, made: Any, seed: int = 0) -> PromptPairs | None:
    "Random pairs after which the program says different things; None where there are too few."
    generator = torch.Generator().manual_seed(seed)
    encoding = program.meta["token_encoding"]
    vocabulary = torch.tensor([token for label, token in encoding.items()
                               if label not in ("BOS", "compiler_pad")])
    n_out, room = len(program.meta["output_basis"]), min(made.config.n_positions - 1, LONGEST)
    drawn = vocabulary[torch.randint(len(vocabulary), (2, 400, room), generator=generator)]
    tokens = torch.cat([torch.full((2, 400, 1), encoding["BOS"]), drawn], 2)
    with torch.no_grad(): last = [made(side).logits[:, -1, :n_out] for side in tokens]
    check_program(program, made, tokens[0, :4])
    if n_out == 1:
        gap = (last[0] - last[1])[:, 0]
        tokens = torch.where(gap[:, None] > 0, tokens, tokens.flip(0))      # clean says more
        differ, metric = gap.abs() > 1e-2, lambda logits, _: logits[:, 0]
        told = [torch.zeros(400, dtype=torch.int64), torch.ones(400, dtype=torch.int64)]
    else:
        told, metric = [each.argmax(-1) for each in last], "logit difference"
        differ = told[0] != told[1]
    rows = differ.nonzero()[:N_PAIRS, 0]
    if len(rows) < 4: return None
    clean, corrupted = (side[rows].tolist() for side in tokens)
    answers, wrong = (side[rows].tolist() for side in told)
    return PromptPairs(clean, corrupted, answers, wrong, name=program.name, metric=metric)


def program_truth(program: Program, on: EdgeModel) -> tuple[Bool[np.ndarray, "n_edges"], ...]:
    "Which edges the compiler wrote and the pairs show, and which join parts that it uses."
    parts, labels = program.meta["components"], program.labels
    everything = {"resid_pre 0": set(labels)}
    reads = {"logits": set(program.meta["output_basis"])}
    for name, facts in parts.items():
        layer, _, head = name[1:].partition(".h")
        if name[0] == "m":
            everything[f"mlp_out {layer}"] = set(facts["out"])
            reads[f"mlp_out {layer}"] = set(facts["inp"])
            continue
        everything[f"head {layer}.{head}"] = set(facts["out"])
        for part in "qkv": reads[f"head {layer}.{head} {part}"] = set(facts[part])
    differs = (on.lent - on.base).abs().amax((1, 2))[:, :len(labels)] > 1e-4
    place = {each.name: number for number, each in enumerate(on.grid.senders)}
    shown = {name: {label for at, label in enumerate(labels)
                    if differs[place[name], at] and label in written}
             for name, written in everything.items()}
    truth = [bool(shown.get(sender, set()) & reads.get(receiver, set()))
             for sender, receiver in on.grid.names]
    used = [sender in everything and receiver in reads for sender, receiver in on.grid.names]
    return np.array(truth), np.array(used)


def planted_pairs(planted: PlantedModel, seed: int = 0) -> PromptPairs:
    "Random texts of the planted model; what it would say after each."
    sides = [planted.corpus(N_PAIRS, 8, seed + side).tokens for side in (0, 1)]
    with torch.no_grad(): told = [planted.hf_model(side).logits[:, -1].argmax(-1) for side in sides]
    rows = (told[0] != told[1]).nonzero()[:, 0]
    columns = [side[rows].tolist() for side in (*sides, *told)]
    return PromptPairs(*columns, name="planted")


def planted_truth(planted: PlantedModel, on: EdgeModel) -> Bool[np.ndarray, "n_edges"]:
    "Edges whose sender writes a variable that differs and that the receiver reads."
    wiring = planted.wiring
    writes: dict[str, set[int]] = {"resid_pre 0": {each.variable for each in wiring.inputs}}
    reads: dict[str, set[int]] = {"logits": set(range(wiring.n_variables))}
    for edge in wiring.edges:
        if edge.kind == "mlp":
            sender, read = (f"mlp_out {edge.block}",) * 2
        else:
            offsets = [offset for offset, _ in _heads(wiring, edge.block)]
            sender = f"head {edge.block}.{offsets.index(edge.offset)}"
            read = f"{sender} v"
        writes.setdefault(sender, set()).add(edge.target)
        reads.setdefault(read, set()).update(edge.reads)
    dual = torch.as_tensor(planted.dictionary.dual).float()
    place = {each.name: number for number, each in enumerate(on.grid.senders)}
    away = (on.lent - on.base) @ dual.T
    differs = {name: set(np.flatnonzero((away[place[name]].abs().amax((0, 1)) > 1e-3).numpy()))
               for name in writes}
    return np.array([bool(writes.get(sender, set()) & differs.get(sender, set())
                          & reads.get(receiver, set())) for sender, receiver in on.grid.names])


def judged(on: EdgeModel, truth: np.ndarray, among: np.ndarray) -> dict[str, dict[str, float]]:
    "ROC AUC, CPR and CMD of every method, and of chance."
    found: dict[str, dict[str, float]] = {}
    names = on.grid.names
    for method in (*DISCOVERY_METHODS, "random"):
        begun = time.process_time()
        if method == "random":
            order = np.random.default_rng(0).permutation(len(names))
            scores = np.zeros(len(names))
        else: order, scores = rank_edges(on, method, steps=STEPS)
        seconds = time.process_time() - begun
        values = np.empty(len(names))
        values[order] = np.abs(scores) if method in BY_SCORE else -np.arange(len(names))
        circuit = EdgeCircuit([names[at] for at in order], scores, 1, 0.0)
        curve = circuit_curve(on, circuit)
        found[method] = {"auc": roc_auc(values[among], truth[among]), "cpr": curve.cpr,
                         "cmd": curve.cmd, "cpu_seconds": seconds}
    return found


def references(on: EdgeModel) -> dict[str, float]:
    "EAP against the derivative by the mask, and exact effects against path patching."
    scale = float(on.whole.abs().max())
    keep = torch.ones(len(on), len(on.grid), requires_grad=True)
    (by_mask,) = torch.autograd.grad(on.trace(torch.arange(len(on)), keep).value.sum(), keep)
    eap = score_edges(on, "eap").effects[:, 0].T
    ends = [edge for edge in on.grid.names if edge[1] == "logits"]
    paths = path_patching(on.runs.model, on.pairs, [one for one, _ in ends],
                          ["logits"]).effects[:, 0]
    exact = (on.values(torch.stack([~on.grid.mask([edge]) for edge in ends]).float())
             - on.whole).numpy()
    return {"eap_by_mask": float(np.abs(eap + by_mask.numpy()).max() / scale),
            "exact_by_path_patching": float(np.abs(exact - paths).max() / scale)}


def mean_of(results: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {method: {key: float(np.mean([each[method][key] for each in results]))
                     for key in results[0][method]} for method in results[0]}


def without_padding(on: EdgeModel, used: Bool[np.ndarray, "n_edges"]) -> EdgeModel:
    "`on` with the edges that are `used`; the others carry nothing."
    on.grid = EdgeGrid(on.grid.senders, on.grid.receivers, on.grid.edges[torch.as_tensor(used)])
    gap = on.values(torch.zeros(1, len(on.grid)))[0] - on.empty
    assert float(gap.abs().max()) < 1e-4 * float(on.whole.abs().max()), on.pairs.name
    return on


def prepared(name: str) -> tuple[EdgeModel, np.ndarray] | str:
    "A program and which of its edges are true; or why it tells nothing."
    program = load_program(name)
    made = plain_program(program)
    pairs = program_pairs(program, made)
    if pairs is None: return "output at the last position hardly changes"
    on = EdgeModel(made, pairs)
    truth, used = program_truth(program, on)
    if not 0 < truth[used].sum() < used.sum(): return "all of its edges are true"
    if abs(float((on.whole - on.empty).mean())) < 1e-4:
        return "cutting all edges hardly changes the mean output"
    return without_padding(on, used), truth[used]


def programs(seconds: float) -> dict[str, Any]:
    "Every method on all compiled programs, small ones first, until the time is over."
    names = sorted((path.stem for path in FOLDER.glob("*.json")),
                   key=lambda name: (load_program(name).meta["num_layers"], name))
    begun, results, skipped = time.perf_counter(), [], dict[str, list[str]]()
    n_edges = n_true = 0
    kept = []
    for name in names:
        found = prepared(name) if time.perf_counter() - begun < seconds else "no time was left"
        if isinstance(found, str):
            skipped.setdefault(found, []).append(name)
            continue
        on, truth = found
        results.append(judged(on, truth, np.ones(len(truth), dtype=bool)))
        kept.append(name)
        n_edges, n_true = n_edges + len(truth), n_true + int(truth.sum())
        print(f"{name} {time.perf_counter() - begun:.0f} s", len(truth),
              {key: round(value["auc"], 2) for key, value in results[-1].items()}, flush=True)
    deeper = [each for name, each in zip(kept, results, strict=True)
              if load_program(name).meta["num_layers"] > 1]
    return {"programs": len(results), "of": len(names), "skipped": skipped,
            "edges": n_edges, "true_edges": n_true, "names": kept, "methods": mean_of(results),
            "deeper": {"programs": len(deeper), "methods": mean_of(deeper)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1500)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.perf_counter()
    model = EdgeModel(induction_transformer(8),
                      PromptPairs(*induction_prompts(8, N_PAIRS, 6), name="induction"))
    truth = model.grid.mask(INDUCTION_EDGES).numpy()
    everywhere = np.ones(len(truth), dtype=bool)
    numbers: dict[str, Any] = {"references": references(model), "induction": {
        "edges": len(truth), "true_edges": int(truth.sum()),
        "methods": judged(model, truth, everywhere)}}
    print(json.dumps(numbers, indent=1), flush=True)
    planted = plant(random_wiring(0, n_blocks=3))
    on = EdgeModel(planted.hf_model, planted_pairs(planted))
    truth = planted_truth(planted, on)
    numbers["planted"] = {"edges": len(truth), "true_edges": int(truth.sum()),
                          "methods": judged(on, truth, np.ones(len(truth), dtype=bool))}
    print(json.dumps(numbers["planted"], indent=1), flush=True)
    numbers["tracr"] = programs(asked.seconds)
    numbers["seconds"] = time.perf_counter() - begun
    print(json.dumps(numbers, indent=1))
    settings = {"pairs": N_PAIRS, "longest": LONGEST, "steps": STEPS, "seconds": asked.seconds}
    if asked.write: print(write("discovery", settings, numbers))


if __name__ == "__main__":
    main()
