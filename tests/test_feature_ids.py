"A feature is named by a pair or by its id, wherever one is asked for."
import numpy as np
import pytest

from feature_interaction_graph import (
    Config, clamp_measure, clamped_contexts, jacobian_measure, load_corpus, load_model_and_saes,
    measure_gating, mechanism_split, response_curve
)
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.engine.names import feature_id


@pytest.fixture(scope="module")
def asked():
    "The demo with three features that fire often: two sources of layer 0 and a target of layer 2."
    cfg = Config.preset("demo", n_tokens=6000)
    model, saes = load_model_and_saes(cfg)
    corpus = load_corpus(cfg, model, saes)
    often = {layer: saes[layer].encode(
        _stream(model, corpus, saes[layer])).gt(0).float().mean((0, 1)).topk(2).indices.tolist()
        for layer in (0, 2)}
    return model, saes, corpus, [(0, often[0][0]), (0, often[0][1])], (2, often[2][0])


def _stream(model, corpus, sae):
    from feature_interaction_graph.engine.residuals import clean_residuals
    name = sae.cfg.metadata.hook_name
    return clean_residuals(model, corpus.tokens[:20], [name])[name]


def same(one, other) -> None:
    assert len(one.columns) == len(other.columns) > 0
    for name, values in one.columns.items():
        np.testing.assert_array_equal(values, other.columns[name], err_msg=name)


CALLS = {
    "clamp_measure": lambda m, s, text, sources, target: clamp_measure(
        m, s, sources, text, targets=[target], n_samples=8, progress=False),
    "jacobian_measure": lambda m, s, text, sources, target: jacobian_measure(
        m, s, sources, text, targets=[target], n_samples=8, progress=False),
    "mechanism_split": lambda m, s, text, sources, target: mechanism_split(
        m, s, [(source, target) for source in sources], text, n_samples=8, progress=False),
    "measure_gating": lambda m, s, text, sources, target: measure_gating(
        m, s, [(sources[0], target)], text, gates=sources[1:], n_samples=60, progress=False),
}


@pytest.mark.parametrize("name", CALLS)
def test_ids_and_pairs_ask_the_same(asked, name):
    model, saes, corpus, sources, target = asked
    named = [feature_id(*source) for source in sources]
    by_pair = CALLS[name](model, saes, corpus, sources, target)
    assert len(by_pair)
    same(by_pair, CALLS[name](model, saes, corpus, named, feature_id(*target)))


def test_curves_and_contexts_take_ids(asked):
    model, saes, corpus, sources, target = asked
    curves = [response_curve(model, saes, source, aim, corpus, n_samples=8, progress=False)[target]
              for source, aim in ((sources[0], target),
                                  (feature_id(*sources[0]), feature_id(*target)))]
    np.testing.assert_array_equal(curves[0].samples, curves[1].samples)
    kept = [clamped_contexts(model, saes, given, corpus, target_layers=[2], min_samples=8,
                             n_samples=8, progress=False)
            for given in (sources, [feature_id(*source) for source in sources])]
    assert kept[0].sources.tolist() == kept[1].sources.tolist() == sorted(
        feature for _, feature in sources)
    np.testing.assert_array_equal(kept[0].value, kept[1].value)


def test_what_is_no_feature_is_refused_in_a_sentence(asked):
    model, saes, corpus, sources, _ = asked
    for given, words in (((0, 3), "0 is not a feature; write it like"),
                         (["L0F3"], "'L0F3' is not a feature id"),
                         ([(0, 3.5)], "is not a feature"),
                         (["L9_F3"], "source L9_F3 is in layer 9, but SAEs are loaded")):
        with pytest.raises(InputError, match=words):
            clamp_measure(model, saes, given, corpus, n_samples=8, progress=False)
    single = clamp_measure(model, saes, feature_id(*sources[0]), corpus, target_layers=[2],
                           n_samples=8, progress=False)
    assert set(single.columns["src_feature"]) == {sources[0][1]}
