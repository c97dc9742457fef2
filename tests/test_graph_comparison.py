"""Comparing graphs: known overlaps, against counting by hand; matchings against permuted
dictionaries; unrelated graphs at the level of chance."""
import networkx as nx
import numpy as np
import pytest
import torch
from sae_lens import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.sae import SAEMetadata
from scipy import stats
from transformers import AutoModelForCausalLM, LlamaConfig

from feature_interaction_graph.analysis import compare_graphs, match_features
from feature_interaction_graph.engine.corpus import as_corpus
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.measurement.table import COLUMNS, InteractionTable
from feature_interaction_graph.structure.comparison import (
    compare_effects, comparison_figure, spectrum
)
from feature_interaction_graph.structure.matching import (
    Block, MatchingSettings, Side, activation_matrix, correlation, matching_of, threshold_at
)
from feature_interaction_graph.structure.nulls import edge_list

def random_graph(
    seed: int, n_layers: int = 4, per_layer: int = 25, density: float = 0.12, labels: bool = False
) -> nx.DiGraph:
    random, G = np.random.default_rng(seed), nx.DiGraph()
    G.add_nodes_from((f"L{layer}_F{index}", {"layer": layer, "feature_idx": index,
                                             "label": f"word{index} of {layer}" if labels else ""})
                     for layer in range(n_layers) for index in range(per_layer))
    out, into = ({node: random.lognormal(sigma=0.8) for node in G} for _ in range(2))
    for a in G:
        for b in G:
            if (G.nodes[a]["layer"] < G.nodes[b]["layer"]
                and random.random() < density * out[a] * into[b]):
                size = float(random.normal())
                G.add_edge(
                    a, b, interaction_type="excitatory" if size > 0 else "inhibitory", strength=size
                )
    return G


def test_every_number_is_what_counting_gives():
    G, H = random_graph(0), random_graph(1)
    for a, b, edge in list(G.edges(data=True))[::2]:
        if not H.has_edge(a, b):
            H.add_edge(
                a, b, interaction_type=edge["interaction_type"], strength=edge["strength"] * 1.5
            )
    found = compare_graphs(G, H, n_null=5, n_bootstrap=20, roles=False)
    one, other = set(G.edges), set(H.edges)
    both = one & other
    assert (found["jaccard"].value == len(both) / len(one | other) and found["precision"].value
            == len(both) / len(one) and found["recall"].value == len(both) / len(other))
    assert found["sign_agreement"].value == np.mean(
        [G.edges[edge]["strength"] * H.edges[edge]["strength"] > 0 for edge in both]
    )
    listed = sorted(both)
    strengths = [[graph.edges[edge]["strength"] for edge in listed] for graph in (G, H)]
    assert found["strength_correlation"].value == pytest.approx(
        stats.spearmanr(*strengths).statistic
    )
    assert found["out_degree"].value == pytest.approx(
        stats.spearmanr(
            [G.out_degree(node) for node in G], [H.out_degree(node) for node in G]
        ).statistic
    )
    assert found["in_degree"].value == pytest.approx(
        stats.spearmanr(
            [G.in_degree(node) for node in G], [H.in_degree(node) for node in G]
        ).statistic
    )
    assert (
        {(a, b) for a, b, *_ in found.common_edges} == both and found.counts["common"] == len(both)
    )
    assert (len(found.to_pandas()) == len(found.agreements) and "Jaccard" in str(found)
            and found.to_dict()["counts"]["shared"] == 100)
    comparison_figure(found)


def test_a_permuted_dictionary_is_the_same_graph():
    G = random_graph(0)
    random = np.random.default_rng(5)
    names = {}
    for layer in range(4):
        order = random.permutation(25)
        names |= {f"L{layer}_F{index}": f"L{layer}_F{order[index]}" for index in range(25)}
    H = nx.relabel_nodes(G, names)
    for node in H: H.nodes[node]["feature_idx"] = int(node.split("F")[1])
    found = compare_graphs(G, H, names)
    assert all(found[name].value == pytest.approx(1)
               for name in ("jaccard", "precision", "recall", "sign_agreement",
                            "strength_correlation", "out_degree", "in_degree"))
    assert (found["jaccard"].low == found["jaccard"].high == 1 and found["jaccard"].rewired.z > 10
            and found["spectrum"].value < 1e-9)
    assert compare_graphs(G, H, "identity", roles=False)["jaccard"].permuted.p_value > 0.05


def test_unrelated_graphs_are_at_the_level_of_chance_and_busy_ones_at_that_of_their_degrees():
    p_values = [compare_graphs(random_graph(seed), random_graph(seed + 50), n_null=40,
                               n_bootstrap=2, roles=False)["jaccard"].permuted.p_value
                for seed in range(10)]
    assert np.mean(np.array(p_values) < 0.05) <= 0.2 and np.median(p_values) > 0.15
    from feature_interaction_graph.structure.nulls import rewire
    G = random_graph(0, density=0.15)
    edges = rewire(edge_list(G), np.random.default_rng(1))
    H = nx.DiGraph()
    H.add_nodes_from(G.nodes(data=True))
    kinds = {1: "excitatory", -1: "inhibitory"}
    H.add_edges_from(
        (edges.nodes[a], edges.nodes[b], {"interaction_type": kinds[s], "strength": float(v)})
        for a, b, s, v in zip(edges.source.tolist(), edges.target.tolist(), edges.sign.tolist(),
                              edges.strength.tolist(), strict=True)
    )
    found = compare_graphs(G, H, n_null=60, roles=False)
    assert (found["jaccard"].permuted.z > 3 and found["jaccard"].rewired.p_value > 0.05
            and "no more than their degrees" in str(found))


def test_intervals_hold_what_they_promise():
    """Over pairs of graphs with one true overlap, the bootstrap's 95 % interval holds the mean in
    about 95 of 100."""
    def pair(seed):
        random, G = np.random.default_rng(seed), random_graph(seed, density=0.15)
        H = nx.DiGraph()
        H.add_nodes_from(G.nodes(data=True))
        for a, b, edge in G.edges(data=True):
            if random.random() < 0.5: H.add_edge(a, b, **edge)
        return G, H
    found = [compare_graphs(*pair(seed), n_null=2, n_bootstrap=200, roles=False)["jaccard"]
             for seed in range(60)]
    assert np.mean([one.low <= 0.5 <= one.high for one in found]) > 0.88


def sae(seed: int, hook: str = "blocks.1.hook_resid_pre") -> JumpReLUSAE:
    generator = torch.Generator().manual_seed(seed)
    made = JumpReLUSAE(
        JumpReLUSAEConfig(d_in=16, d_sae=30,
                          metadata=SAEMetadata(hook_name=hook, model_name="tiny", prepend_bos=True))
    ).requires_grad_(False)
    made.W_enc.data, made.W_dec.data = torch.randn(16, 30, generator=generator), torch.randn(
        30, 16, generator=generator
    )
    made.threshold.data.fill_(0.5)
    return made


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = LlamaConfig(num_hidden_layers=2, hidden_size=16, num_attention_heads=2,
                         num_key_value_heads=2, intermediate_size=32, vocab_size=60)
    made = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    made.model.embed_tokens.weight.data.normal_(0, 1)
    return made


@pytest.fixture
def corpus():
    return as_corpus(torch.randint(1, 60, (40, 12), generator=torch.Generator().manual_seed(3)))


def test_a_shuffled_dictionary_is_matched_and_a_stranger_is_not(model, corpus):
    one, other = sae(1), sae(1)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(4))
    other.W_enc.data, other.W_dec.data, other.b_enc.data = (
        one.W_enc[:, order] * 2, one.W_dec[order] / 2, one.b_enc[order] * 2
    )
    other.threshold.data.fill_(1.0)
    truth = {f"L1_F{int(old)}": f"L1_F{new}" for new, old in enumerate(order)}
    for by in ("activation", "decoder"):
        found = match_features(Side({1: one}, model), Side({1: other}, model), by, corpus)
        assert found.pairs and all(truth[a] == b for a, b in found.pairs.items()) and len(
            found.pairs
        ) >= 25 and found.error <= 0.05
        assert (found.score[found.accepted].min() > 0.999
                and found.by_layer()[1][0] == len(found.pairs) and "chance" in str(found))
    strangers = match_features(Side({1: one}), Side({1: sae(2)}), "decoder")
    assert len(strangers.pairs) <= 3


def test_threshold_keeps_the_promised_share_of_chance(model):
    """Half of the pairs are real with similarities near 0.8, half are not; the accepted ones are
    mostly real."""
    random = np.random.default_rng(0)
    shares = []
    for _ in range(40):
        null = random.normal(0.4, 0.1, 500)
        scores = np.concatenate([random.normal(0.8, 0.1, 50), random.normal(0.4, 0.1, 50)])
        level, _ = threshold_at(scores, null, 5, 0.05)
        shares.append(np.mean(scores[50:] >= level) * 50 / max(np.sum(scores >= level), 1))
    assert np.mean(shares) < 0.05


def test_least_comes_on_top_of_chance():
    block = Block([f"L0_F{index}" for index in range(3)], [f"L0_F{index}" for index in range(3, 6)],
                  np.diag([0.9, 0.5, 0.3]), [np.zeros(3), np.array([0.45, 0.0, 0.0])])
    free, strict = (matching_of([block], "decoder", MatchingSettings(0.5, least, n_null=2))
                    for least in (0.0, 0.4))
    assert ((free.threshold, strict.threshold) == (0.3, 0.4)
            and free.error == pytest.approx(0.5 / 3) and strict.error == pytest.approx(0.25))
    assert strict.pairs == {"L0_F0": "L0_F3", "L0_F1": "L0_F4"} and len(free.pairs) == 3


def test_activation_matrix_is_encode(model, corpus):
    dictionary, mask = sae(1), corpus.sample_mask()
    from feature_interaction_graph.training.rows import sampled_activations
    expected = dictionary.encode(sampled_activations(model, corpus, "blocks.1.hook_resid_pre"))
    found = activation_matrix(model, {1: dictionary}, [1], corpus, batch_size=7)[1].toarray()
    assert found.shape == (int(mask.sum()), 30)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    chosen = activation_matrix(model, {1: dictionary}, [1], corpus)[1]
    alive = np.flatnonzero(np.diff(chosen.indptr) > 5)
    np.testing.assert_allclose(correlation(chosen[:, alive], chosen[:, alive]),
                               np.corrcoef(expected[:, alive].T), atol=1e-4)


def test_labels_match_where_words_do():
    G, H = random_graph(0, labels=True), random_graph(1, labels=True)
    found = match_features(Side(graph=G), Side(graph=H), "label")
    assert found.pairs == {node: node for node in G}


def test_spectra_do_not_know_sizes():
    G = random_graph(0)
    edges = edge_list(G)
    matrix = nx.to_numpy_array(G, weight="strength")
    values = np.linalg.svd(np.sign(matrix), compute_uv=False)[:20]
    np.testing.assert_allclose(spectrum(edges), values / np.sqrt((matrix != 0).sum()), atol=1e-9)


def effects(seed: int, shift: int = 0, noise: float = 0.0) -> InteractionTable:
    random = np.random.default_rng(1)
    n = 200
    columns = {name: np.zeros(n, dtype=kind) for name, kind in COLUMNS.items()}
    columns |= {"src_feature": np.arange(n) // 10 + shift, "tgt_layer": np.ones(n),
                "tgt_feature": np.arange(n) % 10, "strength_std": random.normal(size=n)
                + noise * np.random.default_rng(seed).normal(size=n)}
    return InteractionTable(columns)


def test_effects_of_all_pairs_are_compared_under_a_matching():
    found = compare_effects(
        effects(0), effects(0, shift=3), {**{f"L0_F{i}": f"L0_F{i + 3}" for i in range(20)},
                                          **{f"L1_F{i}": f"L1_F{i}" for i in range(10)}}
    )
    assert (found["n_pairs"] == 200 and found["n_sources"] == 20
            and found["pearson"]["value"] == pytest.approx(1))
    noisy = compare_effects(effects(0), effects(2, noise=1.0))
    x, y = (table.columns["strength_std"] for table in (effects(0), effects(2, noise=1.0)))
    assert (noisy["pearson"]["value"] == pytest.approx(np.corrcoef(x, y)[0, 1])
            and noisy["pearson"]["low"] < noisy["pearson"]["value"] < noisy["pearson"]["high"])
    with pytest.raises(InputError, match="too few"):
        compare_effects(effects(0), effects(0), {"L0_F0": "L0_F400"})


@pytest.mark.parametrize(
    ("ask", "said"),
    [(lambda G: compare_graphs(nx.DiGraph(), G), "no edges"),
     (lambda G: compare_graphs(G, G, {"L0_F0": "L7_F7"}), "nothing to compare"),
     (lambda G: compare_graphs(G, G, "names"), "identity"),
     (lambda G: compare_graphs(G, G, {"L0_F0": "L0_F1", "L0_F2": "L0_F1"}), "one-to-one"),
     (lambda G: match_features(Side(), Side(), "colour"), "colour"),
     (lambda G: match_features(Side(), Side(), "decoder"), "SAEs of both"),
     (lambda G: match_features(Side({1: sae(1)}), Side({2: sae(1)}), "decoder"), "in common"),
     (lambda G: match_features(Side({1: sae(1)}), Side({1: sae(1)})), "both models"),
     (lambda G: match_features(Side(), Side(), "label"), "labels"),
     (lambda G: match_features(Side(graph=G), Side(graph=G), "label"), "no layer"),
     (lambda G: match_features(Side(), Side(), "label", error=0.0), "share"),
     (lambda G: compare_graphs(G, G, weight="unheard"), "unheard")]
)
def test_refusals(ask, said):
    with pytest.raises(InputError, match=said): ask(random_graph(0))
