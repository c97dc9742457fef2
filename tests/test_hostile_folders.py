"""Folders of models and SAEs that are damaged, odd or hostile: one plain sentence each, and never a
library's exception, a wait without end, or a model or an SAE other than the one in the files."""
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from feature_interaction_graph.config import Config
from feature_interaction_graph.engine.encoders import FeatureReader
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.engine.hook_points import decoder_layers, plain_twin
from feature_interaction_graph.hosts.hub import check_hub_model, no_answer
from feature_interaction_graph.hosts.models import read_model
from feature_interaction_graph.hosts.releases import release_entries
from feature_interaction_graph.hosts.saes import load_sae
from feature_interaction_graph.hosts.texts import hub_documents
from feature_interaction_graph.loading import demo_folder, load_model, load_saes

MODEL = demo_folder()/"model"
PLACE = "blocks.1.hook_resid_pre"
SAE = demo_folder()/"saes"/PLACE


def refused(words: str, call: Callable, *given: object) -> str:
    "The one plain sentence with which `call(*given)` is refused."
    with pytest.raises(InputError, match=words) as caught: call(*given)
    sentence = str(caught.value)
    assert len(sentence) < 400 and "\n" not in sentence and sentence.endswith(".")
    assert sentence.isprintable()
    return sentence


@pytest.fixture
def model(tmp_path: Path) -> Path: return Path(shutil.copytree(MODEL, tmp_path/"m"))


@pytest.fixture
def release(tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(SAE, tmp_path/"saes"/PLACE)
    return tmp_path/"saes"


def change(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# -- models

@pytest.mark.parametrize(("field", "value"), [
    ("n_layer", "four"), ("n_layer", 0), ("n_layer", 10**9), ("n_layer", 2.5), ("n_head", 0),
    ("n_head", -4), ("n_embd", 10**30), ("vocab_size", "385"), ("n_positions", True),
    ("layer_norm_epsilon", "1e-5"), ("layer_norm_epsilon", float("nan")), ("dtype", "float99"),
    ("dtype", 32), ("tie_word_embeddings", "false"), ("scale_attn_weights", 0),
    ("model_type", ["gpt2"]), ("activation_function", 5), ("text_config", "x"),
    ("quantization_config", 8), ("return_dict", False), ("num_labels", 10**9),
    ("bos_token_id", 10**40)
])
def test_a_field_out_of_its_range_is_named(model: Path, field: str, value: object) -> None:
    change(model/"config.json", **{field: value})
    refused(f"config.json gives {field} as .* belongs", load_model, str(model))


@pytest.mark.parametrize(("field", "value"), [
    ("n_head", 3), ("activation_function", "gelu_gnu"), ("model_type", "nothing known"),
    ("use_cache", "x"), ("attn_pdrop", "x"), ("resid_pdrop", -1), ("quantization_config", {}),
    ("_attn_implementation", "x")
])
def test_what_only_the_library_finds_is_one_sentence(
    model: Path, field: str, value: object
) -> None:
    change(model/"config.json", **{field: value})
    refused("the model .* could not be read", load_model, str(model))


@pytest.mark.parametrize(("change_by", "words"), [
    ({"n_layer": 3}, "hold transformer.h.3.attn.c_attn.weight, .* has no place"),
    ({"n_layer": 5}, "lack transformer.h.4.attn.c_attn.bias"), ({"n_embd": 64}, "lack "),
    ({"vocab_size": 384}, "lack "), ({"n_positions": 64}, "lack transformer.wpe.weight"),
    ({"n_inner": 7}, "lack "), ({"n_embd": 2**20, "n_layer": 1000}, "describes a model of"),
    ({"model_type": "llama"}, "describes a model of 6477848576 numbers")
])
def test_settings_that_are_not_those_of_the_weights(
    model: Path, change_by: dict, words: str
) -> None:
    change(model/"config.json", **change_by)
    refused(words, load_model, str(model))


def test_a_shorter_config_loads_only_with_shorter_weights(model: Path) -> None:
    "The refusal is about the weights that would be left out: without them the model is whole."
    change(model/"config.json", n_layer=3)
    weights = load_file(model/"model.safetensors")
    kept = {name: weight for name, weight in weights.items() if ".h.3." not in name}
    save_file(kept, model/"model.safetensors", metadata={"format": "pt"})
    assert len(decoder_layers(plain_twin(load_model(str(model))))) == 3


@pytest.mark.parametrize(("name", "tensor", "words"), [
    ("lm_head.bias", torch.ones(385), "hold lm_head.bias, for which"),
    ("transformer.h.9.ln_1.weight", torch.ones(128), "hold transformer.h.9.ln_1.weight"),
    ("one\nname" * 900, torch.ones(1), "has no place"),
    ("transformer.ln_f.bias", torch.full((128,), float("inf")), "NaN or infinite values"),
    ("transformer.ln_f.bias", torch.tensor(1.0), "lack transformer.ln_f.bias"),
    ("transformer.ln_f.bias", torch.ones(128, dtype=torch.int8), "stores .* as I8")
])
def test_tensors_that_do_not_belong(
    model: Path, name: str, tensor: torch.Tensor, words: str
) -> None:
    weights = load_file(model/"model.safetensors") | {name: tensor}
    save_file(weights, model/"model.safetensors", metadata={"format": "pt"})
    refused(words, load_model, str(model))


def test_masks_of_older_versions_do_no_harm(model: Path) -> None:
    weights = load_file(model/"model.safetensors")
    tokens = torch.arange(5, 25)[None]
    with torch.no_grad(): before = load_model(str(model))(tokens)
    weights |= {"transformer.h.0.attn.bias": torch.ones(1, 1, 128, 128, dtype=torch.uint8),
                "transformer.h.0.attn.masked_bias": torch.tensor(-1e4)}
    save_file(weights, model/"model.safetensors", metadata={"format": "pt"})
    with torch.no_grad(): assert torch.equal(load_model(str(model))(tokens), before)


@pytest.mark.parametrize("place", ["../out.safetensors", "/etc/hostname", "gone.safetensors", 5,
                                   "", "a\0.safetensors", "x" * 5000])
def test_an_index_that_points_outside_its_folder(model: Path, place: object) -> None:
    names = load_file(model/"model.safetensors")
    shutil.copy(model/"model.safetensors", model.parent/"out.safetensors")
    (model/"model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, place)}
    (model/"model.safetensors.index.json").write_text(json.dumps(index))
    refused("no file of its folder|it does not exist", load_model, str(model))


def test_an_index_of_its_own_folder_is_followed(model: Path) -> None:
    names = load_file(model/"model.safetensors")
    (model/"model.safetensors").rename(model/"part.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "part.safetensors")}
    (model/"model.safetensors.index.json").write_text(json.dumps(index))
    assert len(decoder_layers(plain_twin(load_model(str(model))))) == 4


def test_code_in_a_model_folder_is_neither_run_nor_asked_about(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model/"modeling_own.py").write_text(f"open({str(model/'ran')!r}, 'w')")
    monkeypatch.setattr("builtins.input", lambda *asked: pytest.fail("somebody was asked"))
    own = {"AutoConfig": "modeling_own.C", "AutoModelForCausalLM": "modeling_own.M"}
    for kind in ("own", "gpt2"):
        change(model/"config.json", model_type=kind, auto_map=own)
        refused("names code of its own .auto_map., which is never run", load_model, str(model))
    shutil.copy(MODEL/"config.json", model/"config.json")
    change(model/"tokenizer_config.json", auto_map={"AutoTokenizer": ["modeling_own.T", None]})
    refused("tokenizer_config.json names code of its own", load_model, str(model))
    assert not (model/"ran").exists()


CONTENTS = {"empty": b"", "cut": b"{", "a list": b"[]", "null": b"null", "deep": b"[" * 100_000,
            "digits": b'{"a": ' + b"9" * 5000 + b"}", "bytes": b"\xff\xfe{"}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_json_file(model: Path, file: str, content: str) -> None:
    (model/file).write_bytes(CONTENTS[content])
    refused("is not JSON that|not text in UTF-8|an object was expected|could not be read",
            load_model, str(model))


@pytest.mark.parametrize(("key", "value"), [
    ("model", {"type": "X"}), ("model", 5), ("added_tokens", [{"id": -1}]), ("decoder", 5),
    ("normalizer", {"type": "Replace", "pattern": {"Regex": "("}, "content": ""})
])
def test_a_tokenizer_that_rust_refuses(model: Path, key: str, value: object) -> None:
    change(model/"tokenizer.json", **{key: value})
    refused("could not be read", load_model, str(model))


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors", "other"])
def test_a_named_pipe_is_not_waited_for(model: Path, file: str) -> None:
    (model/file).unlink(missing_ok=True)
    os.mkfifo(model/file)
    refused(f"{file} is neither a file nor a folder", load_model, str(model))


# -- SAEs

@pytest.mark.parametrize("level", ["top", "metadata"])
@pytest.mark.parametrize(("field", "value"), [
    ("hook_name", 7), ("hook_name", "x" * 5000), ("model_from_pretrained_kwargs", "center"),
    ("prepend_bos", "yes"), ("hook_head_index", "all"), ("model_name", 3), ("context_size", "x"),
    ("sae_lens_version", 6), ("d_sae", 0), ("d_in", "128"), ("dtype", "float99"),
    ("apply_b_dec_to_input", "false"), ("normalize_activations", "whiten"),
    ("reshape_activations", 1), ("architecture", "tanh"), ("activation_fn_kwargs", "k=4")
])
def test_a_setting_of_an_sae_out_of_its_range(
    release: Path, level: str, field: str, value: object
) -> None:
    path = release/PLACE/"cfg.json"
    stored = json.loads(path.read_text())
    (stored if level == "top" else stored["metadata"])[field] = value
    path.write_text(json.dumps(stored))
    refused(f"cfg.json gives {field} as .* belongs", load_saes, Config(sae_release=str(release)))


@pytest.mark.parametrize("name", ["blocks.9.hook_resid_pre", "blocks.1.hook_x", "hook_embed",
                                  "blocks." + "9" * 50 + ".hook_resid_pre", "blocks.1.hook_z\n"])
def test_a_place_that_is_none(release: Path, name: str) -> None:
    path = release/PLACE/"cfg.json"
    change(path, metadata=json.loads(path.read_text())["metadata"] | {"hook_name": name})
    refused("is not one that can be measured|says in its metadata",
            load_saes, Config(sae_release=str(release)))


def old_sae(release: Path, **changes: object) -> None:
    "The demo's SAE without its threshold, in the flat layout of old versions."
    weights = load_file(SAE/"sae_weights.safetensors")
    del weights["threshold"]
    save_file(weights, release/PLACE/"sae_weights.safetensors")
    settings = {"architecture": "standard", "d_in": 128, "d_sae": 1024, "dtype": "float32",
                "model_name": "demo", "hook_name": PLACE, "activation_fn_str": "relu",
                "activation_fn_kwargs": {}, "apply_b_dec_to_input": True}
    (release/PLACE/"cfg.json").write_text(json.dumps(settings | changes))


@pytest.mark.parametrize(
    ("function", "settings"),
    [("tanh-relu", {}), ("topk", {}), ("topk", {"k": 0}), ("topk", {"k": "5"}), ("gelu", {}),
     ("topk", {"k": 2000}), ("topk", {"k": 4, "postact_fn": "tanh"}), ("identity", {}),
     ("", {"k": 2})]
)
def test_an_activation_function_is_read_exactly_or_not_at_all(
    release: Path, function: str, settings: dict
) -> None:
    old_sae(release, activation_fn_str=function, activation_fn_kwargs=settings)
    if function == "":                                # unsaid: the ReLU of all old versions
        assert load_saes(Config(sae_release=str(release)))[1].cfg.architecture() == "standard"
    else:
        refused("read exactly here|does not say one k|gives k as",
                load_saes, Config(sae_release=str(release)))


def test_topk_with_its_k_is_read_as_topk(release: Path) -> None:
    old_sae(release, activation_fn_str="topk", activation_fn_kwargs={"k": 5})
    sae = load_saes(Config(sae_release=str(release)))[1]
    rows = torch.randn(20, 128)
    assert sae.cfg.architecture() == "topk" and sae.cfg.k == 5
    with torch.no_grad(): expected = sae.encode(rows)
    assert 0 < (expected > 0).sum(1).max() <= 5
    torch.testing.assert_close(FeatureReader(sae).read(rows)[1], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("changes", "words"), [
    ({"extra" * 999: torch.ones(1)}, "has no place for"), ({"b_dec": None}, "lacks b_dec"),
    ({"W_enc": torch.ones(1024, 128)}, "holds W_enc as F32 of shape"),
    ({"b_enc": torch.ones(1024, dtype=torch.int64)}, "holds b_enc as I64"),
    ({"threshold": torch.full((1024,), torch.nan)}, "NaN or infinite values in threshold"),
    ({"scaling_factor": torch.full((1024,), 2.0)}, "could not be read")
])
def test_weights_that_are_not_those_of_the_settings(
    release: Path, changes: dict, words: str
) -> None:
    weights = load_file(SAE/"sae_weights.safetensors") | changes
    save_file({name: weight for name, weight in weights.items() if weight is not None},
              release/PLACE/"sae_weights.safetensors")
    refused(words, load_saes, Config(sae_release=str(release)))


@pytest.mark.parametrize("content", CONTENTS)
def test_a_damaged_cfg(release: Path, content: str) -> None:
    (release/PLACE/"cfg.json").write_bytes(CONTENTS[content])
    refused("is not JSON that|not text in UTF-8|an object was expected",
            load_saes, Config(sae_release=str(release)))


@pytest.mark.parametrize("file", ["cfg.json", "sae_weights.safetensors"])
def test_a_pipe_in_the_folder_of_an_sae(release: Path, file: str) -> None:
    (release/PLACE/file).unlink()
    os.mkfifo(release/PLACE/file)
    refused("is a pipe or a device", load_saes, Config(sae_release=str(release)))


@pytest.mark.parametrize("folder", ["/proc", "/"])
def test_a_folder_that_is_the_whole_machine(folder: str) -> None:
    refused("holds no SAE|SAEs themselves|is not JSON that|for one layer|do not say which layer",
            load_saes, Config(sae_release=folder))


# -- names

NAMES = [None, 5, b"demo", "a\0b", "one\ntwo", "x" * 256, "x" * 5000, "long/" * 1000]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name)[:12])
def test_what_is_no_name_and_no_path(name: object) -> None:
    for call in (read_model, release_entries, lambda name: load_sae(name, PLACE),
                 lambda name: load_sae(str(SAE.parent), name),
                 lambda name: next(hub_documents(name))):
        refused("give a name or a path", call, name)


@pytest.mark.parametrize("name", ["./mdoel", "/no/such", "~/model", "runs/my/model", "my model"])
def test_a_mistyped_path_is_not_looked_for_on_the_hub(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata",
                        lambda *asked, **how: pytest.fail("the hub was asked"))
    refused(f"no folder and no hub model named '{name}'", load_model, name)


def test_a_mistyped_name_is_asked_about_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    asked = []
    def unreachable(url: str, **how: object) -> None:
        asked.append(url)
        raise no_answer()("Name or service not known")
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    refused("runs/mdoel is no folder, not in the cache", check_hub_model, "runs/mdoel")
    assert len(asked) == 1 and asked[0].endswith("/runs/mdoel/resolve/main/config.json")
