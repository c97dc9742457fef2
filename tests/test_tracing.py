"""The attribution graph on architectures of every kind, with SAEs on every place of a block."""
import contextlib

import numpy as np
import pytest
import torch
from coordinate_saes import BOTH_SIDES, TOKENS, coordinates, random_model

from feature_interaction_graph import attribute, check_edges
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.engine.hook_points import HookPoint, catch, decoder_layers, edit
from feature_interaction_graph.hosts.own_saes import sae_from_weights
from feature_interaction_graph.tracing.frozen import OUTPUT, FrozenModel, run_frozen
from feature_interaction_graph.tracing.graph import AttributionGraph
from feature_interaction_graph.tracing.nodes import leaves_of, reads_at, rows_of, writers_of
from feature_interaction_graph.tracing.paths import BlockPaths, GradientPaths, paths_to


def fitted_transcoder(model, layer: int):
    "Features are the sides of what enters the MLP; what they write is the best linear guess."
    points = [HookPoint(kind, layer) for kind in ("mlp_in", "mlp_out")]
    with torch.no_grad(), catch(decoder_layers(model), points) as caught: model(TOKENS)
    inside, out = (caught[point.name][0].float() for point in points)
    decoder = torch.linalg.lstsq((inside @ BOTH_SIDES.T).relu(), out, driver="gelsd").solution
    return sae_from_weights(BOTH_SIDES.T, None, 0.8 * decoder, None, hook=points[0].name,
                            hook_out=points[1].name)


def places(model) -> dict:
    return {"residual": {0: coordinates("blocks.0.hook_resid_post"),
                         1: coordinates("blocks.1.hook_resid_post")},
            "attention": {0: coordinates("blocks.0.hook_attn_out"),
                          1: coordinates("blocks.1.hook_attn_out")},
            "mlp": {0: coordinates("blocks.0.hook_mlp_out"),
                    1: coordinates("blocks.1.hook_mlp_out")},
            "heads": {1: coordinates("blocks.1.attn.hook_z")},
            "transcoders": {0: fitted_transcoder(model, 0), 1: fitted_transcoder(model, 1)},
            "mixed": {0: coordinates("blocks.0.hook_attn_out"), 1: fitted_transcoder(model, 0),
                      2: coordinates("blocks.1.hook_resid_pre"),
                      3: coordinates("blocks.2.hook_resid_post")}}


def doubled_moves_by_columns(model, saes, graph: AttributionGraph, n: int = 6) -> float:
    "Largest difference between what doubling a node does to all targets and its column."
    frozen = FrozenModel(model, saes, torch.tensor([graph.meta["tokens"]]))
    nodes, writers, random = graph.nodes, writers_of(frozen, graph.nodes), np.random.default_rng(0)
    clean, worst = run_frozen(frozen, leaves_of(frozen, writers)), 0.0
    targets = np.concatenate([nodes.of("feature"), nodes.of("logit")])
    reads = np.array([reads_at(nodes, node) for node in targets])
    for kind in ("token", "feature", "error"):
        for node in random.choice(nodes.of(kind), n, replace=False).tolist():
            (point, mine), = [(point, each) for point, each in writers.items() if node in each.node]
            leaves, at = leaves_of(frozen, writers), int((mine.node == node).nonzero())
            leaves[point][0, mine.position[at]] += mine.vector[at]
            with torch.no_grad(): moved = run_frozen(frozen, leaves)
            for number in np.unique(reads).tolist():
                rows = rows_of(frozen, nodes, some := targets[reads == number])
                change = (rows.read(moved[number]) - rows.read(clean[number])).numpy()
                column = graph.edges[some][:, node].toarray()[:, 0]
                worst = max(worst, float(np.abs(change - column).max()))
    return worst


@pytest.mark.parametrize("name", ["gptj", "gpt_oss", "granite", "glm4", "olmo3", "cohere", "olmo",
                                  "gemma3", "bloom", "falcon, grouped heads"])
def test_sums_hold_on_every_architecture(name: str) -> None:
    model = random_model(name)
    saes = {layer: coordinates(f"blocks.{layer}.hook_resid_post") for layer in (0, 1)}
    graph = attribute(model, saes, TOKENS, targets=[5, 7])
    size = np.asarray(abs(graph.edges).sum(1)).ravel() + np.abs(graph.bias)
    assert graph.traced.sum() > 300 and np.nanmax(np.abs(graph.gap) / size) < 1e-4
    assert doubled_moves_by_columns(model, saes, graph, 2) < 1e-3 * np.nanmax(np.abs(graph.pre))


@pytest.mark.parametrize("kind", ["residual", "attention", "mlp", "heads", "transcoders", "mixed"])
def test_saes_on_every_place(kind: str) -> None:
    model = random_model("granite")
    saes = places(model)[kind]
    graph = attribute(model, saes, TOKENS, targets=[5])
    size = np.asarray(abs(graph.edges).sum(1)).ravel() + np.abs(graph.bias)
    assert np.nanmax(np.abs(graph.gap) / size) < 1e-4
    assert doubled_moves_by_columns(model, saes, graph) < 1e-4 * np.nanmax(np.abs(graph.pre))
    assert (graph.edges.data < 0).mean() > 0.2 and len(graph.nodes.of("error"))


@pytest.mark.parametrize("name", ["gptj", "granite", "glm4", "olmo3", "gemma3", "cohere"])
def test_the_closed_form_is_the_gradient(name: str) -> None:
    model = random_model(name)
    saes = {layer: coordinates(f"blocks.{layer}.hook_resid_post") for layer in (0, 1)}
    frozen = FrozenModel(model, saes, TOKENS)
    nodes = attribute(model, saes, TOKENS, targets=[5]).nodes
    writers, targets = writers_of(frozen, nodes), np.flatnonzero((nodes.layer == 1)
                                                                & (nodes.kind == 1))
    rows, fast = rows_of(frozen, nodes, targets), paths_to(frozen, writers, 1)
    slow = GradientPaths(frozen, writers, 1).edges(rows, len(nodes))
    assert isinstance(fast, BlockPaths)
    torch.testing.assert_close(fast.edges(rows, len(nodes)), slow, rtol=1e-4,
                               atol=1e-5 * float(slow.abs().max()))


@pytest.mark.parametrize("name", ["gptj", "granite", "glm4", "olmo3", "gemma3", "cohere", "olmo"])
def test_maps_through_several_blocks_are_the_gradient(name: str) -> None:
    "Grouped heads, norms behind attention, parallel blocks, scaled streams; a heavy first token."
    model = random_model(name)
    saes = {0: coordinates("blocks.0.hook_resid_pre"), 1: coordinates("blocks.1.hook_resid_post")}
    frozen = FrozenModel(model, saes, TOKENS)
    nodes = attribute(model, saes, TOKENS, targets=[5]).nodes
    writers, every = writers_of(frozen, nodes), np.flatnonzero((nodes.layer == 1)
                                                              & (nodes.kind == 1))
    few = np.flatnonzero((nodes.position[every] == 0) | (nodes.feature[every] < 3))
    for targets in (every, every[few]):
        rows, fast = rows_of(frozen, nodes, targets), paths_to(frozen, writers, 1)
        assert isinstance(fast, BlockPaths) and len(fast.blocks) == 2
        fast.own(rows.take(rows.position.argsort(stable=True)))        # by maps, however few
        slow = GradientPaths(frozen, writers, 1).edges(rows, len(nodes))
        torch.testing.assert_close(fast.edges(rows, len(nodes)), slow, rtol=1e-4,
                                   atol=1e-5 * float(slow.abs().max()))


@pytest.mark.parametrize("first", ["blocks.0.hook_resid_pre", "blocks.0.hook_resid_post"])
def test_a_model_in_float64_has_the_same_edges(first: str) -> None:
    "Through two blocks, and through one."
    saes = {0: coordinates(first), 1: coordinates("blocks.1.hook_resid_post")}
    one, two = (attribute(random_model("llama").to(kind), saes, TOKENS, targets=[5]).edges.toarray()
                for kind in (torch.float32, torch.float64))
    np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5 * np.abs(two).max())


@pytest.mark.parametrize("kind", ["residual", "attention", "mlp", "transcoders", "mixed"])
def test_effects_are_those_of_plain_hooked_passes(kind: str) -> None:
    "Source removed, later SAEs held, by hooks on the whole prompt."
    model = random_model("granite")
    saes = places(model)[kind]
    graph = attribute(model, saes, TOKENS, targets=[5])
    source, target = graph.ends()
    strong = np.argsort(-np.abs(graph.edges.data))[:400:10]
    chosen = np.zeros(graph.edges.nnz, bool)
    chosen[strong] = True
    effect = check_edges(model, saes, graph, edges=chosen).columns["effect"]
    assert np.isfinite(effect).sum() == len(strong)
    frozen, nodes = FrozenModel(model, saes, TOKENS), graph.nodes
    writers, layers, worst = writers_of(frozen, nodes), decoder_layers(model), 0.0
    for row in strong.tolist():
        (point, mine), = [(point, each) for point, each in writers.items()
                          if source[row] in each.node]
        at, pre = int((mine.node == source[row]).nonzero()), []
        for share in (0.0, 1.0):
            pre.append(read_with_holds(frozen, layers, graph, int(target[row]), point,
                                       (int(mine.position[at]), share * mine.vector[at])))
        worst = max(worst, abs(pre[0] - pre[1] - effect[row]))
    assert worst < 1e-4 * np.nanmax(np.abs(graph.pre))


def read_with_holds(frozen, layers, graph, target, point, removed) -> float:
    "The target's pre-activation in one plain pass with a vector taken away."
    number, nodes = reads_at(graph.nodes, target), graph.nodes
    at, feature = int(nodes.position[target]), int(nodes.feature[target])
    seen, handles = {}, []
    def take(stream):
        stream = stream.clone()
        stream[0, removed[0]] -= removed[1]
        return stream
    def look(stream):
        seen["x"] = stream[0, at]
        return stream
    start = HookPoint("resid_pre", 0) if point.layer < 0 else point
    handles.append(edit(layers, start, take))
    for site in frozen.sites.values():
        later = site.reader.write_point.depth > start.depth or point.layer < 0
        if site.number == number: handles.append(edit(layers, site.reader.hook_point, look))
        if later and site.reader.write_point != start or point.layer < 0:
            there = site.place.there
            handles.append(edit(layers, site.reader.write_point, lambda _, there=there: there))
    with contextlib.ExitStack() as stack, torch.no_grad():
        for handle in handles: stack.enter_context(handle)
        hidden = frozen.twin.base_model(TOKENS, use_cache=False)[0]
    if number == OUTPUT:
        return float(rows_of(frozen, nodes, np.array([target])).read(hidden[0])[0])
    sae = frozen.sites[number].place.sae
    return float((seen["x"] - sae.b_dec * sae.cfg.apply_b_dec_to_input) @ sae.W_enc[:, feature]
                 + sae.b_enc[feature])


def test_saes_that_cannot_be_cut_are_refused() -> None:
    model = random_model("granite")
    twice = {0: coordinates("blocks.1.hook_resid_pre"), 1: coordinates("blocks.1.hook_resid_pre")}
    far = {0: coordinates("blocks.9.hook_resid_pre")}
    middle = {0: coordinates("blocks.1.hook_resid_mid")}
    torch.manual_seed(0)
    foreign = {0: sae_from_weights(torch.randn(32, 64), None, torch.randn(64, 32), None,
                                   hook="blocks.1.hook_resid_pre")}
    for saes, words in ((twice, "both write"), (far, "has blocks 0 to"), (middle, "cannot be cut"),
                        (foreign, "worse than nothing would")):
        with pytest.raises(InputError, match=words): attribute(model, saes, TOKENS)
