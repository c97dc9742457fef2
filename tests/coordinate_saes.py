"SAEs whose features are coordinates of the stream, for small random models of any architecture."
import sys
from pathlib import Path

import torch

from feature_interaction_graph.hosts.own_saes import sae_from_weights

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
from architectures import random_model as random_model  # noqa: E402

TOKENS = torch.randint(3, 97, (1, 9), generator=torch.Generator().manual_seed(2))
BOTH_SIDES = torch.cat([torch.eye(32), -torch.eye(32)])


def coordinates(hook: str):
    "An SAE whose features are the two sides of every coordinate, a tenth too weak."
    return sae_from_weights(BOTH_SIDES.T, None, 0.9 * BOTH_SIDES, None, hook=hook)
