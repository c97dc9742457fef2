"""The MNIST system on real digits where they are at hand, and the calibration of sparsity: what is
written is what was measured, on rows that nothing was set on."""
from pathlib import Path

import numpy as np
import pytest
import torch
from sae_lens.saes.sae import TrainStepInput
from torch import Tensor

from feature_interaction_graph.digits.classifier import accuracy, train_classifier
from feature_interaction_graph.digits.dictionary import hidden_sae
from feature_interaction_graph.digits.features import (
    feature_bank, feature_records, input_patterns, logit_effects
)
from feature_interaction_graph.digits.images import DigitSet, drawn_digits, read_digits
from feature_interaction_graph.digits.system import DigitSettings, digit_system
from feature_interaction_graph.training.saes import SaeSettings, new_sae
from feature_interaction_graph.training.streams import calibrate_sparsity
from feature_interaction_graph.training.thresholds import calibrate_thresholds, measured_l0


@pytest.fixture(scope="module")
def mnist(shared_data: Path) -> tuple[DigitSet, DigitSet]:
    files = [shared_data / "vision" / name for name in ("mnist_cazala.npz", "mnist_t10k.npz")]
    if not all(file.is_file() for file in files): pytest.skip("needs the digits in ../shared/data")
    return read_digits(files[0]), read_digits(files[1])


def gaussian(seed: int, n: int = 3000) -> Tensor:
    "Sparse mixtures of 40 directions in 16 dimensions."
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
    present = torch.rand(n, 40, generator=generator) < 0.1
    return (present * (1 + torch.rand(n, 40, generator=generator))) @ truth


def test_what_is_stored_is_what_the_final_sae_does() -> None:
    "The number in the summary is measured after the thresholds are set, on rows of its own."
    held_out = gaussian(3)
    sae = calibrate_sparsity(gaussian(1), 5, gaussian(2), held_out, SaeSettings(
        "jumprelu", width=48, steps=120, batch_size=256, lr=3e-3, progress=False))
    told = sae.cfg.metadata.sparsity
    assert told["l0_held_out"] == measured_l0(sae, held_out)
    assert abs(told["l0_calibration"] - 5) < 0.01
    assert told["l0_calibration"] == measured_l0(sae, gaussian(2)) != told["l0_held_out"]


def test_what_stays_below_its_threshold_costs_nothing() -> None:
    "The penalty counts latents that fire, not a soft share of those that nearly do."
    sae = new_sae("jumprelu", 8, 16, 4, 100, {}, {})
    rows = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    for parameter in sae.parameters(): parameter.data.zero_()
    sae.b_enc.data[:5] = 0.3
    def penalty(threshold: float) -> float:
        sae.threshold.data.fill_(threshold)
        told = TrainStepInput(rows, {"l0": 1.0}, None, 1, False)
        return float(sae.training_forward_pass(told).losses["l0_loss"])
    assert penalty(0.31) == pytest.approx(2 / 4 * (0 - 4) ** 2)        # within the bandwidth of .5
    assert penalty(0.29) == pytest.approx(2 / 4 * (5 - 4) ** 2)


@pytest.mark.parametrize("how", ["global", "feature"])
def test_thresholds_reach_beyond_two(how: str) -> None:
    "However far the training is off, and in whatever units the activations are."
    rows = 1000 * gaussian(1)
    sae = calibrate_sparsity(rows, 12, rows, rows, SaeSettings(
        "topk", width=48, k=3, steps=60, batch_size=256, progress=False), how=how, attempts=1)
    for target in (2, 12):
        assert abs(measured_l0(calibrate_thresholds(sae, rows, target, how), rows) - target) < 0.02


def test_effects_are_in_the_units_of_the_layer() -> None:
    "Hidden units that differ a thousandfold in scale: the effect is still that of the real clamp."
    train, test = drawn_digits(700, seed=0), drawn_digits(200, seed=1)
    model = train_classifier(train, "relu", 24, steps=80, batch_size=64)
    scale = torch.logspace(-1.5, 1.5, 24)
    with torch.no_grad():        # the same function, its hidden units in other units
        model.into.weight.mul_(scale[:, None])
        model.into.bias.mul_(scale)
        model.out.weight.div_(scale)
    sae = hidden_sae(model, train, train, test, 5, SaeSettings(
        "jumprelu", width=48, steps=80, batch_size=256, lr=3e-3, progress=False))
    effects, latents = logit_effects(model, sae, test), sae.encode(model.hidden(test.pixels))
    k = int((latents > 0).sum(0).argmax())
    fires, without = latents[:, k] > 0, latents.clone()
    without[:, k] = 0
    change = (model.read(sae.decode(latents), test.pixels)
              - model.read(sae.decode(without), test.pixels))[fires].mean(0)
    assert torch.allclose(effects.clamped[k], change, rtol=1e-3, atol=1e-4)
    assert torch.allclose(input_patterns(model, sae)[k].flatten(),
                          sae.W_enc[:, k] @ model.into.weight, rtol=1e-4)
    records = feature_records(feature_bank(model, sae, test), effects)
    assert len(records) == int((latents > 0).any(0).sum())       # live ones, all, none dead
    assert min(record["rate"] for record in records) > 0


def test_mnist_is_read(mnist: tuple[DigitSet, DigitSet]) -> None:
    train, test = mnist
    assert len(train) == len(test) == 10_000
    assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974,
                                                 1009]


@pytest.mark.slow
def test_mnist_keeps_its_accuracy(mnist: tuple[DigitSet, DigitSet]) -> None:
    system = digit_system(*mnist, DigitSettings())
    (found,) = system.summary()
    assert found["baseline_acc"] >= 0.965
    assert abs(found["achieved_actives_test"] - 20) <= 0.4
    assert found["delta_acc_jumprelu"] <= 0.0069
    assert found["baseline_acc"] == accuracy(system.model, mnist[1])
