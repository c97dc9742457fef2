"""Edges against planted truth: precision, recall, AUROC, signs, types, strengths and cost of every
estimator, on models of growing difficulty.

`python benchmarks/truth.py` writes `results/truth.json` (about ten minutes on one core). The models
are transformers built by hand (`planted`); their true effects come from plain arithmetic on the
wiring, without the transformer. Every (source, target, offset 0-2) of a model is a question. Asked
for are effects seen in at least 5 % of a source's firings whose mean is not cancelled by signs;
whatever exists counts as real.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from record import RESULTS, write
from scipy import stats

from feature_interaction_graph.activations import collect_activations
from feature_interaction_graph.candidates import propose_candidates
from feature_interaction_graph.coactivation import build_coactivation_atlas
from feature_interaction_graph.config import Config
from feature_interaction_graph.engine.encoders import FeatureReader
from feature_interaction_graph.engine.names import parse_feature_id
from feature_interaction_graph.engine.residuals import clean_residuals
from feature_interaction_graph.engine.statistics import adjust
from feature_interaction_graph.engine.transport import transport_scores
from feature_interaction_graph.engine.weight_paths import direct_path_scores
from feature_interaction_graph.interactions import clamp_measure, measure_interactions
from feature_interaction_graph.measurement.gating import measure_gating
from feature_interaction_graph.measurement.jacobian import jacobian_measure
from feature_interaction_graph.planted.models import PlantedModel, plant
from feature_interaction_graph.planted.saes import Flaws
from feature_interaction_graph.planted.scores import gate_score
from feature_interaction_graph.planted.truth import CANCELS, WEAK
from feature_interaction_graph.planted.wiring import random_wiring

KEYS = ["src_layer", "src_feature", "tgt_layer", "tgt_feature", "offset"]
HORIZON, LEVEL = 2, 0.05
# for every method, a weaker effect is none: the planted norm is neutral to about 1e-5, which
# derivatives would see
TINY = 1e-3
CELLS: dict[str, dict[str, Any]] = {
    "orthogonal": {},
    "75 degrees": {"angle": 75.0},
    "60 degrees": {"angle": 60.0},
    "60 degrees, tied encoder": {"angle": 60.0, "encoder": "tied"},
    "5 % SAE error": {"flaws": Flaws(error=0.05)},
    "20 % SAE error": {"flaws": Flaws(error=0.2)},
    "split and dead features": {"flaws": Flaws(split=3, dead=5)},
    "60 degrees, 5 % error, split": {"angle": 60.0, "flaws": Flaws(error=0.05, split=3, dead=5)},
}
# where every way of measuring is scored
WHOLE = ("orthogonal", "60 degrees", "60 degrees, 5 % error, split")


@dataclass
class Case:
    "One planted model, its text and its truth."
    planted: PlantedModel
    corpus: Any
    effects: pd.DataFrame
    sources: list[tuple[int, int]]

    @classmethod
    def make(cls, seed: int, n_sequences: int, reading: str = "intended", **how: Any) -> "Case":
        planted = plant(random_wiring(seed), seed=seed, **how)
        corpus = planted.corpus(n_sequences, 24, seed=seed + 100)
        effects = planted.effects(corpus, horizon=HORIZON, reading=reading)
        counts = {layer: _fires(planted, corpus, layer) for layer in planted.saes}
        rare = {(layer, feature) for layer, count in counts.items()
                for feature in np.flatnonzero(count < 200).tolist()}
        effects = effects[
            [key not in rare
             for key in zip(effects["src_layer"], effects["src_feature"], strict=True)]
        ].reset_index(drop=True)
        size = effects["strength"].abs()
        effects["real"] = effects["share_nonzero"] > 0
        effects["wanted"] = (effects["share_nonzero"] >= WEAK) & (
            size >= np.maximum(CANCELS * effects["mean_abs"], TINY)
        )
        sources = sorted(
            set(zip(effects["src_layer"].tolist(), effects["src_feature"].tolist(), strict=True))
        )
        return cls(planted, corpus, effects, sources)


_FIRES: dict[tuple[int, int], np.ndarray] = {}


def _activations(planted: PlantedModel, corpus: Any, layer: int) -> np.ndarray:
    "Activations of one SAE at all positions but the first, `[n_rows, n_features]`."
    reader = FeatureReader(planted.saes[layer])
    name = reader.hook_point.name
    with torch.no_grad():
        streams = (clean_residuals(planted.model, corpus.tokens[rows], [name])[name]
                   for rows in torch.arange(len(corpus)).split(64))
        return torch.cat(
            [reader.read(stream[:, 1:].flatten(0, 1))[1] for stream in streams]
        ).numpy()


def _fires(planted: PlantedModel, corpus: Any, layer: int) -> np.ndarray:
    key = id(corpus), layer
    if key not in _FIRES: _FIRES[key] = (_activations(planted, corpus, layer) > 0).sum(0)
    return _FIRES[key]


def table_of(columns: dict[str, np.ndarray]) -> pd.DataFrame:
    "Keys, strength, q, type and a score that ranks edges."
    frame = pd.DataFrame({name: columns[name] for name
                          in [*KEYS, "strength", "q_value", "p_value", "interaction_type"]})
    if "placebo_q_value" in columns:          # an edge passes both tests
        other = np.nan_to_num(columns["placebo_q_value"])
        frame["q_value"] = np.maximum(frame["q_value"], other)
    return frame.assign(
        score=-np.log10(frame["p_value"].clip(lower=1e-300)) + frame["strength"].abs() * 1e-3
    )


def clamping(case: Case, n_samples: int = 100, placebo: int = 0) -> pd.DataFrame:
    return table_of(
        clamp_measure(case.planted.model, case.planted.saes, case.sources, case.corpus,
                      n_samples=n_samples, horizon=HORIZON, placebo=placebo, progress=False).columns
    )


def default_pipeline(case: Case) -> pd.DataFrame:
    """The steps of `fig run-pipeline` with their default settings (but for the reach of the truth:
    two later positions, four layers): features and pairs chosen on the text, then measured on it,
    specific as well as significant."""
    planted, corpus = case.planted, case.corpus
    with tempfile.TemporaryDirectory() as folder:
        cfg = Config(output_dir=folder, horizon=HORIZON, layer_window=4)
        store = collect_activations(planted.model, planted.saes, cfg, corpus, progress=False)
        atlas = build_coactivation_atlas(store, cfg)
        chosen = propose_candidates(planted.model, planted.saes, corpus, atlas, cfg, store, False)
        return table_of(measure_interactions(planted.model, planted.saes, chosen, cfg, corpus,
                                             False).columns)


def jacobian(case: Case, n_samples: int = 100, **how: Any) -> pd.DataFrame:
    return table_of(
        jacobian_measure(case.planted.model, case.planted.saes, case.sources, case.corpus,
                         n_samples=n_samples, horizon=HORIZON, progress=False, **how).columns
    )


def transport(case: Case, conditional: bool) -> pd.DataFrame:
    "Scores are before the threshold; p by t over 8 groups of sequences."
    found = transport_scores(case.planted.model, case.planted.saes, case.corpus, n_probes=4,
                             conditional=conditional, max_offset=HORIZON, progress=False)
    parts = []
    for source, target, offset in found.pairs:
        score = found.scores(source, target, offset).numpy()
        error = found.standard_errors(source, target, offset).numpy()
        with np.errstate(divide="ignore", invalid="ignore"):
            p_value = np.nan_to_num(2 * stats.t.sf(np.abs(score / error), 7), nan=1.0)
        parts.append(_matrix(source, target, offset, np.nan_to_num(score), p_value))
    frame = pd.concat(parts, ignore_index=True)
    frame = frame.assign(
        q_value=adjust(frame["p_value"].to_numpy()),
        interaction_type=np.where(frame["strength"] > 0, "excitatory", "inhibitory")
    )
    return frame.assign(score=-np.log10(frame["p_value"].clip(lower=1e-300)))


def _matrix(source: int, target: int, offset: int, strength: np.ndarray,
            p_value: np.ndarray | float = np.nan) -> pd.DataFrame:
    rows, columns = np.indices(strength.shape)
    values = {"src_layer": source, "src_feature": rows.ravel(), "tgt_layer": target,
              "tgt_feature": columns.ravel(), "offset": offset, "strength": strength.ravel(),
              "p_value": np.broadcast_to(p_value, strength.shape).ravel()}
    return pd.DataFrame(values)


def weights_only(case: Case, score: Callable[[int, int], np.ndarray]) -> pd.DataFrame:
    "A score without samples: same position only, no p, ranked by magnitude."
    layers = sorted(case.planted.saes)
    parts = [_matrix(a, b, 0, score(a, b)) for a in layers for b in layers if b > a]
    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(
        score=frame["strength"].abs(), q_value=np.nan,
        interaction_type=np.where(frame["strength"] > 0, "excitatory", "inhibitory")
    )


def pmi(case: Case) -> pd.DataFrame:
    "Pointwise mutual information of firing at the same position."
    active = {
        layer: _activations(case.planted, case.corpus, layer) > 0 for layer in case.planted.saes
    }
    def score(a: int, b: int) -> np.ndarray:
        together = active[a].T.astype(float) @ active[b]
        expected = np.outer(active[a].sum(0), active[b].sum(0)) / len(active[a])
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.nan_to_num(np.log(np.maximum(together, 0.5) / expected), posinf=0.0)
    return weights_only(case, score)


def cosine(case: Case) -> pd.DataFrame:
    def unit(layer: int) -> torch.Tensor:
        return torch.nn.functional.normalize(case.planted.saes[layer].W_dec.detach(), dim=-1)
    return weights_only(case, lambda a, b: (unit(a) @ unit(b).T).numpy())


def direct(case: Case) -> pd.DataFrame:
    return weights_only(case, lambda a, b: direct_path_scores(case.planted.saes, a, b).numpy())


def twera(case: Case) -> pd.DataFrame:
    """Target-weighted expected residual attribution (Ameisen et al. 2025): the virtual weight from
    decoder to encoder, times E[f_s f_t] / E[f_t]."""
    active = {layer: _activations(case.planted, case.corpus, layer).astype(float)
              for layer in case.planted.saes}
    def score(a: int, b: int) -> np.ndarray:
        mean = np.maximum(active[b].sum(0), 1e-12)
        both = active[a].T @ active[b]
        return direct_path_scores(case.planted.saes, a, b).numpy() * both / mean
    return weights_only(case, score)


def lasso(case: Case) -> pd.DataFrame:
    """Sparse regression as in CircuitLasso (arXiv 2606.16939): every target's activation on those
    of all features of all earlier layers, here at the target's position and the two before; columns
    and targets are standardised, the penalty is the universal one, sqrt(2 ln p / n). No p-values:
    ranked by the size of the standardised coefficient."""
    from sklearn.linear_model import Lasso
    n_sequences, layers = len(case.corpus), sorted(case.planted.saes)
    wide = {layer: _activations(case.planted, case.corpus, layer).astype(float).reshape(
        n_sequences, -1, case.planted.saes[layer].cfg.d_sae) for layer in layers}
    length, parts = wide[layers[0]].shape[1], []
    for later in layers[1:]:
        keys = [(a, offset) for a in layers if a < later for offset in range(HORIZON + 1)]
        columns = [wide[a][:, HORIZON - offset:length - offset] for a, offset in keys]
        x = np.concatenate([each.reshape(-1, each.shape[-1]) for each in columns], axis=1)
        y = wide[later][:, HORIZON:].reshape(len(x), -1)
        size = [np.where(each.std(0) > 0, each.std(0), 1.0) for each in (x, y)]
        penalty = np.sqrt(2 * np.log(x.shape[1]) / len(x))
        model = Lasso(alpha=penalty, precompute=True, fit_intercept=False, max_iter=5000)
        found = model.fit((x - x.mean(0)) / size[0], (y - y.mean(0)) / size[1]).coef_.T
        ends = np.cumsum([0, *(each.shape[-1] for each in columns)])
        for (a, offset), first, last in zip(keys, ends[:-1], ends[1:], strict=True):
            standard = found[first:last]
            strength = standard * size[1] / size[0][first:last, None]
            parts.append(_matrix(a, later, offset, strength).assign(score=np.abs(standard).ravel()))
    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(
        q_value=np.nan, interaction_type=np.where(frame["strength"] > 0, "excitatory", "inhibitory")
    )


def older_rules(case: Case, n_sequences: int = 100) -> pd.DataFrame:
    """The rules of an earlier published tool, as they stand in its code (with its two crashes
    repaired): random sequences whether or not the source fires there; doses from the 10 % and 90 %
    quantile within the sequence; the source clamped at *all* positions; mean over the positions
    where it was active; t-test with p = 1 where the spread is zero; "gating" where the coefficient
    of variation exceeds 2. One offset.
    """
    chosen = np.random.default_rng(42).permutation(len(case.corpus))[:n_sequences]
    tokens, saes, parts = case.corpus.tokens[chosen], case.planted.saes, []
    readers = {layer: FeatureReader(sae) for layer, sae in saes.items()}
    names = {layer: reader.hook_point.name for layer, reader in readers.items()}
    from feature_interaction_graph.engine.hook_points import HookPoint, decoder_layers, edit
    layers = decoder_layers(case.planted.hf_model)
    for layer, feature in case.sources:
        later = [target for target in saes if target > layer]
        stream = clean_residuals(case.planted.hf_model, tokens, [names[layer]])[names[layer]]
        value = readers[layer].read(stream)[1][..., feature]
        active, read = value > 0, []
        fired = [row[on] for row, on in zip(value, active, strict=True)]
        doses = torch.stack(
            [torch.tensor([torch.quantile(row, share) if len(row) else 0.0 for row in fired])
             for share in (0.1, 0.9)]
        )
        for dose in doses:
            push = (dose[:, None] - value)[..., None] * readers[layer].decoder[feature]
            with edit(layers, HookPoint("resid_pre", min(layer, len(layers) - 1)),
                      lambda h, push=push: h + push):
                after = clean_residuals(
                    case.planted.hf_model, tokens, [names[target] for target in later]
                )
            read.append({target: readers[target].read(after[names[target]])[1] for target in later})
        unit = doses[1] - doses[0]
        valid = (unit >= 1e-6) & active.any(1)
        for target in later:
            change = (read[1][target] - read[0][target]) / (unit[:, None, None] + 1e-8)
            effect = (change * active[..., None]).sum(1)[valid] / active.sum(1)[valid, None]
            if len(effect) < 5: continue
            sample = effect.double().numpy()
            mean, spread = sample.mean(0), sample.std(0)
            with np.errstate(divide="ignore", invalid="ignore"):
                p_value = np.where(spread == 0, 1.0, stats.ttest_1samp(sample, 0).pvalue)
            frame = _matrix(
                layer, target, 0, mean[None], np.nan_to_num(p_value, nan=1.0)[None]
            ).assign(src_feature=feature)
            kind = np.where(spread / (np.abs(mean) + 1e-8) > 2, "gating",
                            np.where(mean > 0, "excitatory", "inhibitory"))
            parts.append(frame.assign(interaction_type=kind))
    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(q_value=adjust(frame["p_value"].to_numpy()),
                        score=-np.log10(frame["p_value"].clip(lower=1e-300)))


METHODS: dict[str, Callable[[Case], pd.DataFrame]] = {
    "default pipeline": default_pipeline,
    "clamping with placebo": lambda case: clamping(case, placebo=32),
    "clamping": clamping,
    "Jacobian": jacobian,
    "integrated gradients (8 steps)": lambda case: jacobian(case, steps=8),
    "LRP rules": lambda case: jacobian(case, rules="lrp"),
    "transport": lambda case: transport(case, False),
    "transport where the source fires": lambda case: transport(case, True),
    "direct path": direct,
    "co-activation (PMI)": pmi,
    "decoder cosine": cosine,
    "virtual weights by co-activation (TWERA)": twera,
    "sparse regression (CircuitLasso)": lasso,
    "older rules": older_rules,
}


def auroc(true: np.ndarray, score: np.ndarray) -> float:
    """Chance that a true edge is ranked above a false one (ties half), by the Mann-Whitney
    statistic."""
    ranks, n_true = stats.rankdata(score), int(true.sum())
    return float((ranks[true].sum() - n_true * (n_true + 1) / 2) / (n_true * (len(true) - n_true)))


def judge(case: Case, table: pd.DataFrame) -> dict[str, float]:
    """Scores of one table. Methods without p-values are given the true number of edges (their best
    case): the found are that many of the highest score. Effects below `TINY` count as none;
    `n_tiny` says how many there are."""
    both = case.effects[[*KEYS, "strength", "real", "wanted"]].rename(
        columns={"strength": "true"}
    ).merge(table, on=KEYS, how="left")
    tiny = both["strength"].abs().fillna(0.0) < TINY
    both.loc[tiny, ["score", "strength"]] = 0.0
    ranked = both["q_value"].isna().all()
    if ranked:
        found = np.zeros(len(both), bool)
        found[np.argsort(-both["score"].to_numpy(), kind="stable")[:int(both["wanted"].sum())]] = (
            True
        )
    else:
        found = (
            (both["q_value"] < LEVEL) & (both["interaction_type"] != "none") & ~tiny
        ).to_numpy()
    wanted, real = both["wanted"].to_numpy(), both["real"].to_numpy()
    right = found & wanted
    ask = wanted | ~real
    sign = np.sign(both["strength"]) == np.sign(both["true"])
    ratio = (both["strength"] / both["true"] - 1).abs()[right]
    kind = np.where(both["true"] > 0, "excitatory", "inhibitory") == both["interaction_type"]
    return {"n_true": int(wanted.sum()), "n_found": int(found.sum()), "n_tiny": int(tiny.sum()),
            "precision": float(real[found].mean()) if found.any() else float("nan"),
            "recall": float(found[wanted].mean()),
            "auroc": auroc(wanted[ask], both["score"].to_numpy()[ask]),
            "sign_accuracy": float(sign[right].mean()) if right.any() else float("nan"),
            "edge_types_right": float((kind & found)[wanted].mean()),
            "strength_error": float(ratio.median()) if right.any() else float("nan")}


def gates(case: Case, n_others: int = 200) -> dict[str, float]:
    """Gates of all planted gated pairs (source and gate in one layer) and of `n_others` random
    pairs, against the planted ones."""
    truth = [edge for edge in case.planted.truth(case.corpus, horizon=0).graph["hyperedges"]
             if edge["offset"] == 0
             and parse_feature_id(edge["source"])[0] == parse_feature_id(edge["gate"])[0]]
    truth = [edge for edge in truth if parse_feature_id(edge["source"]) in set(case.sources)]
    pairs = [(parse_feature_id(edge["source"]), parse_feature_id(edge["target"])) for edge in truth]
    others = case.effects[KEYS[:4]].drop_duplicates().sample(n_others, random_state=0)
    pairs = list(dict.fromkeys(
                     [*pairs, *(((a, i), (b, j)) for a, i, b, j in others.itertuples(index=False))]
                 ))
    begin = time.perf_counter()
    found = measure_gating(
        case.planted.model, case.planted.saes, pairs, case.corpus, progress=False
    )
    score = gate_score(found.columns, truth, case.planted.simulator(case.corpus), LEVEL)
    return {"n_planted": score.n_planted, "n_pairs": len(pairs), "n_found": score.n_found,
            "n_right": round(score.recall * score.n_planted),
            "precision": score.precision, "recall": score.recall,
            "direction_accuracy": score.direction_accuracy, "seconds": time.perf_counter() - begin}


def type_accuracy(edges: dict[str, float], gated: dict[str, float]) -> float:
    """Share of the edges and gates asked for that are found with their sign, or with their
    direction."""
    n_right = (edges["edge_types_right"] * edges["n_true"]
               + gated["n_right"] * gated["direction_accuracy"])
    return n_right / (edges["n_true"] + gated["n_planted"])


def averaged(rows: list[dict[str, float]]) -> dict[str, float]:
    "Mean over models, counts summed."
    frame = pd.DataFrame(rows)
    return {name: float(frame[name].sum() if name.startswith("n_") else frame[name].mean())
            for name in frame}


def against_readings(seeds: int, n_sequences: int, how: dict[str, Any]) -> dict[str, float]:
    """The clamp scored against what flawed SAEs do read and write, rather than what they were meant
    to."""
    cases = [Case.make(seed, n_sequences, reading="actual", **how) for seed in range(seeds)]
    return averaged([judge(case, METHODS["clamping"](case)) for case in cases])


def rows_of(measure: Callable[[Case], pd.DataFrame], cases: list[Case]) -> dict[str, float]:
    "What one way of measuring scores on some models, and its seconds."
    rows = []
    for case in cases:
        begin, used = time.perf_counter(), time.process_time()
        table = measure(case)
        rows.append({**judge(case, table), "seconds": time.perf_counter() - begin,
                     "processor_seconds": time.process_time() - used})
    return averaged(rows)


def add_methods(names: list[str], stored: dict[str, Any]) -> None:
    """Scores the ways `names` on the models of the file, beside the clamp measured again: to its
    seconds, which this run's may not compare with, theirs are scaled."""
    settings = stored["settings"]
    for cell in WHOLE:
        cases = [Case.make(seed, settings["sequences"], **CELLS[cell])
                 for seed in range(settings["models_per_cell"])]
        rows, there = {}, stored["numbers"]["methods"][cell]
        for name in ("clamping", *names):
            rows[name] = rows_of(METHODS[name], cases)
            print(f"{cell:32s} {name:32s}", rows[name], flush=True)
        here = rows.pop("clamping")["processor_seconds"]
        for row in rows.values():
            row["seconds"] = row["processor_seconds"] / here * there["clamping"]["seconds"]
        found = {**there, **rows}
        stored["numbers"]["methods"][cell] = {name: found[name] for name in METHODS
                                              if name in found}


def run(seeds: int, n_sequences: int, names: list[str]) -> dict[str, Any]:
    methods: dict[str, dict[str, Any]] = {}
    difficulty: dict[str, Any] = {}
    samples: dict[str, Any] = {}
    for name in names:
        how = CELLS[name]
        cases = [Case.make(seed, n_sequences, **how) for seed in range(seeds)]
        chosen = (METHODS if name in WHOLE
                  else {key: METHODS[key] for key in list(METHODS)[:4]})
        methods[name] = {}
        for method, measure in chosen.items():
            methods[name][method] = rows_of(measure, cases)
            print(
                f"{name:32s} {method:32s}",
                {key: round(value, 3) for key, value in methods[name][method].items()}, flush=True
            )
        score = averaged([gates(case) for case in cases])
        best = methods[name]["clamping with placebo"]
        difficulty[name] = {"models": seeds, "gates": score,
                            "type_accuracy": type_accuracy(best, score)}
        if how.get("flaws") or how.get("encoder"):
            difficulty[name]["against_what_the_saes_read"] = against_readings(
                seeds, n_sequences, how
            )
        print(f"{name:32s}", difficulty[name], flush=True)
        if name in ("orthogonal", "60 degrees"):
            samples[name] = {n: averaged([judge(case, clamping(case, n)) for case in cases])
                             for n in (4, 10, 13, 20, 50, 100)}
            print(f"{name:32s}", {n: (round(row["precision"], 3), round(row["recall"], 3))
                                  for n, row in samples[name].items()}, flush=True)
    return {"methods": methods, "difficulty": difficulty, "samples": samples}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sequences", type=int, default=400)
    parser.add_argument("--cells", nargs="*", default=list(CELLS),
                        help="only these; the others keep what results/truth.json says of them")
    parser.add_argument(
        "--readings", action="store_true", help="only the comparison with what flawed SAEs read; "
                                                "the rest of results/truth.json is kept"
    )
    parser.add_argument("--gates", action="store_true",
                        help="only the gates; the rest of results/truth.json is kept")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=[],
                        help="only these ways; the rest of results/truth.json is kept")
    chosen = parser.parse_args()
    settings = {"models_per_cell": chosen.seeds, "sequences": chosen.sequences, "length": 24,
                "level": LEVEL, "offsets": HORIZON + 1, "n_samples": 100}
    path = RESULTS / "truth.json"
    if chosen.methods:
        stored = json.loads(path.read_text())
        add_methods(chosen.methods, stored)
        write("truth", stored["settings"], stored["numbers"])
        return
    if chosen.readings:
        numbers = json.loads(path.read_text())["numbers"]
        for name, row in numbers["difficulty"].items():
            if "against_what_the_saes_read" in row:
                row["against_what_the_saes_read"] = against_readings(
                    row.get("models", chosen.seeds), chosen.sequences, CELLS[name]
                )
        write("truth", settings, numbers)
        return
    if chosen.gates:
        stored = json.loads(path.read_text())
        for name, row in stored["numbers"]["difficulty"].items():
            cases = [Case.make(seed, chosen.sequences, **CELLS[name])
                     for seed in range(row["models"])]
            row["gates"] = averaged([gates(case) for case in cases])
            best = stored["numbers"]["methods"][name]["clamping with placebo"]
            row["type_accuracy"] = type_accuracy(best, row["gates"])
        write("truth", stored["settings"], stored["numbers"])
        return
    numbers = run(chosen.seeds, chosen.sequences, chosen.cells)
    if set(chosen.cells) != set(CELLS) and path.exists():
        before = json.loads(path.read_text())["numbers"]
        numbers = {part: {name: {**before[part], **found}[name] for name in CELLS
                          if name in {**before[part], **found}} for part, found in numbers.items()}
    write("truth", settings, numbers)


if __name__ == "__main__":
    main()
