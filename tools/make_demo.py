"""Makes feature_interaction_graph/demo: the small GPT-2, its SAEs, and the record of how they came
about.

    python tools/make_demo.py model --work demo_work     (about 25 minutes on one core; resumes
    where it was interrupted) python tools/make_demo.py saes                       (about 3 minutes
    a hook point on one core; skips those already there) python tools/make_demo.py report
    (quality of the SAEs, on stories neither they nor the model were trained on)
"""
import argparse
import json
import platform
import time
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch

from feature_interaction_graph.engine.errors import atomic_write
from feature_interaction_graph.training import saes as sae_training
from feature_interaction_graph.training.demo_model import (
    demo_tokenizer, held_out_loss, new_model, save_language_model, story_batch, train_language_model
)
from feature_interaction_graph.training.stories import entropy_per_token, story_corpus, write_story

# unless --out says otherwise
DEMO = Path(__file__).resolve().parent.parent / "feature_interaction_graph" / "demo"
# added to the seed: three books that share no story
TRAIN_BOOK, HELD_OUT_BOOK, SAE_BOOK = 1_000, 2_000, 3_000


def update_record(folder: Path, **entries: object) -> None:
    path = folder / "training.json"
    record = (json.loads(path.read_text()) if path.exists() else {}) | entries
    with atomic_write(path) as temporary: temporary.write_text(json.dumps(record, indent=1) + "\n")


def make_model(arguments: argparse.Namespace) -> None:
    model, tokenizer = new_model(seed=arguments.seed), demo_tokenizer()
    held_out = story_corpus(60_000, seed=arguments.seed + HELD_OUT_BOOK, labelled=False)
    entropy = entropy_per_token(write_story(arguments.seed + HELD_OUT_BOOK, index, labelled=False)
                                for index in range(len(held_out)))
    history_path = Path(arguments.work) / "held_out.json"
    history: list[tuple[int, float]] = (
        json.loads(history_path.read_text()) if history_path.exists() else []
    )
    started = time.time()

    def evaluate(step: int) -> None:
        model.eval()
        history.append((step, held_out_loss(model, held_out)))
        model.train()
        with atomic_write(history_path) as temporary: temporary.write_text(json.dumps(history))
        print(f"step {step}: held out {history[-1][1]:.4f} nats, entropy {entropy:.4f}, "
              f"{time.time() - started:.0f} s", flush=True)

    def batch_at(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return story_batch(arguments.seed + TRAIN_BOOK, step, arguments.batch_size)

    curve = train_language_model(
        model, batch_at, arguments.steps, evaluate=evaluate, evaluate_every=100,
        checkpoint=Path(arguments.work) / "model.safetensors", progress=arguments.progress
    )
    save_language_model(model, tokenizer, arguments.out / "model")
    update_record(arguments.out, seed=arguments.seed, date=date.today().isoformat(),
                  steps=arguments.steps, batch_size=arguments.batch_size,
                  n_parameters=sum(parameter.numel() for parameter in model.parameters()),
                  tokens_read=tokens_read(arguments),
                  loss_curve=[(step, round(loss, 4)) for step, loss in curve[::10]],
                  held_out_curve=[(step, round(loss, 5)) for step, loss in history],
                  held_out_loss=history[-1][1], generator_entropy=entropy, versions=versions())


def tokens_read(arguments: argparse.Namespace) -> int:
    """Estimated from every fiftieth batch."""
    return 50 * sum(
        int(story_batch(arguments.seed + TRAIN_BOOK, step, arguments.batch_size)[1].sum())
        for step in range(0, arguments.steps, 50)
    )


# d_sae, k. The stream before block 0 is a sum of one of 385 word vectors and one of 128 position
# vectors: a smaller dictionary is enough.
SAE_SHAPES = {"blocks.0.hook_resid_pre": (512, 12), "blocks.1.hook_resid_pre": (1024, 16),
              "blocks.2.hook_resid_pre": (1024, 16), "blocks.3.hook_resid_pre": (1024, 16),
              "blocks.3.hook_resid_post": (1024, 16)}


def make_saes(arguments: argparse.Namespace) -> None:
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(arguments.out / "model").eval()
    corpus = story_corpus(400_000, seed=arguments.seed + SAE_BOOK, labelled=False)
    for hook in arguments.hooks or SAE_SHAPES:
        if (arguments.out / "saes" / hook).exists(): continue
        width, k = SAE_SHAPES[hook]
        started = time.time()
        sae_training.train_saes(
            model, corpus, [hook], architecture="batchtopk", width=width, k=k,
            steps=arguments.sae_steps, batch_size=1024, lr=2e-3, seed=arguments.seed,
            model_name="demo", output_dir=arguments.out / "saes", progress=arguments.progress
        )
        print(f"{hook}: {time.time() - started:.0f} s", flush=True)


def report(arguments: argparse.Namespace) -> None:
    from sae_lens import SAE
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(arguments.out / "model").eval()
    saes = {
        hook: SAE.load_from_disk(str(arguments.out / "saes" / hook)).eval() for hook in SAE_SHAPES
    }
    held_out = story_corpus(60_000, seed=arguments.seed + HELD_OUT_BOOK, labelled=False)
    quality = [asdict(entry) for entry in sae_training.quality_report(model, saes, held_out)]
    settings = {"architecture": "batchtopk, saved as jumprelu", "tokens": 400_000,
                "steps": arguments.sae_steps, "batch_size": 1024, "lr": 2e-3}
    update_record(arguments.out, sae_training=settings, sae_quality=quality, versions=versions())
    print(json.dumps(quality, indent=1))


def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {
        name: version(name)
        for name in ("torch", "transformers", "sae-lens", "transformer-lens", "numpy")
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=["model", "saes", "report"])
    parser.add_argument("--work", default="demo_work", help="folder for checkpoints")
    parser.add_argument(
        "--hooks", nargs="*", help="hook points to train SAEs for; all of them by default"
    )
    parser.add_argument("--sae-steps", type=int, default=2000)
    parser.add_argument("--progress", action="store_true")
    parser.add_argument(
        "--out", type=Path, default=DEMO, help="folder that gets model/, saes/ and training.json"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    {"model": make_model, "saes": make_saes, "report": report}[options.stage](options)
