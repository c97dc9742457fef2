"""The stories keep their promises; the demo files belong together; SAE training refuses what it
cannot do and repeats what it did."""
import gc
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from feature_interaction_graph.engine.corpus import Corpus, as_corpus
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.training import saes as sae_training
from feature_interaction_graph.training.demo_model import (
    demo_tokenizer, held_out_loss, new_model, save_language_model, train_language_model
)
from feature_interaction_graph.training.lexicon import VOCABULARY, WORD_LABELS
from feature_interaction_graph.training.rows import sampled_activations, shuffled_batches
from feature_interaction_graph.training.stories import (
    encode_stories, entropy_per_token, next_word_distribution, story_corpus, write_story
)
from feature_interaction_graph.training.streams import train_on_rows

DEMO = Path(str(files("feature_interaction_graph"))) / "demo"


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return new_model(d_model=32, n_layers=2, n_heads=2, context_length=32, seed=0).eval()


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return story_corpus(3_000, context_length=32, seed=3, labelled=False)


# ---- stories

def test_continuations_come_as_often_as_the_grammar_says() -> None:
    """Words drawn after the introduction against the exact distribution, pooled over stories by a
    chi-square test each."""
    p_values = []
    for index in range(12):
        opening = write_story(50, index, n_words=19, labelled=False).words
        truth = next_word_distribution(opening)
        uniform = np.random.default_rng(index).random(600)
        cumulative = np.cumsum(list(truth.values()))
        assert math.isclose(cumulative[-1], 1)
        drawn = Counter(np.searchsorted(cumulative, uniform * cumulative[-1]).tolist())
        p_values.append(chisquare([drawn[i] for i in range(len(truth))],
                                  600 * np.array(list(truth.values()))).pvalue)
    assert min(p_values) > 1e-4
    # 32 names, equally likely
    first_words = Counter(
        write_story(51, index, n_words=1, labelled=False).words[0] for index in range(3200)
    )
    assert chisquare([first_words[name] for name in next_word_distribution("")]).pvalue > 1e-4


@pytest.mark.parametrize("index", range(6))
def test_every_prefix_of_a_story_is_read_with_the_probability_it_was_written_with(
    index: int
) -> None:
    story = write_story(9, index, n_words=90, labelled=False)
    for position in range(len(story.words)):
        after = next_word_distribution(story.words[:position])
        assert math.isclose(sum(after.values()), 1, abs_tol=1e-9)
        assert math.isclose(
            math.log(after[story.words[position]]), story.log_probs[position], abs_tol=1e-9
        )


def test_a_story_depends_on_its_seed_and_number_only() -> None:
    small, large = story_corpus(2_000, seed=8), story_corpus(6_000, seed=8)
    assert torch.equal(small.tokens, large.tokens[:len(small)])
    assert not torch.equal(small.tokens, story_corpus(2_000, seed=9).tokens)
    assert write_story(8, 1, labelled=False).words == write_story(8, 1, labelled=True).words


def test_labels_belong_to_their_word() -> None:
    for index in range(40):
        story = write_story(11, index)
        for word, labels in zip(story.words, story.labels, strict=True):
            assert WORD_LABELS[word] <= labels and len(
                {label for label in labels if label.startswith("subject:")}
            ) <= 1
            assert not {"mood:happy", "mood:sad"} <= labels and not {
                "focus:female", "focus:male"
            } <= labels
        for labels, after, log_prob in zip(
            story.labels, story.words[1:], story.log_probs[1:], strict=False
        ):
            assert ("next_is:certain" in labels) == (log_prob == 0)
            assert all(label.removeprefix("next_is:") in WORD_LABELS[after] for label in labels
                       if label.startswith("next_is:") and label != "next_is:certain")
        quoted = [label for label in story.labels if "inside_quote" in label]
        assert len(quoted) >= sum(word == "“" for word in story.words)


def test_padding_has_no_labels_and_bos_neither() -> None:
    corpus = story_corpus(30_000, seed=2)
    rows = np.asarray(corpus.labels.matrix.sum(1)).reshape(corpus.tokens.shape)
    assert ((rows > 0) == corpus.sample_mask().numpy()).all()
    # some stories do end
    assert (corpus.lengths < 128).any()


@pytest.mark.parametrize("sizes", [{"n_tokens": 0}, {"n_tokens": 100, "context_length": 1}])
def test_sizes_without_a_story_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(InputError, match="at least 1 and 2"): story_corpus(**sizes)


@pytest.mark.parametrize("text", ["Xenia is", "Mia is a kind girl . he", "the end ."])
def test_texts_that_are_no_story_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="beginning of a story"): next_word_distribution(text)


# ---- tokenizer and model

def test_every_story_survives_the_tokenizer() -> None:
    tokenizer = demo_tokenizer()
    assert [tokenizer.convert_ids_to_tokens(i) for i in range(len(tokenizer))] == VOCABULARY
    for index in range(60):
        story = write_story(13, index, labelled=False)
        ids = tokenizer(" ".join(story.words)).input_ids
        assert ids == encode_stories([story], 128)[0][0, :len(ids)].tolist()
        # readable text reads back
        assert tokenizer(tokenizer.decode(ids, skip_special_tokens=True)).input_ids == ids
    assert tokenizer("zebra").input_ids == [0, tokenizer.unk_token_id]
    assert tokenizer("<bos> the", add_special_tokens=False).input_ids == [
        0, VOCABULARY.index("the")
    ]


def test_a_loss_that_is_not_a_number_stops_training(model: torch.nn.Module) -> None:
    broken = new_model(d_model=32, n_layers=1, n_heads=2, context_length=32, seed=0)
    with torch.no_grad(): broken.transformer.wte.weight[5] = float("inf")
    batch = torch.full((2, 8), 5), torch.tensor([8, 8])
    with pytest.raises(InputError, match="at step 0"):
        train_language_model(broken, lambda step: batch, 3, progress=False)


def test_padding_does_not_count_in_the_loss(model: torch.nn.Module, corpus: Corpus) -> None:
    filled = Corpus(corpus.tokens.clone(), corpus.lengths - 5, True)
    other = Corpus(corpus.tokens.clone(), corpus.lengths - 5, True)
    other.tokens[:, 27:] = 7
    assert held_out_loss(model, filled) == held_out_loss(model, other)


def test_a_model_that_cannot_be_saved_leaves_nothing(
    tmp_path: Path, model: torch.nn.Module
) -> None:
    (tmp_path / "occupied").write_text("a file")
    with pytest.raises(InputError, match="could not be written"):
        save_language_model(model, demo_tokenizer(32), tmp_path / "occupied" / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["occupied"]


# ---- the shipped demo

def test_the_shipped_model_reads_the_stories_this_version_writes() -> None:
    "Loss and entropy of the record, again: fails when the generator changes under the model."
    from transformers import AutoModelForCausalLM, AutoTokenizer
    record = json.loads((DEMO / "training.json").read_text())
    demo = AutoModelForCausalLM.from_pretrained(DEMO / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(DEMO / "model")
    assert (json.loads((DEMO / "model" / "config.json").read_text())["n_ctx"] == 128
            and len(tokenizer) == demo.config.vocab_size == len(VOCABULARY))
    held_out = story_corpus(60_000, seed=record["seed"] + 2_000, labelled=False)
    entropy = entropy_per_token(
        write_story(record["seed"] + 2_000, index, labelled=False) for index in range(len(held_out))
    )
    assert math.isclose(entropy, record["generator_entropy"], abs_tol=1e-9)
    assert record["held_out_loss"] < 1.04 * entropy
    some = held_out.take(range(60))
    excess = held_out_loss(demo, some) - entropy_per_token(
        write_story(record["seed"] + 2_000, index, labelled=False) for index in range(60)
    )
    assert abs(excess - (record["held_out_loss"] - entropy)) < 0.02


def test_the_demo_is_small_and_free_of_pickles() -> None:
    shipped = [path for path in DEMO.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in shipped) < 12e6
    assert {path.suffix for path in shipped} == {".json", ".safetensors"}


# ---- SAEs

def settings(**changes: object) -> dict:
    return {"architecture": "batchtopk", "width": 48, "k": 4, "steps": 30, "batch_size": 128,
            "lr": 3e-3, "progress": False} | changes


@pytest.mark.parametrize(("architecture", "options"), [
    ("gated", {"l1_coefficient": 1.0}), ("jumprelu", {})])
def test_latents_that_are_dead_from_the_start_are_used(
    architecture: str, options: dict[str, float]
) -> None:
    "Half of a dictionary is dead; started anew it finds the directions that the rest cannot hold."
    truth = torch.nn.functional.normalize(torch.randn(
        24, 16, generator=torch.Generator().manual_seed(0)), dim=1)

    def rows(seed: int, n: int = 256) -> torch.Tensor:
        draw = torch.Generator().manual_seed(seed)
        there = torch.rand(n, 24, generator=draw) < 1 / 12
        return there * (1 + torch.rand(n, 24, generator=draw)) @ truth

    found, judged = {}, rows(10 ** 7, 5000)
    for times in (None, 4):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            sae = sae_training.new_sae(architecture, 16, 32, 2, 1500, {"resample": times}, options)
        with torch.no_grad():
            if architecture == "gated": sae.b_gate[::2] = -50
            else: sae.threshold[::2] = 50
        sae = sae_training.fit_sae(sae, map(rows, itertools.count()), 1500, 256, 3e-3, "cpu", False)
        with torch.no_grad(): latents, rebuilt = sae.encode(judged), sae(judged)
        live = (latents > 0).any(0)
        near = torch.nn.functional.normalize(sae.W_dec[live], dim=1) @ truth.T
        error = float((judged - rebuilt).square().sum())
        found[times] = int((~live).sum()), int((near.max(0).values > 0.9).sum()), error
    assert found[None][0] == 16 and found[4][0] <= 5
    assert found[4][1] >= 20 > 14 > found[None][1] and found[4][2] < 0.7 * found[None][2]


def test_a_training_that_starts_latents_anew_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    "Interrupted before and after the first time."
    def batches(last: int | None = None) -> Iterator[torch.Tensor]:
        draw = torch.Generator().manual_seed(0)
        for count in itertools.count():
            if count == last: raise KeyboardInterrupt
            yield torch.randn(64, 8, generator=draw)

    def weights(stream: Iterator[Tensor], kept: Path | None = None) -> dict[str, Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            sae = sae_training.new_sae("jumprelu", 8, 24, 2, 200, {"resample": 3}, {})
        with torch.no_grad(): sae.threshold[::2] = 50
        return sae_training.fit_sae(sae, stream, 200, 64, 3e-3, "cpu", False, kept).state_dict()

    whole = weights(batches())
    for number, last in enumerate((60, 130)):
        with pytest.raises(KeyboardInterrupt): weights(batches(last), tmp_path / str(number))
        again = weights(batches(), tmp_path / str(number))
        assert all(torch.equal(again[name], value) for name, value in whole.items())


@pytest.mark.parametrize("architecture", list(sae_training.ARCHITECTURES))
def test_every_architecture_is_saved_ready_for_use(
    architecture: str, tmp_path: Path, model: torch.nn.Module, corpus: Corpus
) -> None:
    from sae_lens import SAE
    hooks = ["blocks.1.hook_resid_pre", "blocks.1.attn.hook_z"]
    trained = sae_training.train_saes(
        model, corpus, hooks,
        **settings(architecture=architecture, output_dir=tmp_path, model_name="tiny")
    )
    assert (
        list(trained) == hooks and sorted(path.name for path in tmp_path.iterdir()) == sorted(hooks)
    )
    for hook in hooks:
        again = SAE.load_from_disk(str(tmp_path / hook))
        rows = sampled_activations(model, corpus, hook)[:50]
        with torch.no_grad(): assert torch.equal(again.encode(rows), trained[hook].encode(rows))
        metadata = again.cfg.metadata
        assert (
            metadata.hook_name, metadata.model_name, metadata.prepend_bos, metadata.context_size
        ) == (hook, "tiny", True, 32)
        assert again.cfg.normalize_activations == "none"
    for report in sae_training.quality_report(model, trained, corpus.take(range(20))):
        assert math.isfinite(report.ce_spliced) and 0 < report.L0 <= 48


def test_same_seed_same_sae_and_the_global_generator_is_left_alone(
    model: torch.nn.Module, corpus: Corpus
) -> None:
    hook = "blocks.0.hook_mlp_out"
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = sae_training.train_saes(model, corpus, [hook], **settings())[hook]
    assert torch.equal(torch.rand(3), expected)
    second = sae_training.train_saes(model, corpus, [hook], **settings())[hook]
    other = sae_training.train_saes(model, corpus, [hook], **settings(seed=1))[hook]
    assert torch.equal(first.W_dec, second.W_dec) and not torch.equal(first.W_dec, other.W_dec)


def test_the_input_scale_is_folded_into_the_weights(corpus: Corpus) -> None:
    """Activations a thousand times longer give the same SAE, a thousand times larger: one setting
    serves every model."""
    def fitted(factor: float) -> "sae_training.SAE":
        generator = torch.Generator().manual_seed(0)
        rows = torch.randn(4000, 16, generator=generator) @ torch.randn(16, 16, generator=generator)
        def batches() -> Iterator[Tensor]:
            while True: yield factor * rows[torch.randint(4000, (128,), generator=generator)]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            sae = sae_training.new_sae(
                "jumprelu", 16, 32, 4, 60, {"hook_name": "blocks.0.hook_resid_pre"}, {}
            )
            return sae_training.save_sae(
                sae_training.fit_sae(sae, batches(), 60, 128, 1e-3, "cpu", progress=False), None
            )
    unit, large = fitted(1.0), fitted(1000.0)
    rows = torch.randn(20, 16)
    with torch.no_grad():
        assert torch.allclose(1000 * unit(rows), large(1000 * rows), rtol=1e-3, atol=1.0)


@pytest.mark.parametrize(("changes", "hooks", "sentence"), [
    ({"architecture": "transcoder"}, ["blocks.0.hook_resid_pre"], "cannot be trained"),
    ({}, ["blocks.2.hook_resid_pre"], "blocks 0 to 1"),
    ({}, ["hook_embed"], "not one that can be measured"),
    ({}, [], "name at least one"),
    ({"batch_size": 4096}, ["blocks.0.hook_resid_pre"], "fewer than two batches"),
    ({"options": {"sparsity": 1}}, ["blocks.0.hook_resid_pre"], "refused the settings"),
    ({"lr": 1e30}, ["blocks.0.hook_resid_pre"], "non-finite|not finite|lower the learning rate")])
def test_what_cannot_be_trained_is_refused_and_leaves_no_folder(
    changes: dict, hooks: list[str], sentence: str, tmp_path: Path, model: torch.nn.Module,
    corpus: Corpus
) -> None:
    with pytest.raises(InputError, match=sentence):
        sae_training.train_saes(
            model, corpus, hooks, **settings(output_dir=tmp_path / "out", **changes)
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"architecture": "transcoder"}, "cannot be trained"), ({"k": 40, "width": 8}, "40 of 8"),
    ({"lr": -1.0}, "learning rate is -1.0"), ({"patience": -1}, "patience is -1"),
    ({"resample": 3}, "not started anew"), ({"steps": 0}, "steps is 0"),
    ({"options": {"sparsity": 1}}, "refused the settings")])
def test_wrong_settings_are_refused_before_the_model_is_asked(
    changes: dict, sentence: str, model: torch.nn.Module, corpus: Corpus,
    monkeypatch: pytest.MonkeyPatch
) -> None:
    def gathered(*_: object, **__: object) -> None: pytest.fail("activations were gathered")
    monkeypatch.setattr(sae_training, "gathered_activations", gathered)
    with pytest.raises(InputError, match=sentence):
        sae_training.train_saes(model, corpus, ["blocks.0.hook_resid_pre"], **settings(**changes))


def test_activations_that_are_not_numbers_are_refused(corpus: Corpus) -> None:
    ruined = new_model(d_model=32, n_layers=2, n_heads=2, context_length=32, seed=0)
    with torch.no_grad(): ruined.transformer.h[0].mlp.c_proj.bias[3] = float("nan")
    # before the damage
    sampled_activations(ruined, corpus, "blocks.0.hook_resid_pre")
    with pytest.raises(InputError, match="not finite"):
        sae_training.train_saes(ruined, corpus, ["blocks.1.hook_resid_pre"], **settings())


def test_a_folder_that_cannot_be_written_is_said_so(
    tmp_path: Path, model: torch.nn.Module, corpus: Corpus
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="could not be written"):
        sae_training.train_saes(
            model, corpus, ["blocks.0.hook_resid_pre"], **settings(output_dir=tmp_path / "file")
        )


def test_streamed_and_held_batches_show_the_same_rows(
    model: torch.nn.Module, corpus: Corpus
) -> None:
    hook = "blocks.1.hook_resid_mid"
    every = sampled_activations(model, corpus, hook)
    assert len(every) == corpus.n_tokens
    for buffer_rows in (10**6, 900):
        batches = shuffled_batches(every, batch_size=50, buffer_rows=buffer_rows)
        rows = torch.cat([next(batches) for _ in range(corpus.n_tokens // 50 - 5)])
        nearest = torch.cdist(rows, every, compute_mode="donot_use_mm_for_euclid_dist").min(1)
        assert nearest.values.max() < 1e-4
        drawn, held = (Counter(row.numpy().round(3).tobytes() for row in every[chosen])
                       for chosen in (nearest.indices, slice(None)))
        # stories may open alike, so a row may be held twice; it is not drawn a third time
        assert all(count <= held[row] for row, count in drawn.items())


def test_the_report_does_not_depend_on_batches_or_keys(
    model: torch.nn.Module, corpus: Corpus
) -> None:
    hook = "blocks.0.hook_resid_post"
    sae = sae_training.train_saes(model, corpus, [hook], **settings())[hook]
    ragged = as_corpus([[0, *range(5, 5 + n)] for n in (3, 30, 11, 1)], bos_id=0)
    one = sae_training.quality_report(model, {1: sae}, ragged, batch_size=1)[0]
    other = sae_training.quality_report(model, {hook: sae}, ragged)[0]
    for name in ("L0", "explained_variance", "ce_clean", "ce_spliced", "ce_zero"):
        assert math.isclose(getattr(one, name), getattr(other, name), abs_tol=2e-5)
    assert one.n_tokens == 45 and one.dead_features == other.dead_features


def test_an_exact_reconstruction_recovers_everything(
    model: torch.nn.Module, corpus: Corpus
) -> None:
    "An SAE made by hand that is the identity: +x and -x of every dimension."
    from sae_lens import StandardSAE, StandardSAEConfig
    from sae_lens.saes.sae import SAEMetadata
    identity = StandardSAE(
        StandardSAEConfig(
            d_in=32, d_sae=64, metadata=SAEMetadata(hook_name="blocks.1.hook_resid_pre")
        )
    )
    with torch.no_grad():
        identity.W_enc.copy_(torch.cat([torch.eye(32), -torch.eye(32)], 1))
        identity.W_dec.copy_(identity.W_enc.T)
    report = sae_training.quality_report(model, {1: identity}, corpus.take(range(10)))[0]
    assert math.isclose(report.explained_variance, 1, abs_tol=1e-6) and math.isclose(
        report.ce_recovered, 1, abs_tol=1e-4
    )
    assert math.isclose(report.L0, 32, abs_tol=0.01) and report.dead_features == 0


def test_bars_come_back_after_a_quiet_run() -> None:
    from sae_lens.training import activation_scaler, sae_trainer
    before = activation_scaler.tqdm, sae_trainer.tqdm
    with sae_training.trainer_progress(shown=False): assert sae_trainer.tqdm is not before[1]
    assert (activation_scaler.tqdm, sae_trainer.tqdm) == before


def test_a_stream_is_ended_where_it_was_read() -> None:
    """One that waits under `no_grad` would switch gradients on when the circle that holds it is
    collected: in the middle of another training."""
    opened, ended = [], []
    def stream() -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(0)
        opened.append(generator)
        try:
            while True:
                with torch.no_grad(): yield torch.randn(64, 8, generator=generator)
        finally: ended.append(generator)
    gc.disable()
    try:
        train_on_rows(stream, architecture="topk", width=16, k=2, steps=30, batch_size=64,
                      progress=False)
        assert len(opened) == len(ended) > 1 and torch.is_grad_enabled()
    finally: gc.enable()
