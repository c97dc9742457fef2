// ---- what is shown, as a file: pictures, and graphs that other programs read -------------------------------------------
function download(blob, file) {
  const link = el("a", { href: URL.createObjectURL(blob), download: file });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
const save = (text, type, file) => download(new Blob([text], { type }), file);
const NOT_XML = /[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu;
const LONE = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;
const xml = value => String(value).replace(LONE, "�").replace(NOT_XML, "�").replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/"/g, "&quot;");

function shownParts() {
  const { N, E, H } = g, plain = Object.keys(E).filter(name => !["source", "target", "type", "gated_by", "other_offsets", "gate"].includes(name));
  const nodes = [...N.id.keys()].filter(node => g.nodeShown[node]).map(node => ({ id: N.id[node], layer: N.layer[node], feature_idx: N.feature[node], label: N.label[node], importance: six(N.importance[node]), activation_freq: six(N.frequency[node]) }));
  const edges = [...E.source.keys()].filter(edge => g.shown[edge]).map(edge => ({ source: N.id[E.source[edge]], target: N.id[E.target[edge]], key: edge, interaction_type: kindOf(edge), abs_strength: six(Math.abs(E.strength[edge])),
    ...Object.fromEntries(plain.map(name => [name, six(E[name][edge])])), ...(word("edges", "gated_by", edge) ? { gated_by: word("edges", "gated_by", edge), gate_strength: six(E.gate[edge]) } : {}) }));
  const hyperedges = [...H.gate.keys()].filter(at => g.gateShown[at]).map(at => ({ source: N.id[H.source[at]], gate: N.id[H.gate[at]], target: N.id[H.target[at]], direction: word("gates", "direction", at),
    ...Object.fromEntries(["effect_off", "effect_on", "interaction", "ci_lower", "ci_upper", "p_value", "q_value", "n_samples", "offset"].map(column => [column, six(H[column][at])])) }));
  if (!g.data.multigraph) edges.forEach(edge => { delete edge.key; });
  return { nodes, edges, hyperedges };
}
function asJson() {
  const { nodes, edges, hyperedges } = shownParts();
  return JSON.stringify({ format: "feature-interaction-graph", version: 1, directed: true, multigraph: g.data.multigraph,
    graph: { title: document.title, note: "saved from the explorer; numbers have 6 digits", view: address(), ...(g.k ? { hyperedges } : {}) }, nodes, edges });
}
const kindIn = value => typeof value === "string" ? "string" : "double";
function keysOf(rows, without) {
  const keys = new Map();
  for (const row of rows) for (const [key, value] of Object.entries(row)) if (!without.includes(key) && value !== null && value !== undefined) keys.set(key, ["layer", "feature_idx", "offset", "n_samples"].includes(key) ? "long" : kindIn(value));
  return keys;
}
function asGraphml() {
  const { nodes, edges } = shownParts(), keys = { node: keysOf(nodes, ["id"]), edge: keysOf(edges, ["source", "target", "key"]) };
  const data = (scope, row) => [...keys[scope].keys()].filter(key => row[key] !== null && row[key] !== undefined).map(key => `<data key="${scope}_${key}">${xml(row[key])}</data>`).join("");
  return `<?xml version='1.0' encoding='utf-8'?>\n<graphml xmlns="http://graphml.graphdrawing.org/xmlns">`
    + Object.entries(keys).map(([scope, those]) => [...those].map(([key, kind]) => `<key id="${scope}_${key}" for="${scope}" attr.name="${key}" attr.type="${kind}" />`).join("")).join("")
    + `<graph edgedefault="directed">${nodes.map(row => `<node id="${xml(row.id)}">${data("node", row)}</node>`).join("\n")}${edges.map(row => `<edge source="${xml(row.source)}" target="${xml(row.target)}">${data("edge", row)}</edge>`).join("\n")}</graph></graphml>`;
}
function asGexf() {
  const { nodes, edges } = shownParts(), keys = { node: keysOf(nodes, ["id", "label"]), edge: keysOf(edges, ["source", "target", "key"]) };
  const attributes = scope => `<attributes class="${scope}">${[...keys[scope]].map(([key, kind]) => `<attribute id="${key}" title="${key}" type="${kind}"/>`).join("")}</attributes>`;
  const values = (scope, row) => `<attvalues>${[...keys[scope].keys()].filter(key => row[key] !== null && row[key] !== undefined).map(key => `<attvalue for="${key}" value="${xml(row[key])}"/>`).join("")}</attvalues>`;
  return `<?xml version='1.0' encoding='utf-8'?>\n<gexf xmlns="http://gexf.net/1.3" version="1.3"><graph defaultedgetype="directed">${attributes("node")}${attributes("edge")}`
    + `<nodes>${nodes.map(row => `<node id="${xml(row.id)}" label="${xml(row.label || row.id)}">${values("node", row)}</node>`).join("\n")}</nodes>`
    + `<edges>${edges.map((row, at) => `<edge id="${at}" source="${xml(row.source)}" target="${xml(row.target)}" weight="${row.abs_strength ?? 0}">${values("edge", row)}</edge>`).join("\n")}</edges></graph></gexf>`;
}
// As circuit-tracer and Neuronpedia have a graph; the corpus stands where they have a prompt, as its second token: their
// page leaves out what is active on more than two thirds of a prompt, and has no place for a prompt of one token.
function asCircuit() {
  const { nodes, edges } = shownParts(), id = row => `${row.layer}_${row.feature_idx}_1`, of = new Map(nodes.map(row => [row.id, id(row)]));
  return JSON.stringify({ metadata: { slug: "interactions", scan: g.data.model || "unknown", transcoder_list: [], prompt_tokens: ["the", " corpus"], prompt: "the corpus", node_threshold: null, schema_version: 1, info: { generator: { name: "feature_interaction_graph" } } },
    qParams: { pinnedIds: [], supernodes: g.groups.map(group => [group, ...nodes.filter(row => groupOf(g.byId.get(row.id)) === group).map(id)]).filter(row => row.length > 1), linkType: "both", clickedId: "", sg_pos: "" },
    nodes: nodes.map(row => ({ node_id: id(row), jsNodeId: `${row.layer}_${row.feature_idx}-1`, feature: row.feature_idx, layer: String(row.layer), ctx_idx: 1, feature_type: "cross layer transcoder", token_prob: 0, is_target_logit: false, run_idx: 0, reverse_ctx_idx: 0, clerp: row.label || row.id, influence: row.importance, activation: null })),
    links: edges.map(row => ({ source: of.get(row.source), target: of.get(row.target), weight: row.strength })) });
}

class SvgPen {                                               // takes the strokes of a canvas and writes them as SVG
  constructor(width, height) {
    Object.assign(this, { width, height, parts: [], stack: [], path: "", globalAlpha: 1, strokeStyle: "#000", fillStyle: "#000", lineWidth: 1, lineJoin: "miter", font: "12px sans-serif", textAlign: "left", dash: [], turn: "" });
    this.measure = document.createElement("canvas").getContext("2d");
  }
  n(value) { return Number(value.toFixed(2)); }
  setTransform() {}
  beginPath() { this.path = ""; }
  moveTo(x, y) { this.path += `M${this.n(x)} ${this.n(y)}`; }
  lineTo(x, y) { this.path += `L${this.n(x)} ${this.n(y)}`; }
  bezierCurveTo(...p) { this.path += `C${p.map(this.n).join(" ")}`; }
  quadraticCurveTo(...p) { this.path += `Q${p.map(this.n).join(" ")}`; }
  rect(x, y, w, h) { this.path += `M${this.n(x)} ${this.n(y)}h${this.n(w)}v${this.n(h)}h${this.n(-w)}z`; }
  arc(x, y, r) { this.path += `M${this.n(x - r)} ${this.n(y)}a${this.n(r)} ${this.n(r)} 0 1 0 ${this.n(2 * r)} 0a${this.n(r)} ${this.n(r)} 0 1 0 ${this.n(-2 * r)} 0`; }
  setLineDash(dash) { this.dash = dash; }
  save() { this.stack.push(this.turn); }
  restore() { this.turn = this.stack.pop(); }
  translate(x, y) { this.turn += `translate(${this.n(x)} ${this.n(y)})`; }
  rotate(angle) { this.turn += `rotate(${this.n(angle * 180 / Math.PI)})`; }
  put(tag, rest, inside = "") { this.parts.push(`<${tag} ${this.turn ? `transform="${this.turn}" ` : ""}opacity="${this.n(this.globalAlpha)}" ${rest}${inside ? `>${inside}</${tag}>` : "/>"}`); }
  stroke(lines) { this.put("path", `d="${lines ? lines.d : this.path}" fill="none" stroke="${this.strokeStyle}" stroke-width="${this.n(this.lineWidth)}"${this.dash.length ? ` stroke-dasharray="${this.dash.join(" ")}"` : ""}`); }
  fill() { this.put("path", `d="${this.path}" fill="${this.fillStyle}"`); }
  fillRect(x, y, w, h) { this.put("rect", `x="${this.n(x)}" y="${this.n(y)}" width="${this.n(w)}" height="${this.n(h)}" fill="${this.fillStyle}"`); }
  clearRect() {}
  measureText(text) { this.measure.font = this.font; return this.measure.measureText(text); }
  text(text, x, y, paint) { const [, weight = "", size] = /^(?:(\d+) )?([\d.]+)px/.exec(this.font); this.put("text", `x="${this.n(x)}" y="${this.n(y)}" font-family="system-ui, sans-serif" font-size="${size}"${weight ? ` font-weight="${weight}"` : ""} text-anchor="${this.textAlign === "center" ? "middle" : "start"}" ${paint}`, xml(text)); }
  strokeText(text, x, y) { this.text(text, x, y, `fill="none" stroke="${this.strokeStyle}" stroke-width="${this.n(this.lineWidth)}" stroke-linejoin="round"`); }
  fillText(text, x, y) { this.text(text, x, y, `fill="${this.fillStyle}"`); }
  toString() { return `<svg xmlns="http://www.w3.org/2000/svg" width="${this.width}" height="${this.height}" viewBox="0 0 ${this.width} ${this.height}"><title>${xml(document.title)}</title>\n${this.parts.join("\n")}\n</svg>`; }
}
class SvgLines {                                             // a path of the picture that remembers how it goes
  constructor() { this.d = ""; }
  moveTo(x, y) { this.d += `M${x.toFixed(2)} ${y.toFixed(2)}`; }
  bezierCurveTo(...p) { this.d += `C${p.map(value => value.toFixed(2)).join(" ")}`; }
}
function asSvg() {
  const kept = [g.pen, g.over, window.Path2D], pen = new SvgPen(g.view.width, g.view.height), moved = state.moving;
  window.Path2D = SvgLines;
  try { g.pen = g.over = pen; state.moving = false; drawBase(false); drawOver(); } finally { [g.pen, g.over, window.Path2D] = kept; state.moving = moved; }
  redraw();
  return pen.toString();
}
function savePng() {
  const all = el("canvas", { width: g.canvas.width, height: g.canvas.height }), pen = all.getContext("2d");
  pen.drawImage(g.canvas, 0, 0);
  pen.drawImage(g.overCanvas, 0, 0);
  all.toBlob(blob => download(blob, "graph.png"));
}
const EXPORTS = [["png", "PNG", "the picture", savePng], ["svg", "SVG", "the picture as lines", () => save(asSvg(), "image/svg+xml", "graph.svg")],
  ["json", "JSON", "a graph file that load_graph reads", () => save(asJson(), "application/json", "subgraph.json")],
  ["graphml", "GraphML", "for Gephi, Cytoscape, igraph and load_graph", () => save(asGraphml(), "application/graphml+xml", "subgraph.graphml")],
  ["gexf", "GEXF", "for Gephi", () => save(asGexf(), "application/gexf+xml", "subgraph.gexf")],
  ["circuit", "circuit-tracer", "JSON that circuit-tracer's and Neuronpedia's pages read", () => save(asCircuit(), "application/circuit+json", "circuit.json")]];

function savePanel() {
  const file = el("input", { type: "file", accept: ".json", id: "load-view", aria: { label: "Load a saved view" } });
  file.addEventListener("change", async () => {
    const told = $("view-told");
    try { restoreView(JSON.parse(await file.files[0].text())); } catch (refusal) { told.textContent = `${file.files[0].name} is no view of the explorer.`; }
  });
  const link = el("input", { id: "link", readOnly: true, value: location.href.split("#")[0] + address(true), aria: { label: "Address of this view" } });
  link.addEventListener("focus", () => link.select());
  return [el("h2", { textContent: "Save" }), el("section", {}, el("h3", { textContent: "What is shown, as a file" }), el("p", { textContent: `${count(g.featuresShown, "feature")} and ${count(g.edgesShown, "edge")}: everything that passes the filters, also what the picture has no room for.` }),
    el("div", { className: "exports" }, EXPORTS.map(([id, text, title, act]) => el("div", {}, button(text, act, { id: `save-${id}` }), el("span", { textContent: title }))))),
    el("section", {}, el("h3", { textContent: "This view" }), el("p", { textContent: "What is chosen, filtered and in view. The address opens this page on it; a view file opens it on any page of the same graph." }), link,
      el("div", { className: "actions" }, button("Save view", () => save(JSON.stringify(savedView()), "application/view+json", "view.json"), { id: "save-view" }), el("label", { className: "plain" }, "Load view ", file)), el("p", { id: "view-told", aria: { role: "status" } }))];
}
