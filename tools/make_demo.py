"""Makes feature_interaction_graph/demo: the small GPT-2, its SAEs, and the record of how they came about.

    python tools/make_demo.py model --work demo_work     (about 25 minutes on two cores; resumes where it was interrupted)
    python tools/make_demo.py saes  --work demo_work     (about 15 minutes)
"""
import argparse
import json
import platform
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch

from feature_interaction_graph.engine.errors import atomic_write
from feature_interaction_graph.training.demo_model import demo_tokenizer, held_out_loss, new_model, save_language_model, story_batch, train_language_model
from feature_interaction_graph.training.stories import entropy_per_token, story_corpus, write_story

DEMO = Path(__file__).resolve().parent.parent / "feature_interaction_graph" / "demo"
TRAIN_BOOK, HELD_OUT_BOOK, SAE_BOOK = 1_000, 2_000, 3_000      # added to the seed: three books that share no story


def update_record(**entries: object) -> None:
    path = DEMO / "training.json"
    record = (json.loads(path.read_text()) if path.exists() else {}) | entries
    with atomic_write(path) as temporary: temporary.write_text(json.dumps(record, indent=1) + "\n")


def make_model(arguments: argparse.Namespace) -> None:
    model, tokenizer = new_model(seed=arguments.seed), demo_tokenizer()
    held_out = story_corpus(60_000, seed=arguments.seed + HELD_OUT_BOOK, labelled=False)
    entropy = entropy_per_token(write_story(arguments.seed + HELD_OUT_BOOK, index, labelled=False) for index in range(len(held_out)))
    history: list[tuple[int, float]] = []
    history_path = Path(arguments.work) / "held_out.json"
    if history_path.exists(): history = json.loads(history_path.read_text())
    started = time.time()

    def evaluate(step: int) -> None:
        model.eval()
        history.append((step, held_out_loss(model, held_out)))
        model.train()
        with atomic_write(history_path) as temporary: temporary.write_text(json.dumps(history))
        print(f"step {step}: held out {history[-1][1]:.4f} nats, entropy {entropy:.4f}, {time.time() - started:.0f} s", flush=True)
        if history[-1][1] < 1.15 * entropy: save_language_model(model, tokenizer, DEMO / "model")

    curve = train_language_model(model, lambda step: story_batch(arguments.seed + TRAIN_BOOK, step, arguments.batch_size), arguments.steps,
                                 evaluate=evaluate, evaluate_every=100, checkpoint=Path(arguments.work) / "model.safetensors")
    save_language_model(model, tokenizer, DEMO / "model")
    update_record(seed=arguments.seed, date=date.today().isoformat(), steps=arguments.steps, batch_size=arguments.batch_size,
                  n_parameters=sum(parameter.numel() for parameter in model.parameters()),
                  tokens_read=sum(int(story_batch(arguments.seed + TRAIN_BOOK, step, arguments.batch_size)[1].sum()) for step in range(0, arguments.steps, 50)) * 50,
                  loss_curve=[(step, round(loss, 4)) for step, loss in curve[::10]], held_out_curve=[(step, round(loss, 5)) for step, loss in history],
                  held_out_loss=history[-1][1], generator_entropy=entropy, seconds=round(time.time() - started), versions=versions())


def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in ("torch", "transformers", "sae-lens", "transformer-lens", "numpy")}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["model"])
    parser.add_argument("--work", required=True, help="folder for checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    {"model": make_model}[options.stage](options)
