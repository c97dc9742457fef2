"Ids, labels, quantiles, tables, examples and pages of single features."
import re
import gzip
import json
from html.parser import HTMLParser

import numpy as np
import pytest
import scipy.sparse
import torch

from feature_interaction_graph.dictionary.hypotheses import (
    collect_feature_bank, feature_hypotheses, feature_input_pattern, token_rules
)
from feature_interaction_graph.dictionary.labels import (
    first_labels, label_scores, load_labels, telling_tokens
)
from feature_interaction_graph.dictionary.store import ActivationStore, firings_of, write_store
from feature_interaction_graph.engine.corpus import Corpus, TokenLabels
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.engine.names import feature_id, parse_feature_id
from feature_interaction_graph.features import (
    FEATURE_COLUMNS, FeatureTable, feature_dashboard, feature_table, firings, nonzero_quantiles,
    top_examples
)

HOSTILE = ['<script>alert("x")</script>', "<img src=x onerror=alert(1)>", "a & b", "line\nbreak",
           '"quoted"', "«mark»", "\u202eright to left", ""]


class Words:
    "Stands for a tokenizer whose tokens are hostile."
    def decode(self, ids): return "".join(HOSTILE[token % len(HOSTILE)] for token in ids)


@pytest.fixture
def store(tmp_path):
    rng = np.random.default_rng(0)
    lengths = torch.as_tensor(rng.integers(2, 15, 25))
    corpus = Corpus(torch.as_tensor(rng.integers(0, 8, (25, 14))), lengths, starts_with_bos=True)
    truth = scipy.sparse.csr_matrix(rng.random((25 * 14, 3)) < 0.3)
    corpus = Corpus(
        corpus.tokens, lengths, True, labels=TokenLabels(["one", "two", "three"], truth)
    )
    active = torch.from_numpy(
        (rng.uniform(0.1, 9, (corpus.n_tokens, 12))
         * (rng.random((corpus.n_tokens, 12)) < rng.uniform(0, 0.5, 12))).astype(np.float16)
    ).float()
    active[:, 4] = 0
    with write_store(
        tmp_path / "activations.h5", corpus,
        {0: ("blocks.0.hook_resid_pre", 12), 5: ("blocks.5.hook_resid_pre", 12)}, tokenizer=Words()
    ) as writers:
        writers[0].add(firings_of(active))
        writers[5].add(firings_of(active.flip(1)))
    return ActivationStore.open(tmp_path / "activations.h5")


def test_ids_round_trip_and_nothing_else_passes():
    for layer, feature in [(0, 0), (3, 17), (12, 123456)]:
        assert parse_feature_id(feature_id(layer, feature)) == (layer, feature)
    for wrong in ["", "L3", "F3", "L3F17", "L3_F17x", " L3_F17", "L３_F1", "L-1_F2", "L1_F2\n",
                  "l1_f2", "L1_F1e3", None, 3, ("L", 1), "L9999999999_F1"]:
        with pytest.raises(InputError, match="is not a feature id"): parse_feature_id(wrong)
    assert parse_feature_id("L3_F17", {3: 18}) == (3, 17)
    for wrong in ["L3_F18", "L2_F0"]:
        with pytest.raises(InputError, match="choose one of those"):
            parse_feature_id(wrong, {3: 18})


@pytest.mark.parametrize("seed", range(5))
def test_quantiles_are_numpys(seed):
    rng = np.random.default_rng(seed)
    dense = rng.normal(size=(rng.integers(1, 60), 9)) * (rng.random(9) < 0.8) * (
        rng.random((1, 9)) < 0.9
    )
    dense *= rng.random(dense.shape) < rng.random(9)
    asked = [0, 0.1, 0.5, 0.333, 0.9, 1]
    found = nonzero_quantiles(scipy.sparse.csc_matrix(dense), asked)
    for column in range(9):
        fired = dense[dense[:, column] != 0, column]
        np.testing.assert_allclose(
            found[column], np.quantile(fired, asked) if len(fired) else [np.nan] * 6, rtol=1e-12
        )


def test_table_is_what_the_activations_say(store):
    table = feature_table(store)
    dense = {layer: store.csr(layer).toarray() for layer in store.layers}
    assert len(table) == 24 and list(table.columns) == list(FEATURE_COLUMNS)
    for row in table.to_pandas().itertuples():
        column = dense[row.layer][:, row.feature]
        fired = column[column != 0].astype(np.float64)
        assert row.activation_freq == len(fired) / store.n_tokens and np.isnan(row.importance)
        if len(fired):
            np.testing.assert_allclose([row.mean, row.std, row.max, row.p10, row.p50, row.p90],
                                       [fired.mean(), fired.std(), fired.max(),
                                        *np.quantile(fired, [0.1, 0.5, 0.9])], rtol=1e-6)
            assert row.label in ("one", "two", "three")
        else: assert np.isnan(row.p50) and row.label == "" and row.label_score == 0


def test_label_scores_are_f1(store):
    scores = label_scores(store, 0)
    truth = store.corpus.labels.matrix.toarray()[store.rows[:, 0] * 14 + store.rows[:, 1]]
    fired = store.csr(0).toarray() != 0
    for i in range(12):
        for k in range(3):
            both = (fired[:, i] & truth[:, k]).sum()
            precision, recall = both / max(fired[:, i].sum(), 1), both / truth[:, k].sum()
            assert np.isclose(
                scores[i, k], 2 * precision * recall / (precision + recall) if both else 0
            )


def test_telling_tokens_by_hand(store):
    chosen, carried = telling_tokens(store, 0)
    dense, ids = store.csr(0).toarray(), store.corpus.tokens.numpy()[tuple(store.rows.T)]
    for i in range(12):
        mass = np.bincount(ids, np.abs(dense[:, i]), 8)
        if not mass.sum():
            assert chosen[i] == [] and carried[i] == 0
            continue
        share = mass / mass.sum()
        gain = np.array([s * np.log(s / p) if s else -np.inf for s, p
                         in zip(share, np.bincount(ids, minlength=8) / len(ids), strict=True)])
        expected = [token for rank, token in enumerate(np.argsort(-gain)[:3])
                    if np.isfinite(gain[token]) and (rank == 0 or share[token] >= 0.05)]
        assert chosen[i] == expected and np.isclose(carried[i], share[expected].sum(), rtol=1e-5)


def test_no_tokenizer_and_no_labels_still_names(tmp_path, store):
    corpus = Corpus(store.corpus.tokens, store.corpus.lengths, True)
    with write_store(tmp_path / "bare.h5", corpus, {0: ("blocks.0.hook_resid_pre", 12)}) as writers:
        writers[0].add(firings_of(torch.from_numpy(store.csr(0).toarray())))
    bare = ActivationStore.open(tmp_path / "bare.h5")
    names, _ = first_labels(bare, 0)
    assert (names[0].startswith("token ") and names[4] == ""
            and str(top_examples(bare, 0, 0, k=1)[0]).count("«[") == 1)
    with pytest.raises(InputError, match="no latent labels"): label_scores(bare, 0)


def test_table_lookup_and_files(tmp_path, store):
    table = feature_table(store)
    np.testing.assert_array_equal(
        table.find(np.array([5, 0, 5, 3, 0]), np.array([0, 11, 12, 1, 4])), [12, 11, -1, -1, 4]
    )
    shuffled = FeatureTable({name: values[np.random.default_rng(0).permutation(24)]
                             for name, values in table.columns.items()})
    assert shuffled.to_pandas().equals(table.to_pandas())
    table.with_labels({(0, 1): HOSTILE[0], (9, 9): "nobody"}).save(tmp_path / "features.h5")
    again = FeatureTable.load(tmp_path / "features.h5")
    assert again.lookup("L0_F1").label == HOSTILE[0] and np.isnan(again.lookup("L0_F1").label_score)
    others = np.arange(24) != 1
    assert again.take(others).to_pandas().equals(table.take(others).to_pandas())
    assert len(table.take(table["layer"] == 5)) == 12
    nothing = FeatureTable({name: values[:0] for name, values in table.columns.items()})
    assert nothing.find(np.array([1]), np.array([1])).tolist() == [-1]
    (tmp_path / "text.h5").write_text("x")
    twice = {name: np.repeat(values, 2) for name, values in table.columns.items()}
    not_one = r"\.h5 (is|holds|could not be read).*FeatureTable\.save"
    for act, words in (
        (lambda: table.lookup("L0_F12"), "L0_F12 is not among the 24 features"),
        (lambda: table.lookup((1, 0)), "L1_F0 is not among the 24 features"),
        (lambda: FeatureTable.load(tmp_path / "none.h5"), not_one),
        (lambda: FeatureTable.load(tmp_path / "text.h5"), not_one),
        (lambda: FeatureTable.load(store.path), not_one),
        (lambda: FeatureTable({**table.columns, "mean": np.zeros(3)}), "must be of one length"),
        (lambda: FeatureTable(twice), "must not name a feature twice")
    ):
        with pytest.raises(InputError, match=words) as refusal: act()
        assert "\n" not in str(refusal.value)


def test_examples_show_the_window(store):
    "Every example's window, marker and activations, by hand from the corpus."
    dense = store.csr(0).toarray()
    rows = {tuple(place): number for number, place in enumerate(store.rows.tolist())}
    for window in (0, 2, 50):
        for example in top_examples(store, 0, 0, k=100, window=window):
            length = int(store.corpus.lengths[example.sequence])
            places = [p for p in range(example.position - window, example.position + window + 1)
                      if 0 <= p < length]
            assert example.tokens == [
                store.token_texts[int(store.corpus.tokens[example.sequence, p])] for p in places
            ] and places[example.firing] == example.position
            assert example.activations == [
                dense[rows[example.sequence, p], 0] if (example.sequence, p) in rows else 0.0
                for p in places
            ]
            assert "\n" not in str(example)
    examples = top_examples(store, 0, 0, k=100)
    best = {sequence: max(dense[number, 0] for (s, _), number in rows.items() if s == sequence)
            for sequence in {e.sequence for e in examples}}
    assert all(best[example.sequence] == example.activation for example in examples)
    with pytest.raises(InputError, match="never fires"): top_examples(store, 0, 4)
    assert len(firings(store, 0, 4)[0]) == 0


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen = set()

    def handle_starttag(self, tag, attrs):
        self.seen |= {tag} | {name for name, _ in attrs if name.startswith("on")}


def test_pages_escape_everything(store):
    table = feature_table(store).with_labels({(0, 0): HOSTILE[0]})
    for which in ("L0_F0", (0, 2)):
        page = feature_dashboard(store, table, which)
        tags = Tags()
        tags.feed(page._repr_html_())
        assert (tags.seen <= {"div", "h4", "p", "br", "svg", "rect", "table", "tr", "td", "span"}
                and str(page).count("\n") >= 3)
    with pytest.raises(InputError, match="never fires"): feature_dashboard(store, table, "L0_F4")


def test_labels_from_every_kind_of_file(tmp_path):
    def file(name, content):
        (tmp_path / name).write_bytes(
            gzip.compress(content.encode()) if name.endswith(".gz") else content.encode()
        )
        return tmp_path / name
    expected = {(6, 650): HOSTILE[0], (12, 3): "x"}
    objects = [dict(modelId="m", layer="6-res-jb", index="650", description=HOSTILE[0]),
               dict(layer=12, feature=3, label=" x "), dict(layer=12, feature=3, label="second")]
    for path in (
        file("a.json", json.dumps(objects)), file("b.jsonl", "\n\n".join(map(json.dumps, objects))),
        file("c.jsonl.gz", "\n".join(map(json.dumps, objects))),
        file("d.json", json.dumps({"L6_F650": HOSTILE[0], "L12_F3": "x"})),
        file("e.csv",
             f'feature,layer,label\n650,6,"{HOSTILE[0].replace(chr(34), chr(34) * 2)}"\n3,12,x\n')
    ):
        assert load_labels(path) == expected
    for path in (file("1.json", "{"), file("2.json", "[]"), file("3.json", "3"),
                 file("4.json", '{"L1": "x"}'), file("5.json", '[{"layer": 1, "feature": 2}]'),
                 file("6.json", '[{"layer": "x", "feature": 2, "label": "y"}]'),
                 file("7.json", '[{"layer": 1, "feature": -2, "label": "y"}]'), file("8.csv", ""),
                 file("9.csv", "layer,feature,label\n1,2\n"), file("10.txt", "x"),
                 tmp_path / "none.json", tmp_path, file("11.json", "[" * 100_000)):
        with pytest.raises(InputError, match=r"\A[^\n]{20,400}\Z"):
            load_labels(path)
    (tmp_path / "latin.csv").write_bytes("layer,feature,label\n1,2,Bücher".encode("latin-1"))
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(b'{"L1_F1": "x"}')[:-4])
    for name in ("latin.csv", "cut.json.gz"):
        with pytest.raises(InputError, match=re.escape(name)): load_labels(tmp_path / name)


def test_hypotheses_by_hand(store):
    """The chosen rule's scores on the odd sequences, recomputed from its own words where it is a
    set of tokens, and no rule for what does not fire."""
    found, dense = feature_hypotheses(store, 0, max_named=8), store.csr(0).toarray()
    ids, (sequence, position) = store.corpus.tokens.numpy(), store.rows.T
    odd = sequence % 2 == 1
    texts = {
        json.dumps(text, ensure_ascii=False): token for token, text in store.token_texts.items()
    }
    assert found[4] is None and len(found) == 12
    checked = 0
    for one in found:
        if one is None or not one.rule.startswith("the token ") or "one of" in one.rule: continue
        back, words = ((1, one.rule.removeprefix("the token before is ")) if "before" in one.rule
                       else (0, one.rule.removeprefix("the token is ")))
        if any(word not in texts for word in words.split(" or ")): continue
        holds = np.isin(
            ids[sequence, position - back], [texts[word] for word in words.split(" or ")]
        )
        fires = dense[:, one.feature] != 0
        assert np.isclose(one.precision, fires[holds & odd].mean()) and np.isclose(
            one.recall, holds[fires & odd].mean()
        ) and one.n_firings == fires[odd].sum()
        assert np.isclose(
            one.f1, 2 * one.precision * one.recall / max(one.precision + one.recall, 1e-9)
        )
        checked += 1
    assert checked >= 3


def test_label_rules_do_not_look_across_sequences(store):
    "The label at the token before is read in the same sequence, and never for position 0."
    names, rules = token_rules(store)
    truth, (sequence, position) = store.corpus.labels.matrix.toarray(), store.rows.T
    before = rules[:, names.index("two, at the token before")].toarray().ravel()
    np.testing.assert_array_equal(before, truth[sequence * 14 + position - 1, 1] & (position > 0))
    np.testing.assert_array_equal(
        rules[:, names.index("two")].toarray().ravel(), truth[sequence * 14 + position, 1]
    )


def test_bank_is_the_sorted_firings(store):
    bank, dense = collect_feature_bank(store, 0, k=20), store.csr(0).toarray()
    truth = store.corpus.labels.matrix.toarray()[store.rows[:, 0] * 14 + store.rows[:, 1]]
    for feature in range(12):
        fired = np.flatnonzero(dense[:, feature])
        expected = np.sort(dense[fired, feature])[::-1][:20]
        np.testing.assert_array_equal(bank.strengths[feature, :len(expected)], expected)
        np.testing.assert_array_equal(dense[bank.rows[feature, :len(expected)], feature], expected)
        assert (bank.rows[feature, len(expected):] == -1).all() and (
            bank.strengths[feature, len(expected):] == 0
        ).all()
        np.testing.assert_allclose(
            bank.label_share[feature], truth[fired].mean(0) if len(fired) else 0, rtol=1e-6
        )


def test_input_pattern_reaches_no_further_than_the_text(tmp_path):
    """In a model whose attention sees nothing (its output is zero) only the token itself
    contributes; beyond the beginning of the text there is NaN."""
    from sae_lens import StandardSAE, StandardSAEConfig
    from sae_lens.saes.sae import SAEMetadata
    from transformers import AutoModelForCausalLM, GPT2Config
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=30, n_positions=32, bos_token_id=0,
                   eos_token_id=0)
    ).eval()
    for block in model.transformer.h: block.attn.c_proj.weight.data.zero_()
    sae = StandardSAE(StandardSAEConfig(d_in=16, d_sae=8, metadata=SAEMetadata(
                                            hook_name="blocks.1.hook_resid_pre", model_name="tiny"
                                        ))).requires_grad_(False)
    corpus = Corpus(torch.randint(1, 30, (20, 6)), torch.full((20,), 6), starts_with_bos=True)
    from feature_interaction_graph.activations import collect_activations
    from feature_interaction_graph.config import Config
    store = collect_activations(
        model, {1: sae}, Config(output_dir=str(tmp_path), importance_method="frequency"), corpus,
        progress=False
    )
    feature = int(store.frequency(1).argmax())
    pattern = feature_input_pattern(model, {1: sae}, 1, feature, store, reach=8, n_firings=500)
    assert (pattern.mean[0] > 0 and np.allclose(pattern.mean_absolute[1:6], 0, atol=1e-7)
            and np.isnan(pattern.mean[6:]).all())
    with pytest.raises(InputError, match="names feature 99"):
        feature_input_pattern(model, {1: sae}, 1, 99, store)
