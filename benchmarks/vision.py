"""Attribution maps and gates on a real vision transformer: how faithful they are, and what the
sparse features add.

    python benchmarks/vision.py --data ../shared/data

Three models: a ViT of others on digits, one trained here on CIFAR-10, and a small CLIP of others
that says zero-shot what clothes are. For each, SAEs of this package on training images, maps and
metrics on others: every method and every mode of the gate against plain TransMM, paired, corrected
over the whole table; features against none, and against a shuffled decoder; a choice made on half
the images and judged on the other half. Then the same numbers one image and one question at a time,
in the same process, in turn, by CPU time; the same images through Quantus, where it is installed;
and the interaction graph of the digits' ViT.

Every twenty images of a model are kept in `--work` as they are done, and so is each other part: a
run that was stopped goes on there. Whoever changes what a map or a measure is takes a new folder.
"""
import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import record
import torch
import vision_quantus
from scipy import stats
from vision_models import CLOTHES, cifar_images, cifar_vit, clip_mira, clothes_images

from feature_interaction_graph.engine.errors import atomic_write
from feature_interaction_graph.graph import build_interaction_graph
from feature_interaction_graph.training.saes import SaeSettings
from feature_interaction_graph.vision.adapters import vit_from_folder
from feature_interaction_graph.vision.attribution import METHODS, attribution_maps, slopes_of
from feature_interaction_graph.vision.comparison import (
    compare_configurations, held_out_choice, metric_rows
)
from feature_interaction_graph.vision.faithfulness import METRICS, Questions, faithfulness
from feature_interaction_graph.vision.gate import MODES, Gate, gated_transmm
from feature_interaction_graph.vision.images import images_from_npz
from feature_interaction_graph.vision.patch_features import patch_firings, top_patches
from feature_interaction_graph.vision.patch_graph import PatchQuestion, measure_patch_graph
from feature_interaction_graph.vision.patch_rules import (
    check_classes, explain_patches, patch_predicates
)
from feature_interaction_graph.vision.saes import patch_quality, train_patch_saes
from feature_interaction_graph.vision.vit import class_scores, share_right

PLACES = {"mnist": ((3,), (1, 2, 3, 4)), "cifar10": ((2,), (1, 2, 3)), "clip": ((4,), (2, 4))}
SETTINGS = SaeSettings(width=512, k=12, steps=800, batch_size=1024, lr=2e-3, progress=False)


def remembered(path: Path, asked: dict[str, Any], make: Callable[[], Any]) -> Any:
    "What `make` gives; if `path` holds it from before, for the same `asked`, it is read there."
    asked = json.loads(json.dumps(asked))
    if path.is_file():
        kept = json.loads(path.read_text())
        if kept["asked"] == asked: return kept["given"]
    path.parent.mkdir(parents=True, exist_ok=True)
    given = json.loads(json.dumps(make()))
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps({"asked": asked, "given": given}))
    return given


def saes_of(name: str, vit: Any, images: Any, folder: Path) -> dict[int, Any]:
    "Those in `folder`, or new ones that are kept there."
    from sae_lens import SAE
    layers, here = PLACES[name][-1], folder/name
    if not all((here/f"patches.{layer}").is_dir() for layer in layers):
        train_patch_saes(vit, images, layers, replace(SETTINGS, output_dir=here))
    return {layer: SAE.load_from_disk(str(here/f"patches.{layer}")).eval() for layer in layers}


def all_maps(vit: Any, seen: torch.Tensor, saes: dict[int, Any], places: tuple
             ) -> tuple[dict, torch.Tensor]:
    "Every method, every gate, and a map that knows nothing."
    slopes = slopes_of(vit, seen)
    maps = attribution_maps(vit, seen)
    for layers in places:
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


def speed(vit: Any, seen: torch.Tensor, saes: dict[int, Any], places: tuple, questions: Questions,
          rounds: int) -> dict[str, Any]:
    """CPU seconds an image and map, side by side in every round: attribution and three measures
    one at a time, ten images of one map together, and ten images of all maps together."""
    spent: dict[str, list[float]] = {"alone": [], "together": [], "each_of_all_maps": []}
    errors, n_maps = [], 0
    for at in range(rounds):
        image = seen[10 * at:10 * at + 10]
        begin = time.process_time()
        maps = attribution_maps(vit, image, ["transmm"])
        target = vit(image).argmax(1)
        together = faithfulness(vit, image, maps, target, questions)["transmm"]
        spent["together"].append((time.process_time() - begin) / len(image))
        begin = time.process_time()
        for one in range(2):
            scores = attribution_maps(vit, image[one:one + 1], ["transmm"])["transmm"][0]
            sets = questions.sets(len(image), vit.shape.patches)[one]
            alone = one_at_a_time(vit, image[one], scores.double().numpy(), int(target[one]),
                                  questions, sets)
            errors += [abs(alone[metric] - together[metric][one]) for metric in METRICS]
        spent["alone"].append((time.process_time() - begin) / 2)
        found = measured(vit, image, saes, places, questions)
        n_maps = len(found["found"])
        spent["each_of_all_maps"].append(found["seconds"] / len(image) / n_maps)
    ratio = {name: float(np.median(np.divide(spent["alone"], spent[name]))) for name in spent}
    return {**{f"seconds_{name}": float(np.median(values)) for name, values in spent.items()},
            "ratio_one_map": ratio["together"], "ratio_all_maps": ratio["each_of_all_maps"],
            "ratios_all_maps": np.divide(spent["alone"], spent["each_of_all_maps"]).tolist(),
            "maps_together": n_maps, "largest_error": float(max(errors))}


def versus(rows: Any, first: str, second: str, places: tuple) -> list[dict[str, Any]]:
    "One gate against another, at all places, corrected together."
    kept = []
    for layers in places:
        names = {Gate(layers, mode, most=5.0).name: mode for mode in (first, second)}
        part = rows[rows.configuration.isin(list(names))]
        kept.append(part.assign(data="layers " + " ".join(map(str, layers)),
                                configuration=part.configuration.map(names)))
    return compare_configurations(pd.concat(kept), second).to_dict("records")


def measured(vit: Any, seen: torch.Tensor, saes: dict[int, Any], places: tuple,
             questions: Questions) -> dict[str, Any]:
    "The measures of every map of the images `seen`, as lists, and the CPU seconds they took."
    begin = time.process_time()
    maps, target = all_maps(vit, seen, saes, places)
    found = faithfulness(vit, seen, maps, target, questions)
    return {"seconds": time.process_time() - begin,
            "found": {which: {metric: values.tolist() for metric, values in metrics.items()}
                      for which, metrics in found.items()}}


def study(name: str, vit: Any, sets: dict[str, Any], questions: Questions, folder: Path
          ) -> dict[str, Any]:
    "All comparisons of one model; `sets`: images to train SAEs, to judge them, and to explain."
    places, test = PLACES[name], sets["test"]
    saes = saes_of(name, vit, sets["train"], folder)
    asked = {"questions": vars(questions), "settings": [SETTINGS.width, SETTINGS.k, SETTINGS.steps],
             "places": places}
    quality = remembered(folder/"done"/f"{name}_quality.json", asked, lambda: [
        vars(one) for one in patch_quality(vit, saes, sets["held"])])
    seen, parts = vit.normalisation.apply(test.pixels), []
    for part in torch.arange(len(test)).split(20):
        first, last = int(part[0]), int(part[-1])
        parts.append(remembered(folder/"done"/f"{name}_{first}.json", asked | {"last": last},
                                partial(measured, vit, seen[part], saes, places, questions)))
        print(name, last + 1, round(parts[-1]["seconds"]), flush=True)
    found = parts[0]["found"]
    spent = sum(part["seconds"] for part in parts) / len(test) / len(found)
    joined = {which: {metric: np.concatenate([part["found"][which][metric] for part in parts])
                      for metric in metrics} for which, metrics in found.items()}
    rows = metric_rows(joined, test.names, name)
    gates = [Gate(layers, mode, most=5.0).name for layers in places for mode in MODES]
    chosen, judged = held_out_choice(rows, "transmm", gates)
    return {
        "images": len(test), "accuracy": share_right(class_scores(vit, test), test.labels),
        "sae_quality": quality, "seconds_each_of_all_maps": spent, "maps_together": len(found),
        "means": {which: {metric: float(np.nanmean(values)) for metric, values in metrics.items()}
                  for which, metrics in joined.items()},
        "against_transmm": compare_configurations(rows, "transmm").to_dict("records"),
        "features_against_none": versus(rows, "combined", "no_sae", places),
        "features_against_shuffled": versus(rows, "combined", "shuffled", places),
        "chosen": chosen, "chosen_on_the_other_half": judged.to_dict("records")}


def mean_patch(firings: Any, images: Any, feature: int, side: int, grid: tuple[int, int]) -> str:
    "The mean grey picture of a feature's 20 strongest patches and those around them, as hex."
    found = []
    for one in top_patches(firings, feature, images, 20):
        row, column = (side * at for at in divmod(one.patch, grid[1]))
        pixels = np.pad(images.pixels[one.number].mean(0), side)
        found.append(pixels[row:row + 3 * side, column:column + 3 * side])
    return np.mean(found, 0).round().astype(np.uint8).tobytes().hex()


def graph_of(vit: Any, saes: dict[int, Any], images: Any) -> dict[str, Any]:
    """The strongest edges of the interaction graph, how long it took, and what the features of the
    twelve strongest edges into classes, and of edges into those, look like."""
    begin = time.process_time()
    table = measure_patch_graph(vit, saes, images, PatchQuestion(top=16, samples=32), False)
    spent, G = time.process_time() - begin, build_interaction_graph(table)
    last, side = vit.shape.layers, vit.shape.patch
    edges = sorted(G.edges(data=True), key=lambda edge: -abs(edge[2]["strength_std"] or 0))
    told = [{"source": a, "target": b, "source_label": G.nodes[a]["label"],
             "target_label": G.nodes[b]["label"],
             **{key: facts[key] for key in ("strength", "strength_std", "ci_lower", "ci_upper",
                                            "q_value", "n_samples", "interaction_type")}}
            for a, b, facts in edges]
    kinds = {"to_classes": [one for one in told if one["target"].startswith(f"L{last}_")],
             "between_features": [one for one in told if not one["target"].startswith(f"L{last}_")]}
    drawn = kinds["to_classes"][:12]
    shown = {one["source"] for one in drawn}
    drawn += [one for one in kinds["between_features"] if one["target"] in shown][:12]
    firings = patch_firings(vit, saes, images)
    pictures = {name: mean_patch(firings[G.nodes[name]["layer"]], images,
                                 G.nodes[name]["feature_idx"], side, vit.shape.grid)
                for name in sorted({one["source"] for one in drawn} | shown)}
    return {"images": len(images), "tested": len(table), "cpu_seconds": spent,
            "rows": int(sum(set_of_rows(table))),
            **{f"n_{name}": len(some) for name, some in kinds.items()},
            **{name: some[:40] for name, some in kinds.items()},
            "drawn": drawn, "pictures": pictures, "picture_side": 3 * side}


def set_of_rows(table: Any) -> list[int]:
    "Samples of every source, each once."
    one = {(a, b): n for a, b, n in zip(*(table.columns[name].tolist() for name in (
        "src_layer", "src_feature", "n_samples")), strict=True)}
    return list(one.values())


def mnist_sets(data: Path, n: int) -> dict[str, Any]:
    "Digits."
    train = images_from_npz(data/"vision"/"mnist_cazala.npz", "x", "y").take(range(3000))
    digits = images_from_npz(data/"vision"/"mnist_t10k.npz", "x", "y")
    return {"train": train, "test": digits.take(range(n)), "held": digits.take(range(2000, 2500))}


def rules_of(vit: Any, saes: Any, images: Any) -> dict[str, Any]:
    "How many features have a rule that holds on other images, and raise the class that it names."
    known, found = patch_predicates(images, vit.shape.grid), dict[str, Any]()
    for layer, active in patch_firings(vit, saes, images).items():
        explained = explain_patches(active, layer, known, len(images))
        checks = check_classes(vit, saes, images, active, explained, known)
        f1 = np.array([each.scores.f1 for each in explained])
        found[str(layer)] = {
            "features": len(f1), "good": int((f1 >= 0.8).sum()), "half": int((f1 >= 0.5).sum()),
            "median_f1": float(np.median(f1)), "name_a_class": len(checks),
            "raise_it": sum(each.q_value < 0.05 for each in checks),
            "examples": [{"id": each.id, "rule": each.rule, **each.scores._asdict()} for each in
                         sorted(explained, key=lambda each: -each.scores.low)[:4]]}
        print(layer, {key: value for key, value in found[str(layer)].items() if key != "examples"},
              flush=True)
    return {"images": len(images), "predicates": len(known), "layers": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--work", type=Path, default=Path("outputs/vision_benchmark"),
                        help="Folder of what is trained: the ViT of CIFAR-10, and SAEs.")
    parser.add_argument("--rules", action="store_true", help="Only what features fire on.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    vit, questions = vit_from_folder(given.data/"models"/"vit_mnist_kjetil"), Questions()
    sets = mnist_sets(given.data, given.images)
    seen = vit.normalisation.apply(sets["test"].pixels)
    done, saes = given.work/"done", saes_of("mnist", vit, sets["train"], given.work)
    rules = remembered(done/"rules.json", {}, lambda: rules_of(vit, saes, sets["held"]))
    if given.rules:
        before = json.loads((record.RESULTS/"vision.json").read_text())
        print(record.write("vision", before["settings"], before["numbers"] | {"rules": rules}))
        return
    timing = remembered(done/"speed.json", {"questions": vars(questions)}, lambda: speed(
        vit, seen, saes, PLACES["mnist"], questions, rounds=5))
    print(timing, flush=True)
    numbers = study("mnist", vit, sets, questions, given.work) | {"speed": timing}
    numbers["rules"] = rules
    numbers["graph"] = remembered(done/"graph.json", {}, lambda: graph_of(vit, saes, sets["held"]))
    numbers["quantus"] = remembered(done/"quantus.json", {},
                                    lambda: vision_quantus.agreement(vit, seen[:8]))
    print(numbers["quantus"], flush=True)
    train, test = (cifar_images(given.data, which) for which in ("train", "test"))
    pictures = {"train": train.take(range(2000)), "held": test.take(range(2000, 2500)),
                "test": test.take(range(given.images // 2))}
    numbers["others"] = {"cifar10": study("cifar10", cifar_vit(given.work/"cifar_vit", train),
                                          pictures, questions, given.work)}
    clothes = clothes_images(given.data)
    wear = {"train": clothes.take(range(400)), "held": clothes.take(range(400, 600)),
            "test": clothes.take(range(600, 600 + given.images // 5))}
    numbers["others"]["clip"] = study("clip", clip_mira(given.data, CLOTHES), wear,
                                      Questions(step=8, bins=32, subsets=60), given.work)
    settings = {"images": given.images, "layers": [list(place) for place in PLACES["mnist"]],
                "methods": list(METHODS), "modes": list(MODES), "largest_factor": 5.0,
                "questions": vars(questions), "sae_steps": SETTINGS.steps,
                "sae_images": len(sets["train"]), "sae_k": SETTINGS.k}
    print(record.write("vision", settings, numbers))


if __name__ == "__main__": main()
