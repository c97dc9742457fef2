// ---- two graphs: side by side, what they share and where they differ ---------------------------------------------------
function matching(first, second) {                           // id of one graph -> id of the other
  const pairs = first.data.pairs || null, back = pairs && new Map(Object.entries(pairs).map(([a, b]) => [b, a]));
  first.matched = id => pairs ? pairs[id] : id;
  second.matched = id => pairs ? back.get(id) : id;
}
function differences() {
  const [first, second] = graphs, other = node => second.byId.get(first.matched(first.N.id[node])) ?? -1, rows = [];
  const there = new Map();
  for (let edge = 0; edge < second.m; edge++) there.set(second.E.source[edge] * second.n + second.E.target[edge], edge);
  let onlyFirst = 0, comparable = 0;
  for (let edge = 0; edge < first.m; edge++) {
    const s = other(first.E.source[edge]), t = other(first.E.target[edge]);
    if (s < 0 || t < 0) continue;
    comparable++;
    const same = there.get(s * second.n + t), a = first.E.strength[edge] || 0;
    if (same === undefined) { onlyFirst++; rows.push({ edge, a, b: 0, missing: true }); } else rows.push({ edge, a, b: second.E.strength[same] || 0, missing: false });
  }
  const both = rows.filter(row => !row.missing), mean = of => both.reduce((sum, row) => sum + of(row), 0) / Math.max(1, both.length), ma = mean(row => row.a), mb = mean(row => row.b);
  const co = both.reduce((sum, row) => sum + (row.a - ma) * (row.b - mb), 0), spread = of => Math.sqrt(both.reduce((sum, row) => sum + of(row) ** 2, 0));
  const scale = spread(row => row.a - ma) * spread(row => row.b - mb), shared = [...first.N.id.keys()].filter(node => other(node) >= 0).length;
  return { rows, both, shared, comparable, onlyFirst, onlySecond: second.m - both.length, sign: both.length ? mean(row => Number(Math.sign(row.a) === Math.sign(row.b))) : NaN, correlation: scale ? co / scale : NaN };
}
function sideBySide(on) {
  document.body.classList.toggle("side-by-side", on);
  $("stage-2").hidden = !on;
  if (on) $("stage-2-title").textContent = flat(graphs[1].data.name);
  $("stage-title").hidden = !on;
  $("stage-title").textContent = flat(graphs[0].data.name);
  eachGraph(() => refilter());
  resize();
  redraw();
}
function comparePanel() {
  const head = el("h2", { textContent: "Compare" });
  if (graphs.length < 2) return [head, el("p", { textContent: "This page holds one graph. render_explorer(G, \"explorer.html\", other=H) puts a second one beside it: another model, seed, text, or the same before and after fine-tuning." })];
  const found = differences(), before = g, main = graphs[0], on = !$("stage-2").hidden;
  g = main;
  const largest = [...found.rows].sort((x, y) => Math.abs(y.a - y.b) - Math.abs(x.a - x.b)).slice(0, 60).map(row => () => {
    const made = el("button", { type: "button", className: "row" }, el("b", { textContent: `${clip(name(main.E.source[row.edge]), 36)} → ${clip(name(main.E.target[row.edge]), 36)}` }), el("em", { textContent: `${signed(row.a)} | ${row.missing ? "none" : signed(row.b)}` }),
      el("small", { textContent: `${main.N.id[main.E.source[row.edge]]} → ${main.N.id[main.E.target[row.edge]]} · difference ${signed(row.b - row.a)}` }));
    made.addEventListener("click", () => { g = main; state.tab = "compare"; Object.assign(state, { selected: main.E.source[row.edge], edge: row.edge }); changed(); });
    return made;
  });
  const panel = [head, el("p", { textContent: `${main.data.name} (left) and ${graphs[1].data.name} (right); features are matched by ${main.data.pairs ? "the pairs given" : "their ids"}. What is pointed at or chosen in one is marked in the other.` }),
    el("div", { className: "actions" }, button(on ? "One picture" : "Side by side", () => { sideBySide(!on); fillPanel(); remember(); }, { id: "side-by-side" })),
    el("dl", { id: "compared" }, fact("features in both", found.shared.toLocaleString("en")), fact("edges in both", found.both.length.toLocaleString("en")), fact("edges of the first only", found.onlyFirst.toLocaleString("en"), "among features that both have"), fact("edges of the second only", found.onlySecond.toLocaleString("en")),
      fact("same sign", percent(found.sign)), fact("correlation of strengths", number(found.correlation))),
    section("Largest differences", "first | second", largest, 12)];
  g = before;
  return panel;
}
