// ---- when it is drawn: the picture anew after a change, what is pointed at on its own ---------------------------------
let queued = "", settle = 0;
function counterparts(from, to, kept) {                      // what is chosen in one graph, in the other
  const node = at => at < 0 ? -1 : to.byId.get(to.matched(from.N.id[at])) ?? -1;
  const edge = at => {
    if (at < 0) return -1;
    const [s, t] = [node(from.E.source[at]), node(from.E.target[at])];
    return s < 0 || t < 0 ? -1 : to.out(s).find(other => to.E.target[other] === t) ?? -1;
  };
  const matches = kept.matches && new Set([...kept.matches].map(node).filter(at => at >= 0));
  return { selected: node(kept.selected), edge: edge(kept.edge), hover: node(kept.hover), hoverEdge: edge(kept.hoverEdge), matches, path: null };
}
function eachGraph(act) {
  const main = g, { selected, edge, hover, hoverEdge, matches, path } = state, kept = { selected, edge, hover, hoverEdge, matches, path };
  for (const graph of graphs) {
    g = graph;
    if (graph !== main) Object.assign(state, counterparts(main, graph, kept));
    act();
    Object.assign(state, kept);
  }
  g = main;
}

function draw() {
  const what = queued;
  queued = "";
  eachGraph(() => {
    if (!g.view.visible) return;
    if (what !== "over") drawBase(state.moving);
    if (!state.moving) drawOver();
    else g.over.clearRect(0, 0, g.canvas.width, g.canvas.height);
  });
  tellShown();
}
function queue(what) {
  if (queued !== "all") { if (!queued) requestAnimationFrame(draw); queued = queued === "" || what === "all" ? what : queued; }
}
const redraw = () => queue("all"), point = () => queue("over");
function moving() { state.moving = true; clearTimeout(settle); settle = setTimeout(() => { state.moving = false; redraw(); }, 160); redraw(); }

function tellShown() {
  const { edgesShown, featuresShown, counts = {} } = g;
  Object.assign(document.body.dataset, counts, { edgesShown, featuresShown });
  if (state.moving || state.group === "*") return;
  const part = (drawn, all, noun) => drawn < all ? `${drawn.toLocaleString("en")} of ${count(all, noun)}` : count(all, noun);
  const nearby = counts.nodesDrawn < featuresShown || counts.edgesDrawn < edgesShown;
  const text = `${part(counts.nodesDrawn, featuresShown, "feature")}, ${part(counts.edgesDrawn, edgesShown, "edge")} drawn${nearby ? ": the strongest in view" : ""}`;
  if ($("shown").textContent !== text) $("shown").textContent = text;
}

function resize() {
  const ratio = window.devicePixelRatio || 1;
  let changed = false;
  eachGraph(() => {
    const box = g.stage.getBoundingClientRect(), { view } = g;
    view.visible = box.width > 4 && !g.stage.hidden;
    if (!view.visible || (Math.abs(box.width - view.width) < 1 && Math.abs(box.height - view.height) < 1)) return;
    Object.assign(view, { width: box.width, height: box.height });
    for (const canvas of [g.canvas, g.overCanvas]) { canvas.width = Math.round(box.width * ratio); canvas.height = Math.round(box.height * ratio); }
    place();
    changed = true;
  });
  if (changed) { queued = "all"; draw(); }                   // at once: a resized canvas is blank until it is drawn on
}
