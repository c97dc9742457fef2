"Which features and pairs are chosen: every rule planted, every reason for leaving out counted."
import dataclasses

import numpy as np
import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig
from sae_lens.saes.sae import SAEMetadata

from feature_interaction_graph.candidates import (
    REASONS, Candidates, TransportScreen, choose_features, decoder_alignment, identify_candidates,
    transport_candidates
)
from feature_interaction_graph.coactivation import build_coactivation_atlas
from feature_interaction_graph.config import Config
from feature_interaction_graph.dictionary.store import ActivationStore, firings_of, write_store
from feature_interaction_graph.engine.corpus import Corpus
from feature_interaction_graph.engine.errors import InputError

WIDTH, D = 12, 400


def sae_of(layer: int, seed: int, d_in: int = D):
    sae = StandardSAE(
        StandardSAEConfig(
            d_in=d_in, d_sae=WIDTH,
            metadata=SAEMetadata(hook_name=f"blocks.{layer}.hook_resid_pre", model_name="planted")
        )
    )
    torch.manual_seed(seed)
    sae.W_dec.data, sae.W_enc.data = torch.randn(WIDTH, d_in), torch.randn(d_in, WIDTH)
    return sae.requires_grad_(False)


@pytest.fixture
def planted(tmp_path):
    """Three layers of twelve features. 0: always on. 1: never fires. 2: fires 3 times. 3 (layer 0)
    and 3 (layer 1): together. 4 and 4: never together. 5 and 5: decoder reads encoder; 6 and 6:
    against it. 7 (layer 0) and 7 (layer 2): decoder along encoder, but not neighbours. The rest:
    independent."""
    rng = np.random.default_rng(0)
    corpus = Corpus(
        torch.ones(100, 41, dtype=torch.int64), torch.full((100,), 41), starts_with_bos=True
    )
    fires = rng.random((3, corpus.n_tokens, WIDTH)) < 0.1
    fires[:, :, 0], fires[:, :, 1], fires[:, :, 2] = True, False, False
    fires[:, :3, 2] = True
    fires[1, :, 3] = fires[0, :, 3] & (rng.random(corpus.n_tokens) < 0.9)
    fires[1, :, 4] &= ~fires[0, :, 4]
    worth = torch.from_numpy(rng.uniform(0.1, 1, (3, 1, WIDTH)) * fires)
    with write_store(
        tmp_path / "activations.h5", corpus,
        {layer: (f"blocks.{layer}.hook_resid_pre", WIDTH) for layer in range(3)}
    ) as writers:
        for layer in range(3):
            fired = firings_of(torch.from_numpy(fires[layer] * 2.0).float())
            writers[layer].add(fired, worth[layer][fired.row, fired.feature])
    saes = {layer: sae_of(layer, layer) for layer in range(3)}
    saes[1].W_enc.data[:, 5] = 3 * saes[0].W_dec[5]
    saes[1].W_enc.data[:, 6] = -0.2 * saes[0].W_dec[6]
    saes[2].W_enc.data[:, 7] = saes[0].W_dec[7]
    return ActivationStore.open(tmp_path / "activations.h5"), saes


def reasons_of(candidates, *pair):
    columns = [candidates[name].tolist() for name in list(candidates.columns)[:4]]
    rows = zip(candidates.reasons(), *columns, strict=True)
    found = [reason for reason, *row in rows if tuple(row) == pair]
    return found[0].split(", ") if found else []


def test_every_rule_finds_what_was_planted(planted):
    store, saes = planted
    candidates = identify_candidates(
        build_coactivation_atlas(store, Config(all_targets=False), progress=False), saes,
        Config(all_targets=False)
    )
    assert (reasons_of(candidates, 0, 3, 1, 3) == ["together", "associated"]
            and reasons_of(candidates, 0, 4, 1, 4) == ["apart"])
    for feature in (5, 6): assert reasons_of(candidates, 0, feature, 1, feature) == ["aligned"]
    assert reasons_of(candidates, 0, 7, 2, 7) == []
    frame = candidates.to_pandas().set_index(
        ["src_layer", "src_feature", "tgt_layer", "tgt_feature"]
    )
    marked = frame[frame.is_candidate_inhibitory]
    assert set(marked.index) >= {(0, 4, 1, 4), (0, 6, 1, 6)} and (0, 5, 1, 5) not in marked.index
    assert np.isclose(frame.loc[(0, 5, 1, 5)].decoder_alignment, 1) and np.isclose(
        frame.loc[(0, 6, 1, 6)].decoder_alignment, -1
    )
    assert frame.loc[(0, 4, 1, 4)].ratio == 0 and np.isfinite(frame.pmi).all()
    # of 243 pairs, beside the planted ones a few by chance
    assert len(frame) <= 4 + 6
    assert candidates.meta["considered"] == 3 * 81 and candidates.meta["kept"] == len(frame)
    assert "never fires" in candidates.report() and f"{len(frame)} of 243" in candidates.report()


def test_features_left_out_are_counted(planted):
    store, saes = planted
    cfg = Config(all_targets=False, top_k_features=5)
    atlas = build_coactivation_atlas(store, cfg, progress=False)
    for layer in range(3):
        importance = store.importance(layer)[atlas.layers[layer].features]
        chosen, counts = choose_features(atlas, layer, importance, cfg)
        assert counts == {"features": 12, "chosen": 5, "never fires": 1,
                          "not covered by the atlas": 0, "fires fewer than 20 times": 1,
                          "fires on 99% of positions or more": 1, "less important": 4}
        ranking = [feature for feature in np.argsort(-store.importance(layer)).tolist()
                   if feature not in (0, 1, 2)]
        assert chosen.tolist() == sorted(ranking[:5])
        least = ranking[-1]
        with_it, counts = choose_features(atlas, layer, importance, cfg, [least, 0])
        assert with_it.tolist() == sorted([*ranking[:5], least, 0]) and sum(counts.values()) == 24
        with pytest.raises(InputError, match="fires 3 times"):
            choose_features(atlas, layer, importance, cfg, [2])
    narrow = build_coactivation_atlas(store, cfg, max_features=4, progress=False)
    counts = identify_candidates(narrow, saes, cfg, all_pairs=True).meta["features"]["0"]
    assert counts["not covered by the atlas"] == 7 and sum(counts.values()) == 24


def test_ties_go_to_the_lower_number(planted):
    store, _ = planted
    atlas = build_coactivation_atlas(store, Config(all_targets=False), progress=False)
    chosen, _ = choose_features(atlas, 0, np.ones(11), Config(all_targets=False, top_k_features=3))
    assert chosen.tolist() == [3, 4, 5]


def test_window_within_layer_and_all_pairs(planted):
    store, saes = planted
    atlas = build_coactivation_atlas(
        store, Config(all_targets=False, within_layer=True), progress=False
    )
    near = identify_candidates(
        atlas, saes, Config(all_targets=False, layer_window=1), all_pairs=True
    )
    assert len(near) == 2 * 81 and (near["tgt_layer"] - near["src_layer"] == 1).all() and all(
        "all" in reason for reason in near.reasons()
    )
    inside = identify_candidates(
        atlas, saes, Config(all_targets=False, layer_window=1, within_layer=True), all_pairs=True
    )
    assert len(inside) == 2 * 81 + 3 * 72 == inside.meta["considered"]
    same_layer = inside["src_layer"] == inside["tgt_layer"]
    assert (inside["src_feature"] != inside["tgt_feature"])[same_layer].all()
    ends = ("src_layer", "src_feature", "tgt_layer", "tgt_feature")
    order = list(zip(*(near[name].tolist() for name in ends), strict=True))
    assert order == sorted(order) and len(set(order)) == len(order)
    assert near.sources == sorted({pair[:2] for pair in order}) and near.targets == sorted(
        {pair[2:] for pair in order}
    )


def test_included_features_come_with_all_their_pairs(planted):
    store, saes = planted
    cfg = Config(all_targets=False, top_k_features=2)
    atlas = build_coactivation_atlas(store, cfg, progress=False)
    without = identify_candidates(atlas, saes, cfg, all_pairs=True)
    wanted = next(feature for feature in range(3, 12) if (1, feature) not in without.sources)
    candidates = identify_candidates(atlas, saes, cfg, include=[f"L1_F{wanted}"])
    mine = [reason for reason, layer, feature in zip(candidates.reasons(), candidates["src_layer"],
                                                     candidates["src_feature"], strict=True)
            if (layer, feature) == (1, wanted)]
    assert len(mine) == 2 and all("included" in reason for reason in mine) and (
        1, wanted
    ) in candidates.targets


def test_saes_of_different_width_have_no_alignment(planted):
    store, saes = planted
    saes = {**saes, 1: sae_of(1, 5, d_in=64)}
    assert np.isnan(decoder_alignment(saes[0], saes[1], np.arange(3), np.arange(4))).all()
    candidates = identify_candidates(
        build_coactivation_atlas(store, Config(all_targets=False), progress=False), saes,
        Config(all_targets=False)
    )
    between = (candidates["src_layer"] == 0) & (candidates["tgt_layer"] == 1)
    assert (between.any() and np.isnan(candidates["decoder_alignment"][between]).all()
            and "aligned" not in reasons_of(candidates, 0, 3, 1, 3))


def test_files_and_refusals(planted, tmp_path):
    store, saes = planted
    cfg = Config(all_targets=False)
    atlas = build_coactivation_atlas(store, cfg, progress=False)
    candidates = identify_candidates(atlas, saes, cfg)
    candidates.save(tmp_path / "candidates.h5")
    again = Candidates.load(tmp_path / "candidates.h5")
    assert again.to_pandas().equals(candidates.to_pandas())
    assert again.meta == candidates.meta and again.report() == candidates.report()
    assert (again.features.to_pandas().equals(candidates.features.to_pandas())
            and len(again.features) == len(set(again.sources + again.targets)))
    strict = cfg.replace(coactivation_threshold=1.0, pmi_threshold=50.0,
                         min_expected_coactivations=1e9, decoder_alignment_threshold=2.0)
    (tmp_path / "cut.h5").write_bytes((tmp_path / "candidates.h5").read_bytes()[:4000])
    frequency = build_coactivation_atlas(
        store, cfg,
        features=type(atlas.features)(atlas.features.columns | {"importance": np.full(36, np.nan)}),
        progress=False
    )
    def identify(atlas=atlas, cfg=cfg, **options):
        return identify_candidates(atlas, saes, cfg, **options)

    within, ablation = cfg.replace(within_layer=True), cfg.replace(importance_method="ablation")
    for act, words in (
        (lambda: identify(cfg=strict), "has a reason to be measured"),
        (lambda: identify(cfg=within), "the atlas was built without it"),
        (lambda: identify(include=["L0_F1"]), "does not cover L0_F1"),
        (lambda: identify(include=[(7, 0)]), "the atlas has no layer 7"),
        (lambda: identify(cfg=ablation), "pass store and model"),
        (lambda: identify(frequency), "collected without gradient importance"),
        (lambda: Candidates.load(tmp_path / "cut.h5"), "is damaged or not a table of candidates"),
        (lambda: Candidates.load(store.path), "holds something else than a table of candidates"),
        (lambda: Candidates.load(tmp_path / "none.h5"), "does not exist")
    ):
        with pytest.raises(InputError, match=words) as refusal: act()
        assert "\n" not in str(refusal.value)
    assert len(identify(frequency, cfg.replace(importance_method="frequency"))) > 0
    assert len(REASONS) <= 8


def test_a_screen_has_four_numbers_and_no_others():
    assert dataclasses.astuple(TransportScreen(min_z=3)) == (10, 10, 3, 0.01)
    with pytest.raises(TypeError, match="min_sigma"):
        transport_candidates(None, None, None, Config(all_targets=False), min_sigma=3)
