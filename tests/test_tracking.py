"""Tracking with the real Weights & Biases, offline, and through the death of its process."""
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from coordinate_saes import TOKENS, random_model

from feature_interaction_graph.drawing.figures import new_figure
from feature_interaction_graph.tracking.track import read_metrics, track, upload

wandb = pytest.importorskip("wandb", reason="the real wandb is tried where it is installed")


def sent(folder: Path, last: bytes, seconds: float = 60) -> bytes:
    """What the offline runs below `folder` would send, as soon as it holds `last`: W&B's service
    writes on after a run has ended."""
    until = time.monotonic() + seconds
    while True:
        found = b"".join(file.read_bytes() for file in sorted(folder.rglob("*.wandb")))
        if last in found or time.monotonic() > until: return found
        time.sleep(0.2)


def test_the_real_library_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    "Numbers, table, figure and file are in W&B's own records, from the run and from the folder."
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with track(tmp_path / "run", {"width": 64}, wandb="offline") as run:
        for step in range(3): run.log({"loss": 1 / (1 + step)}, step=step)
        run.table("edges", {"strength": [0.5, 0.25]})
        run.figure("line", new_figure(2, 1)[0])
        run.artifact(tmp_path / "run" / "config.json")
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    assert told["state"] == "finished" and told["wandb"] == {"state": "complete"}
    record = sent(tmp_path / "run" / "wandb", b"config.json")
    for part in (b"loss", b"0.3333333333333333", b"edges", b"line", b"config.json", b"width"):
        assert part in record, part
    with track(tmp_path / "plain", {"width": 8}) as plain: plain.log({"loss": 0.125}, step=7)
    assert upload(tmp_path / "plain", "offline") == {"state": "complete"}
    assert b"0.125" in sent(tmp_path / "plain" / "wandb", b"0.125")


def test_settings_that_the_library_refuses(tmp_path: Path) -> None:
    with (pytest.warns(UserWarning, match="everything is in the folder"),
          track(tmp_path / "run", wandb={"mode": "sideways"}) as run):
        run.log({"loss": 1.0})
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    assert told["wandb"]["state"] == "lost" and told["wandb"]["missed"] == 1
    assert read_metrics(tmp_path / "run").loss.tolist() == [1.0]


def test_a_process_that_dies(tmp_path: Path) -> None:
    "Every line that was logged is there, and the run does not claim to have finished."
    work = ("import os\n"
            "from feature_interaction_graph.tracking.track import track\n"
            f"with track({str(tmp_path / 'run')!r}) as run:\n"
            "    for step in range(5):\n"
            "        if step == 3: os._exit(1)\n"
            "        run.log({'loss': 1.0}, step=step)\n")
    assert subprocess.run([sys.executable, "-c", work], check=False).returncode == 1
    assert read_metrics(tmp_path / "run").step.tolist() == [0, 1, 2]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "running"


def test_trainings_and_sweeps_are_heard(tmp_path: Path) -> None:
    "Losses of every SAE at their steps, tables of every sweep; nothing outside the context."
    from feature_interaction_graph import PromptPairs, activation_patching
    from feature_interaction_graph.engine.corpus import as_corpus
    from feature_interaction_graph.patching.ablations import ablate_components
    from feature_interaction_graph.patching.paths import path_patching
    from feature_interaction_graph.training.saes import SaeSettings, train_saes
    model, hook = random_model("gpt2"), "blocks.0.hook_resid_post"
    corpus = as_corpus(TOKENS.repeat(4, 1))
    settings = SaeSettings(width=16, k=4, steps=5, batch_size=8, progress=False)
    pairs = PromptPairs([[3, 4, 5, 6]], [[3, 7, 5, 6]], [9], [8], name="four")
    def work():
        activation_patching(model, pairs, "head")
        ablate_components(model, pairs, "mlp_out")
        path_patching(model, pairs, "head", ["logits"])
        return train_saes(model, corpus, [hook], settings)[hook]
    with track(tmp_path / "run") as run: heard = work()
    assert torch.equal(heard.W_dec, work().W_dec)              # listening changes nothing
    losses = read_metrics(run.folder)
    assert losses.step.tolist() == [0, 1, 2, 3, 4] and losses[f"{hook}/mse_loss"].notna().all()
    sizes = {path.stem: len(path.read_text().splitlines()) - 1
             for path in (run.folder / "tables").iterdir()}
    # 16 heads at 4 positions, 4 MLPs, 16 heads into the logits
    assert sizes == {"four denoising": 64, "four mean ablation": 4, "four paths noising": 16}
