"""139 transformers compiled from RASP programs: does measuring find the edges the compiler wrote,
and only those?

`python benchmarks/tracr.py` reads the programs in `../shared/data/bench/tracr`. Their residual
stream has one named direction for every value of every variable, so the features are the basis
directions. Every sublayer is measured by itself (attention: resid_pre -> resid_mid, MLP: resid_mid
-> resid_post), at the same sampled (sequence, position), and the source's own persistence is
subtracted. An edge is a direction pair whose largest
|effect| over samples, doses and positions exceeds `THRESHOLD`.

Truth: `allowed` pairs (the component reads the source and writes the target, from the metadata);
`realisable` pairs (`tracr_truth.py`: float64 enumeration of what the weights can do to valid
inputs, and to states that occur in the inputs at hand); and the program's own graph of variables,
selectors contracted.
"""

import argparse
import json
import sys
import time
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent))
from record import write
from tracr_truth import Inputs, realisable_attention, realisable_mlp

from feature_interaction_graph.engine.hook_points import HookPoint
from feature_interaction_graph.engine.noncausal import whole_sequence_effects
from feature_interaction_graph.engine.residuals import clean_residuals

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "bench" / "tracr"
THRESHOLD, SAMPLES, RANDOM_SEQUENCES, LONGEST = 1e-3, 40, 16, 10
METHODS = {
    "clamp": "clamp one direction",
    "swap": "clamp with the rest of its variable off",
    "both": "clamp, both ways together",
    "jacobian": "Jacobian at the same samples",
    "weights": "weights alone: W_in W_out, W_V W_O",
    "decoder": "decoder overlap alone",
}


@dataclass
class Program:
    """One compiled program: the model, what its directions are called, and what each component may
    do."""
    name: str
    meta: dict[str, Any]
    model: Any
    weights: dict[str, np.ndarray]
    labels: list[str]
    spaces: dict[str, list[int]]        # categorical variable -> its directions
    # of every direction: the node of the program, or a helper of the compiler
    variable: list[str]

    @property
    def numeric(self) -> list[int]:
        "Directions that hold a number instead of a flag."
        return [at for at, label in enumerate(self.labels) if ":" not in label and label != "one"]


def load_program(name: str) -> Program:
    """The program as a `HookedTransformer` without normalisation, causal or bidirectional as
    compiled."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    meta = json.loads((FOLDER / f"{name}.json").read_text())
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as stored:
        weights = {key: stored[key] for key in stored.files if "|" in key}
    labels, heads, width = meta["residual_labels"], meta["num_heads"], meta["key_size"]
    embed, positional = weights["token_embed|embeddings"], weights["pos_embed|embeddings"]
    config = HookedTransformerConfig(
        n_layers=meta["num_layers"], d_model=len(labels), n_ctx=len(positional), d_head=width,
        n_heads=heads, d_mlp=meta["mlp_hidden"], d_vocab=len(embed), d_vocab_out=1, act_fn="relu",
        normalization_type=None, attention_dir="causal" if meta["causal"] else "bidirectional",
        device="cpu"
    )
    model = HookedTransformer(config)
    state = model.state_dict() | {"embed.W_E": embed, "pos_embed.W_pos": positional}
    for layer in range(meta["num_layers"]):
        block, part = f"blocks.{layer}", f"transformer/layer_{layer}"
        for theirs, ours in (("query", "Q"), ("key", "K"), ("value", "V")):
            state[f"{block}.attn.W_{ours}"] = weights[f"{part}/attn/{theirs}|w"].reshape(
                len(labels), heads, width
            ).transpose(1, 0, 2)
            state[f"{block}.attn.b_{ours}"] = weights[f"{part}/attn/{theirs}|b"].reshape(
                heads, width
            )
        state[f"{block}.attn.W_O"] = weights[f"{part}/attn/linear|w"].reshape(
            heads, width, len(labels)
        )
        state[f"{block}.attn.b_O"] = weights[f"{part}/attn/linear|b"]
        for theirs, ours in (("linear_1", "in"), ("linear_2", "out")):
            state[f"{block}.mlp.W_{ours}"], state[f"{block}.mlp.b_{ours}"] = (
                weights[f"{part}/mlp/{theirs}|w"], weights[f"{part}/mlp/{theirs}|b"]
            )
    model.load_state_dict(
        {key: torch.as_tensor(np.ascontiguousarray(value), dtype=torch.float32)
         if isinstance(value, np.ndarray) else value for key, value in state.items()}
    )
    spaces: dict[str, list[int]] = defaultdict(list)
    for at, label in enumerate(labels):
        if ":" in label: spaces[label.split(":")[0]].append(at)
    node_of = {
        label: node for node, facts in meta["nodes"].items() for label in facts["basis"] or []
    }
    helpers = {"tokens:BOS": "BOS", "tokens:compiler_pad": "padding"}
    variable = [node_of.get(label) or helpers.get(label) or label.split(":")[0] for label in labels]
    return Program(
        name, meta, model.eval().requires_grad_(False), weights, labels, dict(spaces), variable
    )


def sample_inputs(
    program: Program, seed: int = 0
) -> tuple[Int[Tensor, "n_seq seq_len"], Int[Tensor, "n_seq"]]:
    """The program's example inputs and random ones over its vocabulary, right-padded, each after
    BOS."""
    encoding, rng = program.meta["token_encoding"], np.random.default_rng(seed)
    vocabulary = [
        token for label, token in encoding.items() if label not in ("BOS", "compiler_pad")
    ]
    room = min(program.model.cfg.n_ctx - 1, LONGEST)
    texts = [[encoding[str(token)] for token in example["x"]][:room]
             for example in program.meta["examples"]]
    texts += [rng.choice(vocabulary, room).tolist() for _ in range(RANDOM_SEQUENCES)]
    lengths = torch.tensor([1 + len(text) for text in texts])
    tokens = torch.zeros(len(texts), int(lengths.max()), dtype=torch.int64)
    for row, text in enumerate(texts):
        tokens[row, : lengths[row]] = torch.tensor([encoding["BOS"], *text])
    return tokens, lengths


def choose_samples(
    streams: dict[str, Float[Tensor, "n_seq seq_len width"]], lengths: Tensor, many: int
) -> Int[Tensor, "n_samples 2"]:
    """Places that show most: greedily those in which most pairs of directions that were never seen
    on together are on together.

    An effect of one variable often needs a certain value of another (every map of two variables
    does), so pairs are what must be covered.
    """
    places = [(row, at) for row, length in enumerate(lengths.tolist()) for at in range(length)]
    places = [places[at] for at
              in torch.randperm(len(places), generator=torch.Generator().manual_seed(0)).tolist()]
    here = torch.stack(
        [torch.stack([stream[place] for place in places]) for stream in streams.values()]
    )
    on = (here.abs() > 1e-6).any(0).numpy()
    codes = [
        np.add.outer(np.flatnonzero(row) * on.shape[1], np.flatnonzero(row)).ravel() for row in on
    ]
    flat, starts = np.concatenate(codes), np.cumsum([0, *(len(code) for code in codes[:-1])])
    chosen: list[tuple[int, int]] = []
    new, left = np.ones(on.shape[1] ** 2, dtype=bool), np.ones(len(places), dtype=bool)
    while len(chosen) < min(many, len(places)):
        gains = np.add.reduceat(new[flat], starts) * left
        # everything is covered: cover it once more
        if not gains.any():
            new[:] = True
            gains = np.add.reduceat(new[flat], starts) * left
        best = int(gains.argmax())
        chosen.append(places[best])
        left[best], new[codes[best]] = False, False
    return torch.tensor(sorted(chosen))


def sublayers(program: Program) -> list[tuple[str, HookPoint, HookPoint]]:
    """Component, where it is read and where it is written, for every sublayer that the metadata
    lists."""
    live = {component.split(".")[0] for component in program.meta["components"]}
    both = [(f"{kind}{layer}", HookPoint("resid_pre" if kind == "a" else "resid_mid", layer),
             HookPoint("resid_mid" if kind == "a" else "resid_post", layer))
            for layer in range(program.meta["num_layers"]) for kind in "am"]
    return [entry for entry in both if entry[0] in live]


def interventions(
    program: Program, stream: Float[Tensor, "n_samples width"], low: Tensor, high: Tensor
) -> tuple[Float[Tensor, "n_samples n_rows width"], list[tuple[str, int, int]]]:
    """What is added in the rows of every sample, and (mode, source, row it is compared with) of
    each row.

    A clamp is compared with the untouched row; a swap, one direction alone in its variable, with
    the row in which that variable is off. A number is clamped to its smallest and largest value in
    either mode.
    """
    width, rows, vectors = stream.shape[1], [("", -1, 0)], [torch.zeros_like(stream)]
    def changed(at: int, amount: Tensor) -> Tensor:
        return torch.zeros_like(stream).index_fill_(1, torch.tensor([at]), 1.0) * amount[:, None]
    for at in [at for space in program.spaces.values() for at in space] + [
        at for at, label in enumerate(program.labels) if label == "one"
    ]:
        rows.append(("clamp", at, 0))
        vectors.append(changed(at, (stream[:, at] < 0.5).float() - stream[:, at]))
    for at in program.numeric:
        for dose in (low[at], high[at]):
            rows.append(("any", at, 0))
            vectors.append(changed(at, dose - stream[:, at]))
    for space in program.spaces.values():
        inside = torch.zeros(width).index_fill_(0, torch.tensor(space), 1.0)
        off = len(rows)
        rows += [("", -1, off), *(("swap", at, off) for at in space)]
        vectors += [-stream * inside, *(-stream * inside + torch.eye(width)[at] for at in space)]
    return torch.stack(vectors, dim=1), rows


def measure(
    program: Program, tokens: Tensor, lengths: Tensor, samples: Int[Tensor, "n_samples 2"],
    source: HookPoint, target: HookPoint, streams: Tensor
) -> dict[str, Float[Tensor, "width width"]]:
    """Largest |effect| of every direction at `source` on every direction at `target`, over samples,
    doses and positions, by each way of clamping."""
    width, (low, high) = len(program.labels), spread(streams, lengths)
    largest = {mode: torch.zeros(width, width) for mode in ("clamp", "swap")}
    group = max(1, int(8e6) // (2 * width * width * tokens.shape[1]))
    for some in samples.split(group):
        added, rows = interventions(program, streams[some[:, 0], some[:, 1]], low, high)
        against = torch.tensor([row[2] for row in rows])
        sequences, positions = (some[:, column].repeat_interleave(len(rows)) for column in (0, 1))
        after = whole_sequence_effects(
            program.model, tokens, source, sequences, positions, added.flatten(0, 1), [target],
            lengths=lengths, rows_per_pass=512
        )[target.name].unflatten(0, added.shape[:2])
        effect = after - after[:, against]
        here = torch.arange(len(some))
        # the source's own change, carried on by the stream
        effect[here, :, some[:, 1]] -= added - added[:, against]
        size = effect.nan_to_num_(0.0).abs_().amax(dim=(0, 2))
        for row, (mode, at, _) in enumerate(rows):
            for name in largest:
                if mode in (name, "any"):
                    torch.maximum(largest[name][at], size[row], out=largest[name][at])
    return largest | {"both": torch.maximum(largest["clamp"], largest["swap"])}


def spread(streams: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    "Smallest and largest value of every direction over all positions of all sequences."
    values = torch.cat([streams[row, :length] for row, length in enumerate(lengths.tolist())])
    return values.amin(0), values.amax(0)


def jacobian(
    program: Program, lengths: Tensor, samples: Tensor, component: str, streams: Tensor
) -> Float[Tensor, "width width"]:
    """Largest |derivative| times dose range, by forward-mode autograd through the sublayer at the
    same samples."""
    block, width = program.model.blocks[int(component[1:])], len(program.labels)
    attends = component[0] == "a"
    def sublayer(stream: Tensor) -> Tensor:
        return block.attn(stream, stream, stream) if attends else block.mlp(stream)
    low, high = spread(streams, lengths)
    scale = torch.ones(width)
    scale[program.numeric] = (high - low)[program.numeric]
    largest = torch.zeros(width, width)
    for sequence, position in samples.tolist():
        # an MLP moves its own position only
        stream = (streams[sequence, : lengths[sequence]] if attends
                  else streams[sequence, position : position + 1])
        stream, position = stream.expand(width, -1, -1), position if attends else 0
        tangent = torch.zeros_like(stream)
        tangent[torch.arange(width), position, torch.arange(width)] = 1.0
        _, change = torch.func.jvp(sublayer, (stream.contiguous(),), (tangent,))
        largest = torch.maximum(largest, change.abs().amax(dim=1) * scale[:, None])
    return largest


def from_weights(program: Program, component: str) -> Float[Tensor, "width width"]:
    """Sum of |W_V W_O| over heads, or |W_in W_out|: what the weights connect when every
    nonlinearity is ignored."""
    block = program.model.blocks[int(component[1:])]
    if component[0] == "m": return (block.mlp.W_in @ block.mlp.W_out).abs()
    return (block.attn.W_V @ block.attn.W_O).abs().sum(0)


def allowed_pairs(program: Program, component: str) -> Bool[np.ndarray, "width width"]:
    """Source read by, and target written by, one head or MLP of the sublayer, according to the
    compiler's metadata."""
    allowed = np.zeros((len(program.labels),) * 2, dtype=bool)
    for name, facts in program.meta["components"].items():
        if name.split(".")[0] != component: continue
        reads = {label for part, labels in facts.items() if part != "out" for label in labels}
        allowed |= np.outer([label in reads for label in program.labels],
                            [label in facts["out"] for label in program.labels])
    return allowed


def program_edges(program: Program) -> set[tuple[str, str]]:
    """The program's graph between variables that have directions: selectors, which have none, are
    contracted."""
    causes = defaultdict(set)
    for source, target in program.meta["edges"]: causes[target].add(source)
    def visible(node: str) -> set[str]:
        return {found for cause in causes[node]
                for found in ({cause} if program.meta["nodes"][cause]["basis"] else visible(cause))}
    return {(source, node) for node, facts in program.meta["nodes"].items() if facts["basis"]
            for source in visible(node)}


def variable_edges(
    program: Program, found: Bool[np.ndarray, "width width"]
) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Pairs of program variables joined by a direction edge, the counters of selector widths
    contracted; and the pairs with a helper of the compiler."""
    pairs = {(program.variable[source], program.variable[target])
             for source, target in zip(*np.nonzero(found), strict=True)}
    pairs = {pair for pair in pairs if pair[0] != pair[1]}
    counters = {name for name in program.variable if name.endswith("_selector_width_attn_output")}
    through = {(source, target) for source, counter in pairs if counter in counters
               for other, target in pairs if other == counter and source != target}
    direct = {pair for pair in pairs if not set(pair) & counters} | {
        pair for pair in through if not set(pair) & counters
    }
    nodes = {node for node, facts in program.meta["nodes"].items() if facts["basis"]}
    return ({pair for pair in direct if set(pair) <= nodes},
            {pair for pair in direct if not set(pair) <= nodes})


def run_program(name: str) -> dict[str, Any]:
    "All counts of one program."
    program = load_program(name)
    tokens, lengths = sample_inputs(program)
    parts = sublayers(program)
    points = list({source.name: source for _, source, _ in parts}.values())
    streams = {point.name: torch.zeros(*tokens.shape, len(program.labels)) for point in points}
    for row, length in enumerate(lengths.tolist()):
        for key, stream in clean_residuals(
            program.model, tokens[row : row + 1, :length], points
        ).items():
            streams[key][row, :length] = stream[0]
    samples = choose_samples(streams, lengths, SAMPLES)
    counts: dict[str, Any] = {method: Counter() for method in METHODS}
    found_anywhere = {method: np.zeros((len(program.labels),) * 2, dtype=bool)
                      for method in (*METHODS, "realisable")}
    clock: Counter[str] = Counter()
    unsure = exact = 0
    for component, source, target in parts:
        begun = time.perf_counter()
        sizes = measure(program, tokens, lengths, samples, source, target, streams[source.name])
        clock["clamping"] += time.perf_counter() - begun
        begun = time.perf_counter()
        sizes["jacobian"] = jacobian(program, lengths, samples, component, streams[source.name])
        clock["jacobian"] += time.perf_counter() - begun
        sizes |= {
            "weights": from_weights(program, component), "decoder": torch.eye(len(program.labels))
        }
        numbers = {
            at: np.unique(np.round(streams[source.name][..., at].numpy().astype(np.float64), 6))
            for at in program.numeric
        }
        begun = time.perf_counter()
        everywhere = torch.cat(
            [streams[source.name][row, :length] for row, length in enumerate(lengths.tolist())]
        ).unique(dim=0).numpy().astype(np.float64)
        realise = realisable_attention if component[0] == "a" else realisable_mlp
        realisable, complete = realise(program, component, Inputs(numbers), THRESHOLD)
        occurring, _ = realise(program, component, Inputs(numbers, everywhere), THRESHOLD)
        clock["truth"] += time.perf_counter() - begun
        exact += complete
        allowed = allowed_pairs(program, component)
        off_diagonal = ~np.eye(len(program.labels), dtype=bool)
        constant = np.array([label == "one" for label in program.labels])
        for truth in (realisable, occurring):
            truth &= off_diagonal
            truth[constant] = False
        found_anywhere["realisable"] |= realisable
        unsure += int(((sizes["both"] > THRESHOLD / 10) & (sizes["both"] < THRESHOLD * 10)).sum())
        for method in METHODS:
            found = (sizes[method].numpy() > THRESHOLD) & off_diagonal
            found_anywhere[method] |= found
            flags = found & ~constant[:, None]
            counts[method].update(
                found=int(found.sum()), allowed=int((found & allowed).sum()),
                true=int((flags & realisable).sum()), without_one=int(flags.sum()),
                realisable=int(realisable.sum()),
                **{f"occurring_{component[0]}": int(occurring.sum()),
                   f"occurring_found_{component[0]}": int((flags & occurring).sum())}
            )
    edges = program_edges(program)
    possible = variable_edges(program, found_anywhere["realisable"])[0]
    missing = {}
    for method in METHODS:
        pairs, helpers = variable_edges(program, found_anywhere[method])
        counts[method].update(
            pairs=len(pairs), pairs_true=len(pairs & edges), dag=len(edges),
            dag_possible=len(edges & possible), pairs_possible=len(pairs & edges & possible),
            helper_pairs=len(helpers)
        )
        missing[method] = sorted(f"{source} -> {target}" for source, target in edges - pairs)
    return {"name": name, "causal": program.meta["causal"], "counts": counts,
            "near_threshold": unsure, "sublayers": len(parts), "truth_complete": int(exact),
            "seconds": dict(clock), "missing": missing["both"],
            "dag_edges_weights_cannot_realise": sorted(map(" -> ".join, edges - possible))}


def table(programs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    "Counts summed over programs, and the shares they give, by method."
    answer = {}
    for method, words in METHODS.items():
        total: Counter[str] = sum((program["counts"][method] for program in programs), Counter())
        def share(part: str, whole: str, total: Counter[str] = total) -> float | None:
            return total[part] / total[whole] if total[whole] else None
        answer[method] = {
            "words": words, "direction_edges": total["found"],
            "direction_precision_allowed": share("allowed", "found"),
            "direction_precision_realisable": share("true", "without_one"),
            "direction_recall": share("true", "realisable"),
            "direction_recall_occurring_mlp": share("occurring_found_m", "occurring_m"),
            "occurring_mlp": total["occurring_m"],
            "direction_recall_occurring_attention": share("occurring_found_a", "occurring_a"),
            "occurring_attention": total["occurring_a"], "realisable": total["realisable"],
            "variable_pairs": total["pairs"], "variable_precision": share("pairs_true", "pairs"),
            "variable_recall": share("pairs_true", "dag"),
            "variable_recall_possible": share("pairs_possible", "dag_possible"),
            "dag_edges": total["dag"], "dag_possible": total["dag_possible"],
            "helper_pairs": total["helper_pairs"], "programs_without_a_miss": sum(
                program["counts"][method]["pairs_true"] == program["counts"][method]["dag"]
                for program in programs
            )
        }
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--programs", nargs="*", help="names (default: all)")
    parser.add_argument("--write", action=argparse.BooleanOptionalAction, default=True)
    asked = parser.parse_args()
    if not FOLDER.is_dir(): raise SystemExit(f"needs the folder {FOLDER}")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", DeprecationWarning)
    names = asked.programs or sorted(path.stem for path in FOLDER.glob("*.json"))
    begun = time.perf_counter()
    programs = [run_program(name) for name in tqdm(names)]
    def total(key: str) -> int: return sum(program[key] for program in programs)
    def listed(key: str) -> dict[str, list[str]]:
        return {program["name"]: program[key] for program in programs if program[key]}
    numbers = {
        "programs": len(programs),
        "bidirectional": sum(not program["causal"] for program in programs),
        "seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time(),
        "seconds_by_part": dict(
            sum((Counter(program["seconds"]) for program in programs), Counter())
        ), "sublayers": total("sublayers"),
        "sublayers_with_complete_truth": total("truth_complete"),
        "effects_within_ten_times_of_threshold": total("near_threshold"),
        "methods": table(programs), "program_edges_missed_by_clamping": listed("missing"),
        "program_edges_the_weights_cannot_realise": listed("dag_edges_weights_cannot_realise")
    }
    print(json.dumps(numbers, indent=1))
    settings = {"threshold": THRESHOLD, "samples_per_program": SAMPLES,
                "random_sequences": RANDOM_SEQUENCES, "longest": LONGEST}
    if asked.write: print(write("tracr", settings, numbers))


if __name__ == "__main__":
    main()
