"""The explorer page in a real browser: what is drawn, what the panel says, what its controls do,
and that no label and no foreign script ever runs.

Skipped where no Chromium is installed.
"""
import html
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from feature_interaction_graph.graph import load_graph
from feature_interaction_graph.visualization import (
    render_cascade_overlay, render_interactive_graph, render_neighborhood
)

CHROMIUM = os.environ.get("CHROMIUM") or next(
    (path for name in ("chromium", "chromium-browser", "google-chrome")
     if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason="no Chromium to open the page with; install chromium or set CHROMIUM to its path"
)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--force-device-scale-factor=1", "--run-all-compositor-stages-before-draw",
    "--virtual-time-budget=12000", "--window-size=1400,900"
]
MARK = "document.documentElement.setAttribute('data-attacked', 'yes')"
HOSTILE = [f"<script>{MARK}</script>", f"</script><script>{MARK}</script>",
           f"<img src=x onerror=\"{MARK}\">", f"\"><svg onload={MARK}>", f"javascript:{MARK}",
           "<!--<script>"]


def browse(path: Path, fragment: str = "", *more: str) -> str:
    "What Chromium prints for the page at `path`; its profile lives beside the page."
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={path.parent / 'profile'}", *more,
               path.resolve().as_uri() + fragment]
    return subprocess.run(command, capture_output=True, timeout=120, check=True).stdout.decode(
        "utf-8", "replace"
    )


def document(path: Path, fragment: str = "") -> str: return browse(path, fragment, "--dump-dom")


def facts(dom: str) -> dict[str, str]:
    "The data-… attributes that the page keeps on its body."
    return dict(re.findall(r'data-([\w-]+)="([^"]*)"', re.search(r"<body[^>]*>", dom)[0]))


def panel(dom: str) -> str:
    "The text of the side panel."
    return html.unescape(
        re.sub(r"<[^>]*>", " ", re.search(r"<aside.*?</aside>", dom, re.DOTALL)[0])
    )


def driven(path: Path, script: str) -> Path:
    """A copy of the page that also runs `script` after it has started: without the page's policy,
    which would (rightly) refuse it."""
    page = path.read_text(encoding="utf-8")
    page, removed = re.subn(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", page)
    assert removed == 1
    # a browser without a screen gives frames when it likes: here a clock gives them
    prelude = """
      const answer = {}, $ = id => document.getElementById(id),
        drawn = () => new Promise(done => setTimeout(done, 250)),
      later = steps => steps.reduce((chain, step) => chain.then(step).then(drawn), drawn())
      .catch(error => { answer.error = String(error); })
      .then(() => document.body.append(Object.assign(
        document.createElement('pre'), { id: 'answer', textContent: JSON.stringify(answer) })));
      HTMLElement.prototype.setPointerCapture = () => {};
      window.requestAnimationFrame = step => setTimeout(step, 16);"""
    copy = path.with_name("driven.html")
    copy.write_text(
        page.replace("</body>", f"<script>(() => {{ {prelude} {script} }})();</script></body>"),
        encoding="utf-8"
    )
    return copy


def answer(path: Path, script: str, fragment: str = "") -> dict:
    """What `script` found out: it fills `answer` in the steps of `later([step, step, …])`; the page
    is drawn anew after each."""
    dom = document(driven(path, script), fragment)
    found = json.loads(html.unescape(re.search(r'<pre id="answer">(.*?)</pre>', dom, re.DOTALL)[1]))
    assert "error" not in found, found
    return found


def layered_graph(n_layers: int, per_layer: int, probability: float, seed: int = 0) -> nx.DiGraph:
    rng = np.random.default_rng(seed)
    G = nx.DiGraph(
        selection={"tested": 4321, "significance_level": 0.01},
        counts={"attempted": 5000, "measured": 4321, "skipped": {"too few samples": 679}}
    )
    for layer in range(n_layers):
        for feature in range(per_layer):
            G.add_node(f"L{layer}_F{feature}", layer=layer, feature_idx=feature,
                       label=f"words of kind {layer}{chr(97 + feature % 26)}",
                       importance=float(rng.lognormal()), activation_freq=float(rng.beta(1, 20)))
    for source in G:
        for target in G:
            if (0 < G.nodes[target]["layer"] - G.nodes[source]["layer"] <= 2
                and rng.random() < probability):
                strength = float(rng.normal())
                G.add_edge(source, target, strength=strength, abs_strength=abs(strength),
                           strength_std=strength / 2,
                           interaction_type="excitatory" if strength > 0 else "inhibitory",
                           ci_lower=strength - 0.1, ci_upper=strength + 0.1, q_value=1e-4,
                           n_samples=100, offset=0, method="clamping")
    return G


@pytest.fixture(scope="module")
def G() -> nx.DiGraph: return layered_graph(6, 50, 0.02)


@pytest.fixture(scope="module")
def page(G: nx.DiGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "graph.html"
    render_interactive_graph(
        G, path, "Three hundred features", top_contexts={"L1_F3": ["he said «hello» to her"]}
    )
    return path


def test_the_whole_graph_is_drawn_and_counted(G, page):
    dom = document(page)
    found = facts(dom)
    assert found["ready"] == "true" and int(found["nodes-drawn"]) == 300 and found["selected"] == ""
    assert int(found["edges-drawn"]) == min(G.number_of_edges(), 600)
    assert ("300 features" in dom and "4,321 interactions tested" in dom
            and "679 too few samples" in dom)
    overview = panel(dom)
    strongest = max(G.edges(data=True), key=lambda edge: abs(edge[2]["strength"]))
    assert ("Overview" in overview and G.nodes[strongest[0]]["label"] in overview
            and G.nodes[strongest[1]]["label"] in overview)


def test_the_picture_has_both_colours_and_nodes_everywhere(page, tmp_path):
    from PIL import Image
    browse(page, "", f"--screenshot={tmp_path / 'page.png'}")
    pixels = np.asarray(
        Image.open(io.BytesIO((tmp_path / "page.png").read_bytes())).convert("RGB")
    ).astype(int)[100:, :1040]
    def near(colour: tuple[int, int, int], distance: int = 60) -> np.ndarray:
        return np.abs(pixels - colour).sum(axis=-1) < distance
    assert near((0x64, 0x74, 0x8A)).sum() > 5000                       # nodes
    toward_green = pixels[..., 1] - pixels[..., 0] > 40
    toward_red = pixels[..., 0] - pixels[..., 2] > 50
    # thin, half transparent curves
    assert toward_green.sum() > 5000 and toward_red.sum() > 2000
    columns = np.flatnonzero(near((0x64, 0x74, 0x8A)).sum(axis=0) > 60)
    # six layers, apart, over the whole width
    assert columns.min() < 80 and columns.max() > 850 and (np.diff(columns) > 30).sum() >= 5


def test_an_address_opens_the_panel_of_a_feature(G, page):
    dom = document(page, "#select=L1_F3")
    text = panel(dom)
    assert (facts(dom)["selected"] == "L1_F3" and "words of kind 1d" in text
            and "L1_F3 · layer 1, feature 3" in text and "<mark>hello</mark>" in dom)
    assert re.search(
        rf"edges in\s+{G.in_degree('L1_F3')}\s+edges out\s+{G.out_degree('L1_F3')}\s", text
    )
    neighbours = [*G.successors("L1_F3"), *G.predecessors("L1_F3")]
    assert len(neighbours) > 1 and all(neighbour in text for neighbour in neighbours)
    for neighbour in G.successors("L1_F3"):
        strength = G.edges["L1_F3", neighbour]["strength"]
        assert f"{strength:+.3g}".replace("-", "−") in text
    for title, edges, sign in (
        ("It excites", G.out_edges, 1), ("It inhibits", G.out_edges, -1),
        ("It is excited by", G.in_edges, 1), ("It is inhibited by", G.in_edges, -1)
    ):
        expected = sum(strength * sign > 0 for *_, strength in edges("L1_F3", data="strength"))
        assert (re.search(rf"{title}\s+{expected}\s", text) is not None) if expected else (
            title not in text
        )


def test_an_address_sets_filters_and_hops(G, page):
    strong = [edge for edge in G.edges(data=True) if edge[2]["strength"] >= 0.5]
    assert int(facts(document(page, "#min=0.5&types=excitatory"))["edges-drawn"]) == len(strong)
    reached = {"L1_F3", *G.successors("L1_F3"), *G.predecessors("L1_F3")}
    found = facts(document(page, "#select=L1_F3&hops=1&min=0"))
    assert (int(found["nodes-drawn"]) == len(reached)
            and int(found["edges-drawn"]) == G.subgraph(reached).number_of_edges())
    nonsense = facts(document(page, "#select=L99_F99&hops=77&min=abc&types=none&measure=%3Cb%3E"))
    assert (nonsense["selected"] == "" and int(nonsense["nodes-drawn"]) == 300
            and nonsense["edges-drawn"] == "0")


def test_search_toggles_slider_and_keys_do_what_they_say(G, page):
    script = """
      const type = text => {
        $('search').focus(); $('search').value = text;
        $('search').dispatchEvent(new Event('input'));
      };
      const press = (key, target = document.body) =>
        target.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
      const edges = () => Number(document.body.dataset.edgesDrawn),
        selected = () => document.body.dataset.selected;
      later([
        () => type('kind 2c'), () => {
          answer.found = [...$('results').querySelectorAll('small')]
            .map(row => row.textContent.split(' ')[0]);
          press('Enter', $('search')); },
        () => { answer.chosen = selected(); },
        () => type('l4_f7'), () => {
          answer.exact = $('results').querySelector('small').textContent.split(' ')[0];
          press('Enter', $('search')); },
        () => { answer.chosenById = selected(); answer.address = location.hash; },
        () => type('no such words'),
        () => { answer.nothing = $('results').textContent; press('Escape', $('search')); },
        () => history.back(), () => { answer.back = selected(); },
        () => press('Escape'), () => { answer.cleared = selected(); answer.before = edges(); },
        () => $('types').querySelector('input[value=inhibitory]').click(),
        () => { answer.excitatory = edges(); },
        () => { $('slider').value = 0; $('slider').dispatchEvent(new Event('input'));
          $('slider').dispatchEvent(new Event('change')); },
        () => { answer.allExcitatory = edges(); },
        () => { $('slider').value = 1000; $('slider').dispatchEvent(new Event('input'));
          $('slider').dispatchEvent(new Event('change')); },
        () => { answer.strongest = edges(); answer.shown = $('shown').textContent; },
        () => { $('measure').value = 'strength_std';
          $('measure').dispatchEvent(new Event('change')); },
        () => { answer.unit = $('panel').textContent; },
      ]);"""
    found = answer(page, script)
    assert set(found["found"]) == {
        node for node, label in G.nodes(data="label") if "kind 2c" in label
    } and found["chosen"] in found["found"]
    assert (found["exact"] == found["chosenById"] == "L4_F7" and found["address"] == "#select=L4_F7"
            and "no feature" in found["nothing"])
    assert found["back"] == found["chosen"] and found["cleared"] == ""
    sizes = sorted((abs(strength) for *_, strength in G.edges(data="strength")), reverse=True)
    threshold = sizes[599] if len(sizes) > 600 else 0
    assert found["before"] == min(600, len(sizes)) and found["excitatory"] == sum(
        strength >= max(threshold, 1e-12) for *_, strength in G.edges(data="strength")
    )
    assert found["allExcitatory"] == sum(strength > 0 for *_, strength in G.edges(data="strength"))
    strongest = max(G.edges(data="strength"), key=lambda edge: abs(edge[2]))
    assert found["strongest"] == (strongest[2] > 0) and "standard deviations" in found["unit"]


def test_pointing_names_a_feature_and_clicking_opens_it(G, page):
    script = """
      const canvas = $('canvas'), box = canvas.getBoundingClientRect();
      const at = (kind, x, y) => canvas.dispatchEvent(new PointerEvent(kind, {
        pointerId: 1, clientX: box.left + x, clientY: box.top + y, bubbles: true }));
      let spot = null;
      later([
        () => { for (let x = 20; x < box.width && !spot; x += 4)
          for (let y = 60; y < box.height && !spot; y += 4) { at('pointermove', x, y);
            if (/L\\d+_F\\d+ · /.test($('tip').textContent) && !$('tip').hidden) spot = [x, y]; }
                answer.tip = $('tip').textContent; },
        () => { at('pointerdown', ...spot); at('pointerup', ...spot); },
        () => { answer.selected = document.body.dataset.selected;
          answer.nodes = document.body.dataset.nodesDrawn; },
        () => { at('pointerdown', 500, 300); at('pointermove', 560, 330);
          at('pointerup', 560, 330); },
        () => { answer.afterDrag = document.body.dataset.selected; },
        () => { const row = $('panel').querySelector('section .row');
          answer.row = row.textContent; row.click(); },
        () => { answer.followed = document.body.dataset.selected; },
      ]);"""
    found = answer(page, script)
    first = re.search(r"L\d+_F\d+", found["tip"])[0]
    assert (
        found["selected"] == first == found["afterDrag"] and G.nodes[first]["label"] in found["tip"]
        and f"{G.in_degree(first)} in, {G.out_degree(first)} out" in found["tip"]
    )
    assert (found["followed"] in {*G.successors(first), *G.predecessors(first)}
            and G.nodes[found["followed"]]["label"] in found["row"])


def test_what_is_shown_can_be_saved_and_loaded_again(G, page, tmp_path):
    script = """
      window.Blob = class extends Blob { constructor(parts, options) {
        super(parts, options); answer[options.type] = String(parts[0]); } };
      HTMLCanvasElement.prototype.toBlob = function (done) {
        done(new Blob([this.toDataURL()], { type: 'image/png' })); };
      URL.createObjectURL = () => '#';
      later([() => $('json').click(), () => $('png').click()]);"""
    found = answer(page, script, "#select=L1_F3&hops=1&min=0")
    (tmp_path / "subgraph.json").write_text(found["application/json"])
    piece = load_graph(tmp_path / "subgraph.json")
    expected = G.subgraph({"L1_F3", *G.successors("L1_F3"), *G.predecessors("L1_F3")})
    assert (set(piece) == set(expected) and set(piece.edges) == set(expected.edges)
            and found["image/png"].startswith("data:image/png;base64,iVBOR"))
    for edge in expected.edges:
        assert piece.edges[edge]["strength"] == pytest.approx(
            expected.edges[edge]["strength"], rel=1e-5
        ) and piece.edges[edge]["interaction_type"] == expected.edges[edge]["interaction_type"]
    assert piece.nodes["L1_F3"]["label"] == G.nodes["L1_F3"]["label"]


@pytest.fixture(scope="module")
def gated(G: nx.DiGraph) -> nx.DiGraph:
    """The graph with three gates: of the strongest edge, of a pair without a mean effect, and with
    a gate that has no edges of its own."""
    gated, (source, target, _) = G.copy(), max(
        G.edges(data="strength"), key=lambda edge: abs(edge[2])
    )
    others = [node for node in G if node not in (source, target)]
    silent, unmoved = next((first, second) for first in others for second in others
                           if G.nodes[first]["layer"] == 1 and G.nodes[second]["layer"] == 3
                           and not G.has_edge(first, second))
    gated.add_node("L0_F999", layer=0, feature_idx=999, label="a gate and nothing else",
                   importance=0.0, activation_freq=0.1)
    def gate(source, gate, target, direction, off, on):
        return {"source": source, "gate": gate, "target": target, "direction": direction,
                "effect_off": off, "effect_on": on, "interaction": on - off,
                "ci_lower": on - off - 0.1, "ci_upper": on - off + 0.1, "p_value": 1e-7,
                "q_value": 1e-6, "n_samples": 60, "offset": 0}
    gated.graph["hyperedges"] = [gate(source, others[0], target, "NOT", 0.81, 0.0),
                                 gate(silent, "L0_F999", unmoved, "sign-flip", -1.5, 1.5),
                                 gate(silent, others[1], unmoved, "AND", 0.0, 0.5)]
    gated.edges[source, target].update(gated_by=f"{others[0]} NOT", n_gates=1, gate_strength=0.81)
    gated.add_edge(silent, unmoved, strength=0.0, strength_std=0.0, interaction_type="gating",
                   gated_by=f"L0_F999 sign-flip; {others[1]} AND", n_gates=2, gate_strength=3.0,
                   ci_lower=-0.2, ci_upper=0.2, q_value=0.8, n_samples=60, offset=0)
    return gated


def test_gates_are_listed_drawn_and_saved(G, gated, tmp_path):
    path, (first, second, _) = tmp_path / "gated.html", gated.graph["hyperedges"]
    render_interactive_graph(gated, path)
    overview = document(path)
    assert "gating 1" in overview and re.search(
        r"Strongest gates.*sign-flip", panel(overview), re.DOTALL
    ) and facts(overview)["gates-drawn"] == "0"
    dom = document(path, f"#select={second['source']}")
    text = " ".join(panel(dom).split())
    assert (f"{G.nodes[second['source']]['label']} flipped by a gate and nothing else → "
            f"{G.nodes[second['target']]['label']} off −1.50, on +1.50"
            in text and "Gated, it acts on 1" in text and "off 0.00, on +0.50" in text)
    assert (f"{second['source']} flipped by L0_F999 → {second['target']} · sign-flip · "
            "difference +3 [2.9, 3.1] · q 1.0e−6 · n 60") in text
    assert facts(dom)["gates-drawn"] == "2" and facts(dom)["selected"] == second["source"]
    assert re.search(r"Gates of effects on it 1 .* AND NOT .* off \+0.81, on 0.00",
                     " ".join(panel(document(path, f"#select={first['target']}")).split()))
    gate_only = " ".join(panel(document(path, "#select=L0_F999")).split())
    assert "Effects it gates 1" in gate_only and "edges in 0 edges out 0" in gate_only
    # the gate, the target of what it gates; not the source
    around = facts(document(path, "#select=L0_F999&hops=1&min=2.5"))
    assert around["nodes-drawn"] == "2" and around["edges-drawn"] == "0"
    # a mean of 0 with an interaction of 3 passes 2.5
    both = facts(document(path, "#select=L0_F999&hops=2&min=2.5"))
    assert both["nodes-drawn"] == "3" and both["edges-drawn"] == "1" and both["gates-drawn"] == "1"
    assert facts(document(path, "#types=excitatory,inhibitory&min=2.9"))["edges-drawn"] == str(
        sum(abs(strength) >= 2.9 for *_, strength in G.edges(data="strength"))
    )
    script = """
      window.Blob = class extends Blob { constructor(parts, options) {
        super(parts, options); answer[options.type] = String(parts[0]); } };
      URL.createObjectURL = () => '#';
      later([() => $('json').click()]);"""
    (tmp_path / "piece.json").write_text(
        answer(path, script, "#select=L0_F999&hops=2&min=2.5")["application/json"]
    )
    piece = load_graph(tmp_path / "piece.json")
    assert piece.graph["hyperedges"] == [second]


def test_a_chosen_edge_lists_its_gates(gated, tmp_path):
    path, gate = tmp_path / "gated.html", gated.graph["hyperedges"][0]
    render_interactive_graph(gated, path)
    script = """
      const canvas = $('canvas'), box = canvas.getBoundingClientRect();
      const at = (kind, x, y) => canvas.dispatchEvent(new PointerEvent(kind, {
        pointerId: 1, clientX: box.left + x, clientY: box.top + y, bubbles: true }));
      let spot = null;
      later([
        () => { for (let x = 20; x < box.width && !spot; x += 3)
          for (let y = 60; y < box.height && !spot; y += 3) { at('pointermove', x, y);
            if (!$('tip').hidden && /AND NOT/.test($('tip').textContent)) {
              spot = [x, y]; answer.tip = $('tip').textContent; } } },
        () => { at('pointerdown', ...spot); at('pointerup', ...spot); },
        () => { answer.selected = document.body.dataset.selected;
          answer.edge = document.getElementById('edge').textContent; },
        () => { $('panel').querySelector('.actions button').click(); },
        () => { answer.cleared = document.getElementById('edge') === null; }]);"""
    strength = gated.edges[gate["source"], gate["target"]]["strength"]
    found = answer(path, script, f"#select={gate['source']}&hops=1&min={abs(strength) * 0.99}")
    label = gated.nodes[gate["gate"]]["label"]
    assert (f"AND NOT {label}: off +0.81, on 0.00" in found["tip"]
            and found["selected"] == gate["source"] and found["cleared"])
    assert (found["edge"].startswith("The edge you chose") and f"AND NOT {label}" in found["edge"]
            and "off +0.81, on 0.00" in found["edge"])


def test_no_label_runs(G, gated, tmp_path):
    hostile = gated.copy()
    assert len(hostile) == 301
    for number, node in enumerate(hostile):
        hostile.nodes[node]["label"] = HOSTILE[number % len(HOSTILE)]
    path = tmp_path / "hostile.html"
    render_interactive_graph(
        hostile, path, HOSTILE[1], top_contexts=dict.fromkeys(G, HOSTILE),
        node_groups={node: HOSTILE[number % 3] for number, node in enumerate(G)}
    )
    dom = document(path, "#select=L1_F1")
    # it is there, as text
    assert ("data-attacked" not in re.search(r"<html[^>]*>", dom)[0]
            and facts(dom)["nodes-drawn"] == "301" and HOSTILE[0] in panel(dom))
    source, gate = (hostile.graph["hyperedges"][1][end] for end in ("source", "gate"))
    # labels of gates too
    assert f"flipped by {hostile.nodes[gate]['label'][:40]}" in " ".join(
        panel(document(path, f"#select={source}")).split()
    )
    unprotected = driven(path, """
      const point = (x, y) => $('canvas').dispatchEvent(new PointerEvent('pointermove',
        { pointerId: 1, clientX: x, clientY: y }));
      later([() => { $('search').focus(); $('search').value = 's';
        $('search').dispatchEvent(new Event('input')); },
      () => { for (let x = 0; x < 900; x += 5) for (let y = 100; y < 800; y += 5) point(x, y); },
      () => {}, () => {}]);""")
    # and it is not the policy alone that keeps it from running
    for fragment in ("", "#select=L1_F1", "#select=" + source, "#select=" + HOSTILE[0]):
        assert "data-attacked" not in re.search(r"<html[^>]*>", document(unprotected, fragment))[0]


def test_the_policy_refuses_every_other_script(page, tmp_path):
    foreign = f"<script>{MARK}</script><img src=x onerror=\"{MARK}\">"
    text = page.read_text(encoding="utf-8").replace("</body>", foreign + "</body>")
    guarded, open_door = tmp_path / "guarded.html", tmp_path / "open.html"
    guarded.write_text(text, encoding="utf-8")
    open_door.write_text(
        re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", text), encoding="utf-8"
    )
    assert "data-attacked" not in re.search(r"<html[^>]*>", document(guarded))[0]
    # the same attack without the policy: this test can fail
    assert "data-attacked" in re.search(r"<html[^>]*>", document(open_door))[0]


def test_neighbourhood_overlay_and_frame_open_too(G, tmp_path):
    around = tmp_path / "around.html"
    steered = tmp_path / "steered.html"
    notebook = tmp_path / "notebook.html"
    shown = render_neighborhood(G, "L2_F4", 1, around)
    render_cascade_overlay(G, {"L3_F1": 0.5, "L4_F2": -2.0}, "L2_F4", steered)
    assert facts(document(around))["selected"] == "L2_F4"
    assert re.search(r"predicted change\s+−2", panel(document(steered, "#select=L4_F2")))
    notebook.write_text(f"<body>{shown._repr_html_()}</body>", encoding="utf-8")
    from PIL import Image
    # the frame in the page's own process: the screenshot does not wait for another one
    browse(notebook, "", "--disable-features=IsolateSandboxedIframes",
           f"--screenshot={tmp_path / 'frame.png'}")
    pixels = np.asarray(Image.open(tmp_path / "frame.png").convert("RGB")).astype(int)
    assert ((pixels[..., 1] - pixels[..., 0]) > 60).sum() > 200            # its green curves
