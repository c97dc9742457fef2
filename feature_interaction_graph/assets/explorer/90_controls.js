// ---- controls: filters, search, keys, pointer ---------------------------------------------------------------------------
function sampleOf(type) {                                    // a line as the picture has it
  const sample = el("canvas", { width: 68, height: 24, className: "sample" }), pen = sample.getContext("2d"), look = styleOf(type);
  Object.assign(pen, { strokeStyle: colourOf(type), fillStyle: colourOf(type), lineWidth: 4 });
  pen.setLineDash(look.dash.map(length => length * 1.7)); pen.beginPath(); pen.moveTo(2, 12); pen.lineTo(52, 12); pen.stroke(); pen.setLineDash([]);
  pen.beginPath();
  if (type === "gating") { pen.moveTo(66, 12); pen.lineTo(57, 4); pen.lineTo(48, 12); pen.lineTo(57, 20); pen.fill(); }
  else if (type === "inhibitory") { pen.moveTo(58, 2); pen.lineTo(58, 22); pen.stroke(); } else { pen.moveTo(66, 12); pen.lineTo(50, 3); pen.lineTo(50, 21); pen.fill(); }
  return sample;
}
function buildControls() {
  for (const type of g.types) {
    const box = el("input", { type: "checkbox", value: type, checked: true }), code = g.types.indexOf(type);
    box.addEventListener("change", () => { box.checked ? state.types.add(type) : state.types.delete(type); changed(); });
    $("types").append(el("label", {}, box, sampleOf(type), `${type} ${g.E.type.reduce((sum, other) => sum + Number(other === code), 0).toLocaleString("en")}`));
  }
  $("slider").addEventListener("input", () => { state[focused() ? "near" : "threshold"] = cutOf(Number($("slider").value)); eachGraph(() => refilter(false)); tellCut(); moving(); });
  $("slider").addEventListener("change", () => changed());
  $("measure").parentElement.hidden = !g.data.has_std;       // a graph without standard deviations has one unit
  $("measure").addEventListener("change", () => { state.measure = $("measure").value; graphs.forEach(measureEdges); state.initial = state.threshold = firstCut(); state.near = 0; showControls(); changed(); });
  $("hops").addEventListener("change", () => { state.hops = Number($("hops").value); state.near = 0; state.only = false; state.path = null; if (state.hops && state.selected < 0 && g.n) state.selected = g.data.lists.by_size[g.n - 1]; showControls(); changed(true); });
  $("side").addEventListener("change", () => { state.side = $("side").value; changed(true); });
  $("fit").addEventListener("click", () => { eachGraph(place); redraw(); });
  $("png").addEventListener("click", savePng);
  $("json").addEventListener("click", () => save(asJson(), "application/json", "subgraph.json"));
  $("theme").addEventListener("click", () => { setTheme(isDark() ? "light" : "dark"); });
  buildFilters();
  for (const [tab, title] of Object.entries(TABS)) {
    const made = el("button", { type: "button", id: `tab-${tab}`, textContent: title, aria: { role: "tab", controls: "panel" } });
    made.dataset.tab = tab;
    made.addEventListener("click", () => { state.tab = tab; if (tab === "steer" && dose.node < 0 && state.selected >= 0) steerFrom(state.selected); else if (tab === "paths" && ask.from < 0) { ask.from = state.selected; changed(); } else changed(); });
    made.addEventListener("keydown", event => { const next = event.key === "ArrowRight" ? made.nextSibling : event.key === "ArrowLeft" ? made.previousSibling : null; if (next) { next.focus(); next.click(); } });
    $("tabs").append(made);
  }
  $("counts").textContent = g.data.counts; $("counts").title = g.data.counts;
  fillKey();
}
function buildFilters() {
  const field = (title, id, properties, act) => {
    const input = el("input", { id, ...properties });
    input.addEventListener("change", () => { act(input.value === "" ? NaN : Number(input.value)); showControls(); changed(true); });
    $("filters").append(el("label", {}, `${title} `, input));
  };
  const share = { type: "number", min: 0, max: 1, step: "any" }, within = (value, usual) => Number.isNaN(value) ? usual : Math.max(0, Math.min(1, value));
  if (g.E.q_value) field("q ≤", "filter-q", { ...share, value: 1 }, value => { state.q = within(value, 1); });
  if (g.E.placebo_q_value) field("placebo q ≤", "filter-placebo", { ...share, value: 1 }, value => { state.placebo = within(value, 1); });
  if (g.E.share_same_sign) field("same sign in ≥", "filter-same", { ...share, value: 0, title: "share of the samples in which the effect has the sign of the mean" }, value => { state.same = within(value, 0); });
  const [low, high] = [g.layers[0], g.layers[g.layers.length - 1]], layer = { type: "number", min: low, max: high, step: 1 };
  if (g.layers.length > 1) {
    field("layers from", "layer-from", { ...layer, value: low }, value => { state.layers[0] = Number.isNaN(value) || value <= low ? -Infinity : value; });
    field("to", "layer-to", { ...layer, value: high }, value => { state.layers[1] = Number.isNaN(value) || value >= high ? Infinity : value; });
  }
  if (!g.groups.length) return;
  const group = el("select", { id: "group" });
  group.addEventListener("change", () => openGroup(group.value || null));
  $("filters").append(el("label", {}, "show ", group));
  if (g.kinds.group && g.kinds.role) {
    const by = el("select", { id: "group-by" }, el("option", { value: "group", textContent: "communities" }), el("option", { value: "role", textContent: "roles" }));
    by.addEventListener("change", () => { groupAllBy(by.value); openGroup("*"); });
    $("filters").append(el("label", {}, "grouped by ", by));
  } else if (g.kinds.role) state.by = "role";
  listGroups();
}
const groupWord = () => state.by === "role" ? "role" : "community", groupWords = () => state.by === "role" ? "roles" : "communities";
function listGroups() {
  if ($("group")) $("group").replaceChildren(el("option", { value: "", textContent: "every feature" }), el("option", { value: "*", textContent: `${groupWords()} as marks` }), ...g.groups.map(title => el("option", { value: title, textContent: clip(flat(title), 40) })));
}
function groupAllBy(kind) {
  state.by = kind;
  eachGraph(() => { groupBy(g, kind); g.made = null; });
  listGroups();
  fillKey();
}
function fillKey() {
  const key = (colour, text) => { const dot = el("i"); dot.style.background = colour; return el("span", {}, dot, text); }, parts = [`size: ${g.data.size_name}`];
  if (g.N.hub.some(Boolean)) { const round = el("i"); round.style.border = "1.6px solid currentColor"; parts.push(el("span", {}, round, "hub")); }
  if (g.k) parts.push(key(colourOf("gating"), "gate"));
  if (g.N.value) parts.push(key(colourOf("excitatory"), `${g.data.value_name} up`), key(colourOf("inhibitory"), "down"));
  else if (g.groups.length) g.groups.slice(0, 5).forEach((group, index) => parts.push(key(GROUP_COLOURS[index], clip(flat(group), 24))));
  else if (g.N.seed.some(Boolean)) parts.push(key(ink().seed, "seed"));
  $("key").replaceChildren(...parts);
}
function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = theme === "dark" ? "Light" : "Dark";
  [...$("types").querySelectorAll("canvas")].forEach((sample, at) => sample.replaceWith(sampleOf(g.types[at])));
  fillKey(); redraw();
}

function findFeatures(text) {                                // words of a label or id; between slashes a regular expression
  const asked = text.trim(), exact = g.byId.get(asked) ?? g.byId.get(asked.toUpperCase()), order = g.data.lists.by_size, found = exact === undefined ? [] : [exact];
  let fits;
  const pattern = /^\/(.+)\/([a-z]*)$/s.exec(asked);
  if (pattern) {
    let expression;
    try { expression = new RegExp(pattern[1], pattern[2].includes("i") || !pattern[2] ? "iu" : "u"); } catch (refusal) { return null; }
    fits = node => expression.test(g.N.label[node]) || expression.test(g.N.id[node]);
  } else {
    const words = asked.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) return [];
    fits = node => words.every(one => g.text[node].includes(one));
  }
  for (let at = order.length - 1; at >= 0; at--) if (order[at] !== exact && fits(order[at])) found.push(order[at]);
  return found;
}
function buildSearch() {
  const input = $("search"), box = $("results"), told = $("found"), MOST = 50;
  let found = [], current = 0;
  const close = () => { box.hidden = told.hidden = true; input.setAttribute("aria-expanded", "false"); input.removeAttribute("aria-activedescendant"); };
  const mark = () => {
    [...box.children].forEach((row, index) => { row.classList.toggle("current", index === current); row.setAttribute("aria-selected", String(index === current)); });
    input.removeAttribute("aria-activedescendant");
    if (found.length) { input.setAttribute("aria-activedescendant", `result-${current}`); box.children[current].scrollIntoView({ block: "nearest" }); }
  };
  const update = () => {
    const asked = input.value.trim(), list = findFeatures(asked);
    found = list || [];
    state.matches = asked ? new Set(found) : null;
    current = 0;
    box.replaceChildren(...found.slice(0, MOST).map((node, at) => {
      const row = el("div", { id: `result-${at}`, aria: { role: "option", selected: "false" } }, el("span", { textContent: clip(name(node), 90), dir: "auto" }), el("small", { textContent: `${g.N.id[node]} · ${g.N.in_degree[node]} in, ${g.N.out_degree[node]} out` }));
      row.addEventListener("mousedown", event => { event.preventDefault(); choose(node); });
      return row;
    }));
    told.textContent = list === null ? "this is no regular expression" : !found.length ? "no feature with this label or id is in the graph" : `${count(found.length, "feature")} found${found.length > MOST ? `, the ${MOST} largest are listed` : ""}`;
    box.hidden = !found.length; told.hidden = !asked;
    input.setAttribute("aria-expanded", String(found.length > 0 && Boolean(asked)));
    if (!asked) close(); else mark();
    point();
  };
  const choose = node => { input.value = ""; state.matches = null; close(); input.blur(); select(node); centre(node); };
  input.addEventListener("input", update);
  input.addEventListener("focus", update);
  input.addEventListener("blur", () => { close(); state.matches = null; point(); });
  input.addEventListener("keydown", event => {
    if (event.key === "Enter" && found.length) choose(found[current]);
    else if (event.key === "Escape") { input.value = ""; update(); input.blur(); }
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") { event.preventDefault(); current = Math.max(0, Math.min(Math.min(MOST, found.length) - 1, current + (event.key === "ArrowDown" ? 1 : -1))); mark(); }
  });
}
function buildKeys() {
  document.addEventListener("keydown", event => {
    if (["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName) && event.target.type !== "range") return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") { event.preventDefault(); $("search").focus(); }
    else if (event.key === "Escape") state.group && state.selected < 0 ? openGroup(state.group === "*" ? null : "*") : select(-1);
    else if (event.key === "f") { eachGraph(place); redraw(); }
    else if (event.key === "n" && state.selected >= 0) { Object.assign(state, { hops: state.hops ? 0 : 1, only: false }); showControls(); changed(true); }
    else if (event.key === "c" && state.selected >= 0) togglePick(state.selected);
    else if (event.key === "+" || event.key === "-") zoom(g.view.width / 2, g.view.height / 2, event.key === "+" ? 1.3 : 1 / 1.3);
    else if (document.activeElement === g.overCanvas && event.key.startsWith("Arrow")) { event.preventDefault(); step(event.key); }
  });
}
function step(key) {                                         // right: strongest effect, left: strongest cause, up and down: the same column
  if (state.selected < 0) { select(g.drawn.nodes[0] ?? 0); return; }
  const here = state.selected;
  if (key === "ArrowRight" || key === "ArrowLeft") {
    const [edge] = strongestFirst(around(here)[key === "ArrowRight" ? "out" : "into"]);
    if (edge !== undefined) { const next = key === "ArrowRight" ? g.E.target[edge] : g.E.source[edge]; select(next); centre(next); }
    return;
  }
  const column = [...g.data.lists.order].filter(node => g.nodeShown[node] && g.N.layer[node] === g.N.layer[here]), next = column[column.indexOf(here) + (key === "ArrowDown" ? 1 : -1)];
  if (next !== undefined) { select(next); centre(next); }
}
function centre(node) {
  if (!g.nodeShown[node]) return;
  if (g.n > 4000 && g.view.scale < 3 && !state.hops) { g.view.x = g.view.x * 3 / g.view.scale; g.view.y = g.view.y * 3 / g.view.scale; g.view.scale = 3; }
  else if (sx(node) > 20 && sx(node) < g.view.width - 20 && sy(node) > 40 && sy(node) < g.view.height - 20) { redraw(); return; }
  g.view.x += g.view.width / 2 - sx(node); g.view.y += g.view.height / 2 - sy(node);
  redraw();
}
function zoom(x, y, factor) {
  const scale = Math.max(0.3, Math.min(60, g.view.scale * factor)), share = scale / g.view.scale;
  Object.assign(g.view, { scale, x: x - (x - g.view.x) * share, y: y - (y - g.view.y) * share });
  moving();
}
function showTip(x, y) {
  const tip = g.tip, node = state.hover, edge = state.hoverEdge, v = column => valueOf(column, edge);
  tip.hidden = node < 0 && edge < 0;
  if (tip.hidden) return;
  if (node >= 0) tip.textContent = `${clip(name(node), 300)}\n${g.N.id[node]} · ${g.N.in_degree[node]} in, ${g.N.out_degree[node]} out${known(g.N.frequency[node]) ? ` · fires on ${percent(g.N.frequency[node])} of tokens` : ""}`;
  else tip.textContent = `${clip(name(g.E.source[edge]), 200)}\n${isGating(edge) ? "◆ acts, gated, on" : strength(edge) < 0 ? "⊣ inhibits" : "→ excites"}  ${clip(name(g.E.target[edge]), 200)}\n${signed(strength(edge))}${known(v("ci_lower")) && state.measure === "strength" ? `  (95 % CI ${number(v("ci_lower"))} to ${number(v("ci_upper"))})` : ""}${known(v("q_value")) ? `, q ${probability(v("q_value"))}` : ""}${strongestGates(gatesOn(edge)).slice(0, 3).map(at => `\n${word("gates", "reads", at)} ${clip(name(g.H.gate[at]), 80)}: off ${effect(g.H.effect_off[at])}, on ${effect(g.H.effect_on[at])}`).join("")}`;
  const wide = tip.offsetWidth, tall = tip.offsetHeight;
  tip.style.left = `${Math.max(4, Math.min(x + 14, g.view.width - wide - 6))}px`; tip.style.top = `${y + 18 + tall > g.view.height ? y - tall - 10 : y + 18}px`;
}
