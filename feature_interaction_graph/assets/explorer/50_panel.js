// ---- the panel: evidence of a feature, of an edge, of the whole -------------------------------------------------------
const fact = (term, value, title = "") => el("div", { title }, el("dt", { textContent: term }), el("dd", { textContent: value }));
const strongestFirst = edges => [...edges].sort((a, b) => g.size[b] - g.size[a]);
const strongestGates = gates => [...gates].sort((a, b) => Math.abs(g.H.interaction[b]) - Math.abs(g.H.interaction[a]));
const arrowOf = edge => isGating(edge) ? "◆" : strength(edge) < 0 ? "⊣" : "→";
const titleOf = (edge, length = 40) => `${clip(name(g.E.source[edge]), length)} ${arrowOf(edge)} ${clip(name(g.E.target[edge]), length)}`;
const later = edge => valueOf("offset", edge) ? `${count(valueOf("offset", edge), "token")} later` : null;

function section(title, note, rows, first = 8) {
  if (!rows.length) return null;
  const box = el("section", {}, el("h3", {}, title, el("small", { textContent: note })), ...rows.slice(0, first).map(make => make()));
  let shown = first;
  const more = button(`${(rows.length - shown).toLocaleString("en")} more`, () => {
    const next = rows.slice(shown, shown + 200);
    shown += next.length;
    more.before(...next.map(make => make()));
    more.textContent = `${(rows.length - shown).toLocaleString("en")} more`;
    if (shown >= rows.length) more.remove();
  });
  if (rows.length > first) box.append(more);
  return box;
}

function edgeRow(edge, node, label) {                        // a click opens the edge
  const look = styleOf(kindOf(edge)), value = strength(edge), bar = el("span", { className: look.css });
  bar.style.width = `${100 * g.size[edge] / g.largest}%`;
  const low = valueOf("ci_lower", edge), also = word("edges", "other_offsets", edge), gated = word("edges", "gated_by", edge);
  const facts = [!known(low) || state.measure !== "strength" ? null : `[${number(low)}, ${number(valueOf("ci_upper", edge))}]`,
    known(valueOf("q_value", edge)) ? `q ${probability(valueOf("q_value", edge))}` : null, known(valueOf("n_samples", edge)) ? `n ${valueOf("n_samples", edge)}` : null,
    later(edge), also ? `also ${also}` : null, gated ? `gated by ${gated}` : null];
  const hidden = !g.fits[edge];
  const row = el("button", { type: "button", className: hidden ? "row faint" : "row" }, el("b", { textContent: label || name(node) }),
    el("em", { className: look.css, textContent: isGating(edge) ? `◆ mean ${signed(value)}` : `${arrowOf(edge)} ${signed(value)}` }), el("span", { className: "bar" }, bar),
    el("small", { textContent: [label ? `${g.N.id[g.E.source[edge]]} → ${g.N.id[g.E.target[edge]]}` : g.N.label[node] ? g.N.id[node] : null, ...facts, hidden ? "hidden by a filter" : null].filter(Boolean).join(" · ") }));
  row.addEventListener("click", () => chooseEdge(edge));
  row.addEventListener("mouseenter", () => { state.hoverEdge = edge; point(); });
  row.addEventListener("mouseleave", () => { state.hoverEdge = -1; point(); });
  return row;
}
function gateRow(at, node) {                                 // "A AND B → C: off 0.00, on +0.81"; a click goes to an end that is not selected
  const { H } = g, [source, gate, target] = [H.source[at], H.gate[at], H.target[at]], other = node === gate ? target : gate, reads = word("gates", "reads", at);
  const facts = [`${g.N.id[source]} ${reads} ${g.N.id[gate]} → ${g.N.id[target]}`, word("gates", "direction", at),
    !known(H.ci_lower[at]) ? null : `difference ${signed(H.interaction[at])} [${number(H.ci_lower[at])}, ${number(H.ci_upper[at])}]`,
    !known(H.q_value[at]) ? null : `q ${probability(H.q_value[at])}`, !known(H.n_samples[at]) ? null : `n ${H.n_samples[at]}`, H.offset[at] ? `${count(H.offset[at], "token")} later` : null];
  const row = el("button", { type: "button", className: g.gateShown[at] ? "row gate" : "row gate faint" },
    el("b", { textContent: `${clip(name(source), 48)} ${reads} ${clip(name(gate), 48)} → ${clip(name(target), 48)}` }), el("em", { className: "oth", textContent: `off ${effect(H.effect_off[at])}, on ${effect(H.effect_on[at])}` }),
    el("small", { textContent: facts.filter(Boolean).join(" · ") }));
  row.addEventListener("click", () => select(other));
  return row;
}
const nodeRow = node => () => {
  const row = el("button", { type: "button", className: "row" }, el("b", { textContent: name(node) }), el("em", { textContent: `${g.N.in_degree[node]} in, ${g.N.out_degree[node]} out` }), el("small", { textContent: g.N.id[node] }));
  row.addEventListener("click", () => { select(node); centre(node); });
  return row;
};
const endRow = (word, node) => { const row = nodeRow(node)(); row.querySelector("small").textContent = `${word} · ${g.N.id[node]}`; return row; };
const contextList = (title, node) => {
  const texts = g.data.contexts[node] || [];
  return texts.length ? el("section", {}, el("h3", {}, title, el("small", { textContent: texts.length })), el("ol", {}, texts.map(tokens))) : null;
};

function nodePanel(node) {
  const { N } = g, up = edge => !isGating(edge) && strength(edge) > 0, down = edge => !isGating(edge) && strength(edge) < 0;
  const sections = [["out", up, "It excites"], ["out", down, "It inhibits"], ["in", up, "It is excited by"], ["in", down, "It is inhibited by"], ["out", isGating, "Gated, it acts on"], ["in", isGating, "Gated, it is acted on by"]].map(([side, chosen, title]) => {
    const edges = strongestFirst([...(side === "out" ? g.out : g.into)(node)].filter(chosen));
    return section(title, edges.length, edges.map(edge => () => edgeRow(edge, side === "out" ? g.E.target[edge] : g.E.source[edge])));
  });
  const gates = [[at => g.H.source[at] === node, "Gates of its effects"], [at => g.H.target[at] === node, "Gates of effects on it"], [at => g.H.gate[at] === node, "Effects it gates"]].map(([chosen, title]) => {
    const those = strongestGates(gatesOf(node).filter(chosen));
    return section(title, those.length, those.map(at => () => gateRow(at, node)));
  });
  const group = groupOf(node), link = (g.data.links && g.data.links[N.id[node]]) || behindNode(node).link;
  const actions = el("div", { className: "actions" }, button("← overview", () => select(-1)),
    button(state.hops ? "Show the whole graph" : "Show only its neighbours", () => { Object.assign(state, { hops: state.hops ? 0 : 1, only: false }); showControls(); changed(true); }),
    isFeature(firstId(node)) ? button(isPicked(node) ? "Drop from collection" : "Collect", () => togglePick(node), { id: "collect", title: "c" }) : null, button("Steer it", () => { steerFrom(node); }), button("Paths from it", () => { pathFrom(node); }),
    group ? button(`Its ${groupWord()}`, () => openGroup(group)) : null, link ? el("a", { className: "plain", href: link, rel: "noreferrer", target: "_blank", textContent: "On Neuronpedia" }) : null);
  return [el("h2", { textContent: name(node), dir: "auto" }), el("p", { textContent: `${N.id[node]} · layer ${N.layer[node]}, feature ${N.feature[node]}${N.seed[node] ? " · seed" : ""}${N.hub[node] ? " · hub" : ""}${group ? ` · ${flat(group)}` : ""}` }), actions,
    el("dl", {}, fact("fires on", known(N.frequency[node]) ? `${percent(N.frequency[node])} of tokens` : "unknown"), fact("importance", number(N.importance[node])),
      fact("edges in", N.in_degree[node].toLocaleString("en")), fact("edges out", N.out_degree[node].toLocaleString("en")), N.value ? fact(g.data.value_name, known(N.value[node]) ? signed(N.value[node]) : "none") : null),
    ...nodeEvidence(node), ...sections, ...gates, contextList("Where it fires most", node), reading()].filter(Boolean);
}

function edgePanel(edge) {
  const source = g.E.source[edge], target = g.E.target[edge], gates = strongestGates(gatesOn(edge)), v = column => valueOf(column, edge);
  const range = known(v("ci_lower")) ? `${number(v("ci_lower"))} to ${number(v("ci_upper"))}` : "unknown", also = word("edges", "other_offsets", edge);
  return [el("h2", { textContent: titleOf(edge, 60), dir: "auto" }),
    el("p", { textContent: `${kindOf(edge)} · ${g.N.id[source]} → ${g.N.id[target]}${later(edge) ? ` · ${later(edge)}` : ""}` }),
    el("div", { className: "actions" }, button("← source", () => select(source)), button("target →", () => select(target)), button("Paths between them", () => pathFrom(source, target)), button("Close", () => select(state.selected))),
    el("dl", { id: "edge" }, fact("strength", signed(v("strength")), "change of the target's activation per unit of the source's"), fact("95 % interval", range),
      fact("in standard deviations", known(v("strength_std")) ? signed(v("strength_std")) : "unknown"), fact("samples", known(v("n_samples")) ? v("n_samples").toLocaleString("en") : "unknown"),
      fact("p", probability(v("p_value"))), fact("q", probability(v("q_value")), "p after correction for all tests"),
      fact("placebo p", probability(v("placebo_p_value")), "against pushes along other directions of the same size"), fact("placebo q", probability(v("placebo_q_value"))),
      fact("before the activation", known(v("pre_strength")) ? signed(v("pre_strength")) : "unknown", "change of the target's pre-activation, seen also where it does not fire"),
      fact("variance over samples", number(v("variance"))), known(v("share_same_sign")) ? fact("same sign in", percent(v("share_same_sign"))) : null, known(v("median")) ? fact("median", signed(v("median"))) : null),
    also ? el("p", { textContent: `At other distances: ${also}` }) : null,
    ...edgeEvidence(edge),
    gates.length ? section("Gates of this effect", gates.length, gates.map(at => () => gateRow(at, source))) : g.k ? el("p", { textContent: "No gate of this effect was found." }) : null,
    gates.length ? el("p", { textContent: "Off and on: this effect, in activations, while the gate feature was clamped off and on." }) : null,
    el("section", {}, el("h3", { textContent: "Its ends" }), endRow("source", source), endRow("target", target)),
    contextList("Where the source fires most", source), contextList("Where the target fires most", target), reading()].filter(Boolean);
}

const reading = () => el("p", { className: "reading", textContent: `${state.measure === "strength" ? "Strength is target activation per source activation, [ ] its 95 % confidence interval" : "Strength is in standard deviations of target and source"}; q is p after correction for all tests; n counts samples.${g.k ? " Off and on: the effect while the gate feature was clamped off and on, in activations." : ""}` });

function overviewPanel() {
  const all = [...g.rank.subarray(0, 40)], degree = node => g.N.in_degree[node] + g.N.out_degree[node];
  const hubs = [...g.N.id.keys()].sort((a, b) => degree(b) - degree(a)).slice(0, 30);
  return [el("h2", { textContent: "Overview" }),
    el("p", { textContent: "An edge is a measured effect: the source was set to a low and a high activation at one token and the target's change was read, everything between running freely. Click a feature or an edge for its evidence." }),
    el("dl", {}, g.data.facts.map(([term, value]) => fact(term, value))),
    section("Strongest edges", "", all.map(edge => () => edgeRow(edge, g.E.source[edge], titleOf(edge))), 6),
    section("Strongest gates", "", strongestGates(g.H.gate.keys()).slice(0, 40).map(at => () => gateRow(at, g.H.gate[at])), 4), section("Best connected features", "", hubs.map(nodeRow), 6), reading()].filter(Boolean);
}

const TABS = { evidence: "Evidence", paths: "Paths", steer: "Steer", compare: "Compare", collection: "Picked", save: "Save" };
function evidencePanel() {
  if (state.edge >= 0) return edgePanel(state.edge);
  if (state.selected >= 0) return nodePanel(state.selected);
  return state.group ? groupPanel(state.group) : overviewPanel();
}
function fillPanel() {
  const made = { evidence: evidencePanel, paths: pathPanel, steer: steerPanel, compare: comparePanel, collection: collectionPanel, save: savePanel }[state.tab]();
  $("panel").replaceChildren(...made.filter(Boolean));
  for (const tab of $("tabs").children) tab.setAttribute("aria-selected", String(tab.dataset.tab === state.tab)), tab.tabIndex = tab.dataset.tab === state.tab ? 0 : -1;
  $("panel").setAttribute("aria-labelledby", `tab-${state.tab}`);
  Object.assign(document.body.dataset, { selected: state.selected >= 0 ? g.N.id[state.selected] : "", edge: state.edge >= 0 ? `${g.N.id[g.E.source[state.edge]]}~${g.N.id[g.E.target[state.edge]]}` : "", tab: state.tab, picked: state.picked.size });
}
