"""Holding parts of the model: what does not depend on batching, on the architecture or on the kind
of SAE, and what is refused."""
import warnings

import numpy as np
import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig, TopKSAE, TopKSAEConfig
from sae_lens.saes.sae import SAEMetadata
from transformers import (
    AutoModelForCausalLM, Gemma2Config, GPTNeoXConfig, LlamaConfig, OpenAIGPTConfig, PhiConfig,
    Qwen3Config
)

from feature_interaction_graph.engine.branched import BranchedForward, Hold
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.engine.hook_points import HookPoint
from feature_interaction_graph.engine.mechanisms import QUANTITIES
from feature_interaction_graph.engine.residuals import clean_residuals, window_of
from feature_interaction_graph.interactions import clamp_measure
from feature_interaction_graph.measurement.mechanisms import mechanism_split, within_layer_measure

SMALL = dict(
    num_hidden_layers=3, hidden_size=16, num_attention_heads=2, intermediate_size=32, vocab_size=50
)
CONFIGS = dict(
    llama=LlamaConfig(**SMALL, num_key_value_heads=1),
    qwen3=Qwen3Config(**SMALL, num_key_value_heads=1, head_dim=8),
    gemma2=Gemma2Config(
        **SMALL, num_key_value_heads=1, head_dim=8, sliding_window=4, query_pre_attn_scalar=8
    ),
    neox=GPTNeoXConfig(**SMALL, max_position_embeddings=32),
    phi=PhiConfig(**SMALL, max_position_embeddings=32),
)
RAGGED = [list(row[:length]) for row, length in zip(
              torch.randint(1, 50, (20, 12), generator=torch.Generator().manual_seed(3)).tolist(),
              [12, 9, 5, 12] * 5, strict=True
          )]


def random_model(name: str):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name]).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim == 2: parameter.data.normal_(0, 0.3)
    return model


def random_sae(hook_name: str, kind: str = "standard"):
    torch.manual_seed(len(hook_name))
    metadata = SAEMetadata(hook_name=hook_name, model_name="random", prepend_bos=True)
    if kind == "topk": sae = TopKSAE(TopKSAEConfig(d_in=16, d_sae=24, k=6, metadata=metadata))
    else: sae = StandardSAE(StandardSAEConfig(d_in=16, d_sae=24, metadata=metadata))
    sae.requires_grad_(False)
    sae.W_enc.data.normal_(0, 0.5)
    sae.W_dec.data = torch.nn.functional.normalize(sae.W_enc.data.T, dim=-1)
    if kind != "topk": sae.b_enc.data.fill_(-0.3)
    return sae


def saes_of(kind: str = "standard"):
    return {1: random_sae("blocks.1.hook_resid_pre", kind),
            3: random_sae("blocks.2.hook_resid_post", kind)}


def everything(n_rows: int) -> Hold:
    return Hold(*(torch.ones(n_rows, dtype=torch.bool) for _ in range(4)))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("source", ["resid_pre", "resid_mid", "attn_out", "mlp_out", "resid_post"])
def test_with_everything_held_only_the_push_is_left(name, source):
    engine = BranchedForward(random_model(name))
    assert engine.branched
    if name in ("neox", "phi") and source == "resid_mid":
        pytest.skip("parallel blocks have no resid_mid")
    tokens = torch.tensor([row for row in RAGGED if len(row) == 12])
    sequences = torch.tensor([4, 0, 4, 2, 4])
    positions = torch.tensor([3, 10, 3, 0, 6])
    added, target = torch.randn(5, 16), HookPoint("resid_post", 2)
    clean = engine.record(tokens, starts=[1 if source in ("mlp_out", "resid_post") else 0], last=2)
    stream = clean_residuals(engine.twin, tokens, [target])[target.name]
    for rows, read in engine.run(clean, HookPoint(source, 0), sequences, positions, added, [target],
                                 2, batch_rows=6, hold=everything(5)):
        expected = window_of(stream, sequences[rows], positions[rows], 2)
        expected[:, 0] += added[rows]
        torch.testing.assert_close(
            read[target.name], expected, rtol=1e-4, atol=1e-4, equal_nan=True
        )


def test_rows_that_are_not_held_are_as_without_hold():
    engine = BranchedForward(random_model("llama"))
    tokens = torch.tensor([row for row in RAGGED if len(row) == 12])
    sequences = torch.tensor([1, 0, 1])
    positions = torch.tensor([2, 5, 2])
    added = torch.randn(3, 16)
    clean = engine.record(tokens, starts=[0], last=2)
    source = HookPoint("resid_pre", 0)
    target = HookPoint("resid_post", 2)
    order = torch.tensor([1, 0, 2])
    question = (clean, source, sequences[order], positions[order], added[order], [target], 1)
    free = engine.branch(*question)
    nobody = engine.branch(
        *question, Hold(mlp=torch.zeros(3, dtype=torch.bool), norm=torch.zeros(3, dtype=torch.bool))
    )
    torch.testing.assert_close(free[target.name], nobody[target.name], rtol=1e-5, atol=1e-5)
    some = engine.branch(*question, Hold(norm=torch.tensor([True, False, False]),
                                         mlp=torch.tensor([False, False, True])))
    torch.testing.assert_close(free[target.name][1], some[target.name][1], rtol=1e-5, atol=1e-5)
    assert (free[target.name][[0, 2]] - some[target.name][[0, 2]]).abs().amax((1, 2)).min() > 1e-3


@pytest.mark.parametrize("kind", ["standard", "topk"])
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_split_does_not_depend_on_batches_and_its_total_is_the_clamp(name, kind):
    model, saes = random_model(name), saes_of(kind)
    common = dict(doses=[0.5, 1.0, 2.0], n_samples=10, horizon=2, progress=False)
    edges = [((1, 3), (3, 7)), ((1, 5), (3, 0)), ((1, 3), (3, 7))]
    table = mechanism_split(model, saes, edges, RAGGED, **common)
    assert len(table) == 2 * 3 * len(QUANTITIES)
    few = mechanism_split(model, saes, edges, RAGGED, batch_rows=1, **common)
    for column in ("effect", "pre_effect", "std", "pre_std"):
        np.testing.assert_allclose(table.columns[column], few.columns[column], atol=1e-4)
    clamps = clamp_measure(
        model, saes, [(1, 3), (1, 5)], RAGGED, targets=[(3, 7), (3, 0)], **common
    ).to_pandas().set_index(["src_feature", "tgt_feature", "offset"])
    rows = table.to_pandas()
    for row in rows[(rows["part"] == "total") & (rows["offset"] == 0)].itertuples():
        clamp = clamps.loc[(row.src_feature, row.tgt_feature, row.offset)]
        np.testing.assert_allclose(
            [row.effect, row.pre_effect], [clamp["strength"], clamp["pre_strength"]], atol=1e-5
        )
        assert row.n_samples == clamp["n_samples"]
    beyond = np.array(
        [[row.n_samples
          for row in rows[(rows["part"] == "total") & (rows["offset"] == offset)].itertuples()]
         for offset in range(3)]
    )
    # sequences end
    assert (np.diff(beyond, axis=0) <= 0).all() and (beyond[2] < beyond[0]).all()
    for offset in range(3):
        wide = table.wide("pre_effect", offset)
        np.testing.assert_allclose(wide.drop(columns="total").sum(axis=1), wide["total"], atol=1e-4)


@pytest.mark.parametrize("name", ["qwen3", "gemma2", "phi"])
def test_within_layer_does_not_depend_on_batches(name):
    model, saes = random_model(name), saes_of()
    common = dict(doses=[0.0, 1.0, 2.0], n_samples=10, progress=False)
    table = within_layer_measure(model, saes, [(3, 7), (1, 2)], RAGGED, **common)
    few = within_layer_measure(model, saes, [(3, 7), (1, 2)], RAGGED, batch_rows=1, **common)
    assert len(table) == 2 * 23 and (table.columns["src_layer"] == table.columns["tgt_layer"]).all()
    assert not ((table.columns["src_layer"] == table.columns["tgt_layer"]) & (
                    table.columns["src_feature"] == table.columns["tgt_feature"]
                )).any()
    for column in ("strength", "pre_strength", "std"):
        np.testing.assert_allclose(table.columns[column], few.columns[column], atol=1e-4)
    np.testing.assert_allclose(table.curves["change"], few.curves["change"], atol=1e-4)
    np.testing.assert_allclose(
        table.curves["change"][:, -1], table.columns["strength"] * 2.0, atol=1e-5
    )
    assert np.abs(table.columns["pre_strength"]).max() > 0.01


def test_within_layer_is_zero_where_the_mlp_says_nothing():
    model, saes = random_model("llama"), saes_of()
    model.model.layers[2].mlp.down_proj.weight.data.zero_()
    table = within_layer_measure(
        model, saes, [(3, 7)], RAGGED, n_samples=10, progress=False
    ).columns
    assert (table["strength"] == 0).all() and (table["pre_strength"] == 0).all() and (
        table["p_value"] == 1
    ).all()


def test_a_model_that_cannot_be_branched_is_refused():
    torch.manual_seed(0)
    config = OpenAIGPTConfig(n_layer=3, n_embd=16, n_head=2, n_positions=32, vocab_size=50)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        saes = saes_of()
        saes[1].b_enc.data.fill_(1.0)                          # fires everywhere
        with pytest.raises(InputError, match="cannot be branched"):
            mechanism_split(model, saes, [((1, 3), (3, 7))], RAGGED, doses=[0, 1], progress=False)


def test_silent_sources_are_refused_by_name():
    saes = saes_of()
    saes[1].b_enc.data[3] = -1e3
    saes[3].b_enc.data[3] = -1e3
    with pytest.raises(InputError, match="L1_F3 fires in fewer than 2"):
        mechanism_split(random_model("llama"), saes, [((1, 3), (3, 7))], RAGGED, progress=False)
    with pytest.raises(InputError, match="L3_F3 fires in fewer than 2"):
        within_layer_measure(random_model("llama"), saes, [(3, 3)], RAGGED, progress=False)
