"""Attention, knock-out, logit attribution, lens, scores of heads: on many architectures, on a model
of others, and what such tools have got wrong elsewhere."""
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM, AutoTokenizer, BloomConfig, CohereConfig, FalconConfig, Gemma2Config,
    GPT2Config, GPTJConfig, GPTNeoXConfig, GraniteConfig, LlamaConfig, MistralConfig, Qwen3Config
)

from feature_interaction_graph import InputError
from feature_interaction_graph.circuits.behaviors import Behavior, tokens_for
from feature_interaction_graph.lenses.attention import attention_patterns, watching_attention
from feature_interaction_graph.lenses.head_scores import head_scores, repeated_tokens
from feature_interaction_graph.lenses.knockout import every_head, knock_out
from feature_interaction_graph.lenses.logit_attribution import (
    answer_weights, head_sources, logit_attribution
)
from feature_interaction_graph.lenses.logit_lens import logit_lens, unembed
from feature_interaction_graph.lenses.probes import last_rows
from feature_interaction_graph.loading import wrap_model

_SIZES = dict(hidden_size=32, num_attention_heads=4, vocab_size=60, bos_token_id=0, eos_token_id=0)
_WIDE = dict(**_SIZES, num_hidden_layers=3, intermediate_size=48, num_key_value_heads=2)
CONFIGS = {
    "gpt2": lambda: GPT2Config(n_layer=3, n_embd=32, n_head=4, vocab_size=60, n_positions=32,
                               bos_token_id=0, eos_token_id=0),
    "llama": lambda: LlamaConfig(**_WIDE), "qwen3": lambda: Qwen3Config(**_WIDE, head_dim=8),
    "mistral": lambda: MistralConfig(**_WIDE, sliding_window=4),
    "gemma2": lambda: Gemma2Config(**_WIDE, head_dim=8, sliding_window=4,
                                   attn_logit_softcapping=2.0, final_logit_softcapping=3.0),
    "neox": lambda: GPTNeoXConfig(**_SIZES, num_hidden_layers=3, intermediate_size=48),
    "granite": lambda: GraniteConfig(**_WIDE, residual_multiplier=0.5, logits_scaling=2.0),
    "cohere": lambda: CohereConfig(**_WIDE, logit_scale=0.5),
    "bloom": lambda: BloomConfig(n_layer=3, n_head=4, hidden_size=32, vocab_size=60,
                                 bos_token_id=0, eos_token_id=0),
    "gptj": lambda: GPTJConfig(n_layer=3, n_head=4, n_embd=32, rotary_dim=4, n_positions=32,
                               vocab_size=60, bos_token_id=0, eos_token_id=0),
    "falcon": lambda: FalconConfig(num_hidden_layers=3, hidden_size=32, num_attention_heads=4,
                                   vocab_size=60, bos_token_id=0, eos_token_id=0, alibi=False)}
IDS = torch.randint(1, 60, (5, 10), generator=torch.Generator().manual_seed(1)).tolist()
BEHAVIOR = Behavior("random", IDS, [5] * 5, counter_answers=[9] * 5)


def tiny(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[kind]()).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim == 2: parameter.normal_(0, 0.3)
        else: parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("kind", CONFIGS)
def test_watching_changes_nothing_and_shares_add_up(kind: str) -> None:
    "Weights are those of a softmax over what may be seen; the cap on logits comes after the sum."
    model = tiny(kind)
    tokens = tokens_for(model, BEHAVIOR)
    with torch.no_grad():
        logits = model(tokens.prompts).logits
        with watching_attention(model, range(3)) as lens:
            again = model(tokens.prompts, use_cache=False).logits
    assert torch.allclose(logits, again, atol=1e-4)
    for layer in range(3):
        assert torch.allclose(lens.weights[layer].sum(-1), torch.ones(5, 4, 10), atol=1e-5)
        assert not lens.weights[layer].triu(1).any()
    cap = getattr(model.config, "final_logit_softcapping", None)
    before_cap = logits if cap is None else torch.atanh(logits.double() / cap) * cap
    expected = (before_cap * answer_weights(tokens)[:, None]).sum(-1).numpy()
    parts = logit_attribution(model, BEHAVIOR)
    assert np.abs(parts.values.sum(0) - expected).max() < 1e-3
    assert np.abs(head_sources(model, BEHAVIOR, 2).sum(-1) - parts.of("head 2.")).max() < 1e-4
    read = logit_lens(model, BEHAVIOR)
    assert np.abs(read.kl[-1]).max() < 1e-5 and len(set(read.points)) == 4


@pytest.mark.parametrize("kind", CONFIGS)
def test_no_head_is_silently_left_as_it_was(kind: str) -> None:
    "Removing edges moves the logits in every head, with no switch to be set before."
    model = tiny(kind)
    edges = torch.zeros(5, 10, 10, dtype=torch.bool)
    edges[:, -1, 4:8] = True
    found = knock_out(model, BEHAVIOR, edges)
    assert found.names == list(every_head(model)) and np.abs(found.effects).max(1).min() > 0


def test_layer_k_is_layer_k() -> None:
    "A choice of layers, or of hook points, never means layer 0."
    model = tiny("llama")
    tokens = torch.tensor(IDS)
    every, third = attention_patterns(model, tokens), attention_patterns(model, tokens, [2])
    assert torch.allclose(every[2], third[2], atol=1e-6) and list(third) == [2]
    assert float((every[0] - every[2]).abs().max()) > 0.05
    rows = last_rows(model, BEHAVIOR, ["blocks.2.hook_resid_pre"])["blocks.2.hook_resid_pre"]
    with torch.no_grad(): states = model(tokens, output_hidden_states=True).hidden_states
    assert np.allclose(rows, states[2][:, -1], atol=1e-5)
    assert np.abs(rows - states[0][:, -1].numpy()).max() > 0.1


def test_other_prompts_give_other_numbers() -> None:
    "Nothing is kept from call to call: the second call is about its own prompts."
    model, turned = tiny("gpt2"), Behavior("turned", IDS[::-1], [5] * 5, counter_answers=[9] * 5)
    for call in (lambda asked: logit_attribution(model, asked).last,
                 lambda asked: logit_lens(model, asked).kl,
                 lambda asked: last_rows(model, asked)["blocks.2.hook_resid_post"].T,
                 lambda asked: attention_patterns(model, list(asked.prompts))[1].numpy().T):
        first, second = call(BEHAVIOR), call(turned)
        assert np.allclose(first, second[..., ::-1], atol=1e-5)
        assert not np.allclose(first, second, atol=1e-3)


def test_padding_enters_nothing() -> None:
    model, lengths = tiny("llama"), (10, 4, 7, 10, 2)
    ragged = [row[:length] for row, length in zip(IDS, lengths, strict=True)]
    asked = Behavior("ragged", ragged, [5] * 5, counter_answers=[9] * 5)
    together, read = logit_attribution(model, asked), logit_lens(model, asked)
    for row in range(5):
        alone = asked.take([row])
        assert np.allclose(logit_attribution(model, alone).last[:, 0], together.last[:, row],
                           atol=1e-4)
        assert np.allclose(logit_lens(model, alone).kl[:, 0], read.kl[:, row], atol=1e-4)
    assert np.isnan(together.values[0, 1, 4:]).all()


def test_a_bidirectional_model_is_refused() -> None:
    model = tiny("llama")
    for block in model.model.layers: block.self_attn.is_causal = False
    with pytest.raises(InputError, match="not causal"): attention_patterns(model, IDS)


def test_on_a_model_of_others(shared_data: Path) -> None:
    "stories260K: the parts add up, the lens comes closer layer by layer, and a head looks back."
    folder = shared_data / "models" / "stories260K"
    model = wrap_model(AutoModelForCausalLM.from_pretrained(folder),
                       AutoTokenizer.from_pretrained(folder))
    text = ["Once upon a time, there was a little girl", "Tom had a big red"]
    ids = [model.tokenizer(each).input_ids for each in text]
    asked = Behavior("next", ids, [300, 301], counter_answers=[302, 303])
    tokens = tokens_for(model, asked)
    parts = logit_attribution(model, asked)
    with torch.no_grad():
        stream = last_rows(model, asked)["blocks.4.hook_resid_post"]
        logits = unembed(model, torch.from_numpy(stream))
    difference = (logits * answer_weights(tokens)).sum(-1)
    assert np.allclose(parts.last.sum(0), difference, atol=1e-3)
    kl = logit_lens(model, asked).kl.mean(1)
    assert kl[-1] < 1e-6 and kl[0] > kl[3] > kl[4]
    twice = repeated_tokens(torch.arange(260, 500), 24, 24, bos_id=1)
    table = head_scores(model, twice, "previous").to_pandas()
    assert table.q_value[0] < 1e-6 and table.score[0] > 0.3
