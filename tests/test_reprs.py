"What the steps of a run return prints in a line or a few, whatever its size."
from feature_interaction_graph.config import Config
from feature_interaction_graph.shell.pipeline import Run


def test_results_print_in_a_few_lines(tmp_path):
    cfg = Config.preset("demo", n_tokens=4000, n_importance_tokens=1000, top_k_features=6,
                        layer_window=1, n_samples=16, placebo=0, significance_level=0.2,
                        output_dir=str(tmp_path))
    run = Run(cfg, progress=False, say=lambda line: None)
    shown = {"Corpus(": run.corpus, "ActivationStore(": run.activations,
             "CoactivationAtlas(": run.atlas, "Candidates(": run.candidates,
             "FeatureTable(": run.candidates.features, "InteractionTable(": run.interactions}
    for begin, value in shown.items():
        text = repr(value)
        assert text.startswith(begin) and text == str(value) and len(text) < 800, text
    frame = run.interactions.to_pandas()
    labels = run.candidates.features.labels(frame["tgt_layer"], frame["tgt_feature"])
    assert frame["tgt_label"].tolist() == labels and len(labels)
