"`fig extract-subgraph` and `fig validate`: what they write, what they reuse, what they refuse."
import json
from pathlib import Path

import networkx as nx
import pytest
from command_line import run

from feature_interaction_graph.graphs.files import load_graph, save_graph
from feature_interaction_graph.subgraphs import BehaviorSubgraph

DEMO = ["--preset", "demo"]
SMALL = [*DEMO, "--n-prompts", "12", "--budget", "25", "--quiet"]


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> Path:
    "A folder with the circuit of agreement, on a graph measured for it."
    folder = tmp_path_factory.mktemp("circuit")
    assert run("extract-subgraph", "--behavior", "agreement", "--measure", "--n-features", "60",
               *SMALL, "--output-dir", folder) == 0
    return folder


def test_a_circuit_and_its_picture_are_written(found):
    assert {path.name for path in found.iterdir()} == {
        "circuit_agreement.json", "circuit_agreement.png"
    }
    circuit = BehaviorSubgraph.load(found / "circuit_agreement.json")
    assert (0 < len(circuit) <= 25 and circuit.facts["given_as"] == "agreement"
            and circuit.facts["n_prompts"] == 12)
    assert len(load_graph(found / "circuit_agreement.json")) == len(circuit)


def test_a_verdict_is_on_other_prompts(found, capsys):
    assert run(
        "validate", "--n-prompts", "10", "--n-random", "20", "--quiet", "--output-dir", found
    ) == 0
    assert "faithfulness" in capsys.readouterr().out
    verdict = json.loads((found / "validation_agreement.json").read_text())
    assert (verdict["n_prompts"] == 10 and len(verdict["random"]["values"]) == 20
            and set(verdict["faithfulness"]) == {"mean", "zero", "resample"})
    (found / "validation_agreement.json").unlink()


def test_prompts_from_a_file_and_a_graph_from_a_file(tmp_path, found, capsys):
    "A file's prompts are split in two halves; the graph is any saved one, here the circuit itself."
    story = "Anna is a kind girl . she has a dog named Zibo Lume . her friend is Tom . "
    nouns = [("dog", "dogs"), ("cat", "cats"), ("cow", "cows"), ("frog", "frogs"),
             ("goat", "goats"), ("bird", "birds")]
    rows = [
        (story + f"the {pair[way]} near the {place}",
         story + f"the {pair[1 - way]} near the {place}", [" is", " are"][way],
         [" are", " is"][way]) for pair in nouns for way in (0, 1) for place in ("tree", "walls")
    ]
    columns = [list(column) for column in zip(*rows, strict=True)]
    (tmp_path / "mine.json").write_text(
        json.dumps({"name": "mine",
                    **dict(zip(("prompts", "counterfactuals", "answers", "counter_answers"),
                               columns, strict=True))})
    )
    circuit = tmp_path / "mine.graphml"
    assert run("extract-subgraph", *DEMO, "--behavior", tmp_path / "mine.json",
               "--graph", found / "circuit_agreement.json", "--budget", "20", "--quiet",
               "--output-dir", tmp_path / "out", "--output", circuit) == 0
    assert (BehaviorSubgraph.load(circuit).facts["n_prompts"] == 12
            and circuit.with_suffix(".png").is_file())
    assert run("validate", "--subgraph", circuit, "--n-random", "0", "--quiet", "--output-dir",
               tmp_path / "out") == 0
    assert json.loads((tmp_path / "validation_mine.json").read_text())["n_prompts"] == 12


@pytest.mark.parametrize("arguments, words", [
    (["--behavior", "charm"], ("charm", "agreement")),
    (["--behavior", "ioi"], ("ioi", "agreement")),
    (["--behavior", "binding"], ("does not have this behaviour",)),
    (["--behavior", "agreement", "--measure"], ("--graph", "--measure")),
    (["--behavior", "agreement", "--ablation", "median"], ("median",)),
    (["--behavior", "no/such/file.json"], ("no/such/file.json",)),
    (["--behavior", "agreement", "--output", "circuit.pkl"], ("pickle",)),
    (["--behavior", "agreement"], ("none of the",)),
])
def test_bad_questions_are_refused_in_one_sentence(tmp_path, capsys, arguments, words):
    G = nx.DiGraph()
    for node in ("L0_F1", "L1_F1"): G.add_node(node, layer=int(node[1]), feature_idx=1)
    G.add_edge("L0_F1", "L1_F1", strength=0.5, interaction_type="excitatory")
    save_graph(G, tmp_path / "far.json")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert run("extract-subgraph", "--graph", tmp_path / "far.json", *SMALL, *arguments,
               "--output-dir", tmp_path / "out") == 2
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1 and said.startswith("fig: ") and said[-1] in ".?"
    for word in words: assert word in said
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_an_empty_graph_and_no_circuit_are_refused(tmp_path, capsys, found):
    save_graph(nx.DiGraph(), tmp_path / "empty.json")
    assert run("extract-subgraph", "--behavior", "agreement", "--graph", tmp_path / "empty.json",
               *SMALL, "--output-dir", tmp_path / "out") == 2
    assert "holds a graph without a node" in capsys.readouterr().err
    assert run("validate", "--quiet", "--output-dir", tmp_path / "out") == 2
    assert "holds 0 circuits" in capsys.readouterr().err
    assert run("validate", "--subgraph", tmp_path / "empty.json", "--quiet", "--output-dir",
               tmp_path / "out") == 2
    assert "holds a graph without a node" in capsys.readouterr().err
    assert run("validate", "--subgraph", found / "circuit_agreement.json", "--output",
               found / "circuit_agreement.json", "--n-prompts", "4", "--quiet") == 2
    assert "is the circuit itself" in capsys.readouterr().err
    assert run("extract-subgraph") == 2 and "Traceback" not in capsys.readouterr().err
