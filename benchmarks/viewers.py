"""The same graphs in four viewers, side by side: bytes, seconds to the first picture, milliseconds
of a frame.

`python benchmarks/viewers.py --others FOLDER` draws the graph of the demo and one of 20,000
features and 100,000 edges with the explorer, with pyvis, with ipysigma and, in circuit-tracer's
JSON, with the page that circuit-tracer brings. All in one run, in one headless Chromium, on the
processor alone, each as its own documentation says to use it. FOLDER holds what is not of this
project; what is absent from it is named in the result and not measured:

- `ipysigma`: `pip install --target FOLDER/ipysigma ipysigma`;
- `circuit-tracer`: its `circuit_tracer/frontend/assets`;
- `npm`: `d3.min.js` of d3, `d3-collection.min.js` of d3-collection, `d3-jetpack.cjs` of d3-jetpack
  2.2 and `dagre.min.js` of @dagrejs/dagre, which that page loads from elsewhere.

Other viewers load parts of themselves from the network. They are given these from FOLDER or, where
the picture does without them, not at all; which addresses they name is counted. The script of
ipysigma is a widget's: it runs on the least that it needs of a notebook, and its WebGL is drawn by
the processor. A frame is the time from an event of the mouse to the picture after it. Where there
is no picture after `--limit` seconds, the result says so and nothing more is tried.
"""
import argparse
import contextlib
import functools
import http.server
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "tests")]
import headless
import networkx as nx
from graph_files import large_graph
from headless import Browser, browsing
from record import write

from feature_interaction_graph.visualization import render_explorer

REMOTE = re.compile(r"""(?:src|href)=["'](https?://[^"']+)""")
READY = {
    "explorer": "return document.body && document.body.dataset.ready === 'true'",
    # it counts its own steps on a bar that goes when the picture is there
    "pyvis": """const bar = document.getElementById('loadingBar');
      const canvas = document.querySelector('#mynetwork canvas');
      if (!canvas || (bar && getComputedStyle(bar).display !== 'none')) return false;
      const at = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      for (let one = 3; one < at.length; one += 4) if (at[one]) return true;
      return false;""",
    "ipysigma": "return window.drawn === true",
    "circuit-tracer": "return document.querySelectorAll('.link-graph .node').length >= NODES",
}
STAGE = {"explorer": "#over", "pyvis": "#mynetwork", "ipysigma": ".ipysigma-container",
         "circuit-tracer": ".link-graph"}
# where a viewer has no such gesture there is nothing to time
GESTURES = dict.fromkeys(READY, ("hover", "zoom", "pan")) | {"circuit-tracer": ("hover",)}
# the window is first to hear of an event: from there to the end of the next frame
WATCH = """
  window.spent = [];
  const channel = new MessageChannel(), begun = [];
  channel.port1.onmessage = () => window.spent.push(performance.now() - begun.shift());
  for (const kind of ['mousemove', 'wheel']) window.addEventListener(kind, () => {
    begun.push(performance.now()); requestAnimationFrame(() => channel.port2.postMessage(0));
  }, { capture: true, passive: true });
  return 1;
"""
# what their d3-jetpack has and the published one has by another name
AXES = """const plain = d3.conventions; d3.conventions = asked => { const c = plain(asked);
  c.drawAxis = svg => d3.drawAxis({ ...c, svg }); return c; };"""
SIGMA = """<!doctype html><meta charset="utf-8"><title>ipysigma</title><body>
<script type="application/json" id="state">STATE</script>
<script>
  class Model { defaults() { return {}; } }
  Model.serializers = {};
  class View { constructor({ model }) { this.model = model;
    this.displayed = Promise.resolve(); this.el = document.createElement('div');
    this.el.style.cssText = 'width:1240px'; document.body.append(this.el); }
    render() {} touch() {} listenTo() {} }
  window.define = (needed, make) => { window.made = make({ DOMWidgetModel: Model,
    DOMWidgetView: View }); };
</script>
<script>SCRIPT</script>
<script>
  const state = JSON.parse(document.getElementById('state').textContent);
  const kind = made.SigmaView || Object.values(made).find(one => one && one.prototype
    && one.prototype.render);
  const view = new kind({ model: { get: key => state[key], set() {}, on() {}, off() {},
    save_changes() {}, listenTo() {} } });
  view.render();
  requestAnimationFrame(() => requestAnimationFrame(() => { window.drawn = true; }));
</script>"""
FLAT = """
import json, sys, networkx as nx
sys.path.insert(0, sys.argv[1])
from ipysigma import Sigma
G = nx.node_link_graph(json.load(open(sys.argv[2])), edges="edges")
sigma = Sigma(G, edge_weight="weight")
json.dump({name: value for name, value in sigma.get_state().items() if name != "layout"
           and not name.startswith("_")}, open(sys.argv[3], "w"), default=str)
Sigma.write_html(G, sys.argv[4], edge_weight="weight")
"""


class Viewer:
    "Something that a browser opens: where, bytes of its file, what it asks the network for."

    def __init__(self, address: str, size: int, text: str, note: str = "") -> None:
        self.address, self.size, self.note = address, size, note
        self.remote = sorted(set(REMOTE.findall(text)))


def plain(G: nx.DiGraph) -> nx.DiGraph:
    "Labels and weights under the names that other viewers read."
    H = nx.DiGraph()
    for node, facts in G.nodes(data=True):
        H.add_node(node, label=facts.get("label") or node, layer=int(facts["layer"]))
    for source, target, edge in G.edges(data=True):
        H.add_edge(source, target, weight=abs(float(edge["strength"])))
    return H


def explorer(G: nx.DiGraph, folder: Path, others: Path) -> Viewer:
    path = folder / "explorer.html"
    render_explorer(G, path)
    return Viewer(path.as_uri(), path.stat().st_size, path.read_text(encoding="utf-8"))


def pyvis(G: nx.DiGraph, folder: Path, others: Path) -> Viewer:
    from pyvis.network import Network
    network = Network(directed=True, cdn_resources="in_line", height="640px")
    path = folder / "pyvis.html"
    network.from_nx(plain(G))
    text = network.generate_html(notebook=False)
    viewer = Viewer(path.as_uri(), len(text.encode()), text,
                    "without the two files of Bootstrap that its page asks for")
    path.write_text(re.sub(r"<(link|script)[^>]*https?://[^>]*>(</script>)?", "", text), "utf-8")
    return viewer


def ipysigma(G: nx.DiGraph, folder: Path, others: Path) -> Viewer:
    base, graph, state, page = others / "ipysigma", *(folder / name for name in (
        "flat.json", "state.json", "sigma.html"))
    graph.write_text(json.dumps(nx.node_link_data(plain(G), edges="edges")))
    subprocess.run([sys.executable, "-c", FLAT, str(base), str(graph), str(state), str(page)],
                   check=True, env=os.environ | {"PYTHONPATH": str(base)})
    script = (base / "ipysigma/nbextension/index.js").read_text("utf-8")
    text, path = page.read_text("utf-8"), folder / "s.html"
    path.write_text(SIGMA.replace("STATE", state.read_text().replace("</", "<\\/"))
                    .replace("SCRIPT", script.replace("</script", "<\\/script")), "utf-8")
    return Viewer(path.as_uri(), page.stat().st_size, text,
                  "the file that write_html makes; WebGL drawn by the processor")


def circuit_tracer(G: nx.DiGraph, folder: Path, others: Path) -> Viewer:
    "The graph as the explorer writes it for that page, in a folder that it is served from."
    site, named = folder / "site", others / "circuit-tracer"
    shutil.copytree(named, site)
    shutil.copytree(others / "npm", site / "npm")
    index = (site / "index.html").read_text("utf-8")
    for old, new in (("lib/d3.js", "d3.min.js"), ("lib/jetpack_2024-07-20.js", "d3-jetpack.cjs"),
                     ("dagre.js", "dagre.min.js")):
        index = re.sub(rf"https?://[^'\"]*{re.escape(old)}", f"npm/{new}", index)
    ours = re.sub(r"<script src='https?://[^']*'></script>", "", index).replace(
        "<script src='npm/d3-jetpack.cjs'>",
        "<script src='npm/d3-collection.min.js'></script><script src='npm/d3-jetpack.cjs'>"
        ).replace("<script src='./util.js'>", f"<script>{AXES}</script><script src='./util.js'>")
    (site / "index.html").write_text(ours, "utf-8")
    for name in ("data", "graph_data"): (site / name).mkdir()
    content = (folder / "circuit.json").read_bytes()
    (site / "graph_data" / "interactions.json").write_bytes(content)
    about = json.loads(content)["metadata"]
    (site / "data" / "graph-metadata.json").write_text(json.dumps({"graphs": [about]}))
    return Viewer("/index.html?slug=interactions", len(content),
                  (named / "index.html").read_text("utf-8"),
                  "its JSON, written by the explorer; edges are drawn of the chosen feature only")


VIEWERS = {"explorer": explorer, "pyvis": pyvis, "ipysigma": ipysigma,
           "circuit-tracer": circuit_tracer}
NEEDED = {"ipysigma": ("ipysigma",), "circuit-tracer": ("circuit-tracer", "npm")}


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    "`folder` behind an address that only this machine reaches."
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.func.log_message = lambda *ignored: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try: yield f"http://127.0.0.1:{server.server_port}"
        finally: server.shutdown()


def circuit_json(browser: Browser, page: Path) -> bytes:
    "What the explorer writes for circuit-tracer, of the whole graph."
    browser.open(page, "#min=0&tab=save")
    text = browser.do("""let made; URL.createObjectURL = blob => { made = blob; return '#'; };
      HTMLAnchorElement.prototype.click = () => {}; $('save-circuit').click();
      return made.text();""")
    return text.encode()


def until(browser: Browser, ready: str, limit: float) -> float | None:
    "Seconds from the beginning of the navigation until `ready` holds; None: not within `limit`."
    end = time.monotonic() + limit
    while time.monotonic() < end:
        try:
            found = browser.do(f"const holds = () => {{ {ready} }}; "
                               "return holds() ? performance.now() / 1000 : 0;")
        except TimeoutError: return None
        if found: return round(found, 2)
        time.sleep(0.05)
    return None


def frames(browser: Browser, name: str, limit: float) -> dict[str, Any]:
    "Milliseconds of a frame while the view is dragged, zoomed with the wheel and pointed at."
    box = browser.do(f"const box = document.querySelector('{STAGE[name]}')"
                     ".getBoundingClientRect(); return [box.left, box.top, box.width, box.height];")
    left, top, wide, tall = box[0], box[1], min(box[2], 1240 - box[0]), min(box[3], 780 - box[1])
    browser.do(WATCH)
    def at(step: int) -> tuple[float, float]:
        return left + 40 + (step * 137) % (wide - 80), top + 40 + (step * 71) % (tall - 80)
    found = {}
    for gesture in GESTURES[name]:
        browser.do("window.spent.length = 0; return 1;")
        began, x, y = time.monotonic(), left + wide * 0.45, top + tall * 0.45
        if gesture == "pan": browser.pointer("mousePressed", x, y)
        for step in range(40):
            if time.monotonic() - began > limit: break
            if gesture == "hover": browser.pointer("mouseMoved", *at(step))
            elif gesture == "pan":
                browser.pointer("mouseMoved", x + 4 * step, y + 2 * step, button="left", buttons=1)
            else: browser.pointer("mouseWheel", x, y, deltaX=0, deltaY=-60 if step < 20 else 60)
            browser.do("await wait(2); return 1;")
        if gesture == "pan": browser.pointer("mouseReleased", x, y)
        times = browser.do("return window.spent;")
        found[gesture] = round(statistics.median(times), 1) if times else None
    return found


def drawn(browser: Browser, path: Path) -> float:
    "The share of the middle of the window that is not its commonest colour: was anything drawn?"
    from PIL import Image
    picture = Image.open(browser.picture(path)).convert("RGB").crop((100, 150, 880, 700))
    counted = picture.getcolors(2**24)
    return round(1 - max(many for many, _ in counted) / (picture.width * picture.height), 4)


def measure(name: str, G: nx.DiGraph, folder: Path, asked: argparse.Namespace,
            command: str) -> dict[str, Any]:
    "One viewer on one graph, in a browser of its own."
    absent = [need for need in NEEDED.get(name, ()) if not (asked.others / need).is_dir()]
    if absent: return {"not_measured": f"{', '.join(absent)} not in the folder of other viewers"}
    begun = time.process_time() + sum(os.times()[2:4])
    viewer = VIEWERS[name](G, folder, asked.others)
    numbers: dict[str, Any] = {
        "file_mb": round(viewer.size / 1e6, 2),
        "seconds_to_write": round(time.process_time() + sum(os.times()[2:4]) - begun, 1),
        "asks_the_network_for": len(viewer.remote), "note": viewer.note}
    with contextlib.ExitStack() as stack:
        browser = stack.enter_context(browsing(command))
        address = viewer.address
        if address.startswith("/"): address = stack.enter_context(served(folder / "site")) + address
        browser.size(1280, 800)
        browser.call("Page.navigate", timeout=asked.limit, url=address)
        ready = READY[name].replace("NODES", str(len(G)))
        numbers["first_picture_s"] = until(browser, ready, asked.limit)
        if numbers["first_picture_s"] is None:
            numbers["note"] += f"; no picture within {asked.limit:g} s"
            return numbers
        time.sleep(1.0)
        numbers["share_drawn"] = drawn(browser, folder / f"{name}.png")
        if asked.pictures: shutil.copy(folder / f"{name}.png", asked.pictures
                                       / f"{name}_{len(G)}.png")
        numbers["frame_ms"] = frames(browser, name, asked.limit / 3)
    return numbers


def demo_graph(folder: Path) -> nx.DiGraph:
    "The graph of the demo: 30 features of each layer on 10,000 tokens."
    from feature_interaction_graph import (
        Config, build_coactivation_atlas, build_interaction_graph, collect_activations,
        identify_candidates, load_model_and_saes, measure_interactions
    )
    cfg = Config.preset("demo", output_dir=str(folder), n_tokens=10_000, n_importance_tokens=2_000,
                        top_k_features=30, n_samples=40)
    model, saes = load_model_and_saes(cfg)
    activations = collect_activations(model, saes, cfg, progress=False)
    atlas = build_coactivation_atlas(activations, cfg, progress=False)
    candidates = identify_candidates(atlas, saes, cfg)
    found = measure_interactions(model, saes, candidates, cfg, progress=False)
    return build_interaction_graph(found, cfg)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--others", type=Path, default=Path("others"))
    parser.add_argument("--edges", type=int, default=100_000)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds until a picture")
    parser.add_argument("--pictures", type=Path, help="a folder for what each viewer showed")
    parser.add_argument("--only", nargs="*", default=list(VIEWERS), choices=list(VIEWERS))
    asked = parser.parse_args()
    # software WebGL, for all of them alike
    headless.FLAGS[:] = [*headless.FLAGS, "--enable-unsafe-swiftshader"]
    command = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))))
    numbers: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        graphs = {"demo": demo_graph(Path(name) / "run"), "large": large_graph(asked.edges)}
        for label, G in graphs.items():
            folder = Path(name) / label
            folder.mkdir()
            render_explorer(G, folder / "explorer.html")
            with browsing(command) as browser:
                content = circuit_json(browser, folder / "explorer.html")
                (folder / "circuit.json").write_bytes(content)
            numbers[label] = {"features": len(G), "edges": G.number_of_edges(), "viewers": {}}
            for viewer in asked.only:
                found = measure(viewer, G, folder, asked, command)
                numbers[label]["viewers"][viewer] = found
                print(label, viewer, found, flush=True)
    print(write("viewers", {"browser": command, "limit_s": asked.limit}, numbers).read_text())


if __name__ == "__main__": main()
