"""Behaviours: their metrics and tokens, the ready-made ones beside published prompt sets, and the
ablated model against plain hooks for every kind of SAE."""
import csv
import json

import pytest
import torch
from sae_lens import (
    JumpReLUSAE, JumpReLUSAEConfig, StandardSAE, StandardSAEConfig, TopKSAE, TopKSAEConfig
)
from sae_lens.saes.sae import SAEMetadata
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, LlamaConfig

from feature_interaction_graph.circuits.ablation import ABLATIONS, AblatedModel
from feature_interaction_graph.circuits.behaviors import (
    METRICS, Behavior, behavior_report, encode_behavior, require_behavior
)
from feature_interaction_graph.circuits.library import (
    ENGLISH_BEHAVIORS, demo_behavior, english_behavior, held_out, predefined_behavior
)
from feature_interaction_graph.engine.errors import InputError

@pytest.fixture(scope="module")
def demo():
    from feature_interaction_graph.config import Config
    from feature_interaction_graph.loading import load_model_and_saes
    return load_model_and_saes(Config.preset("demo"))


@pytest.fixture(scope="module")
def gpt2(shared_data):
    return AutoTokenizer.from_pretrained(shared_data / "models" / "gpt2_tokenizer",
                                         bos_token="<|endoftext|>", unk_token="<|endoftext|>")


# ---- ready-made behaviours

@pytest.mark.parametrize("name", ENGLISH_BEHAVIORS)
def test_english_behaviours_are_well_formed_for_gpt2(gpt2, name):
    """One-token answers, pairs of equal length, no prompt twice, right and wrong answers disjoint,
    both directions equally often."""
    behavior = english_behavior(name, gpt2, 64)
    tokens = behavior.encode(gpt2)
    assert len(set(behavior.prompts)) == 64 and torch.equal(tokens.lengths, tokens.counter_lengths)
    assert not bool((tokens.answers & tokens.counter_answers).any()) and bool(
        tokens.answers.any(1).all()
    )
    assert bool((tokens.prompts[:, 0] == gpt2.bos_token_id).all())
    for prompt, options in zip(behavior.prompts, behavior.answers, strict=True):
        for option in options:
            assert len(gpt2(prompt + option).input_ids) == len(gpt2(prompt).input_ids) + 1
    assert behavior == english_behavior(name, gpt2, 64) != english_behavior(name, gpt2, 64, seed=1)


def test_ioi_has_the_form_of_the_published_set(gpt2, shared_data):
    """In both: two names, the giver again, the other one is right; the published counterfactual
    (corrupted_hard) has the giver exchanged, as here."""
    rows = list(
        csv.DictReader((shared_data / "bench" / "ioi_greaterthan" / "ioi_llama.csv").open())
    )[:50]
    def form(prompt, other, answer=None, wrong=None):
        (giver, taker), *more = [
            (one, two) for one, two in zip(prompt.split(), other.split(), strict=True) if one != two
        ]
        named = [
            sum(word.strip(",.") == name for word in prompt.split()) for name in (giver, taker)
        ]
        return not more and named == [2, 1] and (answer, wrong) in ((None, None), (taker, giver))
    for row in rows: assert form(row["clean"], row["corrupted_hard"])
    mine = english_behavior("ioi", gpt2, 50)
    for prompt, other, (answer,), (wrong,) in zip(
        mine.prompts, mine.counterfactuals, mine.answers, mine.counter_answers, strict=True
    ):
        assert form(prompt, other, answer.strip(), wrong.strip())


def test_greater_than_has_the_form_of_the_published_set(gpt2, shared_data):
    """Prompts end in the century, the counterfactual's year is 01, and all and only two-digit
    numbers above the year are right."""
    rows = list(
        csv.DictReader((shared_data / "bench" / "ioi_greaterthan" / "greater_than_data.csv").open())
    )[:50]
    published = Behavior(
        "greater-than", [row["clean"] for row in rows],
        [[f"{year:02d}" for year in range(int(row["label"]) + 1, 100)] for row in rows],
        [row["corrupted"] for row in rows],
        [[f"{year:02d}" for year in range(2, int(row["label"]) + 1)] for row in rows],
        "probability difference"
    )
    mine = english_behavior("greater-than", gpt2, 50)
    for behavior in (published, mine):
        tokens = behavior.encode(gpt2)
        assert torch.equal(tokens.lengths, tokens.counter_lengths)
        for prompt, other, answers, ids in zip(behavior.prompts, behavior.counterfactuals,
                                               behavior.answers, tokens.answers, strict=True):
            words = prompt.split()
            year = next(word for word in words if len(word) == 4 and word.isdigit())
            assert words[-1] == year[:2] and other == prompt.replace(year, f"{year[:2]}01")
            assert ([int(answer) for answer in answers] == list(range(int(year[2:]) + 1, 100))
                    and int(ids.sum()) == len(answers))


@pytest.mark.parametrize("name", ["simple_test", "nounpp_test", "within_rc_test"])
def test_published_agreement_sets_are_behaviours(gpt2, shared_data, name):
    rows = [json.loads(line) for line in (
                shared_data / "bench" / "sva_feature_circuits" / f"{name}.json"
            ).read_text().splitlines() if line.strip()][:60]
    columns = ([row[key] for row in rows]
               for key in ("clean_prefix", "clean_answer", "patch_prefix", "patch_answer"))
    tokens = Behavior(name, *columns).encode(gpt2)
    assert bool((tokens.answers.sum(1) == 1).all()) and tokens.prompts.shape[0] == len(rows)


def test_a_tokenizer_that_cuts_words_up_leaves_pairs_of_equal_length_or_too_few(shared_data):
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "models" / "stories260K")
    tokens = english_behavior("pronoun", tokenizer, 30).encode(tokenizer)
    assert (len(tokens.prompts) == 30 and torch.equal(tokens.lengths, tokens.counter_lengths)
            and len(set(tokens.lengths.tolist())) > 1)
    with pytest.raises(InputError, match="answers of one token"):
        english_behavior("ioi", tokenizer, 64)


def test_demo_behaviours_and_their_held_out_prompts(demo):
    model, _ = demo
    for name, has_it in (("negation", True), ("binding", False), ("quotation", False)):
        report = behavior_report(model, demo_behavior(name, 30))
        assert (report.worst >= 0.8) is has_it and report.equal_lengths
        if not has_it:
            with pytest.raises(InputError, match="does not have this behaviour"):
                require_behavior(report)
            require_behavior(report, 0.0)
    few = demo_behavior("induction", 40, n_names=3)
    assert len({answer for (answer,) in few.answers}) == 3 and all(
        one != two for one, two in zip(few.prompts, few.counterfactuals, strict=True)
    )
    used = predefined_behavior("agreement", model, 30)
    assert not set(held_out("agreement", model, used, 20).prompts) & set(used.prompts)
    with pytest.raises(InputError, match="choose one of agreement"):
        predefined_behavior("ioi", model)


# ---- metrics and tokens

def test_metrics_against_arithmetic():
    torch.manual_seed(0)
    logits = torch.randn(5, 11).double()
    behavior = Behavior("x", [[1, 2]] * 5, [[0, 3]] * 5, None, [[7]] * 5)
    tokens = encode_behavior(behavior, None, n_vocab=11)
    p = torch.softmax(logits, -1)
    right, wrong = p[:, 0] + p[:, 3], p[:, 7]
    for name, expected in (
        ("logit difference", (right / wrong).log()), ("probability", right),
        ("probability difference", right - wrong), ("cross-entropy", -right.log())
    ):
        assert torch.allclose(METRICS[name](logits, tokens), expected)


def test_a_report_is_what_one_prompt_at_a_time_gives(demo):
    "Also for prompts of several lengths, padded on the right."
    model, _ = demo
    behavior = demo_behavior("sentiment", 8)
    ragged = Behavior("ragged", [prompt.split(" . ", index % 3)[-1]
                                 for index, prompt in enumerate(behavior.prompts)],
                      behavior.answers, None, behavior.counter_answers)
    tokens = ragged.encode(model.tokenizer)
    assert len(set(tokens.lengths.tolist())) > 1
    values = []
    for prompt, answers, others in zip(
        ragged.prompts, ragged.answers, ragged.counter_answers, strict=True
    ):
        with torch.no_grad():
            logits = model(torch.tensor([model.tokenizer(prompt).input_ids]))[0, -1]
        def mass(words, logits=logits):
            return logits[
                [model.tokenizer.convert_tokens_to_ids(word.strip()) for word in words]
            ].logsumexp(0)
        values.append(float(mass(answers) - mass(others)))
    report = behavior_report(model, ragged)
    assert (abs(report.value - sum(values) / len(values)) < 1e-4
            and report.accuracy == sum(value > 0 for value in values) / len(values))


@pytest.mark.parametrize(
    "make, words", [
        (lambda: Behavior("x", [], []), "no prompts"),
        (lambda: Behavior("x", [" "], [" a"], metric="probability"), "empty prompt"),
        (lambda: Behavior("x", ["a"], [" a"], ["b", "c"], metric="probability"),
         "2 counterfactuals"),
        (lambda: Behavior("x", ["a"], [[]], metric="probability"), "no answer"),
        (lambda: Behavior("x", ["a"], metric="probability"), "needs the right answers"),
        (lambda: Behavior("x", ["a"], [" a"]), "compares two answers"),
        (lambda: Behavior("x", ["a"], [" a"], metric="luck"), "'luck'"),
        (lambda: encode_behavior(Behavior("x", ["a"], [" a"], metric="probability"), None),
         "no tokenizer"),
        (lambda: Behavior("x", [[1]], [[2]], metric="probability").take([0]).split(),
         "cannot be split"),
        (lambda: Behavior("x", [[1]], metric=lambda logits, tokens: logits).value(
             torch.zeros(1, 3), None
         ), "one number each"),
    ]
)
def test_refusals(make, words):
    with pytest.raises(InputError, match=words): make()


@pytest.mark.parametrize(
    "answer, words", [(" is happy", "2 tokens"), ("s", "last token|unknown word|tokens"),
                      (" barks", "unknown word"), ("", "0 tokens")]
)
def test_an_answer_that_is_not_one_token_is_refused(demo, answer, words):
    with pytest.raises(InputError, match=words):
        Behavior("x", ["the dog"], [answer], metric="probability").encode(demo[0].tokenizer)


# ---- the ablated model

def sae_of(kind: str, hook_name: str, seed: int, normalise: str = "none"):
    generator = torch.Generator().manual_seed(seed)
    made = {
        "standard": (StandardSAE, StandardSAEConfig, {}),
        "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig, {}), "topk": (TopKSAE, TopKSAEConfig, {"k": 5})
    }[kind]
    config = made[1](
        d_in=16, d_sae=30, normalize_activations=normalise,
        metadata=SAEMetadata(hook_name=hook_name, model_name="tiny", prepend_bos=True), **made[2]
    )
    sae = made[0](config).requires_grad_(False)
    sae.W_enc.data = 0.4 * torch.randn(16, 30, generator=generator)
    sae.W_dec.data = torch.nn.functional.normalize(torch.randn(30, 16, generator=generator), dim=-1)
    sae.b_dec.data = 0.3 * torch.randn(16, generator=generator)
    if kind == "jumprelu": sae.threshold.data.fill_(0.3)
    return sae


def tiny(family: str) -> torch.nn.Module:
    torch.manual_seed(0)
    config = (LlamaConfig(num_hidden_layers=3, hidden_size=16, num_attention_heads=4,
                          num_key_value_heads=2, intermediate_size=32, vocab_size=50) if family
              == "llama" else GPT2Config(n_layer=3, n_embd=16, n_head=4, vocab_size=50,
                                         n_positions=32, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0))
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim == 2: parameter.data.normal_(0, 0.3)
    return model


SETTINGS = [("llama", "standard", "none", ("hook_resid_pre", "hook_resid_mid", "hook_resid_post")),
            ("llama", "jumprelu", "layer_norm", ("hook_resid_pre",) * 3),
            ("gpt2", "topk", "none", ("hook_mlp_out",) * 3),
            ("gpt2", "jumprelu", "constant_norm_rescale", ("hook_attn_out",) * 3),
            ("llama", "jumprelu", "none", ("attn.hook_z",) * 3)]


@pytest.mark.parametrize("family, kind, normalise, hooks", SETTINGS)
@pytest.mark.parametrize("ablation", ABLATIONS)
def test_ablated_model_against_plain_hooks_and_the_saes_own_code(
    family, kind, normalise, hooks, ablation
):
    """Prompts of two lengths, every place an SAE can be at; one prompt at a time, without padding,
    by hooks that call `encode` and `decode`."""
    model = tiny(family)
    saes = {layer: sae_of(kind, f"blocks.{layer}.{hook}", layer, normalise)
            for layer, hook in enumerate(hooks)}
    generator = torch.Generator().manual_seed(7)
    tokens, other = (torch.randint(1, 50, (6, 9), generator=generator) for _ in range(2))
    tokens[:, 0] = other[:, 0] = 0
    lengths = torch.tensor([9, 9, 6, 9, 7, 9]) if ablation != "mean" else torch.full((6,), 9)
    ablated = AblatedModel(model, saes, tokens, lengths, counterfactual=(other, lengths))
    keep = torch.rand(3, ablated.n_features, generator=generator) < torch.tensor(
        [0.1, 0.5, 0.9]
    )[:, None]
    # in several batches
    found = ablated.run(torch.cat([keep, torch.ones(1, ablated.n_features, dtype=torch.bool)]),
                        ablation, max_values=4000)
    assert (found[3] - ablated.clean_logits).abs().max() < 1e-4

    blocks = model.model.layers if family == "llama" else model.transformer.h
    def module_of(layer, hook):
        block = blocks[layer]
        attention = block.self_attn if family == "llama" else block.attn
        return {"hook_resid_pre": (block, "in"), "hook_resid_post": (block, "out"),
                "hook_mlp_out": (block.mlp, "out"), "hook_attn_out": (attention, "out"),
                "attn.hook_z": (attention.o_proj if family == "llama" else attention.c_proj, "in"),
                "hook_resid_mid": (attention, "mid")}[hook]
    def run(row, change=None):
        streams, handles, inputs = {}, [], {}
        def visit(layer, stream):
            streams[layer] = stream.clone()
            return stream if change is None else change(layer, stream)
        for layer, hook in enumerate(hooks):
            module, side = module_of(layer, hook)
            if side == "in":
                def before(m, args, kwargs, layer=layer):
                    stream = visit(layer, args[0] if args else kwargs["hidden_states"])
                    return ((stream, *args[1:]), kwargs) if args else (
                        args, {**kwargs, "hidden_states": stream}
                    )
                handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            else:
                if side == "mid":
                    def note(m, args, kwargs, layer=layer):
                        inputs[layer] = args[0] if args else kwargs["hidden_states"]
                    handles.append(blocks[layer].register_forward_pre_hook(note, with_kwargs=True))
                def after(m, args, output, layer=layer, side=side):
                    value = output[0] if isinstance(output, tuple) else output
                    value = (visit(layer, value + inputs[layer]) - inputs[layer] if side == "mid"
                             else visit(layer, value))
                    return (value, *output[1:]) if isinstance(output, tuple) else value
                handles.append(module.register_forward_hook(after))
        logits = model(row[None]).logits[0, -1]
        for handle in handles: handle.remove()
        return streams, logits

    pool = [run(row[:length])[0] for both in (tokens, other)
            for row, length in zip(both, lengths, strict=True)]
    for row in range(6):
        length = int(lengths[row])
        clean, wrong = run(tokens[row, :length])[0], run(other[row, :length])[0]
        for number in range(3):
            def change(layer, stream, number=number, clean=clean, wrong=wrong):
                sae, kept = saes[layer], keep[number, 30 * layer:30 * layer + 30]
                value = {"mean": lambda: torch.stack(
                             [sae.encode(each[layer])[0] for each in pool]
                         ).mean(0), "zero": lambda: torch.zeros(()),
                         "resample": lambda: sae.encode(wrong[layer])[0]}[ablation]()
                error = clean[layer] - sae.decode(sae.encode(clean[layer]))
                new = sae.decode(torch.where(kept, sae.encode(stream), value)) + error
                new[:, 0] = clean[layer][:, 0]
                return new
            by_hand = run(tokens[row, :length], change)[1]
            assert (by_hand - found[number, row]).abs().max() < 1e-4 * max(
                1.0, float(by_hand.abs().max())
            )


def test_means_of_prompts_of_several_lengths_are_over_all_positions_but_bos():
    model, sae = tiny("llama"), sae_of("standard", "blocks.1.hook_resid_pre", 1)
    tokens = torch.randint(1, 50, (4, 8), generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([8, 5, 6, 8])
    ablated = AblatedModel(model, {1: sae}, tokens, lengths)
    rows = torch.cat(
        [ablated.places[0].clean[row, 1:length] for row, length in enumerate(lengths.tolist())]
    )
    assert torch.allclose(ablated.mean[0], sae.encode(rows).mean(0).expand(8, -1), atol=1e-5)
    fired = torch.zeros(30, dtype=torch.bool)
    assert torch.equal(ablated.active(), fired | (sae.encode(rows) > 0).any(0))


def test_what_the_ablated_model_refuses():
    model, saes = tiny("llama"), {1: sae_of("standard", "blocks.1.hook_resid_pre", 1)}
    tokens = torch.randint(1, 50, (4, 8), generator=torch.Generator().manual_seed(1))
    ablated = AblatedModel(model, saes, tokens)
    for ask, words in (
        (lambda: ablated.run(torch.ones(1, 30), "resample"),
         "needs a counterfactual of equal length"),
        (lambda: ablated.mask(["L1_F30"]), "features 0 to 29"),
        (lambda: AblatedModel(model, {}, tokens), "no SAE"),
        (lambda: AblatedModel(model, saes, tokens, counterfactual=(tokens, torch.full((4,), 7))),
         "equal length")
    ):
        with pytest.raises(InputError, match=words): ask()
