"""Models that are the user's own: half precision, HookedTransformers, files with more or less than
the model."""
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sae_lens import StandardSAE, StandardSAEConfig
from sae_lens.saes.sae import SAEMetadata
from tokenizers import Tokenizer, models
from torch import nn
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from feature_interaction_graph import clamp_measure
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.engine.hook_points import plain_twin
from feature_interaction_graph.engine.weights import saes_fingerprint, weights_fingerprint
from feature_interaction_graph.hosts.models import read_model
from feature_interaction_graph.loading import wrap_model

TOKENS = torch.randint(0, 27, (8, 20), generator=torch.Generator().manual_seed(1))


def gpt2(**settings: object) -> GPT2LMHeadModel:
    "A random GPT-2 of three blocks."
    torch.manual_seed(0)
    sizes = dict(n_layer=3, n_embd=32, n_head=4, n_positions=32, vocab_size=27, bos_token_id=0,
                 eos_token_id=0)
    made = GPT2LMHeadModel(GPT2Config(**(sizes | settings))).eval()
    for parameter in made.parameters(): parameter.data += 0.1 * torch.randn(parameter.shape)
    return made.requires_grad_(False)


def sae(layer: int) -> StandardSAE:
    torch.manual_seed(layer)
    metadata = SAEMetadata(hook_name=f"blocks.{layer}.hook_resid_pre")
    made = StandardSAE(StandardSAEConfig(d_in=32, d_sae=48, metadata=metadata))
    made.W_dec.data = nn.functional.normalize(torch.randn(48, 32), dim=-1)
    made.W_enc.data = made.W_dec.data.T.contiguous()
    return made.eval().requires_grad_(False)


SAES = {1: sae(1), 2: sae(2)}


def strengths(model: nn.Module) -> torch.Tensor:
    table = clamp_measure(model, SAES, [(1, 3)], TOKENS, n_samples=8, progress=False)
    return torch.as_tensor(table.columns["strength"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_measured_in_float32_or_refused(dtype: torch.dtype) -> None:
    rounded = gpt2().to(dtype)
    with pytest.raises(InputError, match=f"are {dtype}.* call model.float"): strengths(rounded)
    with pytest.warns(UserWarning, match="a float32 copy of them is measured"):
        wrapped = wrap_model(rounded)
    torch.testing.assert_close(strengths(wrapped), strengths(rounded.float()))


@pytest.mark.filterwarnings("ignore:.*HookedTransformer")
def test_a_converted_hooked_transformer_gives_the_numbers_of_the_original() -> None:
    torch.manual_seed(0)
    original = HookedTransformer(HookedTransformerConfig(
        n_layers=3, d_model=32, n_ctx=20, d_head=8, n_heads=4, d_vocab=27, act_fn="gelu",
        normalization_type="LNPre", seed=0
    ))
    wrapped = wrap_model(original)
    torch.testing.assert_close(strengths(wrapped), strengths(original), atol=1e-5, rtol=1e-4)
    original.add_perma_hook("blocks.1.hook_attn_out", lambda stream, hook: 0 * stream)
    with pytest.raises(InputError, match="has hooks on 1 of its modules"): wrap_model(original)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    gpt2().save_pretrained(tmp_path)
    words = Tokenizer(models.WordLevel({"<s>": 0, "a": 1}, unk_token="<s>"))
    PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>").save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name, shape", [
    ("lm_head.bias", (27,)), ("transformer.h.0.attn.q_norm.weight", (32,)),
    ("transformer.h.3.ln_1.weight", (32,)), ("score.weight", (2, 32))
])
def test_no_tensor_of_a_file_is_left_out_in_silence(folder: Path, name: str, shape: tuple) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {name: torch.full(shape, 8.0)}, folder / "model.safetensors",
              metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"hold {name}, for which the model .* has no place"):
        read_model(folder)


def test_masks_of_older_versions_and_tied_heads_are_no_tensors_left_out(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    old = {"transformer.h.0.attn.bias": torch.ones(1, 1, 32, 32),
           "transformer.h.0.attn.masked_bias": torch.tensor(-1e4),
           "lm_head.weight": weights["transformer.wte.weight"].clone()}
    save_file(weights | old, folder / "model.safetensors", metadata={"format": "pt"})
    model, _ = read_model(folder)
    assert torch.equal(model(TOKENS).logits, gpt2()(TOKENS).logits)


def test_a_head_that_is_not_the_embedding_is_kept_though_the_settings_tie_them(
    folder: Path
) -> None:
    weights = load_file(folder / "model.safetensors")
    other = weights["transformer.wte.weight"] + 1
    save_file(weights | {"lm_head.weight": other}, folder / "model.safetensors",
              metadata={"format": "pt"})
    model, _ = read_model(folder)
    assert torch.equal(model.lm_head.weight, other)
    assert torch.equal(model.transformer.wte.weight, weights["transformer.wte.weight"])


def test_a_cut_model_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"n_layer": 2}))
    with pytest.raises(InputError, match="hold transformer.h.2.attn.* and 8 more"):
        read_model(folder)


@pytest.mark.parametrize("name", ["./tiny", "~/tiny", "/no/tiny", "a/b/c", "here/tiny", "a\\b"])
def test_what_looks_like_a_path_is_not_asked_of_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    asked: list[str] = []
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url, **_: asked.append(url))
    with pytest.raises(InputError, match="there is no folder and no hub model named"):
        read_model(name)
    assert not asked


def test_fingerprints_tell_models_and_saes_apart() -> None:
    first, tuned = gpt2(), gpt2()
    tuned.transformer.h[2].mlp.c_proj.weight.data *= 3
    assert weights_fingerprint(wrap_model(first)) == weights_fingerprint(first)
    assert weights_fingerprint(first, [0, 1]) == weights_fingerprint(tuned, [1])
    assert weights_fingerprint(first, [2]) != weights_fingerprint(tuned, [2])
    assert saes_fingerprint(SAES) == saes_fingerprint({1: sae(1), 2: sae(2)})
    assert saes_fingerprint(SAES) != saes_fingerprint({1: sae(1), 2: sae(3)})
    assert plain_twin(wrap_model(first)) is first
