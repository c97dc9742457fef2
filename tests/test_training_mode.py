"""A model in training mode: whatever is measured is measured without dropout, and the model is in
the mode it came in afterwards."""
import pytest
import torch
from torch import nn

from feature_interaction_graph.activations import ablation_importance, collect_activations
from feature_interaction_graph.circuits.heads import head_patching
from feature_interaction_graph.circuits.library import demo_behavior
from feature_interaction_graph.circuits.scores import behavior_model, score_features
from feature_interaction_graph.config import Config
from feature_interaction_graph.dictionary.examples import feature_logit_effect
from feature_interaction_graph.dictionary.hypotheses import feature_input_pattern
from feature_interaction_graph.engine.hook_points import plain_twin
from feature_interaction_graph.interactions import (
    clamp_measure, jacobian_measure, measure_gating, response_curve, transport_scores
)
from feature_interaction_graph.loading import load_corpus, load_model_and_saes
from feature_interaction_graph.steering import steer, steering
from feature_interaction_graph.training.saes import quality_report, train_saes

SOURCE, TARGET = (0, 39), (1, 880)


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    cfg = Config.preset("demo", n_tokens=4000, output_dir=str(tmp_path_factory.mktemp("run")))
    model, saes = load_model_and_saes(cfg)
    for module in plain_twin(model).modules():
        if isinstance(module, nn.Dropout): module.p = 0.3
    corpus = load_corpus(cfg, model, saes)
    return cfg, model, saes, corpus, collect_activations(model, saes, cfg, corpus, progress=False)


def _trained(cfg, model, saes, corpus, store):
    torch.manual_seed(0)
    made = train_saes(model, corpus, ["blocks.1.hook_resid_pre"], width=16, steps=5, batch_size=64,
                      progress=False)
    return next(iter(made.values())).W_enc.detach()


def _generated(cfg, model, saes, corpus, store):
    prompt = corpus.tokens[:1, :8]
    with steering(model, saes, {SOURCE: 5.0}) as plain:
        return plain.generate(prompt, max_new_tokens=8, do_sample=False, pad_token_id=0)


def _strength(measured): return measured.columns["strength"]


QUIET = {"n_samples": 20, "progress": False}
ENTRIES = {
    "clamp": lambda cfg, model, saes, corpus, store: _strength(
        clamp_measure(model, saes, [SOURCE], corpus, target_layers=[1], **QUIET)),
    "jacobian": lambda cfg, model, saes, corpus, store: _strength(
        jacobian_measure(model, saes, [SOURCE], corpus, target_layers=[1], **QUIET)),
    "gates": lambda cfg, model, saes, corpus, store: measure_gating(
        model, saes, [(SOURCE, TARGET)], corpus, gates=[(0, 38)], min_samples=4,
        **QUIET).columns["interaction"],
    "curve": lambda cfg, model, saes, corpus, store: response_curve(
        model, saes, SOURCE, TARGET, corpus, **QUIET)[TARGET].mean,
    "transport": lambda cfg, model, saes, corpus, store: transport_scores(
        model, saes, corpus, progress=False).scores(0, 1),
    "importance": lambda cfg, model, saes, corpus, store: ablation_importance(
        model, saes, store, 1, [TARGET[1]]),
    "store": lambda cfg, model, saes, corpus, store: collect_activations(
        model, saes, cfg.replace(output_dir=cfg.output_dir + "/again"), corpus,
        progress=False).importance(1),
    "logits": lambda cfg, model, saes, corpus, store: feature_logit_effect(
        model, saes, *TARGET, store).effect,
    "input": lambda cfg, model, saes, corpus, store: feature_input_pattern(
        model, saes, *TARGET, store).mean,
    "quality": lambda cfg, model, saes, corpus, store: [
        row.ce_clean for row in quality_report(model, {1: saes[1]}, corpus)],
    "training": _trained,
    "steered": lambda cfg, model, saes, corpus, store: steer(
        model, saes, corpus.tokens[:4], {SOURCE: 5.0}).steered,
    "generated": _generated,
    "circuit": lambda cfg, model, saes, corpus, store: score_features(
        behavior_model(model, saes, demo_behavior("agreement", 8)),
        n_exact=4).table[["score", "effect"]].to_numpy(),
    "heads": lambda cfg, model, saes, corpus, store: head_patching(
        model, demo_behavior("agreement", 8)).effects,
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_dropout_is_off_while_measuring(setting, entry):
    cfg, model, saes, corpus, store = setting
    twin = plain_twin(model)
    expected = torch.as_tensor(ENTRIES[entry](cfg, model, saes, corpus, store))
    twin.train()
    try:
        tokens = corpus.tokens[:2]
        assert not torch.equal(twin(tokens).logits, twin(tokens).logits)
        found = torch.as_tensor(ENTRIES[entry](cfg, model, saes, corpus, store))
        assert all(module.training for module in twin.modules())
    finally: twin.eval()
    assert found.isfinite().any()
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
