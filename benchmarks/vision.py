"""Attribution maps and gates on a real vision transformer: how faithful they are, and what the
sparse features add.

    python benchmarks/vision.py --data ../shared/data

A ViT of others (digits, 6 layers, post-norm), SAEs of this package on 3,000 training digits, maps
and metrics on test digits: every method and every mode of the gate against plain TransMM, paired,
corrected over the whole table; features against none, and against a shuffled decoder; a choice made
on half the images and judged on the other half. Then the same numbers one image and one question at
a time, in the same process, in turn, by CPU time.
"""
import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from scipy import stats

from feature_interaction_graph.training.saes import SaeSettings
from feature_interaction_graph.vision.adapters import vit_from_folder
from feature_interaction_graph.vision.attribution import METHODS, attribution_maps, slopes_of
from feature_interaction_graph.vision.comparison import (
    compare_configurations, held_out_choice, metric_rows
)
from feature_interaction_graph.vision.faithfulness import METRICS, Questions, faithfulness
from feature_interaction_graph.vision.gate import MODES, Gate, gated_transmm
from feature_interaction_graph.vision.images import images_from_npz
from feature_interaction_graph.vision.saes import patch_quality, train_patch_saes

LAYERS, PLACES = (1, 2, 3, 4), ((3,), (1, 2, 3, 4))
SETTINGS = SaeSettings(width=512, k=12, steps=800, batch_size=1024, lr=2e-3, progress=False)


def saes_of(vit: Any, images: Any, folder: Path | None) -> dict[int, Any]:
    "Those in `folder`, or new ones."
    from sae_lens import SAE
    if folder is not None and all((folder/f"patches.{layer}").is_dir() for layer in LAYERS):
        return {layer: SAE.load_from_disk(str(folder/f"patches.{layer}")).eval()
                for layer in LAYERS}
    how = SaeSettings(**(vars(SETTINGS) | {"output_dir": folder}))
    return train_patch_saes(vit, images, LAYERS, how)


def all_maps(vit: Any, seen: torch.Tensor, saes: dict[int, Any]) -> tuple[dict, torch.Tensor]:
    "Every method, every gate, and a map that knows nothing."
    slopes = slopes_of(vit, seen)
    maps = attribution_maps(vit, seen)
    for layers in PLACES:
        for mode in MODES:
            gate = Gate(layers, mode, most=5.0)
            maps[gate.name] = gated_transmm(slopes, saes, gate)
    maps["random"] = torch.rand(len(seen), vit.shape.patches,
                                generator=torch.Generator().manual_seed(0))
    return maps, slopes.target


def one_at_a_time(vit: Any, image: torch.Tensor, scores: np.ndarray, target: int,
                  questions: Questions, subsets: np.ndarray) -> dict[str, float]:
    "The three metrics of one map: pixels are changed, and the model runs for every question."
    shape = vit.shape
    columns, patches = shape.grid[1], shape.patches
    pixels = image.numpy()
    mean = pixels.mean((1, 2))[:, None, None]

    def probability(gone: np.ndarray) -> float:
        changed = pixels.copy()
        for patch in np.flatnonzero(gone):
            row, column = shape.patch * (patch // columns), shape.patch * (patch % columns)
            changed[:, row:row + shape.patch, column:column + shape.patch] = mean
        with torch.no_grad():
            return float(vit(torch.from_numpy(changed)[None]).softmax(-1)[0, target])

    whole = probability(np.zeros(patches, bool))
    order = np.argsort(-scores, kind="stable")
    curve = [probability(np.isin(np.arange(patches), order[:k])) for k in range(patches + 1)]
    falls = [whole - probability(gone) for gone in subsets]
    parts = np.array_split(order, questions.bins_of(patches))
    drops = [whole - probability(np.isin(np.arange(patches), part)) for part in parts]
    total, over, under = [scores[part].sum() for part in parts], 0.0, 0.0
    for i in range(len(parts)):
        for j in range(i + 1, len(parts)):
            over += (total[i] - total[j]) * (1 if drops[i] >= drops[j] else -1)
            under += abs(total[i] - total[j])
    sums = [scores[gone].sum() for gone in subsets]
    return {"saco": over / under, "correlation": float(stats.spearmanr(sums, falls).statistic),
            "flipping": float(np.trapezoid(curve) / patches)}


def speed(vit: Any, seen: torch.Tensor, questions: Questions, rounds: int) -> dict[str, Any]:
    """CPU seconds an image and map: attribution and three metrics, one at a time and together; for
    one map, and for all methods."""
    ratios, errors, plain, fast = [], [], [], []
    for at in range(rounds):
        image = seen[2 * at:2 * at + 2]
        begin = time.process_time()
        maps = attribution_maps(vit, image, ["transmm"])
        target = vit(image).argmax(1)
        together = faithfulness(vit, image, maps, target, questions)["transmm"]
        middle = time.process_time()
        for one in range(2):
            single = image[one:one + 1]
            scores = attribution_maps(vit, single, ["transmm"])["transmm"][0].double().numpy()
            sets = questions.sets(2, vit.shape.patches)[one]
            alone = one_at_a_time(vit, image[one], scores, int(target[one]), questions, sets)
            errors += [abs(alone[metric] - together[metric][one]) for metric in METRICS]
        end = time.process_time()
        plain.append((end - middle) / 2)
        fast.append((middle - begin) / 2)
        ratios.append(plain[-1] / fast[-1])
    return {"ratio_one_map": float(np.median(ratios)), "seconds_alone": float(np.median(plain)),
            "seconds_together": float(np.median(fast)), "largest_error": float(max(errors))}


def versus(rows: Any, first: str, second: str) -> list[dict[str, Any]]:
    "One gate against another, at both places, corrected together."
    kept = []
    for layers in PLACES:
        names = {Gate(layers, mode, most=5.0).name: mode for mode in (first, second)}
        part = rows[rows.configuration.isin(list(names))]
        kept.append(part.assign(data="layers " + " ".join(map(str, layers)),
                                configuration=part.configuration.map(names)))
    import pandas as pd
    return compare_configurations(pd.concat(kept), second).to_dict("records")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--saes", type=Path, default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)
    vit = vit_from_folder(given.data/"models"/"vit_mnist_kjetil")
    train = images_from_npz(given.data/"vision"/"mnist_cazala.npz", "x", "y").take(range(3000))
    digits = images_from_npz(given.data/"vision"/"mnist_t10k.npz", "x", "y")
    test, held = digits.take(range(given.images)), digits.take(range(2000, 2500))
    saes = saes_of(vit, train, given.saes)
    quality = [vars(one) for one in patch_quality(vit, saes, held)]
    questions, seen = Questions(), vit.normalisation.apply(test.pixels)
    timing = speed(vit, seen, questions, rounds=3)
    print(timing, flush=True)
    begin, found = time.process_time(), {}
    for part in torch.arange(len(test)).split(25):
        maps, target = all_maps(vit, seen[part], saes)
        for name, metrics in faithfulness(vit, seen[part], maps, target, questions).items():
            for metric, values in metrics.items():
                found.setdefault(name, {}).setdefault(metric, []).append(values)
        print(int(part[-1]) + 1, round(time.process_time() - begin), flush=True)
    spent = (time.process_time() - begin) / len(test) / len(found)
    rows = metric_rows({name: {metric: np.concatenate(parts) for metric, parts in metrics.items()}
                        for name, metrics in found.items()}, test.names, "mnist")
    gates = [Gate(layers, mode, most=5.0).name for layers in PLACES for mode in MODES]
    chosen, judged = held_out_choice(rows, "transmm", gates)
    numbers = {
        "sae_quality": quality,
        "means": {name: {metric: float(np.nanmean(np.concatenate(parts)))
                         for metric, parts in metrics.items()} for name, metrics in found.items()},
        "against_transmm": compare_configurations(rows, "transmm").to_dict("records"),
        "features_against_none": versus(rows, "combined", "no_sae"),
        "features_against_shuffled": versus(rows, "combined", "shuffled"),
        "chosen": chosen, "chosen_on_the_other_half": judged.to_dict("records"),
        "speed": timing | {"maps_together": len(found), "seconds_each_of_all_maps": spent,
                           "ratio_all_maps": timing["seconds_alone"] / spent}}
    settings = {"images": given.images, "layers": [list(place) for place in PLACES],
                "methods": list(METHODS), "modes": list(MODES), "largest_factor": 5.0,
                "questions": vars(questions), "sae_steps": SETTINGS.steps,
                "sae_images": len(train), "sae_k": SETTINGS.k}
    print(record.write("vision", settings, numbers))


if __name__ == "__main__": main()
