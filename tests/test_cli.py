"The command line: what it refuses, what it reuses, what it leaves behind."
import json
import os
import subprocess
import sys
from pathlib import Path

import networkx as nx
import pytest
from command_line import run

from feature_interaction_graph.shell.options import RunOptions, configured
from feature_interaction_graph.graphs.files import save_graph

SMALL = ["--n-tokens", "1500", "--n-samples", "8", "--top-k", "4", "--layer-window", "1", "--set",
         "n_importance_tokens=500"]


def tree(folder: Path) -> dict[str, bytes | None]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
            for path in sorted(folder.rglob("*"))}


def one_sentence(text: str) -> str:
    lines = text.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("fig: ") and lines[0][-1] in ".?", text
    return lines[0]


@pytest.fixture
def refused(tmp_path, capsys):
    """Runs a command that must be refused: code 2, one sentence that holds all `words`, and the
    folder as it was."""
    def check(*arguments: str | Path, words: tuple[str, ...] = ()) -> str:
        before = tree(tmp_path)
        capsys.readouterr()
        assert run(*arguments) == 2
        captured = capsys.readouterr()
        sentence = one_sentence(captured.err)
        for word in words: assert word in sentence
        assert tree(tmp_path) == before
        return sentence
    return check


@pytest.fixture
def small_graph(tmp_path) -> Path:
    G = nx.DiGraph()
    for layer, feature in ((0, 1), (1, 2)):
        G.add_node(f"L{layer}_F{feature}", layer=layer, feature_idx=feature, label="",
                   importance=0.1, activation_freq=0.1)
    G.add_edge("L0_F1", "L1_F2", strength=0.5, abs_strength=0.5, interaction_type="excitatory",
               q_value=0.001, offset=0)
    return save_graph(G, tmp_path / "graph.json")


def test_a_setting_with_an_option_of_its_own_can_be_set_by_name_too():
    "--set n_samples=10 is --n-samples 10; where both are given the option wins."
    by_name = RunOptions(setting=["n_samples=10", "seed=3"], quiet=True)
    both = RunOptions(setting=["n_samples=10"], n_samples=20, quiet=True)
    assert configured(by_name).cfg.n_samples == 10 and configured(both).cfg.n_samples == 20


def test_the_shell_completes_presets():
    "Bash asks the program itself."
    asked = {"_FIG_COMPLETE": "complete_bash", "COMP_WORDS": "fig run-pipeline --preset g",
             "COMP_CWORD": "3"}
    said = subprocess.run([sys.executable, "-m", "feature_interaction_graph.cli"], text=True,
                          env=os.environ | asked, capture_output=True).stdout
    assert said.split() == ["gpt2-small", "gemma-2-2b"]


@pytest.mark.parametrize("arguments, words", [
    (["--labels", "neuronpedia:gpt2"], ("neuronpedia:gpt2-small/6-res-jb", "gpt2")),
    (["--preset", "gpt5"], ("gpt5", "gpt2-small")),
    (["--layers", "0-x"], ("0-x", "0-3")),
    (["--layers", "0-999999999999"], ("0-999999999999", "9999")),
    (["--n-samples", "0"], ("n_samples is 0", "at least 2")),
    (["--set", "n_tokenz=4"], ("n_tokenz", "n_tokens")),
    (["--set", "n_tokens"], ("name=value",)),
    (["--device", "tpu"], ("tpu", "cuda")),
    (["--config", "no/such/config.json"], ("no/such/config.json",)),
    (["--preset", "demo", "--config", "config.json"], ("only one",)),
    (["--layers", "99"], ("99",)),
    (["--model", "no-such-folder/no-model"], ("no-such-folder/no-model",)),
    (["--sae-release", "no-such-release"], ("no-such-release",)),
    (["--dataset", "no-such-file.txt"], ("no-such-file.txt",)),
])
def test_bad_settings_are_refused_in_one_sentence(refused, tmp_path, arguments, words):
    refused("run-pipeline", "--quiet", *arguments, "--output-dir", tmp_path / "new" / "folder",
            words=words)


@pytest.mark.parametrize("name, content, words", [
    ("empty.txt", b"", ("empty.txt",)),
    ("short.txt", b"a", ("8 tokens",)),
    ("latin.txt", "Once there was a caf\u00e9.".encode("latin-1"), ("latin.txt", "UTF-8", "20")),
    ("broken.jsonl", b'{"text": "once"}\n{"text": \n', ("broken.jsonl", "2")),
])
def test_bad_texts_are_refused_in_one_sentence(refused, tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    refused("collect-activations", "--quiet", "--dataset", tmp_path / name, "--output-dir",
            tmp_path / "out", words=words)


def test_the_output_folder_cannot_be_below_a_file(refused, tmp_path):
    (tmp_path / "file").write_text("in the way")
    refused("run-pipeline", *SMALL, "--quiet", "--output-dir", tmp_path / "file" / "out",
            words=("file",))


def test_a_full_disk_leaves_nothing_behind(refused, tmp_path, monkeypatch):
    import h5py

    def full(*args, **kwargs): raise OSError(28, "No space left on device")
    monkeypatch.setattr(h5py.Group, "create_dataset", full)
    refused("collect-activations", *SMALL, "--quiet", "--output-dir", tmp_path / "out",
            words=("No space left on device",))


@pytest.mark.parametrize(
    "command, option", [("build-atlas", "--activations"), ("measure-interactions", "--atlas"),
                        ("build-graph", "--interactions")]
)
def test_damaged_hdf5_is_refused(refused, tmp_path, command, option):
    import h5py
    with h5py.File(tmp_path / "whole.h5", "w") as file: file["numbers"] = list(range(5000))
    data = (tmp_path / "whole.h5").read_bytes()
    for name, content in (
        ("cut.h5", data[:len(data) // 2]), ("text.h5", b"not HDF5"), ("foreign.h5", data)
    ):
        (tmp_path / name).write_bytes(content)
        refused(command, "--quiet", option, tmp_path / name, "--output-dir", tmp_path / "out",
                words=(name,))
    refused(command, "--quiet", option, tmp_path / "absent.h5", "--output-dir", tmp_path / "out",
            words=("absent.h5",))


def test_unknown_features_and_graphs_are_refused(refused, tmp_path, small_graph):
    refused("visualize", "--graph", small_graph, "--output-dir", tmp_path, "--feature", "L9_F9",
            words=("L9_F9", "L0_F1"))
    refused("visualize", "--graph", tmp_path / "absent.json", "--output-dir", tmp_path,
            words=("absent.json",))
    (tmp_path / "cut.json").write_text(small_graph.read_text()[:50])
    refused(
        "analyze", "--graph", tmp_path / "cut.json", "--output-dir", tmp_path, words=("cut.json",)
    )


def test_a_usage_error_is_no_traceback(capsys):
    assert run("run-pipeline", "--n-samples", "many") == 2
    assert run("fly") == 2
    assert "Traceback" not in capsys.readouterr().err


def test_as_a_program(tmp_path):
    "The installed command and `python -m`, in their own processes."
    command = [sys.executable, "-m", "feature_interaction_graph.cli"]
    helped = subprocess.run([*command, "--help"], capture_output=True, text=True)
    assert helped.returncode == 0 and "run-pipeline" in helped.stdout and not helped.stderr
    failed = subprocess.run([*command, "run-pipeline", "--preset", "gpt5", "--output-dir",
                             tmp_path / "out"], capture_output=True, text=True)
    assert (failed.returncode == 2 and one_sentence(failed.stderr) and not failed.stdout
            and not list(tmp_path.iterdir()))
    installed = subprocess.run([Path(sys.executable).with_name("fig"), "analyze", "--graph",
                                tmp_path / "no.json"], capture_output=True, text=True)
    assert installed.returncode == 2 and one_sentence(installed.stderr)


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "gbk", "ascii"])
def test_what_a_terminal_cannot_show_is_replaced(tmp_path, encoding):
    G = nx.DiGraph()
    for layer in (0, 1):
        G.add_node(f"L{layer}_F1", layer=layer, feature_idx=1, label="\u65e5\u672c \u00b7 \u21b5")
    G.add_edge("L0_F1", "L1_F1", strength=0.5, interaction_type="excitatory")
    save_graph(G, tmp_path / "graph.json")
    for command in (["analyze"], ["build-graph", "--interactions", "\u65e5\u672c.h5"]):
        done = subprocess.run(
            [sys.executable, "-m", "feature_interaction_graph.cli", *command, "--output-dir",
             str(tmp_path)], capture_output=True, encoding=encoding, errors="replace",
            env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
        )
        assert done.returncode == (0 if command == ["analyze"] else 2), done.stderr
        assert "Traceback" not in done.stderr


def test_help_imports_no_heavy_library():
    code = ("import sys; from feature_interaction_graph import cli; print([n for n in ('torch', "
            "'transformers', 'sae_lens', 'h5py', 'pandas') if n in sys.modules])")
    assert subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    ).stdout.strip() == "[]"


def test_every_exported_name_is_there_and_none_is_loaded_early():
    code = ("import sys, time; start = time.perf_counter(); import feature_interaction_graph as "
            "package; took = time.perf_counter() - start; "
            "print(took < 0.3, 'torch' in sys.modules, [name for name in package.__all__ if "
            "getattr(package, name, None) is None], 'torch' in sys.modules)")
    assert subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    ).stdout.strip() == "True False [] True"


def test_analyze_counts_what_is_there(tmp_path, small_graph, capsys):
    assert run("analyze", "--graph", small_graph, "--output-dir", tmp_path) == 0
    written = json.loads((tmp_path / "analysis.json").read_text())
    assert written["statistics"]["n_nodes"] == 2 and written["statistics"]["types"] == {
        "excitatory": 1
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    "The output folder of a small run of the demo."
    folder = tmp_path_factory.mktemp("run")
    assert run("run-pipeline", "--preset", "demo", *SMALL, "--set", "significance_level=0.2",
               "--quiet", "--output-dir", folder) == 0
    return folder


def test_a_run_leaves_every_file(finished):
    names = {"config.json", "activations.h5", "atlas.h5", "candidates.h5", "interactions.h5",
             "graph.graphml", "graph.h5", "graph.json", "graph.html", "degree.html", "decay.html",
             "types.html", "summary.json", "stages.json"}
    assert {path.name for path in finished.iterdir()} == names
    summary = json.loads((finished / "summary.json").read_text())
    G = json.loads((finished / "graph.json").read_text())
    assert (summary["counts"]["measured"] >= summary["counts"]["significant"]
            >= summary["graph"]["n_edges"] > 0)
    assert (summary["counts"]["attempted"] == summary["counts"]["measured"]
            + summary["counts"]["skipped"])
    assert summary["graph"]["n_nodes"] == len(G["nodes"])


def test_a_second_run_reuses_everything(finished, capsys):
    before = {path.name: path.stat().st_mtime_ns for path in finished.iterdir()}
    assert run("run-pipeline", "--output-dir", finished) == 0
    assert "summary: reused" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in finished.iterdir()} == before


def test_only_what_depends_on_a_setting_is_computed_again(finished, capsys):
    assert run("run-pipeline", "--output-dir", finished, "--set", "significance_level=0.3") == 0
    said = capsys.readouterr().out
    assert ("interactions: reused" in said and "graph: wrote" in said
            and "activations: wrote" not in said)


def test_a_stage_cut_short_is_computed_again(finished, capsys):
    whole = (finished / "atlas.h5").read_bytes()
    (finished / "atlas.h5").write_bytes(whole[:-100])
    assert run("build-atlas", "--output-dir", finished) == 0
    said = capsys.readouterr().out
    cut = f"atlas.h5 has {len(whole) - 100:,} bytes, not the {len(whole):,} of the run"
    assert cut in said and "activations: reused" in said
    assert len((finished / "atlas.h5").read_bytes()) == len(whole)


def test_a_file_from_elsewhere_takes_the_place_of_a_stage(finished, tmp_path, capsys):
    assert run("build-graph", "--interactions", finished / "interactions.h5", "--set",
               "significance_level=0.2", "--output-dir", tmp_path) == 0
    assert ("activations" not in capsys.readouterr().out and (tmp_path / "graph.json").is_file()
            and not (tmp_path / "interactions.h5").exists())


def test_force_computes_again(finished, capsys):
    assert run("build-atlas", "--output-dir", finished, "--force", "--set", "n_tokens=1000") == 0
    said = capsys.readouterr().out
    assert "activations: wrote" in said and "atlas: wrote" in said


def test_quiet_says_only_the_result(tmp_path):
    command = [sys.executable, "-m", "feature_interaction_graph.cli", "collect-activations", *SMALL,
               "--quiet", "--output-dir", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not done.stderr and len(done.stdout.splitlines()) == 1 and (
        tmp_path / "activations.h5"
    ).is_file()


def test_trained_saes_are_a_release(tmp_path, capsys):
    settings = ["--preset", "demo", "--n-tokens", "1500", "--quiet"]
    saes = tmp_path / "saes"
    assert run("train-saes", *settings, "--width", "32", "--k", "4", "--steps", "4", "--batch-size",
               "128", "--hook-points", "blocks.1.hook_resid_pre", "--output-dir", saes) == 0
    assert "blocks.1.hook_resid_pre" in capsys.readouterr().out
    assert [
        report["hook"] for report in json.loads((saes / "quality.json").read_text())
    ] == ["blocks.1.hook_resid_pre"]
    assert run("collect-activations", *settings, "--sae-release", saes, "--set",
               "check_reconstruction=false", "--output-dir", tmp_path / "run") == 0
    captured = capsys.readouterr()
    # the warning, on one line
    assert "layers 1" in captured.out and "check_reconstruction=False" in one_sentence(captured.err)


@pytest.mark.parametrize("arguments, words", [
    (["--hook-points", "blocks.9.hook_resid_pre"], ("blocks.9", "0 to 3")),
    (["--hook-points", "somewhere"], ("somewhere",)),
    (["--architecture", "magic"], ("magic", "batchtopk")),
    (["--set", "n_tokens=1"], ("two",)),
])
def test_bad_training_is_refused(refused, tmp_path, arguments, words):
    refused("train-saes", "--quiet", "--n-tokens", "1500", "--width", "32", "--k", "4", "--steps",
            "2", *arguments, "--output-dir", tmp_path / "new", words=words)


def test_doctor_tells_what_is_wrong(monkeypatch, capsys):
    from feature_interaction_graph.shell import doctor
    assert run("doctor") == 0
    assert "failed" not in capsys.readouterr().out
    monkeypatch.setattr(doctor, "check_demo", lambda: doctor.Check("demo", "failed", "it is gone"))
    assert run("doctor") == 1
    assert "it is gone" in capsys.readouterr().out


def test_doctor_compares_versions_with_what_is_asked_for(monkeypatch):
    import importlib.metadata

    from feature_interaction_graph.shell import doctor
    monkeypatch.setattr(
        importlib.metadata, "requires",
        lambda package: ["numpy>=99", "no-such-library>=1", "pytest>=8; extra == 'dev'", "rich"]
    )
    assert [(check.name, check.verdict) for check in doctor.check_versions()] == [
        ("numpy", "failed"), ("no-such-library", "failed"), ("rich", "ok")
    ]
    assert len(doctor.run_checks()) == 3    # what needs the missing library is not tried
