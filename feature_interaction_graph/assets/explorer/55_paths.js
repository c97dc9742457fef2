// ---- paths: how one feature may act on another, the product of effects along each beside the measured total ------------
const ask = { from: -1, to: -1, hops: 4, found: null };

function pathsBetween(from, to, hops, most = 12) {
  const { E } = g, away = new Map([[to, 0]]);                // how far the features are from the end, at most `hops`
  let frontier = [to];
  for (let hop = 1; hop <= hops; hop++) {
    const next = [];
    for (const node of frontier) for (const edge of g.into(node)) {
      const source = E.source[edge];
      if (g.fits[edge] && !away.has(source)) { away.set(source, hop); next.push(source); }
    }
    frontier = next;
  }
  let front = new Map([[from, { kept: [{ value: 1, edges: [], nodes: [from] }], sum: 1, many: 1 }]]);
  const found = [];
  let sum = 0, many = 0;
  for (let hop = 1; hop <= hops && front.size; hop++) {
    const next = new Map();
    for (const [node, here] of front) for (const edge of g.out(node)) {
      const target = E.target[edge], by = E.strength[edge];
      if (!g.fits[edge] || !known(by) || target === from || !(away.get(target) <= hops - hop)) continue;
      const there = next.get(target) || { kept: [], sum: 0, many: 0 };
      there.sum += here.sum * by;
      there.many += here.many;
      for (const path of here.kept) if (!path.nodes.includes(target))
        there.kept.push({ value: path.value * by, edges: [...path.edges, edge], nodes: [...path.nodes, target] });
      next.set(target, there);
    }
    for (const there of next.values()) there.kept = there.kept.sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, most);
    const end = next.get(to);
    if (end) { found.push(...end.kept); sum += end.sum; many += end.many; next.delete(to); }
    front = next;
  }
  const direct = [...g.out(from)].filter(edge => E.target[edge] === to);
  return { paths: found.sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, most), sum, many, direct };
}

function pathFrom(from, to = -1) {
  Object.assign(ask, { from, to, found: null });
  state.tab = "paths";
  if (to >= 0) findPaths(); else changed();
}
function findPaths() {
  ask.found = ask.from >= 0 && ask.to >= 0 && ask.from !== ask.to ? pathsBetween(ask.from, ask.to, ask.hops) : null;
  const all = ask.found ? ask.found.paths : [];
  showPath(all.length ? { nodes: [...new Set(all.flatMap(path => path.nodes))], edges: new Set(all.flatMap(path => path.edges)) } : null);
}
function showPath(path) {
  state.path = path;
  changed(true);
}

function featureField(title, id, node, choose) {             // an id or a part of a label; what is found is written out below
  const input = el("input", { id, type: "search", value: node >= 0 ? g.N.id[node] : "", autocomplete: "off", spellcheck: false, placeholder: "id or label" });
  input.addEventListener("change", () => choose(input.value.trim() ? (findFeatures(input.value)[0] ?? -1) : -1));
  return el("label", { className: "field" }, el("span", { textContent: title }), input, el("small", { textContent: node >= 0 ? clip(name(node), 60) : "none chosen" }));
}

function pathPanel() {
  const { found } = ask, steps = el("select", { aria: { label: "Longest path" } }, [2, 3, 4, 5].map(many => el("option", { value: many, textContent: `up to ${many} edges`, selected: many === ask.hops })));
  steps.addEventListener("change", () => { ask.hops = Number(steps.value); findPaths(); });
  const pick = end => node => { ask[end] = node; findPaths(); };
  const form = el("div", { className: "form" }, featureField("from", "path-from", ask.from, pick("from")), featureField("to", "path-to", ask.to, pick("to")), steps,
    el("div", { className: "actions" }, button("Find paths", findPaths, { id: "find-paths" }), button("Swap", () => { [ask.from, ask.to] = [ask.to, ask.from]; findPaths(); }), state.path ? button("Show the whole graph", () => showPath(null)) : null));
  const intro = el("p", { textContent: "Every edge is a total effect, measured with everything between running freely: a path's product may hold what another path holds too. The measured total stands beside it." });
  if (!found) return [el("h2", { textContent: "Paths" }), intro, form, ask.from >= 0 && ask.from === ask.to ? el("p", { textContent: "Choose two different features." }) : null];
  const total = found.direct.map(edge => `${signed(g.E.strength[edge])}${known(valueOf("ci_lower", edge)) ? ` [${number(valueOf("ci_lower", edge))}, ${number(valueOf("ci_upper", edge))}]` : ""}${later(edge) ? ` ${later(edge)}` : ""}`);
  const row = path => () => {
    const css = path.value < 0 ? "inh" : "exc", made = el("button", { type: "button", className: "row path" },
      el("b", { textContent: path.nodes.map(node => clip(name(node), 28)).join(" → ") }), el("em", { className: css, textContent: signed(path.value) }),
      el("small", { textContent: `${path.edges.map(edge => signed(g.E.strength[edge])).join(" × ")} · ${path.nodes.map(node => g.N.id[node]).join(" → ")}` }));
    made.addEventListener("click", () => showPath({ nodes: path.nodes, edges: new Set(path.edges) }));
    return made;
  };
  return [el("h2", { textContent: "Paths" }), intro, form,
    el("dl", {}, fact("measured total", total.length ? total.join("; ") : "no edge: not measured, or it did not survive"), fact("strongest path", found.paths.length ? signed(found.paths[0].value) : "none"),
      fact(`paths of up to ${ask.hops} edges`, found.many.toLocaleString("en")), fact("sum of their products", found.many ? signed(found.sum) : "0")),
    found.paths.length ? section("Strongest paths", `${found.paths.length} of ${found.many.toLocaleString("en")}`, found.paths.map(row), 12) : el("p", { id: "no-path", textContent: "No path of edges that pass the filters leads there; allow longer paths or loosen the filters." })];
}
