"""SAEs of a real language model on a laptop: SmolLM2-135M, six consecutive residual streams.

`python benchmarks/smollm2_saes.py --data FOLDER --output FOLDER` trains them on a mix of books and
stories, shuffled in blocks of 4,000 characters, and judges them on an eleventh that was held out:
writes `results/smollm2_saes.json` (or `--name`). What is trained already stays. Give more
`--steps`, `--tokens` or `--width` for better ones.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from record import write

from feature_interaction_graph.engine.corpus import Corpus, corpus_from_text
from feature_interaction_graph.engine.positions import corpus_for
from feature_interaction_graph.engine.residuals import clean_residuals
from feature_interaction_graph.loading import load_model
from feature_interaction_graph.training.saes import quality_report, train_saes

TEXTS = ("gutenberg_austen-sense.txt", "gutenberg_carroll-alice.txt",
         "gutenberg_chesterton-brown.txt", "gutenberg_melville-moby_dick.txt",
         "tinystories_train_slice.txt")
BLOCK = 4000      # characters that stay together


def mixed_blocks(folder: Path, fresh: bool = False) -> list[str]:
    """Equal parts of every file, blocks shuffled; `fresh`: as many others, of the files that have
    them."""
    rng, blocks = np.random.default_rng(0), []
    for name in TEXTS:
        text = (folder / name).read_text(encoding="utf-8")[:2_000_000]
        blocks += [[text[begin:begin + BLOCK] for begin in range(0, len(text), BLOCK)]]
    most = min(map(len, blocks))
    part = slice(most, 2 * most) if fresh else slice(0, most)
    mixed = [each[place] for each in blocks for place in rng.permutation(len(each))[part]]
    return [mixed[place] for place in rng.permutation(len(mixed))]


def fresh_text(data: Path, file: Path) -> Path:
    """`file`, which holds the text that the SAEs were not trained on; written only where it is not
    there, because a run takes a file that was written again for another text."""
    words = "\n".join(mixed_blocks(data / "text", fresh=True))
    if not file.is_file() or file.read_text(encoding="utf-8") != words:
        file.write_text(words, encoding="utf-8")
    return file


def corpora(model: torch.nn.Module, folder: Path, n_tokens: int, length: int
            ) -> tuple[Corpus, Corpus]:
    "Text to train on and text to judge on."
    text = "\n".join(mixed_blocks(folder))
    corpus = corpus_from_text(text, model.tokenizer, length, bos=True, source="books and stories")
    few = corpus.take(range(min(len(corpus), n_tokens // (length - 1) * 11 // 10)))
    begin = len(few) * 10 // 11      # the last eleventh is judged on
    return few.take(range(begin)), few.take(range(begin, len(few)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--first", type=int, default=8)
    parser.add_argument("--n-points", type=int, default=6)
    parser.add_argument("--width", type=int, default=4608)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--name", default="smollm2_saes", help="of the file in results/")
    parser.add_argument("--judged", type=int, default=40, help="sequences of the held-out text")
    given = parser.parse_args()
    model = load_model("smollm2-135m")
    text, held_out = corpora(model, given.data / "text", given.tokens, given.length)
    held_out = held_out.take(range(min(len(held_out), given.judged)))
    points = [f"blocks.{layer}.hook_resid_pre"
              for layer in range(given.first, given.first + given.n_points)]
    started = time.time()
    clean_residuals(model, text.tokens[:64], points)
    per_token = (time.time() - started) / (64 * given.length)
    print(f"{text.n_tokens:,} tokens to train on, {held_out.n_tokens:,} to judge on; one pass "
          f"about {per_token * text.n_tokens:.0f} s", flush=True)
    started = time.time()
    saes = train_saes(model, text, points, width=given.width, k=given.k, steps=given.steps,
                      lr=1e-3, batch_size=1024, output_dir=given.output,
                      model_name="smollm2-135m", progress=True)
    seconds = time.time() - started
    # the token after BOS is an attention sink, whose variance is most of all there is
    judged = {name: quality_report(model, saes, corpus_for(model, held_out, positions),
                                   progress=True)
              for name, positions in (("saes", None), ("saes_after_the_sink", "2:"))}
    for reports in judged.values():
        for report in reports: print(report, flush=True)
    numbers = {**{name: [vars(report) for report in reports] for name, reports in judged.items()},
               "seconds": seconds,
               "seconds_of_one_pass": per_token * text.n_tokens}
    settings = {name: value for name, value in vars(given).items()
                if name not in ("data", "output", "name")}
    print(write(given.name, settings, numbers))


if __name__ == "__main__":
    main()
