"`fig dashboard`: the page it writes, and a sentence for every mistake, with nothing half-written."
import errno
import json
import os

import pytest
from command_line import run

from feature_interaction_graph.drawing.dashboards import cards_in

DEMO = ["--preset", "demo", "--quiet", "--n-tokens", "6000", "--layers", "0,1", "--no-effects"]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    "A folder of a run with a page of two named features."
    folder = tmp_path_factory.mktemp("dashboard") / "out"
    assert run("dashboard", "L1_F5", "L0_F7", *DEMO, "--output-dir", folder) == 0
    return folder


def test_a_page_of_named_features(out, capsys):
    page = (out / "features.html").read_text(encoding="utf-8")
    cards = cards_in(page)
    columns = cards["columns"]
    assert page.startswith("<!doctype html>") and len(cards["cards"]) == 2
    assert sorted(zip(columns["layer"], columns["feature"], strict=True)) == [(0, 7), (1, 5)]
    assert "http://" not in page.replace("http://www.w3.org", "")
    capsys.readouterr()
    assert run("dashboard", "--most", "3", "-o", out / "few.html", *DEMO, "--output-dir", out) == 0
    said = capsys.readouterr().out
    assert "3 features" in said and str(out / "few.html") in said
    few = cards_in((out / "few.html").read_text(encoding="utf-8"))
    assert len(few["cards"]) == 3
    assert cards_in((out / "features.html").read_text(encoding="utf-8")) == cards   # left as it was


def test_labels_of_explanations_are_its_rules(out):
    told = [{"id": "L1_F5", "label": "a label of my own", "score": 0.5, "f1": 0.5}]
    (out / "explanations.json").write_text(json.dumps(told))
    assert run("dashboard", "L1_F5", "-o", out / "own.html", *DEMO, "--output-dir", out) == 0
    assert "a label of my own" in json.dumps(cards_in((out / "own.html").read_text()))
    (out / "explanations.json").write_text("[{")
    assert run("dashboard", "L1_F5", "-o", out / "none.html", *DEMO, "--output-dir", out) == 2
    assert not (out / "none.html").exists()
    (out / "explanations.json").unlink()


@pytest.mark.parametrize("mistake, words", [
    (["L7_F1"], "L7_F1"), (["seven"], "seven"), (["-o", "page.txt"], "give an .html file"),
    (["--graph", "no_such_graph.json"], "no_such_graph.json"), (["--most", "0"], "--most"),
    (["--graph", __file__], "test_dashboard_command.py")])
def test_mistakes_cost_one_sentence_and_write_nothing(tmp_path, capsys, mistake, words):
    place = tmp_path / "out"
    assert run("dashboard", *mistake, *DEMO, "--output-dir", place) == 2
    said = capsys.readouterr()
    assert words in " ".join((said.out + said.err).split()) and "Traceback" not in said.err
    assert not (place / "features.html").exists() and not list(tmp_path.rglob("*.html"))
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".part", ".tmp")]


def test_a_page_that_cannot_be_finished_leaves_the_old_one(out, monkeypatch, capsys):
    "A disk that is full at the last moment."
    page, before, move = out / "features.html", (out / "features.html").read_bytes(), os.replace

    def full(source, target):
        if str(target).endswith(".html"): raise OSError(errno.ENOSPC, "No space left on device")
        return move(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert run("dashboard", "L1_F7", *DEMO, "--output-dir", out) == 2
    said = capsys.readouterr().err
    assert "No space left on device" in said and "Traceback" not in said
    assert page.read_bytes() == before
    assert sorted(path.name for path in out.iterdir() if "html" in path.name) == [
        "features.html", "few.html", "own.html"]
