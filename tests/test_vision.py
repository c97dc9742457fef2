"""Vision transformers that others trained: the same scores as by their own code, known accuracy,
attribution by plain hooks, and what the benchmark says."""
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.vision.adapters import vit_from_folder
from feature_interaction_graph.vision.attribution import attribution_maps, relevance, slopes_of
from feature_interaction_graph.vision.faithfulness import Questions, faithfulness
from feature_interaction_graph.vision.gate import Gate, gated_transmm
from feature_interaction_graph.vision.images import Normalisation, images_from_npz
from feature_interaction_graph.vision.vit import Tape, class_scores, share_right

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
RESULTS = BENCHMARKS / "results" / "vision.json"
sys.path.insert(0, str(BENCHMARKS))

from vision_models import clip_mira  # noqa: E402


@pytest.fixture
def theirs(shared_data, monkeypatch):
    "Modules of the folder of loaders, by name."
    monkeypatch.setattr(sys, "path", [str(shared_data / "loaders"), *sys.path])
    yield lambda name: __import__(name)
    for name in ("vit", "clip_mira"): sys.modules.pop(name, None)


@pytest.fixture
def digits(shared_data):
    vit = vit_from_folder(shared_data / "models" / "vit_mnist_kjetil")
    return vit, images_from_npz(shared_data / "vision" / "mnist_t10k.npz", "x", "y")


def test_scores_of_a_published_vit(digits, theirs):
    vit, images = digits
    other, some = theirs("vit").build("vit_mnist_kjetil"), images.take(range(300))
    with torch.no_grad(): expected = other(other.prep(some.pixels[:, 0]))
    scores = class_scores(vit, some)
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-4)
    assert share_right(scores, some.labels) == pytest.approx(0.93, abs=0.03)


def test_the_normalisation_of_another_set_costs_accuracy(digits):
    vit, images = digits
    some = images.take(range(300))
    right = share_right(class_scores(vit, some), some.labels)
    vit.normalisation = Normalisation((0.1307,), (0.3081,))
    assert share_right(class_scores(vit, some), some.labels) < right


def test_a_published_clip_whose_attention_is_not_added(shared_data, theirs):
    vit, seen, taps, tape = clip_mira(shared_data), torch.rand(3, 3, 80, 80), [], Tape()
    with torch.no_grad():
        expected = theirs("clip_mira").image(seen, taps)
        ours = torch.nn.functional.normalize(vit(seen, tape), dim=-1)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-3)
    for stream, other in zip(tape.leaving, taps, strict=True):
        torch.testing.assert_close(stream, other, atol=1e-3, rtol=1e-3)


def test_maps_of_a_real_image_by_hooks_on_the_other_code(digits, theirs):
    "TransMM from torch's attention module, asked for the weights of every head."
    vit, images = digits
    other = theirs("vit").build("vit_mnist_kjetil")
    caught = []
    for block in other.blocks:
        def sa(x, block=block):
            out, weights = block.attn(x, x, x, need_weights=True, average_attn_weights=False)
            width = x.shape[-1]
            value = torch.nn.functional.linear(x, block.attn.in_proj_weight[2 * width:],
                                               block.attn.in_proj_bias[2 * width:])
            heads = value.view(len(x), -1, 8, width // 8).transpose(1, 2)
            weights.retain_grad()
            caught.append(weights)
            again = block.attn.out_proj((weights @ heads).transpose(1, 2).reshape(x.shape))
            assert (again - out).abs().max() < 1e-4
            return again
        block.sa = sa
    seen = other.prep(images.pixels[:1, 0])
    other(seen).max().backward()
    R = torch.eye(50)
    for weights in caught: R = R + (weights.grad * weights)[0].clamp(min=0).mean(0).detach() @ R
    ours = attribution_maps(vit, seen, ["transmm"])["transmm"][0]
    torch.testing.assert_close(ours, R[0, 1:], atol=1e-4, rtol=1e-3)


def test_relevance_and_gates_on_real_images(digits):
    vit, images = digits
    seen = vit.normalisation.apply(images.pixels[:8])
    slopes = slopes_of(vit, seen)
    shares = relevance(vit, seen, slopes.target)
    maps = {"relevance": shares, "gated": gated_transmm(slopes, {}, Gate((3,), "no_sae")),
            "random": torch.rand(8, 49, generator=torch.Generator().manual_seed(0))}
    found = faithfulness(vit, seen, maps, slopes.target, Questions(subsets=20))
    assert found["relevance"]["flipping"].mean() < found["random"]["flipping"].mean()
    assert found["gated"]["flipping"].mean() < found["random"]["flipping"].mean()


def test_maps_of_a_saved_model_that_is_damaged(digits, shared_data, tmp_path):
    folder = tmp_path / "vit"
    folder.mkdir()
    source = shared_data / "models" / "vit_mnist_kjetil"
    said = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(said))
    (folder / "model.safetensors").write_bytes(
        (source / "model.safetensors").read_bytes()[:-5000])
    with pytest.raises(InputError, match="is damaged"): vit_from_folder(folder)
    with pytest.raises(InputError, match="images of shape .1, 20, 20. were given to a model of"):
        vit, _ = digits
        attribution_maps(vit, torch.zeros(1, 1, 20, 20))


@pytest.mark.skipif(not RESULTS.is_file(), reason="needs benchmarks/results/vision.json")
def test_the_benchmark_says_what_was_compared():
    numbers = json.loads(RESULTS.read_text())["numbers"]
    n = json.loads(RESULTS.read_text())["settings"]["images"]
    assert all(row["n_pairs"] + row["left_out"] == n for row in numbers["against_transmm"])
    assert numbers["speed"]["largest_error"] < 1e-4
    means = numbers["means"]
    assert means["relevance"]["flipping"] < means["random"]["flipping"]
    assert all(np.isfinite(list(one.values())).all() for one in means.values())


def test_measures_are_those_of_quantus(digits, monkeypatch):
    pytest.importorskip("quantus", reason="needs Quantus, which no part of this package imports")
    monkeypatch.syspath_prepend(RESULTS.parent.parent)
    from vision_quantus import agreement
    vit, images = digits
    told = agreement(vit, vit.normalisation.apply(images.pixels[:3]))
    assert told["images"] == 3 and max(told["largest_difference"].values()) < 1e-5
