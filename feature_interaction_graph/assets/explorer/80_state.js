// ---- state: kept in the address, so that a link or the back button brings a view back ----------------------------------
const edgeName = edge => `${g.N.id[g.E.source[edge]]}~${g.N.id[g.E.target[edge]]}${[...g.out(g.E.source[edge])].filter(other => g.E.target[other] === g.E.target[edge]).length > 1 ? `~${valueOf("offset", edge) || 0}` : ""}`;
function edgeNamed(text) {
  const [from, to, offset] = (text || "").split("~"), source = g.byId.get(from), target = g.byId.get(to);
  if (source === undefined || target === undefined) return -1;
  return g.out(source).find(edge => g.E.target[edge] === target && (offset === undefined || (valueOf("offset", edge) || 0) === Number(offset))) ?? -1;
}
function address(withView = false) {
  const parts = new URLSearchParams(), set = (key, value, usual) => { if (value !== usual) parts.set(key, value); };
  if (state.selected >= 0) parts.set("select", g.N.id[state.selected]);
  if (state.edge >= 0) parts.set("edge", edgeName(state.edge));
  set("hops", state.hops, 0); set("side", state.side, "both"); set("measure", state.measure, "strength");
  if (focused()) set("min", Number(state.near.toPrecision(6)), 0);
  else if (state.threshold !== state.initial) parts.set("min", Number(state.threshold.toPrecision(6)));
  if (state.types.size < g.types.length) parts.set("types", [...state.types].join(","));
  set("q", state.q, 1); set("placebo", state.placebo, 1); set("same", state.same, 0);
  if (Number.isFinite(state.layers[0]) || Number.isFinite(state.layers[1])) parts.set("layers", state.layers.map(layer => Number.isFinite(layer) ? layer : "").join(":"));
  set("by", state.by, g.kinds.group || !g.kinds.role ? "group" : "role"); set("group", state.group || "", ""); set("tab", state.tab, "evidence");
  if (state.path && ask.from >= 0 && ask.to >= 0) parts.set("path", `${g.N.id[ask.from]}~${g.N.id[ask.to]}~${ask.hops}`);
  if (state.tab === "steer" && dose.node >= 0) parts.set("dose", `${g.N.id[dose.node]}~${dose.by}`);
  if (state.picked.size) parts.set("picked", [...state.picked].join("~"));
  if (state.only) parts.set("only", 1);
  if (graphs.length > 1 && !$("stage-2").hidden) parts.set("beside", 1);
  if (withView) parts.set("at", [g.view.scale, g.view.x / g.view.width, g.view.y / g.view.height].map(value => Number(value.toPrecision(6))).join(","));
  return "#" + parts.toString();
}
function remember() { try { if (address() !== (location.hash || "#")) history.pushState(null, "", address()); } catch (refusal) { document.body.dataset.address = refusal.name; } say(); }   // not allowed inside some notebook frames
const savedView = () => ({ format: "feature-interaction-explorer-view", version: 1, title: document.title, features: g.n, view: address(true) });
function restoreView(view) {
  if (!view || view.format !== "feature-interaction-explorer-view" || typeof view.view !== "string") throw new TypeError("no view");
  restore(view.view); eachGraph(() => refilter()); place(); zoomTo(view.view); fillPanel(); remember(); redraw();
}
function zoomTo(hash) {
  const at = (new URLSearchParams(hash.slice(1)).get("at") || "").split(",").map(Number);
  if (at.length === 3 && at.every(Number.isFinite) && at[0] > 0) Object.assign(g.view, { scale: Math.min(60, at[0]), x: at[1] * g.view.width, y: at[2] * g.view.height });
}
function restore(hash = location.hash) {
  const parts = new URLSearchParams(hash.slice(1)), types = parts.get("types"), hops = Number(parts.get("hops")), share = (key, usual) => parts.has(key) && Number.isFinite(Number(parts.get(key))) ? Number(parts.get(key)) : usual;
  state.measure = parts.get("measure") === "strength_std" && g.data.has_std ? "strength_std" : "strength";
  graphs.forEach(measureEdges);
  state.initial = firstCut();
  state.types = new Set(types === null ? graphs.flatMap(graph => graph.types) : g.types.filter(type => types.split(",").includes(type)));
  state.hops = [1, 2, 3].includes(hops) ? hops : 0;
  state.side = ["in", "out"].includes(parts.get("side")) ? parts.get("side") : "both";
  state.selected = g.byId.get(parts.get("select")) ?? -1;
  state.picked = new Set((parts.get("picked") || "").split("~").filter(isFeature));
  state.only = parts.get("only") === "1" && state.picked.size > 0;
  Object.assign(state, { threshold: focused() ? state.initial : share("min", state.initial), near: focused() ? share("min", 0) : 0, q: share("q", 1), placebo: share("placebo", 1), same: share("same", 0) });
  const [low, high] = (parts.get("layers") || ":").split(":");
  state.layers = [low ? Number(low) : -Infinity, high ? Number(high) : Infinity].map((value, at) => Number.isNaN(value) ? (at ? Infinity : -Infinity) : value);
  const group = parts.get("group"), kind = parts.get("by") in g.kinds ? parts.get("by") : g.kinds.group || !g.kinds.role ? "group" : "role";
  if (kind !== state.by) groupAllBy(kind);
  state.group = group === "*" && g.groups.length ? "*" : g.groups.includes(group) ? group : null;
  state.edge = edgeNamed(parts.get("edge"));
  state.tab = parts.get("tab") in TABS ? parts.get("tab") : "evidence";
  for (let edge = 0; edge < g.m; edge++) g.fits[edge] = fitsFilters(edge) ? 1 : 0;
  const [from, to, many] = (parts.get("path") || "").split("~"), [pushed, by] = (parts.get("dose") || "").split("~");
  state.path = null;
  if (g.byId.has(from) && g.byId.has(to)) {
    Object.assign(ask, { from: g.byId.get(from), to: g.byId.get(to), hops: [2, 3, 4, 5].includes(Number(many)) ? Number(many) : 4 });
    ask.found = pathsBetween(ask.from, ask.to, ask.hops);
    if (ask.found.paths.length) state.path = { nodes: [...new Set(ask.found.paths.flatMap(path => path.nodes))], edges: new Set(ask.found.paths.flatMap(path => path.edges)) };
  }
  if (g.byId.has(pushed)) { Object.assign(dose, { node: g.byId.get(pushed), by: Number(by) || 1, extra: new Map() }); dose.reach = Math.max(5, Math.abs(dose.by)); predict(); }
  else if (dose.node >= 0) { dose.node = -1; state.values = null; }
  if (graphs.length > 1 && parts.get("beside") === "1" && $("stage-2").hidden) sideBySide(true);
  showControls();
}

function showControls() {
  $("measure").value = state.measure; $("hops").value = state.hops; $("side").value = state.side;
  $("slider").value = sliderOf(cut());
  for (const box of $("types").querySelectorAll("input")) box.checked = state.types.has(box.value);
  for (const [id, value] of [["filter-q", state.q], ["filter-placebo", state.placebo], ["filter-same", state.same]]) if ($(id)) $(id).value = value;
  for (const [id, at] of [["layer-from", 0], ["layer-to", 1]]) if ($(id)) $(id).value = Number.isFinite(state.layers[at]) ? state.layers[at] : at ? g.layers[g.layers.length - 1] : g.layers[0];
  if ($("group")) $("group").value = state.group || "";
  if ($("group-by")) $("group-by").value = state.by;
  tellCut();
}
const tellCut = () => { $("threshold").textContent = number(cut()); $("cut-of").textContent = state.only ? "among them, |strength| ≥" : focused() ? "around it, |strength| ≥" : "|strength| ≥"; };
function sliderOf(value) {                                   // 0: every edge; 1000: the strongest only
  let weaker = 0, low = 0, high = g.m;
  while (low < high) { const middle = (low + high) >> 1; if (g.size[g.rank[middle]] >= value) low = middle + 1; else high = middle; }
  weaker = g.m - low;
  return Math.round(1000 * weaker / Math.max(1, g.m - 1));
}
const cutOf = slider => slider === 0 ? 0 : g.size[g.rank[g.m - 1 - Math.round(slider / 1000 * (g.m - 1))]];

function changed(layout = false) { eachGraph(() => { g.made = null; refilter(); if (layout || state.hops || state.path) place(); }); tellCut(); fillPanel(); remember(); redraw(); }
function select(node, edge = -1) {
  const before = state.selected;
  Object.assign(state, { selected: node, edge, path: null, tab: ["evidence", "compare"].includes(state.tab) ? state.tab : "evidence" });
  if (node < 0) state.hops = 0;
  else if (before !== node) state.near = 0;
  if (state.group && node >= 0 && state.group !== groupOf(node)) state.group = null;
  showControls();
  if (node >= 0 && (before !== node || edge >= 0)) $("panel").scrollTop = 0;
  changed((node < 0 && before >= 0 && g.view.scale === 1) || state.hops > 0);
}
function chooseEdge(edge) {
  Object.assign(state, { edge, hoverEdge: -1, tab: "evidence" });
  if (state.selected < 0) state.selected = g.E.source[edge];
  $("panel").scrollTop = 0;
  changed();
}
