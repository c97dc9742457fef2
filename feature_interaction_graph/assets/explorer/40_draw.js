// ---- the picture: the strongest few thousand marks of what is in view, one canvas for them and one for what is pointed at
const MOST_EDGES = 1500, MOST_NODES = 2600, MOST_LABELS = 120;
let pace = 600;                                              // edges while the view moves: as many as this machine draws in time

function curve(edge) {
  const s = g.E.source[edge], t = g.E.target[edge], x1 = sx(s), y1 = sy(s), x2 = sx(t), y2 = sy(t);
  const skipped = Math.max(0, Math.abs(g.column[t] - g.column[s]) - 1);
  const shift = (valueOf("offset", edge) || 0) * 7 - Math.min(3, skipped) * 13;      // an edge over a layer bows around its nodes
  if (g.N.layer[s] === g.N.layer[t]) { const bow = 24 + Math.abs(y2 - y1) * 0.25; return [x1, y1, x1 - bow, y1, x2 - bow, y2 + shift, x2, y2]; }
  const reach = Math.max(18, Math.abs(x2 - x1) * 0.45);
  return [x1, y1, x1 + reach, y1 + shift, x2 - reach, y2 + shift, x2, y2];
}
function along(c, t) {
  const u = 1 - t, a = u * u * u, b = 3 * u * u * t, d = 3 * u * t * t, e = t * t * t;
  return [a * c[0] + b * c[2] + d * c[4] + e * c[6], a * c[1] + b * c[3] + d * c[5] + e * c[7]];
}
const inView = node => { const x = sx(node), y = sy(node); return x > -20 && x < g.view.width + 20 && y > -20 && y < g.view.height + 20; };

const painted = new MessageChannel();
let asked = 0;                                               // when the frame began whose end is waited for
painted.port1.onmessage = () => {                            // comes after the picture: what strokes cost is known only then
  const spent = performance.now() - asked;
  asked = 0;
  pace = Math.max(60, Math.min(MOST_EDGES, Math.round(pace * (spent > 34 ? 0.7 : spent < 16 ? 1.15 : 1))));
};
function keepPace(began) { if (!asked) { asked = began; painted.port2.postMessage(0); } }

function chooseMarks(most, mostNodes) {                                 // the strongest edges that touch the view, the largest nodes in it
  const edges = [], nodes = [], taken = new Uint8Array(g.n), take = node => { if (!taken[node]) { taken[node] = 1; nodes.push(node); } };
  const least = state.path ? 0 : cut();
  for (const edge of g.rank) {
    if (edges.length >= most || g.size[edge] < least) break;
    if (g.shown[edge] && (inView(g.E.source[edge]) || inView(g.E.target[edge]))) edges.push(edge);
  }
  if (state.selected >= 0) take(state.selected);
  for (const node of pickedNodes().slice(0, 500)) if (g.nodeShown[node] && inView(node)) take(node);
  for (const edge of edges) { take(g.E.source[edge]); take(g.E.target[edge]); }
  const order = g.data.lists.by_size;
  for (let at = order.length - 1; at >= 0 && nodes.length < mostNodes; at--)
    if (g.nodeShown[order[at]] && inView(order[at])) take(order[at]);
  return { edges, nodes };
}

const widthOf = edge => 0.7 + 2.6 * Math.sqrt(g.size[edge] / g.largest);
function strokeLines(pen, edges, alphaOf, dashed) {          // few strokes for many edges: a hundred of one type and strength in one path
  const paths = new Map(), all = [];
  for (const edge of edges) {
    const level = Math.ceil(6 * Math.sqrt(g.size[edge] / g.largest)), key = g.E.type[edge] * 8 + level, c = curve(edge);
    let path = paths.get(key);
    if (!path || path.many >= 100) { path = { type: kindOf(edge), share: level / 6, lines: new Path2D(), many: 0 }; paths.set(key, path); all.push(path); }
    path.many++;
    path.lines.moveTo(c[0], c[1]);
    path.lines.bezierCurveTo(c[2], c[3], c[4], c[5], c[6], c[7]);
  }
  for (const { type, share, lines } of all.sort((a, b) => a.share - b.share)) {
    pen.globalAlpha = alphaOf(share, type); pen.strokeStyle = colourOf(type); pen.lineWidth = 0.7 + 2.6 * share;
    pen.setLineDash(dashed ? styleOf(type).dash : []);
    pen.stroke(lines);
  }
  pen.setLineDash([]);
}
function headOf(pen, edge) {                                 // arrow: excites; bar: inhibits; diamond: gated
  const c = curve(edge), r = radius(g.E.target[edge]) + 2, [px, py] = along(c, 0.93), angle = Math.atan2(c[7] - py, c[6] - px);
  const head = 4 + widthOf(edge) * 1.3, cos = Math.cos(angle), sin = Math.sin(angle), ox = c[6] - r * cos, oy = c[7] - r * sin;
  const at = (x, y) => [ox + x * cos - y * sin, oy + x * sin + y * cos];
  const line = points => points.forEach((point, index) => index ? pen.lineTo(...at(...point)) : pen.moveTo(...at(...point)));
  if (isGating(edge)) line([[1, 0], [-head, -head * 0.7], [-2 * head, 0], [-head, head * 0.7], [1, 0]]);
  else if (strength(edge) < 0) line([[0, -head], [0, head], [-2.2, head], [-2.2, -head], [0, -head]]);
  else line([[1, 0], [-head * 1.4, -head * 0.75], [-head * 1.4, head * 0.75], [1, 0]]);
}
function fillHeads(pen, edges, alpha) {
  const byType = new Map();
  for (const edge of edges) { const type = kindOf(edge); byType.has(type) ? byType.get(type).push(edge) : byType.set(type, [edge]); }
  for (const [type, those] of byType) {
    pen.globalAlpha = alpha; pen.fillStyle = colourOf(type);
    for (let from = 0; from < those.length; from += 100) { pen.beginPath(); those.slice(from, from + 100).forEach(edge => headOf(pen, edge)); pen.fill(); }
  }
}
function strokeGate(pen, at, alpha) {                        // a thin line from the gate to the middle of what it gates
  const { H } = g, edge = g.out(H.source[at]).find(other => g.E.target[other] === H.target[at] && (g.shown[other] || alpha > 0.5));
  if (edge === undefined) return 0;
  const [x, y] = along(curve(edge), 0.55), gx = sx(H.gate[at]), gy = sy(H.gate[at]), bow = gx < x ? 0.5 * (x - gx) : -30;
  pen.globalAlpha = alpha; pen.strokeStyle = pen.fillStyle = colourOf("gating"); pen.lineWidth = 1.3;
  pen.setLineDash([2, 3]);
  pen.beginPath(); pen.moveTo(gx, gy); pen.bezierCurveTo(gx + bow, gy, x - bow * 0.4, y, x, y); pen.stroke();
  pen.setLineDash([]);
  pen.beginPath(); pen.arc(x, y, 4, 0, 7);
  if (word("gates", "direction", at) === "NOT") { pen.fillStyle = ink().paper; pen.fill(); pen.stroke(); } else pen.fill();
  return 1;
}

function fillOf(node) {
  const value = state.values ? state.values.get(node) : g.N.value ? g.N.value[node] : undefined;
  if (state.values || g.N.value) {
    if (!known(value) || value === 0) return ink().none;
    const share = 0.25 + 0.75 * Math.sqrt(Math.min(1, Math.abs(value) / (state.values ? state.largest : g.data.largest_value)));
    return mix(isDark() ? "#2c3642" : "#d5dbe2", colourOf(value > 0 ? "excitatory" : "inhibitory"), share);
  }
  const group = groupOf(node);
  if (group) return GROUP_COLOURS[g.groups.indexOf(group) % GROUP_COLOURS.length];
  return g.N.seed[node] ? ink().seed : ink().node;
}
function fillNodes(pen, nodes, alphaOf) {                    // one path for many of one colour
  const byLook = new Map();
  for (const node of nodes) {
    const key = `${fillOf(node)} ${alphaOf(node)}`;
    byLook.has(key) ? byLook.get(key).push(node) : byLook.set(key, [node]);
  }
  for (const [look, those] of byLook) {
    const split = look.lastIndexOf(" ");
    pen.globalAlpha = Number(look.slice(split + 1)); pen.fillStyle = look.slice(0, split);
    pen.beginPath();
    for (const node of those) {
      const x = sx(node), y = sy(node), r = radius(node);
      if (r < 2) pen.rect(x - r, y - r, 2 * r, 2 * r); else { pen.moveTo(x + r, y); pen.arc(x, y, r, 0, 7); }
    }
    pen.fill();
    if (those.length < 600) { pen.lineWidth = 1; pen.strokeStyle = ink().paper; pen.stroke(); }
  }
  for (const node of nodes) if (g.N.hub[node]) ring(pen, node, 1.6, ink().ink, 1.4);
}
function ring(pen, node, gap, colour, width) {
  pen.globalAlpha = 1;
  pen.beginPath(); pen.arc(sx(node), sy(node), radius(node) + gap, 0, 7); pen.strokeStyle = colour; pen.lineWidth = width; pen.stroke();
}

function drawLayers(pen) {
  const { view } = g;
  pen.textAlign = "center";
  g.columns.forEach((column, index) => {
    const from = column.from * view.scale + view.x, to = column.to * view.scale + view.x, middle = (from + to) / 2;
    if (index % 2 === 0) { pen.fillStyle = ink().band; pen.fillRect(from - 22, 0, to - from + 44, view.height); }
    const narrow = (g.columns[1] ? (g.columns[1].from - g.columns[0].from) * view.scale : 999) < 52;
    pen.fillStyle = ink().soft; pen.font = "600 12px system-ui, sans-serif"; pen.fillText(narrow ? String(column.layer) : `layer ${column.layer}`, middle, 17);
    pen.font = "10.5px system-ui, sans-serif"; pen.fillText(column.features.toLocaleString("en"), middle, 30);
  });
  pen.textAlign = "left";
}

function drawBase(fast) {
  const { view, pen } = g, ratio = window.devicePixelRatio || 1;
  g.grids = {};
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.globalAlpha = 1;
  pen.fillStyle = ink().paper; pen.fillRect(0, 0, view.width, view.height);
  if (state.group === "*") { drawGroups(pen); return; }
  drawLayers(pen);
  const began = performance.now(), { edges, nodes } = g.drawn = chooseMarks(fast ? pace : MOST_EDGES, fast ? 1000 : MOST_NODES);
  const base = Math.max(0.22, Math.min(0.75, 8 / Math.sqrt(edges.length + 1))), heads = !fast && edges.length <= 900;
  strokeLines(pen, edges, (share, type) => Math.min(1, base * (0.5 + 0.5 * share) * (type === "inhibitory" ? 1.3 : 1)), !fast && edges.length <= 700);
  if (heads) fillHeads(pen, edges, Math.min(0.9, base * 1.4));
  let gates = 0;
  if (!fast && edges.length <= 400) for (let at = 0; at < g.k && gates < 200; at++) if (g.gateShown[at]) gates += strokeGate(pen, at, 0.45);
  fillNodes(pen, nodes, node => g.linked[node] || node === state.selected ? 1 : 0.45);
  if (!fast) drawLabels(pen, nodes, [], MOST_LABELS);
  if (fast) keepPace(began);
  g.counts = { nodesDrawn: nodes.length, edgesDrawn: edges.length, gatesDrawn: gates };
}

function lit() {                                             // the features in focus with their edges, or null for all of them
  if (state.hoverEdge >= 0 || (state.edge >= 0 && state.hover < 0)) {
    const edge = state.hoverEdge >= 0 ? state.hoverEdge : state.edge;
    const gates = gatesOn(edge);
    return { focus: -1, edges: [edge], nodes: new Set([g.E.source[edge], g.E.target[edge], ...gates.map(at => g.H.gate[at])]), gates };
  }
  const focus = state.hover >= 0 ? state.hover : state.hops || state.path ? -1 : state.selected;
  if (focus >= 0) {
    const { out, into } = around(focus), nodes = new Set([focus]), gates = gatesOf(focus);
    for (const edge of out) nodes.add(g.E.target[edge]);
    for (const edge of into) nodes.add(g.E.source[edge]);
    for (const at of gates) for (const node of [g.H.source[at], g.H.gate[at], g.H.target[at]]) nodes.add(node);
    const through = gates.map(at => g.out(g.H.source[at]).find(edge => g.E.target[edge] === g.H.target[at])).filter(edge => edge !== undefined);
    return { focus, edges: [...new Set([...out, ...into, ...through])], nodes, gates };
  }
  return state.matches ? { focus: -1, edges: [], nodes: state.matches, gates: [] } : null;
}
function drawOver() {                                        // a veil over the picture, and what is in focus above it
  const { view, over } = g, ratio = window.devicePixelRatio || 1, light = state.group === "*" ? null : lit();
  over.setTransform(ratio, 0, 0, ratio, 0, 0);
  over.clearRect(0, 0, view.width, view.height);
  if (light) {
    over.globalAlpha = 1;
    over.fillStyle = ink().veil; over.fillRect(0, 32, view.width, view.height - 32);
    const edges = light.edges.sort((a, b) => g.size[b] - g.size[a]).slice(0, 400).reverse();
    strokeLines(over, edges, () => 0.9, true);
    fillHeads(over, edges, 1);
    const gates = light.gates.slice(0, 60).reduce((sum, at) => sum + strokeGate(over, at, 0.9), 0);
    let nodes = [...light.nodes].filter(node => g.nodeShown[node] || light.focus >= 0 || light.edges.length).filter(inView);
    if (nodes.length > MOST_NODES) nodes = nodes.slice(0, MOST_NODES);
    fillNodes(over, nodes, () => 1);
    if (light.focus >= 0) ring(over, light.focus, 4.5, ink().seed, 2.5);
    drawLabels(over, nodes.slice(0, 400), light.focus >= 0 ? [light.focus] : [...light.nodes].slice(0, 2), 45);
    Object.assign(g.counts || {}, { gatesDrawn: gates });
  } else if (state.selected >= 0 && state.group !== "*" && g.nodeShown[state.selected]) ring(over, state.selected, 4.5, ink().seed, 2.5);
  if (state.group !== "*") drawPicked(over);
  if (state.box) drawBox(over, state.box);
}

function drawLabels(pen, nodes, first, most) {               // greedy: the most important first, each only where there is room
  const { view } = g, cell = 6, across = Math.ceil(view.width / cell) + 1, down = Math.ceil(view.height / cell) + 1;
  const taken = new Uint8Array(across * down), names = new Uint8Array(across * down), named = new Set();
  const cover = (x1, y1, x2, y2, visit) => {
    for (let j = Math.max(0, Math.floor(y1 / cell)); j <= Math.min(down - 1, Math.floor(y2 / cell)); j++)
      for (let i = Math.max(0, Math.floor(x1 / cell)); i <= Math.min(across - 1, Math.floor(x2 / cell)); i++) if (visit(j * across + i)) return true;
    return false;
  };
  for (const node of nodes) { const r = radius(node); cover(sx(node) - r, sy(node) - r, sx(node) + r, sy(node) + r, at => { taken[at] = 1; }); }
  cover(0, 0, view.width, 33, at => { taken[at] = 1; });     // the layer names
  const order = [...first, ...nodes.filter(node => g.N.hub[node] || g.N.seed[node]), ...[...nodes].sort((a, b) => g.N.size[b] - g.N.size[a])];
  let left = most, over = first.length ? 0 : 24, tried = 0;  // the first `over` labels may cover nodes, the others only empty space
  pen.globalAlpha = 1;
  for (const node of order) {
    if (!left || tried > 4 * most) break;
    if (named.has(node) || (!first.length && !g.linked[node] && g.edgesShown)) continue;
    const focused = first.includes(node), r = radius(node), x = sx(node) + r + 4, y = sy(node);
    if (x < 0 || x > view.width || y < 30 || y > view.height) continue;
    tried++;
    pen.font = `${focused ? "600 13px" : "11.5px"} system-ui, sans-serif`;
    let text = clip(name(node), focused ? 60 : 26), width = pen.measureText(text).width;
    while (x + width > view.width - 3 && text.length > 8) { text = clip(text, text.length - 1 - text.endsWith("…")); width = pen.measureText(text).width; }
    const lift = view.row * view.scale > 34 ? 8 : 0;         // above the edges where rows are far apart
    const places = [[x, y - lift], [x - r - 4 - width / 2, y - r - 9], [x - r - 4 - width / 2, y + r + 9], [x - 2 * r - 8 - width, y - lift]];
    const free = ([a, b]) => b > 40 && a > 0 && !cover(a, b - 7, a + width + 4, b + 7, at => names[at]) && !cover(a + cell, b - 6, a + width, b + 6, at => taken[at]);
    let spot = focused ? places[0] : lift || first.length ? places.find(free) : free(places[0]) ? places[0] : null;
    if (!spot && over > 0 && !cover(x, y - 7, x + width + 4, y + 7, at => names[at])) { spot = places[0]; over--; }
    if (!spot) continue;
    const [a, b] = spot;
    cover(a, b - 7, a + width + 4, b + 7, at => { names[at] = taken[at] = 1; });
    pen.lineWidth = 3.5; pen.lineJoin = "round"; pen.strokeStyle = ink().paper; pen.strokeText(text, a, b + 4);
    pen.fillStyle = ink().ink; pen.fillText(text, a, b + 4);
    named.add(node); left--;
  }
}
