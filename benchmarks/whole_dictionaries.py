"""What it costs to read whole dictionaries: GPT-2-small's shape, 24,576 latents a layer.

`python benchmarks/whole_dictionaries.py` measures a slice of 2,400 sources x 73,728 targets x 100
samples x 2 doses: some sources of block 4, drawn at random among those that fire at 100 places,
against every latent before blocks 5, 6 and 7. Model and SAEs are random; a latent fires where its
pre-activation is among the largest quarter of a per cent, about 60 a position. The reading half is
everything after the pushes: products, screens, tests, tables. In the same run, by turns, the
machine's own sgemm at the shapes of that product; the share is of the best of its rates. The
operations counted are those of the products alone.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sae_lens import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.sae import SAEMetadata
from transformers import AutoModelForCausalLM, GPT2Config

sys.path.insert(0, str(Path(__file__).parent))
from record import write

from feature_interaction_graph.engine.corpus import Corpus, as_corpus
from feature_interaction_graph.engine.residuals import clean_residuals
from feature_interaction_graph.measurement.blocks import (
    RunSettings, gather_block, placebo_references, read_block
)
from feature_interaction_graph.measurement.prepared import Prepared, prepare
from feature_interaction_graph.measurement.question import Question

WIDTH, D_MODEL, SOURCE, LATER, FIRES = 24_576, 768, 4, (5, 6, 7), 60
WHOLE = {"sources": 2400, "targets": WIDTH * len(LATER), "samples": 100, "doses": 2}


def random_sae(
    layer: int, rows: torch.Tensor, width: int = WIDTH, fires: int = FIRES
) -> JumpReLUSAE:
    "Random unit directions, read along themselves; each fires as often as any other."
    d_model = rows.shape[1]
    metadata = SAEMetadata(hook_name=f"blocks.{layer}.hook_resid_pre", model_name="random",
                           prepend_bos=False)
    settings = JumpReLUSAEConfig(d_in=d_model, d_sae=width, apply_b_dec_to_input=True,
                                 metadata=metadata)
    sae = JumpReLUSAE(settings).requires_grad_(False)
    sae.W_dec.copy_(torch.nn.functional.normalize(torch.randn(width, d_model), dim=-1))
    sae.W_enc.copy_(sae.W_dec.T)
    sae.b_dec.copy_(rows.mean(0))
    sae.b_enc.zero_()
    # a normal quantile of each latent's own pre-activations
    cut = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(1 - fires / width))
    for some in torch.arange(width).split(4096):
        pre = (rows - sae.b_dec) @ sae.W_enc[:, some]
        sae.threshold[some] = (pre.mean(0) + cut * pre.std(0)).clamp(min=0.01)
    return sae


def build(n_tokens: int) -> Prepared:
    "Model, SAEs, text and the question, scanned."
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        GPT2Config(bos_token_id=0, eos_token_id=0)).eval().requires_grad_(False)
    corpus: Corpus = as_corpus(torch.randint(1, 50_000, (n_tokens // 128, 128)))
    points = {layer: f"blocks.{layer}.hook_resid_pre" for layer in (SOURCE, *LATER)}
    streams = clean_residuals(model, corpus.tokens[:32], list(points.values()))
    saes = {layer: random_sae(layer, streams[point].flatten(0, 1))
            for layer, point in points.items()}
    some = np.sort(np.random.default_rng(0).permutation(WIDTH)[:WHOLE["sources"]])
    question = Question({SOURCE: some}, dict.fromkeys(LATER), {SOURCE: list(LATER)},
                        n_samples=WHOLE["samples"], keep="significant")
    return prepare(model, saes, corpus, question, batch_size=8, progress=False)


def sgemm(rows: int, columns: int, seconds: float = 1.0) -> float:
    "Operations a second of one product of that shape, over and over."
    left, right = torch.randn(rows, D_MODEL), torch.randn(D_MODEL, columns)
    out = torch.mm(left, right)
    n, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        torch.mm(left, right, out=out)
        n += 1
    return 2 * rows * D_MODEL * columns * n / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, default=60, help="of the slice: 2.5 %% of 2,400")
    parser.add_argument("--tokens", type=int, default=65_536)
    parser.add_argument("--placebo", type=int, default=32)
    given = parser.parse_args()
    prepared = build(given.tokens)
    full = [place for place in range(WHOLE["sources"])
            if len(prepared.draw(SOURCE, place, WHOLE["samples"])) == WHOLE["samples"]]
    print(f"{len(full)} of {WHOLE['sources']} sources fire in {WHOLE['samples']} sequences",
          flush=True)
    full = full[::len(full) // given.sources][:given.sources]
    settings, seconds = RunSettings(placebo=given.placebo), {}
    start = time.perf_counter()
    references = placebo_references(prepared, settings)
    seconds["placebo"] = time.perf_counter() - start
    block = {SOURCE: np.array(full)}
    start = time.perf_counter()
    gathered = gather_block(prepared, block, settings)
    seconds["pushing"] = time.perf_counter() - start
    shapes = ((4096, 2048), (4096, 4096), (2048, 2048))
    rates = [sgemm(*shape) for shape in shapes]
    start = time.perf_counter()
    measured = read_block(prepared, block, gathered, references)
    seconds["reading"] = time.perf_counter() - start
    rates += [sgemm(*shape) for shape in shapes]
    n_rows = len(full) * WHOLE["samples"] * WHOLE["doses"]
    operations = 2 * n_rows * D_MODEL * WHOLE["targets"]
    share = operations / seconds["reading"] / max(rates)
    factor = WHOLE["sources"] / len(full)
    numbers = {
        "sources_of_slice": len(full), "share_of_slice": len(full) / WHOLE["sources"],
        "seconds": seconds, "operations": operations,
        "bytes_of_streams": 4 * n_rows * D_MODEL * len(LATER),
        "bytes_of_pre_activations": 4 * n_rows * WHOLE["targets"],
        "gflops_reading": operations / seconds["reading"] / 1e9,
        "gflops_sgemm": [rate / 1e9 for rate in rates], "share_of_sgemm": share,
        "projected_hours": {name: (value if name == "placebo" else value * factor) / 3600
                            for name, value in seconds.items()},
        "tested": int(measured.tests["n_tests"].sum()),
        "rows_kept": len(measured.columns["strength"]),
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    }
    for name, value in numbers.items(): print(name, value)
    print(write("whole_dictionaries", vars(given) | WHOLE, numbers))


if __name__ == "__main__":
    main()
