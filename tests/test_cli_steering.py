"`fig steer`: what it writes, what it chooses by itself, what it refuses."
import json

import pytest
from command_line import run

SMALL = ["--preset", "demo", "--n-tokens", "12000", "--n-contexts", "8", "--n-compensators", "30",
         "--corrections", "0", "--quiet"]


@pytest.fixture(scope="module")
def firing() -> dict[int, list[str]]:
    "Features of the demo that fire often and ones that never fire, by layer."
    from feature_interaction_graph.config import Config
    from feature_interaction_graph.loading import load_corpus, load_model_and_saes
    from feature_interaction_graph.steering import feature_ranges
    cfg = Config.preset("demo", n_tokens=12_000)
    model, saes = load_model_and_saes(cfg)
    ranges = feature_ranges(model, saes, load_corpus(cfg, model, saes), progress=False)
    return {layer: [f"L{layer}_F{index}" for index in ranges.firings(layer).argsort()[::-1]]
            for layer in saes}


def test_the_comparison_is_written_and_told(tmp_path, capsys, firing):
    source, target, kept = firing[0][0], firing[2][0], firing[2][1:3]
    assert run("steer", "--feature", source, "--target", target, "--protect", ",".join(kept),
               *SMALL, "--output-dir", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"steering_{source}.json", f"steering_{source}.png"
    }
    facts = json.loads((tmp_path / "out" / f"steering_{source}.json").read_text(),
                       parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    assert (facts["dose"] == 0 and facts["target"] == target and facts["settings"]["protect"]
            == kept and set(facts["side_effect_removed"]) == {"all", "protected"})
    assert all(line.split()[0] in kept for line in said.splitlines() if line.endswith("protected"))
    assert f"{facts['plans']['naive']['side_effect']:.2f}" in said and "wrote" in said


def test_the_target_may_be_left_to_the_command(tmp_path, firing):
    assert run(
        "steer", "--feature", firing[0][0], "--where", "silent", "--output", tmp_path / "on.json",
        *SMALL, "--n-contexts", "24", "--output-dir", tmp_path / "out"
    ) == 0
    facts = json.loads((tmp_path / "on.json").read_text())
    assert facts["dose"] > 0 and (tmp_path / "on.png").is_file() and not (tmp_path / "out").exists()
    moved = {row["feature"]: abs(row["naive"]) for row in facts["mean_change_in_sd"]}
    # chosen on other contexts: among the few that move
    assert moved[facts["target"]] > 0.1 > 20 * sorted(moved.values())[len(moved) // 2]


@pytest.mark.parametrize(
    "arguments, words", [
        (["--feature", "L0_F99999"], ("L0_F99999", "features 0 to")),
        (["--feature", "3.17"], ("not a feature id",)),
        (["--feature", "L0_F1", "--target", "L9_F1"], ("layer 9",)),
        (["--feature", "L0_F1", "--target", "L2_F1", "--protect", "L2_F3,L2_F1"],
         ("includes the target",)),
        (["--feature", "{busy}", "--where", "sometimes"], ("sometimes",)),
        (["--feature", "L0_F1", "--n-contexts", "3"], ("--n-contexts",)),
        (["--feature", "L0_F1", "--output", "table.csv"], (".json",)),
        (["--feature", "{dead}"], ("never fires",)),
        (["--feature", "{last}"], ("last layer",)),
        (["--feature", "{busy}", "--dose", "-1"], ("never negative",)),
        (["--feature", "{busy}", "--target", "{busy}"], ("both steered and the target",)),
    ]
)
def test_bad_questions_are_refused_in_one_sentence(tmp_path, capsys, firing, arguments, words):
    names = {"busy": firing[0][0], "dead": firing[0][-1], "last": firing[max(firing)][0]}
    assert run("steer", *SMALL, *(part.format(**names) for part in arguments), "--output-dir",
               tmp_path / "out") == 2
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1 and said.startswith("fig: ") and said[-1] in ".?"
    for word in words: assert word in said
    assert not list(tmp_path.iterdir())
