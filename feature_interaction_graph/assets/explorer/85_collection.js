// ---- a collection: features picked by hand, shown alone, saved, loaded, written as a graph ------------------------------
// Ids of the first graph, in the order in which they were picked, so that both graphs of a comparison know them.
const firstId = node => g === graphs[0] ? g.N.id[node] : g.matched(g.N.id[node]);
const isPicked = node => state.picked.has(firstId(node));
const nodeOfFirst = id => g.byId.get(g === graphs[0] ? id : graphs[0].matched(id));
const pickedNodes = () => [...state.picked].map(nodeOfFirst).filter(node => node !== undefined);
const isFeature = id => graphs[0].byId.has(id);

function collect(ids, add = true) {
  const before = state.only;
  for (const id of ids) if (add && isFeature(id)) state.picked.add(id); else if (!add) state.picked.delete(id);
  if (!state.picked.size) state.only = false;
  showControls();
  changed(before || state.only);
}
const togglePick = node => { const id = firstId(node); if (isFeature(id)) collect([id], !state.picked.has(id)); };
function showOnly(on) { Object.assign(state, { only: on && state.picked.size > 0, near: 0, group: null, path: null }); showControls(); changed(true); }
function asIfAlone(act) {                                     // the collection as if it were shown alone
  const kept = { only: state.only, near: state.near, path: state.path };
  Object.assign(state, { only: true, near: 0, path: null });
  refilter();
  try { return act(); } finally { Object.assign(state, kept); refilter(); }
}
function drawPicked(pen) {                                   // a square around each, above everything
  if (!state.picked.size) return;
  pen.globalAlpha = 1; pen.strokeStyle = ink().seed; pen.lineWidth = 1.8;
  pen.beginPath();
  for (const node of pickedNodes()) if (g.nodeShown[node] && inView(node)) { const r = radius(node) + 4; pen.rect(sx(node) - r, sy(node) - r, 2 * r, 2 * r); }
  pen.stroke();
}
function drawBox(pen, box) {                                 // what Shift and dragging take in
  pen.globalAlpha = 1; pen.strokeStyle = ink().seed; pen.lineWidth = 1.2;
  pen.setLineDash([5, 4]);
  pen.beginPath(); pen.rect(Math.min(box[0], box[2]), Math.min(box[1], box[3]), Math.abs(box[2] - box[0]), Math.abs(box[3] - box[1])); pen.stroke();
  pen.setLineDash([]);
}
const within = box => [...g.N.id.keys()].filter(node => g.nodeShown[node] && (sx(node) - box[0]) * (sx(node) - box[2]) <= 0 && (sy(node) - box[1]) * (sy(node) - box[3]) <= 0);

const savedCollection = () => ({ format: "feature-interaction-explorer-collection", version: 1, title: document.title, features: [...state.picked] });
function loadCollection(saved) {                             // features that this graph does not have are told, not kept
  if (!saved || saved.format !== savedCollection().format || !Array.isArray(saved.features) || !saved.features.every(id => typeof id === "string")) throw new TypeError("no collection");
  const here = saved.features.filter(isFeature);
  state.picked = new Set(here);
  collect([]);
  return saved.features.length - here.length;
}

function collectionPanel() {
  const nodes = pickedNodes(), counted = asIfAlone(() => ({ edges: g.edgesShown, gates: g.gateShown.reduce((sum, one) => sum + one, 0) })), empty = !nodes.length;
  const shown = [...g.N.id.keys()].filter(node => g.nodeShown[node] && isFeature(firstId(node)));
  const file = el("input", { type: "file", accept: ".json", id: "load-collection", aria: { label: "Load a collection" } });
  file.addEventListener("change", async () => {
    let told;
    try { const lost = loadCollection(JSON.parse(await file.files[0].text())); told = lost ? `${count(lost, "feature")} of the file ${lost === 1 ? "is" : "are"} not in this graph.` : ""; } catch (refusal) { told = `${file.files[0].name} is no collection of the explorer.`; }
    $("collection-told").textContent = told;
  });
  const row = node => () => el("div", { className: "picked" }, nodeRow(node)(), button("×", () => { collect([firstId(node)], false); }, { title: "Drop it", aria: { label: `Drop ${name(node)}` } }));
  return [el("h2", { textContent: "Picked by hand" }),
    el("p", { textContent: "A collection of features. c adds the chosen feature or drops it, as Shift and a click on it do; Shift and dragging take in all in a box. The address keeps the collection." }),
    el("div", { className: "actions" }, state.selected >= 0 && isFeature(firstId(state.selected)) ? button(isPicked(state.selected) ? "Drop the chosen one" : "Add the chosen one", () => togglePick(state.selected), { id: "pick-chosen" }) : null,
      button(`Add all ${count(shown.length, "feature")} shown`, () => collect(shown.map(firstId)), { id: "pick-shown" }),
      button(state.only ? "Show the whole graph" : "Show only them", () => showOnly(!state.only), { id: "only", disabled: empty }), button("Clear", () => collect([...state.picked], false), { id: "clear-collection", disabled: empty })),
    el("dl", { id: "collected" }, fact("features", nodes.length.toLocaleString("en")), fact("edges among them", counted.edges.toLocaleString("en"), "of those that pass the filters of type, q, placebo and sign, of every strength"), g.k ? fact("gates among them", counted.gates.toLocaleString("en")) : null),
    empty ? el("p", { textContent: "Nothing is picked yet." }) : section("Picked", nodes.length, nodes.map(row), 40),
    el("section", {}, el("h3", { textContent: "The collection as a file" }), el("div", { className: "actions" },
      button("Save collection", () => save(JSON.stringify(savedCollection()), "application/collection+json", "collection.json"), { id: "save-collection", disabled: empty }), el("label", { className: "plain" }, "Load collection ", file)), el("p", { id: "collection-told", aria: { role: "status" } })),
    el("section", {}, el("h3", { textContent: "The graph among them" }), el("div", { className: "actions" },
      EXPORTS.filter(([id]) => !["png", "svg"].includes(id)).map(([id, text, title, act]) => button(text, () => asIfAlone(act), { id: `collection-${id}`, title, disabled: empty }))))];
}
