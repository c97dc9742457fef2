// ---- pointer: what is under it, dragging, pinching, the wheel -----------------------------------------------------------
function use(graph) {                                        // the graph that is pointed at is the one that is told about
  if (g === graph) return;
  const { selected, edge, hover, hoverEdge, matches, path } = state, there = counterparts(g, graph, { selected, edge, hover, hoverEdge, matches, path });
  g = graph;
  Object.assign(state, there);
  fillPanel();
}
function buildPointer(graph) {
  const canvas = graph.overCanvas, pointers = new Map();
  let moved = 0;
  const at = event => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  canvas.addEventListener("pointerdown", event => { use(graph); pointers.set(event.pointerId, at(event)); moved = 0; if (event.shiftKey && state.group !== "*") state.box = [...at(event), ...at(event)]; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", event => {
    const [x, y] = at(event), before = pointers.get(event.pointerId);
    if (!before) {
      use(graph);
      if (state.group === "*") { const group = groupAt(x, y); if (group !== g.pointed) { g.pointed = group; redraw(); } canvas.classList.toggle("pointing", group !== null); return; }
      const node = nodeAt(x, y), edge = node < 0 ? edgeAt(x, y) : -1;
      if (node !== state.hover || edge !== state.hoverEdge) { Object.assign(state, { hover: node, hoverEdge: edge }); point(); }
      canvas.classList.toggle("pointing", node >= 0 || edge >= 0);
      showTip(x, y);
      return;
    }
    if (state.box) { state.box.splice(2, 2, x, y); point(); } else if (pointers.size === 2) {
      const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      zoom((x + other[0]) / 2, (y + other[1]) / 2, Math.hypot(x - other[0], y - other[1]) / Math.max(1, Math.hypot(before[0] - other[0], before[1] - other[1])));
    } else if (moved + Math.abs(x - before[0]) + Math.abs(y - before[1]) > 4) { g.view.x += x - before[0]; g.view.y += y - before[1]; moving(); }
    moved += Math.abs(x - before[0]) + Math.abs(y - before[1]);
    pointers.set(event.pointerId, [x, y]);
    canvas.classList.toggle("dragging", moved > 4);
    g.tip.hidden = true;
  });
  const release = event => { pointers.delete(event.pointerId); if (state.box) { state.box = null; point(); } canvas.classList.remove("dragging"); };
  canvas.addEventListener("pointerup", event => {
    if (pointers.size === 1 && moved <= 4) {
      const [x, y] = at(event);
      if (state.group === "*") { const group = groupAt(x, y); if (group) openGroup(group.title); }
      else { const node = nodeAt(x, y), edge = node < 0 ? edgeAt(x, y) : -1; if (event.shiftKey) { if (node >= 0) togglePick(node); } else if (edge < 0) select(node); else chooseEdge(edge); }
    } else if (state.box) collect(within(state.box).map(firstId).filter(id => id !== undefined));
    release(event);
  });
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => { Object.assign(state, { hover: -1, hoverEdge: -1 }); graph.tip.hidden = true; point(); });
  canvas.addEventListener("dblclick", event => zoom(...at(event), 2));
  canvas.addEventListener("wheel", event => { event.preventDefault(); use(graph); zoom(...at(event), Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015))); }, { passive: false });
}
function buildGrip() {
  const grip = $("grip"), tell = width => grip.setAttribute("aria-valuenow", String(Math.round(width)));
  const wide = value => { const width = Math.max(200, Math.min(window.innerWidth * 0.75, value)); document.documentElement.style.setProperty("--panel", `${width}px`); tell(width); };
  tell($("panel").parentElement.offsetWidth);
  grip.addEventListener("pointerdown", event => grip.setPointerCapture(event.pointerId));
  grip.addEventListener("pointermove", event => { if (grip.hasPointerCapture(event.pointerId)) wide(window.innerWidth - event.clientX - 4); });
  grip.addEventListener("keydown", event => { if (event.key === "ArrowLeft" || event.key === "ArrowRight") { event.preventDefault(); wide($("panel").parentElement.offsetWidth + (event.key === "ArrowLeft" ? 24 : -24)); } });
}
