"""Transcoders and several SAEs in one block at every stage behind the measurement of an edge: each
against plain hooked passes of the same model, and the same from a list or by hook name."""
import contextlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from test_own_saes import (
    ALL, SITES, hooked, own_sae, part_of, plain_effects, stream_at, tiny, tokens
)
from torch import Tensor
from transformers import GPT2LMHeadModel

from feature_interaction_graph import Config, InputError, number_saes, sae_from_weights
from feature_interaction_graph.engine.corpus import as_corpus

__all__ = ["tiny", "tokens"]

IN, OUT = "blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out"
LATER = "blocks.2.hook_resid_post"


@pytest.fixture(scope="module")
def across() -> dict:
    "A transcoder of the MLP of block 1, and an SAE of the stream after block 2."
    return number_saes([own_sae(IN, 4, hook_out=OUT), own_sae(LATER, 5)])


def often(model: GPT2LMHeadModel, tokens: Tensor, sae, hook: str) -> tuple[int, Tensor]:
    "The latent that fires most, and its activations `[n_seq, length]`."
    active = sae.encode(stream_at(model, tokens, hook))
    feature = int((active != 0).sum((0, 1)).argmax())
    return feature, active[..., feature]


def slope(model: GPT2LMHeadModel, tokens: Tensor, unit: Tensor, target, at: int) -> Tensor:
    "d pre_j(at) / d (unit at the same position of OUT), of one sequence, by reverse derivatives."
    size = torch.zeros((), requires_grad=True)
    def push(stream: Tensor) -> Tensor:
        added = torch.zeros_like(stream)
        added[0, at] = unit
        return stream + size * added
    with torch.enable_grad(), hooked(part_of(model, OUT), push):
        pre = stream_at(model, tokens, LATER)[0, at] @ target.W_enc + target.b_enc
    return torch.stack([torch.autograd.grad(one, size, retain_graph=True)[0] for one in pre])


# -- derivatives

@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_slopes_of_a_transcoder_begin_where_it_writes(tiny, tokens, across, mode):
    from feature_interaction_graph import jacobian_measure
    feature, active = often(tiny, tokens, across[1], IN)
    table = jacobian_measure(tiny, across, [(1, feature)], tokens, mode=mode,
                             through_threshold=False, **ALL).to_pandas().sort_values("tgt_feature")
    expected = torch.stack([
        slope(tiny, tokens[row:row + 1], across[1].W_dec[feature], across[2], at)
        for row, at in active.nonzero().tolist()]).mean(0)
    np.testing.assert_allclose(table.strength, expected, atol=1e-5)
    assert float(expected.abs().max()) > 0.01


def test_transport_of_a_transcoder_is_its_mean_slope(tiny, tokens, across):
    from feature_interaction_graph import transport_scores
    scores = transport_scores(tiny, across, tokens, n_probes=150, n_groups=6, progress=False)
    assert scores.pairs == [(1, 2, 0)]
    sources = torch.tensor([3, 11])
    found, error = (read(1, 2, sources=sources)
                    for read in (scores.scores, scores.standard_errors))
    for row, source in enumerate(sources.tolist()):
        expected = torch.stack([
            slope(tiny, tokens[which:which + 1], across[1].W_dec[source], across[2], at)
            for which in range(len(tokens)) for at in range(tokens.shape[1])]).mean(0)
        assert torch.corrcoef(torch.stack([found[row], expected]))[0, 1] > 0.95
        assert float(((found[row] - expected) / error[row]).abs().median()) < 1.5


def test_a_neuron_is_not_carried_by_the_stream(tiny, tokens):
    from feature_interaction_graph import transport_scores
    from feature_interaction_graph.measurement.parts import neuron_dictionary
    saes = number_saes([neuron_dictionary(tiny, 1), own_sae(LATER, 5)])
    scores = transport_scores(tiny, saes, tokens, n_probes=150, progress=False)
    row = tiny.transformer.h[1].mlp.c_proj.weight[7]
    expected = torch.stack([slope(tiny, tokens[which:which + 1], row, saes[2], at)
                            for which in range(len(tokens)) for at in range(tokens.shape[1])])
    found = scores.scores(1, 2, sources=torch.tensor([7]))[0]
    assert torch.corrcoef(torch.stack([found, expected.mean(0)]))[0, 1] > 0.9


# -- importance

def losses(model: GPT2LMHeadModel, tokens: Tensor) -> Tensor:
    logits = model(tokens).logits[:, :-1].log_softmax(-1)
    return -logits.gather(-1, tokens[:, 1:, None])[..., 0].sum(-1)


def test_importance_of_a_transcoder_is_that_of_what_it_writes(tiny, tokens, across, tmp_path):
    from feature_interaction_graph.activations import ablation_effects, collect_activations
    cfg = Config(output_dir=str(tmp_path), n_importance_tokens=10_000)
    store = collect_activations(tiny, across, cfg, as_corpus(tokens), progress=False)
    active = across[1].encode(stream_at(tiny, tokens, IN))
    written = torch.zeros(*tokens.shape, across[1].W_dec.shape[1], requires_grad=True)
    with torch.enable_grad(), hooked(part_of(tiny, OUT), lambda stream: stream + written):
        (gradient,) = torch.autograd.grad(losses(tiny, tokens).sum(), written)
    worth = (active * (gradient @ across[1].W_dec.T)).flatten(0, 1)
    facts = store.statistics(1)
    np.testing.assert_allclose(facts["signed_importance"], worth.mean(0), atol=1e-5)
    np.testing.assert_allclose(facts["importance"], worth.abs().mean(0), atol=1e-5)

    feature, values = often(tiny, tokens, across[1], IN)
    places = values.nonzero()[:6]
    found = ablation_effects(tiny, across[1], tokens, torch.full((6,), tokens.shape[1]),
                             places[:, 0], places[:, 1], torch.full((len(places),), feature))
    for (row, at), effect in zip(places.tolist(), found.tolist(), strict=True):
        def without(stream: Tensor, row: int = row, at: int = at) -> Tensor:
            changed = stream.clone()
            changed[0, at] -= values[row, at] * across[1].W_dec[feature]
            return changed
        with hooked(part_of(tiny, OUT), without): later = losses(tiny, tokens[row:row + 1])
        np.testing.assert_allclose(effect, later - losses(tiny, tokens[row:row + 1]), atol=1e-4)
    assert found.abs().max() > 1e-3


def test_logit_effect_of_a_transcoder_is_of_what_it_writes(tiny, tokens, across, tmp_path):
    from feature_interaction_graph.features import feature_logit_effect
    from feature_interaction_graph.activations import collect_activations
    cfg = Config(output_dir=str(tmp_path), importance_method="frequency")
    store = collect_activations(tiny, list(across.values()), cfg, as_corpus(tokens), progress=False)
    feature, active = often(tiny, tokens, across[1], IN)
    found = feature_logit_effect(tiny, list(across.values()), 1, feature, store)
    last = stream_at(tiny, tokens, "blocks.3.hook_resid_post")[active != 0]
    moved = torch.func.jvp(tiny.transformer.ln_f, (last,),
                           (across[1].W_dec[feature].expand_as(last),))[1]
    effect = (moved @ tiny.lm_head.weight.T).mean(0)
    np.testing.assert_allclose(found.effect, effect - effect.mean(), atol=1e-4)


# -- gates

def test_gates_of_a_transcoder_are_set_where_it_writes(tiny, tokens, across):
    from feature_interaction_graph import measure_gating
    active = across[1].encode(stream_at(tiny, tokens, IN))
    source, gate = (active != 0).sum((0, 1)).argsort(descending=True)[:2].tolist()
    doses, target = (0.2, 2.5), 9
    found = measure_gating(tiny, across, [((1, source), (2, target))], tokens, gates=[(1, gate)],
                           doses=doses, min_samples=2, **ALL).to_pandas()
    on = float(np.percentile(active[..., gate][active[..., gate] != 0], 90))
    effects = []
    for row, at in active[..., source].nonzero().tolist():
        arms = []
        for value in (0.0, on):
            for dose in doses:
                step = ((dose - active[row, at, source]) * across[1].W_dec[source]
                        + (value - active[row, at, gate]) * across[1].W_dec[gate])
                def clamp(stream: Tensor, at: int = at, step: Tensor = step) -> Tensor:
                    changed = stream.clone()
                    changed[0, at] += step
                    return changed
                with hooked(part_of(tiny, OUT), clamp):
                    there = stream_at(tiny, tokens[row:row + 1], LATER)[0, at]
                arms.append(across[2].encode(there)[target])
        effects.append([arms[1] - arms[0], arms[3] - arms[2]])
    expected = torch.tensor(effects).mean(0) / (doses[1] - doses[0])
    np.testing.assert_allclose(found[["effect_off", "effect_on"]].to_numpy()[0], expected,
                               atol=1e-5)
    assert abs(float(expected[1] - expected[0])) > 1e-3


# -- steering

@contextlib.contextmanager
def clamped(model: GPT2LMHeadModel, block: int, sae, feature: int, dose: float) -> Iterator[None]:
    "A transcoder of one block's MLP with one latent set everywhere, by its own reading."
    seen: list[Tensor] = []
    def keep(stream: Tensor) -> Tensor:
        seen[:] = [stream]
        return stream
    def push(stream: Tensor) -> Tensor:
        active = sae.encode(seen[0])[..., feature, None]
        return stream + (dose - active) * sae.W_dec[feature]
    inside, outside = f"blocks.{block}.mlp.hook_in", f"blocks.{block}.hook_mlp_out"
    with hooked(part_of(model, inside), keep), hooked(part_of(model, outside), push): yield


def test_a_transcoder_is_steered_where_it_writes_by_what_it_reads_there(tiny, tokens, across):
    from feature_interaction_graph import steer
    second = own_sae("blocks.2.mlp.hook_in", 8, hook_out="blocks.2.hook_mlp_out")
    saes = number_saes([*across.values(), second])
    number = next(number for number, sae in saes.items() if sae is second)
    end = next(number for number, sae in saes.items() if sae is across[2])
    run = steer(tiny, list(saes.values()), tokens, {(0, 7): 3.0, (number, 2): 1.5},
                read=[(end, 9)])
    with clamped(tiny, 1, across[1], 7, 3.0), clamped(tiny, 2, second, 2, 1.5):
        logits = tiny(tokens).logits
        read = across[2].encode(stream_at(tiny, tokens, LATER))[..., 9]
    torch.testing.assert_close(run.logits, logits, atol=1e-4, rtol=1e-4)
    place = run.features.index((end, 9))
    torch.testing.assert_close(run.steered[..., place], read, atol=1e-4, rtol=1e-4)
    assert float((run.logits - run.clean_logits).abs().max()) > 0.05


# -- ablation

def test_a_transcoder_is_ablated_where_it_writes_from_what_it_reads_there(tiny, tokens, across):
    from feature_interaction_graph.circuits.ablation import AblatedModel
    early = own_sae("blocks.0.hook_resid_post", 6)
    saes = number_saes([early, *across.values()])
    ablated = AblatedModel(tiny, list(saes.values()), tokens, bos=False)
    everything = torch.ones(1, ablated.n_features, dtype=torch.bool)
    torch.testing.assert_close(ablated.run(everything, "zero")[0], tiny(tokens).logits[:, -1],
                               atol=1e-4, rtol=1e-4)
    keep = torch.rand(ablated.n_features, generator=torch.Generator().manual_seed(0)) < 0.5
    kept = dict(zip(ablated.saes, keep.split(ablated.widths), strict=True))
    first, middle, last = ablated.saes
    streams = {hook: stream_at(tiny, tokens, hook)
               for hook in ("blocks.0.hook_resid_post", IN, OUT, LATER)}
    def of(number: int, stream: Tensor) -> Tensor:
        return (saes[number].encode(stream) * kept[number]) @ saes[number].W_dec
    def whole(number: int, stream: Tensor) -> Tensor:
        return saes[number].encode(stream) @ saes[number].W_dec
    seen: list[Tensor] = []
    def keep_it(stream: Tensor) -> Tensor:
        seen[:] = [stream]
        return stream
    def changes(number: int, hook: str):
        reads = streams[IN if hook == OUT else hook]
        error = streams[hook] - whole(number, reads)
        return lambda stream: of(number, seen[0] if hook == OUT else stream) + error
    with (hooked(part_of(tiny, "blocks.0.hook_resid_post"),
                 changes(first, "blocks.0.hook_resid_post")),
          hooked(part_of(tiny, IN), keep_it), hooked(part_of(tiny, OUT), changes(middle, OUT)),
          hooked(part_of(tiny, LATER), changes(last, LATER))):
        expected = tiny(tokens).logits[:, -1]
    torch.testing.assert_close(ablated.run(keep[None], "zero")[0], expected, atol=1e-4, rtol=1e-4)
    assert float((expected - tiny(tokens).logits[:, -1]).abs().max()) > 0.05


def test_two_saes_that_write_to_one_place_cannot_both_be_ablated(tiny, tokens, across):
    from feature_interaction_graph.circuits.ablation import AblatedModel
    twice = number_saes([across[1], own_sae(OUT, 7)])
    with pytest.raises(InputError, match="both write to blocks.1.hook_mlp_out"):
        AblatedModel(tiny, twice, tokens)


# -- lists, hook names, sites: the whole pipeline

def run_pipeline(model, saes, tokens, folder, **settings):
    from feature_interaction_graph import (
        build_coactivation_atlas, build_interaction_graph, collect_activations, measure_interactions
    )
    from feature_interaction_graph.candidates import propose_candidates
    cfg = Config(output_dir=str(folder), min_activations=1, all_targets=True, n_samples=20,
                 top_k_features=4, min_samples=4, candidate_method="both", significance_level=0.5,
                 placebo=0, **settings)
    corpus = as_corpus(tokens)
    store = collect_activations(model, saes, cfg, corpus, progress=False)
    atlas = build_coactivation_atlas(store, cfg, progress=False)
    pairs = propose_candidates(model, saes, corpus, atlas, cfg, progress=False)
    table = measure_interactions(model, saes, pairs, cfg, corpus, progress=False)
    return pairs, table, build_interaction_graph(table, cfg)


@pytest.fixture(scope="module")
def places() -> list:
    return [own_sae(name, seed) for seed, name in enumerate(SITES)]


def test_a_list_or_hook_names_go_through_the_whole_pipeline(tiny, tokens, places, tmp_path):
    given = {"numbers": number_saes(places), "list": places[::-1],
             "names": dict(zip(SITES, places, strict=True))}
    found = {way: run_pipeline(tiny, saes, tokens, tmp_path / way)
             for way, saes in given.items()}
    _, table, G = found["numbers"]
    for _, again, other in (found["list"], found["names"]):
        np.testing.assert_array_equal(again.columns["strength"], table.columns["strength"])
        assert set(other.edges) == set(G.edges) and G.number_of_edges() > 5
    points = {facts["layer"]: facts["hook_point"] for _, facts in G.nodes(data=True)}
    assert points == dict(enumerate(SITES))


def test_the_layer_window_counts_blocks_where_numbers_are_sites(tiny, tokens, places, tmp_path):
    far = own_sae("blocks.0.hook_mlp_out", 9)
    pairs, _, G = run_pipeline(tiny, [far, *places], tokens, tmp_path, layer_window=1)
    joined = set(zip(pairs["src_layer"].tolist(), pairs["tgt_layer"].tolist(), strict=True))
    # site 0 is in block 0, sites 1 to 3 in block 2, site 4 in block 3
    assert joined == {(a, b) for a in (1, 2, 3) for b in (2, 3, 4) if a < b}
    from feature_interaction_graph.shell.pipeline import analysis
    steps = [row["distance"] for row in analysis(G)["statistics"]["layer_distance"]]
    assert steps == [0, 1]


def test_the_window_of_a_cascade_counts_blocks(tiny, tokens, places):
    from feature_interaction_graph import clamp_measure, predict_cascade
    active = places[0].encode(stream_at(tiny, tokens, SITES[0]))
    source = (0, int((active != 0).sum((0, 1)).argmax()))
    table = clamp_measure(tiny, places, [source], tokens, **ALL)
    near, far = (set(predict_cascade(table, {source: 1.0}, window=window).table["layer"])
                 for window in (0, 1))
    assert near == {1, 2} and far == {1, 2, 3}


def test_saes_that_read_one_place_are_skipped_with_a_reason(tiny, tokens, tmp_path):
    both = [own_sae(OUT, 1), own_sae(OUT, 2), own_sae(LATER, 3)]
    pairs, table, _ = run_pipeline(tiny, both, tokens, tmp_path)
    same = int(np.sum((pairs["src_layer"] == 0) & (pairs["tgt_layer"] == 1)))
    counts = table.meta["counts"]
    assert same > 0 and counts["skipped"]["source and target are read at the same place"] == same
    assert counts["measured"] + sum(counts["skipped"].values()) == counts["attempted"] == len(pairs)
    assert set(table.columns["tgt_layer"].tolist()) == {2}


def test_what_is_read_before_a_transcoder_writes_is_skipped_with_a_reason(
        tiny, tokens, tmp_path):
    generator = torch.Generator().manual_seed(3)
    neurons = torch.randn(4 * 24, 30, generator=generator) / 5
    inside = sae_from_weights(neurons, None, neurons.T, None, hook="blocks.1.mlp.hook_post")
    saes = [own_sae(IN, 4, hook_out=OUT), inside, own_sae(LATER, 5)]
    pairs, table, _ = run_pipeline(tiny, saes, tokens, tmp_path)
    before = int(np.sum((pairs["src_layer"] == 0) & (pairs["tgt_layer"] == 1)))
    why = "the target is not read after the source is written"
    assert before > 0 and table.meta["counts"]["skipped"][why] == before


def test_every_measure_takes_a_list(tiny, tokens, places):
    from feature_interaction_graph import (
        jacobian_measure, measure_gating, mechanism_split, response_curve, transport_scores
    )
    numbers = number_saes(places)
    active = places[0].encode(stream_at(tiny, tokens, SITES[0]))
    source, gate = (active != 0).sum((0, 1)).argsort(descending=True)[:2].tolist()
    edge = ((0, source), (3, 4))
    longer = tokens.repeat(2, 1)
    ask = {
        "slopes": lambda saes: jacobian_measure(tiny, saes, [edge[0]], tokens, **ALL
                                                ).columns["strength"],
        "gates": lambda saes: measure_gating(tiny, saes, [edge], tokens, gates=[(0, gate)],
                                             min_samples=2, **ALL).columns["effect_on"],
        "parts": lambda saes: mechanism_split(tiny, saes, [edge], tokens, **ALL).columns["effect"],
        "curve": lambda saes: response_curve(tiny, saes, *edge, longer, **ALL).curves[0].mean,
        "noise": lambda saes: transport_scores(tiny, saes, tokens, progress=False).scores(0, 3)
    }
    for name, measured in ask.items():
        np.testing.assert_array_equal(measured(places[::-1]), measured(numbers), err_msg=name)


@pytest.mark.parametrize("n_positions", [1, 2, 5])
def test_a_model_that_reads_few_positions_is_measured(n_positions):
    from transformers import GPT2Config

    from feature_interaction_graph import clamp_measure, within_layer_measure
    torch.manual_seed(1)
    model = GPT2LMHeadModel(GPT2Config(
        n_layer=4, n_embd=24, n_head=4, n_positions=n_positions, vocab_size=50, bos_token_id=None,
        eos_token_id=None, initializer_range=0.3)).eval().requires_grad_(False)
    tokens = torch.arange(1, 41).reshape(-1, n_positions)[:10]
    saes, doses = [own_sae("blocks.1.hook_resid_post", 1), own_sae(LATER, 2)], (0.5, 2.0)
    feature, active = often(model, tokens, saes[0], "blocks.1.hook_resid_post")
    table = clamp_measure(model, saes, [(1, feature)], tokens, doses=doses, **ALL).to_pandas()
    expected = plain_effects(model, tokens, "blocks.1.hook_resid_post", saes[0].W_dec[feature],
                             active, saes[1], doses)
    np.testing.assert_allclose(table.sort_values("tgt_feature").strength, expected, atol=1e-5)
    within = within_layer_measure(model, saes, [(1, feature)], tokens, doses=doses, **ALL)
    assert np.abs(within.columns["strength"]).max() > 0


def test_the_parts_of_the_last_block_act_on_the_end_of_the_stream(tiny, tokens):
    from feature_interaction_graph import clamp_measure, jacobian_measure
    last, doses = "blocks.3.hook_mlp_out", (0.5, 2.0)
    saes = number_saes([own_sae(last, 1), own_sae("blocks.3.hook_resid_post", 2)])
    feature, active = often(tiny, tokens, saes[0], last)
    table = clamp_measure(tiny, saes, [(0, feature)], tokens, doses=doses, **ALL).to_pandas()
    expected = plain_effects(tiny, tokens, last, saes[0].W_dec[feature], active, saes[1], doses)
    np.testing.assert_allclose(table.sort_values("tgt_feature").strength, expected, atol=1e-5)
    slopes = jacobian_measure(tiny, saes, [(0, feature)], tokens, through_threshold=False, **ALL)
    along = saes[0].W_dec[feature] @ saes[1].W_enc         # nothing lies between
    np.testing.assert_allclose(slopes.to_pandas().sort_values("tgt_feature").strength, along,
                               atol=1e-5)
