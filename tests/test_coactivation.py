"""Co-activation counts against dense brute force, bounds against scipy, and zeros that must not
vanish."""
import h5py
import numpy as np
import pytest
import scipy.stats
import torch

from feature_interaction_graph import coactivation
from feature_interaction_graph.coactivation import (
    CoactivationAtlas, build_coactivation_atlas, pair_rules, pair_statistics, remarkable_pairs
)
from feature_interaction_graph.config import Config
from feature_interaction_graph.dictionary.store import ActivationStore, firings_of, write_store
from feature_interaction_graph.engine.corpus import Corpus
from feature_interaction_graph.engine.errors import InputError

def random_store(path, widths=(9, 7, 11), n_seq=30, seed=0, signed=False, rate=0.2):
    """Random firings of three layers over ragged sequences, float16 exact; the last feature of
    every layer never fires."""
    rng = np.random.default_rng(seed)
    corpus = Corpus(torch.ones(n_seq, 20, dtype=torch.int64),
                    torch.as_tensor(rng.integers(3, 21, n_seq)), starts_with_bos=True)
    dense = {}
    for layer, width in enumerate(widths):
        values = rng.uniform(0.5, 4, (corpus.n_tokens, width)).astype(np.float16).astype(np.float32)
        if signed: values *= rng.choice([-1, 1], values.shape)
        dense[layer] = values * (rng.random(values.shape) < rate * rng.uniform(0.1, 1.5, width))
        dense[layer][:, -1] = 0
    with write_store(path, corpus, {layer: (f"blocks.{layer}.hook_resid_pre", width)
                                    for layer, width in enumerate(widths)}) as writers:
        for layer, values in dense.items(): writers[layer].add(firings_of(torch.from_numpy(values)))
    return ActivationStore.open(path), dense


@pytest.mark.parametrize("offset", [0, 1, 3])
@pytest.mark.parametrize("max_bytes", [1, 2000, 2**28])
@pytest.mark.parametrize("signed", [False, True])
def test_counts_and_sums_are_those_of_brute_force(tmp_path, monkeypatch, offset, max_bytes, signed):
    if max_bytes < 2**28: monkeypatch.setattr(coactivation, "_AT_ONCE", 300)     # several blocks
    store, dense = random_store(tmp_path / "a.h5", signed=signed)
    atlas = build_coactivation_atlas(store, Config(layer_window=2, within_layer=True),
                                     offset=offset, max_bytes=max_bytes, progress=False)
    sequence, position = store.rows.T
    rows = np.array(
        [r for r in range(store.n_tokens - offset) if sequence[r + offset] == sequence[r]]
    )
    assert (position[rows + offset] - position[rows] == offset).all() and atlas.n_rows == len(rows)
    assert atlas.layer_pairs == [(a, b) for a in range(3) for b in range(a, 3)]
    for a, b in atlas.layer_pairs:
        before, after = dense[a][rows], dense[b][rows + offset]
        i, j = atlas.layers[a].features, atlas.layers[b].features
        np.testing.assert_array_equal(i, np.flatnonzero((dense[a] != 0).any(0)))
        stats = atlas.statistics(a, b)
        np.testing.assert_array_equal(
            stats.n_both, (before != 0).astype(int).T[i] @ (after != 0).astype(int)[:, j]
        )
        product = np.outer((before != 0).sum(0)[i], (after != 0).sum(0)[j])
        np.testing.assert_allclose(stats.expected, product.clip(1e-9) / len(rows), rtol=1e-12)
        given = [[after[before[:, f] != 0, g].mean() if (before[:, f] != 0).any() else 0 for g in j]
                 for f in i]
        np.testing.assert_allclose(atlas.conditional_means(a, b),
                                   np.array(given) - after.mean(0, dtype=np.float64)[j], atol=1e-6)


def test_a_subset_of_features_is_the_subset_of_the_table(tmp_path):
    store, _ = random_store(tmp_path / "a.h5")
    atlas = build_coactivation_atlas(store, Config(), progress=False)
    i, j = atlas.layers[0].features[[4, 1]], atlas.layers[2].features[[0, 5, 5]]
    whole, part = atlas.statistics(0, 2), atlas.statistics(0, 2, i, j)
    for name, values in part._asdict().items():
        np.testing.assert_array_equal(
            values, getattr(whole, name)[[4, 1]][:, [0, 5, 5]], err_msg=name
        )


def test_max_features_keeps_the_most_important(tmp_path):
    store, dense = random_store(tmp_path / "a.h5")
    atlas = build_coactivation_atlas(store, Config(), max_features=3, progress=False)
    for layer in range(3):
        counts = (dense[layer] != 0).sum(0)
        assert sorted(counts[atlas.layers[layer].features]) == sorted(counts)[-3:]
    assert atlas.meta["left_out"] == {"0": 6, "1": 4, "2": 8} and len(atlas.features) == 27
    with pytest.raises(InputError, match="left out by max_features"): atlas.statistics(0, 1, [8])


@pytest.mark.parametrize("n_both", [0, 1, 2, 7, 40, 3000])
def test_bounds_are_garwoods(n_both):
    "The exact Poisson interval by its other formula, through the chi-squared distribution."
    stats = pair_statistics(np.array([n_both]), 500, 800, 100_000, confidence=0.95)
    low = scipy.stats.chi2.ppf(0.025, 2 * n_both) / 2 if n_both else 0.0
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(
            [stats.pmi_low[0], stats.pmi_high[0]],
            np.log([low / 4, scipy.stats.chi2.ppf(0.975, 2 * n_both + 2) / 8])
        )
    assert np.isclose(stats.p_so_few[0], scipy.stats.poisson.cdf(n_both, 4))
    assert np.isclose(stats.prob[0], n_both / 500) and np.isclose(
        stats.ratio[0], (n_both / 100_000) / (500 / 100_000 * 800 / 100_000)
    )


def test_zero_pairs_survive_the_file(tmp_path):
    """Two common features that exclude each other: the zero is found again after saving, with
    everything else unchanged."""
    store, dense = random_store(tmp_path / "a.h5", n_seq=200, rate=0.4)
    exclusive = dense[1].copy()
    exclusive[:, 2] = np.where(dense[0][:, 3] == 0, 1.0, 0.0)
    with write_store(
        tmp_path / "b.h5", store.corpus,
        {0: ("blocks.0.hook_resid_pre", 9), 1: ("blocks.1.hook_resid_pre", 7)}
    ) as writers:
        writers[0].add(firings_of(torch.from_numpy(dense[0])))
        writers[1].add(firings_of(torch.from_numpy(exclusive)))
    cfg = Config()
    atlas = build_coactivation_atlas(ActivationStore.open(tmp_path / "b.h5"), cfg, progress=False)
    atlas.save(tmp_path / "atlas.h5")
    again = CoactivationAtlas.load(tmp_path / "atlas.h5")
    for table in (atlas, again):
        found = remarkable_pairs(table, 0, 1, cfg)
        pair = found[(found.src_feature == 3) & (found.tgt_feature == 2)].iloc[0]
        assert (pair.n_both == 0 and pair.apart and pair.ratio == 0 and pair.pmi == -np.inf
                and pair.pmi_high < -2)
    for pair in atlas.layer_pairs:
        for name in ("counts", "sums"):
            assert (getattr(atlas, name)[pair] != getattr(again, name)[pair]).nnz == 0
    assert again.features.to_pandas().equals(atlas.features.to_pandas())
    assert again.n_rows == atlas.n_rows and again.meta == atlas.meta


def test_sums_that_cancel_are_kept(tmp_path):
    "Activations of both signs may sum to exactly zero where the pair did fire together."
    corpus = Corpus(torch.ones(1, 5, dtype=torch.int64), torch.tensor([5]), starts_with_bos=True)
    with write_store(tmp_path / "a.h5", corpus,
                     {layer: (f"blocks.{layer}.hook_resid_pre", 1) for layer in (0, 1)}) as writers:
        writers[0].add(firings_of(torch.tensor([[1.0], [1.0], [0.0], [0.0]])))
        writers[1].add(firings_of(torch.tensor([[2.0], [-2.0], [0.0], [3.0]])))
    atlas = build_coactivation_atlas(
        ActivationStore.open(tmp_path / "a.h5"), Config(), progress=False
    )
    atlas.save(tmp_path / "atlas.h5")
    for table in (atlas, CoactivationAtlas.load(tmp_path / "atlas.h5")):
        assert table.statistics(0, 1).n_both.item() == 2
        assert table.conditional_means(0, 1).item() == 0 - 3 / 4


def test_independent_features_give_no_reason():
    """Under independence, each rule accepts about as many pairs as its level allows, however rare
    or common the features."""
    rng, cfg = np.random.default_rng(0), Config()
    for expected in (0.01, 0.3, 3, 30, 1000):
        n = int(np.sqrt(expected * 1e6))
        rules = pair_rules(pair_statistics(rng.poisson(n * n / 1e6, 50_000), n, n, 1_000_000), cfg)
        assert (rules["associated"].mean() <= 0.006 and rules["together"].mean() <= 0.008
                and rules["apart"].mean() <= 0.01)


def test_rare_pairs_are_not_called_apart():
    "Nothing was expected, nothing was seen: no reason. Enough was expected: a reason."
    # at 4 expected, none is less likely than that
    cfg = Config(min_expected_coactivations=5, significance_level=0.05)
    silent = pair_statistics(np.zeros(2, dtype=int), np.array([100, 400]), 400, 10_000)
    assert pair_rules(silent, cfg)["apart"].tolist() == [False, True]
    assert np.allclose(silent.expected, [4, 16])


def test_refusals(tmp_path):
    store, _ = random_store(tmp_path / "a.h5")
    atlas = build_coactivation_atlas(store, Config(layer_window=1), progress=False)
    atlas.save(tmp_path / "atlas.h5")
    with h5py.File(tmp_path / "atlas.h5", "r+") as file: file["pair_0_1/indices"][0] = 99
    (tmp_path / "text.h5").write_text("hello")
    with write_store(
        tmp_path / "one.h5", store.corpus, {0: ("blocks.0.hook_resid_pre", 9)}
    ) as writers:
        writers[0].add(firings_of(torch.zeros(store.n_tokens, 9)))
    one = ActivationStore.open(tmp_path / "one.h5")
    for act, words in (
        (lambda: atlas.statistics(0, 2), "no counts for layers 0 and 2; it has 0 and 1, 1 and 2"),
        (lambda: atlas.statistics(1, 0), "no counts for layers 1 and 0"),
        (lambda: atlas.places(7), "no layer 7"),
        (lambda: build_coactivation_atlas(store, Config(), offset=-1), "offset is -1"),
        (lambda: CoactivationAtlas.load(tmp_path / "atlas.h5"), "is damaged or not an atlas"),
        (lambda: CoactivationAtlas.load(tmp_path / "text.h5"), "is damaged or not an atlas"),
        (lambda: CoactivationAtlas.load(tmp_path / "a.h5"), "holds something else than an atlas"),
        (lambda: CoactivationAtlas.load(tmp_path / "none.h5"), "does not exist"),
        (lambda: build_coactivation_atlas(one, Config(), progress=False), "no two of the layers 0")
    ):
        with pytest.raises(InputError, match=words) as refusal: act()
        assert "\n" not in str(refusal.value)


def test_a_layer_in_which_nothing_fires(tmp_path):
    store, dense = random_store(tmp_path / "a.h5")
    with write_store(
        tmp_path / "b.h5", store.corpus,
        {0: ("blocks.0.hook_resid_pre", 9), 1: ("blocks.1.hook_resid_pre", 4)}
    ) as writers:
        writers[0].add(firings_of(torch.from_numpy(dense[0])))
        writers[1].add(firings_of(torch.zeros(store.n_tokens, 4)))
    atlas = build_coactivation_atlas(
        ActivationStore.open(tmp_path / "b.h5"), Config(), progress=False
    )
    assert atlas.statistics(0, 1).n_both.shape == (8, 0)
    assert len(remarkable_pairs(atlas, 0, 1, Config())) == 0
