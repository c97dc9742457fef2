// ---- where features stand: layers are columns, wide ones have several lanes -------------------------------------------
const GAP = 4.2, STEP = 1.9;                                 // in rows: between layers, between lanes of a layer

function lanesFor(counts, width, height) {                   // the fewest lanes whose labels have room, else the best fit to the screen
  const most = Math.max(1, ...counts), of = (many, lanes) => Math.max(1, Math.round(many * lanes / most));
  let best = null;
  for (let lanes = 1; lanes <= Math.min(most, 400); lanes++) {
    const rows = Math.max(1, ...counts.map(many => many / of(many, lanes)));
    const between = counts.reduce((sum, many) => sum + of(many, lanes) - 1, 0);
    const wide = between * STEP + (counts.length - 1) * GAP, row = Math.min(height / rows, 130), step = STEP * row;
    if (row >= 14 && between * step + (counts.length - 1) * 60 <= width) return { lanes, row, step, rows, of };
    const misfit = Math.abs(Math.log(Math.max(wide, 1) / rows * height / width));
    if (!best || misfit < best.misfit)
      best = { misfit, lanes, row, rows, of, step: STEP * Math.min(width / Math.max(wide, 1), 2.2 * row) };
  }
  return best;
}

function place() {
  const { N, view } = g, layers = new Map();
  for (const node of g.data.lists.order) if (g.nodeShown[node]) {
    const layer = N.layer[node];
    layers.has(layer) ? layers.get(layer).push(node) : layers.set(layer, [node]);
  }
  const columns = [...layers.entries()].sort((a, b) => a[0] - b[0]);
  const left = Math.min(46, view.width * 0.08), right = Math.min(150, view.width * 0.16), top = 46, bottom = 40;
  const width = Math.max(60, view.width - left - right), height = Math.max(60, view.height - top - bottom);
  const fit = lanesFor(columns.map(([, nodes]) => nodes.length), width, height) || { lanes: 1, row: 30, step: 30, rows: 1, of: () => 1 };
  const inside = columns.reduce((sum, [, nodes]) => sum + (fit.of(nodes.length, fit.lanes) - 1) * fit.step, 0);
  const gap = columns.length > 1 ? Math.min((width - inside) / (columns.length - 1), 560) : 0;
  let x = left + Math.max(0, (width - inside - gap * (columns.length - 1)) / 2);
  g.columns = [];
  for (const [layer, nodes] of columns) {
    const lanes = fit.of(nodes.length, fit.lanes), spacing = Math.min(fit.rows * fit.row * lanes / nodes.length, 3 * fit.row, 130);
    nodes.forEach((node, rank) => {
      g.X[node] = x + (rank % lanes) * fit.step;
      g.Y[node] = top + height / 2 + (rank - (nodes.length - 1) / 2) / lanes * spacing;
      g.column[node] = g.columns.length;
    });
    g.columns.push({ layer, from: x, to: x + (lanes - 1) * fit.step, features: nodes.length });
    x += (lanes - 1) * fit.step + gap;
  }
  const largest = Math.max(1.4, Math.min(13, fit.row * 0.45, fit.step * 0.45));
  for (let node = 0; node < g.n; node++) g.R[node] = largest * (0.32 + 0.68 * Math.sqrt(N.size[node]));
  Object.assign(view, { scale: 1, x: 0, y: 0, row: fit.row });
}
const sx = node => g.X[node] * g.view.scale + g.view.x, sy = node => g.Y[node] * g.view.scale + g.view.y;
const radius = node => Math.max(1.2, g.R[node] * Math.min(4, Math.max(0.5, Math.sqrt(g.view.scale))));

// a grid over the screen that says which marks are near a point
const CELL = 16;
class Grid {
  constructor(width, height) {
    this.across = Math.ceil(width / CELL) + 1;
    this.down = Math.ceil(height / CELL) + 1;
    this.cells = new Map();
  }
  add(x, y, mark) {
    const i = Math.floor(x / CELL), j = Math.floor(y / CELL);
    if (i < 0 || j < 0 || i >= this.across || j >= this.down) return;
    const key = j * this.across + i, cell = this.cells.get(key);
    if (!cell) this.cells.set(key, [mark]);
    else if (cell[cell.length - 1] !== mark) cell.push(mark);
  }
  near(x, y, reach = 1) {
    const found = new Set(), i = Math.floor(x / CELL), j = Math.floor(y / CELL);
    for (let b = j - reach; b <= j + reach; b++) for (let a = i - reach; a <= i + reach; a++)
      for (const mark of this.cells.get(b * this.across + a) || []) found.add(mark);
    return found;
  }
}

function nodeAt(x, y) {
  if (!g.grids.nodes) {
    g.grids.nodes = new Grid(g.view.width, g.view.height);
    for (const node of g.drawn.nodes) g.grids.nodes.add(sx(node), sy(node), node);
  }
  let best = -1, nearest = 1;
  for (const node of g.grids.nodes.near(x, y, 2)) {
    const distance = Math.hypot(sx(node) - x, sy(node) - y) / (radius(node) + 5);
    if (distance < nearest) { nearest = distance; best = node; }
  }
  return best;
}

function edgeAt(x, y) {
  if (!g.grids.edges) {
    g.grids.edges = new Grid(g.view.width, g.view.height);
    for (const edge of g.drawn.edges) {
      const c = curve(edge), steps = Math.max(8, Math.min(120, Math.ceil((Math.abs(c[6] - c[0]) + Math.abs(c[7] - c[1])) / CELL)));
      for (let step = 1; step < steps; step++) { const [px, py] = along(c, step / steps); g.grids.edges.add(px, py, edge); }
    }
  }
  let best = -1, nearest = 5;
  for (const edge of g.grids.edges.near(x, y)) {
    const c = curve(edge);
    for (let step = 1; step < 60; step++) {
      const [px, py] = along(c, step / 60), distance = Math.hypot(px - x, py - y);
      if (distance < nearest) { nearest = distance; best = edge; }
    }
  }
  return best;
}
