"""The presets' genuine loading code, with the hub switched off: a cache in the hub's own layout
holds small random weights under the published names."""
import hashlib
import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from feature_interaction_graph.config import Config
from feature_interaction_graph.engine.corpus import corpus_from_text
from feature_interaction_graph.engine.encoders import sae_hook_point
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.engine.hook_points import parse_hook_point, plain_twin
from feature_interaction_graph.engine.residuals import clean_residuals
from feature_interaction_graph.hosts.fit import neighbours
from feature_interaction_graph.hosts.models import read_model, stream_is_centred, wrap_model
from feature_interaction_graph.hosts.hub import no_answer
from feature_interaction_graph.hosts.releases import release_entries
from feature_interaction_graph.hosts.texts import PASSAGE
from feature_interaction_graph.loading import (
    check_reconstruction, load_corpus, load_model, load_model_and_saes, load_saes
)

N_LAYERS, WIDTH, RANK = 12, 48, 20
RES_JB, RES_JB_REPO = "gpt2-small-res-jb", "jbloom/GPT2-Small-SAEs-Reformatted"
HOOKS = [
    f"blocks.{layer}.hook_resid_pre" for layer in range(N_LAYERS)
] + [f"blocks.{N_LAYERS - 1}.hook_resid_post"]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(
        add_prefix_space=False
    ), decoders.ByteLevel()
    tokenizer.train_from_iterator(
        [PASSAGE], trainers.BpeTrainer(
            vocab_size=400, special_tokens=["<|endoftext|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        )
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|endoftext|>",
                                   eos_token="<|endoftext|>", unk_token="<|endoftext|>")


def random_gpt2(vocab_size: int) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(n_layer=N_LAYERS, n_embd=WIDTH, n_head=4, n_positions=256, vocab_size=vocab_size,
                   bos_token_id=0, eos_token_id=0, pad_token_id=0, initializer_range=0.15)
    ).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1: parameter.data += 0.1 * torch.randn_like(parameter)
    # a mean over the model dimension that differs from token to token
    model.transformer.wte.weight.data += 0.3 * torch.randn(vocab_size, 1)
    return model


def put_repository(home: Path, repo_id: str, source: Path) -> Path:
    """Puts the files of `source` where the hub's client looks for `repo_id`; returns the snapshot
    folder."""
    commit = hashlib.sha1(repo_id.encode()).hexdigest()
    repository = home/"hub"/("models--" + repo_id.replace("/", "--"))
    shutil.copytree(source, repository/"snapshots"/commit)
    (repository/"refs").mkdir()
    (repository/"refs"/"main").write_text(commit)
    return repository/"snapshots"/commit


def write_old_sae(folder: Path, rows: torch.Tensor, hook_name: str, **changes) -> None:
    """An SAE in the layout of 2024 (flat cfg.json) that rebuilds the first principal directions of
    `rows`: two latents, one per sign, for each."""
    folder.mkdir(parents=True)
    directions = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)[2][:RANK]
    decoder = torch.cat([directions, -directions])
    save_file(
        {"W_dec": decoder.contiguous(), "W_enc": decoder.T.contiguous(),
         "b_enc": torch.zeros(2 * RANK), "b_dec": rows.mean(0)}, folder/"sae_weights.safetensors"
    )
    settings = {"model_name": "gpt2-small", "hook_point": hook_name,
                "hook_point_layer": int(hook_name.split(".")[1]), "hook_point_head_index": None,
                "dataset_path": "Skylion007/openwebtext", "context_size": 128, "prepend_bos": True,
                "normalize_activations": "none", "d_in": rows.shape[1], "d_sae": 2 * RANK,
                "dtype": "torch.float32", "device": "cpu", "activation_fn_str": "relu",
                "apply_b_dec_to_input": True}
    (folder/"cfg.json").write_text(json.dumps(settings | changes))


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> dict:
    "A saved model, and the rows of its centred stream at every hook of the release."
    folder = tmp_path_factory.mktemp("source")
    tokenizer = byte_tokenizer()
    model = random_gpt2(len(tokenizer))
    model.save_pretrained(folder/"gpt2")
    tokenizer.save_pretrained(folder/"gpt2")
    corpus = corpus_from_text(PASSAGE, tokenizer, 128, bos=True)
    mask = corpus.sample_mask()
    raw = {
        name: stream[mask] for name, stream in clean_residuals(model, corpus.tokens, HOOKS).items()
    }
    for name in HOOKS:
        write_old_sae(folder/"saes"/name, raw[name] - raw[name].mean(-1, keepdim=True), name)
    return {"model": folder/"gpt2", "saes": folder/"saes", "raw": raw, "corpus": corpus}


@pytest.fixture
def hub(material, tmp_path, monkeypatch) -> Path:
    """A private cache with the hub switched off, holding gpt2 and its SAEs; returns the SAEs'
    snapshot, free to be damaged."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path/"hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    put_repository(tmp_path, "gpt2", material["model"])
    return put_repository(tmp_path, RES_JB_REPO, material["saes"])


def preset(**overrides) -> Config: return Config.preset("gpt2-small", device="cpu", **overrides)


# -- the preset as published

def test_preset_loads_every_layer_and_processes_the_model(hub, material):
    model, saes = load_model_and_saes(preset())
    assert [sae_hook_point(sae).name for sae in saes.values()] == HOOKS and list(saes) == list(
        range(13)
    )
    assert stream_is_centred(model) and model.cfg.default_prepend_bos is True
    on_disk = AutoModelForCausalLM.from_pretrained(material["model"])
    tokens = material["corpus"].tokens[:2, :50]
    with torch.no_grad(): logits, cache = model.run_with_cache(tokens)
    plain = on_disk(tokens, output_hidden_states=True)
    torch.testing.assert_close(logits, plain.logits, atol=2e-5, rtol=1e-5)
    for layer in range(N_LAYERS):
        stream = plain.hidden_states[layer]
        torch.testing.assert_close(cache[f"blocks.{layer}.hook_resid_pre"],
                                   stream - stream.mean(-1, keepdim=True), atol=2e-5, rtol=1e-5)


def test_layers_select(hub):
    assert [sae_hook_point(sae).name for sae in load_saes(preset(layers=[3, 12])).values()] == [
        HOOKS[3], HOOKS[12]
    ]


def test_an_unreachable_data_set_is_one_sentence(hub):
    model, _ = load_model_and_saes(preset(layers=[0]))
    with pytest.raises(InputError, match="could not be read .*local .txt"):
        load_corpus(preset(), model)


def test_text_file_for_a_hub_model(hub, tmp_path):
    path = tmp_path/"text.txt"
    path.write_text(PASSAGE)
    model, saes = load_model_and_saes(preset(layers=[0], dataset=str(path)))
    corpus = load_corpus(preset(dataset=str(path), n_tokens=300), model)
    assert corpus.n_tokens >= 300 and corpus.starts_with_bos and (corpus.tokens[:, 0] == 0).all()
    with pytest.raises(InputError, match="gives only"):
        load_corpus(preset(dataset=str(path), n_tokens=10**6), model)
    with pytest.raises(InputError, match="reads at most 256"):
        load_corpus(preset(dataset=str(path), n_tokens=300, context_length=300), model)


# -- other releases

def save_random(config, folder: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_preset_pythia(hub, tmp_path):
    from transformers import GPTNeoXConfig
    tokenizer = byte_tokenizer()
    config = GPTNeoXConfig(**{**SHAPE, "num_hidden_layers": 6, "vocab_size": len(tokenizer),
                              "max_position_embeddings": 128})
    put_repository(
        tmp_path, "EleutherAI/pythia-70m-deduped", save_random(config, tmp_path/"pythia", tokenizer)
    )
    for layer in range(6):
        write_old_sae(
            tmp_path/"sm"/f"{layer}-res-sm", torch.randn(60, 32), f"blocks.{layer}.hook_resid_post",
            model_name="pythia-70m-deduped", prepend_bos=False
        )
    put_repository(tmp_path, "ctigges/pythia-70m-deduped__res-sm_processed", tmp_path/"sm")
    with pytest.warns(UserWarning, match="nobody has looked"):
        model, saes = load_model_and_saes(
            Config.preset("pythia-70m-deduped", device="cpu", check_reconstruction=False)
        )
    assert [sae_hook_point(sae).name for sae in saes.values()] == [
        f"blocks.{layer}.hook_resid_post" for layer in range(6)
    ]
    assert not stream_is_centred(model) and model.cfg.default_prepend_bos is False
    path = tmp_path/"text.txt"
    path.write_text(PASSAGE)
    corpus = load_corpus(
        Config.preset("pythia-70m-deduped", dataset=str(path), n_tokens=300), model
    )
    assert not corpus.starts_with_bos and corpus.sample_mask()[0].all()


def test_preset_gemma(hub, tmp_path):
    "Gemma Scope's own format (npz), at its real width of 2304: the loader knows no other."
    import numpy as np
    from transformers import Gemma2Config
    tokenizer = byte_tokenizer()
    config = Gemma2Config(
        **{**SHAPE, "hidden_size": 2304, "vocab_size": len(tokenizer), "num_hidden_layers": 2},
        num_key_value_heads=2, head_dim=8, sliding_window=8
    )
    put_repository(tmp_path, "google/gemma-2-2b", save_random(config, tmp_path/"g", tokenizer))
    folder = tmp_path/"scope"/"layer_1"/"width_16k"/"average_l0_102"
    folder.mkdir(parents=True)
    wide = np.zeros((2304, 16384), dtype=np.float32)
    wide[:, 5] = 0.1
    np.savez_compressed(
        folder/"params.npz", w_enc=wide, w_dec=wide.T, b_enc=np.zeros(16384, np.float32),
        b_dec=np.zeros(2304, np.float32), threshold=np.full(16384, 0.5, np.float32)
    )
    put_repository(tmp_path, "google/gemma-scope-2b-pt-res", tmp_path/"scope")
    with pytest.warns(UserWarning, match="nobody has looked"):
        model, saes = load_model_and_saes(
            Config.preset("gemma-2-2b", device="cpu", layers=[1], check_reconstruction=False)
        )
    assert (sae_hook_point(saes[1]).name == "blocks.1.hook_resid_post"
            and saes[1].cfg.architecture() == "jumprelu" and model.cfg.default_prepend_bos is True)
    refused("layer_10/width_16k/canonical, layer_11/width_16k/canonical.*not found",
            Config.preset("gemma-2-2b", device="cpu", layers=[10, 11]), load_saes)


def test_a_repository_that_sae_lens_does_not_know(hub, material, tmp_path):
    """Ids without a layer: the layer comes from each stored hook name, off line from the cached
    snapshot."""
    for layer, name in ((1, "one"), (2, "two")):
        shutil.copytree(material["saes"]/HOOKS[layer], tmp_path/"tiny"/name)
    put_repository(tmp_path, "me/tiny-saes", tmp_path/"tiny")
    saes = load_saes(preset(sae_release="me/tiny-saes"))
    assert {layer: sae_hook_point(sae).name for layer, sae in saes.items()} == {
        1: HOOKS[1], 2: HOOKS[2]
    }
    refused("not in the cache", preset(sae_release="me/other-saes"), load_saes)
    refused("no SAE release, hub repository or folder named 'nonsense'",
            preset(sae_release="nonsense"), load_saes)


# -- the traps of hook points and processing

def refused(pattern: str, cfg: Config, call=load_model_and_saes) -> str:
    with pytest.raises(InputError, match=pattern) as caught: call(cfg)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".")
    return sentence


def test_resid_pre_release_on_a_resid_post_template(hub):
    sentence = refused(
        "holds more of another kind", preset(sae_id_template="blocks.{layer}.hook_resid_post")
    )
    assert "hook_resid_pre for layers 0-11" in sentence
    sentence = refused("does not hold blocks.0.hook_resid_post, blocks.1.hook_resid_post",
                       preset(sae_id_template="blocks.{layer}.hook_resid_post", layers=[0, 1]))
    assert "hook_resid_pre for layers 0-11" in sentence


def test_resid_pre_sae_in_a_folder_named_resid_post(material, tmp_path):
    shutil.copytree(material["saes"]/HOOKS[2], tmp_path/"saes"/"blocks.2.hook_resid_post")
    refused("says in its metadata that it reads blocks.2.hook_resid_pre",
            Config(model_name=str(material["model"]), sae_release=str(tmp_path/"saes")), load_saes)


def test_every_missing_sae_is_named(hub):
    for layer in (4, 7): shutil.rmtree(hub/HOOKS[layer])
    sentence = refused("were not found", preset())
    assert (HOOKS[4] in sentence and HOOKS[7] in sentence and HOOKS[5] not in sentence
            and f"hf download {RES_JB_REPO}" in sentence)
    assert list(load_saes(preset(layers=[3, 5]))) == [3, 5]
    refused("does not hold layer 13", preset(layers=[13]))


def test_release_not_in_the_cache(hub):
    shutil.rmtree(hub.parents[1])
    refused("not in the cache.*switched off", preset(layers=[0]))


def test_width_of_another_model(hub, material):
    shutil.rmtree(hub/HOOKS[1])
    write_old_sae(hub/HOOKS[1], torch.randn(100, 64), HOOKS[1])
    refused("reads vectors of width 64, but blocks.1.hook_resid_pre of this model has width 48",
            preset())


def test_sae_of_another_model(hub, material):
    shutil.rmtree(hub/HOOKS[1])
    write_old_sae(hub/HOOKS[1], torch.randn(100, WIDTH), HOOKS[1], model_name="gpt2-medium")
    refused("was trained on gpt2-medium, but the model is gpt2", preset())


def test_unfolded_normalisation(hub, material):
    shutil.rmtree(hub/HOOKS[1])
    write_old_sae(hub/HOOKS[1], torch.randn(100, WIDTH), HOOKS[1],
                  normalize_activations="expected_average_only_in")
    refused("not folded into its weights", preset(layers=[1]))


@pytest.mark.parametrize("where", [3, 4])
def test_sae_of_the_neighbouring_layer(hub, material, where):
    """The weights of one layer under the name of the next: metadata is consistent, only the
    reconstruction tells."""
    other = 7 - where
    shutil.copy(material["saes"]/HOOKS[other]/"sae_weights.safetensors",
                hub/HOOKS[where]/"sae_weights.safetensors")
    refused(f"layer {where} is expected to reconstruct {HOOKS[where]}.* at {HOOKS[other]}",
            preset(layers=[where]))
    with pytest.warns(UserWarning, match="check_reconstruction=False"):
        load_model_and_saes(preset(layers=[where], check_reconstruction=False))


def test_random_weights_are_refused(hub):
    stored = load_file(hub/HOOKS[5]/"sae_weights.safetensors")
    save_file({name: torch.randn(tensor.shape) for name, tensor in stored.items()},
              hub/HOOKS[5]/"sae_weights.safetensors")
    refused("at least 0.3 is expected", preset(layers=[5]))


def test_processing_the_sae_expects(hub, material):
    """An SAE of the centred stream: refused on the raw model, by its metadata and without it by
    reconstruction; accepted on the centred one."""
    hf_model, tokenizer = read_model(material["model"])
    raw = wrap_model(hf_model, tokenizer)
    centred = wrap_model(hf_model, tokenizer, center_writing_weights=True)
    saes = load_saes(preset(layers=[1, 2]))
    with pytest.raises(InputError, match="trained on a model with center_writing_weights=True, "
                                         "but this model's stream is not centred"):
        load_saes(preset(layers=[1, 2]), raw)
    with pytest.raises(InputError, match="of the centred stream's"):
        check_reconstruction(raw, saes, material["corpus"])
    report = check_reconstruction(centred, saes, material["corpus"])
    assert all(fit.explained_variance > 0.7 for fit in report) and load_saes(
        preset(layers=[1, 2]), centred
    )


def test_saes_without_wishes_get_the_model_as_it_is(material, tmp_path):
    for name in HOOKS[1:3]: write_old_sae(tmp_path/name, material["raw"][name], name)
    cfg = Config(
        model_name=str(material["model"]), sae_release=str(tmp_path), dataset="any/hub-text"
    )
    model, saes = load_model_and_saes(cfg)
    assert not stream_is_centred(model)
    raw, centred = (check_reconstruction(either, saes, material["corpus"])
                    for either in (model, load_model(cfg, center_writing_weights=True)))
    # the mean they were trained on is gone
    for right, wrong in zip(raw, centred, strict=True):
        assert wrong.explained_variance < right.explained_variance - 0.05


# -- models

def test_model_not_in_the_cache(hub):
    sentence = refused("EleutherAI/pythia-70m-deduped is no folder, not in the cache .*switched "
                       "off", Config(model_name="pythia-70m-deduped"), load_model)
    assert "hf download EleutherAI/pythia-70m-deduped" in sentence


@pytest.mark.parametrize("name", ["not a name", "a/b/c", ""])
def test_model_that_cannot_exist(hub, name):
    with pytest.raises(InputError, match="model_name is empty" if not name else
                       f"no folder and no hub model named '{name}'"):
        load_model(name)


def test_nan_in_the_weights(material, tmp_path):
    shutil.copytree(material["model"], tmp_path/"m")
    weights = load_file(tmp_path/"m"/"model.safetensors")
    name = next(name for name in weights if name.endswith("h.7.mlp.c_fc.weight"))
    weights[name][0, 0] = float("nan")
    save_file(weights, tmp_path/"m"/"model.safetensors", metadata={"format": "pt"})
    refused("NaN or infinite values in transformer.h.7.mlp.c_fc.weight",
            Config(model_name=str(tmp_path/"m")), load_model)


@pytest.mark.parametrize("damage", ["cut", "no weights", "no tokenizer", "unknown type", "pickle"])
def test_damaged_model_folder(material, tmp_path, damage):
    folder = tmp_path/"m"
    shutil.copytree(material["model"], folder)
    if damage == "cut":
        (folder/"model.safetensors").write_bytes((folder/"model.safetensors").read_bytes()[:1000])
    if damage == "no weights": (folder/"model.safetensors").unlink()
    if damage == "no tokenizer":
        for path in folder.glob("token*"): path.unlink()
    if damage == "unknown type":
        (folder/"config.json").write_text('{"model_type": "nothing known"}')
    if damage == "pickle":
        torch.save(load_file(folder/"model.safetensors"), folder/"pytorch_model.bin")
        (folder/"model.safetensors").unlink()
    refused("has no tokenizer" if damage == "no tokenizer" else "could not be read",
            Config(model_name=str(folder)), load_model)


# -- architectures in memory

SHAPE = dict(vocab_size=101, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
             num_attention_heads=4, max_position_embeddings=64, bos_token_id=0, eos_token_id=0,
             pad_token_id=0)


def architectures() -> dict:
    from transformers import Gemma2Config, GPTNeoXConfig, LlamaConfig, MistralConfig, Qwen3Config
    grouped = dict(num_key_value_heads=2, head_dim=8)
    return {"gpt2": GPT2Config(n_layer=3, n_embd=32, n_head=4, n_positions=64, vocab_size=101,
                               bos_token_id=0, eos_token_id=0), "neox": GPTNeoXConfig(**SHAPE),
            "neox_serial": GPTNeoXConfig(**SHAPE, use_parallel_residual=False),
            "llama": LlamaConfig(**SHAPE, **grouped), "qwen3": Qwen3Config(**SHAPE, **grouped),
            "gemma2": Gemma2Config(**SHAPE, **grouped, sliding_window=8),
            "mistral": MistralConfig(**SHAPE, **grouped, sliding_window=8)}


def random_model(name: str):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(architectures()[name]).eval()
    for parameter in model.parameters(): parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("name", architectures())
@pytest.mark.parametrize("tokenizer", [None, "bytes"])
def test_bridge_and_twin_agree_and_share_tensors(name, tokenizer):
    hf_model = random_model(name)
    tokens = torch.randint(0, 101, (2, 20))
    expected = hf_model(tokens, output_hidden_states=True)
    bridge = wrap_model(hf_model, byte_tokenizer() if tokenizer else None)
    assert plain_twin(bridge) is hf_model and (bridge.tokenizer is None) == (tokenizer is None)
    with torch.no_grad(): logits, cache = bridge.run_with_cache(tokens)
    torch.testing.assert_close(logits, expected.logits, atol=1e-5, rtol=1e-5)
    # the twin itself is untouched
    torch.testing.assert_close(hf_model(tokens).logits, expected.logits, atol=0, rtol=0)
    for layer in range(3):
        torch.testing.assert_close(cache[f"blocks.{layer}.hook_resid_pre"],
                                   expected.hidden_states[layer], atol=1e-5, rtol=1e-5)
    shared = {id(tensor) for tensor in [*bridge.parameters(), *bridge.buffers()]}
    assert all(id(tensor) in shared for tensor in hf_model.parameters())
    assert not any(parameter.requires_grad for parameter in bridge.parameters())


@pytest.mark.parametrize("name", architectures())
def test_centring_keeps_logits_and_moves_only_layer_norm_models(name):
    hf_model = random_model(name)
    tokens = torch.randint(0, 101, (2, 20))
    expected = hf_model(tokens, output_hidden_states=True)
    bridge = wrap_model(hf_model, center_writing_weights=True)
    with torch.no_grad(): logits, cache = bridge.run_with_cache(tokens)
    torch.testing.assert_close(logits, expected.logits, atol=2e-5, rtol=1e-5)
    layer_norm = name in ("gpt2", "neox", "neox_serial")
    assert stream_is_centred(bridge) == layer_norm
    for layer in range(3):
        stream = expected.hidden_states[layer]
        torch.testing.assert_close(
            cache[f"blocks.{layer}.hook_resid_pre"],
            stream - stream.mean(-1, keepdim=True) if layer_norm else stream, atol=1e-5, rtol=1e-5
        )
    # the model passed in keeps its weights
    torch.testing.assert_close(hf_model(tokens).logits, expected.logits, atol=0, rtol=0)


def test_tied_unembedding_stays_tied_to_nothing_when_centred():
    hf_model = random_model("gpt2")
    assert hf_model.lm_head.weight is hf_model.transformer.wte.weight
    twin = plain_twin(wrap_model(hf_model, center_writing_weights=True))
    assert twin.lm_head.weight is not twin.transformer.wte.weight and torch.equal(
        twin.lm_head.weight, hf_model.transformer.wte.weight
    )


# -- the demo

def test_every_demo_sae_is_refused_at_its_neighbours_and_accepted_at_home():
    cfg = Config.preset("demo", device="cpu", n_tokens=600)
    model, saes = load_model_and_saes(cfg)
    corpus, n_layers = load_corpus(cfg, model), model.cfg.n_layers
    assert sorted(saes) == list(range(n_layers + 1))
    for layer, sae in saes.items():
        home = sae.cfg.metadata.hook_name
        for place in neighbours(parse_hook_point(home), n_layers):
            sae.cfg.metadata.hook_name = place.name
            with pytest.raises(
                InputError, match=f"is expected to reconstruct {place.name}.* at {home}"
            ):
                check_reconstruction(model, {layer: sae}, corpus)
        sae.cfg.metadata.hook_name = home
        assert check_reconstruction(model, {layer: sae}, corpus)[0].fits


# -- a real model

STORIES = Path(__file__).resolve().parents[2]/"shared"/"data"/"models"/"stories260K"


@pytest.mark.skipif(
    not STORIES.is_dir(), reason="the shared model stories260K is not on this machine"
)
def test_a_real_model_from_a_folder():
    with warnings.catch_warnings(action="ignore"): model = load_model(str(STORIES))
    text = ("Once upon a time, there was a little girl named Lily. She loved to play outside in "
            "the park.")
    tokens = torch.tensor([[1, *model.tokenizer(text, add_special_tokens=False).input_ids]])
    with torch.no_grad(): logits, twin_logits = model(tokens), plain_twin(model)(tokens).logits
    torch.testing.assert_close(logits, twin_logits, atol=2e-5, rtol=1e-5)
    loss = torch.nn.functional.cross_entropy(logits[0, :-1], tokens[0, 1:])
    # a trained model: uniform guessing over its vocabulary would give 6.2
    assert loss < 1.6


@pytest.mark.parametrize("name", ["/nowhere", "./nowhere", "~/saes", "a b/c", "nowhere"])
def test_saes_that_cannot_exist(name):
    """A folder with a typing error looks like owner/repository, which the hub's client refuses as a
    name."""
    with pytest.raises(
        InputError, match=f"there is no SAE release, hub repository or folder named '{name}'; give "
                          "`demo`, a sae-lens release"
    ) as refusal:
        release_entries(name)
    assert "\n" not in str(refusal.value)


def test_a_hub_that_does_not_answer_for_saes_is_asked_once(monkeypatch, tmp_path):
    "The HTTP client of the hub raises an error of its own, which is no OSError."
    import huggingface_hub
    asked = []
    def silent(repo_id, **settings):
        asked.append(repo_id)
        raise no_answer()("Name or service not known")
    monkeypatch.setattr(huggingface_hub, "model_info", silent)
    assert not issubclass(no_answer(), OSError)
    with pytest.raises(InputError, match="the SAE repository nobody/saes is no folder, not in the"):
        release_entries("nobody/saes")
    assert asked == ["nobody/saes"]
