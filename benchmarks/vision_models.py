"""The vision transformers of the benchmark: one of others on digits, a small CLIP of others on
clothes, and one that this file trains on CIFAR-10."""
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional

from feature_interaction_graph.engine.errors import atomic_write
from feature_interaction_graph.vision.adapters import fill_vit, save_vit, vit_from_folder
from feature_interaction_graph.vision.images import (
    ImageSet, Normalisation, image_set, images_from_npz
)
from feature_interaction_graph.vision.vit import Vit, VitShape

CIFAR = VitShape((32, 32), 4, 3, 64, 5, 4, 192, 10)
CLOTHES = ("tshirts", "trousers", "sweaters", "dresses", "jackets", "sandals", "shirts",
           "casual shoes", "handbags", "boots")


def clip_mira(data: Path, words: tuple[str, ...] | None = None) -> Vit:
    """The vision tower of a small CLIP whose attention is not added; its head is the projection,
    or, with `words`, 100 times the cosine with each."""
    found = load_file(data / "models" / "clip_mira" / "model.safetensors")
    top = "vision_encoder."
    mlp = len(found[top + "transformer_encoder.0.mlp.0.bias"])
    head, classes = found[top + "projection"].T, None
    if words is not None:
        sys.path.insert(0, str(data / "loaders"))
        import clip_mira as theirs
        with torch.no_grad(): head, classes = 100 * theirs.text(words) @ head, words
    shape = VitShape((80, 80), 5, 3, 32, 8, 4, mlp, len(head), norms="through", after=False)
    weights = {"patch.weight": found[top + "linear_proj.weight"].flatten(1),
               "patch.bias": found[top + "linear_proj.bias"],
               "prefix": found[top + "cls_token"].reshape(1, -1),
               "positions": found[top + "positional_embeddings.pe"].reshape(-1, 32),
               "head.weight": head, "head.bias": torch.zeros(len(head))}
    for layer in range(8):
        here, mine = f"{top}transformer_encoder.{layer}.", f"blocks.{layer}."
        for kind in ("weight", "bias"):
            weights[f"{mine}qkv.{kind}"] = torch.cat(
                [found[f"{here}mha.multi_head.{each}.{part}.{kind}"]
                 for part in ("query", "key", "value") for each in range(4)])
            for name, other in (("ln1", "ln1"), ("ln2", "ln2"), ("out", "mha.W_o"),
                                ("fc1", "mlp.0"), ("fc2", "mlp.2")):
                weights[f"{mine}{name}.{kind}"] = found[f"{here}{other}.{kind}"]
    return fill_vit(Vit(shape, Normalisation((0.0,) * 3, (1.0,) * 3), classes), weights)


def clothes_images(data: Path) -> ImageSet:
    "900 pieces of clothing in another order, dark on white, 80 by 80 pixels in three channels."
    kept = images_from_npz(data / "vision" / "fashion_sprite900.npz", "x", "y")
    kept = kept.take(np.random.default_rng(0).permutation(len(kept)))
    big = [np.asarray(Image.fromarray(255 - one[0]).resize((80, 80), Image.Resampling.BILINEAR))
           for one in kept.pixels]
    return image_set(np.repeat(np.stack(big)[:, None], 3, 1), kept.labels, CLOTHES)


def augmented(seen: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    "Each image mirrored or not, and shifted by up to 3 pixels."
    n, _, height, width = seen.shape
    mirror = torch.rand(n, generator=draw) < 0.5
    seen = torch.where(mirror[:, None, None, None], seen.flip(-1), seen)
    padded = functional.pad(seen, (3, 3, 3, 3), mode="reflect")
    down, right = torch.randint(0, 7, (2, n), generator=draw)
    rows = (down[:, None] + torch.arange(height))[:, None, :, None]
    columns = (right[:, None] + torch.arange(width))[:, None, None, :]
    return padded[torch.arange(n)[:, None, None, None], torch.arange(3)[None, :, None, None],
                  rows, columns]


def cifar_vit(folder: Path, images: ImageSet, steps: int = 2500, batch: int = 64,
              lr: float = 1.5e-3, every: int = 250) -> Vit:
    "The ViT in `folder`, or one trained on `images`; goes on with a checkpoint it finds beside it."
    if (folder / "config.json").is_file(): return vit_from_folder(folder)
    torch.manual_seed(0)
    normal = Normalisation((0.491, 0.482, 0.447), (0.247, 0.243, 0.262))
    vit, seen = Vit(CIFAR, normal, images.classes), normal.apply(images.pixels)
    labels, start = torch.as_tensor(images.labels), 0
    optimiser = torch.optim.AdamW(vit.parameters(), lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps, pct_start=0.1)
    parts: dict[str, Any] = {"vit": vit, "optimiser": optimiser, "schedule": schedule}
    kept = folder.with_suffix(".checkpoint")
    if kept.is_file():
        saved = torch.load(kept, weights_only=True)
        for name, part in parts.items(): part.load_state_dict(saved[name])
        start = saved["step"]
    for step in range(start, steps):
        draw = torch.Generator().manual_seed(step)
        at = torch.randint(len(labels), (batch,), generator=draw)
        loss = functional.cross_entropy(vit(augmented(seen[at], draw)), labels[at],
                                        label_smoothing=0.1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if (step + 1) % every == 0:
            print(step + 1, round(loss.item(), 3), flush=True)
            with atomic_write(kept) as temporary:
                torch.save({name: part.state_dict() for name, part in parts.items()}
                           | {"step": step + 1}, temporary)
    save_vit(vit, folder)
    return vit_from_folder(folder)


def cifar_images(data: Path, which: str) -> ImageSet:
    "`train` or `test`."
    return images_from_npz(data / "vision" / f"cifar10_{which}.npz", "x", "y", classes=(
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"))
