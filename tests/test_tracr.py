"""The benchmark of compiled programs: its measurement against unbatched passes, its truth against
brute force over whole inputs."""
import itertools
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))


@pytest.fixture(scope="module")
def tracr(shared_data):
    pytest.importorskip("transformer_lens")
    import tracr
    return tracr


@pytest.fixture(scope="module")
def programs(tracr):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: tracr.load_program(name) for name in ("hist", "ib_case_1", "frac_prevs")}


@pytest.mark.parametrize("name", ["hist", "ib_case_1", "frac_prevs"])
@torch.no_grad()
def test_a_loaded_program_computes_what_it_should(programs, name):
    program = programs[name]
    encoding = program.meta["token_encoding"]
    basis = [program.labels.index(label) for label in program.meta["output_basis"]]
    wrong = checked = 0
    for example in program.meta["examples"]:
        tokens = torch.tensor(
            [[encoding["BOS"], *(encoding[str(token)] for token in example["x"])]]
        )
        _, cache = program.model.run_with_cache(
            tokens, names_filter=f"blocks.{program.meta['num_layers'] - 1}.hook_resid_post"
        )
        outputs = next(iter(cache.values()))[0][1:, basis]
        for found, expected in zip(outputs, example["y"], strict=True):
            if expected is None: continue
            checked += 1
            if len(basis) == 1: wrong += abs(float(found[0]) - float(expected)) > 0.01
            else:
                wrong += program.meta["output_basis"][int(found.argmax())].split(
                    ":", 1
                )[1] != str(expected)
    assert checked > 50 and wrong == 0


@pytest.mark.parametrize("name", ["hist", "ib_case_1", "frac_prevs"])
@torch.no_grad()
def test_measured_effects_are_those_of_single_passes(tracr, programs, name):
    program = programs[name]
    tokens, lengths = tracr.sample_inputs(program)
    component, source, target = tracr.sublayers(program)[0]
    streams = torch.zeros(*tokens.shape, len(program.labels))
    for row, length in enumerate(lengths.tolist()):
        streams[row, :length] = (
            program.model.run_with_cache(tokens[row : row + 1, :length])[1][source.name][0]
        )
    samples = torch.tensor([[0, 1], [3, 0], [30, 2]])
    found = tracr.measure(program, tokens, lengths, samples, source, target, streams)["clamp"]
    low, high = tracr.spread(streams, lengths)
    expected = torch.zeros_like(found)
    block = program.model.blocks[source.layer]
    sublayer = (
        (lambda stream: block.attn(stream, stream, stream)) if component[0] == "a" else block.mlp
    )
    for (row, at), direction in itertools.product(samples.tolist(), range(len(program.labels))):
        stream = streams[row : row + 1, : lengths[row]]
        value = stream[0, at, direction]
        doses = [low[direction], high[direction]] if direction in program.numeric else [
            float(value < 0.5)
        ]
        for dose in doses:
            changed = stream.clone()
            changed[0, at, direction] = dose
            expected[direction] = torch.maximum(
                expected[direction], (sublayer(changed) - sublayer(stream))[0].abs().amax(0)
            )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (expected > 1e-3).any()


def test_the_truth_of_an_mlp_is_brute_force_over_its_inputs(tracr, programs):
    from tracr_truth import Inputs, realisable_mlp
    # one MLP that maps two categorical variables to one
    program = programs["ib_case_1"]
    block, labels = program.model.blocks[0].double(), program.labels
    with torch.no_grad():
        found, complete = realisable_mlp(program, "m0", Inputs({}), 1e-3)
        expected = np.zeros_like(found)
        groups = {name: program.spaces[name] for name in ("tokens", "shift_by(2)_89")}
        for members, context in itertools.permutations(groups.values(), 2):
            for at, beside in itertools.product(members, context):
                if "compiler_pad" in labels[at] + labels[beside] or (
                    labels[beside] == "tokens:BOS"
                ):
                    continue
                stream = torch.zeros(1, 1, len(labels), dtype=torch.float64)
                stream[..., [labels.index("one"), beside]] = 1.0
                with_it = stream.clone()
                with_it[..., at] = 1.0
                expected[at] |= (
                    (block.mlp(with_it) - block.mlp(stream)).abs()[0, 0] > 1e-3
                ).numpy()
        block.float()
    assert complete and found.any() and not (expected & ~found).any()
    beyond = {labels[at] for at in np.flatnonzero((found & ~expected).any(1))}
    assert not beyond, beyond


def test_selectors_and_counters_are_contracted(tracr, programs):
    assert tracr.program_edges(programs["hist"]) == {("tokens", "hist_7")}
    assert tracr.program_edges(programs["ib_case_1"]) == {
        ("tokens", "sequence_map_88"), ("tokens", "shift_by(2)_89"),
        ("shift_by(2)_89", "sequence_map_88"), ("indices", "shift_by(2)_89")
    }
    program = programs["hist"]
    found = np.zeros((len(program.labels),) * 2, dtype=bool)
    def edge(source: str, target: str) -> None:
        found[program.labels.index(source), program.labels.index(target)] = True
    edge("tokens:a", "hist_7_selector_width_attn_output")
    assert tracr.variable_edges(program, found) == (set(), set())
    edge("hist_7_selector_width_attn_output", "hist_7:2")
    assert tracr.variable_edges(program, found) == ({("tokens", "hist_7")}, set())
    edge("tokens:BOS", "hist_7:2")
    assert tracr.variable_edges(program, found) == ({("tokens", "hist_7")}, {("BOS", "hist_7")})


def test_head_truth_holds_every_effect_of_short_inputs(tracr, programs):
    """Every direction pair that one toggle in some short input shows is among those called
    realisable."""
    from tracr_truth import Inputs, realisable_attention
    program = programs["ib_case_1"]
    found, complete = realisable_attention(program, "a0", Inputs({}), 1e-3)
    encoding, block = program.meta["token_encoding"], program.model.blocks[0]
    expected = np.zeros_like(found)
    with torch.no_grad():
        for text in ("abcd", "badea", "ccabe", "eeeee", "dacbb"):
            stream = program.model.run_with_cache(
                torch.tensor([[encoding["BOS"], *(encoding[token] for token in text)]])
            )[1]["blocks.0.hook_resid_pre"]
            for at, members in itertools.product(
                (1, 2, 3, 4), (program.spaces["tokens"], program.spaces["indices"])
            ):
                off = stream.clone()
                off[0, at, members] = 0.0
                for direction in members:
                    on = off.clone()
                    on[0, at, direction] = 1.0
                    expected[direction] |= (
                        (block.attn(on, on, on) - block.attn(off, off, off)).abs().amax((0, 1))
                        > 1e-3
                    ).numpy()
    beyond = [(program.labels[source], program.labels[target])
              for source, target in zip(*np.nonzero(expected & ~found), strict=True)]
    assert complete and expected.sum() > 20 and not beyond
