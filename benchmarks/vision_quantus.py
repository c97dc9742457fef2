"""The same images and maps through Quantus, where it is installed: what both define alike must be
the same number."""
import importlib.util
from typing import Any

import numpy as np
import torch

from feature_interaction_graph.vision.attribution import attribution_maps
from feature_interaction_graph.vision.faithfulness import (
    flipping_area, rank_correlation, removal_probabilities
)
from feature_interaction_graph.vision.vit import Vit


class Patches(torch.nn.Module):
    """A model of one image whose input says which of its patches are there: `[n, 1, rows,
    columns]` of ones, and zeros where the mean stands."""

    def __init__(self, vit: Vit, seen: torch.Tensor) -> None:
        super().__init__()
        self.vit = vit
        self.register_buffer("kept", vit.patch(vit.cut(seen)).detach())
        mean = seen.mean((2, 3), keepdim=True).expand_as(seen)
        self.register_buffer("filled", vit.patch(vit.cut(mean)).detach())

    def forward(self, there: torch.Tensor) -> torch.Tensor:
        mask = there.flatten(1)[..., None].float()
        return self.vit.run(self.vit.tokens(mask * self.kept + (1 - mask) * self.filled))


def agreement(vit: Vit, seen: torch.Tensor) -> dict[str, Any] | None:
    """Largest differences over the images of `seen`: of every point of the flipping curve and its
    area, and of the rank correlation on Quantus' own subsets. None without Quantus."""
    if importlib.util.find_spec("quantus") is None: return None
    import quantus
    from quantus.functions.perturb_func import batch_baseline_replacement_by_indices
    target = vit(seen).argmax(1)
    maps = attribution_maps(vit, seen, ["transmm"])["transmm"].double().numpy()
    patches, grid = vit.shape.patches, vit.shape.grid
    worst = {"curve": 0.0, "area": 0.0, "correlation": 0.0}
    for one in range(len(seen)):
        image, label, scores = seen[[one]], target[[one]], maps[[one]]
        told = {"model": Patches(vit, image).eval(), "y_batch": label.numpy(), "device": "cpu",
                "x_batch": np.ones((1, 1, *grid), np.float32), "softmax": True,
                "a_batch": scores.reshape(1, 1, *grid), "channel_first": True}
        plain = {"abs": False, "normalise": False, "disable_warnings": True,
                 "perturb_baseline": 0.0}
        curve = np.array(quantus.PixelFlipping(features_in_step=1, **plain)(**told)[0])
        order = np.argsort(-scores[0], kind="stable").argsort()
        gone = order[None] < np.arange(patches + 1)[:, None]
        ours = removal_probabilities(vit, image, gone[None], label)
        worst["curve"] = max(worst["curve"], float(np.abs(ours[0, 1:] - curve).max()))
        area = float(np.trapezoid(np.r_[ours[0, 0], curve])) / patches
        worst["area"] = max(worst["area"], abs(float(flipping_area(ours)[0]) - area))
        asked: list[np.ndarray] = []

        def noted(arr: np.ndarray, indices: np.ndarray, asked: list = asked, **more: Any
                  ) -> np.ndarray:
            asked.append(np.array(indices))
            return batch_baseline_replacement_by_indices(arr=arr, indices=indices, **more)

        np.random.seed(one)
        theirs = quantus.FaithfulnessCorrelation(
            nr_runs=60, subset_size=5, perturb_func=noted,
            similarity_func=quantus.similarity_func.correlation_spearman, **plain)(**told)[0]
        sets = np.zeros((1, len(asked), patches), bool)
        for row, indices in enumerate(asked): sets[0, row, indices.reshape(-1)] = True
        whole = removal_probabilities(vit, image, np.zeros((1, 1, patches), bool), label)
        drops = whole - removal_probabilities(vit, image, sets, label)
        mine = rank_correlation((sets * scores[:, None]).sum(-1), drops)[0]
        worst["correlation"] = max(worst["correlation"], abs(float(mine) - float(theirs)))
    return {"version": quantus.__version__, "images": len(seen), "largest_difference": worst}
