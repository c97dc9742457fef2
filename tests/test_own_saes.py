"""SAEs that are the user's own: from arrays, from the folders of other libraries, several in one
block. References are plain forward passes with hooks, and the formulas of those libraries."""
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from sae_lens import JumpReLUSAE, JumpReLUSAEConfig, TopKSAE, TopKSAEConfig
from sae_lens.saes.sae import SAEMetadata
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from feature_interaction_graph import (
    Config, InputError, clamp_measure, import_sae, number_saes, sae_from_weights
)
from feature_interaction_graph.engine.encoders import FeatureReader, hook_names, sae_hook_point
from feature_interaction_graph.hosts.saes import check_saes_against_model
from feature_interaction_graph.loading import load_saes

WIDTH, N_LATENTS, N_LAYERS = 24, 40, 4


@pytest.fixture(scope="module")
def tiny() -> GPT2LMHeadModel:
    torch.manual_seed(1)
    model = GPT2LMHeadModel(GPT2Config(
        n_layer=N_LAYERS, n_embd=WIDTH, n_head=4, n_positions=32, vocab_size=50, bos_token_id=0,
        eos_token_id=0, initializer_range=0.3)).eval()
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.randint(1, 50, (6, 12), generator=torch.Generator().manual_seed(2))


def arrays(seed: int, n_latents: int = N_LATENTS) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)
    return {"W_enc": normal(WIDTH, n_latents) / 4, "b_enc": normal(n_latents) / 4,
            "W_dec": normal(n_latents, WIDTH) / 4, "b_dec": normal(WIDTH) / 4}


def own_sae(hook: str, seed: int = 0, **how: object):
    return sae_from_weights(**{name: array.float() for name, array in arrays(seed).items()},
                            hook=hook, **how)


def part_of(model: GPT2LMHeadModel, hook: str) -> nn.Module:
    "The module of GPT-2 whose output stands at a hook point."
    _, layer, kind = hook.split(".", 2)
    block = model.transformer.h[int(layer)]
    return {"hook_attn_out": block.attn, "mlp.hook_in": block.ln_2, "mlp.hook_post": block.mlp.act,
            "hook_mlp_out": block.mlp, "hook_resid_post": block}[kind]


@contextmanager
def hooked(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    def replace(module: nn.Module, args: tuple, output: object) -> object:
        whole = isinstance(output, Tensor)
        changed = change(output if whole else output[0])
        return changed if whole else (changed, *output[1:])
    handle = module.register_forward_hook(replace)
    try: yield
    finally: handle.remove()


def stream_at(model: GPT2LMHeadModel, tokens: Tensor, hook: str) -> Tensor:
    seen: list[Tensor] = []
    def keep(stream: Tensor) -> Tensor:
        seen.append(stream)
        return stream
    with hooked(part_of(model, hook), keep): model(tokens)
    return seen[0]


def plain_effects(model, tokens, hook, unit, clean, target, doses) -> Tensor:
    """Mean over all places where `clean`, `[n_seq, length]`, is not 0 of [f_j(high) - f_j(low)] /
    (high - low), one hooked pass for each place and dose."""
    found, reads_at = [], sae_hook_point(target).name
    for sequence, position in clean.nonzero().tolist():
        arms = []
        for dose in doses:
            step = (dose - clean[sequence, position]) * unit
            def clamp(stream: Tensor, at: int = position, step: Tensor = step) -> Tensor:
                changed = stream.clone()
                changed[0, at] += step
                return changed
            with hooked(part_of(model, hook), clamp):
                there = stream_at(model, tokens[sequence:sequence + 1], reads_at)
            arms.append(target.encode(there[0, position]))
        found.append((arms[1] - arms[0]) / (doses[1] - doses[0]))
    return torch.stack(found).mean(0)


ALL = {"n_samples": 10_000, "max_per_sequence": 100, "progress": False}


# -- several SAEs in one block

SITES = ("blocks.2.hook_attn_out", "blocks.2.hook_mlp_out", "blocks.2.hook_resid_post",
         "blocks.3.hook_mlp_out")


@pytest.fixture(scope="module")
def sites() -> dict:
    return number_saes({name: own_sae(name, seed) for seed, name in enumerate(SITES[::-1])})


def test_sites_are_measured_where_their_saes_read(tiny, tokens, sites):
    assert hook_names(sites) == dict(enumerate(SITES))
    doses = (0.5, 2.0)
    for number in (0, 1, 2):
        source = sites[number]
        active = source.encode(stream_at(tiny, tokens, SITES[number]))
        feature = int((active != 0).sum((0, 1)).argmax())
        table = clamp_measure(tiny, sites, [(number, feature)], tokens, doses=doses,
                              **ALL).to_pandas()
        assert set(table.tgt_layer) == set(range(number + 1, 4))       # attention -> MLP -> stream
        for later in range(number + 1, 4):
            rows = table[table.tgt_layer == later].sort_values("tgt_feature")
            expected = plain_effects(tiny, tokens, SITES[number], source.W_dec[feature],
                                     active[..., feature], sites[later], doses)
            np.testing.assert_allclose(rows.strength, expected, atol=1e-5)
            assert float(expected.abs().max()) > 0.01


def test_saes_may_come_in_a_list_or_by_hook_name(tiny, tokens, sites):
    from feature_interaction_graph import build_interaction_graph
    by_name = {name: sites[number] for number, name in enumerate(SITES)}
    active = sites[0].encode(stream_at(tiny, tokens, SITES[0]))
    source = (0, int((active != 0).sum((0, 1)).argmax()))
    table = clamp_measure(tiny, sites, [source], tokens, doses=(0.5, 5.0), **ALL)
    for saes in (by_name, list(by_name.values())[::-1]):
        again = clamp_measure(tiny, saes, [source], tokens, doses=(0.5, 5.0), **ALL)
        np.testing.assert_array_equal(again.columns["strength"],
                                      table.columns["strength"])
    assert table.meta["hook_points"] == {str(number): name for number, name in enumerate(SITES)}
    G = build_interaction_graph(table, Config(significance_level=0.2))
    places = {(facts["layer"], facts["hook_point"]) for _, facts in G.nodes(data=True)}
    assert len(places) > 1 and places <= set(enumerate(SITES))
    alone = clamp_measure(tiny, [sites[0], sites[3]], [(2, 3)], tokens, **ALL)
    assert "hook_points" not in alone.meta and set(alone.columns["tgt_layer"]) == {3}


def test_numbers_are_blocks_where_every_block_has_one(tiny):
    each = number_saes([own_sae(f"blocks.{layer}.hook_mlp_out") for layer in (3, 1)])
    assert hook_names(each) == {1: "blocks.1.hook_mlp_out", 3: "blocks.3.hook_mlp_out"}
    check_saes_against_model(each, tiny)


def test_sites_suit_the_model_and_misnumbered_ones_do_not(tiny, sites):
    check_saes_against_model(sites, tiny)
    check_saes_against_model({number: sites[number] for number in (1, 2)}, tiny)
    turned = {number: sites[3 - number] for number in sites}
    with pytest.raises(InputError, match="number_saes"): check_saes_against_model(turned, tiny)
    with pytest.raises(InputError, match="give it as layer 3"):
        check_saes_against_model({0: sites[3]}, tiny)


def test_a_source_after_its_targets_is_refused(tiny, tokens, sites):
    with pytest.raises(InputError, match="no target layer comes after source layer 2"):
        clamp_measure(tiny, sites, [(2, 0)], tokens, target_layers=[0, 1], progress=False)


# -- from arrays

@pytest.mark.parametrize("how", [{}, {"threshold": 0.2}, {"k": 5}], ids=["relu", "jump", "topk"])
@pytest.mark.parametrize("subtracted", [False, True])
def test_reader_reads_what_the_arrays_say(how, subtracted):
    x, mean = torch.randn(30, WIDTH, dtype=torch.float64), torch.randn(WIDTH, dtype=torch.float64)
    own = arrays(5)
    sae = sae_from_weights(**own, hook="blocks.0.hook_resid_post", mean=mean, **how,
                           apply_b_dec_to_input=subtracted)
    pre = (x - mean - subtracted * own["b_dec"]) @ own["W_enc"] + own["b_enc"]
    expected = pre.relu() * (pre > how.get("threshold", 0.0))
    if "k" in how: expected *= pre >= pre.topk(how["k"]).values[:, -1:]
    some = torch.tensor([3, 0, 17])
    read, active = FeatureReader(sae, some).read(x.float())
    torch.testing.assert_close(active, expected[:, some].float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(read, pre[:, some].float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(FeatureReader(sae, some).decoder, own["W_dec"][some].float())


def test_a_user_s_arrays_are_not_changed_and_not_shared():
    own = {name: array.float().numpy() for name, array in arrays(5).items()}
    copies = {name: array.copy() for name, array in own.items()}
    sae = sae_from_weights(**own, hook="blocks.0.hook_resid_post", mean=0.5, scale=2.0)
    sae.W_dec.data.zero_()
    for name, array in own.items(): np.testing.assert_array_equal(array, copies[name])


def test_it_is_saved_and_loaded_as_any_other(tmp_path, tiny):
    own_sae("blocks.1.hook_mlp_out", 3, threshold=0.1, model_name="tiny").save_model(
        tmp_path / "blocks.1.hook_mlp_out")
    saes = load_saes(Config(sae_release=str(tmp_path)), tiny)
    assert saes[1].cfg.architecture() == "jumprelu"
    torch.testing.assert_close(saes[1].W_enc.double(), arrays(3)["W_enc"], atol=1e-6, rtol=1e-6)


# -- folders of other libraries, found by the loader

def dictionary(folder: Path, layer: int, kind: str, state: dict[str, Tensor], **more) -> None:
    folder.mkdir(parents=True)
    torch.save(state, folder / "ae.pt")
    trainer = {"dict_class": kind, "activation_dim": WIDTH, "dict_size": N_LATENTS, "layer": layer,
               "lm_name": "tiny", **more}
    (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"io": "out"}}))


def test_a_folder_of_dictionary_learning_is_a_release(tmp_path, tiny):
    for layer in (0, 2):
        own = arrays(layer)
        dictionary(tmp_path / f"resid_post_layer_{layer}" / "trainer_0", layer, "BatchTopKSAE", {
            "encoder.weight": own["W_enc"].T.contiguous(), "encoder.bias": own["b_enc"],
            "decoder.weight": own["W_dec"].T.contiguous(), "b_dec": own["b_dec"],
            "k": torch.tensor(4, dtype=torch.int), "threshold": torch.tensor(0.3)
        }, submodule_name=f"resid_post_layer_{layer}", k=4)
    saes = load_saes(Config(sae_release=str(tmp_path)), tiny)
    assert hook_names(saes) == {0: "blocks.0.hook_resid_post", 2: "blocks.2.hook_resid_post"}
    x = torch.randn(30, WIDTH, dtype=torch.float64)
    pre = ((x - own["b_dec"]) @ own["W_enc"] + own["b_enc"]).relu()         # batch_top_k.py, encode
    torch.testing.assert_close(saes[2].encode(x.float()), (pre * (pre > 0.3)).float(), atol=1e-5,
                               rtol=1e-5)


def test_a_folder_of_sparsify_is_a_release(tmp_path, tiny):
    own = arrays(7)
    for hookpoint in ("h.1.mlp", "h.3.mlp", "wte"):
        place = tmp_path / hookpoint
        place.mkdir()
        (place / "cfg.json").write_text(json.dumps(
            {"d_in": WIDTH, "num_latents": 0, "expansion_factor": 2, "k": 4, "activation": "topk",
             "normalize_decoder": True, "transcode": False, "skip_connection": False}))
        save_file({"encoder.weight": own["W_enc"].T.float().contiguous(),
                   "encoder.bias": own["b_enc"].float(), "W_dec": own["W_dec"].float(),
                   "b_dec": own["b_dec"].float()}, place / "sae.safetensors")
    saes = load_saes(Config(sae_release=str(tmp_path)), tiny)
    assert hook_names(saes) == {1: "blocks.1.hook_mlp_out", 3: "blocks.3.hook_mlp_out"}
    x = torch.randn(30, WIDTH, dtype=torch.float64)
    pre = ((x - own["b_dec"]) @ own["W_enc"] + own["b_enc"]).relu()       # sparse_coder.py, encode
    expected = pre * (pre >= pre.topk(4).values[:, -1:])
    torch.testing.assert_close(saes[3].encode(x.float()), expected.float(), atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match="does not say at which point"):
        import_sae(tmp_path / "wte")
    assert sae_hook_point(import_sae(tmp_path / "wte", hook="blocks.0.hook_resid_pre")).layer == 0


def test_a_repository_of_dictionary_learning_is_a_release(tmp_path, tiny, monkeypatch):
    from huggingface_hub import constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository, own = tmp_path / "hub" / "models--me--tiny-dictionaries", arrays(2)
    dictionary(repository / "snapshots" / ("0" * 40) / "run" / "trainer_3", 2, "AutoEncoder", {
        "encoder.weight": own["W_enc"].T.contiguous(), "encoder.bias": own["b_enc"],
        "decoder.weight": own["W_dec"].T.contiguous(), "bias": own["b_dec"]})
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    saes = load_saes(Config(sae_release="me/tiny-dictionaries"), tiny)
    assert hook_names(saes) == {2: "blocks.2.hook_resid_post"}
    x = torch.randn(30, WIDTH, dtype=torch.float64)
    expected = ((x - own["b_dec"]) @ own["W_enc"] + own["b_enc"]).relu()    # dictionary.py
    torch.testing.assert_close(saes[2].encode(x.float()), expected.float(), atol=1e-5, rtol=1e-5)


def test_a_cross_layer_transcoder_is_refused_by_name():
    from feature_interaction_graph.hosts.saes import load_sae
    with pytest.raises(InputError, match="is a cross-layer transcoder, whose latents write into"):
        load_sae("mntss-gemma-2-2b-2.5m-clt-as-per-layer", "layer_0")


# -- old releases of sae-lens

@pytest.mark.parametrize("more, kind", [
    ({"activation_fn_str": "relu"}, "standard"),
    ({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}}, "topk"),
    ({"activation_fn": "topk", "activation_fn_kwargs": {"k": 3}, "architecture": "standard"},
     "topk"),
    ({"activation_fn_str": "tanh-relu"}, "names the activation function 'tanh-relu'"),
    ({"activation_fn_str": "leaky_relu"}, "names the activation function 'leaky_relu'"),
    ({"activation_fn_str": "topk"}, "does not say one k"),
    ({"activation_fn_str": "topk", "activation_fn_kwargs": {}}, "does not say one k"),
    ({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3, "signed": True}},
     "nothing else about the choice"),
    ({"architecture": "topk", "activation_fn_kwargs": {"k": 3}, "sae_lens_version": "6.5.0",
      "metadata": {"sae_lens_version": "6.5.0", "hook_name": "blocks.1.hook_mlp_out"}},
     "says k = 3, but is read with k = 100")
])
def test_flat_settings_are_read_by_their_activation_function(tmp_path, more, kind):
    own = arrays(9)
    place = tmp_path / "blocks.1.hook_mlp_out"
    place.mkdir()
    save_file({name: array.float() for name, array in own.items()},
              place / "sae_weights.safetensors")
    (place / "cfg.json").write_text(json.dumps(
        {"d_in": WIDTH, "d_sae": N_LATENTS, "dtype": "float32", "apply_b_dec_to_input": False,
         "hook_name": "blocks.1.hook_mlp_out", "normalize_activations": "none",
         "prepend_bos": True} | more))
    if kind not in ("standard", "topk"):
        with pytest.raises(InputError, match=kind):
            load_saes(Config(sae_release=str(tmp_path)))
        return
    sae = load_saes(Config(sae_release=str(tmp_path)))[1]
    x = torch.randn(30, WIDTH, dtype=torch.float64)
    pre = (x @ own["W_enc"] + own["b_enc"]).relu()
    expected = pre * (pre >= pre.topk(3).values[:, -1:]) if kind == "topk" else pre
    torch.testing.assert_close(sae.encode(x.float()), expected.float(), atol=1e-5, rtol=1e-5)
    assert sae.cfg.architecture() == kind


# -- transcoders, neurons, heads

@pytest.mark.parametrize("how", [{}, {"threshold": 0.3}, {"k": 6}], ids=["relu", "jump", "topk"])
def test_a_transcoder_s_latents_write_where_it_writes(tiny, tokens, how):
    across = own_sae("blocks.1.mlp.hook_in", 4, hook_out="blocks.1.hook_mlp_out", **how)
    later = own_sae("blocks.2.mlp.hook_in", 5, hook_out="blocks.2.hook_mlp_out", **how)
    stream = own_sae("blocks.1.hook_resid_post", 6)
    saes = number_saes([across, later, stream])
    assert hook_names(saes) == {0: "blocks.1.mlp.hook_in", 1: "blocks.1.hook_resid_post",
                                2: "blocks.2.mlp.hook_in"}
    check_saes_against_model(saes, tiny)
    active, doses = across.encode(stream_at(tiny, tokens, "blocks.1.mlp.hook_in")), (0.0, 1.5)
    feature = int((active != 0).sum((0, 1)).argmax())
    table = clamp_measure(tiny, saes, [(0, feature)], tokens, doses=doses, **ALL).to_pandas()
    for number in (1, 2):
        rows = table[table.tgt_layer == number].sort_values("tgt_feature")
        expected = plain_effects(tiny, tokens, "blocks.1.hook_mlp_out", across.W_dec[feature],
                                 active[..., feature], saes[number], doses)
        np.testing.assert_allclose(rows.strength, expected, atol=1e-5)
        assert float(expected.abs().max()) > 0.01


def test_what_asks_an_sae_to_write_where_it_reads_refuses_a_transcoder(tiny, tokens):
    from feature_interaction_graph import within_layer_measure
    from feature_interaction_graph.control.contexts import ContextRuns, choose_contexts
    from feature_interaction_graph.control.contexts import feature_ranges
    from feature_interaction_graph.control.clamps import Clamp, layer_clamps
    from feature_interaction_graph.engine.corpus import as_corpus
    saes = number_saes([own_sae("blocks.1.mlp.hook_in", 4, hook_out="blocks.1.hook_mlp_out"),
                        own_sae("blocks.2.hook_resid_post", 5)])
    ranges = feature_ranges(tiny, saes, as_corpus(tokens), min_firings=1, progress=False)
    often = int(np.argmax(ranges.firings(1)))
    runs = ContextRuns(tiny, saes, choose_contexts(ranges, (1, often), 4), 1, {2: np.arange(3)})
    (group, _), = layer_clamps(saes, [Clamp(1, often, 1.0)]).values()
    with pytest.raises(InputError, match="a transcoder's way"):
        runs.run(np.arange(2), {1: (group, torch.ones(2, 1))})
    block = {1: own_sae("blocks.1.hook_resid_pre", 4, hook_out="blocks.1.hook_resid_post")}
    with pytest.raises(InputError, match="cannot be pushed at"):
        within_layer_measure(tiny, block, [(1, 0)], tokens, progress=False)


def test_placebo_pushes_stand_where_a_transcoder_writes(tiny, tokens):
    saes = number_saes([own_sae("blocks.1.mlp.hook_in", 4, hook_out="blocks.1.hook_mlp_out"),
                        own_sae("blocks.2.hook_resid_post", 5)])
    table = clamp_measure(tiny, saes, [(1, 3)], tokens, placebo=16, **ALL).to_pandas()
    assert table.placebo_p_value.between(0, 1).all()


def test_a_neuron_is_set_before_the_output_matrix(tiny, tokens):
    from feature_interaction_graph.measurement.parts import neuron_dictionary
    saes = number_saes([neuron_dictionary(tiny, 1), own_sae("blocks.2.hook_resid_post", 5)])
    before, doses = stream_at(tiny, tokens, "blocks.1.mlp.hook_post"), (-1.0, 2.0)
    table = clamp_measure(tiny, saes, [(1, 7)], tokens, doses=doses, **ALL).to_pandas()
    row = tiny.transformer.h[1].mlp.c_proj.weight[7]
    expected = plain_effects(tiny, tokens, "blocks.1.hook_mlp_out", row, before[..., 7], saes[2],
                             doses)
    np.testing.assert_allclose(table.sort_values("tgt_feature").strength, expected, atol=1e-5)


def test_a_transcoder_is_checked_for_what_it_gives(tiny, tokens):
    from feature_interaction_graph.engine.corpus import as_corpus
    from feature_interaction_graph.hosts.fit import reconstruction_report
    block = tiny.transformer.h[1]
    neurons = block.mlp.c_fc                   # an exact linear transcoder: gelu of its own neurons
    rows = torch.cat(list(stream_at(tiny, tokens, "blocks.1.mlp.hook_in")))
    given = torch.cat(list(stream_at(tiny, tokens, "blocks.1.hook_mlp_out")))
    fitted = torch.linalg.lstsq((rows @ neurons.weight + neurons.bias).relu(), given).solution
    good = sae_from_weights(neurons.weight, neurons.bias, fitted, None, hook="blocks.1.mlp.hook_in",
                            hook_out="blocks.1.hook_mlp_out")
    wrong = sae_from_weights(neurons.weight, neurons.bias, fitted.flip(0), None,
                             hook="blocks.1.mlp.hook_in", hook_out="blocks.1.hook_mlp_out")
    corpus = as_corpus(tokens)
    (fit,), (misfit,) = (reconstruction_report(tiny, {1: sae}, corpus) for sae in (good, wrong))
    assert fit.fits and fit.explained_variance > 0.9 and not misfit.fits


def test_a_skip_connection_is_part_of_what_a_transcoder_gives():
    from feature_interaction_graph.hosts.fit import explained_variance
    from feature_interaction_graph.hosts.importers import sae_from_sparsify
    own, skip = arrays(3), torch.randn(WIDTH, WIDTH, dtype=torch.float64)
    state = {"encoder.weight": own["W_enc"].T, "encoder.bias": own["b_enc"], "W_dec": own["W_dec"],
             "b_dec": own["b_dec"], "W_skip": skip}
    config = {"d_in": WIDTH, "num_latents": N_LATENTS, "k": 5, "transcode": True,
              "skip_connection": True}
    sae = sae_from_sparsify(state, config, "layers.1.mlp")
    x = torch.randn(60, WIDTH, dtype=torch.float64)
    pre = (x @ own["W_enc"] + own["b_enc"]).relu()
    y = (pre * (pre >= pre.topk(5).values[:, -1:])) @ own["W_dec"] + own["b_dec"] + x @ skip.T
    assert explained_variance(sae, x, y)[0] > 1 - 1e-9 > explained_variance(sae, x, y - x)[0]


def test_a_reading_at_its_threshold_and_a_negative_one_are_zero():
    "As `encode` has it: only what exceeds a threshold fires, and of the k largest the positive."
    named = SAEMetadata(hook_name="blocks.1.hook_resid_pre")
    jumping = JumpReLUSAE(JumpReLUSAEConfig(d_in=4, d_sae=4, metadata=named))
    largest = TopKSAE(TopKSAEConfig(d_in=4, d_sae=4, k=3, metadata=named))
    for sae in (jumping.requires_grad_(False), largest.requires_grad_(False)):
        sae.W_enc.data, sae.W_dec.data = torch.eye(4), torch.eye(4)
        if sae is jumping: sae.threshold.data.fill_(1.0)
    row = torch.tensor([[1.0, 1.5, -0.5, -2.0]])
    assert FeatureReader(jumping).read(row)[1].tolist() == [[0.0, 1.5, 0.0, 0.0]]
    assert FeatureReader(largest).read(row)[1].tolist() == [[1.0, 1.5, 0.0, 0.0]]
    for sae in (jumping, largest):
        assert torch.equal(FeatureReader(sae).read(row)[1], sae.encode(row))
