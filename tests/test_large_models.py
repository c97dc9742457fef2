"""Models and dictionaries that do not fit the device at once: SAEs on a shelf, blocks that visit.
Measured so, every number is the same bit for bit as with everything in memory."""
import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from sae_lens import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.sae import SAEMetadata
from transformers import AutoModelForCausalLM, Gemma2Config

from feature_interaction_graph import Config, collect_activations
from feature_interaction_graph.engine.corpus import Corpus, as_corpus
from feature_interaction_graph.engine.encoders import FeatureReader, put_on_shelf, sae_hook_point
from feature_interaction_graph.engine.large_models import block_window, let_visit
from feature_interaction_graph.engine.memory import weight_bytes
from feature_interaction_graph.engine.residuals import clean_residuals
from feature_interaction_graph.hosts.saes import load_saes_by_id
from feature_interaction_graph.interactions import clamp_measure

SMALL = dict(num_hidden_layers=6, hidden_size=96, intermediate_size=384, num_attention_heads=4,
             num_key_value_heads=2, head_dim=24, vocab_size=300, sliding_window=8,
             query_pre_attn_scalar=24)
# Gemma-2-2B's width, heads and MLP: 311 MB a block, four of its 26, a small vocabulary
WIDE = dict(num_hidden_layers=4, vocab_size=1000)
SEQUENCES, LENGTH = 40, 12


def gemma(shape: dict) -> torch.nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(Gemma2Config(**shape)).eval().requires_grad_(False)


def text(shape: dict) -> Corpus:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, shape["vocab_size"], (SEQUENCES, LENGTH), generator=generator)
    return as_corpus(tokens, lengths=torch.full((SEQUENCES,), LENGTH))


def write_saes(folder: Path, model: torch.nn.Module, layers: range, d_sae: int,
               corpus: Corpus) -> dict[int, str]:
    "Random SAEs that fire on about a twentieth of the tokens; their ids by layer."
    names = {layer: f"blocks.{layer}.hook_resid_post" for layer in layers}
    streams = clean_residuals(model, corpus.tokens[:16], list(names.values()))
    for layer, name in names.items():
        rows = streams[name].flatten(0, 1)
        config = JumpReLUSAEConfig(d_in=rows.shape[1], d_sae=d_sae, apply_b_dec_to_input=True,
                                   metadata=SAEMetadata(hook_name=name, model_name="random"))
        sae = JumpReLUSAE(config).requires_grad_(False)
        sae.W_dec.normal_(generator=torch.Generator().manual_seed(layer))
        sae.W_dec /= sae.W_dec.norm(dim=-1, keepdim=True)
        sae.W_enc.copy_(sae.W_dec.T)
        sae.b_dec.copy_(rows.mean(0))
        sae.b_enc.zero_()
        pre = (rows - sae.b_dec) @ sae.W_enc
        sae.threshold.copy_(pre.quantile(0.95, dim=0).clamp(min=1e-3))
        sae.save_model(folder / name)
    return names


def sources_of(saes: dict, model: torch.nn.Module, corpus: Corpus, n: int) -> list:
    "The first `n` features of the first layer that fire in a dozen sequences."
    layer = min(saes)
    name = sae_hook_point(saes[layer]).name
    active = FeatureReader(saes[layer]).read(clean_residuals(model, corpus.tokens, [name])[name])[1]
    often = ((active != 0).any(1).sum(0) >= 12).nonzero()[:, 0]
    return [(layer, int(feature)) for feature in often[:n]]


def same(ours: dict, theirs: dict) -> bool:
    "Whether two sets of columns agree in every bit."
    return ours.keys() == theirs.keys() and all(
        np.array_equal(ours[name], theirs[name], equal_nan=ours[name].dtype.kind == "f")
        for name in ours)


def check(folder: Path, shape: dict, layers: range, d_sae: int, keeps: list) -> None:
    model, corpus = gemma(shape), text(shape)
    names = write_saes(folder, model, layers, d_sae, corpus)
    saes = load_saes_by_id(str(folder), names)
    sources = sources_of(saes, model, corpus, 6)
    assert len(sources) == 6
    how = dict(n_samples=8, placebo=4, progress=False, horizon=1)
    plain = [clamp_measure(model, saes, sources, corpus, keep=keep, **how) for keep in keeps]

    shelf = put_on_shelf(saes, "cpu", budget=0)
    visits = let_visit(model, "cpu", block_window(saes))
    for keep, before in zip(keeps, plain, strict=True):
        again = clamp_measure(model, saes, sources, corpus, keep=keep, **how)
        assert len(before) and same(again.columns, before.columns)
    one = next(iter(saes.values()))
    assert 0 < shelf.most <= 4 * (one.W_enc.numel() + one.W_dec.numel())
    assert shelf.n_taken > len(saes)
    # every target layer and one that visits: what is below ran, one block at a time; above nothing,
    # but for the few rows by which an engine proves itself
    first, last = min(block_window(saes)), max(block_window(saes))
    assert set(range(first)) <= visits.came.keys()
    assert visits.most == weight_bytes(model.model.layers[0])
    proofs = visits.came.get(last + 1, 0)
    assert all(visits.came[block] > proofs for block in range(first))


def test_small_gemma_measured_from_a_shelf_is_the_same(tmp_path: Path) -> None:
    check(tmp_path, SMALL, range(2, 5), 200, ["all", 20])


@pytest.mark.slow
def test_wide_gemma_measured_from_a_shelf_is_the_same(tmp_path: Path) -> None:
    check(tmp_path, WIDE, range(1, 3), 4096, [50])


def test_a_store_collected_from_a_shelf_is_the_same(tmp_path: Path) -> None:
    "Importance by frequency asks for no logits: the blocks above the last SAE never come."
    model, corpus = gemma(SMALL), text(SMALL)
    saes = load_saes_by_id(str(tmp_path), write_saes(tmp_path, model, range(1, 4), 100, corpus))
    plain_model = copy.deepcopy(model)
    visits = let_visit(model, "cpu", block_window(saes))
    found = []
    for name, one in (("plain", plain_model), ("shelf", model)):
        if name == "shelf": put_on_shelf(saes, "cpu", budget=0)
        cfg = Config(output_dir=str(tmp_path / name), importance_method="frequency", batch_size=8)
        found.append(collect_activations(one, saes, cfg, corpus, progress=False))
    assert all((found[0].csr(layer) != found[1].csr(layer)).nnz == 0 for layer in saes)
    assert visits.came.keys() == {0, 1} and found[0].csr(2).nnz
    cfg = cfg.replace(output_dir=str(tmp_path / "gradients"), importance_method="gradient")
    collect_activations(model, saes, cfg, corpus, progress=False)
    assert visits.came.keys() == {0, 1, 4, 5}                  # a gradient asks for logits


@pytest.mark.slow
def test_the_gpu_script_runs_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    import gpu
    monkeypatch.setattr(gpu, "packed_file", lambda *names: None)       # its own weights alone
    numbers = gpu.main(["--device", "cpu", "--small", "--sources", "6"])
    assert max(numbers["exact"].values()) < 1e-5 and not numbers["left_out"]
    assert numbers["shelf"]["equal"] and numbers["clamping"]["pairs"] == 6 * 3 * 512
    assert numbers["hooked"]["ratio"] > 0
