"""Faults that feature-level and head-level tools have had, and that no other test would notice:
each test is one of them, under its own name."""
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from coordinate_saes import TOKENS, coordinates, random_model
from scipy import stats

from feature_interaction_graph import PromptPairs, activation_patching, attribute
from feature_interaction_graph.activations import collect_activations
from feature_interaction_graph.config import Config
from feature_interaction_graph.engine.corpus import as_corpus
from feature_interaction_graph.engine.hook_points import HookPoint, catch, decoder_layers, edit
from feature_interaction_graph.engine.statistics import adjust
from feature_interaction_graph.lenses.attention import attention_patterns
from feature_interaction_graph.lenses.logit_attribution import logit_attribution
from feature_interaction_graph.lenses.logit_lens import logit_lens
from feature_interaction_graph.lenses.probes import last_rows
from feature_interaction_graph.patching.edge_model import EdgeModel
from feature_interaction_graph.patching.edge_scores import score_edges
from feature_interaction_graph.patching.edge_search import gradient_ranking, greedy_ranking
from feature_interaction_graph.patching.paths import path_patching
from feature_interaction_graph.tracing.files import load_attribution, save_attribution
from feature_interaction_graph.tracing.pruning import prune_graph
from feature_interaction_graph.training.rows import sampled_activations
from feature_interaction_graph.training.saes import SaeSettings, new_sae, quality_report, train_saes

HOOKS = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")


@pytest.fixture(scope="module")
def model():
    return random_model("gpt2")


def pairs_of(n: int, length: int = 9, n_vocab: int = 97) -> PromptPairs:
    clean = torch.randint(3, n_vocab, (n, length), generator=torch.Generator().manual_seed(n))
    corrupted = clean.clone()
    corrupted[:, 4] = 3 + (clean[:, 4] + 7) % (n_vocab - 3)
    return PromptPairs(clean.tolist(), corrupted.tolist(), [5] * n, [9] * n)


def whole_passes(model, act) -> int:
    "How many sequences-at-once go through the embedding while `act` runs."
    seen = []
    embedding = model.get_input_embeddings()
    handle = embedding.register_forward_hook(lambda *call: seen.append(call[1]))
    try: act()
    finally: handle.remove()
    return len(seen)


# ---- what a question costs

def test_prompts_go_through_the_model_together(model):
    "Eight prompts are a batch, not a loop called one."
    pairs, fewer = pairs_of(8), pairs_of(4)
    for ask in (lambda asked: attention_patterns(model, list(asked.clean)),
                lambda asked: last_rows(model, asked), lambda asked: logit_lens(model, asked),
                lambda asked: logit_attribution(model, asked),
                lambda asked: activation_patching(model, asked, "head"),
                lambda asked: score_edges(EdgeModel(model, asked), "eap")):
        few = whole_passes(model, lambda ask=ask: ask(fewer))      # checks the model, once
        assert whole_passes(model, lambda ask=ask: ask(pairs)) <= few


def test_a_sweep_over_heads_is_no_pass_for_each_head(model):
    pairs, names = pairs_of(4), ["head 0.0"]
    alone = whole_passes(model, lambda: activation_patching(model, pairs, names))
    every = whole_passes(model, lambda: activation_patching(model, pairs, "head"))
    assert every <= alone + 1
    one = whole_passes(model, lambda: path_patching(model, pairs, ["head 0.0"], ["logits"]))
    assert whole_passes(model, lambda: path_patching(model, pairs, "head", ["logits"])) <= one


def test_elimination_keeps_more_than_nothing(model):
    "Losses are not all 0, and every edge has a place."
    on = EdgeModel(model, pairs_of(2))
    for ranking in (greedy_ranking, gradient_ranking):
        order, losses = ranking(on, factor=0.5)
        assert np.abs(losses[:3]).min() > 1e-3 and len(set(order)) == len(on.grid)


def test_no_derivatives_are_kept_where_none_were_asked_for(model):
    "No cache holds a graph of the whole pass, no parameter is left with a gradient."
    pairs = pairs_of(4)
    trained = random_model("gpt2").requires_grad_(True)
    for weights in (model, trained):
        on = EdgeModel(weights, pairs)
        kept = [on.lent, on.base, on.whole, on.empty, *on.entering, *on.runs._streams.values(),
                *attention_patterns(weights, TOKENS).values()]
        assert not any(tensor.requires_grad for tensor in kept)
        score_edges(on, "eap")
        attribute(weights, {0: coordinates(HOOKS[0])}, TOKENS, targets=[5])
        two = {0: coordinates("blocks.0.hook_resid_pre"), 1: coordinates(HOOKS[1])}
        attribute(weights, two, TOKENS, targets=[5])              # through several blocks at once
        assert all(parameter.grad is None for parameter in weights.parameters())
    assert all(parameter.requires_grad for parameter in trained.parameters())


# ---- which block, which place

def test_block_1_is_not_block_10():
    "Names are read, not searched for: a model of twelve blocks."
    from transformers import AutoModelForCausalLM, GPT2Config
    torch.manual_seed(0)
    deep = AutoModelForCausalLM.from_config(GPT2Config(
        n_layer=12, n_embd=16, n_head=2, n_positions=16, vocab_size=97)).eval()
    with torch.no_grad(): states = deep(TOKENS, output_hidden_states=True).hidden_states
    pairs = PromptPairs(TOKENS.tolist(), [[*TOKENS[0, :-1].tolist(), 4]], [5], [9])
    names = [f"blocks.{layer}.hook_resid_pre" for layer in (1, 10, 11)]
    rows = last_rows(deep, pairs, names)
    assert list(rows) == names
    for name, layer in zip(names, (1, 10, 11), strict=True):
        np.testing.assert_allclose(rows[name][0], states[layer][0, -1], atol=1e-5)
    touched = []
    def note(stream):
        touched.append(stream.shape)
        return stream
    with edit(decoder_layers(deep), HookPoint("resid_pre", 1), note): deep(TOKENS)
    assert len(touched) == 1


def test_every_place_of_a_block_is_read_and_is_its_own(model):
    "Before and after attention and MLP, none missing, each what the block's own module has there."
    kinds = ("resid_pre", "attn_out", "resid_mid", "mlp_in", "post", "mlp_out", "resid_post")
    block = model.transformer.h[1]
    parts = {"attn_out": block.attn, "mlp_in": block.ln_2, "post": block.mlp.act,
             "mlp_out": block.mlp, "resid_post": block}
    own = {}
    handles = [part.register_forward_hook(lambda module, args, output, kind=kind: own.update(
        {kind: output[0] if isinstance(output, tuple) else output}))
        for kind, part in parts.items()]
    points = [HookPoint(kind, 1) for kind in kinds]
    with torch.no_grad(), catch(decoder_layers(model), points) as caught: model(TOKENS)
    for handle in handles: handle.remove()
    for kind, value in own.items():
        torch.testing.assert_close(caught[HookPoint(kind, 1).name], value, atol=1e-5, rtol=1e-5)
    mid = caught["blocks.1.hook_resid_pre"] + caught["blocks.1.hook_attn_out"]
    torch.testing.assert_close(caught["blocks.1.hook_resid_mid"], mid, atol=1e-5, rtol=1e-5)


# ---- means

def test_means_over_firings_count_each_firing_once(model, tmp_path):
    "Not once more for the width; and features that are silent everywhere are no error."
    saes = {0: coordinates(HOOKS[0])}
    saes[0].W_enc.data[:, 3] = 0                                    # never fires
    tokens = torch.randint(3, 97, (3, 9), generator=torch.Generator().manual_seed(0))
    cfg = Config(output_dir=str(tmp_path), importance_method="frequency")
    store = collect_activations(model, saes, cfg, as_corpus(tokens), progress=False)
    dense = store.csr(0).toarray()
    found, fired = store.statistics(0), dense != 0
    assert not fired[:, 3].any() and found["count"][3] == 0
    some = fired.any(0)
    expected = dense.sum(0)[some] / fired.sum(0)[some]
    np.testing.assert_allclose(found["mean"][some], expected, rtol=1e-3)
    np.testing.assert_array_equal(found["count"], fired.sum(0))


def test_adjusted_p_values_never_fall_behind_smaller_ones():
    random = np.random.default_rng(0)
    for _ in range(20):
        p = random.beta(0.5, 1, size=40)
        q = adjust(p)
        assert (np.diff(q[np.argsort(p)]) >= 0).all() and (q >= p).all()
        np.testing.assert_allclose(q, stats.false_discovery_control(p))


# ---- graphs of a prompt

def test_inhibition_is_in_the_graph_its_cut_and_its_file(model, tmp_path):
    "Negative edges are not filtered; the first target needs no edge to be there before it."
    saes = {layer: coordinates(hook) for layer, hook in enumerate(HOOKS)}
    graph = attribute(model, saes, TOKENS, targets=[5])
    cut = prune_graph(graph)
    again = load_attribution(save_attribution(cut, tmp_path / "graph.json"))
    for each in (graph, cut, again):
        share = float((each.edges.data < 0).mean())
        assert 0.2 < share < 0.8 and len(each.nodes.of("logit")) == 1
    links = json.loads((tmp_path / "graph.json").read_text())["links"]
    assert sum(link["weight"] < 0 for link in links) == int((cut.edges.data < 0).sum())


def test_memory_of_a_graph_follows_what_is_active(model):
    "No array has a place for every feature of the dictionary at every node."
    saes = {layer: coordinates(hook) for layer, hook in enumerate(HOOKS)}
    graph = attribute(model, saes, TOKENS, targets=[5])
    n, every = len(graph.nodes), sum(sae.cfg.d_sae for sae in saes.values()) * TOKENS.shape[1]
    assert len(graph.nodes.of("feature")) < every
    assert max(value.size for value in vars(graph).values() if isinstance(value, np.ndarray)) <= 3*n
    assert graph.edges.nnz < n * n


# ---- SAEs

def test_training_takes_texts_of_any_length_and_leaves_padding_out(model):
    lengths = torch.tensor([9, 4, 7, 9])
    tokens = torch.randint(3, 97, (4, 9), generator=torch.Generator().manual_seed(0))
    corpus = as_corpus(tokens, lengths=lengths)
    rows = sampled_activations(model, corpus, HOOKS[0])
    with torch.no_grad():
        whole = model(tokens, output_hidden_states=True).hidden_states[1]
    inside = corpus.sample_mask()
    assert len(rows) == int(inside.sum()) and not inside[1, 4:].any()
    torch.testing.assert_close(rows, whole[inside], atol=1e-5, rtol=1e-5)
    settings = SaeSettings(width=16, k=4, steps=5, batch_size=8, progress=False)
    sae, = train_saes(model, corpus, [HOOKS[0]], settings).values()
    report, = quality_report(model, {0: sae}, corpus)
    with torch.no_grad(): latents = sae.encode(rows)
    # a number of latents, not a share of them
    assert pytest.approx(float((latents != 0).sum(1).float().mean()), rel=1e-3) == report.L0
    assert report.n_tokens == len(rows)
    assert report.dead_features == int((latents == 0).all(0).sum())


def test_longer_decoder_rows_do_not_buy_sparsity():
    "The same function written with half the activations and rows twice as long costs the same."
    from sae_lens.saes.sae import TrainStepInput
    torch.manual_seed(0)
    sae = new_sae("standard", 8, 16, 4, 10, {}, {"l1_coefficient": 1.0})
    rows = torch.randn(32, 8)
    def losses():
        told = TrainStepInput(rows, {"l1": 1.0}, None, 1, False)
        found = sae.training_forward_pass(told)
        return {name: value.item() for name, value in found.losses.items()}
    before = losses()
    with torch.no_grad():
        for weights in (sae.W_enc, sae.b_enc): weights.mul_(0.5)
        sae.W_dec.mul_(2)
    assert losses() == pytest.approx(before, rel=1e-4) and min(before.values()) > 0


# ---- what must be installed

def test_patching_needs_none_of_the_libraries_that_may_be_missing():
    "No TransformerLens, no SAELens, no W&B, no page server, nothing for embeddings or figures."
    script = (
        "import sys\n"
        "for name in ('transformer_lens', 'sae_lens', 'wandb', 'streamlit', 'umap', 'plotly',\n"
        "             'circuitsvis', 'statsmodels'): sys.modules[name] = None\n"
        "import tempfile, torch\n"
        "from transformers import AutoModelForCausalLM, GPT2Config\n"
        "from feature_interaction_graph import PromptPairs, activation_patching, discover\n"
        "from feature_interaction_graph.tracking.track import track\n"
        "config = GPT2Config(n_layer=2, n_embd=16, n_head=2, n_positions=16, vocab_size=20)\n"
        "model = AutoModelForCausalLM.from_config(config).eval()\n"
        "pairs = PromptPairs([[3, 4, 5]], [[3, 6, 5]], [7], [8])\n"
        "effects = activation_patching(model, pairs, 'head').effects\n"
        "circuit = discover(model, pairs, n_edges=3)\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    with track(folder + '/run') as run: run.log({'n': len(circuit)})\n"
        "print(effects.shape, len(circuit))\n")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split("\n")[-2] == "(4, 3, 1) 3"
