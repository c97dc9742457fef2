"`fig patch` and `fig attribute`: what they write and print, what they refuse."
import json

import numpy as np
import pandas as pd
import pytest
from command_line import run

from feature_interaction_graph.circuits.heads import head_patching
from feature_interaction_graph.circuits.library import demo_behavior
from feature_interaction_graph.config import Config
from feature_interaction_graph.loading import load_model
from feature_interaction_graph.tracing.files import load_attribution

DEMO = ["--preset", "demo", "--quiet"]
PROMPT = "Leo is a clever boy. he has a dog named Zibo Tarn. his friend is Carl. Zibo"


def test_patched_heads_are_those_of_plain_passes(tmp_path, capsys):
    assert run("patch", "--behavior", "agreement", "--direction", "noising", "--n-prompts", "6",
               *DEMO, "--output-dir", tmp_path / "out") == 0
    assert "head 1.3, all: -" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "patch_agreement_heads.json", "patch_agreement_heads.png"}
    kept = json.loads((tmp_path / "out" / "patch_agreement_heads.json").read_text())
    plain = head_patching(load_model(Config.preset("demo")), demo_behavior("agreement", 6, 0))
    values = np.array(kept["effects"]["values"])[:, 0].mean(-1)
    np.testing.assert_allclose(-values.reshape(4, 4), plain.mean, atol=1e-4)
    assert kept["n_pairs"] == 6 and kept["facts"]["what"] == "noising"


@pytest.mark.parametrize("what, rows", [("residual", 4 * 4), ("mlps", 4), ("features", None)])
def test_every_kind_of_part_into_a_table(tmp_path, what, rows):
    story = demo_behavior("agreement", 4, 1)
    columns = ("prompts", "counterfactuals", "answers", "counter_answers")
    (tmp_path / "mine.json").write_text(json.dumps(
        {"name": "mine", **{name: list(getattr(story, name)) for name in columns}}))
    table = tmp_path / "found.csv"
    assert run("patch", "--behavior", tmp_path / "mine.json", "--what", what, "-o", table, *DEMO,
               "--positions", "all" if what == "mlps" else "-4,-3,-2,-1", "--output-dir",
               tmp_path / "out") == 0
    found = pd.read_csv(table)
    assert len(found) == rows if rows else len(found) > 40
    assert {"component", "spot", "effect", "share", "q_value"} <= set(found)
    assert not (tmp_path / "out").exists()


def test_a_prompt_is_traced_checked_and_kept(tmp_path, capsys):
    path = tmp_path / "tarn.json"
    assert run("attribute", PROMPT, "--target", " Tarn", "--max-features", "60", "--edges", "90",
               "--check", "--heads", "-o", path, *DEMO, "--output-dir", tmp_path / "out") == 0
    said = capsys.readouterr().out
    for words in ("the 90 strongest edges", "measured:", "rank correlation", "carried_by", "0.2 (",
                  "probability", f"wrote {path}"): assert words in said, words
    graph = load_attribution(path)
    assert graph.edges.nnz > 100 and "effect" in graph.columns
    assert [entry.name for entry in tmp_path.iterdir()] == ["tarn.json"]


@pytest.mark.parametrize("arguments, words", [
    (["patch", "--behavior", "charm"], "'charm' is unknown"),
    (["patch", "--behavior", "agreement", "--what", "layers"], "--what is 'layers'"),
    (["patch", "--behavior", "agreement", "--direction", "up"], "denoising or noising"),
    (["patch", "--behavior", "agreement", "-o", "patches.h5"], ".json, .csv or .png"),
    (["patch", "--behavior", "agreement", "--positions", "last"], "such as -1,-2"),
    (["patch", "--behavior", "no/such/file.json"], "no/such/file.json"),
    (["attribute", ""], "token"),
    (["attribute", PROMPT, "--target", " Tarn Zibo"], "not one"),
    (["attribute", PROMPT, "-o", "graph.png"], "ends in .json"),
    (["attribute", PROMPT, "--graph", "no/such/run"], "holds no graph"),
    (["attribute", PROMPT, "--node-share", "0"], "node_share"),
])
def test_wrong_questions_are_refused_in_one_sentence(tmp_path, capsys, monkeypatch, arguments,
                                                     words):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments, *DEMO, "--output-dir", "out") == 2
    said = capsys.readouterr().err.strip()
    assert words in said and len(said.splitlines()) == 1 and said.startswith("fig: ")
    assert said[-1] in ".?" and not list(tmp_path.iterdir())


def test_without_a_run_or_a_model_they_say_what_to_do(tmp_path, capsys):
    for command in (["patch", "--behavior", "agreement"], ["attribute", PROMPT]):
        assert run(*command, "--output-dir", tmp_path) == 2
        assert "fig run-pipeline" in capsys.readouterr().err


@pytest.mark.parametrize("command, defaults", [
    ("patch", ("heads", "denoising", "32")), ("attribute", ("2000", "0.8", "0.9", "16"))])
def test_help_shows_defaults(capsys, command, defaults):
    assert run(command, "--help") == 0
    said = capsys.readouterr().out
    for default in defaults: assert f"[default: {default}]" in said.replace("\n", " ")


def test_edges_are_discovered_and_kept(tmp_path, capsys):
    path = tmp_path / "edges.json"
    assert run("discover", "--behavior", "agreement", "--method", "eap", "--n-edges", "12",
               "--n-prompts", "4", "-o", path, *DEMO, "--output-dir", tmp_path / "out") == 0
    assert "12 of 479 edges" in capsys.readouterr().out
    kept = json.loads(path.read_text())
    assert kept["n_edges"] == 12 and len(kept["ranking"]) == len(kept["scores"]) == 479
    assert run("discover", "--behavior", "agreement", "--method", "guess", *DEMO, "--output-dir",
               tmp_path / "out") == 2
    assert "method 'guess' is unknown" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["edges.json"]
