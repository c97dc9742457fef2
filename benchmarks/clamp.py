"""Cost of one intervention: branched rows against full hooked forward passes, one at a time, in
batches, and from layer l to l' only.

`python benchmarks/clamp.py` builds a random model of GPT-2-small's shape (context 128), pushes the
stream at the input of block 4 and reads the inputs of blocks 5, 6 and 7. All four ways are timed in
turn in one process, several rounds; the median of each is kept, and of their ratios. Each way's
peak memory is taken in a process of its own.
"""

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, GPT2Config

sys.path.insert(0, str(Path(__file__).parent))
from record import write

from feature_interaction_graph.engine.branched import BranchedForward, CleanRun
from feature_interaction_graph.engine.hook_points import HookPoint

SOURCE, WINDOW, CONTEXT, SEQUENCES = HookPoint("resid_pre", 4), 3, 128, 16
TARGETS = [HookPoint("resid_pre", SOURCE.layer + distance) for distance in range(1, WINDOW + 1)]


def build(n_rows: int, device: str) -> dict[str, Callable[[], tuple[int, dict[str, torch.Tensor]]]]:
    "The ways, by name: each returns how many interventions it made, and what it read of them."
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            GPT2Config(bos_token_id=0, eos_token_id=0)
        ).eval().requires_grad_(False)
    tokens = torch.randint(1, 50000, (SEQUENCES, CONTEXT), device=device)
    sequences = torch.randint(0, SEQUENCES, (n_rows,), device=device)
    positions = torch.randint(1, CONTEXT, (n_rows,), device=device)
    added = torch.randn(n_rows, 768, device=device)
    engine, slow = BranchedForward(model), BranchedForward(model)
    assert engine.branched
    start, last = SOURCE.layer, TARGETS[-1].layer - 1

    def rows_through(clean: CleanRun) -> tuple[int, dict[str, torch.Tensor]]:
        ((rows, read),) = engine.run(
            clean, SOURCE, sequences, positions, added, TARGETS, batch_rows=n_rows
        )
        return n_rows, {name: values[rows.argsort()] for name, values in read.items()}

    def branched() -> tuple[int, dict[str, torch.Tensor]]:
        "Recording of the clean pass included."
        return rows_through(engine.record(tokens, starts=[start], last=last))

    recorded = engine.record(tokens, starts=[start], last=last)

    def hooked(rows: int, per_pass: int) -> tuple[int, dict[str, torch.Tensor]]:
        """Plain hooked passes through all twelve blocks and the unembedding, as a user's hook would
        make them."""
        read: dict[str, list[torch.Tensor]] = {target.name: [] for target in TARGETS}
        for some in torch.arange(rows, device=device).split(per_pass):
            for name, values in hooked_pass(
                model, tokens[sequences[some]], positions[some], added[some]
            ).items():
                read[name].append(values[:, None])
        return rows, {name: torch.cat(parts) for name, parts in read.items()}

    def suffix(rows: int, per_pass: int) -> tuple[int, dict[str, torch.Tensor]]:
        """Hooked passes that start at the source's block, from the recorded stream, and stop at the
        last target."""
        slow.branched = False
        clean = slow.record(tokens, starts=[start], last=last)
        parts = list(slow.run(clean, SOURCE, sequences[:rows], positions[:rows], added[:rows],
                              TARGETS, batch_rows=per_pass))
        order = torch.cat([some for some, _ in parts]).argsort()
        return rows, {target.name: torch.cat([part[target.name] for _, part in parts])[order]
                      for target in TARGETS}

    return {
        "branched": branched,
        "branched_recorded": lambda: rows_through(recorded),
        "hooked_one": lambda: hooked(8, 1),
        "hooked_16": lambda: hooked(32, 16),
        "suffix_16": lambda: suffix(32, 16),
    }


@torch.no_grad()
def hooked_pass(
    model: torch.nn.Module, tokens: torch.Tensor, positions: torch.Tensor, added: torch.Tensor
) -> dict[str, torch.Tensor]:
    "One full forward pass with a hook that pushes, and hooks that read at the pushed positions."
    rows, caught = torch.arange(len(tokens), device=tokens.device), {}

    def push(module: torch.nn.Module, args: tuple) -> tuple:
        stream = args[0].clone()
        stream[rows, positions] += added
        return (stream, *args[1:])

    def keep(name: str) -> Callable:
        def hook(module: torch.nn.Module, args: tuple) -> None:
            caught[name] = args[0][rows, positions]

        return hook

    handles = [model.transformer.h[SOURCE.layer].register_forward_pre_hook(push)]
    handles += [model.transformer.h[target.layer].register_forward_pre_hook(keep(target.name))
                for target in TARGETS]
    model(tokens, use_cache=False)
    for handle in handles:
        handle.remove()
    return caught


def peak(name: str, n_rows: int, device: str, queue: multiprocessing.Queue) -> None:
    "Peak memory of one way above what the model and its inputs need, in MiB."
    way = build(n_rows, device)[name]
    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before = resident("VmRSS")
        way()
        queue.put((resident("VmHWM") - before) / 2**10)
    else:
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        way()
        queue.put((torch.cuda.max_memory_allocated() - held) / 2**20)


def resident(which: str) -> int:
    "Resident memory of this process now (`VmRSS`) or at its peak (`VmHWM`), in KiB."
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines()
                if line.startswith(which))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args()
    ways = build(chosen.rows, chosen.device)
    # warm-up, and the check that all ways agree
    read = {name: way()[1] for name, way in ways.items()}
    error = {}
    for name, values in read.items():
        rows = min(len(values["blocks.7.hook_resid_pre"]), 8)
        scale = float(read["hooked_one"]["blocks.7.hook_resid_pre"].abs().mean())
        error[name] = max(
            float((values[target.name][:rows] - read["hooked_one"][target.name][:rows]).abs().max())
            for target in TARGETS
        ) / scale
    assert max(error.values()) < 1e-4, error
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in tqdm(range(chosen.rounds), desc="rounds"):
        for name, way in ways.items():
            begin = time.perf_counter()
            made, _read = way()
            if chosen.device != "cpu":
                torch.cuda.synchronize()
            times[name].append((time.perf_counter() - begin) / made * 1e3)
    memory = {}
    context = multiprocessing.get_context("spawn")
    for name in ways:
        queue = context.Queue()
        process = context.Process(target=peak, args=(name, chosen.rows, chosen.device, queue))
        process.start()
        memory[name] = queue.get()
        process.join()
    median = {name: statistics.median(values) for name, values in times.items()}
    numbers = {
        "ms_per_intervention": median,
        "ms_all_rounds": times,
        "times_slower_than_branched": {
            name: statistics.median(
                [mine / ours for mine, ours in zip(times[name], times["branched"], strict=True)]
            ) for name in ways
        },
        "peak_mib_above_model": memory,
        "largest_error_of_residual_scale": error,
    }
    settings = {
        "model": "random GPT-2 small",
        "context": CONTEXT,
        "sequences": SEQUENCES,
        "source": SOURCE.name,
        "window": WINDOW,
        "rows": chosen.rows,
        "rounds": chosen.rounds,
        "device": chosen.device,
    }
    path = write("clamp" if chosen.device == "cpu" else "clamp_gpu", settings, numbers)
    for name in ways:
        ratio = numbers["times_slower_than_branched"][name]
        print(f"{name:17s} {median[name]:9.3f} ms/intervention {ratio:7.1f} x branched "
              f"{memory[name]:7.0f} MiB above the model, error {error[name]:.0e}")
    print(f"written to {path.name}")


if __name__ == "__main__":
    main()
