"""Breaks the code on purpose, in one place at a time, and says whether a page or a test notices.

    python tools/mutations.py            every mutation of the table: about an hour
    python tools/mutations.py decay      those whose name or module holds this word

Nothing here is touched: a copy of the project is broken, in a module and in the page that writes
it. The page is run, then what stands beside the module, until something fails. Exit status 1 if a
mutation survived.
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "feature_interaction_graph"


class Mutation(NamedTuple):
    "In `module`, `old` (which stands there once) becomes `new`."
    name: str
    module: str
    old: str
    new: str


# module: name, what stands there, what stands there instead
MUTATIONS = {
    "engine/errors.py": [
        ("a name before the bytes are on the disk",
         "        _on_disk(temporary)",
         "        pass"),
        ("what a living process writes is cleared away",
         "if _lives(int(part[3]), path.lstat().st_mtime): continue",
         "if not part[3]: continue"),
        ("another process of the same number taken for the writer",
         "and process.create_time() < written + _SLACK)",
         "and process.create_time() > 0)"),
    ],
    "engine/locks.py": [
        ("a lock on a file that has no name any more",
         "if os.path.samestat(os.fstat(held), path.stat()): return held",
         "return held"),
        ("a lock file that stays",
         "path.unlink(missing_ok=True)",
         "pass"),
    ],
    "engine/workers.py": [
        ("a lost part that nobody does again",
         "                waiting.appendleft(number)\n",
         "                pass\n"),
        ("results under the numbers of other parts",
         "busy[answer] = worker, number",
         "busy[answer] = worker, len(busy)"),
        ("all threads for every worker",
         "return fitting[-1]",
         "return max(processors)"),
    ],
    "measurement/distributed.py": [
        ("parts joined as they come",
         "[by_layer[layer] for layer in blocks[number]]",
         "list(by_layer.values())"),
        ("a block that is given before all of its layers are there",
         "if rows[number].keys() < blocks[number].keys(): continue",
         "if not rows[number]: continue"),
        ("layers without their placebo",
         "{key: pool for key, pool in references.items() if key[0] in group}",
         "{key: pool for key, pool in references.items() if key[0] in group[:1]}"),
    ],
    "engine/shards.py": [
        ("a checksum that nobody looks at",
         'elif file_digest(path) != record["sha256"]: why',
         "elif not record: why"),
        ("shards of other settings",
         "if now != self.facts: self.shards = {}",
         "if not now: self.shards = {}"),
        ("finished with the first shard",
         'return len(manifest["shards"]) == manifest["n_shards"]',
         'return len(manifest["shards"]) > 0'),
        ("a manifest that says anything",
         'if _hash(manifest["facts"]) == manifest["key"]: return manifest',
         "return manifest"),
    ],
    "engine/run_folder.py": [
        ("a Ctrl-C that Python dropped is lost",
         "        if came: raise KeyboardInterrupt",
         "        pass"),
        ("of a stage only the size is compared",
         "for path, before, digest in digests if digest != before])",
         "for path, before, digest in digests if not digest])"),
        ("what another process has made meanwhile is not seen",
         "self.is_alone, self.records = True, self._stored()",
         "self.is_alone = True"),
        ("shards of a forced run are those of the run before",
         "if self.force: drop_shards(shards)",
         "pass"),
    ],
    "tracing/frozen.py": [
        ("patterns follow the perturbed stream",
         "if module not in self.kept:",
         "if True:"),
        ("norms divide by twice the variance",
         "scale = (centred(x0).square()",
         "scale = (2 * centred(x0).square()"),
    ],
    "tracing/paths.py": [
        ("values without the pattern",
         "share = self.pattern[:, position, mine.position[before]].T",
         "share = torch.ones_like(self.pattern[:, position, mine.position[before]].T)"),
        ("what passes by attention left out",
         "edges[which[:, None], mine.node[here]] += past[which] @ mine.vector[here].T",
         "edges[which[:, None], mine.node[here]] += 0 * past[which] @ mine.vector[here].T"),
    ],
    "tracing/graph.py": [
        ("edges that were left out forgotten",
         "incoming + self.left_out.sum(1) + self.bias - self.pre",
         "incoming + self.bias - self.pre"),
    ],
    "tracing/pruning.py": [
        ("an inhibitor of an inhibitor inhibits",
         "step[0] @ negative + step[1] @ positive)",
         "step[0] @ negative + step[1] @ negative)"),
        ("one family for edges of both signs",
         "for family in (only.edges.data > 0, only.edges.data < 0):",
         "for family in (only.edges.data != 0,):"),
    ],
    "tracing/checks.py": [
        ("later SAEs run free",
         "return site.place.there[0, self.place].reshape(packed.shape).to(packed.dtype)",
         "return packed"),
    ],
    "tracing/nodes.py": [
        ("errors of a pruned graph at other positions",
         "site.error[places(errors)])])",
         "site.error[:len(errors)])])"),
    ],
    "tracing/head_loadings.py": [
        ("later heads counted twice",
         "run_frozen(frozen, {**self.sources, **self.heads}, tangent=False)[number]",
         "run_frozen(frozen, self.sources, tangent=False)[number]"),
        ("all heads as one",
         "only = torch.eye(n_heads, device=parts.device, dtype=parts.dtype)",
         "only = torch.ones(n_heads, n_heads, device=parts.device, dtype=parts.dtype) / n_heads"),
        ("influence of the source in place of the target",
         "/ total[target] * reach[target]",
         "/ total[target] * reach[graph.ends()[0][loadings.edge]]"),
    ],
    "tracing/query_key.py": [
        ("biases left out",
         "return np.append(which.cpu().numpy(), -1), torch.cat([given[which], bias]).detach()",
         "return np.append(which.cpu().numpy(), -1), torch.cat([given[which], 0 * bias]).detach()"),
        ("mean over all keys, the future among them",
         "if against_mean: weight[:query + 1] -= 1 / (query + 1)",
         "if against_mean: weight -= 1 / len(weight)"),
        ("scores without their factor",
         "return self.query[head] @ self.key[head].T * self.scores.scaling",
         "return self.query[head] @ self.key[head].T"),
    ],
    "tracing/corpus_heads.py": [
        ("only the last firing of the source",
         "return [found[row] for row in sorted(found)]",
         "return [(*found[row][:2], found[row][2][-1:]) for row in sorted(found)]"),
        ("attention without the even share",
         "if wanted is None: return pattern[query] - even",
         "if wanted is None: return pattern[query]"),
    ],
    "shell/prompt_commands.py": [
        ("always denoising",
         "direction=ask.direction))",
         'direction="denoising"))'),
    ],
    "tracing/explained.py": [
        ("an edge at any distance",
         "nodes.position[target] - nodes.position[source]], 1)",
         "0 * nodes.position[source]], 1)"),
    ],
    "engine/sampling.py": [
        ("the first firings in place of random ones",
         "np.random.default_rng(seed).permutation(mine.stop - mine.start) + mine.start",
         "np.arange(mine.stop - mine.start) + mine.start"),
        ("percentiles ignored",
         "np.percentile(values, percentiles))",
         "np.percentile(values, (10, 90)))"),
        ("more than one sample of a sequence",
         "rank < max_per_sequence",
         "rank <= max_per_sequence"),
        ("size is the mean, not the root mean square",
         "size = np.sqrt(sums[1] / np.maximum(sums[2], 1))",
         "size = sums[0] / np.maximum(sums[2], 1)"),
    ],
    "measurement/prepared.py": [
        ("percentiles of the question not passed on",
         "return choose_doses(firings.value[firings.of(place)], self.question.percentiles)",
         "return choose_doses(firings.value[firings.of(place)])"),
    ],
    "measurement/testing.py": [
        ("type from the mean",
         'rising, falling = effect["ci_low"] > 0, effect["ci_high"] < 0',
         'rising, falling = effect["mean"] > 0, effect["mean"] < 0'),
        ("variance per dose, not per dose squared",
         'variance=(effect["std"] / unit) ** 2',
         'variance=effect["std"] ** 2 / unit'),
        ("variance not per dose",
         'variance=(effect["std"] / unit) ** 2',
         'variance=effect["std"] ** 2'),
        ("median not per dose",
         'median=effect["median"] / unit',
         'median=effect["median"]'),
        ("share of the same sign is the share that moved",
         'np.where(moved, effect["same_sign"], 0.0)',
         'np.where(moved, effect["nonzero"], 0.0)'),
        ("n counts ended sequences",
         "self.n[source, offset] = here.sum()",
         "self.n[source, offset] = len(here)"),
        ("resolution counts samples, not sequences",
         "here.sum() if groups is None else len(np.unique(groups)))",
         "here.sum())"),
        ("curves are medians",
         "activation[here, dose, offset].mean(0)",
         "np.median(activation[here, dose, offset], 0)"),
        ("strength_std upside down",
         "per_deviation = ends.source_std[:, None, None] / deviation",
         "per_deviation = deviation / ends.source_std[:, None, None]"),
        ("the size of a response is ignored",
         "mean_interval(effects, size, cluster)",
         "mean_interval(effects, 0 * size, cluster)"),
        ("an interval of [0, 0] where only the activation is still",
         "no_path = ~(activation.any(0) | pre.any(0))",
         "no_path = ~activation.any(0)"),
    ],
    "measurement/responses.py": [
        ("the clean stream in one batch", "streams[name][done:done + len(rows)] = rows",
         "streams[name][:len(rows)] = rows"),
        ("sources counted as in the question, not in the file",
         "among = np.searchsorted(self.measurable[layer], block[layer][places])",
         "among = block[layer][places]"),
        ("a disk that is full is not told",
         "if (free := free_disk(path.parent)) + there >= needed: return",
         "return"),
    ],
    "measurement/asking_anew.py": [
        ("placebo of the first target layer for all",
         "found[layer, later, kind] = reference_of(pool, readable.saes[later], features)",
         "found[layer, later, kind] = reference_of(pool, readable.saes[reach[0]], features)"),
        ("any SAE may stand for that of the sources",
         'if not same or source_hash(saes[layer], kept.features[layer]) != told["hash"]:',
         "if not same:"),
        ("only the first look is read", "for look in _numbers(mine):",
         "for look in _numbers(mine)[:1]:"),
    ],
    "engine/response_files.py": [
        ("a torn part counts as whole", "if _GROWING in file: del file[_GROWING]",
         "if _GROWING in file: file.move(_GROWING, 'blocks/1')"),
        ("sources chosen keep their old numbers",
         'planned["source"] = (np.cumsum(chosen) - 1)[planned["source"]]', "pass"),
    ],
    "measurement/blocks.py": [
        ("a run goes on with other weights",
         '"model": weights_fingerprint(prepared.model), ',
         ""),
        ("a block cut otherwise than the run began with",
         "if begun is not None: return begun",
         "if begun == 0: return begun"),
        ("the length of a push without its dose range",
         "unit = (plan.doses[:, -1] - plan.doses[:, 0]).cpu().numpy() * norms",
         "unit = plan.doses[:, -1].cpu().numpy() * norms"),
        ("silent pool is random as well",
         "seed=seed, silent=True)}",
         "seed=seed)}"),
        ("sources that are decided go on",
         "going[layer] = going[layer][more[going[layer]]]",
         "going[layer] = going[layer]"),
    ],
    "engine/statistics.py": [
        ("clustered p with samples, not clusters, less 1",
         "stats.t.sf(np.abs(test.mean) / error, count - 1)",
         "stats.t.sf(np.abs(test.mean) / error, n - 1)"),
        ("clustered interval with samples, not clusters, less 1",
         "stats.t.ppf(0.975, count - 1) * error",
         "stats.t.ppf(0.975, n - 1) * error"),
        ("clustered error without its correction",
         "np.sqrt(count / (count - 1) * (sums * sums).sum(0)) / n",
         "np.sqrt((sums * sums).sum(0)) / n"),
        ("same sign as the mean: the other sign",
         "agree = np.where(test.mean > 0,",
         "agree = np.where(test.mean < 0,"),
        ("same sign is a share of all samples",
         "agree / np.maximum(moved, 1)",
         "agree / max(n, 1)"),
        ("spread of t without its slope in the variance",
         "slope = unit - test.mean / (2 * test.std) * (unit * unit - 1)",
         "slope = unit"),
    ],
    "measurement/decisions.py": [
        ("a p that its looks made 1 taken for the least it can be",
         "default_rng(0).uniform(1.0, looks, len(count)), looks)",
         "default_rng(0).uniform(1.0, 1.0, len(count)), looks)"),
    ],
    "engine/hook_points.py": [
        ("dropout on while measuring",
         "with evaluating(twin): return twin(tokens, use_cache=False, **arguments)",
         "return twin(tokens, use_cache=False, **arguments)"),
    ],
    "engine/weight_paths.py": [
        ("a norm that centres is asked with a constant",
         "return bool(constant.abs().max() < 1e-3 * other.abs().max())", "return False"),
        ("the residual multiplier left out",
         "parts.scale * after(written)",
         "after(written)"),
    ],
    "training/saes.py": [
        ("an SAE of another text taken for this one's",
         "text = hashlib.sha256(corpus.tokens.cpu().numpy().tobytes())",
         "text = hashlib.sha256()"),
    ],
    "training/thresholds.py": [
        ("a gated latent without the gain of its gate",
         "weights[\"b_enc\"] - gain * gate", "weights[\"b_enc\"] - gate"),
        ("a shift that forgets the decoder's length",
         "found = made.threshold + shift / made.W_dec.norm(dim=1)",
         "found = made.threshold + shift"),
        ("one firing too few", "last[n_active] if len(last) > n_active else",
         "last[n_active - 2] if len(last) > n_active else"),
        ("rates that only grow", "if wanted.sum() < n_active else (low, factor)",
         "if wanted.sum() < 2 * n_active else (low, factor)"),
    ],
    "training/binary.py": [
        ("codes without an intercept", "(0, 1), value=1.0)", "(0, 1), value=0.0)"),
        ("levels over all rows", "total[0] / total[1].clamp(min=1)", "total[0] / len(rows)"),
    ],
    "training/streams.py": [
        ("the knob turned the wrong way", "(target / last[\"l0\"]) ** (1 / slope)",
         "(target / last[\"l0\"]) ** (-1 / slope)"),
        ("thresholds set on the rows judged on",
         "calibrate_thresholds(best, calibration, target_l0, how)",
         "calibrate_thresholds(best, held_out, target_l0, how)"),
        ("gradients left off by a stream", "finally: torch.set_grad_enabled(enabled)",
         "finally: pass"),
    ],
    "training/report.py": [
        ("variance about zero", "centred, at = x - mean, rebuilt - mean",
         "centred, at = x, rebuilt"),
        ("the slope the other way round", "along / square, (fired", "along / variance, (fired"),
        ("a latent its own neighbour", "cosines[rows, rows + begin] = -1", "pass"),
        ("hints for latents that fire together", "together < lift * expected",
         "together > lift * expected"),
        ("precision by the label's number", "hits[at, best] / fired[best].clamp(min=1)",
         "hits[at, best] / n.clamp(min=1)"),
    ],
    "digits/images.py": [
        ("dimensions from the wrong end", 'axis], "big")', 'axis], "little")'),
        ("any file of the server taken", "if found != digest:", "if not found:"),
    ],
    "digits/dictionary.py": [
        ("a decoder in other units than its layer", "made.W_dec.mul_(deviation)",
         "made.W_dec.mul_(1.0)"),
        ("a mean that is not put back", "made.b_dec.mul_(deviation).add_(mean)",
         "made.b_dec.mul_(deviation)"),
    ],
    "digits/features.py": [
        ("labels compared with nothing", "hypergeom.sf(histogram - 1,", "hypergeom.sf(histogram,"),
        ("examples on which it does not fire",
         "torch.where(strongest.values > 0, strongest.indices, -1)",
         "torch.where(strongest.values >= 0, strongest.indices, -1)"),
        ("effects over all digits", "return LogitEffects(lost / each @ out",
         "return LogitEffects(lost / len(digits) @ out"),
        ("a rectifier that stays as it was",
         'slope[at] if model.kind == "geglu" else', 'slope[at] if model.kind else'),
    ],
    "engine/stability.py": [
        ("divided by a spread of nothing",
         "_NARROWEST = 1e-3", "_NARROWEST = 0.0"),
        ("scores sorted into classes by their own luck",
         "step = np.round(np.log(ratio), 1)",
         "step = np.log(ratio)"),
        ("looks ignored",
         "self.factors = [looks] + [1]",
         "self.factors = [1] + [1]"),
        ("one test is enough",
         "chosen &= ~(adjust",
         "chosen = ~(adjust"),
        ("shared samples of a source ignored",
         "drawn = np.bincount(generator.integers(0, n_groups, n_groups), "
         "minlength=n_groups)[group]",
         "drawn = np.ones(len(group))"),
        ("model error left out of the range",
         "max(float(low) - MODEL_ERROR, 0.0)",
         "max(float(low), 0.0)"),
        ("second measurement without noise",
         "self.ratio * noise",
         "0 * noise"),
        ("placebo pool is not drawn anew",
         "np.minimum(score, 2.0) / np.sqrt(2 * n_directions)",
         "0 * score"),
    ],
    "engine/screening.py": [
        ("targets that fire in later samples overlooked",
         "torch.stack([pre.amax(0) for pre",
         "torch.stack([pre[:2].amax(0) for pre"),
        ("rows that do not exist read as zeros",
         ".masked_fill(gone, torch.nan)",
         ".masked_fill(gone & False, torch.nan)"),
        ("changes below the floor keep their spread",
         "np.sqrt(self.least) - floor",
         "np.sqrt(self.least)"),
        ("variance that was left out forgotten",
         "least, least + above",
         "least, least"),
    ],
    "measurement/kept.py": [
        ("placebo and silent p swapped",
         '_PLACEBO = {"random": "placebo_p_value", "silent": "silent_p_value"}',
         '_PLACEBO = {"random": "silent_p_value", "silent": "placebo_p_value"}'),
        ("p not raised by the number of looks",
         'test["p_value"] * len(question.looks)',
         'test["p_value"] * 1'),
        ("undecided by a p that is cut at one over the looks",
         "found[source, offset, place.places] = p_value",
         "found[source, offset, place.places] = np.minimum(p_value, 0.4)"),
        ("undecided by the activation, whatever the evidence",
         "p_value = (tested.pre if before else tested.effect)",
         "p_value = tested.effect"),
        ("only what was screened counts as tested",
         '"n_tests": np.array([n_targets])',
         '"n_tests": np.array([len(chosen)])'),
        ("looks do not lower the screen",
         "question.level / len(question.looks) / 2",
         "question.level / 2"),
        ("the sample forgets what did not move",
         'np.array([n_targets - len(chosen)])',
         'np.array([0])'),
        ("rounding compared with the placebo",
         "change = np.where(np.abs(change) <= floor, 0.0, change)",
         "change = change"),
        ("a number of rows that is NumPy's is no number",
         "stay = low if isinstance(question.keep, str)",
         "stay = low if not isinstance(question.keep, int)"),
        ("placebo family of everything touched",
         "moved = place.moved\n",
         "moved = np.ones(len(place.places), bool)\n"),
    ],
    "engine/memory.py": [
        ("limit of the container ignored",
         "return min(free)",
         "return free[0]"),
    ],
    "engine/skewed_means.py": [
        ("Hall's transformation without the bias term",
         " + skew / (6 * n)\n",
         " \n"),
        ("robust p forgets those that moved",
         "looks = np.stack([found[again], mean_p(apart), hall_p(whole), hall_p(apart)])",
         "looks = np.stack([found[again], found[again], hall_p(whole), hall_p(whole)])"),
        ("few samples second-guessed",
         "if len(some) <= EXACT_UP_TO: return found, spread",
         "if len(some) <= 1: return found, spread"),
        ("interval of a mean is t alone",
         "low, high = lean_interval(each)\n",
         "mean, half = each.mean(0), special.stdtrit(len(each) - 1, 0.975) * each.std(0, "
         "ddof=1) / np.sqrt(len(each))\n    low, high = mean - half, mean + half\n"),
        ("what was not seen does not widen",
         "min(ENOUGH, 0.8 * len(each))",
         "0"),
        ("share interval of 95 %, not 97.5",
         "share_interval(len(samples), 0.975)",
         "share_interval(len(samples), 0.95)"),
        ("resolution at 1 of 10",
         "1 - 0.05 ** (1",
         "1 - 0.1 ** (1"),
        ("skewness not that of a sample",
         "cube / some * (1 + 3 / np.sqrt(some))",
         "cube / some"),
    ],
    "engine/placebo.py": [
        ("one direction for all",
         "drawn = torch.randn(n, reader.written.shape[1], generator=generator)",
         "drawn = torch.randn(1, reader.written.shape[1], generator=generator).expand(n, -1)"),
        ("silent rows fire",
         ".int().argmin(1, keepdim=True)",
         ".int().argmax(1, keepdim=True)"),
        ("a direction is compared with itself too",
         "others = (squares.sum(0) - squares) / np.maximum(present.sum(0) - present, 1)",
         "others = squares.sum(0) / np.maximum(present.sum(0), 1) + 0 * squares"),
        ("length of a push ignored",
         "score = np.abs(change) / (size * beyond)",
         "score = np.abs(change) / self.sizes[step]"),
        ("p of 0 where no push is as large",
         "counted = (1 + as_large) / (n + 1)",
         "counted = as_large / n"),
        ("beyond the longest push no extrapolation",
         "beyond = np.exp((at - np.clip(at, 0, 1)) * np.log(high / low))[:, None, None]",
         "beyond = np.ones(len(at))[:, None, None]"),
    ],
    "engine/reading.py": [
        ("effects against the last arm",
         "moved, changed = (values[:, 1:] - values[:, :1] for values in (pre, active))\n    "
         "still = moved",
         "moved, changed = (values[:, :-1] - values[:, -1:] for values in (pre, active))\n    "
         "still = moved"),
        ("rounding is an effect",
         "still = moved.abs() <= RESOLUTION * largest",
         "still = moved.abs() < 0 * largest"),
        ("weights of a contrast only by sign",
         'torch.einsum("s,nsdot->ndot", row, values)',
         'torch.einsum("s,nsdot->ndot", row.sign(), values)'),
    ],
    "engine/pushing.py": [
        ("scale of the SAE's normalisation forgotten",
         "self.sources.written[source] * self.per_sample(self.scale, samples)[:, None]",
         "self.sources.written[source]"),
        ("a push ignores the clean value",
         "(doses - self.per_sample(self.value, samples)[:, None])[..., None]",
         "doses[..., None]"),
        ("fingerprint without doses",
         "plan.value, plan.doses.cpu().numpy(),",
         "plan.value,"),
        ("fingerprint without settings",
         "hashlib.sha256(repr(settings).encode())",
         "hashlib.sha256()"),
    ],
    "engine/branched_rows.py": [
        ("window ignored among a branch's own rows",
         "if scores.window is not None: seen = seen & (distance < scores.window)",
         "if scores.window == 0: seen = seen & (distance < scores.window)"),
        ("window ignored in the prefix",
         "seen & (row[..., None] - column < scores.window)",
         "seen"),
        ("scores not scaled",
         "for part in (query * scores.scaling, key, value)",
         "for part in (query, key, value)"),
        ("default scale of attention",
         "scaling = query.shape[-1] ** -0.5",
         "scaling = 1.0"),
        ("softcap ignored",
         "return torch.tanh(products / self.softcap) * self.softcap",
         "return products"),
    ],
    "engine/transport.py": [
        ("standard error without used / (used - 1)",
         "self._column(used / (used - 1).clamp(min=0), sources)",
         "self._column(used / used, sources)"),
        ("padding counts as text",
         "inside = corpus.sample_mask()[batch, :longest].to(device)",
         "inside = torch.ones_like(corpus.tokens[batch, :longest]).bool().to(device)"),
        ("padding is attended to",
         "real if bool((lengths < longest).any()) else None",
         "None"),
        ("noise at positions that are no samples",
         "noise = signs.to(read) * inside[..., None]",
         "noise = signs.to(read) * real[..., None]"),
        ("offset forgets the sampled source",
         "both = inside[:, :length] & inside[:, offset:]",
         "both = inside[:, offset:]"),
    ],
    "engine/encoders.py": [
        ("rows of the decoder are not as long as what they add",
         "self.written /= self.norms[self.features, None].clamp(min=1e-12)",
         "self.written /= 1.0"),
        ("a pre-activation at its threshold fires",
         "pre <= self.threshold[at].clamp(min=0), 0.0",
         "pre < self.threshold[at].clamp(min=0), 0.0"),
        ("top k may be negative",
         "scatter(-1, which, top.relu())",
         "scatter(-1, which, top)"),
        ("gated: no gate bias",
         "(pre - self.bias[at]) / self.gain[at] + self.gate_bias[at] > 0",
         "(pre - self.bias[at]) / self.gain[at] > 0"),
        ("decoder bias not subtracted",
         "return x - self.input_bias",
         "return x"),
        ("a shelf never makes room",
         "if total() <= self.budget: break",
         "break"),
        ("a reader on a shelf scales the rows of its SAE in place",
         "torch.float32, copy=self._every)",
         "torch.float32)"),
        ("layer norm not centred",
         "x = x - x.mean(-1, keepdim=True)\n            x = x",
         "x = x"),
    ],
    "engine/large_models.py": [
        ("blocks above the window stay",
         "for block in [*window, *reversed(range(window.start))]:",
         "for block in [*reversed(range(len(sizes)))]:"),
        ("visitors never leave",
         "for kind, name, tensor in stored: kind[name] = tensor",
         "pass"),
        ("an unembedding of its own stays",
         "if head is not None: guests[-1] = head",
         "pass"),
    ],
    "measurement/shapes.py": [
        ("intervals of shapes not widened",
         "again = mean + wider * (again - mean)",
         "again = mean + (again - mean)"),
        ("one sample per sequence: plain means",
         "return mean + sums * count / len(samples)",
         "return mean + sums"),
    ],
    "measurement/curves.py": [
        ("curve means of pre-activation are those of activation",
         "pre = effect_test(samples, sequence), effect_test(pre_samples, sequence)",
         "pre = effect_test(samples, sequence), effect_test(samples, sequence)"),
        ("curves ignore shared sequences",
         "effect_test(samples, sequence), effect_test(pre_samples, sequence)",
         "effect_test(samples), effect_test(pre_samples)"),
        ("typical range is the whole range",
         "typical = float(np.percentile(fired, 10)), float(np.percentile(fired, 90))",
         "typical = float(fired.min()), float(fired.max())"),
        ("offset read at the source's position",
         "values[:, :, offset, 0].double()",
         "values[:, :, 0, 0].double()"),
    ],
    "measurement/gating.py": [
        ("gates confirmed on the screen's samples",
         "& ~np.isin(plan.sequence, seen)",
         "& (plan.sequence >= 0)"),
        ("gate clamped on top of its clean value",
         "off, turned = -value * unit, (on - value) * unit",
         "off, turned = -value * unit, on * unit"),
        ("gate is on at its median",
         "np.percentile(fired, 90) if len(fired)",
         "np.percentile(fired, 50) if len(fired)"),
        ("interaction the wrong way round",
         "interaction = effects[:, 1:] - effects[:, :1]",
         "interaction = effects[:, :1] - effects[:, 1:]"),
        ("Welch's variances pooled",
         "/ (n_off - 1)\n        error = part_on",
         "/ n_off\n        error = part_on"),
        ("constant sides split by chance: one side",
         "np.minimum(2 * np.exp(",
         "np.minimum(np.exp("),
        ("best gates of all pairs together",
         'pair = ["src_layer", "src_feature", "tgt_layer", "tgt_feature", "offset"]',
         'pair = ["src_layer", "src_feature"]'),
    ],
    "measurement/jacobian.py": [
        ("slopes ignore shared sequences",
         "plan.sequence[plan.source == source] if clustered else None",
         "None"),
        ("threshold passed through",
         "active = slopes.activation if through_threshold else slopes.pre",
         "active = slopes.activation"),
        ("doses of the path not told",
         "if not settings.steps: doses = np.full_like(doses, np.nan)",
         "doses = np.full_like(doses, np.nan)"),
    ],
    "measurement/question.py": [
        ("looks doubled once too often",
         "while looks[-1] < most: looks.append(min(2 * looks[-1], most))",
         "while looks[-1] < most: looks.append(2 * looks[-1])"),
        ("a target in the source's own layer",
         "if depth[other] > mine]",
         "if depth[other] >= mine]"),
        ("two of a sequence are independent",
         "return self.max_per_sequence > 1",
         "return self.max_per_sequence > 2"),
    ],
    "dictionary/by_feature.py": [
        ("stretches laid behind each other in the wrong place",
         "begins = indptr[:-1] + np.cumsum(n_fired, axis=0) - n_fired",
         "begins = indptr[:-1] + np.cumsum(n_fired, axis=0) * 0"),
        ("an index of other firings",
         'if not np.array_equal(np.diff(indptr), store.statistics(layer)["count"]):',
         "if len(indptr) < 2:"),
        ("the first gap of a feature taken from the feature before",
         "steps[begins] = rows[begins]",
         "pass"),
    ],
    "dictionary/cofirings.py": [
        ("counts beyond what their numbers hold",
         "dtype=np.min_scalar_type(largest))",
         "dtype=np.uint8)"),
        ("activations add up without their sign",
         "values = targets.astype(np.float64)", "values = abs(targets).astype(np.float64)"),
        ("a sum of nothing loses its pair",
         "(each.counts.data + 1j * each.sums.data,",
         "(0 * each.counts.data + 1j * each.sums.data,"),
    ],
    "measurement/indexed_atlas.py": [
        ("pairs that keep apart are not looked at",
         "apart = (few & (expected >= least)).nonzero()",
         "apart = (few & (expected < 0)).nonzero()"),
        ("a first look that asks for too much",
         "_DEVIATIONS = 1.5",
         "_DEVIATIONS = 4.5"),
        ("the least surprising pairs stay",
         "chosen = np.argpartition(whole.surprise, left_out - 1)[left_out:] if left_out else (",
         "chosen = np.argpartition(-whole.surprise, left_out - 1)[left_out:] if left_out else ("),
        ("what was given up is not counted",
         "self.n_found += len(more.row)",
         "self.n_found = len(more.row)"),
    ],
    "coactivation.py": [
        ("only the last block of positions is counted",
         "found[number] = found[number].plus(part)", "found[number] = part"),
    ],
    "graphs/values.py": [
        ("edges between nodes that are not listed",
         "if source not in names or target not in names:", "if source not in names:"),
        ("numpy values written as they are",
         "if _PLAIN.issuperset(map(type, attributes.values())):", "if True:"),
    ],
    "graphs/node_link.py": [
        ("all parts collected before the graph",
         "return _graph_of_parts(in_order(parts(), _RANKS), path)",
         "return _graph_of_parts(iter([*in_order(parts(), _RANKS)]), path)"),
        ("a number cut at the end of a block",
         "if end < len(self.text) or not self.more():", "if True:"),
        ("columns of errors from the start of the block",
         "- 1 + (0 if lines else self.column)", "- 1"),
    ],
    "graphs/graphml.py": [
        ("text after a child belongs to the value", "if not self.cut: self.text", "self.text"),
        ("nodes inside nodes are nodes",
         "elif self.inside == 3 and self.graph == \"open\" and word in",
         "elif self.inside >= 3 and self.graph == \"open\" and word in"),
        ("defaults of nodes for edges too",
         "if self.key.get(\"for\") in (scope, \"all\"):", "if True:"),
    ],
    "graphs/columns.py": [
        ("whole numbers of more than 64 bits as numbers",
         "and not -2**63 <= value < 2**63:\n        return", "and False:\n        return"),
        ("layouts that differ by names alone",
         "alike = long, *attributes, *map(type, values)", "alike = long, *attributes"),
        ("columns begin anew with every block",
         "done = [begin + n for begin, n in zip(done, counts, strict=True)]", "done = counts"),
        ("longer columns are let pass",
         "self.data.sized(self.columns[number][\"member\"], (n,))",
         "self.data.sized(self.columns[number][\"member\"])"),
    ],
    "structure/nulls.py": [
        ("spread of nulls with divisor n",
         "float(nulls.std(ddof=1))",
         "float(nulls.std(ddof=0))"),
        ("p of a measure below 1 / (n + 1)",
         "(1 + n_as_far) / (len(nulls) + 1)",
         "n_as_far / len(nulls)"),
        ("p of a measure one-sided",
         "(np.abs(nulls - mean) >= abs(value - mean) - tolerance)",
         "(nulls >= value - tolerance)"),
    ],
    "structure/hubs.py": [
        ("spread of a hub's nulls with divisor n",
         "float(chance.std(ddof=1))",
         "float(chance.std(ddof=0))"),
    ],
    "structure/roles.py": [
        ("spread of role pairs with divisor n",
         "std = nulls.std(0, ddof=1)",
         "std = nulls.std(0, ddof=0)"),
        ("roles judged by the half that chose them",
         "for half, own, other in zip(halves, centres, centres[::-1], strict=True)",
         "for half, own, other in zip(halves, centres, centres, strict=True)"),
        ("errors of a role pair are summed",
         "np.sqrt(pairs(edges, errors**2))",
         "pairs(edges, errors)"),
    ],
    "structure/decay.py": [
        ("AIC of a constant counts three numbers",
         "2 * (2 if flat else 3)",
         "2 * 3"),
        ("error of a distance with divisor n",
         "mine.std(ddof=1)",
         "mine.std(ddof=0)"),
        ("pairs of a layer with themselves",
         "int(widths[other] - (step == 0))",
         "int(widths[other])"),
        ("decay rate with the other sign",
         "nulls = [-fit_gamma_mean(",
         "nulls = [fit_gamma_mean("),
    ],
    "structure/matching.py": [
        ("matching by chance not per assignment",
         "np.searchsorted(np.sort(null), levels)) / max(n_null, 1)",
         "np.searchsorted(np.sort(null), levels))"),
    ],
    "circuits/validation.py": [
        ("random circuits without the circuit's features",
         "pool = on.ablated.active() | kept",
         "pool = on.ablated.active() & ~kept"),
    ],
    "patching/pairs.py": [
        ("prompts of different lengths as pairs",
         "if len(ids) != len(partner):",
         "if len(ids) < 0:"),
    ],
    "patching/sets.py": [
        ("the year itself is a later one",
         "range(int(label) + 1, 100)",
         "range(int(label), 100)"),
    ],
    "patching/components.py": [
        ("the mean of one side only",
         "return ((base.mean(0) + other.mean(0)) / 2).expand_as(base)",
         "return base.mean(0).expand_as(base)"),
        ("an error lent to itself",
         "return Change(whole.write_point, lent_values(runs, base, other, lender) - base)",
         "return Change(whole.write_point, lent_values(runs, base, base, lender) - base)"),
    ],
    "patching/activation.py": [
        ("a span without its last position",
         "(seq <= spans[:, 1:])",
         "(seq < spans[:, 1:])"),
        ("a long push that goes on to the end",
         "added = added * (at <= last[:, None])[..., None].to(added.device)",
         "added = added * (at >= 0)[..., None].to(added.device)"),
    ],
    "patching/edge_model.py": [
        ("edges that are kept are cut",
         "self.grid.spread(1 - keep.to(self.blocks.twin.device))",
         "self.grid.spread(keep.to(self.blocks.twin.device))"),
        ("keys of another copy",
         "mine.append(copies[which[3 * heads + number], :, own].transpose(0, 1))",
         "mine.append(copies[which[3 * heads], :, own].transpose(0, 1))"),
        ("what is lent given in full to receivers behind",
         "self.away.append(self.lent[span] - out)",
         "self.away.append(self.lent[span])"),
    ],
    "patching/edge_scores.py": [
        ("effects with the sign turned",
         "away = on.lent[:, rows] - on.base[:, rows]",
         "away = on.base[:, rows] - on.lent[:, rows]"),
        ("a left sum for the midpoint rule",
         "return [(step + 0.5) / steps for step in range(steps)]",
         "return [step / steps for step in range(steps)]"),
    ],
    "patching/attribution.py": [
        ("attention not recomputed",
         "            start[part] = end\n",
         "            start[2] = start[2]\n"),
        ("the direct effect for the total",
         "else: changes = [component_change(runs, each) for each in chosen]",
         "else: changes = [Change(runs.final, written_by(runs, each).amount) for each in chosen]"),
    ],
    "patching/circuit_curves.py": [
        ("ties on one side",
         "ranks = rankdata(np.asarray(scores, dtype=float))",
         'ranks = rankdata(np.asarray(scores, dtype=float), method="max")'),
        ("CMD that forgives too much",
         "return self._area(np.abs(1 - self.faithfulness), 1.0)",
         "return self._area(1 - self.faithfulness, 1.0)"),
    ],
    "patching/edge_search.py": [
        ("the distance of an edge that stays is kept",
         "if n_cut: now = float(distances[n_cut - 1])",
         "now = float(distances[min(n_cut, len(tried) - 1)])"),
        ("edges left out after one that stays",
         "left -= min(n_cut + 1, len(tried))",
         "left -= len(tried)"),
    ],
    "patching/edge_circuit.py": [
        ("parts of an edge replace one another",
         'known["score"] += score',
         'known["score"] = score'),
    ],
    "patching/discovery.py": [
        ("faithfulness of another size",
         "curve.faithfulness[curve.sizes.index(size)]",
         "curve.faithfulness[-1]"),
    ],
    "patching/paths.py": [
        ("receivers see senders behind them",
         "if each.depth <= depth: found[mine] += window",
         "found[mine] += window"),
        ("queries recorded as keys",
         'kept.update(zip("qkv", call[:3], strict=True))',
         'kept.update(zip("kqv", call[:3], strict=True))'),
        ("all of a head set, whatever was asked",
         "call = [kept[part] if part in parts else live[part] for part in \"qkv\"]",
         "call = [kept[part] for part in \"qkv\"]"),
    ],
    "dictionary/hypotheses.py": [
        ("rules scored on the half that chose them",
         "chosen, fires[1].T @ rules[odd], np.asarray(rules[odd].sum(0)).ravel(), fired[1]",
         "chosen, fires[0].T @ rules[~odd], np.asarray(rules[~odd].sum(0)).ravel(), fired[0]"),
    ],
    "control/clamps.py": [
        ("a limit pulls back what is beyond it",
         "torch.maximum(torch.minimum(found + values, torch.maximum(self.high, "
         "found)),\n                                torch.minimum(self.low, found))",
         "torch.maximum(torch.minimum(found + values, self.high), self.low)"),
        ("share of a move ignored",
         "- found) * self.share",
         "- found)"),
        ("steering forgets the SAE's scale",
         "(self.reader.scale(stream) * along)",
         "along"),
    ],
    "control/runs.py": [
        ("special tokens are steered while generating",
         "engine.mask = ~torch.isin(ids, never.to(ids))",
         "engine.mask = None"),
        ("KL the wrong way round",
         "(clean.exp() * (clean - steered)).sum(-1)",
         "(steered.exp() * (steered - clean)).sum(-1)"),
        ("losses of the same token",
         "following = self.corpus.tokens[:, 1:, None]",
         "following = self.corpus.tokens[:, :-1, None]"),
    ],
    "control/compensation.py": [
        ("shifts cost nothing",
         "np.sqrt(ridge) * size * np.eye(len(known))",
         "0 * np.eye(len(known))"),
        ("target need not stay in every layer",
         "fixed = [on(target) * (layers == layer) for layer in np.unique(layers)]",
         "fixed = [on(target)]"),
    ],
    "control/effects.py": [
        ("effects not per step",
         "samples.append(((read - base[rows]) / step)",
         "samples.append(((read - base[rows]) * 1)"),
    ],
    "control/prediction.py": [
        ("errors of a cascade without the other's variance",
         "effect.strength ** 2 * by.variance + error * by.variance",
         "error * by.variance"),
        ("outside the doses a curve is flat",
         "beyond = (move[1] - inside[1]) - (move[0] - inside[0])",
         "beyond = 0.0"),
        ("gates sum to the last",
         "sum(value - effect.strength for value in known)",
         "known[-1] - effect.strength"),
    ],
    "steering.py": [
        ("reference scaled on the compared contexts",
         "(wanted,) = target_changes(model, saes, calibration, [equal], target)",
         "(wanted,) = target_changes(model, saes, contexts, [clamps_at(plans[settings.equal_to "
         "or list(plans)[-1]], contexts)], target)"),
    ],
    "lenses/attention.py": [
        ("attention read without its soft cap",
         "seen = scores.capped(products)", "seen = products"),
        ("a sliding window one position wider",
         "(distance < (scores.window or length))", "(distance <= (scores.window or length))"),
        ("removed attention stays where nothing is spread anew",
         "if removed is not None: found = found.masked_fill(removed, 0.0)", "pass"),
    ],
    "lenses/edges.py": [
        ("words found in pieces of words",
         r'rf"regex=(?<!\w){re.escape(word.strip())}(?!\w)"',
         'rf"regex={re.escape(word.strip())}"'),
    ],
    "lenses/knockout.py": [
        ("edges taken from the first head of a layer",
         "removed.setdefault(layer, none)[:, head]", "removed.setdefault(layer, none)[:, 0]"),
        ("q of knock-outs not corrected",
         '"q_value": adjust(test.p_value)})', '"q_value": test.p_value})'),
    ],
    "lenses/logit_lens.py": [
        ("a lens without the final norm",
         "twin.get_output_embeddings()(final_norm(twin)(streams))",
         "twin.get_output_embeddings()(streams)"),
        ("a lens without the soft cap",
         "return logits if cap is None else torch.tanh(logits / cap) * cap", "return logits"),
        ("KL the other way round",
         "(model.exp() * (model - lens))", "(lens.exp() * (lens - model))"),
        ("ranks from 0", "1 + (logits > best).sum(-1)", "(logits > best).sum(-1)"),
    ],
    "lenses/logit_attribution.py": [
        ("shares without the mean taken off",
         "return read - read.mean(-1, keepdim=True) if _centres(norm) else read", "return read"),
        ("shares without the norm behind attention",
         "factor = frozen_scale(parts.attn_out, output(written))", "factor = 1.0"),
        ("heads' sources at the first query",
         "lens.weights[layer][rows, :, last]", "lens.weights[layer][rows, :, last * 0]"),
    ],
    "lenses/head_scores.py": [
        ("a token is its own duplicate",
         "(tokens[:, :, None] == tokens[:, None, :]).tril(-1)",
         "(tokens[:, :, None] == tokens[:, None, :]).tril()"),
        ("chance of a query that does not see itself",
         "torch.arange(1, pairs.shape[1] + 1)", "torch.arange(pairs.shape[1]).clamp(min=1)"),
        ("paired prompts compared unpaired",
         "_head_table(first.scores - second.scores, means",
         "_head_table(first.scores - second.scores.mean(-1, keepdims=True), means"),
        ("q of heads not corrected",
         '"q_value": adjust(test.p_value)})', '"q_value": test.p_value})'),
    ],
    "lenses/probes.py": [
        ("a probe tested on rows that it has seen",
         "regression.fit(unit[~test], label[~test])", "regression.fit(unit, label)"),
        ("rows of one group counted as independent",
         "n_effective = min(n, share * (1 - share) / variance) if variance else float(n)",
         "n_effective = float(n)"),
        ("p of the shuffles without the observed one",
         "float((1 + as_good.sum()) / (1 + n_shuffles))", "float(as_good.sum() / n_shuffles)"),
        ("folds that cut through groups",
         "folds = _folds(label, group, n_folds, seed)",
         "folds = _folds(label, np.arange(len(label)), n_folds, seed)"),
    ],
    "lenses/projections.py": [
        ("components around 0, not around the mean", "centred = rows - rows.mean(0)",
         "centred = rows"),
        ("all labels in one colour", "color=_COLOURS[number % len(_COLOURS)]", "color=_COLOURS[0]"),
    ],
    "tracking/track.py": [
        ("what was not sent is not counted",
         "if self.problem is not None: self.missed += 1", "pass"),
        ("a run gone on with under other settings",
         "if read_config(path) != settings:", "if False:"),
        ("a failed run says that it finished",
         'run.told("finished" if finished else "failed", error, sent)',
         'run.told("finished", error, sent)'),
        ("a line that was cut off is read", "enumerate(lines[:-1])",
         "enumerate(filter(None, lines))"),
    ],
}

# What is run besides the page of the module, where that notices nothing.
BESIDE = {
    "coactivation.py": "tests/test_coactivation.py",
    "engine/branched_rows.py": "nbs/engine/09_branched.ipynb",
    "engine/transport.py": "tests/test_directions.py",
    "engine/encoders.py": "tests/test_own_saes.py",
    "measurement/shapes.py": "tests/test_response_curves.py",
    "measurement/curves.py": "tests/test_response_curves.py",
    "measurement/gating.py": "tests/test_gating.py",
    "measurement/jacobian.py": "tests/test_interactions.py",
    "graphs/node_link.py": "tests/test_graph.py",
    "structure/nulls.py": "tests/test_analysis.py",
    "structure/hubs.py": "tests/test_analysis.py",
    "structure/roles.py": "tests/test_roles.py",
    "structure/decay.py": "tests/test_analysis.py",
    "structure/matching.py": "tests/test_graph_comparison.py",
    "circuits/validation.py": "tests/test_subgraphs.py",
    "tracing/checks.py": "tests/test_tracing.py",
    "dictionary/hypotheses.py": "tests/test_features.py",
    "control/clamps.py": "tests/test_steering.py",
    "control/runs.py": "tests/test_steering.py",
    "control/compensation.py": "tests/test_steering.py",
    "control/prediction.py": "tests/test_steering_prediction.py",
    "steering.py": "tests/test_steering_comparison.py",
}


def page_of(module: Path) -> Path:
    "The notebook that a module is written by."
    named = re.search(r"File to edit: (?:\.\./)+(nbs/\S+\.ipynb)", module.read_text())
    assert named is not None, module
    return Path(named[1])


def once(text: str, mutation: Mutation, where: object) -> str:
    "`text` with the mutation in it."
    if text.count(mutation.old) != 1:
        sys.exit(f"{mutation.name}: {mutation.old!r} stands {text.count(mutation.old)} times in "
                 f"{where}, not once; correct the table.")
    return text.replace(mutation.old, mutation.new)


def broken(copy: Path, mutation: Mutation) -> dict[Path, str]:
    "What the module and its page are to hold."
    module = copy / PACKAGE / mutation.module
    page = copy / page_of(module)
    notebook = json.loads(page.read_text())
    exported = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"
                and "".join(cell["source"]).startswith("#| export")]
    sources = ["".join(cell["source"]) for cell in exported]
    changed = once("\0".join(sources), mutation, page.relative_to(copy)).split("\0")
    for cell, source in zip(exported, changed, strict=True):
        cell["source"] = source.splitlines(keepends=True)
    return {module: once(module.read_text(), mutation, module.relative_to(copy)),
            page: json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"}


def command(check: str) -> list[str]:
    "How a page or a test (`tests/test_x.py`, with `::name` if only one) is run."
    if check.endswith(".ipynb"): return ["nbdev_test", "--path", check, "--n_workers", "1"]
    return ["pytest", "-q", "-x", "-p", "no:xdist", "-p", "no:cacheprovider", "-o",
            "addopts=--strict-markers -m 'not slow'", check]


def complaint(output: str) -> str:
    "The lines that say what went wrong."
    lines = output.splitlines()
    failed = [line for line in lines if "Executing Cell" in line or line.startswith("FAILED")]
    errors = [line for line in lines if re.search(r"^(E  +)?\w*(Error|Exception|Exit)\b", line)]
    return " | ".join(line.strip()[:100] for line in [*failed[:1], *errors[-1:]])


def killer(copy: Path, mutation: Mutation) -> str | None:
    "The first check that fails with the mutation, and how; None if all pass."
    texts = broken(copy, mutation)
    before = {file: file.read_bytes() for file in texts}
    page = page_of(copy / PACKAGE / mutation.module)
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        for file, text in texts.items(): file.write_text(text)
        for check in filter(None, (str(page), BESIDE.get(mutation.module))):
            run = subprocess.run(command(check), cwd=copy, env=environment, capture_output=True,
                                 text=True)
            if run.returncode: return f"{check}: {complaint(run.stdout + run.stderr)}"
    finally:
        for file, content in before.items(): file.write_bytes(content)
    return None


def copied(folder: Path) -> Path:
    "The project as it stands here, without what git ignores."
    command = ["git", "ls-files", "-z", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if not (ROOT / name).is_file(): continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


def main(words: list[str]) -> int:
    "Tries the chosen mutations: 1 if one survived."
    table = [Mutation(name, module, *texts) for module, rows in MUTATIONS.items()
             for name, *texts in rows]
    chosen = [one for one in table
              if not words or any(word in f"{one.module} {one.name}" for word in words)]
    if not chosen: sys.exit(f"no mutation is called {' or '.join(words)}; see the table.")
    survived = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(Path(folder))
        for one in chosen: broken(copy, one)          # first of all: does the table fit the code?
        for one in chosen:
            begin = time.monotonic()
            found = killer(copy, one)
            survived += found is None
            said = "SURVIVED" if found is None else "noticed "
            print(f"{said} {one.module}: {one.name} ({time.monotonic() - begin:.0f} s)"
                  f"{'' if found is None else f', by {found}'}", flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} mutations were noticed.")
    return min(survived, 1)


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
