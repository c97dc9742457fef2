// ---- what is shown: filters, and what lies near a feature -------------------------------------------------------------
const state = {
  selected: -1, edge: -1, hover: -1, hoverEdge: -1, matches: null, measure: "strength", types: new Set(),
  threshold: 0, initial: 0, near: 0,                         // the cut of the overview, its first value, the cut around a feature
  hops: 0, side: "both", q: 1, placebo: 1, same: 0, layers: [-Infinity, Infinity], group: null, by: "group", path: null, picked: new Set(), only: false, tab: "evidence", moving: false,
};
const focused = () => state.only || (state.hops > 0 && state.selected >= 0);
const cut = () => focused() ? state.near : state.threshold;   // focus lifts the cut of the overview

function fitsFilters(edge) {                                 // everything but strength and place
  const { E } = g;
  if (!state.types.has(kindOf(edge))) return false;
  if (state.q < 1 && !(E.q_value && E.q_value[edge] <= state.q)) return false;
  if (state.placebo < 1 && !(E.placebo_q_value && E.placebo_q_value[edge] <= state.placebo)) return false;
  return !(state.same > 0) || Boolean(E.share_same_sign && E.share_same_sign[edge] >= state.same);
}
const passes = edge => g.fits[edge] === 1 && g.size[edge] >= cut();
const gatePasses = at => g.out(g.H.source[at]).some(
  edge => g.E.target[edge] === g.H.target[at] && passes(edge) && inUnit(g.H.interaction[at], edge) >= cut());

function neighbourhood(seed, hops) {
  const reached = new Set([seed]);
  let frontier = [seed];
  for (let hop = 0; hop < hops; hop++) {
    const next = [];
    const reach = node => { if (!reached.has(node)) { reached.add(node); next.push(node); } };
    for (const node of frontier) {
      if (state.side !== "in") for (const edge of g.out(node)) if (passes(edge)) reach(g.E.target[edge]);
      if (state.side !== "out") for (const edge of g.into(node)) if (passes(edge)) reach(g.E.source[edge]);
      for (const at of gatesOf(node)) if (gatePasses(at)) {  // a gate is one hop above what it gates
        if (g.H.gate[at] === node) reach(g.H.target[at]);
        if (g.H.target[at] === node) reach(g.H.gate[at]);
      }
    }
    frontier = next;
  }
  return reached;
}

function refilter(refit = true) {                            // `refit`: other filters than strength may have changed
  const { n, m, E, H, N } = g, [low, high] = state.layers, code = state.group && state.group !== "*" ? g.data.words["nodes.group"].indexOf(state.group) : -1;
  if (refit) for (let edge = 0; edge < m; edge++) g.fits[edge] = fitsFilters(edge) ? 1 : 0;
  g.near = state.only ? new Set(pickedNodes()) : focused() ? neighbourhood(state.selected, state.hops) : null;
  const onPath = state.path ? new Set(state.path.nodes) : null;
  const placed = node => N.layer[node] >= low && N.layer[node] <= high && (code < 0 || N.group[node] === code);
  if (refit || g.near) for (let node = 0; node < n; node++)      // without a focus the cut moves no feature
    g.nodeShown[node] = onPath ? onPath.has(node) : g.near ? g.near.has(node) : placed(node);
  if (state.selected >= 0 && !state.only) g.nodeShown[state.selected] = 1;
  g.linked.fill(0);
  g.shown.fill(0);
  const least = cut(), { rank, size, fits, shown, nodeShown, linked } = g, { source, target } = E;
  let edges = 0, features = refit || g.near ? 0 : g.featuresShown;
  for (let at = 0; at < m; at++) {                           // the strongest first, so that it ends where the cut is
    const edge = rank[at];
    if (!onPath && size[edge] < least) break;
    if (!(onPath ? state.path.edges.has(edge) : fits[edge])) continue;
    const s = source[edge], t = target[edge];
    if (!nodeShown[s] || !nodeShown[t]) continue;
    shown[edge] = linked[s] = linked[t] = 1;
    edges++;
  }
  for (let at = 0; at < g.k; at++) {
    const inside = g.nodeShown[H.source[at]] && g.nodeShown[H.gate[at]] && g.nodeShown[H.target[at]];
    g.gateShown[at] = inside && gatePasses(at) ? 1 : 0;
    if (g.gateShown[at]) g.linked[H.gate[at]] = 1;
  }
  if (refit || g.near) for (let node = 0; node < n; node++) features += nodeShown[node];
  Object.assign(g, { edgesShown: edges, featuresShown: features });
}
const around = node => ({                                    // edges of a feature, whatever their strength
  out: [...g.out(node)].filter(edge => g.fits[edge]), into: [...g.into(node)].filter(edge => g.fits[edge]) });

function firstCut() { return g.m > g.data.first_edges ? g.size[g.rank[g.data.first_edges - 1]] : 0; }
