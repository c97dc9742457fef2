"""Exact passes read at every position, against one unbatched pass per row with a hook written
here, for causal and bidirectional models of three kinds."""
import warnings
from collections.abc import Callable

import pytest
import torch

from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.engine.noncausal import whole_sequence_effects
from feature_interaction_graph.engine.residuals import hooked_forward

WIDTH, LENGTHS = 16, torch.tensor([7, 4, 7, 5])
TOKENS = torch.randint(0, 30, (4, 7), generator=torch.Generator().manual_seed(3))


def hooked_transformer(direction: str) -> torch.nn.Module:
    transformer_lens = pytest.importorskip("transformer_lens")
    if not hasattr(transformer_lens, "HookedTransformer"):
        pytest.skip("this TransformerLens has no HookedTransformer")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = transformer_lens.HookedTransformerConfig(
            n_layers=3, d_model=WIDTH, n_ctx=8, d_head=4, n_heads=4, d_mlp=24, d_vocab=30,
            act_fn="relu", normalization_type="LN", attention_dir=direction, seed=0, device="cpu"
        )
        return transformer_lens.HookedTransformer(config).eval()


def gpt2() -> torch.nn.Module:
    from transformers import AutoModelForCausalLM, GPT2Config
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        GPT2Config(vocab_size=30, n_embd=WIDTH, n_layer=3, n_head=4, n_positions=8, bos_token_id=0,
                   eos_token_id=0)
    ).eval()


def bert() -> torch.nn.Module:
    from transformers import BertConfig, BertForMaskedLM
    torch.manual_seed(0)
    return BertForMaskedLM(
        BertConfig(vocab_size=30, hidden_size=WIDTH, num_hidden_layers=3, num_attention_heads=4,
                   intermediate_size=24, max_position_embeddings=8)
    ).eval()


def plain_hooked(model: torch.nn.Module, source: str, target: str) -> Callable:
    "One pass of a HookedTransformer over one sequence."
    def run(tokens: torch.Tensor, position: int, vector: torch.Tensor) -> torch.Tensor:
        kept = {}
        def push(stream: torch.Tensor, hook: object) -> torch.Tensor:
            return torch.cat([stream[:, :position], stream[:, position : position + 1] + vector,
                              stream[:, position + 1 :]], dim=1)
        model.run_with_hooks(
            tokens[None], fwd_hooks=[
                (source, push), (target, lambda stream, hook: kept.update(out=stream.clone()))
            ]
        )
        return kept["out"][0]
    return run


def plain_blocks(
    model: torch.nn.Module, blocks: torch.nn.ModuleList, entry: int, out: int
) -> Callable:
    """One pass over one sequence, pushed at the input of block `entry`, read at the output of block
    `out`."""
    def run(tokens: torch.Tensor, position: int, vector: torch.Tensor) -> torch.Tensor:
        kept = {}
        def push(module: object, args: tuple) -> tuple:
            return (torch.cat([args[0][:, :position], args[0][:, position : position + 1] + vector,
                               args[0][:, position + 1 :]], dim=1), *args[1:])
        def keep(module: object, args: tuple, output: object) -> None:
            kept["out"] = output[0] if isinstance(output, tuple) else output
        handles = [
            blocks[entry].register_forward_pre_hook(push), blocks[out].register_forward_hook(keep)
        ]
        model(tokens[None])
        for handle in handles: handle.remove()
        return kept["out"][0]
    return run


CASES = {
    "bidirectional": lambda: (
        model := hooked_transformer("bidirectional"), {},
        plain_hooked(model, "blocks.1.hook_resid_pre", "blocks.2.hook_resid_post"), False
    ),
    "causal": lambda: (
        model := hooked_transformer("causal"), {},
        plain_hooked(model, "blocks.1.hook_resid_pre", "blocks.2.hook_resid_post"), True
    ),
    "gpt2": lambda: (model := gpt2(), {}, plain_blocks(model, model.transformer.h, 1, 2), True),
    "bert": lambda: (model := bert(), {"layers": model.bert.encoder.layer},
                     plain_blocks(model, model.bert.encoder.layer, 1, 2), False),
}


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("rows_per_pass", [1, 3, 64])
@torch.no_grad()
def test_rows_are_unbatched_passes_at_every_position(kind, rows_per_pass):
    model, options, plainly, causal = CASES[kind]()
    generator = torch.Generator().manual_seed(1)
    sequences = torch.randint(0, 4, (11,), generator=generator)
    positions = (torch.rand(11, generator=generator) * LENGTHS[sequences]).long()
    added = torch.randn(11, WIDTH, generator=generator)
    after = whole_sequence_effects(
        model, TOKENS, "blocks.1.hook_resid_pre", sequences, positions, added,
        ["blocks.2.hook_resid_post"], lengths=LENGTHS, rows_per_pass=rows_per_pass, **options
    )["blocks.2.hook_resid_post"]
    clean = whole_sequence_effects(
        model, TOKENS, "blocks.1.hook_resid_pre", sequences, positions, 0 * added,
        ["blocks.2.hook_resid_post"], lengths=LENGTHS, rows_per_pass=rows_per_pass, **options
    )["blocks.2.hook_resid_post"]
    assert after.shape == (11, 7, WIDTH)
    for row, (sequence, position) in enumerate(
        zip(sequences.tolist(), positions.tolist(), strict=True)
    ):
        length = LENGTHS[sequence]
        torch.testing.assert_close(
            after[row, :length], plainly(TOKENS[sequence, :length], position, added[row]), rtol=0,
            atol=1e-5
        )
        assert after[row, length:].isnan().all()
        moved = (after - clean)[row, :length].abs().amax(-1)
        assert (moved[:position] == 0).all() if causal else (moved[:position] > 1e-5).all()
        assert (moved[position:] > 1e-5).all()


@pytest.mark.parametrize(
    ("source", "target"), [("blocks.1.hook_resid_mid", "blocks.1.hook_resid_post"),
                           ("blocks.0.hook_mlp_out", "blocks.1.hook_resid_mid"),
                           ("blocks.1.attn.hook_z", "blocks.1.hook_resid_mid"),
                           ("blocks.1.hook_resid_post", "blocks.2.hook_attn_out"),
                           ("blocks.0.hook_resid_pre", "blocks.2.hook_resid_pre")]
)
@torch.no_grad()
def test_every_hook_point_of_both_kinds_of_model(source, target):
    sequences = torch.tensor([0, 2, 2])
    positions = torch.tensor([3, 0, 6])
    added = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(5))
    model = hooked_transformer("bidirectional")
    after = whole_sequence_effects(
        model, TOKENS, source, sequences, positions, added, [target]
    )[target]
    entry = source.replace("hook_resid_mid", "hook_attn_out")
    for row in range(3):
        shape = (4, 4) if "hook_z" in source else (WIDTH,)
        expected = plain_hooked(model, entry, target)(
            TOKENS[sequences[row]], int(positions[row]), added[row].reshape(shape)
        )
        torch.testing.assert_close(after[row], expected, rtol=0, atol=1e-5)
    causal = gpt2()
    after = whole_sequence_effects(
        causal, TOKENS, source, sequences, positions, added, [target]
    )[target]
    windows = hooked_forward(
        causal, TOKENS, source, sequences, positions, added, [target], horizon=6
    )[target]
    for row, position in enumerate(positions.tolist()):
        torch.testing.assert_close(
            after[row, position:], windows[row, : 7 - position], rtol=0, atol=1e-5
        )


def test_bad_rows_are_one_sentence():
    model = gpt2()
    good = {"tokens": TOKENS, "source": "blocks.1.hook_resid_pre", "sequences": torch.tensor([1]),
            "positions": torch.tensor([3]), "added": torch.zeros(1, WIDTH),
            "targets": ["blocks.2.hook_resid_pre"], "lengths": LENGTHS}
    for change, words in (
        ({"positions": torch.tensor([4])}, "position 4 of sequence 1 .* has 4 tokens"),
        ({"positions": torch.tensor([-1])}, "position -1 of sequence 1"),
        ({"sequences": torch.tensor([4])}, "position 3 of sequence 4"),
        ({"targets": []}, "no target"),
        ({"targets": ["blocks.0.hook_resid_post"]}, "not downstream"),
        ({"added": torch.zeros(2, WIDTH)}, "one of each"),
        ({"targets": ["blocks.7.hook_resid_pre"]}, "blocks 0 to 2"),
        ({"source": "blocks.1.hook_nonsense"}, "can be measured")
    ):
        with pytest.raises(InputError, match=words): whole_sequence_effects(model, **good | change)
    with pytest.raises(InputError, match="no decoder blocks"):
        whole_sequence_effects(bert(), **good)
    with pytest.raises(InputError, match="was asked for"):
        whole_sequence_effects(
            hooked_transformer("causal"), **good | {"targets": ["blocks.7.hook_resid_pre"]}
        )
