"""Texts of others: BOS, padding, special tokens, and positions that somebody chose, in every public
entry, against texts measured one by one and plain hooked passes."""
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sae_lens import StandardSAE, StandardSAEConfig
from sae_lens.saes.sae import SAEMetadata
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BatchEncoding, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from feature_interaction_graph.activations import ablation_importance, collect_activations
from feature_interaction_graph.config import Config
from feature_interaction_graph.control.context_effects import clamped_contexts
from feature_interaction_graph.engine.corpus import Corpus, as_corpus
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.engine.hook_points import decoder_layers, edit, parse_hook_point
from feature_interaction_graph.engine.positions import corpus_for, select_positions
from feature_interaction_graph.engine.residuals import clean_residuals
from feature_interaction_graph.interactions import (
    clamp_measure, jacobian_measure, measure_gating, mechanism_split, response_curve,
    transport_scores, within_layer_measure
)
from feature_interaction_graph.loading import bos_of, load_corpus, load_model_and_saes, wrap_model
from feature_interaction_graph.measurement.directions import steering_direction
from feature_interaction_graph.steering import steer
from feature_interaction_graph.training.saes import quality_report, train_saes

PRE, POST = "blocks.1.hook_resid_pre", "blocks.1.hook_resid_post"
WORDS = ["<s>", "</s>", "<pad>", "<unk>", *(f"w{number}" for number in range(44)), "12", "7"]


def words(**special: str) -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", **special)


WHOLE = dict(bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def tiny(n_positions: int = 32) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=16, n_head=2, n_positions=n_positions, vocab_size=50,
                        bos_token_id=0, eos_token_id=1)
    model = GPT2LMHeadModel(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim == 2: parameter.data.normal_(0, 0.3)
    return model


def sae(hook_name: str, **metadata: object) -> StandardSAE:
    torch.manual_seed(len(hook_name))
    known = SAEMetadata(hook_name=hook_name, model_name="tiny", **metadata)
    made = StandardSAE(StandardSAEConfig(d_in=16, d_sae=12, metadata=known)).requires_grad_(False)
    made.W_enc.data.normal_()
    return made.eval()


SAES = {1: sae(PRE), 2: sae(POST)}


@pytest.fixture(scope="module")
def model() -> torch.nn.Module: return wrap_model(tiny(), words(**WHOLE))


@pytest.fixture(scope="module")
def rows() -> list[list[int]]:
    "Forty texts of different lengths after BOS, no special token inside."
    rng = np.random.default_rng(0)
    return [[0, *rng.integers(3, 50, length).tolist()] for length in rng.integers(5, 20, 40)]


def padded(rows: list[list[int]], pad: int, left: bool) -> torch.Tensor:
    width = max(map(len, rows))
    fill = [[pad] * (width - len(row)) for row in rows]
    return torch.tensor([space + row if left else row + space
                         for row, space in zip(rows, fill, strict=True)])


def strengths(model, text, **how) -> np.ndarray:
    table = clamp_measure(model, SAES, [(1, 3), (1, 5)], text, n_samples=30, progress=False, **how)
    return table.columns["strength"]


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("pad", ["<pad>", "</s>", "<s>"])
def test_a_padded_batch_is_the_texts_one_by_one(rows, pad, left):
    tokenizer = words(**(WHOLE | {"pad_token": pad}))
    model = wrap_model(tiny(), tokenizer)
    expected = strengths(model, rows)
    ids = padded(rows, tokenizer.pad_token_id, left)
    mask = padded([[1] * len(row) for row in rows], 0, left)
    for text in (ids, ids.numpy(), ids.tolist(), {"input_ids": ids, "attention_mask": mask},
                 BatchEncoding({"input_ids": ids.tolist(), "attention_mask": mask.tolist()})):
        np.testing.assert_allclose(strengths(model, text), expected, rtol=1e-6, atol=1e-6)
    made = corpus_for(model, ids)
    for row, length, alone in zip(made.tokens, made.lengths, rows, strict=True):
        one, other = (clean_residuals(model, torch.as_tensor(text)[None], [POST])[POST][0, :length]
                      for text in (row, alone))
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6 * float(other.abs().max()))


def test_a_mask_without_the_pad_token_takes_another_number_out(model, rows):
    "What holds without padding fails when padding is taken for text."
    ids = padded(rows, 2, False)
    wrong = as_corpus(ids)                                     # of full length, as it stands
    assert corpus_for(model, ids).lengths.tolist() == [len(row) for row in rows]
    assert wrong.lengths.unique().tolist() == [ids.shape[1]]


def test_bos_of_a_tensor_is_no_sample(model, rows):
    text = torch.tensor([row[:6] for row in rows])
    corpus = Corpus(text, torch.full((40,), 6), starts_with_bos=True)
    for bare in (text, as_corpus(text), as_corpus(text, bos_id=0)):
        np.testing.assert_array_equal(strengths(model, bare), strengths(model, corpus))
    plain = tiny()                                             # its config alone says it
    np.testing.assert_allclose(strengths(plain, text), strengths(model, corpus), atol=1e-6)
    assert not steer(model, SAES, text, {(1, 3): 4.0}).where[:, 0].any()


def test_documents_packed_one_after_another(model):
    packed = torch.tensor([[4, 5, 1, 0, 6, 7], [0, 8, 9, 1, 0, 3]]).repeat(8, 1)
    corpus = corpus_for(model, packed)
    assert corpus.tokens[:2][corpus.sample_mask()[:2]].tolist() == [4, 5, 6, 7, 8, 9, 3]
    table = clamp_measure(model, SAES, [(1, 3)], packed, n_samples=4, progress=False)
    assert table.meta["positions"] == f"all but {8 * 4} special tokens"
    everything = corpus_for(model, packed, "all")
    assert everything.n_tokens == 8 * 11 and everything.told() == {"positions": "all"}


def everywhere(model, text) -> dict:
    "Every public entry that is given tokens."
    quiet, pair = dict(progress=False), [((1, 3), (2, 4))]
    return {
        "clamp": lambda: clamp_measure(model, SAES, [(1, 3)], text, **quiet),
        "jacobian": lambda: jacobian_measure(model, SAES, [(1, 3)], text, **quiet),
        "gating": lambda: measure_gating(model, SAES, pair, text, **quiet),
        "mechanisms": lambda: mechanism_split(model, SAES, pair, text, **quiet),
        "within": lambda: within_layer_measure(model, SAES, [(2, 3)], text, **quiet),
        "curve": lambda: response_curve(model, SAES, (1, 3), [(2, 4)], text, **quiet),
        "transport": lambda: transport_scores(model, SAES, text, **quiet),
        "contexts": lambda: clamped_contexts(model, SAES, [(1, 3)], text, **quiet),
        "direction": lambda: steering_direction(model, PRE, text, text, "d"),
        "steer": lambda: steer(model, SAES, text, {(1, 3): 4.0}),
        "training": lambda: train_saes(model, text, [PRE], width=8, steps=2),
        "quality": lambda: quality_report(model, SAES, text),
        "collecting": lambda: collect_activations(model, SAES, Config(), as_corpus(text))
    }


@pytest.mark.parametrize("text, sentence", [
    ([[0, 5, 50]], "holds token 50, but the model's vocabulary has 50 tokens"),
    ([[0] + [5] * 32], "sequences of 33 tokens, but the model reads at most 32; cut them to 32")
])
def test_tokens_that_the_model_cannot_read(text, sentence):
    for model in (tiny(), wrap_model(tiny(), words(**WHOLE))):
        for name, ask in everywhere(model, text).items():
            with pytest.raises(InputError, match=sentence): raise AssertionError(name, ask())


def hooked_reference(model, rows: list[list[int]], source: int, at: int) -> np.ndarray:
    "Mean change of every target per unit of the source, clamped at position `at` of every text."
    reader, below, above = SAES[1], parse_hook_point(PRE), parse_hook_point(POST)
    layers, spots = decoder_layers(model), []
    for row in rows:
        stream = clean_residuals(model, torch.tensor([row]), [PRE])[PRE]
        value = reader.encode(stream)[0, at, source]
        if value > 0: spots.append((row, value))
    doses = np.percentile([value.item() for _, value in spots], (10, 90))
    found = []
    for row, value in spots:
        after = []
        for dose in doses:
            def clamp(stream: torch.Tensor, shift: float = dose - value.item()) -> torch.Tensor:
                changed = stream.clone()
                changed[0, at] += shift * reader.W_dec[source]
                return changed
            with edit(layers, below, clamp):
                after.append(SAES[2].encode(clean_residuals(
                    model, torch.tensor([row]), [above])[above.name])[0, at])
        found.append((after[1] - after[0]) / (doses[1] - doses[0]))
    return torch.stack(found).double().mean(0).numpy()


@pytest.mark.parametrize("positions", [-1, "last", "-1", [-1]])
def test_clamping_at_the_last_position_is_the_hooked_pass_there(rows, positions):
    model = tiny()
    table = clamp_measure(model, SAES, [(1, 3)], rows, n_samples=100, positions=positions,
                          progress=False)
    expected = hooked_reference(model, rows, 3, -1)
    np.testing.assert_allclose(table.columns["strength"], expected, rtol=1e-4, atol=1e-5)
    elsewhere = clamp_measure(model, SAES, [(1, 3)], rows, n_samples=100, progress=False)
    assert np.abs(elsewhere.columns["strength"] - expected).max() > 1e-2
    assert table.meta["positions"] == str(positions) and "positions" not in elsewhere.meta


def test_every_measure_takes_positions(model, rows):
    "With positions that leave the source silent nothing can be measured; else samples are there."
    odd = {"positions": lambda tokens, lengths: tokens % 2 == 1}
    how, pair = dict(progress=False, n_samples=10), [((1, 3), (2, 4))]
    assert len(clamp_measure(model, SAES, [(1, 3)], rows, **how, **odd))
    for table in (jacobian_measure(model, SAES, [(1, 3)], rows, **how, **odd),
                  mechanism_split(model, SAES, pair, rows, **how, **odd),
                  within_layer_measure(model, SAES, [(2, 3)], rows, **how, **odd),
                  transport_scores(model, SAES, rows, progress=False, **odd)):
        assert table.meta["positions"] == "a function"
    contexts = clamped_contexts(model, SAES, [(1, 3)], rows, min_samples=5, **how, **odd)
    corpus = corpus_for(model, rows)
    taken = corpus.tokens[torch.as_tensor(contexts.sequence), torch.as_tensor(contexts.position)]
    assert (taken % 2 == 1).all()
    counted = transport_scores(model, SAES, rows, positions="last", progress=False)
    assert counted.meta["n_tokens"] == len(rows)
    curve = response_curve(model, SAES, (1, 3), [(2, 4)], rows, **how, **odd)
    assert np.isfinite(curve[(2, 4)].mean).all()
    gates = measure_gating(model, SAES, pair, rows, min_samples=5, **how, **odd)
    assert gates.meta["positions"] == "a function"
    first, last = (steering_direction(model, PRE, rows[:20], rows[20:], "d", positions=where).write
                   for where in ("first", "last"))
    assert not torch.allclose(first, last)
    with pytest.raises(InputError, match="takes none of the"):
        clamp_measure(model, SAES, [(1, 3)], rows, positions="regex=zebra", **how)


def test_steering_takes_positions(model, rows):
    def steered(positions, text=rows):
        return steer(model, SAES, text, {(1, 3): 4.0}, positions=positions).where
    corpus = corpus_for(model, rows)
    assert torch.equal(steered(-1), steered("last")) and steered(-1).sum() == len(rows)
    assert torch.equal(steered("token=w7"), corpus.tokens == WORDS.index("w7"))
    assert steered([1, -1]).sum() == 2 * len(rows)
    assert torch.equal(steered("all"), corpus.text_mask())
    left, right = (padded(rows, 2, side) for side in (True, False))
    assert torch.equal(steered(left == 9, left), right == 9)
    values = torch.ones(left.shape)
    with pytest.raises(InputError, match="padded on the left; pad it on the right"):
        steer(model, SAES, left, [(1, 3, values)])
    assert steer(model, SAES, right, [(1, 3, values)]).where.any()


def test_training_at_positions_says_so(model, rows):
    made = train_saes(model, as_corpus(rows * 30), [PRE], width=8, k=2, steps=20, batch_size=64,
                      positions="last", progress=False)[PRE]
    assert made.cfg.metadata.prepend_bos is True and made.cfg.metadata.positions == "last"
    (report,) = quality_report(model, {1: made}, select_positions(corpus_for(model, rows), "last"))
    assert report.n_tokens == len(rows) and np.isnan(report.ce_recovered)


# What a run reads


@pytest.fixture
def home(tmp_path, rows):
    "A model folder, SAE folders, a text and token files of somebody's own."
    def made(special: dict, **metadata: object) -> Config:
        tiny().save_pretrained(tmp_path / "model")
        words(**special).save_pretrained(tmp_path / "model")
        for each in (sae(PRE, **metadata), sae(POST, **metadata)):
            each.save_model(tmp_path / "saes" / each.cfg.metadata.hook_name)
        text = "\n\n".join(" ".join(WORDS[token] for token in row[1:]) for row in rows * 3)
        (tmp_path / "text.txt").write_text(text)
        return Config(model_name=str(tmp_path / "model"), sae_release=str(tmp_path / "saes"),
                      sae_ids={1: PRE, 2: POST}, dataset=str(tmp_path / "text.txt"),
                      n_tokens=300, context_length=16, output_dir=str(tmp_path / "out"),
                      importance_method="frequency", check_reconstruction=False)
    return made


@pytest.mark.filterwarnings("ignore:check_reconstruction")
@pytest.mark.parametrize("special, metadata, bos, starts", [
    (WHOLE, {}, "auto", 0), (WHOLE, {"prepend_bos": True}, "auto", 0), (WHOLE, {}, "none", None),
    (WHOLE, {"prepend_bos": False}, "auto", None), (WHOLE, {"prepend_bos": False}, "</s>", 1),
    ({}, {}, "auto", None), ({"eos_token": "</s>"}, {}, "auto", None), ({}, {}, "w3", 7),
    ({}, {"prepend_bos": True}, "none", None)
])
def test_bos_is_what_somebody_says(home, special, metadata, bos, starts):
    cfg = home(special, **metadata).replace(bos=bos)
    model, saes = load_model_and_saes(cfg)
    assert bos_of(cfg, model, saes) == starts
    corpus = load_corpus(cfg, model, saes)
    assert corpus.starts_with_bos == (starts is not None)
    if starts is not None: assert (corpus.tokens[:, 0] == starts).all()
    else: assert corpus.sample_mask()[:, 0].all()
    trained = train_saes(model, corpus, [PRE], width=8, steps=2, k=2, batch_size=16, progress=False)
    assert trained[PRE].cfg.metadata.prepend_bos is corpus.starts_with_bos
    assert len(collect_activations(model, saes, cfg, progress=False).rows) == corpus.n_tokens


@pytest.mark.filterwarnings("ignore:check_reconstruction")
def test_a_bos_that_nobody_has_is_refused(home):
    with pytest.raises(InputError, match="tokenizer has no BOS token; name the token with bos="):
        load_model_and_saes(home({}, prepend_bos=True))
    cfg = home(WHOLE)
    for name in ("<bos>", "w1 w2"):
        with pytest.raises(InputError, match="not one token of this model's tokenizer"):
            load_model_and_saes(cfg.replace(bos=name))


@pytest.mark.filterwarnings("ignore:check_reconstruction")
def test_token_files_with_masks_and_without_bos(home, rows, tmp_path):
    cfg = home(WHOLE, prepend_bos=True)
    model, saes = load_model_and_saes(cfg)
    cfg = cfg.replace(dataset=str(tmp_path / "t.safetensors"), n_tokens=90)
    left, mask = padded(rows, 2, True), padded([[1] * len(row) for row in rows], 0, True)
    ends = (torch.arange(left.shape[1]) == left.shape[1] - 1).expand(left.shape).contiguous()
    for more in ({}, {"attention_mask": mask}, {"attention_mask": mask, "positions": ends}):
        save_file({"tokens": left, **more}, cfg.dataset)
        corpus = load_corpus(cfg, model, saes)
        n = len(corpus)
        assert corpus.lengths.tolist() == [len(row) for row in rows[:n]] and corpus.starts_with_bos
        plain = as_corpus(rows[:n], bos_id=0)
        expected = select_positions(plain, "last") if "positions" in more else plain
        assert torch.equal(corpus.sample_mask()[:, :plain.tokens.shape[1]], expected.sample_mask())
    np.save(tmp_path / "t.npy", padded(rows, 2, False).numpy())
    assert load_corpus(cfg.replace(dataset=str(tmp_path / "t.npy")), model, saes).n_tokens >= 90
    np.save(tmp_path / "t.npy", np.array([row[1:6] for row in rows]))
    bare = cfg.replace(dataset=str(tmp_path / "t.npy"))
    with pytest.raises(InputError, match="trained on sequences that start with BOS, but none of"):
        load_corpus(bare, model, saes)
    assert load_corpus(bare.replace(bos="none"), model, saes).sample_mask().all()
    without = {1: sae(PRE, prepend_bos=False)}
    np.save(tmp_path / "t.npy", np.array([row[:6] for row in rows]))
    with pytest.raises(InputError, match="trained on sequences without BOS, but those of"):
        load_corpus(bare, model, without)


@pytest.mark.filterwarnings("ignore:check_reconstruction")
def test_a_context_too_long_is_refused_before_weights_are_read(home, monkeypatch):
    cfg = home(WHOLE).replace(context_length=128, check_reconstruction=True)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *_, **__: 1 / 0)
    with pytest.raises(InputError, match="reads at most 32 positions; set context_length to 32"):
        load_model_and_saes(cfg)


def test_the_demo_is_not_read_for_another_model(model, tmp_path):
    for own in (model, tiny()):
        with pytest.raises(InputError, match="no text was named"):
            collect_activations(own, SAES, Config(output_dir=str(tmp_path)))
        with pytest.raises(InputError, match="no text was named"): load_corpus(Config(), own, SAES)


@pytest.mark.filterwarnings("ignore:check_reconstruction")
def test_positions_of_a_run_reach_its_store(home, tmp_path):
    cfg = home(WHOLE).replace(positions=r"regex=\bw1\b|\b12\b")
    model, saes = load_model_and_saes(cfg)
    store = collect_activations(model, saes, cfg, progress=False)
    there = store.corpus.tokens[tuple(torch.from_numpy(store.rows).long().T)]
    assert {WORDS[token] for token in there.tolist()} == {"w1", "12"}
    assert store.config["positions"] == cfg.positions == store.corpus.selection
    assert json.loads(json.dumps(store.config))["bos"] == "auto"
    whole = collect_activations(model, saes, cfg.replace(positions=None), progress=False)
    assert whole.n_tokens > 300 and whole.corpus.positions is None
    assert cfg.fingerprint() != cfg.replace(positions=None).fingerprint()
    other = wrap_model(tiny(), PreTrainedTokenizerFast(tokenizer_object=Tokenizer(
        models.WordLevel({word: n for n, word in enumerate(reversed(WORDS))}, unk_token="<unk>"))))
    ablation_importance(model, saes, whole, 1, np.array([0]))
    with pytest.raises(InputError, match="was collected with another tokenizer"):
        ablation_importance(other, saes, whole, 1, np.array([0]))
