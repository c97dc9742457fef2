"""The pass over a corpus: gradients against finite differences on every kind of hook point, the
store against the SAE itself, and what a broken run leaves behind."""
import re
import copy
import os
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig

from feature_interaction_graph.activations import (
    ablation_effects, ablation_importance, collect_activations, loss_gradients, token_losses
)
from feature_interaction_graph.config import Config
from feature_interaction_graph.dictionary.store import (
    ActivationStore, FeatureSums, firings_of, write_store
)
from feature_interaction_graph.engine.corpus import Corpus
from feature_interaction_graph.engine.encoders import FeatureReader
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.engine.hook_points import decoder_layers, edit, parse_hook_point

WIDTH = 24


def tiny(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    base = dict(num_hidden_layers=3, hidden_size=16, num_attention_heads=2, intermediate_size=32,
                vocab_size=40)
    configs = {"gpt2": GPT2Config(n_layer=3, n_embd=16, n_head=2, vocab_size=40, n_positions=64,
                                  bos_token_id=0, eos_token_id=0),
               "neox": GPTNeoXConfig(**base, max_position_embeddings=64),
               "llama": LlamaConfig(**base, num_key_value_heads=1)}
    model = AutoModelForCausalLM.from_config(configs[kind]).eval()
    for parameter in model.parameters():
        if parameter.ndim == 2: parameter.data.normal_(0, 0.3)
    return model


def sae_at(
    hook_name: str, architecture: str = "standard", normalisation: str = "none", size: float = 0.5
):
    from sae_lens import (
        JumpReLUSAE, JumpReLUSAEConfig, StandardSAE, StandardSAEConfig, TopKSAE, TopKSAEConfig
    )
    from sae_lens.saes.sae import SAEMetadata
    kinds = {
        "standard": (StandardSAE, StandardSAEConfig, {}),
        "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig, {}), "topk": (TopKSAE, TopKSAEConfig, {"k": 5})
    }
    make, config, options = kinds[architecture]
    sae = make(config(d_in=16, d_sae=WIDTH, normalize_activations=normalisation,
                      metadata=SAEMetadata(hook_name=hook_name, model_name="tiny"), **options))
    torch.manual_seed(7)
    for parameter in sae.parameters(): parameter.data = torch.randn_like(parameter) * size
    if architecture == "jumprelu": sae.threshold.data.abs_()
    return sae.requires_grad_(False)


def ragged(n_seq: int = 10, seed: int = 1) -> Corpus:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 13, (n_seq,), generator=generator)
    tokens = torch.randint(1, 40, (n_seq, 12), generator=generator)
    tokens[:, 0] = 0
    return Corpus(tokens, lengths, starts_with_bos=True)


@pytest.mark.parametrize(
    ("kind", "hook"), [("gpt2", "blocks.0.hook_resid_pre"), ("gpt2", "blocks.1.hook_resid_mid"),
                       ("gpt2", "blocks.1.hook_attn_out"), ("gpt2", "blocks.1.attn.hook_z"),
                       ("llama", "blocks.2.hook_resid_post"), ("llama", "blocks.1.hook_mlp_out"),
                       ("llama", "blocks.0.hook_resid_mid"), ("neox", "blocks.1.hook_attn_out"),
                       ("neox", "blocks.1.hook_resid_pre")]
)
def test_loss_gradients_are_finite_differences(kind, hook):
    """At every kind of hook point, on padded sequences: dL/dh against central differences of a
    plain hooked forward in float64."""
    model, corpus = tiny(kind).double(), ragged(3)
    streams, gradients, losses = loss_gradients(
        model, corpus.tokens, corpus.lengths,
        [hook, "blocks.0.hook_resid_pre", "blocks.2.hook_resid_post"]
    )
    direction = torch.randn(
        streams[hook].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    )
    direction[torch.arange(12) >= corpus.lengths[:, None]] = 0

    def loss(step):
        with torch.no_grad(), edit(
            decoder_layers(model), parse_hook_point(hook), lambda stream: stream + step * direction
        ):
            return token_losses(model(corpus.tokens).logits, corpus.tokens, corpus.lengths).sum(-1)
    # Llama's norms compute in float32 whatever the model's type
    step, tolerance = (1e-3, 2e-3) if kind == "llama" else (1e-5, 1e-6)
    numeric = (loss(step) - loss(-step)) / (2 * step)
    torch.testing.assert_close((gradients[hook] * direction).sum((1, 2)), numeric, rtol=tolerance,
                               atol=tolerance * float(numeric.abs().max()))
    torch.testing.assert_close(losses, loss(0.0), rtol=1e-5, atol=0)


def test_gradients_leave_no_trace():
    "Parameters get no gradient and keep their flags; the gradient at a padded position is zero."
    model, corpus = tiny("gpt2"), ragged()
    _, gradients, _ = loss_gradients(
        model, corpus.tokens, corpus.lengths, ["blocks.1.hook_resid_pre"]
    )
    assert all(
        parameter.grad is None and parameter.requires_grad for parameter in model.parameters()
    )
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())
    padding = torch.arange(12) >= corpus.lengths[:, None]
    assert (gradients["blocks.1.hook_resid_pre"][padding] == 0).all() and (
        gradients["blocks.1.hook_resid_pre"][~padding] != 0
    ).any()


@pytest.mark.parametrize(
    ("architecture", "normalisation"), [("standard", "none"), ("jumprelu", "layer_norm"),
                                        ("topk", "none"), ("standard", "constant_norm_rescale")]
)
def test_ablation_effects_are_exact(architecture, normalisation):
    """Against a splice written down separately: the residual minus what decode adds for that
    feature, in float64."""
    model = tiny("llama")
    corpus = ragged()
    sae = sae_at("blocks.1.hook_resid_pre", architecture, normalisation)
    residuals = loss_gradients(
        model, corpus.tokens, corpus.lengths, ["blocks.1.hook_resid_pre"]
    )[0]["blocks.1.hook_resid_pre"]
    active = sae.encode(residuals)
    s, t, f = ((active > 0) & corpus.sample_mask()[..., None]).nonzero()[::7][:30].T
    precise, expected = copy.deepcopy(model).double(), []
    for sequence, position, feature in zip(s.tolist(), t.tolist(), f.tolist(), strict=True):
        row = residuals[sequence, position]
        acts = sae.encode(row[None])
        whole = sae.decode(acts)
        sae.encode(row[None])
        part = sae.decode(acts.clone().index_fill_(1, torch.tensor([feature]), 0.0))

        change = (part - whole)[0].double()

        def spliced(stream, change=change, position=position):
            stream = stream.clone()
            stream[0, position] += change
            return stream
        with (torch.no_grad(),
              edit(decoder_layers(precise), parse_hook_point("blocks.1.hook_resid_pre"), spliced)):
            without = token_losses(precise(corpus.tokens[[sequence]]).logits,
                                   corpus.tokens[[sequence]], corpus.lengths[[sequence]]).sum()
        with torch.no_grad():
            clean = token_losses(precise(corpus.tokens[[sequence]]).logits,
                                 corpus.tokens[[sequence]], corpus.lengths[[sequence]]).sum()
        expected.append(float(without - clean))
    measured = ablation_effects(model, sae, corpus.tokens, corpus.lengths, s, t, f, rows_per_pass=4)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(measured, expected, atol=2e-5)


def test_ablation_of_a_silent_feature_changes_nothing():
    model, corpus, sae = tiny("gpt2"), ragged(), sae_at("blocks.1.hook_resid_pre")
    residuals = loss_gradients(
        model, corpus.tokens, corpus.lengths, ["blocks.1.hook_resid_pre"]
    )[0]["blocks.1.hook_resid_pre"]
    s, t, f = (sae.encode(residuals) == 0).nonzero()[:5].T
    assert (ablation_effects(model, sae, corpus.tokens, corpus.lengths, s, t, f) == 0).all()


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_store_is_what_the_sae_says(tmp_path, batch_size):
    "Rows, values, counts and importance, whatever the batch size and however ragged the corpus."
    model, corpus = tiny("gpt2"), ragged()
    saes = {0: sae_at("blocks.0.hook_resid_pre"),
            1: sae_at("blocks.1.hook_resid_pre", "jumprelu", "layer_norm"),
            3: sae_at("blocks.2.hook_resid_post", "topk")}
    cfg = Config(
        output_dir=str(tmp_path), batch_size=batch_size, n_importance_tokens=10**6, device="cpu"
    )
    store = collect_activations(model, saes, cfg, corpus, progress=False)
    assert store.layers == (
        0, 1, 3
    ) and store.n_tokens == int((corpus.lengths - 1).sum()) and store.token_texts == {}
    mask = corpus.sample_mask()
    np.testing.assert_array_equal(store.rows, mask.nonzero())
    names = [sae.cfg.metadata.hook_name for sae in saes.values()]
    streams, gradients, _ = loss_gradients(model, corpus.tokens, corpus.lengths, names)
    for (layer, sae), name in zip(saes.items(), names, strict=True):
        rows = streams[name][mask]
        direct, stats = sae.encode(rows), store.statistics(layer)
        np.testing.assert_allclose(store.csr(layer).toarray(), direct, rtol=2e-3, atol=1e-5)
        np.testing.assert_array_equal(stats["count"], store.csr(layer).getnnz(0))
        np.testing.assert_allclose(
            stats["mean"] * stats["count"], direct.double().sum(0), rtol=1e-4, atol=1e-4
        )
        reader = FeatureReader(sae)
        worth = direct * reader.scale(rows) * (gradients[name][mask] @ reader.decoder.T)
        np.testing.assert_allclose(
            store.importance(layer), worth.abs().mean(0), rtol=1e-3, atol=1e-6
        )
        np.testing.assert_allclose(stats["signed_importance"], worth.mean(0), rtol=1e-2, atol=1e-5)


def test_ablation_importance_estimates_the_mean_over_positions(tmp_path):
    """With every firing sampled, it is the exact sum divided by the number of positions; a silent
    feature has 0."""
    model, corpus, sae = tiny("gpt2"), ragged(), sae_at("blocks.1.hook_resid_pre", "jumprelu")
    sae.b_enc.data[3] = -100.0
    store = collect_activations(
        model, {1: sae}, Config(output_dir=str(tmp_path), importance_method="frequency"), corpus,
        progress=False
    )
    assert store.importance(1) is None
    found = ablation_importance(model, {1: sae}, store, 1, np.array([2, 3, 5]), n_samples=10**6)
    rows, features = store.csr(1)[:, [2, 3, 5]].nonzero()
    effects = ablation_effects(
        model, sae, corpus.tokens, corpus.lengths, *torch.from_numpy(store.rows[rows]).long().T,
        torch.tensor([2, 3, 5])[features]
    )
    np.testing.assert_allclose(
        found, np.bincount(features, effects.abs(), 3) / store.n_tokens, rtol=1e-5
    )
    assert found[1] == 0 and found[0] > 0


def test_overflow_is_refused_and_leaves_nothing(tmp_path):
    model, corpus, sae = tiny("gpt2"), ragged(), sae_at("blocks.1.hook_resid_pre", size=1e4)
    cfg = Config(output_dir=str(tmp_path))
    with pytest.raises(InputError, match="value_dtype='float32'"):
        collect_activations(model, {1: sae}, cfg, corpus, progress=False)
    assert not list(tmp_path.iterdir())
    store = collect_activations(model, {1: sae}, cfg, corpus, progress=False, value_dtype="float32")
    assert store.csr(1).data.max() > 65504


def test_interrupted_run_keeps_the_old_store(tmp_path, monkeypatch):
    model, corpus, sae = tiny("gpt2"), ragged(), sae_at("blocks.1.hook_resid_pre")
    cfg = Config(output_dir=str(tmp_path), batch_size=2)
    before = collect_activations(model, {1: sae}, cfg, corpus, progress=False).path.read_bytes()
    calls = iter([False, False, True])

    def stop(*_):
        if next(calls): raise KeyboardInterrupt
    handle = decoder_layers(model)[0].register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        collect_activations(model, {1: sae}, cfg, corpus, progress=False)
    handle.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["activations.h5"] and (
        tmp_path / "activations.h5"
    ).read_bytes() == before
    assert (not decoder_layers(model)[1]._forward_hooks
            and not decoder_layers(model)[1]._forward_pre_hooks)


def test_refusals(tmp_path):
    model, corpus, sae = tiny("gpt2"), ragged(), sae_at("blocks.1.hook_resid_pre")
    cfg = Config(output_dir=str(tmp_path))
    stranger = replace(corpus, tokens=corpus.tokens.clone().fill_(40))
    (tmp_path / "file").write_text("")
    for act in (lambda: collect_activations(model, {}, cfg, corpus),
                lambda: collect_activations(model, {1: sae}, cfg, stranger),
                lambda: collect_activations(model, {1: sae}, cfg, corpus, value_dtype="int8"),
                lambda: collect_activations(
                    model, {9: sae_at("blocks.9.hook_resid_pre")}, cfg, corpus, progress=False
                ), lambda: collect_activations(
                    model, {1: sae}, cfg.replace(output_dir=str(tmp_path / "file" / "below")),
                    corpus, progress=False
                )):
        with pytest.raises(InputError, match=r"\A[^\n]+[.;][^\n]*\Z"): act()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0 or os.name == "nt", reason="root may write anywhere")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="could not be written"):
        collect_activations(tiny("gpt2"), {1: sae_at("blocks.1.hook_resid_pre")},
                            Config(output_dir=str(tmp_path)), ragged(), progress=False)


def full_store(path, width: int = 70_000) -> ActivationStore:
    corpus = ragged(4)
    active = torch.zeros(corpus.n_tokens, width)
    active[torch.arange(corpus.n_tokens), torch.arange(corpus.n_tokens) * 997 % width] = 2.0
    active[3, width - 1] = 5.0
    with write_store(path, corpus, {2: ("blocks.2.hook_resid_pre", width)}) as writers:
        writers[2].add(firings_of(active))
    return ActivationStore.open(path)


def test_wide_sae_needs_four_bytes(tmp_path):
    store = full_store(tmp_path / "wide.h5")
    assert store.csr(2)[3, 69_999] == 5 and store.statistics(2)["count"].sum() == store.csr(2).nnz
    with h5py.File(store.path) as file: assert file["layer_2/indices"].dtype == np.uint32
    with h5py.File(full_store(tmp_path / "narrow.h5", 65_536).path) as file:
        assert file["layer_2/indices"].dtype == np.uint16


@pytest.mark.parametrize("damage", ["indices", "indptr", "shorter", "width", "format", "config",
                                    "layer", "truncated", "text"])
def test_damaged_stores_are_refused_in_one_sentence(tmp_path, damage):
    """Files from elsewhere: whatever is wrong with one, it is an InputError of one line, on opening
    or on reading, and never a wrong matrix."""
    path = full_store(tmp_path / "store.h5", 50).path
    if damage == "truncated": path.write_bytes(path.read_bytes()[:3000])
    elif damage == "text": path.write_text("hello")
    else:
        with h5py.File(path, "r+") as file:
            group = file["layer_2"]
            if damage == "indices": group["indices"][0] = 60
            elif damage == "indptr": group["indptr"][1] = 10**12
            elif damage == "shorter": group["values"].resize(3, axis=0)
            elif damage == "width": group.attrs["width"] = 10
            elif damage == "format": file.attrs["format"] = "something"
            elif damage == "config": file.attrs["config"] = "{"
            elif damage == "layer": del file["layer_2"]
    with pytest.raises(InputError, match=rf"\A[^\n]*{re.escape(path.name)}[^\n]*\Z"):
        ActivationStore.open(path).csr(2)


def test_sums_do_not_depend_on_the_cut():
    values = torch.randn(100, 7).relu() * torch.tensor([0.0, 1, 1e-3, 1e3, 1, 1, 1])
    whole, parts = FeatureSums(7), FeatureSums(7)
    for sums, pieces in ((whole, [values]), (parts, values.split([1, 0, 40, 59]))):
        for piece in pieces:
            fired = firings_of(piece)
            sums.add(fired, -fired.value)
    for name, expected in whole.summary().items():
        np.testing.assert_allclose(parts.summary()[name], expected, rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(whole.summary()["std"][3],
                               values[:, 3][values[:, 3] > 0].double().std(correction=0), rtol=1e-9)


def test_negative_activations_fire(tmp_path):
    "Some SAEs have signed activations; a feature fires when it is not zero."
    corpus = ragged(3)
    active = torch.where(
        torch.rand(corpus.n_tokens, 5, generator=torch.Generator().manual_seed(0)) < 0.3, -1.5, 0.0
    )
    with write_store(
        tmp_path / "signed.h5", corpus, {0: ("blocks.0.hook_resid_pre", 5)}
    ) as writers:
        writers[0].add(firings_of(active))
    store = ActivationStore.open(tmp_path / "signed.h5")
    np.testing.assert_array_equal(store.statistics(0)["count"], (active != 0).sum(0))
    assert (store.statistics(0)["max"][store.statistics(0)["count"] > 0] == -1.5).all()
