"""Pairs, patches and paths beside other people's: published prompt sets, TransformerLens's patching
functions on the same model, other architectures."""
import contextlib
import dataclasses
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from feature_interaction_graph import PromptPairs, activation_patching, path_patching
from feature_interaction_graph.circuits.ablation import replaced
from feature_interaction_graph.circuits.behaviors import METRICS
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.engine.hook_points import (
    HookPoint, catch, decoder_layers, edit, map_block, model_output, plain_twin
)
from feature_interaction_graph.engine.statistics import adjust
from feature_interaction_graph.patching.ablations import ablate_components
from feature_interaction_graph.patching.components import PairRuns
from feature_interaction_graph.patching.facts import fact_pairs, sample_facts, word_positions
from feature_interaction_graph.patching.pairs import pair_faults, sound_pairs
from feature_interaction_graph.patching.sets import named_pairs, read_pairs

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
from architectures import random_model  # noqa: E402


@pytest.fixture(scope="module")
def demo():
    from feature_interaction_graph.config import Config
    from feature_interaction_graph.loading import load_model_and_saes
    return load_model_and_saes(Config.preset("demo"))


@pytest.fixture(scope="module")
def gpt2(shared_data):
    "A random GPT-2 of two blocks with GPT-2's own tokenizer."
    from transformers import AutoModelForCausalLM, GPT2Config
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "models" / "gpt2_tokenizer",
                                              bos_token="<|endoftext|>", unk_token="<|endoftext|>")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        GPT2Config(n_layer=2, n_embd=32, n_head=4, n_positions=64)).eval().requires_grad_(False)
    model.tokenizer = tokenizer
    return model


def random_pairs(n=4, length=9, n_vocab=97, seed=0):
    "Pairs of token ids that differ in one token each, at different places."
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randint(3, n_vocab, (n, length), generator=generator)
    corrupted = clean.clone()
    for row in range(n):
        at = 2 + row % (length - 4)
        corrupted[row, at] = 3 + (int(clean[row, at]) + 7) % (n_vocab - 3)
    return PromptPairs(clean.tolist(), corrupted.tolist(), [5] * n, [9] * n)


# ---- sets

@pytest.mark.parametrize("name, file, n", [
    ("ioi", "ioi_greaterthan/ioi_llama.csv", 60),
    ("greater-than", "ioi_greaterthan/greater_than_data.csv", 60),
    ("agreement", "sva_feature_circuits/simple_test.json", 60),
    ("agreement", "sva_feature_circuits/nounpp_test.json", 60),
])
def test_published_sets_are_pairs_for_gpt2(gpt2, shared_data, name, file, n):
    pairs = read_pairs(shared_data / "bench" / file, n)
    assert pairs.name == name and len(pairs) == n
    faults = pair_faults(gpt2, pairs)
    # the published rows were chosen for other tokenizers
    assert len(faults) < n / 3 and not pair_faults(gpt2, sound_pairs(gpt2, pairs))
    assert all(sentence.startswith(f"pair {row}: ") for row, sentence in faults.items())


def test_published_indirect_objects_have_the_published_answers(gpt2, shared_data):
    "The taker is named once, the giver twice; a third name leaves the answer as it is."
    path = shared_data / "bench" / "ioi_greaterthan" / "ioi_llama.csv"
    pairs, third = read_pairs(path, 40), read_pairs(path, 40, corrupted="corrupted")
    for clean, (answer,), (wrong,) in zip(pairs.clean, pairs.answers, pairs.wrong_answers,
                                         strict=True):
        words = [word.strip(",.") for word in clean.split()]
        assert words.count(answer.strip()) == 1 and words.count(wrong.strip()) == 2
    assert third.answers == pairs.answers and third.corrupted != pairs.corrupted


def test_facts_become_pairs_for_gpt2(gpt2):
    pairs = fact_pairs(sample_facts(), gpt2)
    assert len(pairs) >= 30 and not pair_faults(gpt2, pairs)
    subjects = [next(fact.subject for fact in sample_facts() if fact.prompt() == text)
                for text in pairs.clean]
    places = word_positions(gpt2, pairs.clean, subjects)
    for text, subject, (first, last) in zip(pairs.clean, subjects, places.tolist(), strict=True):
        ids = [gpt2.tokenizer.bos_token_id, *gpt2.tokenizer(text).input_ids]
        assert gpt2.tokenizer.decode(ids[first:last + 1]).strip() == subject
    spots = {"subject": places, "last": [-1] * len(pairs)}
    found = activation_patching(gpt2, pairs, positions=spots)
    assert found.effects.shape == (2, 2, len(pairs))


def test_subjects_are_found_as_whole_words(gpt2):
    "' is' is no part of 'Paris is', 'in' none of 'Einstein was born in'."
    prompts = ["Paris is", "Albert Einstein was born in"]
    (one, _), (two, _) = word_positions(gpt2, prompts, ["is", "in"], bos=False).tolist()
    for prompt, at, word in zip(prompts, (one, two), ("is", "in"), strict=True):
        assert gpt2.tokenizer.decode(gpt2.tokenizer(prompt).input_ids[at]).strip() == word
    with pytest.raises(InputError, match="as whole words"):
        word_positions(gpt2, ["Albert Einstein"], ["stein"])


def test_padding_on_either_side_gives_the_same_pairs(gpt2):
    texts = ["The keys near the old cabinet", "The key"]
    other = ["The key near the old cabinet", "The keys"]
    gpt2.tokenizer.pad_token = "<|endoftext|>"
    both = []
    for side in ("left", "right"):
        rows = [gpt2.tokenizer(each, padding=True, padding_side=side, return_tensors="pt")
                for each in (texts, other)]
        both.append(PromptPairs(*rows, [" is", " are"], [" are", " is"]))
    assert both[0] == both[1] and len(both[0].clean[1]) == 2
    left, right = (activation_patching(gpt2, each, positions=[-1]) for each in both)
    np.testing.assert_array_equal(left.effects, right.effects)


# ---- faults that others had

def test_nothing_is_read_from_the_prompts_before(demo):
    "The second question has its own prompts, whatever was asked before."
    model, _ = demo
    first, second = (named_pairs("agreement", model, 6, seed=seed) for seed in (0, 1))
    alone = activation_patching(model, second, "head", positions="all")
    activation_patching(model, first, "head", positions="all")
    again = activation_patching(model, second, "head", positions="all")
    np.testing.assert_array_equal(again.effects, alone.effects)


def test_every_layer_is_its_own(demo):
    model, _ = demo
    pairs = named_pairs("agreement", model, 6)
    runs, whole = PairRuns(model, pairs), activation_patching(model, pairs, positions=[-1])
    streams = model_output(runs.engine.twin, runs.base, output_hidden_states=True).hidden_states
    for layer in range(4):
        torch.testing.assert_close(runs.streams(HookPoint("resid_pre", layer)), streams[layer])
        (alone,) = activation_patching(model, pairs, [f"resid_pre {layer}"], positions=[-1]).effects
        np.testing.assert_allclose(alone, whole.effects[layer], atol=1e-4)


def test_q_values_are_monotone_and_metrics_are_per_pair(demo):
    model, _ = demo
    assert adjust(np.array([0.04, 0.0533])).tolist() == pytest.approx([0.0533, 0.0533])
    pairs = named_pairs("agreement", model, 14)
    for metric in METRICS:
        found = activation_patching(model, dataclasses.replace(pairs, metric=metric), "head",
                                    positions="all")
        table = found.to_pandas().sort_values("p_value")
        assert table["q_value"].is_monotonic_increasing and found.base.shape == (14,)
        assert np.abs(found.effects).max() > 1e-3, metric


def test_heads_are_never_silently_untouched(demo):
    "Every head's zero ablation does something: hooks are there."
    model, _ = demo
    found = ablate_components(model, named_pairs("agreement", model, 6), ablation="zero")
    assert (np.abs(found.effects[:, 0]).max(-1) > 1e-4).all()


# ---- TransformerLens on the same model

def test_transformer_lens_patches_the_same(demo):
    transformer_lens = pytest.importorskip("transformer_lens.patching")
    model, _ = demo
    pairs = named_pairs("agreement", model, 4)
    runs = PairRuns(model, pairs)
    hooked = as_hooked_transformer(plain_twin(model))
    _, cache = hooked.run_with_cache(runs.other)
    def metric(logits):
        last = logits[torch.arange(len(runs)), runs.lengths - 1]
        return runs.metric(last).mean()
    base = float(runs.values.mean())
    def compare(theirs, kind, positions):
        mine = activation_patching(model, pairs, kind, positions=positions).mean
        np.testing.assert_allclose(theirs.flatten().numpy() - base, mine.ravel(), atol=1e-3)
        assert np.abs(mine).max() > 0.1
    patch = {"resid_pre": transformer_lens.get_act_patch_resid_pre,
             "attn_out": transformer_lens.get_act_patch_attn_out,
             "mlp_out": transformer_lens.get_act_patch_mlp_out}
    for kind, function in patch.items():
        compare(function(hooked, runs.base, cache, metric), kind, "each")
    heads = transformer_lens.get_act_patch_attn_head_out_all_pos(hooked, runs.base, cache, metric)
    compare(heads, "head", "all")
    places = transformer_lens.get_act_patch_attn_head_out_by_pos(hooked, runs.base, cache, metric)
    compare(places.transpose(1, 2), "head", "each")        # [layer, position, head]


def as_hooked_transformer(twin):
    "The same weights in TransformerLens's own implementation of GPT-2."
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
    config = twin.config
    made = HookedTransformerConfig(
        n_layers=config.n_layer, d_model=config.n_embd, n_heads=config.n_head,
        d_head=config.n_embd // config.n_head, n_ctx=config.n_positions, d_vocab=config.vocab_size,
        act_fn="gelu_new", normalization_type="LN", eps=config.layer_norm_epsilon,
        original_architecture="GPT2LMHeadModel", device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hooked = HookedTransformer(made)
        hooked.load_and_process_state_dict(
            convert_gpt2_weights(twin, made), fold_ln=False, center_writing_weights=False,
            center_unembed=False, fold_value_biases=False)
    return hooked.eval()


# ---- other architectures

def plain_effects(runs, point, columns):
    lent = runs.streams(point, other=True)
    def exchange(stream):
        stream = stream.clone()
        stream[..., columns] = lent[..., columns]
        return stream
    with torch.no_grad(), replaced(decoder_layers(runs.engine.twin), point, exchange):
        logits = model_output(runs.engine.twin, runs.base).logits
    last = logits[torch.arange(len(runs)), runs.lengths - 1]
    return (runs.metric(last) - runs.values).numpy()


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "gemma2", "qwen3", "bloom", "opt", "granite",
                                  "cohere", "falcon, alibi", "gpt_oss"])
def test_patches_of_every_kind_of_model_equal_plain_passes(name):
    model = random_model(name)
    pairs = random_pairs()
    runs = PairRuns(model, pairs)
    assert runs.engine.branched
    found = activation_patching(model, pairs, ["head 1.1", "mlp_out 1", "resid_pre 2"],
                                positions="all").effects[:, 0]
    size = runs.streams(HookPoint("z", 1)).shape[-1] // model.config.num_attention_heads
    for effect, (point, columns) in zip(found, (
        (HookPoint("z", 1), slice(size, 2 * size)), (HookPoint("mlp_out", 1), slice(None)),
        (HookPoint("resid_pre", 2), slice(None))
    ), strict=True):
        expected = plain_effects(runs, point, columns)
        np.testing.assert_allclose(effect, expected, atol=1e-3 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "gemma2", "qwen3", "cohere"])
def test_paths_between_blocks_equal_their_definition(name):
    "A head and an MLP into the next block's MLP, frozen in between, norms and all."
    model = random_model(name)
    pairs = random_pairs()
    runs = PairRuns(model, pairs, direction="noising")
    layers, rows = decoder_layers(model), torch.arange(len(runs))
    size = runs.streams(HookPoint("z", 0)).shape[-1] // model.config.num_attention_heads
    z = runs.streams(HookPoint("z", 0)).clone()
    z[..., size:2 * size] = runs.streams(HookPoint("z", 0), other=True)[..., size:2 * size]
    fixed = {HookPoint("z", 0): z,
             HookPoint("mlp_out", 0): runs.streams(HookPoint("mlp_out", 0), other=True),
             HookPoint("z", 1): runs.streams(HookPoint("z", 1))}
    with torch.no_grad(), contextlib.ExitStack() as hooks:
        for point, value in fixed.items():
            hooks.enter_context(edit(layers, point, lambda _, value=value: value))
        target = HookPoint("mlp_out", 1)
        seen = hooks.enter_context(catch(layers, [target]))
        model_output(model, runs.base)
    recorded = seen[target.name]
    with torch.no_grad(), edit(layers, target, lambda _: recorded):
        logits = model_output(model, runs.base).logits[rows, runs.lengths - 1]
    expected = (runs.metric(logits) - runs.values).numpy()
    found = path_patching(model, pairs, [["head 0.1", "mlp_out 0"]], ["mlp_out 1"]).effects[0, 0]
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-4 * max(1, np.abs(expected).max()))


def test_grouped_keys_are_a_receiver_of_their_own():
    "Keys of both heads of a group, against the projection that they share; of one head: not that."
    model = random_model("llama")
    config, pairs = model.config, random_pairs()
    wide = config.num_attention_heads // config.num_key_value_heads
    assert wide > 1
    runs = PairRuns(model, pairs, direction="noising")
    layers, rows = decoder_layers(model), torch.arange(len(runs))
    stream = runs.streams(HookPoint("resid_pre", 1))
    moved = stream + (runs.streams(HookPoint("mlp_out", 0), other=True)
                      - runs.streams(HookPoint("mlp_out", 0)))
    with torch.no_grad(): keys = map_block(layers[1]).attention.k_proj(
        layers[1].input_layernorm(moved))
    size = keys.shape[-1] // config.num_key_value_heads
    def put(module, args, output):
        output = output.clone()
        output[..., :size] = keys[..., :size]
        return output
    handle = map_block(layers[1]).attention.k_proj.register_forward_hook(put)
    with torch.no_grad(): logits = model_output(model, runs.base).logits[rows, runs.lengths - 1]
    handle.remove()
    expected = (runs.metric(logits) - runs.values).numpy()
    group = [f"head 1.{head} k" for head in range(wide)]
    together, alone = path_patching(model, pairs, ["mlp_out 0"], [group, group[:1]]).effects[0]
    np.testing.assert_allclose(together, expected, atol=1e-5 * max(1, np.abs(expected).max()))
    assert np.abs(together).max() > 1e-4 and np.abs(alone - together).max() > 1e-5


@pytest.mark.filterwarnings("ignore:.*cannot be branched")
def test_what_cannot_be_branched_is_patched_by_hooks_and_has_no_paths():
    model, pairs = random_model("doge"), random_pairs()
    runs = PairRuns(model, pairs)
    found = activation_patching(model, pairs, ["resid_pre 1"], positions="all").effects[0, 0]
    np.testing.assert_allclose(found, plain_effects(runs, HookPoint("resid_pre", 1), slice(None)),
                               atol=1e-4)
    with pytest.raises(InputError, match="cannot be branched"):
        path_patching(model, pairs, ["mlp_out 0"], ["logits"])
