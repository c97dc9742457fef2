"""What the weights of a compiled program can do: which direction can change which, over all valid
inputs of a component, in float64.

A *natural state* gives every variable that a component reads one of its values (a number: one that
occurs), or is what stands at BOS. A source of variable B is realisable if, in some natural state, B
set to that value and B off lead to targets that differ by more than the threshold. MLPs work
position by position, so this enumeration is complete. For attention the context of a query is BOS
and two more keys in any natural state: complete for what two keys can show; the query's own key is
one of them in a real sequence, which is not enforced.

With `Inputs.occurring` only states that occur at some position of the inputs are natural: what an
intervention on those inputs could bring to light.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Float

Program: TypeAlias = Any      # tracr.Program; that module imports this one

MOST_STATES, MOST_CONTEXTS = 20_000, 64
States = Float[np.ndarray, "n_states width"]


def variables_of(program: "Program", directions: list[int]) -> dict[str, list[int]]:
    """The variables behind `directions`: all values of a categorical one (padding apart), or the
    one direction of a number."""
    found: dict[str, list[int]] = {}
    for at in directions:
        label = program.labels[at]
        if label == "one": continue
        name = label.split(":")[0]
        found[name] = [
            other for other in program.spaces[name]
            if not program.labels[other].endswith(":compiler_pad")
        ] if ":" in label else [at]
    return found


@dataclass(frozen=True)
class Inputs:
    """What a component is given: the values that each number takes, and, to ask only about states
    that occur, the streams at all positions."""
    numbers: dict[int, np.ndarray]
    occurring: States | None = None


def natural_states(
    program: "Program", variables: dict[str, list[int]], inputs: Inputs, at_bos: States
) -> tuple[States, bool]:
    """Every combination of values outside BOS, and the rows seen at BOS; a seeded sample, and
    False, where there are too many. Or the states that occur."""
    width = len(program.labels)
    complete = True
    kept = [at for members in variables.values() for at in members]
    if inputs.occurring is not None:
        states = np.zeros_like(inputs.occurring)
        states[:, kept] = inputs.occurring[:, kept]
        states = np.unique(np.round(states, 6), axis=0)
        if "one" in program.labels: states[:, program.labels.index("one")] = 1.0
        return states, True
    choices: list[list[tuple[int, float]]] = []
    for name, members in variables.items():
        if name in program.spaces:
            choices.append([(at, 1.0) for at in members if program.labels[at] != "tokens:BOS"])
        else: choices.append([(members[0], value) for value in inputs.numbers[members[0]].tolist()])
    count = int(np.prod([float(len(choice)) for choice in choices]))
    if count <= MOST_STATES: picked = list(product(*choices))
    else:
        rng, complete = np.random.default_rng(0), False
        picked = [tuple(choice[rng.integers(len(choice))] for choice in choices)
                  for _ in range(MOST_STATES)]
    states = np.zeros((len(picked), width))
    for row, pick in enumerate(picked):
        for at, value in pick: states[row, at] = value
    bos = np.zeros((len(at_bos), width))
    bos[:, kept] = at_bos[:, kept]
    states = np.unique(np.concatenate([states, bos]), axis=0)
    if "one" in program.labels: states[:, program.labels.index("one")] = 1.0
    return states, complete


def toggles(
    states: States, members: list[int], values: np.ndarray | None
) -> Iterator[tuple[int, States, States]]:
    """(direction, states with it on, the same with its variable off); of a number every pair of
    neighbouring values."""
    contexts = states.copy()
    contexts[:, members] = 0.0
    contexts = np.unique(contexts, axis=0)
    if values is not None:
        for low, high in zip(values[:-1].tolist(), values[1:].tolist(), strict=True):
            on, off = contexts.copy(), contexts.copy()
            on[:, members[0]], off[:, members[0]] = high, low
            yield members[0], on, off
        return
    for at in members:
        on = contexts.copy()
        on[:, at] = 1.0
        yield at, on, contexts


def at_bos_of(program: "Program") -> States:
    "What the embedding puts at BOS: the flag, and the position's."
    token = program.weights["token_embed|embeddings"]
    position = program.weights["pos_embed|embeddings"]
    return (token[program.meta["token_encoding"]["BOS"]] + position[0])[None].astype(np.float64)


def realisable_mlp(
    program: "Program", component: str, inputs: Inputs, threshold: float
) -> tuple[Bool[np.ndarray, "width width"], bool]:
    "Direction pairs that the MLP can realise, and whether every natural state was tried."
    part = f"transformer/layer_{component[1:]}/mlp/linear_"
    w_in, b_in, w_out = (
        program.weights[part + name].astype(np.float64) for name in ("1|w", "1|b", "2|w")
    )
    answer, complete = np.zeros((len(program.labels),) * 2, dtype=bool), True
    written: dict[str, list[int]] = {}
    for at in np.flatnonzero(np.abs(w_out).max(0) > 1e-9):
        written.setdefault(program.labels[at].split(":")[0], []).append(int(at))
    # one written variable at a time: its units read few variables
    for targets in written.values():
        units = np.abs(w_out[:, targets]).max(1) > 1e-9
        variables = variables_of(
            program, np.flatnonzero(np.abs(w_in[:, units]).max(1) > 1e-9).tolist()
        )
        states, whole = natural_states(program, variables, inputs, at_bos_of(program))
        complete &= whole
        def out(
            rows: States, units: np.ndarray = units, targets: list[int] = targets
        ) -> np.ndarray:
            return np.maximum(
                rows @ w_in[:, units] + b_in[units], 0
            ) @ w_out[np.ix_(units, targets)]
        for name, members in variables.items():
            for source, on, off in toggles(
                states, members, None if name in program.spaces else inputs.numbers[members[0]]
            ):
                answer[source, targets] |= np.abs(out(on) - out(off)).max(0) > threshold
    return answer, complete


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def realisable_attention(
    program: "Program", component: str, inputs: Inputs, threshold: float
) -> tuple[Bool[np.ndarray, "width width"], bool]:
    """Direction pairs that a head of the sublayer can realise in a context of BOS and two more
    keys, and whether every such context was tried."""
    answer, complete = np.zeros((len(program.labels),) * 2, dtype=bool), True
    for name, reads in program.meta["components"].items():
        if name.split(".")[0] != component: continue
        found, whole = realisable_head(
            program, component, int(name.split(".h")[1]), reads, inputs, threshold
        )
        answer |= found
        complete &= whole
    return answer, complete


def realisable_head(
    program: "Program", component: str, head: int, reads: dict[str, list[str]], inputs: Inputs,
    threshold: float
) -> tuple[Bool[np.ndarray, "width width"], bool]:
    "The same for one head."
    width, size = len(program.labels), program.meta["key_size"]
    part, own = f"transformer/layer_{component[1:]}/attn/", slice(head * size, (head + 1) * size)
    def weight(name: str) -> np.ndarray: return program.weights[part + name].astype(np.float64)
    (w_q, b_q), (w_k, b_k), (w_v, b_v) = ((weight(f"{kind}|w")[:, own], weight(f"{kind}|b")[own])
                                          for kind in ("query", "key", "value"))
    targets = [program.labels.index(label) for label in reads["out"]]
    w_o = weight("linear|w")[own][:, targets]
    def directions(*kinds: str) -> list[int]:
        return [program.labels.index(label) for kind in kinds for label in reads[kind]]
    queried = variables_of(program, directions("q"))
    kept = variables_of(program, directions("k", "v"))
    bos = at_bos_of(program)
    queries, whole_q = natural_states(program, queried, inputs, bos)
    keys, whole_k = natural_states(program, kept, inputs, bos)
    def query(rows: States) -> np.ndarray: return (rows @ w_q + b_q) / np.sqrt(size)
    def key(rows: States) -> np.ndarray: return rows @ w_k + b_k
    def value(rows: States) -> np.ndarray: return (rows @ w_v + b_v) @ w_o
    bos_key, bos_value = key(bos), value(bos)[0]
    # keys that no query can tell apart
    classes, member = np.unique(np.round(key(keys), 9), axis=0, return_inverse=True)
    values, member = value(keys), member.reshape(-1)
    least, most = (
        np.stack([function(values[member == number], axis=0) for number in range(len(classes))])
        for function in (np.min, np.max)
    )
    answer, complete = np.zeros((width, width), dtype=bool), whole_q and whole_k

    def far(change: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        "Least and most of change * u over low <= u <= high."
        return np.minimum(change * low, change * high), np.maximum(change * low, change * high)

    # through the query: two keys and BOS, all pairs of classes
    for name, members in queried.items():
        for source, on, off in toggles(
            queries, members, None if name in program.spaces else inputs.numbers[members[0]]
        ):
            if len(on) > MOST_CONTEXTS:
                on, off, complete = on[:MOST_CONTEXTS], off[:MOST_CONTEXTS], False
            for one, other in zip(query(on), query(off), strict=True):
                weights = []
                for vector in (one, other):
                    scores, at_bos = classes @ vector, float((bos_key @ vector)[0])
                    weights.append(softmax(np.stack(np.broadcast_arrays(
                                                        at_bos, scores[:, None], scores[None, :]
                                                    ), axis=-1)))
                # [class, class, key, 1]
                change = (weights[0] - weights[1])[..., None]
                first = far(change[:, :, 1], least[:, None], most[:, None])
                second = far(change[:, :, 2], least[None], most[None])
                base = change[:, :, 0] * bos_value
                reach = np.maximum(
                    np.abs(base + first[0] + second[0]), np.abs(base + first[1] + second[1])
                )
                answer[source, targets] |= reach.max((0, 1)) > threshold
    tried = query(queries)
    if len(tried) > MOST_CONTEXTS:
        tried, complete = np.unique(np.round(tried, 9), axis=0)[:MOST_CONTEXTS], False
    bos_scores, class_scores = (tried @ bos_key.T)[:, 0], tried @ classes.T
    # through a key or its value, next to one more key and BOS
    for name, members in kept.items():
        for source, on, off in toggles(
            keys, members, None if name in program.spaces else inputs.numbers[members[0]]
        ):
            if len(on) > MOST_CONTEXTS:
                on, off, complete = on[:MOST_CONTEXTS], off[:MOST_CONTEXTS], False
            weights, carried = [], []
            for rows in (on, off):
                scores = np.stack(np.broadcast_arrays(
                                      bos_scores[:, None, None], (tried @ key(rows).T)[:, :, None],
                                      class_scores[:, None, :]
                                  ), axis=-1)
                # [query, state, class, key, 1]
                weights.append(softmax(scores)[..., None])
                carried.append(value(rows)[None, :, None])
            base = ((weights[0][..., 0, :] - weights[1][..., 0, :]) * bos_value
                    + weights[0][..., 1, :] * carried[0] - weights[1][..., 1, :] * carried[1])
            low, high = far(weights[0][..., 2, :] - weights[1][..., 2, :], least, most)
            answer[source, targets] |= np.maximum(np.abs(base + low), np.abs(base + high)).max(
                (0, 1, 2)
            ) > threshold
    return answer, complete
