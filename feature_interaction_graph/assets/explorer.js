"use strict";
(() => {
// ---- data: columns, one entry per node or edge -------------------------------------------------------------------------------------
const data = JSON.parse(document.getElementById("graph-data").textContent);
const N = data.nodes, E = data.edges, H = data.gates, nNodes = N.id.length, nEdges = E.source.length, nGates = H.gate.length;      // H: edges of three ends
N.column = N.layer.map(() => 0);
const byId = new Map(N.id.map((id, node) => [id, node]));
const out = N.id.map(() => []), into = N.id.map(() => []);
E.source.forEach((source, edge) => { out[source].push(edge); into[E.target[edge]].push(edge); });
const gatesOfPair = new Map(), gatesOf = N.id.map(() => []);
H.gate.forEach((gate, at) => {
  const pair = `${H.source[at]} ${H.target[at]}`;
  gatesOfPair.has(pair) ? gatesOfPair.get(pair).push(at) : gatesOfPair.set(pair, [at]);
  for (const node of new Set([H.source[at], gate, H.target[at]])) gatesOf[node].push(at);
});
const gatesOn = edge => gatesOfPair.get(`${E.source[edge]} ${E.target[edge]}`) || [];
const TYPES = [...new Set(["excitatory", "inhibitory", ...E.type])].filter(type => E.type.includes(type));
const STYLE = { excitatory: { colour: "#00845f", css: "exc", dash: [] }, inhibitory: { colour: "#cf4a0a", css: "inh", dash: [6, 4] }, gating: { colour: "#7b5ea7", css: "oth", dash: [9, 3, 2, 3] } };
const styleOf = type => STYLE[type] || { colour: "#7b5ea7", css: "oth", dash: [1.5, 3] };
const GROUP_COLOURS = ["#4477aa", "#ccaa22", "#aa3377", "#66a0c8", "#886633", "#8877bb", "#557755", "#dd8899", "#33808c", "#888888"];
const groups = N.group ? [...new Set(N.group.filter(group => group !== null))] : [];

const $ = id => document.getElementById(id);
const canvas = $("canvas"), ctx = canvas.getContext("2d");
const state = { selected: -1, edge: -1, hover: -1, hoverEdge: -1, threshold: 0, measure: "strength", types: new Set(TYPES), hops: 0, matches: null };
const view = { scale: 1, x: 0, y: 0, width: 1, height: 1 };
const X = new Float64Array(nNodes), Y = new Float64Array(nNodes), R = new Float64Array(nNodes);
const edgeShown = new Uint8Array(nEdges), gateShown = new Uint8Array(nGates), nodeShown = new Uint8Array(nNodes), linked = new Uint8Array(nNodes);
let layerColumns = [], sizes = {}, ranked = [];

// ---- text: everything from the data enters the page as text, never as markup ----------------------------------------------------------
function el(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter(child => child !== null && child !== undefined));
  return element;
}
const number = (value, digits = 3) => value === null || value === undefined ? "unknown" : value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6) ? value.toExponential(1).replace(/-/g, "−") : String(Number(value.toPrecision(digits))).replace("-", "−");
const signed = value => (value > 0 ? "+" : value < 0 ? "−" : "") + number(Math.abs(value));
const percent = value => value === null ? "unknown" : `${number(100 * value)} %`;
const count = (many, noun) => `${many.toLocaleString("en")} ${noun}${many === 1 ? "" : "s"}`;
const clip = (text, length) => text.length > length ? text.slice(0, length - 1).trimEnd() + "…" : text;
const name = node => N.label[node] || N.id[node];
const strength = edge => { const value = E[state.measure][edge]; return value === null ? 0 : value; };
const isGating = edge => E.type[edge] === "gating";
const inUnit = (value, edge) => {                            // an interaction on this edge, in the unit chosen
  const mean = Math.abs(E.strength[edge] || 0), std = Math.abs(E.strength_std[edge] || 0);
  return state.measure === "strength_std" && mean && std ? Math.abs(value) * std / mean : Math.abs(value);
};
const size = edge => isGating(edge) ? Math.max(Math.abs(strength(edge)), inUnit(E.gate[edge] || 0, edge)) : Math.abs(strength(edge));

// ---- what is shown --------------------------------------------------------------------------------------------------------------------
function rankEdges() {
  ranked = [...E.source.keys()].map(size).sort((a, b) => a - b);
  sizes = { largest: ranked[nEdges - 1] || 1 };
}
function neighbourhood(seed, hops) {
  const reached = new Set([seed]);
  let frontier = [seed];
  for (let hop = 0; hop < hops; hop++) {
    const next = [];
    const reach = node => { if (!reached.has(node)) { reached.add(node); next.push(node); } };
    for (const node of frontier) {
      for (const [edges, end] of [[out[node], E.target], [into[node], E.source]]) for (const edge of edges) if (passes(edge)) reach(end[edge]);
      for (const at of gatesOf[node]) if (gatePasses(at)) { if (H.gate[at] === node) reach(H.target[at]); if (H.target[at] === node) reach(H.gate[at]); }      // a gate is one hop above what it gates
    }
    frontier = next;
  }
  return reached;
}
const passes = edge => size(edge) >= state.threshold && state.types.has(E.type[edge]);
const gatePasses = at => out[H.source[at]].some(edge => E.target[edge] === H.target[at] && passes(edge) && inUnit(H.interaction[at], edge) >= state.threshold);
function refilter() {
  const near = state.hops && state.selected >= 0 ? neighbourhood(state.selected, state.hops) : null;
  linked.fill(0);
  let edges = 0, features = 0;
  for (let edge = 0; edge < nEdges; edge++) {
    edgeShown[edge] = passes(edge) && (!near || (near.has(E.source[edge]) && near.has(E.target[edge])));
    if (edgeShown[edge]) { edges++; linked[E.source[edge]] = linked[E.target[edge]] = 1; }
  }
  for (let at = 0; at < nGates; at++) {
    gateShown[at] = gatePasses(at) && (!near || [H.source[at], H.gate[at], H.target[at]].every(node => near.has(node)));
    if (gateShown[at]) linked[H.gate[at]] = 1;
  }
  for (let node = 0; node < nNodes; node++) { nodeShown[node] = !near || near.has(node); features += nodeShown[node]; }
  $("threshold").textContent = number(state.threshold);
  $("shown").textContent = `shown: ${edges.toLocaleString("en")} of ${count(nEdges, "edge")}, ${features.toLocaleString("en")} of ${count(nNodes, "feature")}`;
  state.edgesShown = edges;
}

// ---- where it is shown: one column of rows per layer; crowded layers get several sub-columns, staggered ------------------------------------
function place() {
  const layers = new Map();
  for (const node of data.order) if (nodeShown[node]) { const layer = N.layer[node]; layers.has(layer) ? layers.get(layer).push(node) : layers.set(layer, [node]); }
  const columns = [...layers.entries()].sort((a, b) => a[0] - b[0]);
  const left = 46, right = Math.min(150, view.width * 0.16), top = 46, bottom = 40;
  const width = Math.max(60, view.width - left - right), height = Math.max(60, view.height - top - bottom);
  const most = Math.max(1, ...columns.map(([, nodes]) => nodes.length));
  const GAP = 4.2, STEP = 1.9;                                    // distances in rows: between layers, between sub-columns
  const lanesOf = (nodes, lanes) => Math.max(1, Math.round(nodes.length * lanes / most));      // `lanes` sub-columns for the largest layer, others in proportion
  let best = null;
  for (let lanes = 1; lanes <= most; lanes++) {
    const rows = Math.max(1, ...columns.map(([, nodes]) => nodes.length / lanesOf(nodes, lanes))), between = columns.reduce((sum, [, nodes]) => sum + lanesOf(nodes, lanes) - 1, 0);
    const wide = between * STEP + (columns.length - 1) * GAP, misfit = Math.abs(Math.log(Math.max(wide, 1) / rows * height / width));
    const row = Math.min(height / rows, 130), step = STEP * row;
    if (row >= 14 && between * step + (columns.length - 1) * 60 <= width) { best = { lanes, rows, step }; break; }     // the fewest sub-columns whose labels have room
    if (!best || misfit < best.misfit) best = { misfit, lanes, rows, step: STEP * Math.min(width / Math.max(wide, 1), 2.2 * row) };
  }
  const row = Math.min(height / best.rows, 130), step = best.step;
  const inside = columns.reduce((sum, [, nodes]) => sum + (lanesOf(nodes, best.lanes) - 1) * step, 0);
  const gap = columns.length > 1 ? Math.min((width - inside) / (columns.length - 1), 560) : 0;
  let x = left + Math.max(0, (width - inside - gap * (columns.length - 1)) / 2);
  layerColumns = [];
  for (const [layer, nodes] of columns) {
    const lanes = lanesOf(nodes, best.lanes), span = (lanes - 1) * step, spacing = Math.min(best.rows * row * lanes / nodes.length, 3 * row, 130);      // short layers spread out
    nodes.forEach((node, rank) => { X[node] = x + (rank % lanes) * step; Y[node] = top + height / 2 + (rank - (nodes.length - 1) / 2) / lanes * spacing; });
    for (const node of nodes) N.column[node] = layerColumns.length;
    layerColumns.push({ layer, from: x, to: x + span, features: nodes.length });
    x += span + gap;
  }
  const largest = Math.max(2.8, Math.min(13, row * 0.45, step * 0.45));
  for (let node = 0; node < nNodes; node++) R[node] = largest * (0.32 + 0.68 * Math.sqrt(N.size[node]));
  Object.assign(view, { scale: 1, x: 0, y: 0, row });
}
const sx = node => X[node] * view.scale + view.x, sy = node => Y[node] * view.scale + view.y;
const radius = node => R[node] * Math.min(2.2, Math.max(0.5, Math.sqrt(view.scale)));

// ---- drawing ----------------------------------------------------------------------------------------------------------------------------
function curve(edge) {
  const s = E.source[edge], t = E.target[edge];
  const x1 = sx(s), y1 = sy(s), x2 = sx(t), y2 = sy(t);
  const skipped = Math.max(0, Math.abs(N.column[t] - N.column[s]) - 1), shift = (E.offset[edge] || 0) * 7 - Math.min(3, skipped) * 13;     // an edge over a layer bows around its nodes
  if (N.layer[s] === N.layer[t]) { const bow = 24 + Math.abs(y2 - y1) * 0.25; return [x1, y1, x1 - bow, y1, x2 - bow, y2 + shift, x2, y2]; }
  const reach = Math.max(18, Math.abs(x2 - x1) * 0.45);
  return [x1, y1, x1 + reach, y1 + shift, x2 - reach, y2 + shift, x2, y2];
}
const along = (c, t) => { const u = 1 - t, a = u * u * u, b = 3 * u * u * t, d = 3 * u * t * t, e = t * t * t; return [a * c[0] + b * c[2] + d * c[4] + e * c[6], a * c[1] + b * c[3] + d * c[5] + e * c[7]]; };
function strokeEdge(edge, alpha) {
  const c = curve(edge), look = styleOf(E.type[edge]);
  ctx.globalAlpha = alpha;
  ctx.strokeStyle = ctx.fillStyle = look.colour;
  ctx.lineWidth = 0.7 + 2.6 * Math.sqrt(size(edge) / sizes.largest);
  ctx.setLineDash(look.dash);
  ctx.beginPath(); ctx.moveTo(c[0], c[1]); ctx.bezierCurveTo(...c.slice(2)); ctx.stroke();
  ctx.setLineDash([]);
  const r = radius(E.target[edge]) + 2, [px, py] = along(c, 0.93), angle = Math.atan2(c[7] - py, c[6] - px), head = 4 + ctx.lineWidth * 1.3;
  ctx.save(); ctx.translate(c[6] - r * Math.cos(angle), c[7] - r * Math.sin(angle)); ctx.rotate(angle);
  ctx.beginPath();
  if (isGating(edge)) { ctx.moveTo(1, 0); ctx.lineTo(-head, -head * 0.7); ctx.lineTo(-2 * head, 0); ctx.lineTo(-head, head * 0.7); ctx.fill(); }
  else if (strength(edge) < 0) { ctx.lineWidth = 2.2; ctx.moveTo(0, -head); ctx.lineTo(0, head); ctx.stroke(); }
  else { ctx.moveTo(1, 0); ctx.lineTo(-head * 1.4, -head * 0.75); ctx.lineTo(-head * 1.4, head * 0.75); ctx.fill(); }
  ctx.restore();
}
function strokeGate(at, alpha) {                             // a thin line from the gate to the middle of what it gates
  const edge = out[H.source[at]].find(other => E.target[other] === H.target[at] && edgeShown[other]);
  if (edge === undefined) return;
  const [x, y] = along(curve(edge), 0.55), gx = sx(H.gate[at]), gy = sy(H.gate[at]), bow = gx < x ? 0.5 * (x - gx) : -30;
  ctx.globalAlpha = alpha; ctx.strokeStyle = ctx.fillStyle = STYLE.gating.colour; ctx.lineWidth = 1.3;
  ctx.setLineDash([2, 3]);
  ctx.beginPath(); ctx.moveTo(gx, gy); ctx.bezierCurveTo(gx + bow, gy, x - bow * 0.4, y, x, y); ctx.stroke();
  ctx.setLineDash([]);
  ctx.beginPath(); ctx.arc(x, y, 4, 0, 7);
  if (H.direction[at] === "NOT") { ctx.fillStyle = "#ffffff"; ctx.fill(); ctx.stroke(); } else ctx.fill();
}
function strokeMany(edges, alphaOf) {                       // few strokes for many edges: up to a hundred of one type and strength class in one path (longer paths are slow again)
  const paths = new Map(), all = [];
  for (const edge of edges) {
    const level = Math.ceil(6 * Math.sqrt(size(edge) / sizes.largest)), key = `${E.type[edge]} ${level}`, c = curve(edge);
    let path = paths.get(key);
    if (!path || path.many >= 100) { path = { type: E.type[edge], share: level / 6, lines: new Path2D(), many: 0 }; paths.set(key, path); all.push(path); }
    path.many++;
    path.lines.moveTo(c[0], c[1]); path.lines.bezierCurveTo(...c.slice(2));
  }
  for (const { type, share, lines } of all.sort((a, b) => a.share - b.share)) {
    const look = styleOf(type);
    ctx.globalAlpha = alphaOf(share, type); ctx.strokeStyle = look.colour; ctx.lineWidth = 0.7 + 2.6 * share;
    ctx.setLineDash(edges.length > 5000 ? [] : look.dash); ctx.stroke(lines);
  }
  ctx.setLineDash([]);
}
function fillOf(node) {
  if (N.value) { const value = N.value[node]; if (value === null || value === 0) return "#c9d1da"; const share = 0.25 + 0.75 * Math.sqrt(Math.min(1, Math.abs(value) / data.largest_value)); return mix("#d5dbe2", value > 0 ? "#00845f" : "#cf4a0a", share); }
  if (N.group && N.group[node] !== null) return GROUP_COLOURS[groups.indexOf(N.group[node]) % GROUP_COLOURS.length];
  return N.seed[node] ? "#0072b2" : "#64748a";
}
function mix(from, to, share) {
  const part = at => Math.round(parseInt(from.slice(at, at + 2), 16) * (1 - share) + parseInt(to.slice(at, at + 2), 16) * share);
  return `rgb(${part(1)},${part(3)},${part(5)})`;
}
function lit() {                                            // the nodes in focus, or null for all of them
  const focus = state.hover >= 0 ? state.hover : state.hops ? -1 : state.selected;
  if (focus >= 0 && nodeShown[focus]) {
    const nodes = new Set([focus]);
    for (const edge of out[focus]) if (edgeShown[edge]) nodes.add(E.target[edge]);
    for (const edge of into[focus]) if (edgeShown[edge]) nodes.add(E.source[edge]);
    for (const at of gatesOf[focus]) if (gateShown[at]) for (const node of [H.source[at], H.gate[at], H.target[at]]) nodes.add(node);
    return { focus, nodes };
  }
  return state.matches ? { focus: -1, nodes: state.matches } : null;
}
function draw() {
  const ratio = window.devicePixelRatio || 1, light = lit();
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  ctx.globalAlpha = 1;
  ctx.fillStyle = "#ffffff"; ctx.fillRect(0, 0, view.width, view.height);
  drawLayers();
  const heads = state.edgesShown <= 150 || view.scale > 2.5, base = Math.max(0.2, Math.min(0.75, 8 / Math.sqrt(state.edgesShown + 1)));
  const floor = state.moving && state.edgesShown > 2000 ? ranked[Math.max(0, nEdges - 1500)] : 0;      // while the view moves, the strongest edges are enough
  let edges = 0, nodes = 0;
  const bright = [], pale = [];
  for (let edge = 0; edge < nEdges; edge++) {
    if (!edgeShown[edge]) continue;
    edges++;
    if (size(edge) < floor) continue;
    const inFocus = !light || (light.focus >= 0 ? E.source[edge] === light.focus || E.target[edge] === light.focus || gatesOn(edge).some(at => H.gate[at] === light.focus) : light.nodes.has(E.source[edge]) && light.nodes.has(E.target[edge]));
    (inFocus || edge === state.hoverEdge || edge === state.edge ? bright : pale).push(edge);
  }
  if (pale.length) strokeMany(pale, () => light.focus >= 0 ? 0.07 : 0.1);
  if (!light && !heads) {
    strokeMany(bright, (share, type) => base * (0.5 + 0.5 * share) * (type === "inhibitory" ? 1.3 : 1));
    if (state.hoverEdge >= 0) strokeEdge(state.hoverEdge, 1);
  } else {
    bright.sort((a, b) => size(a) - size(b));
    for (const edge of bright) strokeEdge(edge, edge === state.hoverEdge || edge === state.edge ? 1 : light ? 0.85 : base * (0.55 + 0.45 * size(edge) / sizes.largest) * (strength(edge) < 0 ? 1.3 : 1));
  }
  let gates = 0;
  for (let at = 0; at < nGates; at++) {
    const pointed = [state.hoverEdge, state.edge].some(edge => edge >= 0 && gatesOn(edge).includes(at)), focused = light && light.focus >= 0 && gatesOf[light.focus].includes(at);
    if (gateShown[at] && (pointed || focused || (!light && heads))) { strokeGate(at, pointed || focused ? 0.9 : 0.45); gates++; }
  }
  for (const node of data.by_size) {
    if (!nodeShown[node]) continue;
    nodes++;
    drawNode(node, !light || light.nodes.has(node), light && light.focus === node);
  }
  drawLabels(light);
  Object.assign(document.body.dataset, { nodesDrawn: nodes, edgesDrawn: edges, gatesDrawn: gates });
}
function drawLayers() {
  ctx.textAlign = "center";
  layerColumns.forEach((column, index) => {
    const from = column.from * view.scale + view.x, to = column.to * view.scale + view.x, middle = (from + to) / 2;
    if (index % 2 === 0) { ctx.fillStyle = "#f7f9fb"; ctx.fillRect(from - 22, 0, to - from + 44, view.height); }
    ctx.fillStyle = "#5d6b7a"; ctx.font = "600 12px system-ui, sans-serif"; ctx.fillText(`layer ${column.layer}`, middle, 17);
    ctx.fillStyle = "#8a96a3"; ctx.font = "10.5px system-ui, sans-serif"; ctx.fillText(column.features.toLocaleString("en"), middle, 30);
  });
  ctx.textAlign = "left";
}
function drawNode(node, inFocus, focused) {
  const x = sx(node), y = sy(node), r = radius(node);
  ctx.globalAlpha = !inFocus ? 0.22 : linked[node] || focused ? 1 : 0.4;
  ctx.beginPath(); ctx.arc(x, y, r, 0, 7); ctx.fillStyle = fillOf(node); ctx.fill();
  ctx.lineWidth = 1; ctx.strokeStyle = "#ffffff"; ctx.stroke();
  if (N.hub[node]) { ctx.beginPath(); ctx.arc(x, y, r + 1.6, 0, 7); ctx.strokeStyle = "#1d2733"; ctx.lineWidth = 1.4; ctx.stroke(); }
  if (focused || node === state.selected) { ctx.beginPath(); ctx.arc(x, y, r + 4.5, 0, 7); ctx.strokeStyle = "#0072b2"; ctx.lineWidth = 2.5; ctx.stroke(); }
}
function drawLabels(light) {                                // greedy: the most important first, each only where there is room
  const cell = 6, across = Math.ceil(view.width / cell) + 1, down = Math.ceil(view.height / cell) + 1, taken = new Uint8Array(across * down);
  const cover = (x1, y1, x2, y2, visit) => {
    for (let j = Math.max(0, Math.floor(y1 / cell)); j <= Math.min(down - 1, Math.floor(y2 / cell)); j++)
      for (let i = Math.max(0, Math.floor(x1 / cell)); i <= Math.min(across - 1, Math.floor(x2 / cell)); i++) if (visit(j * across + i)) return true;
    return false;
  };
  const wanted = node => nodeShown[node] && (!light || light.nodes.has(node));
  for (let node = 0; node < nNodes; node++) if (wanted(node)) { const r = radius(node); cover(sx(node) - r, sy(node) - r, sx(node) + r, sy(node) + r, at => { taken[at] = 1; }); }
  cover(0, 0, view.width, 33, at => { taken[at] = 1; });       // the layer names
  const first = light && light.focus >= 0 ? [light.focus] : [];
  const order = [...first, ...[...N.id.keys()].filter(node => N.hub[node] || N.seed[node]), ...[...data.by_size].reverse()];
  let left = 240, over = light ? 0 : 24;       // the first `over` labels may cover nodes, the others only empty space
  const names = new Uint8Array(taken.length);
  const named = new Set();
  ctx.globalAlpha = 1;
  for (const node of order) {
    if (!left) break;
    if (named.has(node) || !wanted(node) || (!light && !linked[node] && state.edgesShown)) continue;
    const focused = first.includes(node), x = sx(node) + radius(node) + 4, y = sy(node);
    if (x < 0 || x > view.width || y < 30 || y > view.height) continue;
    ctx.font = `${focused ? "600 13px" : "11.5px"} system-ui, sans-serif`;
    let text = clip(name(node), focused ? 60 : 26), width = ctx.measureText(text).width;
    while (x + width > view.width - 3 && text.length > 8) { text = clip(text, text.length - 1 - text.endsWith("…")); width = ctx.measureText(text).width; }
    const r = radius(node), lift = view.row * view.scale > 34 ? 8 : 0;      // above the edges where rows are far apart
    const places = [[x, y - lift], [x - r - 4 - width / 2, y - r - 9], [x - r - 4 - width / 2, y + r + 9], [x - 2 * r - 8 - width, y - lift]];
    const free = ([a, b]) => b > 40 && a > 0 && !cover(a, b - 7, a + width + 4, b + 7, at => names[at]) && !cover(a + cell, b - 6, a + width, b + 6, at => taken[at]);
    let spot = focused ? places[0] : lift || light ? places.find(free) : free(places[0]) ? places[0] : null;
    if (!spot && over > 0 && !cover(x, y - 7, x + width + 4, y + 7, at => names[at])) { spot = places[0]; over--; }
    if (!spot) continue;
    const [a, b] = spot;
    cover(a, b - 7, a + width + 4, b + 7, at => { names[at] = taken[at] = 1; });
    ctx.lineWidth = 3.5; ctx.lineJoin = "round"; ctx.strokeStyle = "#ffffffe6"; ctx.strokeText(text, a, b + 4);
    ctx.fillStyle = "#1d2733"; ctx.fillText(text, a, b + 4);
    named.add(node); left--;
  }
}
let queued = false, settle = 0;
function moving() { state.moving = true; clearTimeout(settle); settle = setTimeout(() => { state.moving = false; redraw(); }, 160); redraw(); }
function redraw() { if (!queued) { queued = true; requestAnimationFrame(() => { queued = false; draw(); }); } }
function resize() {
  const box = $("stage").getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
  if (Math.abs(box.width - view.width) < 1 && Math.abs(box.height - view.height) < 1) return;
  Object.assign(view, { width: box.width, height: box.height });
  canvas.width = Math.round(box.width * ratio); canvas.height = Math.round(box.height * ratio);
  place(); draw();                                           // at once: a resized canvas is blank until it is drawn on
}

// ---- the panel ------------------------------------------------------------------------------------------------------------------------------
function edgeRow(edge, node, label) {
  const look = styleOf(E.type[edge]), value = strength(edge);
  const bar = el("span", { className: look.css });
  bar.style.width = `${100 * size(edge) / sizes.largest}%`;
  const facts = [E.ci_lower[edge] === null || state.measure !== "strength" ? null : `[${number(E.ci_lower[edge])}, ${number(E.ci_upper[edge])}]`, E.q_value[edge] === null ? null : `q ${number(E.q_value[edge], 2)}`,
    E.n_samples[edge] === null ? null : `n ${E.n_samples[edge]}`, E.offset[edge] ? `${count(E.offset[edge], "token")} later` : null, E.other_offsets[edge] ? `also ${E.other_offsets[edge]}` : null,
    E.gated_by[edge] ? `gated by ${E.gated_by[edge]}` : null].filter(Boolean);
  const row = el("button", { className: edgeShown[edge] ? "row" : "row faint", title: edgeShown[edge] ? "" : "hidden in the picture by the filters above" },
    el("b", { textContent: label || name(node) }), el("em", { className: look.css, textContent: isGating(edge) ? `mean ${signed(value)}` : signed(value) }),
    el("span", { className: "bar" }, bar), el("small", { textContent: [label ? `${N.id[E.source[edge]]} → ${N.id[E.target[edge]]}` : N.label[node] ? N.id[node] : null, ...facts].filter(Boolean).join(" · ") }));
  row.addEventListener("click", () => select(node));
  row.addEventListener("mouseenter", () => { state.hoverEdge = edge; redraw(); });
  row.addEventListener("mouseleave", () => { state.hoverEdge = -1; redraw(); });
  return row;
}
const effect = value => value === null ? "unknown" : value === 0 ? "0.00" : (value > 0 ? "+" : "−") + (Math.abs(value) < 0.01 ? number(Math.abs(value), 2) : Math.abs(value).toFixed(2));
function gateRow(at, node) {                                 // "A AND B → C: off 0.00, on +0.81"; a click goes to an end that is not selected
  const [source, gate, target] = [H.source[at], H.gate[at], H.target[at]], other = node === gate ? target : gate;
  const facts = [`${N.id[source]} ${H.reads[at]} ${N.id[gate]} → ${N.id[target]}`, H.direction[at], H.ci_lower[at] === null ? null : `difference ${signed(H.interaction[at])} [${number(H.ci_lower[at])}, ${number(H.ci_upper[at])}]`,
    H.q_value[at] === null ? null : `q ${number(H.q_value[at], 2)}`, H.n_samples[at] === null ? null : `n ${H.n_samples[at]}`, H.offset[at] ? `${count(H.offset[at], "token")} later` : null];
  const row = el("button", { className: gateShown[at] ? "row gate" : "row gate faint", title: gateShown[at] ? "" : "hidden in the picture by the filters above" },
    el("b", { textContent: `${clip(name(source), 48)} ${H.reads[at]} ${clip(name(gate), 48)} → ${clip(name(target), 48)}` }), el("em", { className: "oth", textContent: `off ${effect(H.effect_off[at])}, on ${effect(H.effect_on[at])}` }),
    el("small", { textContent: facts.filter(Boolean).join(" · ") }));
  row.addEventListener("click", () => select(other));
  return row;
}
const strongestGates = gates => [...gates].sort((a, b) => Math.abs(H.interaction[b]) - Math.abs(H.interaction[a]));
function section(title, note, rows, first = 8) {
  if (!rows.length) return null;
  const box = el("section", {}, el("h3", {}, title, el("small", { textContent: note })), ...rows.slice(0, first).map(make => make()));
  if (rows.length > first) {
    const more = el("button", { className: "plain", textContent: `${rows.length - first} more` });
    more.addEventListener("click", () => more.replaceWith(...rows.slice(first).map(make => make())));
    box.append(more);
  }
  return box;
}
const fact = (term, value) => el("div", {}, el("dt", { textContent: term }), el("dd", { textContent: value }));
const strongestFirst = edges => [...edges].sort((a, b) => size(b) - size(a));
function context(text) {                                     // the token in «…» is marked
  const item = el("li");
  text.split(/(«[^»]*»)/).forEach(part => item.append(part.startsWith("«") && part.endsWith("»") ? el("mark", { textContent: part.slice(1, -1) }) : part));
  return item;
}
function nodePanel(node) {
  const up = edge => !isGating(edge) && strength(edge) > 0, down = edge => !isGating(edge) && strength(edge) < 0;
  const sections = [["out", up, "It excites"], ["out", down, "It inhibits"], ["in", up, "It is excited by"], ["in", down, "It is inhibited by"], ["out", isGating, "Gated, it acts on"], ["in", isGating, "Gated, it is acted on by"]].map(([side, chosen, title]) => {
    const edges = strongestFirst((side === "out" ? out : into)[node].filter(chosen));
    return section(title, edges.length, edges.map(edge => () => edgeRow(edge, side === "out" ? E.target[edge] : E.source[edge])));
  });
  const gates = [[at => H.source[at] === node, "Gates of its effects"], [at => H.target[at] === node, "Gates of effects on it"], [at => H.gate[at] === node, "Effects it gates"]].map(([chosen, title]) => {
    const those = strongestGates(gatesOf[node].filter(chosen));
    return section(title, those.length, those.map(at => () => gateRow(at, node)));
  });
  if (state.edge >= 0) {
    const those = strongestGates(gatesOn(state.edge)), shown = el("section", { id: "edge" }, el("h3", { textContent: "The edge you chose" }),
      edgeRow(state.edge, E.target[state.edge], `${clip(name(E.source[state.edge]), 40)} → ${clip(name(E.target[state.edge]), 40)}`));
    shown.append(...those.map(at => gateRow(at, node)), ...(those.length || !nGates ? [] : [el("p", { textContent: "No gate of this effect was found." })]));
    gates.unshift(shown);
  }
  const actions = el("div", { className: "actions" });
  const add = (text, act) => { const button = el("button", { className: "plain", textContent: text }); button.addEventListener("click", act); actions.append(button); };
  add("← overview", () => select(-1));
  add(state.hops ? "Show the whole graph" : "Show only its neighbours", () => { state.hops = state.hops ? 0 : 1; $("hops").value = state.hops; changed(true); });
  const contexts = N.contexts[node] || [];
  return [el("h2", { textContent: name(node) }), el("p", { textContent: `${N.id[node]} · layer ${N.layer[node]}, feature ${N.feature[node]}${N.seed[node] ? " · seed" : ""}${N.hub[node] ? " · hub" : ""}${N.group && N.group[node] !== null ? ` · ${N.group[node]}` : ""}` }), actions,
    el("dl", {}, fact("fires on", N.frequency[node] === null ? "unknown" : `${percent(N.frequency[node])} of tokens`), fact("importance", number(N.importance[node])),
      fact("edges in", N.in_degree[node].toLocaleString("en")), fact("edges out", N.out_degree[node].toLocaleString("en")), N.value ? fact(data.value_name, N.value[node] === null ? "none" : signed(N.value[node])) : null),
    ...gates.slice(0, -3), ...sections, ...gates.slice(-3), contexts.length ? el("section", {}, el("h3", {}, "Where it fires most", el("small", { textContent: contexts.length })), el("ol", {}, ...contexts.map(context))) : null, reading()].filter(Boolean);
}
const reading = () => el("p", { className: "reading", textContent: `${state.measure === "strength" ? "Strength is target activation per source activation, [ ] its 95 % confidence interval" : "Strength is in standard deviations of target and source"}; q is p after correction for all tests; n counts samples.${nGates ? " Off and on: the effect while the gate feature was clamped off and on, in activations." : ""}` });
function overviewPanel() {
  const all = strongestFirst(E.source.keys()).slice(0, 40);
  const hubs = [...N.id.keys()].sort((a, b) => N.in_degree[b] + N.out_degree[b] - N.in_degree[a] - N.out_degree[a]).slice(0, 30);
  const hubRow = node => () => {
    const row = el("button", { className: "row" }, el("b", { textContent: name(node) }), el("em", { textContent: `${N.in_degree[node]} in, ${N.out_degree[node]} out` }), el("small", { textContent: N.id[node] }));
    row.addEventListener("click", () => select(node));
    return row;
  };
  return [el("h2", { textContent: "Overview" }),
    el("p", { textContent: "An edge is a measured effect: the source was set to a low and a high activation at one token and the target's change was read, everything between running freely. Click a feature for its evidence." }),
    el("dl", {}, ...data.facts.map(([term, value]) => fact(term, value))),
    section("Strongest edges", "", all.map(edge => () => edgeRow(edge, E.source[edge], `${clip(name(E.source[edge]), 40)} → ${clip(name(E.target[edge]), 40)}`)), 6),
    section("Strongest gates", "", strongestGates(H.gate.keys()).slice(0, 40).map(at => () => gateRow(at, H.gate[at])), 4), section("Best connected features", "", hubs.map(hubRow), 6), reading()].filter(Boolean);
}
function fillPanel() {
  $("panel").replaceChildren(...(state.selected >= 0 ? nodePanel(state.selected) : overviewPanel()));
  document.body.dataset.selected = state.selected >= 0 ? N.id[state.selected] : "";
}

// ---- state: kept in the address, so that a link or the back button brings a view back -----------------------------------------------------------
function address() {
  const parts = new URLSearchParams();
  if (state.selected >= 0) parts.set("select", N.id[state.selected]);
  if (state.hops) parts.set("hops", state.hops);
  if (state.measure !== "strength") parts.set("measure", state.measure);
  if (state.threshold !== state.initial) parts.set("min", Number(state.threshold.toPrecision(6)));
  if (state.types.size < TYPES.length) parts.set("types", [...state.types].join(","));
  return "#" + parts.toString();
}
function remember() { try { if (address() !== (location.hash || "#")) history.pushState(null, "", address()); } catch (refusal) { document.body.dataset.address = refusal.name; } }   // not allowed inside some notebook frames
function restore(hash = location.hash) {
  const parts = new URLSearchParams(hash.slice(1)), types = parts.get("types"), hops = Number(parts.get("hops"));
  state.measure = parts.get("measure") === "strength_std" && data.has_std ? "strength_std" : "strength";
  rankEdges();
  state.initial = initialThreshold();
  state.threshold = parts.has("min") && Number.isFinite(Number(parts.get("min"))) ? Number(parts.get("min")) : state.initial;
  state.types = new Set(types === null ? TYPES : TYPES.filter(type => types.split(",").includes(type)));
  state.hops = [1, 2, 3].includes(hops) ? hops : 0;
  const selected = byId.get(parts.get("select"));
  Object.assign(state, { selected: selected === undefined ? -1 : selected, edge: -1 });
  showControls();
}
const initialThreshold = () => nEdges > data.first_edges ? ranked[nEdges - data.first_edges] : 0;
function showControls() {
  $("measure").value = state.measure; $("hops").value = state.hops;
  $("slider").value = Math.round(1000 * ranked.findLastIndex(value => value < state.threshold) / Math.max(1, nEdges - 1));
  for (const box of $("types").querySelectorAll("input")) box.checked = state.types.has(box.value);
}
function changed(layout = false) { refilter(); if (layout || state.hops) place(); fillPanel(); remember(); redraw(); }
function select(node, edge = -1) {
  const before = state.selected;
  Object.assign(state, { selected: node, edge });
  if (node < 0) { state.hops = 0; showControls(); }
  if (node >= 0 && (before !== node || edge >= 0)) $("panel").scrollTop = 0;
  changed(node < 0 && before >= 0 && view.scale === 1);
}

// ---- controls ---------------------------------------------------------------------------------------------------------------------------------------
function buildControls() {
  for (const type of TYPES) {
    const box = el("input", { type: "checkbox", value: type, checked: true }), sample = el("canvas", { width: 68, height: 24 }), look = styleOf(type);
    sample.style.width = "34px"; sample.style.height = "12px";
    const pen = sample.getContext("2d");
    Object.assign(pen, { strokeStyle: look.colour, fillStyle: look.colour, lineWidth: 4 });
    pen.setLineDash(look.dash.map(length => length * 1.7)); pen.beginPath(); pen.moveTo(2, 12); pen.lineTo(52, 12); pen.stroke(); pen.setLineDash([]);
    pen.beginPath();
    if (type === "gating") { pen.moveTo(66, 12); pen.lineTo(57, 4); pen.lineTo(48, 12); pen.lineTo(57, 20); pen.fill(); }
    else if (type === "inhibitory") { pen.moveTo(58, 2); pen.lineTo(58, 22); pen.stroke(); } else { pen.moveTo(66, 12); pen.lineTo(50, 3); pen.lineTo(50, 21); pen.fill(); }
    box.addEventListener("change", () => { box.checked ? state.types.add(type) : state.types.delete(type); changed(); });
    $("types").append(el("label", {}, box, sample, `${type} ${E.type.filter(other => other === type).length.toLocaleString("en")}`));
  }
  $("slider").addEventListener("input", () => { state.threshold = Number($("slider").value) === 0 ? 0 : ranked[Math.round($("slider").value / 1000 * (nEdges - 1))]; refilter(); redraw(); });
  $("slider").addEventListener("change", () => changed());
  if (!data.has_std) $("measure").parentElement.remove();
  else $("measure").addEventListener("change", () => { state.measure = $("measure").value; rankEdges(); state.initial = state.threshold = initialThreshold(); showControls(); changed(); });
  $("hops").addEventListener("change", () => { state.hops = Number($("hops").value); if (state.hops && state.selected < 0 && nNodes) state.selected = data.by_size[nNodes - 1]; changed(true); });
  $("fit").addEventListener("click", () => { place(); redraw(); });
  $("png").addEventListener("click", () => canvas.toBlob(blob => download(blob, "graph.png")));
  $("json").addEventListener("click", () => download(new Blob([shownAsJson()], { type: "application/json" }), "subgraph.json"));
  $("counts").textContent = data.counts; $("counts").title = data.counts;
  const key = (colour, text) => { const dot = el("i"); dot.style.background = colour; return el("span", {}, dot, text); };
  $("key").append(`size: ${data.size_name}`);
  if (N.hub.some(Boolean)) { const ring = el("i"); ring.style.border = "1.6px solid #1d2733"; $("key").append(el("span", {}, ring, "hub")); }
  if (nGates) $("key").append(key(STYLE.gating.colour, "gate"));
  if (N.value) $("key").append(key("#00845f", `${data.value_name} up`), key("#cf4a0a", "down"));
  else if (groups.length) groups.slice(0, 10).forEach((group, index) => $("key").append(key(GROUP_COLOURS[index], group)));
  else if (N.seed.some(Boolean)) $("key").append(key("#0072b2", "seed"));
}
function download(blob, file) {
  const link = el("a", { href: URL.createObjectURL(blob), download: file });
  link.click(); setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
function shownAsJson() {
  const nodes = [...N.id.keys()].filter(node => nodeShown[node]).map(node => ({ id: N.id[node], layer: N.layer[node], feature_idx: N.feature[node], label: N.label[node], importance: N.importance[node], activation_freq: N.frequency[node] }));
  const edges = [...E.source.keys()].filter(edge => edgeShown[edge]).map(edge => ({ source: N.id[E.source[edge]], target: N.id[E.target[edge]], key: edge, interaction_type: E.type[edge], strength: E.strength[edge],
    abs_strength: Math.abs(E.strength[edge]), strength_std: E.strength_std[edge], ci_lower: E.ci_lower[edge], ci_upper: E.ci_upper[edge], q_value: E.q_value[edge], n_samples: E.n_samples[edge], offset: E.offset[edge], ...(E.gated_by[edge] ? { gated_by: E.gated_by[edge], gate_strength: E.gate[edge] } : {}) }));
  const hyperedges = [...H.gate.keys()].filter(at => gateShown[at]).map(at => ({ source: N.id[H.source[at]], gate: N.id[H.gate[at]], target: N.id[H.target[at]],
    ...Object.fromEntries(["direction", "effect_off", "effect_on", "interaction", "ci_lower", "ci_upper", "p_value", "q_value", "n_samples", "offset"].map(column => [column, H[column][at]])) }));
  if (!data.multigraph) edges.forEach(edge => { delete edge.key; });
  return JSON.stringify({ format: "feature-interaction-graph", version: 1, directed: true, multigraph: data.multigraph, graph: { title: document.title, note: "saved from the explorer; numbers have 6 digits", view: address(), ...(nGates ? { hyperedges } : {}) }, nodes, edges });
}
function buildSearch() {
  const input = $("search"), box = $("results");
  let found = [], current = 0;
  const close = () => { box.hidden = true; };
  const mark = () => [...box.children].forEach((row, index) => row.classList.toggle("current", index === current));
  const update = () => {
    const words = input.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    found = words.length ? [...data.by_size].reverse().filter(node => { const text = `${N.label[node]} ${N.id[node]}`.toLowerCase(); return words.every(word => text.includes(word)); }) : [];
    const exact = byId.get(input.value.trim().toUpperCase());
    if (exact !== undefined) found = [exact, ...found.filter(node => node !== exact)];
    state.matches = words.length ? new Set(found) : null;
    current = 0;
    box.replaceChildren(...found.slice(0, 12).map(node => {
      const row = el("button", { type: "button" }, el("span", { textContent: clip(name(node), 90) }), el("small", { textContent: `${N.id[node]} · ${N.in_degree[node]} in, ${N.out_degree[node]} out` }));
      row.addEventListener("mousedown", event => { event.preventDefault(); choose(node); });
      return row;
    }), ...(found.length > 12 ? [el("p", { textContent: `and ${found.length - 12} more` })] : []), ...(words.length && !found.length ? [el("p", { textContent: "no feature with this label or id is in the graph" })] : []));
    box.hidden = !words.length; mark(); redraw();
  };
  const choose = node => { input.value = ""; state.matches = null; close(); input.blur(); select(node); centre(node); };
  input.addEventListener("input", update);
  input.addEventListener("focus", update);
  input.addEventListener("blur", () => { close(); state.matches = null; redraw(); });
  input.addEventListener("keydown", event => {
    if (event.key === "Enter" && found.length) choose(found[current]);
    else if (event.key === "Escape") { input.value = ""; update(); input.blur(); }
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") { event.preventDefault(); current = Math.max(0, Math.min(Math.min(12, found.length) - 1, current + (event.key === "ArrowDown" ? 1 : -1))); mark(); }
  });
  document.addEventListener("keydown", event => {
    if (["INPUT", "SELECT"].includes(event.target.tagName) && event.target.type !== "range") return;
    if (event.key === "/") { event.preventDefault(); input.focus(); }
    else if (event.key === "Escape") select(-1);
    else if (event.key === "f") { place(); redraw(); }
    else if (event.key === "+" || event.key === "-") zoom(view.width / 2, view.height / 2, event.key === "+" ? 1.3 : 1 / 1.3);
  });
}
function centre(node) {
  if (sx(node) > 20 && sx(node) < view.width - 20 && sy(node) > 40 && sy(node) < view.height - 20) return;
  view.x += view.width / 2 - sx(node); view.y += view.height / 2 - sy(node); redraw();
}
function zoom(x, y, factor) {
  const scale = Math.max(0.3, Math.min(40, view.scale * factor)), share = scale / view.scale;
  Object.assign(view, { scale, x: x - (x - view.x) * share, y: y - (y - view.y) * share }); moving();
}
function nodeAt(x, y) {
  let best = -1, nearest = 1;
  for (let node = 0; node < nNodes; node++) {
    if (!nodeShown[node]) continue;
    const distance = Math.hypot(sx(node) - x, sy(node) - y) / (radius(node) + 5);
    if (distance < nearest) { nearest = distance; best = node; }
  }
  return best;
}
function edgeAt(x, y) {
  let best = -1, nearest = 5;
  const light = lit();
  for (let edge = 0; edge < nEdges; edge++) {
    if (!edgeShown[edge] || (light && light.focus >= 0 && E.source[edge] !== light.focus && E.target[edge] !== light.focus)) continue;
    const c = curve(edge);
    if (Math.min(c[0], c[2], c[6]) > x + 5 || Math.max(c[0], c[6]) < x - 5 || Math.min(c[1], c[7]) > y + 12 || Math.max(c[1], c[7]) < y - 12) continue;
    for (let step = 1; step < 40; step++) { const [px, py] = along(c, step / 40), distance = Math.hypot(px - x, py - y); if (distance < nearest) { nearest = distance; best = edge; } }
  }
  return best;
}
function showTip(x, y) {
  const tip = $("tip"), node = state.hover, edge = state.hoverEdge;
  tip.hidden = node < 0 && edge < 0;
  if (tip.hidden) return;
  if (node >= 0) tip.textContent = `${name(node)}\n${N.id[node]} · ${N.in_degree[node]} in, ${N.out_degree[node]} out${N.frequency[node] === null ? "" : ` · fires on ${percent(N.frequency[node])} of tokens`}`;
  else tip.textContent = `${name(E.source[edge])}\n${isGating(edge) ? "◆ acts, gated, on" : strength(edge) < 0 ? "⊣ inhibits" : "→ excites"}  ${name(E.target[edge])}\n${signed(strength(edge))}${E.ci_lower[edge] === null || state.measure !== "strength" ? "" : `  (95 % CI ${number(E.ci_lower[edge])} to ${number(E.ci_upper[edge])})`}${E.q_value[edge] === null ? "" : `, q ${number(E.q_value[edge], 2)}`}${strongestGates(gatesOn(edge)).slice(0, 3).map(at => `\n${H.reads[at]} ${name(H.gate[at])}: off ${effect(H.effect_off[at])}, on ${effect(H.effect_on[at])}`).join("")}`;
  const wide = tip.offsetWidth, tall = tip.offsetHeight;
  tip.style.left = `${Math.max(4, Math.min(x + 14, view.width - wide - 6))}px`; tip.style.top = `${y + 18 + tall > view.height ? y - tall - 10 : y + 18}px`;
}
function buildPointer() {
  const pointers = new Map();
  let moved = 0;
  const at = event => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  canvas.addEventListener("pointerdown", event => { pointers.set(event.pointerId, at(event)); moved = 0; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", event => {
    const [x, y] = at(event), before = pointers.get(event.pointerId);
    if (!before) {
      const node = nodeAt(x, y), edge = node < 0 ? edgeAt(x, y) : -1;
      if (node !== state.hover || edge !== state.hoverEdge) { Object.assign(state, { hover: node, hoverEdge: edge }); redraw(); }
      canvas.classList.toggle("pointing", node >= 0 || edge >= 0); showTip(x, y);
      return;
    }
    if (pointers.size === 2) {
      const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
      zoom((x + other[0]) / 2, (y + other[1]) / 2, Math.hypot(x - other[0], y - other[1]) / Math.max(1, Math.hypot(before[0] - other[0], before[1] - other[1])));
    } else { view.x += x - before[0]; view.y += y - before[1]; moving(); }
    moved += Math.abs(x - before[0]) + Math.abs(y - before[1]);
    pointers.set(event.pointerId, [x, y]); canvas.classList.toggle("dragging", moved > 4); $("tip").hidden = true;
  });
  const release = event => { pointers.delete(event.pointerId); canvas.classList.remove("dragging"); };
  canvas.addEventListener("pointerup", event => {
    if (pointers.size === 1 && moved <= 4) { const [x, y] = at(event), node = nodeAt(x, y), edge = node < 0 ? edgeAt(x, y) : -1; node >= 0 || edge < 0 ? select(node) : select(E.source[edge], edge); }
    release(event);
  });
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => { Object.assign(state, { hover: -1, hoverEdge: -1 }); $("tip").hidden = true; redraw(); });
  canvas.addEventListener("dblclick", event => zoom(...at(event), 2));
  canvas.addEventListener("wheel", event => { event.preventDefault(); zoom(...at(event), Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015))); }, { passive: false });
  $("grip").addEventListener("pointerdown", event => $("grip").setPointerCapture(event.pointerId));
  $("grip").addEventListener("pointermove", event => { if ($("grip").hasPointerCapture(event.pointerId)) document.documentElement.style.setProperty("--panel", `${Math.max(200, window.innerWidth - event.clientX - 4)}px`); });
}

buildControls(); buildSearch(); buildPointer();
restore(location.hash.length > 1 ? location.hash : data.start); refilter(); fillPanel(); resize();
new ResizeObserver(resize).observe($("stage"));
window.addEventListener("popstate", () => { restore(); refilter(); place(); fillPanel(); redraw(); });
document.body.dataset.ready = "true";
})();
