"""What `clamp_measure` gave before it was split into pushing and reading: strengths to 1e-5 of the
largest and no effect that was none before, on the demo and on a planted model (three doses, two
offsets, a placebo)."""
from pathlib import Path

import numpy as np
import pytest

from feature_interaction_graph.config import Config
from feature_interaction_graph.interactions import clamp_measure
from feature_interaction_graph.loading import load_corpus, load_model_and_saes
from feature_interaction_graph.planted.models import plant_gate

REFERENCE = Path(__file__).parent / "reference"
HOW = dict(n_samples=30, horizon=1, placebo=4, seed=3, progress=False)


def demo():
    cfg = Config.preset("demo", n_tokens=20_000)
    model, saes = load_model_and_saes(cfg)
    sources = [(0, 12), (0, 495), (0, 481), (1, 692), (1, 998), (1, 675)]
    return clamp_measure(model, saes, sources, load_corpus(cfg, model, saes), target_layers=[2, 4],
                         doses=[0.0, 1.0, 3.0], **HOW)


def planted():
    made = plant_gate("AND")
    sources = [(0, made.feature(0, variable)) for variable in (0, 1)]
    return clamp_measure(made.model, made.saes, sources, made.corpus(120, 24, seed=1),
                         doses=[0.0, 0.5, 1.0], **HOW)


@pytest.mark.parametrize("measured", [demo, planted])
def test_the_numbers_are_those_of_before(measured) -> None:
    table, old = measured(), np.load(REFERENCE / f"clamp_{measured.__name__}.npz")
    new = table.columns | {"change": table.curves["change"]}
    for name in ("strength", "pre_strength", "std", "change"):
        scale = np.nanmax(np.abs(old[name]))
        np.testing.assert_allclose(new[name], old[name], rtol=0, atol=1e-5 * scale, err_msg=name)
    assert (new["q_value"] < 0.01).any() and (new["n_samples"] == old["n_samples"]).all()
    # zeros and lean may only raise a p; an effect that is not zero then, was not zero before
    assert (new["p_value"] >= old["p_value"] - 1e-3).all()
    assert (old["q_value"][new["q_value"] < 0.01] < 0.01).all()
    # four directions cannot show that an effect is specific: intervals are judged here,
    # which are wider than those of t: none excludes 0 whose p was above 5 %
    kind = np.where(new["ci_low"] > 0, "e", np.where(new["ci_high"] < 0, "i", "n"))
    decided, both = kind != "n", (kind != "n") & (old["kind"] != "n")
    assert both.any() and (kind[both] == old["kind"][both]).all()
    assert (old["p_value"][decided] < 0.05).all()
