"""Dashboards of features in a real browser: every number a person reads is computed again here from
the store, the SAE and the graph; no text of others ever runs; nothing is asked of a network.

Skipped where no Chromium is installed.
"""
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
import pytest
import torch
from headless import Browser, browsing
from test_visualization_browser import ATTACKED, HOSTILE

from feature_interaction_graph.activations import collect_activations
from feature_interaction_graph.config import Config
from feature_interaction_graph.dictionary.examples import firings
from feature_interaction_graph.dictionary.rules import Explanation, explain_features
from feature_interaction_graph.dictionary.store import ActivationStore, firings_of, write_store
from feature_interaction_graph.drawing.dashboards import cards_in, render_dashboards
from feature_interaction_graph.drawing.feature_cards import feature_cards
from feature_interaction_graph.engine.corpus import Corpus, TokenLabels
from feature_interaction_graph.features import feature_table
from feature_interaction_graph.loading import load_corpus, load_model_and_saes


class Shown(NamedTuple):
    "A page and what it was made of."
    path: Path
    store: ActivationStore
    saes: dict[int, Any]
    graph: nx.DiGraph
    rules: list[Explanation]
    features: list[int]


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with browsing(chromium) as browser:
        browser.size(1280, 900)
        yield browser


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    folder = tmp_path_factory.mktemp("dashboards")
    cfg = Config.preset("demo", n_tokens=8_000, n_importance_tokens=1_000, output_dir=str(folder))
    model, saes = load_model_and_saes(cfg)
    store = collect_activations(model, saes, cfg, load_corpus(cfg, model), progress=False)
    features = np.argsort(-store.frequency(2))[:60].tolist()
    G = nx.DiGraph()
    for name in ("L1_F5", f"L2_F{features[0]}", "L3_F7"): G.add_node(name, label=f"about {name}")
    G.add_edge("L1_F5", f"L2_F{features[0]}", strength=0.512, q_value=1e-5,
               interaction_type="excitatory", ci_lower=0.4, ci_upper=0.6, strength_std=0.25)
    G.add_edge(f"L2_F{features[0]}", "L3_F7", strength=-2.25, q_value=3e-9,
               interaction_type="inhibitory")
    rules = explain_features(store, 2, features[:10])
    path = folder / "features.html"
    render_dashboards(store, path, [(2, feature) for feature in features], "Sixty features",
                      model=model, saes=saes, graph=G, rules=rules, n_positions=4)
    return Shown(path, store, saes, G, rules, features)


def said(value: float, digits: int = 3) -> str:
    "A number as the page writes it."
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e6):
        mantissa, power = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(power):+d}".replace("e+", "e+").replace("-", "−")
    return f"{float(f'{value:.{digits}g}'):g}".replace("-", "−")


def test_numbers_of_a_feature_are_those_of_the_store(shown: Shown, browser: Browser) -> None:
    store = shown.store
    for feature in (shown.features[0], shown.features[17], shown.features[-1]):
        browser.open(shown.path, f"#L2_F{feature}")
        text, values = browser.text("#card"), firings(store, 2, feature)[1].astype(np.float64)
        assert browser.facts()["selected"] == f"L2_F{feature}"
        ends = [said(each) for each in np.quantile(values, (0.1, 0.5, 0.9))]
        for piece in (f"{said(100 * len(values) / store.n_tokens)} % of positions",
                      f"firings {len(values):,}", " / ".join(ends),
                      f"{said(values.mean())} ± {said(values.std())}",
                      f"maximum {said(values.max())}"):
            assert piece in text, (piece, text[:600])
        bars = browser.do("return [...document.querySelectorAll('svg rect title')]"
                          ".map(one => parseInt(one.textContent))")
        assert bars == np.histogram(values, 24)[0].tolist()


def test_labels_stand_beside_their_base_rates(shown: Shown, browser: Browser) -> None:
    feature, store = shown.features[3], shown.store
    browser.open(shown.path, f"#L2_F{feature}")
    rows = browser.do("return [...[...document.querySelectorAll('table')].find(one => one.innerText"
                      ".startsWith('label')).querySelectorAll('tbody tr')].map(row => "
                      "[...row.children].map(cell => cell.textContent))")
    place = store.rows[:, 0] * store.corpus.tokens.shape[1] + store.rows[:, 1]
    truth = store.corpus.labels.matrix[place].toarray() != 0
    at, names = firings(store, 2, feature)[0], list(store.corpus.labels.names)
    assert rows
    for name, share, base, lift, _ in rows:
        number = names.index(name)
        here, anywhere = truth[at, number].mean(), truth[:, number].mean()
        assert share == f"{said(100 * here)} %" and base == f"{said(100 * anywhere)} %"
        assert lift == f"{said(here / anywhere, 2)}×"


def test_neighbours_edges_and_rules_are_told(shown: Shown, browser: Browser) -> None:
    feature = shown.features[0]
    browser.open(shown.path, f"#L2_F{feature}")
    text, vectors = browser.text("#card"), shown.saes[2].W_dec.detach().double()
    cosines = torch.nn.functional.cosine_similarity(vectors[feature], vectors)
    cosines[feature] = -2
    closest = int(cosines.argmax())
    assert re.search(rf"L2_F{closest}\b[^L]* {re.escape(said(cosines[closest].item(), 2))}", text)
    assert "L1_F5 about L1_F5 excitatory +0.512 +0.25 1.0e−5" in text
    assert "L3_F7 about L3_F7 inhibitory −2.25 3.0e−9" in text
    rule = shown.rules[0]
    for piece in (rule.rule, f"F1 {said(rule.scores.f1, 2)}", f"AUROC {said(rule.scores.auroc, 2)}",
                  f"precision {said(rule.scores.precision, 2)}"):
        assert piece in text, piece


def test_tokens_are_coloured_by_their_activation(shown: Shown, browser: Browser) -> None:
    feature, store = shown.features[1], shown.store
    browser.open(shown.path, f"#L2_F{feature}")
    rows, values = firings(store, 2, feature)
    best = int(rows[np.argmax(np.abs(values))])
    sequence, position = store.rows[best].tolist()
    first = browser.do("return document.querySelector('#card ol li').innerText")
    texts = [store.token_texts[int(token)] for token in
             store.corpus.tokens[sequence, max(0, position - 12):position + 1]]
    assert "".join(texts).strip() in first.replace("↵", "\n")
    titles = browser.do("return [...document.querySelectorAll('#card ol li:first-child .text')]"
                        "[0].querySelectorAll('.firing')[0].title")
    assert titles == f"activation {said(np.abs(values).max())}"
    card = cards_in(shown.path.read_text(encoding="utf-8"))["cards"][1]
    pattern = card["top"][0]["pattern"]
    told = browser.do("return document.querySelector('.why .firing').title")
    assert told == f"adds {'+' if pattern[-1] > 0 else ''}{said(pattern[-1])}"


def test_features_are_found_sorted_and_walked_through(shown: Shown, browser: Browser) -> None:
    browser.open(shown.path)
    assert browser.text("#found") == "60 of 60" and browser.text("#counts").startswith("60 feat")
    browser.do("await set('search', 'sentence_end', 'input'); return 1")
    items = browser.do("return [...document.querySelectorAll('.item')].map(one => one.innerText)")
    assert items and int(browser.text("#found").split()[0]) >= len(items) >= 1
    browser.do("await set('search', '/^l2_f\\\\d+ /', 'input'); return 1")
    assert browser.text("#found") == "60 of 60"
    browser.do("await set('search', '/(/', 'input'); return 1")
    assert "no regular expression" in browser.text("#found")
    browser.do("await set('search', '', 'input'); await set('sort', 'max', 'change'); return 1")
    values = [float(text.split("maximum ")[1]) for text in browser.do(
        "return [...document.querySelectorAll('.item')].map(one => one.innerText)")]
    assert values == sorted(values, reverse=True)
    assert np.isclose(values[0], shown.store.statistics(2)["max"][shown.features].max(), rtol=1e-2)
    browser.do("document.activeElement.blur(); return 1")
    before = browser.facts()["selected"]
    for key in ("j", "j", "k"): browser.key(key)
    assert browser.facts()["selected"] != before
    assert browser.do("location.hash").endswith(browser.facts()["selected"])
    browser.do("await push('theme'); return 1")
    assert browser.do("document.documentElement.dataset.theme") == "dark"


def test_a_neighbour_in_the_page_is_a_link_to_it(shown: Shown, browser: Browser) -> None:
    browser.open(shown.path)
    there = browser.do("for (const one of document.querySelectorAll('.item')) { one.click(); await "
                       "wait(2); const link = document.querySelector('.jump'); if (link) { const "
                       "name = link.textContent.split(' ')[0]; link.click(); await wait(2); return "
                       "[name, document.body.dataset.selected]; } } return null")
    assert there and there[0] == there[1]


def test_nothing_is_asked_of_a_network(shown: Shown, browser: Browser) -> None:
    browser.open(shown.path)
    for _ in range(5): browser.key("j")
    assert not browser.faults
    assert all(each.split("#")[0] in ("about:blank", shown.path.resolve().as_uri())
               for each in browser.requests)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ActivationStore]:
    "A store whose tokens and labels are all hostile, and its page."
    folder = tmp_path_factory.mktemp("hostile")
    n = len(HOSTILE)

    class Tokenizer:
        def decode(self, ids: list[int]) -> str: return "".join(HOSTILE[token] for token in ids)

    rng = np.random.default_rng(0)
    tokens = torch.as_tensor(rng.integers(0, n, (20, 12)))
    labels = TokenLabels(list(HOSTILE[:4]), _one_hot(tokens.numpy().ravel() % 4))
    corpus = Corpus(tokens, torch.full((20,), 12), starts_with_bos=False, labels=labels)
    fires = torch.nn.functional.one_hot(tokens, n).reshape(-1, n).float() * 2.5
    with write_store(folder / "hostile.h5", corpus, {0: ("blocks.0.hook_resid_pre", n)},
                     tokenizer=Tokenizer()) as writers:
        writers[0].add(firings_of(fires))
    store = ActivationStore.open(folder / "hostile.h5")
    names = {(0, number): text for number, text in enumerate(HOSTILE)}
    rules = [{"id": f"L0_F{number}", "label": text, "f1": 0.5}
             for number, text in enumerate(HOSTILE)]
    G = nx.DiGraph()
    for number, text in enumerate(HOSTILE): G.add_node(f"L0_F{number}", label=text)
    G.add_edge("L0_F0", "L0_F1", strength=1.0, interaction_type=HOSTILE[0])
    G.add_node("L9_F1", label=HOSTILE[1])
    G.add_edge("L0_F0", "L9_F1", strength=1.0, interaction_type=HOSTILE[2])
    path = folder / "hostile.html"
    render_dashboards(store, path, title=HOSTILE[0] + HOSTILE[1], rules=rules, graph=G,
                      table=feature_table(store).with_labels(names))
    return path, store


def _one_hot(numbers: np.ndarray) -> Any:
    import scipy.sparse
    return scipy.sparse.csr_matrix(np.eye(4)[numbers])


def test_hostile_texts_are_shown_as_text(hostile, browser: Browser, tmp_path: Path) -> None:
    path, _ = hostile
    for number, text in enumerate(HOSTILE):
        browser.open(path, f"#L0_F{number}")
        title = browser.do("return document.querySelector('#card h2 bdi').textContent")
        assert title == re.sub(r"[\x00-\x1f]", "␣", text)
        assert browser.do(ATTACKED) == "" and not browser.faults
        assert browser.do("return document.querySelectorAll('#card script, #card img, nav img, "
                          "#card svg[onload]').length") == 0
    browser.open(path, "#L0_F0")
    # an edge to a feature that is not in the page is told, but leads nowhere
    assert "L9_F1" in browser.text("#card")
    wide = browser.do("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1]
    assert all(each.split("#")[0] in ("about:blank", path.resolve().as_uri())
               for each in browser.requests)


def test_a_small_screen_has_no_sideways_scrolling(shown: Shown, hostile, browser: Browser) -> None:
    browser.size(390, 800, phone=True)
    try:
        for path in (shown.path, hostile[0]):
            browser.open(path)
            wide = browser.do("return [document.documentElement.scrollWidth, innerWidth]")
            assert wide[0] <= wide[1], wide
    finally: browser.size(1280, 900)


def test_a_hostile_address_selects_nothing(shown: Shown, browser: Browser) -> None:
    for fragment in ("#<img src=x>", "#L99_F1", "#constructor", "#%", "#%ff"):
        browser.open(shown.path, fragment)
        assert browser.facts()["selected"] == f"L2_F{shown.features[0]}"


def test_a_link_to_neuronpedia_is_shown_where_the_sae_has_one(hostile, browser: Browser,
                                                             tmp_path: Path) -> None:
    _, store = hostile
    metadata = SimpleNamespace(neuronpedia_id="gpt2-small/6-res-jb")
    eye = torch.eye(len(HOSTILE))
    sae = SimpleNamespace(W_dec=eye, W_enc=eye, cfg=SimpleNamespace(
        metadata=SimpleNamespace(hook_name="blocks.0.hook_resid_pre", **vars(metadata))))
    from feature_interaction_graph.drawing.feature_cards import CardOptions, add_neighbours
    cards = {3: {}}
    add_neighbours(cards, 0, CardOptions(saes={0: sae}))
    assert cards[3]["link"] == "https://www.neuronpedia.org/gpt2-small/6-res-jb/3"
    from feature_interaction_graph.drawing.dashboards import dashboards_html
    data = feature_cards(store, ["L0_F3"])
    data["cards"][0] |= cards[3]
    path = tmp_path / "link.html"
    path.write_text(dashboards_html(data, "x"), encoding="utf-8")
    browser.open(path)
    link = browser.do("const a = document.querySelector('#card a'); return [a.href, a.rel, "
                      "a.target]")
    assert link == [cards[3]["link"], "noopener noreferrer", "_blank"]
    assert len([each for each in browser.requests if each.startswith("http")]) == 0
