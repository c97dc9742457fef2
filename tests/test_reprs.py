"What the steps of a run return prints in a line or a few, whatever its size."
import html
import re
from dataclasses import asdict

import numpy as np

from feature_interaction_graph.config import Config
from feature_interaction_graph.engine.html_tables import html_cell
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
    usual = asdict(Config())
    assert rows(cfg._repr_html_().partition("<details>")[0]) == [["setting", "value", "default"], *(
        [name, html.unescape(html_cell(str(value))), html.unescape(html_cell(str(usual[name])))]
        for name, value in asdict(cfg).items() if value != usual[name])]
    check_tables(run)


def rows(shown: object) -> list[list[str]]:
    "The cells of all tables of what a notebook shows."
    page = shown if isinstance(shown, str) else shown._repr_html_()
    return [[html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
            for row in re.findall(r"<tr>(.*?)</tr>", page)]


def column(shown: object, name: str) -> list[str]:
    head, *body = rows(shown)
    return [row[head.index(name)] for row in body if len(row) == len(head)]


def check_tables(run: Run) -> None:
    "Every column that a notebook shows, against its own definition."
    store, atlas, pairs = run.activations, run.atlas, run.candidates
    dense = {layer: store.csr(layer).toarray() for layer in store.layers}
    assert column(store, "layer") == [str(layer) for layer in store.layers]
    assert column(store, "reads") == [store.hook_names[layer] for layer in store.layers]
    assert column(store, "features") == [f"{each.shape[1]:,}" for each in dense.values()]
    assert column(store, "that fire") == [
        f"{(each != 0).any(0).sum():,}" for each in dense.values()]
    assert column(store, "firing at a position") == [
        f"{(each != 0).sum(1).mean():.4g}" for each in dense.values()]
    together = [((dense[a] != 0).T.astype(float) @ (dense[b] != 0) > 0).sum()
                for a, b in atlas.layer_pairs]
    assert column(atlas, "layers") == [f"{a} → {b}" for a, b in atlas.layer_pairs][:12]
    assert column(atlas, "pairs that fire together") == [f"{n:,}" for n in together][:12]
    sizes = [[(dense[layer] != 0).any(0).sum() for layer in pair] for pair in atlas.layer_pairs]
    assert column(atlas, "sources") == [f"{a:,}" for a, _ in sizes][:12]
    assert column(atlas, "targets") == [f"{b:,}" for _, b in sizes][:12]
    assert column(atlas, "share") == [
        f"{n / (a * b):.4g}" for n, (a, b) in zip(together, sizes, strict=True)][:12]
    frame = pairs.to_pandas()
    furthest = frame.loc[frame["pmi"].abs().sort_values(ascending=False, kind="stable").index[:10]]
    for name in ("source", "target"):
        end = {"source": "src", "target": "tgt"}[name]
        assert column(pairs, name) == [
            f"L{row[end + '_layer']}_F{row[end + '_feature']} {row[end + '_label']}".strip()
            for _, row in furthest.iterrows()]
    for name in ("ratio", "pmi", "decoder_alignment"):
        assert column(pairs, name) == [html_cell(value) for value in furthest[name]]
    assert column(pairs, "reason") == furthest["reason"].tolist()
    assert html.escape(pairs.report().split("\n")[0]) in pairs._repr_html_()
    known = pairs.features
    order = np.argsort(-np.nan_to_num(known["importance"], nan=-1.0), kind="stable")[:10]
    assert column(known, "feature") == [
        f"L{known['layer'][row]}_F{known['feature'][row]}" for row in order]
    for name in ("label", "label_score", "activation_freq", "p50", "max", "importance"):
        assert column(known, name) == [html_cell(known[name][row]) for row in order]
    edges = run.interactions.to_pandas()
    first = edges["strength_std"].abs().fillna(0).sort_values(ascending=False, kind="stable").index
    for name in ("strength", "ci_low", "ci_high", "strength_std", "q_value", "interaction_type"):
        assert column(run.interactions, name) == [html_cell(edges[name][row]) for row in first[:10]]
    for name, end in (("source", "src"), ("target", "tgt")):
        assert column(run.interactions, name) == [
            f"L{edges[f'{end}_layer'][row]}_F{edges[f'{end}_feature'][row]} "
            f"{edges[f'{end}_label'][row]}".strip() for row in first[:10]]
