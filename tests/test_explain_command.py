"`fig explain`: what it writes and prints, what it refuses, and labels that reach the graph."
import json

import pytest
from command_line import run

from feature_interaction_graph.graphs.files import load_graph

DEMO = ["--preset", "demo", "--quiet", "--n-tokens", "20000"]


def test_rules_are_a_file_of_labels_for_a_later_run(tmp_path, capsys):
    out = tmp_path / "out"
    small = [*DEMO, "--layers", "0,1", "--top-k", "40", "--n-samples", "20", "--set", "placebo=8",
             "--output-dir", out]
    assert run("explain", "--show", "3", *small) == 0
    said = capsys.readouterr().out
    assert "features have a rule" in said and said.count("F1 ") >= 4
    records = json.loads((out / "explanations.json").read_text())
    assert [record["low"] for record in records] == sorted(
        (record["low"] for record in records), reverse=True)
    labels = {record["id"]: record["label"] for record in records}
    assert run("build-graph", "--labels", out / "explanations.json", *small) == 0
    G = load_graph(out / "graph.json")
    named = dict(G.nodes(data="label"))
    assert len(named) > 10 and all(named[node] == labels[node] for node in named if node in labels)
    written = (out / "interactions.h5").stat().st_mtime_ns
    assert run("build-graph", "--labels", "rules", *small) == 0
    again = dict(load_graph(out / "graph.json").nodes(data="label"))
    # nothing is measured again for another name, and only rules that hold are names
    assert (out / "interactions.h5").stat().st_mtime_ns == written
    f1 = {record["id"]: record["f1"] for record in records}
    assert sum(again[node] == labels[node] for node in again if f1.get(node, 0) >= 0.5) > 5
    assert all(again[node] != labels[node] for node in again if f1.get(node, 1) < 0.5)


@pytest.mark.parametrize("mistake, words", [
    (["L7_F1"], "L7_F1"), (["seven"], "seven"), (["-o", "rules.txt"], "give a .json file"),
    (["--labels", "no_such_file.json"], "or pattern of labels")])
def test_mistakes_cost_one_sentence_and_write_nothing(tmp_path, capsys, mistake, words):
    assert run("explain", *mistake, *DEMO, "--output-dir", tmp_path / "out") == 2
    said = capsys.readouterr()
    assert words in " ".join((said.out + said.err).split()) and "Traceback" not in said.err
    assert not (tmp_path / "out" / "explanations.json").exists()
