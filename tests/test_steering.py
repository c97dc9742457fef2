"""Steering: against hooks written by hand, effect matrices against finite differences, compensation
against closed forms, and what is refused."""
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from sae_lens import JumpReLUSAE, JumpReLUSAEConfig, StandardSAE, StandardSAEConfig
from sae_lens.saes.sae import SAEMetadata
from scipy.optimize import lsq_linear
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from feature_interaction_graph.control.clamps import Clamp
from feature_interaction_graph.control.contexts import (
    ContextRuns, Contexts, activations, choose_contexts, feature_ranges, logit_difference
)
from feature_interaction_graph.control.effects import EffectMatrix, clamp_values, measure_effects
from feature_interaction_graph.control.fit import bounded_quadratic
from feature_interaction_graph.engine.corpus import as_corpus
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.planted.models import plant, plant_gate
from feature_interaction_graph.planted.wiring import Edge, Input, Wiring
from feature_interaction_graph.steering import fit_compensation, steer, steer_compensated, steering

HOOKS = {1: "blocks.1.hook_resid_pre", 2: "blocks.1.hook_mlp_out", 3: "blocks.2.hook_resid_post"}


def random_model(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if kind == "llama":
        config = LlamaConfig(
            num_hidden_layers=3, hidden_size=16, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=32, vocab_size=50, bos_token_id=0, eos_token_id=1
        )
    else:
        config = GPT2Config(n_layer=3, n_embd=16, n_head=2, vocab_size=50, n_positions=32,
                            bos_token_id=0, eos_token_id=1)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim == 2: parameter.data.normal_(0, 0.3)
    return model


def random_sae(hook_name: str, seed: int, normalise: str = "none"):
    generator = torch.Generator().manual_seed(seed)
    sae = JumpReLUSAE(
        JumpReLUSAEConfig(
            d_in=16, d_sae=30, normalize_activations=normalise,
            metadata=SAEMetadata(hook_name=hook_name, model_name="tiny", prepend_bos=True)
        )
    ).requires_grad_(False)
    sae.W_enc.data = torch.randn(16, 30, generator=generator)
    sae.W_dec.data = torch.nn.functional.normalize(torch.randn(30, 16, generator=generator), dim=-1)
    sae.threshold.data.fill_(0.5)
    return sae


@pytest.fixture(scope="module")
def saes() -> dict:
    return {layer: random_sae(name, layer, "layer_norm" if layer == 1 else "none")
            for layer, name in HOOKS.items()}


@pytest.fixture(scope="module")
def corpus():
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(2, 50, (60, 12), generator=generator)
    tokens[:, 0] = 0
    return as_corpus(tokens, lengths=torch.randint(4, 13, (60,), generator=generator), bos_id=0)


@pytest.fixture(scope="module")
def llama(saes, corpus):
    model = random_model("llama")
    return model, feature_ranges(model, saes, corpus, min_firings=3, progress=False)


def by_hand(model, saes, tokens, doses, where):
    """Logits and encodings of one sequence with hooks of this test's own; `doses`: {(layer,
    feature): function of the activation}."""
    blocks = model.model.layers if hasattr(model, "model") else model.transformer.h
    encoded = {}
    def change(layer, stream):
        value, moved = saes[layer].encode(stream), stream.clone()
        scale = stream.std(-1, keepdim=True) if layer == 1 else 1.0
        for (at, feature), dose in doses.items():
            if at == layer:
                moved += where[None, :, None] * (
                    dose(value[..., feature]) - value[..., feature]
                )[..., None] * scale * saes[layer].W_dec[feature]
        encoded[layer] = saes[layer].encode(moved)[0]
        return moved
    def first(output): return output[0] if isinstance(output, tuple) else output
    def swapped(output, new): return (new, *output[1:]) if isinstance(output, tuple) else new
    handles = [
        blocks[1].register_forward_pre_hook(
            lambda module, args, kwargs: ((change(1, args[0]), *args[1:]), kwargs), with_kwargs=True
        ), blocks[1].mlp.register_forward_hook(lambda module, args, output: change(2, output)),
        blocks[2].register_forward_hook(
            lambda module, args, output: swapped(output, change(3, first(output)))
        )
    ]
    try: logits = model(tokens[None]).logits[0]
    finally:
        for handle in handles: handle.remove()
    return logits, encoded


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_steered_run_is_that_of_hooks_written_by_hand(kind, saes, corpus):
    """Three hook kinds, a normalising SAE, set and add, several features of a layer, ragged
    sequences, values that differ by token."""
    model, some = random_model(kind), corpus.take(torch.arange(7))
    varying = torch.rand(some.tokens.shape) + 0.2
    clamps = [Clamp(1, 3, 1.5), Clamp(1, 8, -0.6, "add"), Clamp(2, 5, varying),
              Clamp(3, 4, 2.0, "add", high=1.0, share=0.5)]
    run = steer(model, saes, some, clamps, read=[(3, 11), (2, 7)], batch_size=3)
    for row, length in enumerate(some.lengths.tolist()):
        where = torch.arange(length) > 0                                  # BOS is left alone
        # what is above the limit stays
        doses = {
            (1, 3): lambda value: torch.full_like(value, 1.5),
            (1, 8): lambda value: (value - 0.6).clamp(min=0),
            (2, 5): lambda value, row=row, length=length: varying[row, :length].expand_as(value),
            (3, 4): lambda value: value + 0.5 * ((value + 2.0).clamp(max=1.0) - value).clamp(min=0)
        }
        logits, encoded = by_hand(model, saes, some.tokens[row, :length], doses, where)
        torch.testing.assert_close(run.logits[row, :length], logits, atol=1e-4, rtol=1e-4)
        slow = torch.stack([encoded[layer][:, feature] for layer, feature in run.features], -1)
        torch.testing.assert_close(run.steered[row, :length], slow, atol=1e-4, rtol=1e-4)
        clean, encoded = by_hand(model, saes, some.tokens[row, :length], {}, where)
        torch.testing.assert_close(run.clean_logits[row, :length], clean, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            run.clean[row, :length, -1], encoded[2][:, 7], atol=1e-5, rtol=1e-5
        )
    assert (run.logits - run.clean_logits).abs().max() > 0.5


def test_kl_and_losses_are_those_of_the_distributions(llama, saes, corpus):
    run = steer(llama[0], saes, corpus.take(torch.arange(3)), {(1, 3): 2.0})
    for row, length in enumerate(run.corpus.lengths.tolist()):
        clean = run.clean_logits[row, :length].double().softmax(-1)
        steered = run.logits[row, :length].double().softmax(-1)
        np.testing.assert_allclose(
            run.kl[row, :length], (clean * (clean.log() - steered.log())).sum(-1), atol=1e-5
        )
        assert (run.kl[row, length:] == 0).all()
        expected = torch.nn.functional.cross_entropy(
            run.logits[row, : length - 1], run.corpus.tokens[row, 1:length], reduction="none"
        )
        np.testing.assert_allclose(run.losses[1][row, : length - 1], expected, atol=1e-5)
        assert run.losses[1][row, length - 1:].isnan().all()


def test_positions(llama, saes, corpus):
    "The rules steer where they say: as the mask that says the same."
    model, some = llama[0], corpus.take(torch.arange(6))
    columns = torch.arange(some.tokens.shape[1])
    def logits(positions, dose=2.0):
        return steer(model, saes, some, {(1, 3): dose}, positions=positions).logits
    everywhere = (columns[None] > 0) & (columns[None] < some.lengths[:, None])
    inside = columns[None] < some.lengths[:, None]
    torch.testing.assert_close(logits("all")[inside], logits(everywhere)[inside])
    last = columns[None] == some.lengths[:, None] - 1
    torch.testing.assert_close(logits("last")[inside], logits(last)[inside])
    fires = steer(model, saes, some, {(1, 3): 2.0}).clean[..., 0] > 0
    assert fires.any() and not fires.all()
    torch.testing.assert_close(logits("firing")[inside], logits(fires & everywhere)[inside])
    trigger = steer(model, saes, some, {(1, 3): 2.0}, read=[(1, 9)]).clean[..., 1] > 0
    torch.testing.assert_close(logits((1, 9))[inside], logits(trigger & everywhere)[inside])
    assert (logits("firing") - logits("all"))[inside].abs().max() > 1e-3 < (
        logits("last") - logits("firing")
    )[inside].abs().max()


def test_later_clamps_read_the_run_as_steered(llama, saes, corpus):
    """A clamp of a later layer ends at its dose whatever an earlier clamp has done: its own reading
    moves by the dose less what it finds."""
    model, some = llama[0], corpus.take(torch.arange(5))
    both = steer(model, saes, some, {(1, 3): 3.0, (3, 4): 1.0})
    alone = steer(model, saes, some, {(1, 3): 3.0}, read=[(3, 4)])
    hand, _ = by_hand(
        model, saes, some.tokens[0, : some.lengths[0]],
        {(1, 3): lambda value: torch.full_like(value, 3.0),
         (3, 4): lambda value: torch.full_like(value, 1.0)}, torch.arange(int(some.lengths[0])) > 0
    )
    torch.testing.assert_close(both.logits[0, : some.lengths[0]], hand, atol=1e-4, rtol=1e-4)
    assert (alone.steered[..., 1] - alone.clean[..., 1]).abs().max() > 0.1


def test_generation_is_steered(llama, saes):
    model, prompt = llama[0], torch.tensor([[0, 7, 9, 11]])
    with steering(model, saes, {(1, 3): 4.0, (3, 4): 1.0}) as hf:
        written = hf.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=5,
                              do_sample=False, pad_token_id=0)[0].tolist()
    slowly = prompt[0].tolist()
    while len(slowly) < len(written):
        slowly.append(
            int(steer(model, saes, [slowly], {(1, 3): 4.0, (3, 4): 1.0}).logits[0, -1].argmax())
        )
    plain = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=5,
                           do_sample=False, pad_token_id=0)[0].tolist()
    assert written == slowly and plain != written[: len(plain)]


def test_effects_are_finite_differences(llama, saes, corpus):
    "The matrix of every context, measured in rows, against two plain steered passes per source."
    model, ranges = llama
    places = choose_contexts(ranges, (1, 3), 6)
    steered = [Clamp(1, 3, 0.4)]
    sources = [(1, 8), (2, 5), (3, 4)]
    steps = np.array([0.3, 0.5, 0.7])
    runs = ContextRuns(model, saes, places, 1, {layer: np.arange(30) for layer in saes},
                       {"m": logit_difference(5, 6)})
    matrix = measure_effects(runs, sources, steps, steered=steered, contexts_at_once=2)
    watched = [(3, feature) for feature in range(30)]
    base = steer(model, saes, places, steered, read=watched)
    for row, (source, step) in enumerate(zip(sources, steps, strict=True)):
        raised = steer(
            model, saes, places, [*steered, Clamp(*source, float(step), "add")], read=watched
        )
        at = ([raised.features.index(key) for key in watched],
              [base.features.index(key) for key in watched])
        change = (
            raised.steered[raised.where][:, at[0]] - base.steered[base.where][:, at[1]]
        ).numpy() / step
        np.testing.assert_allclose(
            matrix.activation[row, matrix.columns(watched)], change.mean(0), atol=1e-3
        )
        logits = [run.logits[run.where] for run in (raised, base)]
        metric = (
            (logits[0][:, 5] - logits[0][:, 6]) - (logits[1][:, 5] - logits[1][:, 6])
        ).numpy() / step
        np.testing.assert_allclose(matrix.samples[:, row, -1], metric, atol=1e-3)
    assert np.abs(matrix.pre).max() > 0.1 and np.abs(matrix.samples.std(0)).max() > 1e-3


def test_matrix_fit_is_the_equality_constrained_least_squares_solution():
    "Against the KKT system; the target's row is exactly kept in every layer."
    random = np.random.default_rng(0)
    sources = [(0, 0)] + [(0, index) for index in range(1, 6)] + [(1, index) for index in range(5)]
    targets = [(2, index) for index in range(15)]
    matrix = EffectMatrix(sources, targets, random.normal(size=(11, 15)),
                          random.normal(size=(11, 15)), random.uniform(0.5, 2, 15))
    plan = fit_compensation(matrix, {(0, 0): 1.3}, (2, 4), ridge=1e-3)
    rows, keep = matrix.rows(sources[1:]), [at for at in range(15) if at != 4]
    effects = (matrix.pre[rows][:, keep] / matrix.std[keep]).T
    gram = effects.T @ effects + 1e-3 * (effects**2).mean() * np.eye(10)
    layers = np.array([layer for layer, _ in sources[1:]])
    equal = np.stack([matrix.pre[rows, 4] * (layers == layer) for layer in (0, 1)])
    right = np.concatenate(
        [-effects.T @ (1.3 * matrix.pre[0, keep] / matrix.std[keep]), np.zeros(2)]
    )
    exact = np.linalg.solve(np.block([[gram, equal.T], [equal, np.zeros((2, 2))]]), right)[:10]
    np.testing.assert_allclose(list(plan.shifts.values()), exact, atol=1e-5)
    assert abs(plan.compensated[4] - plan.naive[4]) < 1e-6
    assert np.linalg.norm(plan.compensated[keep] / matrix.std[keep]) < np.linalg.norm(
        plan.naive[keep] / matrix.std[keep]
    )
    bounded = fit_compensation(
        matrix, {(0, 0): 1.3}, (2, 4), bounds={(0, 1): (0.0, 0.1), (1, 2): (-0.05, 0.0)}
    )
    assert (
        -1e-9 <= bounded.shifts[0, 1] <= 0.1 + 1e-9 and -0.05 - 1e-9 <= bounded.shifts[1, 2] <= 1e-9
    )


@pytest.mark.parametrize("seed", range(4))
def test_bounded_quadratic_against_scipy(seed):
    random = np.random.default_rng(seed)
    matrix, wanted = random.normal(size=(5, 40, 25)), 4 * random.normal(size=(5, 40))
    gram, side = matrix.transpose(0, 2, 1) @ matrix, np.einsum("nij,ni->nj", matrix, wanted)
    low = -random.uniform(0, 0.5, (5, 25))
    high = random.uniform(0, 0.5, (5, 25)) * (random.random((5, 25)) > 0.3)
    found = bounded_quadratic(gram, side, np.zeros((5, 0, 25)), low, high, steps=300, polish=10)
    for index in range(5):
        exact = lsq_linear(
            matrix[index], wanted[index], bounds=(low[index], high[index] + 1e-12), tol=1e-12
        ).x
        best, mine = (
            np.linalg.norm(matrix[index] @ x - wanted[index]) for x in (exact, found[index])
        )
        assert mine <= best * (1 + 1e-4)
    assert (found >= low).all() and (found <= high).all() and ((found == high) & (high > 0)).any()


def wired(negative: float = 0.0):
    drawn = [Input(variable, rate=1.0, low=2.5, high=3.5) for variable in (2, 3, 4)]
    drawn += [Input(0, rate=0.6), Input(1, rate=1.0, low=1.0, high=1.5),
              Input(5, rate=1.0, low=1.0, high=1.5)]
    edges = [Edge(0, 2, 1, 0.8), Edge(0, 3, 1, 0.7), Edge(0, 4, 1, -0.5), Edge(1, 3, 1, -0.9),
             Edge(1, 4, 1, 0.3), Edge(5, 4, 1, 0.8)]
    planted = plant(Wiring(6, 2, drawn, edges), negative=negative)
    ranges = feature_ranges(
        planted.model, planted.saes, planted.corpus(80, 16, seed=1), progress=False
    )
    return planted, ranges, lambda layer, variable: (layer, planted.feature(layer, variable))


def test_linear_wiring_is_cancelled_exactly_and_the_target_keeps_its_effect():
    planted, ranges, key = wired()
    places = choose_contexts(ranges, key(1, 0), 16)
    sides = [key(2, 3), key(2, 4)]
    plan = steer_compensated(
        planted.model, planted.saes, places, [Clamp(*key(1, 0), 0.3, "add")], key(2, 2), ranges,
        protect=sides, rest=0.0, ridge=1e-9, compensators=[key(1, 1), key(1, 5)], corrections=0
    )
    run = steer(planted.model, planted.saes, plan.contexts, plan.clamps, read=[key(2, 2), *sides])
    alone = steer(
        planted.model, planted.saes, plan.contexts, plan.steered, read=[key(2, 2), *sides]
    )
    change, naive = run.change[run.where][:, -3:], alone.change[alone.where][:, -3:]
    assert change[:, 1:].abs().max() < 1e-4 and naive[:, 1:].abs().min() > 0.1
    torch.testing.assert_close(change[:, 0], naive[:, 0], atol=1e-4, rtol=0)
    # a linear model does what was foreseen
    np.testing.assert_allclose(plan.compensated, plan.predicted, atol=1e-4)


def test_a_compensator_cannot_go_below_zero():
    """v0 raised makes v3 rise, so v1 has to rise, and stops at its limit; v0 set to 0 lets v3 fall,
    so v1 has to fall, and stops at 0."""
    planted, ranges, key = wired()
    places = choose_contexts(ranges, key(1, 0), 16)
    def plan(shift, room=1.2):
        return steer_compensated(
            planted.model, planted.saes, places, [Clamp(*key(1, 0), shift, "add")], key(2, 2),
            ranges, protect=[key(2, 3)], rest=0.0, ridge=1e-9, compensators=[key(1, 1)], room=room
        )
    usual = float(ranges.usual(*key(1, 1)[:1], [key(1, 1)[1]])[0])
    for shift, room in ((0.5, 1.2), (20.0, 1.2), (20.0, 3.0)):
        found = plan(shift, room)
        run = steer(planted.model, planted.saes, found.contexts, found.clamps)
        value = run.steered[run.where][:, run.features.index(key(1, 1))]
        assert value.min() >= -1e-5 and value.max() <= room * usual + 1e-4
    assert (plan(20.0).shifts < plan(20.0, 3.0).shifts).all()
    lowered = steer_compensated(
        planted.model, planted.saes, places, {key(1, 0): 0.0}, key(2, 2), ranges,
        protect=[key(2, 3)], rest=0.0, ridge=1e-9, compensators=[key(1, 1)]
    )
    value = activations(lowered.clean, lowered.threshold)[:, lowered.column(*key(1, 1))]
    assert (lowered.shifts[:, 0] >= -value - 1e-5).all() and (lowered.shifts < 0).any()


def test_what_cannot_be_separated_is_said():
    tied = plant(
        Wiring(4, 3, [Input(0, rate=0.6), Input(1, rate=1.0, low=1.0, high=1.5),
                      Input(2, rate=1.0, low=3.0, high=4.0), Input(3, rate=1.0, low=3.0, high=4.0)],
               [Edge(0, 2, 1, 0.8), Edge(1, 2, 1, 0.4), Edge(2, 3, 2, 0.5)]), negative=0.0
    )
    ranges = feature_ranges(tied.model, tied.saes, tied.corpus(80, 16, seed=1), progress=False)
    def key(layer, variable): return layer, tied.feature(layer, variable)
    places = choose_contexts(ranges, key(1, 0), 12)
    with pytest.warns(UserWarning, match="cannot be separated from the target") as said:
        plan = steer_compensated(tied.model, tied.saes, places, {key(1, 0): 0.0}, key(2, 2), ranges,
                                 protect=[key(3, 3)], compensators=[key(1, 1)])
    assert plan.inseparable == [key(3, 3)] and "\n" not in str(said[0].message)
    with warnings.catch_warnings():
        # a clamp of v3 itself does separate them
        warnings.simplefilter("error")
        steer_compensated(tied.model, tied.saes, places, {key(1, 0): 0.0}, key(2, 2), ranges,
                          protect=[key(2, 3)], compensators=[key(2, 3)])


def test_gates_are_measured_where_they_are_open():
    "An AND gate: the source acts only where the gate is on; a compensator is asked for only there."
    planted = plant_gate("AND", negative=0.0)
    ranges = feature_ranges(
        planted.model, planted.saes, planted.corpus(120, 16, seed=1), progress=False
    )
    source = (0, planted.feature(0, 0))
    places = choose_contexts(ranges, source, 40)
    runs = ContextRuns(planted.model, planted.saes, places, 0,
                       {layer: ranges.live(layer) for layer in planted.saes})
    rows = np.arange(len(places))
    change = runs.run(rows, clamp_values(runs, [Clamp(*source, 0.0)], rows)).pre - runs.clean
    gated = np.abs(change[:, runs.column(1, planted.feature(1, 2))])
    gate = runs.column(0, planted.feature(0, 1))
    on = runs.clean[:, gate] > runs.threshold[gate]
    assert gated[on].min() > 0.1 and gated[~on].max() < 1e-4 and on.any() and (~on).any()


def test_metrics_of_the_output_can_be_protected(llama, saes, corpus):
    model, ranges = llama
    places = choose_contexts(ranges, (1, 3), 10)
    target = (3, int(ranges.live(3)[0]))
    metric = {"5 - 6": logit_difference(5, 6)}
    plan = steer_compensated(
        model, saes, places, {(1, 3): 0.0}, target, ranges, protect=[(3, int(ranges.live(3)[1]))],
        metrics=metric, rest=0.0, n_compensators=40, corrections=2, ridge=1e-3
    )
    run = steer(model, saes, plan.contexts, plan.clamps)
    logits, clean = run.logits[run.where], run.clean_logits[run.where]
    moved = ((logits - clean)[:, 5] - (logits - clean)[:, 6]).numpy()
    np.testing.assert_allclose(moved, (plan.compensated - plan.clean)[:, -1], atol=1e-3)
    assert np.abs(moved).mean() < 0.3 * np.abs((plan.naive - plan.clean)[:, -1]).mean()


def test_fewer_clamps_and_shared_shifts(llama, saes, corpus):
    model, ranges = llama
    first, second = choose_contexts(ranges, (1, 3), 20).split()
    target = (3, int(ranges.live(3)[0]))
    def plan(places=first, **how):
        return steer_compensated(
            model, saes, places, {(1, 3): 0.0}, target, ranges, n_compensators=40, **how
        )
    few, many = plan(max_clamps=3), plan()
    assert (few.used.sum(1).max() <= 3 < many.n_clamps
            and many.side_effect().mean() < few.side_effect().mean())
    assert (len(many.rounds) == 1 and many.side_effect().mean()
            < many.rounds[0].side_effect().mean() < many.side_effect("naive").mean())
    shared = plan(shared=True, max_clamps=5, ridge=3.0)
    there = shared.at(second)
    assert ((shared.shifts == shared.shifts[0]).all()
            and (there.shifts[0] == shared.shifts[0]).all() and shared.used[0].sum() <= 5)
    run = steer(model, saes, there.contexts, there.clamps, read=[target])
    np.testing.assert_allclose(
        run.change[run.where][:, run.features.index(target)].numpy()
        / there.std[there.column(*target)], there.change()[:, there.column(*target)], atol=1e-3
    )
    again = many.at(second)
    assert len(again.contexts) == len(second) and not np.allclose(
        again.shifts[: len(many.shifts)], many.shifts[: len(again.shifts)]
    )


def test_a_correction_leaves_no_context_worse(llama, saes, corpus):
    """What the fit minimises (price of shifts left out) never rises from one round to the next; the
    corrections do change something."""
    model, ranges = llama
    places, target = choose_contexts(ranges, (1, 3), 10), (3, int(ranges.live(3)[0]))
    plan = steer_compensated(model, saes, places, {(1, 3): 0.0}, target, ranges, n_compensators=40,
                             corrections=3, ridge=1e-9)
    def cost(one):
        missed = (one.change() - one.change("naive"))[:, one.column(*target)]
        return one.side_effect() ** 2 + missed**2
    costs = np.array([cost(one) for one in [*plan.rounds, plan]])
    assert (np.diff(costs, axis=0) <= 1e-4).all() and costs[-1].mean() < 0.99 * costs[0].mean()


def test_a_given_matrix_is_used_instead_of_measuring(llama, saes, corpus):
    """The matrix measured at the same contexts gives, averaged, what a single context with those
    effects would get."""
    model, ranges = llama
    places = choose_contexts(ranges, (1, 3), 6).take([0])
    target, pool = (3, int(ranges.live(3)[0])), [(1, 8), (1, 12), (1, 5), (1, 20), (2, 5), (2, 9)]
    watched = {layer: np.union1d(ranges.live(layer), [3] if layer == 1 else []).astype(int)
               for layer in saes}
    runs = ContextRuns(model, saes, places.compact(), 1, watched)
    units = np.array(
        [max(float(ranges.usual(layer, [feature])[0]), 1e-3) for layer, feature in pool]
    )
    matrix = measure_effects(runs, pool, 0.5 * units, steered=[Clamp(1, 3, 0.0)])
    how = {"compensators": pool, "corrections": 0}
    given, measured = (steer_compensated(model, saes, places, {(1, 3): 0.0}, target, ranges,
                                         effects=effects, **how) for effects in (matrix, None))
    np.testing.assert_allclose(given.shifts, measured.shifts, atol=1e-4)
    assert np.abs(measured.shifts).max() > 1e-3
    nothing = steer_compensated(model, saes, places, {(1, 3): 0.0}, target, ranges,
                                effects=replace(matrix, pre=0 * matrix.pre), **how)
    # who has no effects is not used
    assert np.abs(nothing.shifts).max() < 1e-6


def test_what_is_refused(llama, saes, corpus):
    model, ranges = llama
    places, target = choose_contexts(ranges, (1, 3), 8), (3, int(ranges.live(3)[0]))
    def plan(interventions=None, goal=target, **how):
        return steer_compensated(
            model, saes, places, interventions or {(1, 3): 0.0}, goal, ranges, **how
        )
    questions = {
        "does not exist": [
            lambda: steer(model, saes, corpus, {(1, 30): 1.0}), lambda: plan(protect=[(3, 99)]),
            lambda: plan({(1, 30): 1.0}), lambda: plan(compensators=[(1, 77)])
        ],
        "SAEs are loaded for layers": [lambda: steer(model, saes, corpus, {(7, 0): 1.0})],
        "never negative": [lambda: steer(model, saes, corpus, {(1, 3): -1.0})],
        "steered twice": [lambda: steer(model, saes, corpus, [(1, 3, 1.0), (1, 3, 2.0)])],
        "no intervention": [lambda: steer(model, saes, corpus, {})],
        "mask of positions": [
            lambda: steer(model, saes, corpus, {(1, 3): 1.0}, positions=torch.ones(2, 2))
        ],
        "positions is": [lambda: steer(model, saes, corpus, {(1, 3): 1.0}, positions="middle")],
        "comes before it": [lambda: steer(model, saes, corpus, {(1, 3): 1.0}, positions=(3, 4))],
        "no tokenizer": [lambda: steer(model, saes, "a prompt", {(1, 3): 1.0})],
        "includes the target": [lambda: plan(protect=[target])],
        "which is steered": [lambda: plan(protect=[(1, 3)])],
        "both steered and the target": [lambda: plan(goal=(1, 3))],
        "not downstream": [lambda: plan(goal=(1, 5))],
        "most it reaches": [lambda: plan({(1, 3): 1e3})],
        "no compensator is left": [
            lambda: plan(compensator_layers=[]), lambda: plan(compensators=[])
        ],
        "cannot compensate": [
            lambda: plan(compensators=[target]), lambda: plan(compensators=[(1, 3)])
        ],
        "is empty": [lambda: EffectMatrix([], [], np.zeros((0, 0)), np.zeros((0, 0)), np.zeros(0))],
        "beyond the end": [lambda: Contexts(corpus, np.array([0]), np.array([40]))],
        "no contexts": [lambda: Contexts(corpus, np.array([], int), np.array([], int))],
    }
    for words, asked in questions.items():
        for ask in asked:
            with pytest.raises(InputError, match=words) as refusal: ask()
            assert str(refusal.value).endswith(".") and "\n" not in str(refusal.value)


def test_standard_and_topk_saes(corpus):
    """A standard SAE works everywhere; a TopK one can be steered but not watched in rows, and says
    so."""
    from sae_lens import TopKSAE, TopKSAEConfig
    model = random_model("llama")
    def make(kind, config, **how):
        torch.manual_seed(5)
        sae = kind(config(d_in=16, d_sae=30, metadata=SAEMetadata(
                              hook_name=HOOKS[1], model_name="tiny", prepend_bos=True
                          ), **how)).requires_grad_(False)
        sae.W_enc.data.normal_()
        return sae
    for sae in (make(StandardSAE, StandardSAEConfig), make(TopKSAE, TopKSAEConfig, k=4)):
        run = steer(model, {1: sae}, corpus.take(torch.arange(2)), {(1, 3): 2.0})
        stream = model(corpus.tokens[:1], output_hidden_states=True).hidden_states[1]
        torch.testing.assert_close(
            run.clean[0, :, 0], sae.encode(stream)[0, : run.clean.shape[1], 3], atol=1e-4, rtol=1e-4
        )
    ranges = feature_ranges(model, {1: sae}, corpus, progress=False)
    with pytest.raises(InputError, match="TopK"):
        ContextRuns(
            model, {1: sae}, Contexts(corpus, np.array([0]), np.array([1])), 1, {1: ranges.live(1)}
        )
