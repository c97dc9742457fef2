"""A run of every stage: pairs proposed twice over, placebos, gates; what the summary says of them,
and what is picked up after an interruption."""
import dataclasses
import json

import numpy as np
import pytest

from feature_interaction_graph.measurement import gating
from feature_interaction_graph.cli import main, trust_lines
from feature_interaction_graph.config import Config
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.measurement.gating import GatingTable, pairs_to_gate
from feature_interaction_graph.measurement.table import COLUMNS, InteractionTable
from feature_interaction_graph.shell.pipeline import Run, at_level, evidence_facts

SMALL = dict(
    n_tokens=6000, n_importance_tokens=1000, top_k_features=10, layer_window=2, n_samples=24,
    n_transport_tokens=3000, candidate_method="both", placebo=8, gated_pairs=5
)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    "A run stopped by hand while it looked for gates."
    folder = tmp_path_factory.mktemp("run")
    cfg = Config.preset("demo", **SMALL, output_dir=str(folder))
    def stop(*arguments, **options): raise KeyboardInterrupt
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gating, "measure_gating", stop)
        with pytest.raises(KeyboardInterrupt):
            _ = Run(cfg, progress=False, say=lambda line: None).summary
    return cfg


@pytest.fixture(scope="module")
def finished(interrupted):
    "The same run, started again; with what it said."
    said: list[str] = []
    run = Run(interrupted, progress=False, say=said.append)
    _ = run.summary
    return run, said


def test_an_interrupted_run_goes_on_with_the_gates(interrupted, finished):
    run, said = finished
    stages = dict(line.split(":")[0:2] for line in said)
    assert ("reused" in stages["interactions"] and "wrote" in stages["gates"]
            and "wrote" in stages["graph"])
    assert not any(stages.get(name, "reused").strip().startswith("wrote")
                   for name in ("activations", "atlas", "candidates"))
    again: list[str] = []
    _ = Run(interrupted, progress=False, say=again.append).graph
    assert [line for line in again if "wrote" in line] == [] and "graph: reused" in again[0]


def test_the_gates_of_a_run_are_in_its_graph_and_summary(finished):
    run, _ = finished
    pairs = pairs_to_gate(run.interactions, 5)
    gates = GatingTable.load(run.cfg.output_path / "gates.h5")
    assert len(pairs) == 5 == gates.meta["counts"]["pairs"]
    examined = {tuple(row) for row in gates.to_pandas()[
                    ["src_layer", "src_feature", "tgt_layer", "tgt_feature"]
                ].itertuples(index=False)}
    assert examined <= {(*source, *target) for source, target in pairs}
    confirmed = gates.significant(run.cfg.significance_level)
    assert len(run.graph.graph["hyperedges"]) == len(confirmed)
    summary = json.loads((run.cfg.output_path / "summary.json").read_text())
    assert (sum(summary["gates"]["confirmed"].values()) == len(confirmed)
            and summary["gates"]["clamped"] == len(gates))
    assert {gate[end] for gate in summary["graph"]["strongest_gates"]
            for end in ("source", "gate", "target")} <= set(summary["contexts"])


def test_a_summary_says_how_far_edges_can_be_trusted(finished):
    run, _ = finished
    summary, columns = run.summary, run.interactions.columns
    significant = columns["q_value"] < run.cfg.significance_level
    assert summary["placebo"] == {
        "compared": int(significant.sum()),
        "passed": int((columns["placebo_q_value"][significant]
                       < run.cfg.significance_level).sum())
    }
    assert (summary["graph"]["n_edges"] <= summary["placebo"]["passed"]
            + summary["graph"]["types"].get("gating", 0))
    assert (summary["stability"] == run.graph.graph["stability"] == summary["graph"]["stability"]
            and 0 < summary["stability"]["jaccard"] <= 1)
    stability, placebo, gates = trust_lines(summary)
    assert (f"Jaccard {summary['stability']['jaccard']:.2f}" in stability
            and "significant effects" in placebo and "5 pairs examined" in gates)
    assert trust_lines({"stability": {}, "placebo": None, "gates": None}) == []


def test_both_kinds_of_candidates_are_there(finished):
    reasons = finished[0].candidates.meta["by_reason"]
    assert (reasons["transport"] > 0 and reasons["together"] + reasons["associated"]
            + reasons["apart"] + reasons["aligned"] > 0)


def test_other_gates_leave_the_measurement_alone(finished, capsys):
    folder = finished[0].cfg.output_dir
    def main_code(*arguments: str) -> int | str | None:
        return pytest.raises(SystemExit, main, list(arguments)).value.code
    assert main_code(
        "measure-gates", "--output-dir", folder, "--set", "gated_pairs=2", "--quiet"
    ) in (0, None)
    assert "pairs: 2" in capsys.readouterr().out
    assert main_code("build-graph", "--output-dir", folder, "--set", "gated_pairs=0") in (0, None)
    said = capsys.readouterr().out
    assert "interactions: reused" in said and "gates" not in said and json.loads(
        (finished[0].cfg.output_path / "graph.json").read_text()
    )
    # gated_pairs is 0 there by now
    assert main_code("measure-gates", "--output-dir", folder, "--quiet") == 2
    assert "gated_pairs=50" in capsys.readouterr().err


def table_of(n_rows: int, **changes) -> InteractionTable:
    columns = {name: np.full(n_rows, 50 if kind == "int32" else 0.1, dtype=kind)
               if kind in ("int32", "float64") else np.full(n_rows, "none")
               for name, kind in COLUMNS.items()}
    return InteractionTable(
        columns | dict(src_layer=np.zeros(n_rows, int), src_feature=np.arange(n_rows),
                       tgt_layer=np.ones(n_rows, int), method=np.full(n_rows, "clamping")) | changes
    )


@pytest.mark.parametrize("n_pairs", [1, 2, 3, 7, 10, 30])
def test_pairs_to_gate_are_half_strong_and_half_varied(n_pairs):
    rng = np.random.default_rng(n_pairs)
    strength, std, per_deviation = rng.normal(size=20), rng.random(20), rng.uniform(0.5, 2, 20)
    table = table_of(20, strength=strength, strength_std=strength * per_deviation, std=std)
    chosen = [source[1] for source, _ in pairs_to_gate(table, n_pairs)]
    n_strong = (n_pairs + 1) // 2
    strong = np.argsort(-np.abs(strength * per_deviation))[:n_strong].tolist()
    varied = [
        row for row in np.argsort(-std * per_deviation).tolist() if row not in strong
    ][:n_pairs - len(strong)]
    assert chosen == sorted([*strong, *varied]) and len(chosen) == min(n_pairs, 20)


def test_pairs_to_gate_take_the_best_offset_and_refuse_nothing():
    table = table_of(4, src_feature=np.array([1, 1, 2, 3]), offset=np.array([0, 1, 0, 0]),
                     strength=np.array([0.1, 0.9, 0.5, np.nan]),
                     strength_std=np.array([0.1, 0.9, 0.5, np.nan]), std=np.zeros(4))
    assert pairs_to_gate(table, 1) == [((0, 1), (1, 50))] and len(pairs_to_gate(table, 9)) == 3
    for nothing in (table_of(3, n_samples=np.full(3, 15)),
                    table_of(3, method=np.full(3, "within-layer")), table_of(0)):
        with pytest.raises(InputError, match="raise n_samples"): pairs_to_gate(nothing, 2)
    with pytest.raises(InputError, match="n_pairs is 0"): pairs_to_gate(table, 0)


def test_stability_follows_the_level_that_is_asked_for():
    rng = np.random.default_rng(0)
    p_value = np.r_[rng.uniform(0, 1e-4, 20), rng.uniform(0, 1, 20)]
    table = table_of(40, p_value=p_value, q_value=p_value * 2, strength=rng.normal(size=40),
                     strength_std=np.ones(40))
    table.meta["stability"] = {"level": 0.01, "jaccard": -1.0}
    assert at_level(table, Config()).meta["stability"] == {"level": 0.01, "jaccard": -1.0}
    assert at_level(table, Config(significance_level=0.2)).meta["stability"]["level"] == 0.2
    table.columns["q_value"][:] = 1.0
    assert at_level(table, Config(significance_level=0.3)).meta["stability"] == {}


def test_placebo_shares_leave_out_what_was_not_compared():
    import networkx as nx
    table = table_of(4, q_value=np.array([0.001, 0.001, 0.001, 0.5]),
                     placebo_q_value=np.array([0.001, 0.5, np.nan, 0.001]))
    table.meta["stability"] = {}
    facts = evidence_facts(table, None, nx.DiGraph(), Config(placebo=8))
    assert facts == {"stability": {}, "placebo": {"compared": 2, "passed": 1}, "gates": None}
    assert evidence_facts(table, None, nx.DiGraph(), Config(placebo=0))["placebo"] is None


@pytest.mark.parametrize(
    "settings, word",
    [(dict(gated_pairs=3, n_samples=15), "16"), (dict(gated_pairs=-1), "gated_pairs"),
     (dict(candidate_method="transport", within_layer=True), "both"),
     (dict(candidate_method="guess"), "transport"),
     (dict(n_transport_tokens=0), "n_transport_tokens")]
)
def test_settings_that_cannot_work_are_refused(settings, word):
    with pytest.raises(InputError, match=word): Config(**settings)
    assert Config(**dataclasses.asdict(Config(gated_pairs=3, n_samples=16))).gated_pairs == 3
