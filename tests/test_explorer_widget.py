"""The explorer as a widget: both halves, each real, and what they say to each other.

The Python half is the widget with its traits; its messages are caught where the kernel would send
them. The JavaScript half runs in Chromium, on a model that does what a notebook's does: it keeps
values, tells who listens, and hands over what is to be saved. The page is the explorer in
its frame.
"""
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from headless import Browser, browsing
from test_visualization_browser import layered_graph

from feature_interaction_graph import explore
from feature_interaction_graph.drawing.widget import VIEW_TRAITS, ExplorerWidget, widget_script

MODEL = """<!doctype html><meta charset="utf-8"><title>a notebook</title><body data-ready="">
<script type="application/json" id="state">STATE</script>
<script type="text/plain" id="module">MODULE</script>
<script type="module">
  const listeners = new Map(), read = id => document.getElementById(id).textContent;
  const fire = key => (listeners.get(`change:${key}`) || []).forEach(act => act());
  const model = window.model = { state: JSON.parse(read("state")), unsaved: {}, sent: [],
    get: key => structuredClone(model.state[key]),
    set: (key, value) => { if (JSON.stringify(model.state[key]) === JSON.stringify(value)) return;
      model.state[key] = model.unsaved[key] = structuredClone(value); fire(key); },
    save_changes: () => { model.sent.push(model.unsaved); model.unsaved = {}; },
    on: (name, act) => listeners.set(name, [...(listeners.get(name) || []), act]),
    off: (name, act) => listeners.set(name, listeners.get(name).filter(one => one !== act)),
    update: state => { Object.assign(model.state, structuredClone(state));
      Object.keys(state).forEach(fire); }, many: () => [...listeners.values()].flat().length };
  const module = await import(URL.createObjectURL(
    new Blob([read("module")], { type: "text/javascript" })));
  window.open_view = () => { const el = document.createElement("div"); document.body.append(el);
    return module.default.render({ model, el }); };
  window.close_view = open_view();
  document.body.dataset.ready = "true";
</script>"""


class Comm:
    "Where the kernel would send: messages are kept."
    comm_id = "widget"

    def __init__(self) -> None: self.sent: list[dict[str, Any]] = []

    def on_msg(self, act: Any) -> None: self.act = act

    def send(self, data: dict[str, Any], **more: Any) -> None: self.sent.append(data)

    def close(self) -> None: ...


class Notebook:
    "A widget and its view in a browser, and the messages between them."

    def __init__(self, browser: Browser, widget: ExplorerWidget, folder: Path) -> None:
        self.browser, self.widget, self.comm = browser, widget, Comm()
        widget.comm = self.comm
        state = {name: value for name, value in widget.get_state().items()
                 if isinstance(value, str | list | int | float | None)}
        # as text inside the page; a closing tag in the data would end it
        held = json.dumps(state).replace("</", "<\\/")
        page = folder / "notebook.html"
        page.write_text(MODEL.replace("STATE", held).replace("MODULE", widget_script()))
        browser.open(page)
        self.messages: list[dict[str, Any]] = []
        # the page unpacks its graph, says that it is there, and is told what the model holds
        browser.do("for (let turn = 0; turn < 300 && !model.state.address; turn++) "
                   "await new Promise(done => setTimeout(done, 100)); return 1;")
        self.exchange()

    def exchange(self) -> None:
        "Everything that waits is delivered, both ways, until nobody has anything to say."
        quiet = 0
        while quiet < 3:
            # long enough for a frame on a busy machine
            self.browser.do("await new Promise(done => setTimeout(done, 220))")
            said = self.browser.do("return model.sent.splice(0)")
            for state in said:
                self.messages.append(state)
                self.comm.act({"content": {"data": {"method": "update", "state": state,
                                                    "buffer_paths": []}}, "buffers": []})
            asked = [each["state"] for each in self.comm.sent if each["method"] == "update"]
            self.comm.sent.clear()
            for state in asked: self.browser.do(f"model.update({json.dumps(state)}); return 1")
            quiet = 0 if said or asked else quiet + 1
            assert len(self.messages) < 50, "they do not come to rest"

    def inside(self, script: str) -> Any:
        "What a script finds in the explorer's own frame."
        tree = self.browser.call("Page.getFrameTree")["frameTree"]
        frames = [child["frame"]["id"] for child in tree.get("childFrames", [])]
        if frames:
            world = self.browser.call("Page.createIsolatedWorld", frameId=frames[-1])
            return self.evaluate(script, contextId=world["executionContextId"])
        outer, self.browser.session = self.browser.session, None
        found = self.browser.call("Target.getTargets")["targetInfos"]
        target = [one["targetId"] for one in found if one["type"] == "iframe"][-1]
        attached = self.browser.call("Target.attachToTarget", targetId=target, flatten=True)
        self.browser.session = attached["sessionId"]
        try: return self.evaluate(script)
        finally: self.browser.session = outer

    def evaluate(self, script: str, **more: Any) -> Any:
        found = self.browser.call("Runtime.evaluate", returnByValue=True, awaitPromise=True,
                                  expression=f"(async () => {{ {script} }})()", **more)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def told(self) -> dict[str, Any]:
        "What Python knows of the view."
        return {name: getattr(self.widget, name) for name in VIEW_TRAITS}


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with browsing(chromium) as browser:
        browser.size(1280, 860)
        yield browser


@pytest.fixture(scope="module")
def G() -> nx.DiGraph: return layered_graph(4, 12, 0.15)


@pytest.fixture
def notebook(G: nx.DiGraph, browser: Browser, tmp_path: Path) -> Notebook:
    return Notebook(browser, explore(G, node_groups={}), tmp_path)


def find(notebook: Notebook, feature: str) -> None:
    "A person looks for a feature and takes the first that is found."
    notebook.inside(f"""const search = document.getElementById('search'); search.focus();
      search.value = '{feature}'; search.dispatchEvent(new Event('input', {{bubbles: true}}));
      search.dispatchEvent(new KeyboardEvent('keydown', {{key: 'Enter', bubbles: true}}));""")


PANEL = "return document.getElementById('panel').innerText"
BODY = "return {...document.body.dataset}"


def test_what_is_chosen_in_the_page_is_known_to_python(G, notebook):
    "Features, edges, hops, filters and the collection, each as the page has it."
    seen: list[tuple[str, Any]] = []
    notebook.widget.observe(lambda change: seen.append((change.name, change.new)),
                            ["selected", "edge", "hops", "picked", "types"])
    # the page said what it shows: nothing chosen, every type, its own first cut
    assert notebook.told() | {"address": ""} == {
        "selected": "", "edge": [], "hops": 0, "side": "both", "min_strength": 0.0, "picked": [],
        "types": ["excitatory", "inhibitory"], "only": False, "address": ""}
    find(notebook, "L1_F3")
    notebook.exchange()
    assert seen == [("selected", "L1_F3")] and notebook.widget.selected == "L1_F3"
    notebook.inside("document.querySelector('#panel .row').click()")
    notebook.exchange()
    name, ends = seen[-1]
    assert name == "edge" and G.has_edge(*ends) and "L1_F3" in ends
    strongest = max([*G.in_edges("L1_F3", data=True), *G.out_edges("L1_F3", data=True)],
                    key=lambda edge: edge[2]["strength"] if edge[0] == "L1_F3" else -9)
    assert ends == list(strongest[:2])
    notebook.inside("""const hops = document.getElementById('hops'); hops.value = '2';
                       hops.dispatchEvent(new Event('change'));
                       document.querySelector('#types input').click();""")
    notebook.exchange()
    assert notebook.widget.hops == 2 and len(notebook.widget.types) == 1
    notebook.inside("document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'c', "
                    "bubbles: true}))")
    notebook.exchange()
    assert notebook.widget.picked == ["L1_F3"] and seen[-1] == ("picked", ["L1_F3"])
    assert notebook.widget.address == notebook.messages[-1]["address"]
    assert "select=L1_F3" in notebook.widget.address and not notebook.browser.faults


def test_what_python_asks_for_is_shown(G, notebook):
    "The panel, the picture's counts and the page's address follow."
    view = notebook.widget
    view.select("L2_F4", hops=1)
    notebook.exchange()
    reached = {"L2_F4", *G.successors("L2_F4"), *G.predecessors("L2_F4")}
    body = notebook.inside(BODY)
    assert body["selected"] == "L2_F4" and int(body["nodesDrawn"]) == len(reached)
    assert G.nodes["L2_F4"]["label"] in notebook.inside(PANEL)
    source, target = max(G.edges, key=lambda edge: abs(G.edges[edge]["strength"]))
    view.select_edge(source, target)
    view.filter(hops=0)
    notebook.exchange()
    assert notebook.inside(BODY)["edge"] == f"{source}~{target}" and "95 % interval" in (
        notebook.inside(PANEL))
    view.select(None)
    view.filter(min_strength=0.5, types=["excitatory"])
    notebook.exchange()
    strong = [strength for *_, strength in G.edges(data="strength") if strength >= 0.5]
    assert int(notebook.inside(BODY)["edgesShown"]) == len(strong)
    assert (view.selected, view.edge, view.hops, view.min_strength) == ("", [], 0, 0.5)
    chosen = [source, target, "L2_F4"]
    view.collect(chosen, only=True)
    view.filter(types=None)
    notebook.exchange()
    body = notebook.inside(BODY)
    assert int(body["nodesDrawn"]) == len(set(chosen)) and body["picked"] == str(len(set(chosen)))
    assert int(body["edgesShown"]) == view.picked_graph().number_of_edges()
    assert view.types == ["excitatory", "inhibitory"] and "only=1" in view.address
    assert not notebook.browser.faults


def test_both_halves_speak_the_same_messages(notebook):
    "Every trait of a view is said by the page, under the name that Python has, and understood."
    find(notebook, "L1_F3")
    notebook.exchange()
    heard = notebook.browser.do("""
      const said = []; window.addEventListener('message', event => said.push(event.data));
      model.update({ selected: 'L0_F1' });
      await new Promise(done => setTimeout(done, 300)); return said;""")
    assert {tuple(sorted(set(one) - {"explorer"})) for one in heard} == {
        tuple(sorted(VIEW_TRAITS))}
    kinds = {name: type(getattr(notebook.widget, name)) for name in VIEW_TRAITS}
    for name, value in heard[-1].items():
        if name != "explorer": assert isinstance(value, kinds[name] | int), name
    # another view than any that the page has, each trait by itself, comes back from the page
    for name, value in (("selected", "L0_F2"), ("hops", 2), ("side", "in"), ("min_strength", 0.25),
                        ("types", ["inhibitory"]), ("picked", ["L0_F1", "L0_F2"]), ("only", True),
                        ("edge", list(next(iter(notebook.widget.graph.edges))))):
        setattr(notebook.widget, name, value)
        notebook.exchange()
        spoken = notebook.browser.do("return model.state")
        assert spoken[name] == value == getattr(notebook.widget, name), name
    # a feature that is chosen closes the edge that was open
    notebook.widget.selected = "L0_F3"
    notebook.exchange()
    assert notebook.widget.edge == [] and "edge=" not in notebook.widget.address
    saved = notebook.widget.address
    notebook.widget.select(None, hops=0)
    notebook.exchange()
    notebook.widget.address = saved
    notebook.exchange()
    assert notebook.widget.hops == 2 and notebook.widget.only and notebook.widget.address == saved


def test_a_view_that_comes_later_shows_what_the_first_showed(notebook):
    "The widget is displayed a second time; the first goes; both kept step while they lived."
    view = notebook.widget
    view.select("L2_F4", hops=1)
    view.collect(["L0_F0", "L2_F4"])
    notebook.exchange()
    told, listeners = notebook.told(), notebook.browser.do("return model.many()")
    notebook.browser.do("window.close_second = open_view(); return 1")
    notebook.exchange()
    assert notebook.told() == told and notebook.browser.do("return model.many()") == 2 * listeners
    body = notebook.inside(BODY)
    assert (body["selected"], body["picked"]) == ("L2_F4", "2")
    gone = notebook.browser.do("""const real = window.removeEventListener, gone = [];
      window.removeEventListener = (...what) => { gone.push(what[0]); real.apply(window, what); };
      close_view(); window.removeEventListener = real;
      document.querySelector('iframe').remove(); return gone;""")
    assert gone == ["message"]
    assert notebook.browser.do("return model.many()") == listeners
    find(notebook, "L3_F1")
    notebook.exchange()
    assert view.selected == "L3_F1" and not notebook.browser.faults


def test_what_was_set_before_it_was_displayed_is_shown(G, browser, tmp_path):
    view = explore(G, "L1_F3", hops=2, node_groups={})
    view.collect(["L1_F3"])
    view.filter(min_strength=0.1)
    notebook = Notebook(browser, view, tmp_path)
    body = notebook.inside(BODY)
    assert (body["selected"], body["picked"]) == ("L1_F3", "1") and "min=0.1" in view.address
    assert (view.hops, view.min_strength) == (2, 0.1)


def test_only_its_own_page_is_heard_and_nothing_is_asked_of_a_network(notebook):
    "Messages of other frames, and nonsense, change nothing; the frame has none of our rights."
    before = notebook.told()
    notebook.browser.do("""
      window.postMessage({ explorer: 'view', selected: 'L0_F0' }, '*');
      const other = document.createElement('iframe');
      other.srcdoc = "<script>parent.postMessage({explorer: 'view', selected: 'L0_F0'}, '*');" +
        "parent.postMessage(null, '*'); parent.postMessage('x', '*');" +
        "for (let at = 0; at < parent.length; at++) if (parent[at] !== window) parent[at]" +
        ".postMessage({explorer: 'show', change: {selected: 'L0_F0'}}, '*')</" + "script>";
      document.body.prepend(other); await new Promise(done => setTimeout(done, 400));
      document.querySelectorAll('iframe')[1].contentWindow.postMessage({ explorer: 'show' }, '*');
      document.querySelectorAll('iframe')[1].contentWindow.postMessage(7, '*'); return 1;""")
    notebook.exchange()
    assert notebook.told() == before and not notebook.browser.faults
    frame = notebook.browser.do("return document.querySelectorAll('iframe')[1].sandbox.value")
    assert frame == "allow-scripts allow-downloads"
    assert not [one for one in notebook.browser.requests
                if not one.startswith(("file:", "about:", "blob:"))]
