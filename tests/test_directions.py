"""Directions: read exactly on every kind of SAE and norm, measured like features, and refused in a
sentence where they make no sense."""
import copy

import numpy as np
import pytest
import torch
from sae_lens import (
    GatedSAE, GatedSAEConfig, JumpReLUSAE, JumpReLUSAEConfig, StandardSAE, StandardSAEConfig,
    TopKSAE, TopKSAEConfig
)
from sae_lens.saes.sae import SAEMetadata
from transformers import AutoModelForCausalLM, GemmaConfig, GPT2Config, LlamaConfig

from feature_interaction_graph.engine.corpus import as_corpus
from feature_interaction_graph.engine.encoders import FeatureReader
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.engine.transport import transport_scores
from feature_interaction_graph.engine.weight_paths import direct_path_scores
from feature_interaction_graph.features import FEATURE_COLUMNS, FeatureTable
from feature_interaction_graph.interactions import clamp_measure
from feature_interaction_graph.measurement.directions import (
    Direction,
    append_directions,
    direction_features,
    direction_places,
    steering_direction,
    unembedding_directions,
    with_directions,
)
from feature_interaction_graph.measurement.jacobian import jacobian_measure

KINDS = {"standard": (StandardSAE, StandardSAEConfig), "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig),
         "gated": (GatedSAE, GatedSAEConfig), "topk": (TopKSAE, TopKSAEConfig)}


def tiny(family: str) -> torch.nn.Module:
    torch.manual_seed(0)
    small = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2,
             "num_key_value_heads": 1, "intermediate_size": 32, "vocab_size": 40, "bos_token_id": 0,
             "eos_token_id": 0, "pad_token_id": 0, "head_dim": 8}
    gpt2 = GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=40, n_positions=16, bos_token_id=0,
                      eos_token_id=0)
    config = {"llama": LlamaConfig(**small), "gemma": GemmaConfig(**small), "gpt2": gpt2}[family]
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in model.parameters(): parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def sae_at(
    hook_name: str, kind: str = "jumprelu", normalise: str = "none", seed: int = 1, **options
) -> torch.nn.Module:
    make, config = KINDS[kind]
    if kind == "topk": options = {"k": 6, **options}
    sae = make(config(d_in=16, d_sae=30, normalize_activations=normalise, metadata=SAEMetadata(
                          hook_name=hook_name, model_name="tiny", prepend_bos=True
                      ), **options))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sae.requires_grad_(False).named_parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * (
            0.1 if name[:2] == "r_" else 0.4
        )
    if kind == "jumprelu": sae.threshold.data.abs_().add_(0.1)
    return sae


@pytest.fixture
def corpus(ragged_corpus):
    return ragged_corpus(24, 10, 40)


@pytest.mark.parametrize("normalise", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize(
    ("kind", "options"), [("standard", {}), ("jumprelu", {}), ("gated", {}), ("topk", {}),
                          ("topk", {"rescale_acts_by_decoder_norm": True})]
)
def test_encode_is_the_saes_own_followed_by_plain_products(kind, options, normalise):
    sae = sae_at("blocks.1.hook_resid_pre", kind, normalise, **options)
    x, read, write = torch.randn(50, 16) * 2 + 0.5, torch.randn(2, 16), torch.randn(16)
    wide = append_directions(sae, [Direction("linear", read[0], write, 0.3),
                                   Direction("above 1", read[1], None, -0.2, threshold=1.0)])
    encoded = wide.encode(x)
    assert torch.equal(encoded[:, :30], sae.encode(x)) and wide.cfg.d_sae == 32
    seen = x
    if normalise == "layer_norm":
        seen = x - x.mean(-1, keepdim=True)
        seen = seen / (seen.std(-1, keepdim=True) + 1e-5)
    elif normalise == "constant_norm_rescale": seen = x / (x.norm(dim=-1, keepdim=True) / 4)
    above = seen @ read[1] - 0.2
    torch.testing.assert_close(
        encoded[:, 30:], torch.stack([seen @ read[0] + 0.3, above.where(above > 1, 0.0)], 1),
        atol=2e-5, rtol=1e-5
    )
    sae.encode(x)
    torch.testing.assert_close(wide(x), sae.decode(sae.encode(x)))
    # TopK chooses among latents alone
    torch.testing.assert_close(FeatureReader(wide).read(x)[1], encoded, atol=2e-5, rtol=1e-5)
    assert copy.deepcopy(wide).encode(x).equal(encoded)


def test_appending_twice_keeps_numbers_and_the_sae_itself(corpus):
    sae = sae_at("blocks.1.hook_resid_pre")
    before = sae.W_enc.clone()
    one = append_directions(sae, Direction("a", torch.ones(16)))
    two = append_directions(one, [Direction("b", torch.arange(16.0))])
    assert (direction_places({1: two}) == {"a": (1, 30), "b": (1, 31)}
            and direction_places({1: one}) == {"a": (1, 30)} and sae.W_enc.equal(before))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma"])
def test_logits_are_the_models_own_under_every_norm(family, corpus):
    """Exact readings equal the model's logits; clamped and differentiated effects on them equal
    plain passes and their finite differences."""
    model = tiny(family)
    source = Direction("push", torch.randn(16, generator=torch.Generator().manual_seed(5)))
    saes = with_directions(
        {1: sae_at("blocks.1.hook_resid_pre")},
        {1: source, 2: unembedding_directions(model, [5, 9], against=[7, 2])}, model
    )
    places, mask = direction_places(saes), corpus.sample_mask()
    assert list(saes) == [1, 2] and saes[2].cfg.d_sae == 2 and list(places) == [
        "push", "logit 5 - 7", "logit 9 - 2"
    ]
    from feature_interaction_graph.engine.hook_points import decoder_layers, edit, parse_hook_point
    from feature_interaction_graph.training.rows import sampled_activations
    logits = model(corpus.tokens).logits[mask]
    truth = torch.stack([logits[:, 5] - logits[:, 7], logits[:, 9] - logits[:, 2]], 1)
    torch.testing.assert_close(
        saes[2].encode(sampled_activations(model, corpus, "blocks.1.hook_resid_post")), truth,
        atol=1e-4, rtol=1e-4
    )
    values = sampled_activations(model, corpus, "blocks.1.hook_resid_pre") @ source.read
    rows, columns = mask.nonzero(as_tuple=True)
    def answers(step):
        def move(stream):
            stream = stream.clone()
            stream[torch.arange(len(rows)), columns] += step[:, None] * source.write
            return stream
        with edit(decoder_layers(model), parse_hook_point("blocks.1.hook_resid_pre"), move):
            out = model(corpus.tokens[rows]).logits[torch.arange(len(rows)), columns]
        return torch.stack([out[:, 5] - out[:, 7], out[:, 9] - out[:, 2]], 1)
    low, high = np.percentile(values.numpy(), [10, 90])
    every = {
        "targets": [(2, 0), (2, 1)], "n_samples": 10**4, "max_per_sequence": 100, "progress": False
    }
    clamped = clamp_measure(model, saes, [places["push"]], corpus, **every).to_pandas()
    expected = ((answers(high - values) - answers(low - values)) / (high - low)).mean(0)
    np.testing.assert_allclose(clamped.strength, expected, atol=1e-4)
    assert (clamped.n_samples == len(rows)).all() and expected.abs().max() > 1e-2
    for mode in ("forward", "reverse"):
        slopes = jacobian_measure(
            model, saes, [places["push"]], corpus, mode=mode, **every
        ).to_pandas()
        small = torch.full_like(values, 0.01)
        np.testing.assert_allclose(
            slopes.strength, ((answers(small) - answers(-small)) / 0.02).mean(0), atol=2e-3
        )


def test_transport_reads_through_the_norm(corpus):
    """With every probe the mean Jacobian converges on the mean of exact derivatives, also for a
    logit."""
    model = tiny("llama")
    saes = with_directions(
        {1: sae_at("blocks.1.hook_resid_pre")},
        {1: Direction("push", torch.ones(16)), 2: unembedding_directions(model, [5])}, model
    )
    exact = jacobian_measure(model, saes, [(1, 30)], corpus, targets=[(2, 0)], n_samples=10**4,
                             max_per_sequence=100, progress=False).to_pandas().strength[0]
    scores = transport_scores(
        model, saes, corpus, source_layers=[1], target_layers=[2], n_probes=400, progress=False
    )
    score, error = float(scores.scores(1, 2)[30, 0]), float(scores.standard_errors(1, 2)[30, 0])
    assert abs(score - exact) < 4 * error + 0.05 * abs(exact)


def test_closed_forms_refuse_a_norm_and_take_a_folded_one(corpus):
    model = tiny("gpt2")
    held = {1: sae_at("blocks.1.hook_resid_pre")}
    with pytest.raises(InputError, match="no path of weights"):
        direct_path_scores(
            with_directions(held, {2: unembedding_directions(model, [5])}, model), 1, 2
        )
    folded = with_directions(held, {2: unembedding_directions(model, [5], folded_on=corpus)}, model)
    weight, norm = model.lm_head.weight[5], model.transformer.ln_f
    from feature_interaction_graph.training.rows import sampled_activations
    rows = sampled_activations(model, corpus, "blocks.1.hook_resid_post")
    inverse = (1 / (rows.var(-1, unbiased=False) + norm.eps).sqrt()).mean()
    row = weight * norm.weight * inverse
    torch.testing.assert_close(direct_path_scores(folded, 1, 2)[:, 0],
                               held[1].W_dec @ (row - row.mean()), atol=1e-5, rtol=1e-4)


def test_steering_direction_runs_from_one_mean_to_the_other(corpus):
    model = tiny("llama")
    other = as_corpus(
        torch.cat([torch.zeros(9, 1, dtype=torch.long), torch.arange(1, 37).reshape(9, 4)], 1),
        bos_id=0
    )
    from feature_interaction_graph.training.rows import sampled_activations
    one = steering_direction(model, "blocks.1.hook_resid_pre", corpus, other, "there and back")
    means = [sampled_activations(model, part, "blocks.1.hook_resid_pre").mean(0)
             for part in (corpus, other)]
    torch.testing.assert_close(one.write, means[0] - means[1], atol=1e-5, rtol=1e-4)
    assert [round(float(mean @ one.read) + one.bias, 4) for mean in means] == [1.0, 0.0]


def test_names_stand_in_feature_tables():
    saes = with_directions({1: sae_at("blocks.1.hook_resid_pre")},
                           {1: [Direction("straight", torch.ones(16)),
                                Direction("above", torch.ones(16), threshold=1.0)]})
    row = {name: np.array([1 if name == "layer" else 30 if name == "feature" else "old"
                           if kind is object else 0.5], dtype=kind)
           for name, kind in FEATURE_COLUMNS.items()}
    table = direction_features(saes, FeatureTable(row))
    assert len(table) == 2 and table.lookup((1, 30)).label == "straight" and table.lookup(
        (1, 30)
    ).activation_freq == 0.5
    assert np.isnan(table.lookup((1, 31)).activation_freq) and direction_features(saes).lookup(
        (1, 30)
    ).activation_freq == 1.0
    with pytest.raises(InputError, match="nothing to list"): direction_features({})


@pytest.mark.parametrize(
    ("make", "said"),
    [(lambda: Direction("x", torch.zeros(4)), "points nowhere"),
     (lambda: Direction("x", torch.ones(4), torch.zeros(4)), "points nowhere"),
     (lambda: Direction("x", torch.ones(2, 4)), "shape"),
     (lambda: Direction("x", torch.tensor([1.0, torch.nan])), "NaN"),
     (lambda: Direction("x", torch.ones(4), torch.ones(5)), "one length"),
     (lambda: Direction("", torch.ones(4)), "name"),
     (lambda: Direction("x", torch.ones(4), threshold=float("inf")), "finite"),
     (lambda: Direction("x", torch.ones(4), norm=torch.nn.LayerNorm(4)), "write"),
     (lambda: append_directions(sae_at("blocks.0.hook_resid_pre"), Direction("x", torch.ones(4))),
      "that width"), (lambda: append_directions(
                          sae_at("blocks.0.hook_resid_pre"), [Direction("x", torch.ones(16))] * 2
                      ), "own"),
     (lambda: append_directions(
          sae_at("blocks.0.hook_resid_pre"),
          [Direction(str(n), torch.ones(16), torch.ones(16), norm=torch.nn.LayerNorm(16))
           for n in range(2)]
      ), "only one"),
     (lambda: with_directions({}, {9: Direction("x", torch.ones(16))}, tiny("gpt2")),
      "blocks 0 to 1"),
     (lambda: with_directions({}, {0: Direction("x", torch.ones(16))}), "give the model"),
     (lambda: unembedding_directions(tiny("gpt2"), ["word"]), "no tokenizer"),
     (lambda: unembedding_directions(tiny("gpt2"), [40]), "tokens 0 to 39"),
     (lambda: unembedding_directions(tiny("gpt2"), []), "0 tokens")]
)
def test_refusals(make, said):
    with pytest.raises(InputError, match=said): make()


def test_the_default_step_raises_the_own_reading_by_one():
    one, x = Direction("x", torch.arange(1.0, 5.0), bias=0.5), torch.randn(3, 4)
    torch.testing.assert_close((x + one.write) @ one.read, x @ one.read + 1)
    logit = unembedding_directions(tiny("gpt2"), [5])[0]
    # at scale 1 the norm is centring and gain
    along = (logit.write - logit.write.mean()) * tiny("gpt2").transformer.ln_f.weight
    assert float(along @ logit.read) == pytest.approx(1.0, abs=1e-4)
