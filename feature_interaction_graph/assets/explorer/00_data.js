// ---- data: one packed block; columns of numbers are typed arrays over it, NaN is what is not known --------------------
const KINDS = { f4: Float32Array, i4: Int32Array, u1: Uint8Array };

async function unpack(text) {
  const raw = atob(text.trim()), packed = new Uint8Array(raw.length);
  for (let at = 0; at < raw.length; at++) packed[at] = raw.charCodeAt(at);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const buffer = await new Response(stream).arrayBuffer(), length = new DataView(buffer).getUint32(0, true);
  const data = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const begin = Math.ceil((4 + length) / 8) * 8;
  for (const { table, name, kind, at, n } of data.columns)
    data[table][name] = new KINDS[kind](buffer, begin + at, n);
  return data;
}

const MEASURES = ["strength", "strength_std"];
let g = null;                                                // the graph that is drawn, searched and told about
let graphs = [];                                             // it, and one to compare it with

function ends(n, of) {                                       // edges by one of their ends, in one array
  const start = new Int32Array(n + 1), edges = new Int32Array(of.length);
  for (const node of of) start[node + 1]++;
  for (let node = 0; node < n; node++) start[node + 1] += start[node];
  const next = start.slice();
  for (let edge = 0; edge < of.length; edge++) edges[next[of[edge]]++] = edge;
  return node => edges.subarray(start[node], start[node + 1]);
}

function makeGraph(data) {
  const N = data.nodes, E = data.edges, H = data.gates, n = N.id.length, m = E.source.length, k = H.gate.length;
  const made = { data, N, E, H, n, m, k, out: ends(n, E.source), into: ends(n, E.target), types: data.words["edges.type"],
    byId: new Map(N.id.map((id, node) => [id, node])), size: new Float32Array(m), rank: new Int32Array(m),
    shown: new Uint8Array(m), fits: new Uint8Array(m), gateShown: new Uint8Array(k), nodeShown: new Uint8Array(n), linked: new Uint8Array(n),
    X: new Float32Array(n), Y: new Float32Array(n), R: new Float32Array(n), column: new Int32Array(n),
    view: { scale: 1, x: 0, y: 0, width: 1, height: 1 }, columns: [], drawn: { nodes: [], edges: [] }, near: null };
  made.gatesOfPair = new Map();
  made.gatesOf = new Map();
  const add = (map, key, at) => map.has(key) ? map.get(key).push(at) : map.set(key, [at]);
  for (let at = 0; at < k; at++) {
    add(made.gatesOfPair, H.source[at] * n + H.target[at], at);
    for (const node of new Set([H.source[at], H.gate[at], H.target[at]])) add(made.gatesOf, node, at);
  }
  made.text = N.id.map((id, node) => `${N.label[node]} ${id}`.toLowerCase());
  made.kinds = Object.fromEntries(["group", "role"].filter(kind => N[kind]).map(kind => [kind, [N[kind], data.words[`nodes.${kind}`]]]));
  groupBy(made, N.group ? "group" : "role");
  made.layers = [...new Set(N.layer)].sort((a, b) => a - b);
  return made;
}

function groupBy(graph, kind) {                              // features are grouped by community or by role, one at a time
  const [column, words] = graph.kinds[kind] || graph.kinds.group || graph.kinds.role || [undefined, []];
  graph.N.group = column;
  graph.data.words["nodes.group"] = words;
  graph.groups = words.filter(name => name !== "");
}

const kindOf = edge => g.types[g.E.type[edge]];
const gatesOn = edge => g.gatesOfPair.get(g.E.source[edge] * g.n + g.E.target[edge]) || [];
const gatesOf = node => g.gatesOf.get(node) || [];
const isGating = edge => kindOf(edge) === "gating";
const word = (table, name, at) => g.data.words[`${table}.${name}`][g.data[table][name][at]];
const groupOf = node => g.N.group ? word("nodes", "group", node) : "";
const known = value => value !== null && value !== undefined && !Number.isNaN(value);
const valueOf = (name, edge) => g.E[name] ? g.E[name][edge] : NaN;
const strength = edge => { const value = valueOf(state.measure, edge); return known(value) ? value : 0; };

function inUnit(value, edge) {                               // an interaction on this edge, in the unit chosen
  const mean = Math.abs(valueOf("strength", edge) || 0), std = Math.abs(valueOf("strength_std", edge) || 0);
  return state.measure === "strength_std" && mean && std ? Math.abs(value) * std / mean : Math.abs(value);
}

function measureEdges(graph) {                               // sizes in the unit chosen, and the edges by size
  const before = g;
  g = graph;
  const gating = graph.types.indexOf("gating");
  for (let edge = 0; edge < graph.m; edge++) {
    const plain = Math.abs(strength(edge));
    graph.size[edge] = graph.E.type[edge] === gating ? Math.max(plain, inUnit(valueOf("gate", edge) || 0, edge)) : plain;
    graph.rank[edge] = edge;
  }
  graph.rank.sort((a, b) => graph.size[b] - graph.size[a] || a - b);
  graph.largest = graph.m ? graph.size[graph.rank[0]] || 1 : 1;
  g = before;
}
