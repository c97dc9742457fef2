"""A run that is stopped, killed or damaged goes on, and is the run it would have been; two in one
folder do not harm each other."""
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import run

from feature_interaction_graph.engine.locks import alone_in
from feature_interaction_graph.measurement import blocks

# ten blocks of sources
SETTINGS = [
    "--preset", "demo", "--n-tokens", "1500", "--top-k", "5", "--layer-window", "1", "--n-samples",
    "8", *(part for setting in (
        "n_importance_tokens=500", "n_transport_tokens=500", "placebo=4", "memory_gb=2e-5",
        "significance_level=0.2") for part in ("--set", setting))]
SHARDS = "interactions.unfinished"


def told(folder: Path) -> dict[str, bytes]:
    "The graph of a run without its path; there are no dates in it."
    found = {}
    for name in ("graph.json", "graph.graphml"):
        text, count = re.subn(rb'"output_dir": "[^"]+"', b"", (folder / name).read_bytes())
        assert count == 1
        found[name] = text
    return found


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    "The folder of a run that nobody interrupted."
    folder = tmp_path_factory.mktemp("whole")
    assert run("run-pipeline", *SETTINGS, "--quiet", "--output-dir", folder) == 0
    return folder


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    "The folder of a run that was killed, as it were, after four blocks of sources."
    folder, real, made = tmp_path_factory.mktemp("stopped"), blocks.measure_block, []
    def stops(*how):
        if len(made) == 4: raise KeyboardInterrupt
        made.append(1)
        return real(*how)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "measure_block", stops)
        assert run("run-pipeline", *SETTINGS, "--quiet", "--output-dir", folder) != 0
    return folder


@pytest.fixture
def broken_off(stopped, tmp_path) -> Path:
    "A copy of that folder."
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    return folder


@pytest.fixture
def measured(monkeypatch) -> list:
    "The blocks of sources that are measured from now on."
    found, real = [], blocks.measure_block
    def counts(*how):
        found.append(1)
        return real(*how)
    monkeypatch.setattr(blocks, "measure_block", counts)
    return found


def same_run(folder: Path, whole: Path, *options: str) -> None:
    assert run("run-pipeline", *SETTINGS, *options, "--output-dir", folder) == 0
    assert told(folder) == told(whole) and listing(folder) == listing(whole)


def test_a_stopped_run_goes_on_to_the_same_graph(broken_off, whole, measured, capsys):
    manifest = json.loads((broken_off / SHARDS / "manifest.json").read_text())
    assert len(manifest["shards"]) == 4 and manifest["n_shards"] >= 9
    assert manifest["facts"]["n_samples"] == 8 and "torch" in manifest["facts"]
    same_run(broken_off, whole)
    assert len(measured) == manifest["n_shards"] - 4
    said = capsys.readouterr().out
    assert "candidates: reused" in said and "interactions: wrote" in said


@pytest.mark.parametrize("spoil, why", [
    (lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], "its bytes have changed"),
    (lambda data: b"", "0 bytes of")])
def test_a_damaged_shard_is_named_and_made_again(broken_off, whole, measured, capsys, spoil, why):
    shard = broken_off / SHARDS / "block_00002.npz"
    n_shards = json.loads((broken_off / SHARDS / "manifest.json").read_text())["n_shards"]
    shard.write_bytes(spoil(shard.read_bytes()))
    same_run(broken_off, whole, "--quiet")
    said = capsys.readouterr().err
    assert said.count("block_00002.npz, a finished part") == 1 and f"is damaged ({why}" in said
    assert said.count("damaged (") == 1 and len(measured) == n_shards - 3


def test_another_setting_is_told_by_name(broken_off, capsys):
    assert run("measure-interactions", *SETTINGS, "--n-samples", "9", "--output-dir",
               broken_off) == 0
    said = capsys.readouterr()
    assert "4 finished parts that are not used, because n_samples was 8, is 9" in said.err
    assert not (broken_off / SHARDS).exists() and "candidates: reused" in said.out
    assert run("measure-interactions", *SETTINGS, "--set", "placebo=5", "--output-dir",
               broken_off) == 0
    told = "interactions.h5 was made with other settings (n_samples was 9, is 8; placebo was 4, is"
    assert told in capsys.readouterr().out.replace("\n", "")


@pytest.fixture
def finished(whole, tmp_path) -> Path:
    "A copy of the folder of the whole run."
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("name", ["interactions.h5", "graph.json", "summary.json"])
def test_a_damaged_file_of_a_stage_is_named_and_made_again(finished, whole, capsys, name):
    "One bit, anywhere in the run: the whole folder is looked at."
    data = bytearray((finished / name).read_bytes())
    data[len(data) // 3] ^= 1
    (finished / name).write_bytes(data)
    same_run(finished, whole)
    assert f"is damaged: {name} changed since the run wrote it" in capsys.readouterr().out


def test_a_second_process_is_refused_in_one_sentence(broken_off, capsys):
    before = listing(broken_off)
    with alone_in(broken_off):
        for quiet in ([], ["--quiet"]):
            assert run("run-pipeline", *SETTINGS, *quiet, "--output-dir", broken_off) == 2
            (sentence,) = capsys.readouterr().err.splitlines()
            assert sentence.startswith(f"fig: {broken_off} is in use by process {os.getpid()} on")
    assert listing(broken_off) == before


def test_who_only_reads_is_not_refused(finished, capsys):
    with alone_in(finished): assert run("run-pipeline", *SETTINGS, "--output-dir", finished) == 0
    assert "summary: reused" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_can_be_read(finished, capsys, monkeypatch):
    def refuses(*how, **more): raise PermissionError(13, "Permission denied")
    monkeypatch.setattr(os, "open", refuses)
    assert run("run-pipeline", *SETTINGS, "--output-dir", finished) == 0


def started(folder: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "feature_interaction_graph.cli", "run-pipeline", *SETTINGS]
    def listens() -> None:           # what runs the tests in the background may ignore Ctrl-C
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen([*command, *options, "--output-dir", str(folder)], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=listens)


def test_ctrl_c_says_how_to_go_on(tmp_path):
    folder = tmp_path / "run"
    with started(folder) as process:
        # early enough that the run is not over before the signal comes, however busy the machine
        while not (folder / "activations.h5").exists() and process.poll() is None: time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=120)
    assert process.returncode not in (0, 2, -signal.SIGKILL), said + errors
    assert "Traceback" not in errors
    again = f"stopped; what is finished is kept in {folder}, and the same command goes on from"
    assert again in said and not (folder / ".lock").exists()
    assert not list(folder.glob(".*.part"))


def test_the_api_says_how_to_go_on_as_well(tmp_path, monkeypatch):
    from test_interactions import Pairs

    from feature_interaction_graph.config import Config
    from feature_interaction_graph.interactions import measure_interactions
    from feature_interaction_graph.loading import load_corpus, load_model_and_saes
    cfg = Config.preset("demo", n_tokens=1500, n_samples=8, placebo=0, output_dir=str(tmp_path))
    model, saes = load_model_and_saes(cfg)
    corpus = load_corpus(cfg, model, saes)
    def stops(*how): raise KeyboardInterrupt
    monkeypatch.setattr(blocks, "measure_block", stops)
    busy = [int(i) for i in np.arange(40)]
    pairs = Pairs([(1, i) for i in busy], [(2, 0)])
    with pytest.raises(KeyboardInterrupt) as found:
        measure_interactions(model, saes, pairs, cfg, corpus, progress=False)
    (note,) = found.value.__notes__
    assert note == (f"0 of 1 parts are finished and kept in {tmp_path / SHARDS}; the same call "
                    "goes on from there.")


def fig(arguments: list[str]) -> None:
    "In a process of its own; what it says goes nowhere."
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    run(*arguments)


@pytest.mark.slow
def test_twenty_kills_leave_no_trace(tmp_path):
    """SIGKILL at twenty moments spread over a run; each time the run is started again and ends in
    the graph and the files of one that was not killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([
        "transformer_lens", "sae_lens", "matplotlib.pyplot", "feature_interaction_graph.features",
        "feature_interaction_graph.shell.plan", "feature_interaction_graph.visualization",
        "feature_interaction_graph.cli", __name__])
    def begun(folder: Path) -> multiprocessing.Process:
        arguments = ["run-pipeline", *SETTINGS, "--quiet", "--output-dir", str(folder)]
        process = context.Process(target=fig, args=(arguments,))
        process.start()
        return process
    def finish(folder: Path) -> float:
        start, process = time.monotonic(), begun(folder)
        process.join()
        assert process.exitcode == 0
        return time.monotonic() - start
    finish(tmp_path / "warm")                               # imports are done, files are cached
    seconds = finish(tmp_path / "whole")
    expected, files = told(tmp_path / "whole"), listing(tmp_path / "whole")
    rng, seen = np.random.default_rng(0), []
    for number in range(20):
        folder = tmp_path / f"run_{number}"
        process = begun(folder)
        process.join((number + rng.random()) / 20 * seconds)
        alive = process.exitcode is None
        process.kill()
        process.join()
        left = listing(folder) if folder.exists() else []
        last = [name for name in files if name in left and "." in name]
        shards = sum(name.endswith(".npz") for name in left)
        parts = [name for name in left if name.endswith((".part", ".lock"))]
        seen.append((alive, len(last), shards, len(parts)))
        print(f"kill {number:2}: {'alive' if alive else 'finished'}, {len(last)} files, {shards} "
              f"shards, left behind: {', '.join(parts) or 'nothing'}", flush=True)
        finish(folder)
        assert told(folder) == expected and listing(folder) == files, number
        shutil.rmtree(folder)
    assert sum(alive for alive, *_ in seen) >= 15
    assert len({(n_files, shards) for _, n_files, shards, _ in seen}) >= 6
    assert any(shards for _, _, shards, _ in seen) and any(parts for *_, parts in seen)
    print(f"20 kills in a run of {seconds:.1f} s: every graph the same, no orphan file")
