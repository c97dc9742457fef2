// ---- what stands behind an edge or a feature: doses, contexts, heads, prompts; rules and logits -----------------------
const behindEdge = edge => ((g.data.evidence || {}).edges || {})[`${g.N.id[g.E.source[edge]]}~${g.N.id[g.E.target[edge]]}${valueOf("offset", edge) > 0 ? `~${valueOf("offset", edge)}` : ""}`] || {};
const behindNode = node => ((g.data.evidence || {}).features || {})[g.N.id[node]] || {};

function svg(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  made.append(...children);
  return made;
}
function table(id, heads, rows) {
  const cells = (kind, values) => el("tr", {}, values.map(value => el(kind, { textContent: value, ...(kind === "th" ? { scope: "col" } : {}) })));
  return el("table", { id }, el("thead", {}, cells("th", heads)), el("tbody", {}, rows.map(values => cells("td", values))));
}

function curvePicture(curve, title) {                        // mean with its band, the fitted shape dashed, the typical range of the source shaded
  const W = 310, H = 150, left = 38, bottom = 24, top = 8, right = 6, { doses, mean, low, high, fit, typical } = curve;
  const all = [0, ...low, ...high, ...fit].filter(known), least = Math.min(...all), most = Math.max(...all), spread = most - least || 1;
  const x = dose => left + (W - left - right) * (dose - doses[0]) / (doses[doses.length - 1] - doses[0] || 1), y = value => top + (H - top - bottom) * (most - value) / spread;
  const line = values => values.map((value, at) => `${at ? "L" : "M"}${x(doses[at]).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const words = (text, px, py, anchor) => svg("text", { x: px, y: py, "text-anchor": anchor, class: "axis" }, text);
  const from = Math.max(x(typical[0]), left), to = Math.min(x(typical[1]), W - right);
  return svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", class: "curve", "aria-label": `${title}; the numbers are in the table below` },
    svg("rect", { x: from, y: top, width: Math.max(0, to - from), height: H - top - bottom, class: "typical" }),
    svg("path", { d: `${line(low)}L${[...doses].map((dose, at) => `${x(dose).toFixed(1)} ${y(high[at]).toFixed(1)}`).reverse().join("L")}Z`, class: "band" }),
    svg("path", { d: `M${left} ${y(0).toFixed(1)}H${W - right}`, class: "zero" }), svg("path", { d: line(mean), class: "mean" }), svg("path", { d: line(fit), class: "fit" }),
    ...doses.map((dose, at) => svg("circle", { cx: x(dose).toFixed(1), cy: y(mean[at]).toFixed(1), r: 2.4, class: "dot" })),
    words(number(doses[0]), left, H - 8, "middle"), words(number(doses[doses.length - 1]), W - right, H - 8, "end"), words("dose of the source", (left + W) / 2, H - 8, "middle"),
    words(number(most, 2), left - 4, y(most) + 8, "end"), words(number(least, 2), left - 4, y(least), "end"));
}
function curveSection(curve) {
  if (!curve) return null;
  const told = `Response: ${curve.shape}`, rows = curve.doses.map((dose, at) => [number(dose), signed(curve.mean[at]), `${number(curve.low[at])} to ${number(curve.high[at])}`]);
  return el("section", { id: "curve" }, el("h3", {}, told, el("small", { textContent: count(curve.n, "sample") })), curvePicture(curve, told),
    el("p", { textContent: `Change of the target from the lowest dose: mean, 95 % interval, fitted shape (dashed); shaded: where the source is usually when it fires. ${percent(curve.rising)} of the samples rise, ${percent(curve.falling)} fall.` }),
    el("details", {}, el("summary", { textContent: "as numbers" }), table("curve-numbers", ["dose", "change", "95 % interval"], rows)));
}

function twoToned(context) {                                 // tokens: background by the source, underline by the target; the clamped one is framed
  const item = el("li", { dir: "auto" }), top = values => Math.max(...values, 1e-9), [s, t] = [top(context.source), top(context.target)];
  context.tokens.forEach((token, at) => {
    const a = context.source[at], b = context.target[at], text = flat(token.replace(/\n/g, "↵")), clamped = at === context.firing, read = at === context.reads;
    if (!(a > 0) && !(b > 0) && !clamped && !read) { item.append(text); return; }
    const made = el("span", { className: "token", textContent: text, title: `source ${number(a)}, target ${number(b)}${clamped ? "; the source is clamped here" : ""}${read ? "; the target is read here" : ""}` });
    made.style.setProperty("--share", a > 0 ? String(Math.round(15 + 70 * a / s)) : "0");
    if (b > 0) { made.classList.add("moved"); made.style.setProperty("--line", `${(1 + 3 * b / t).toFixed(1)}px`); }
    if (clamped) made.classList.add("firing");
    if (read) made.classList.add("read");
    item.append(made);
  });
  item.append(el("small", { className: "change", textContent: ` ${signed(context.change)} at dose ${number(context.dose)}` }));
  return item;
}
function contextSection(contexts) {
  if (!contexts || !contexts.length) return null;
  return el("section", { id: "strongest" }, el("h3", {}, "Where the effect is strongest", el("small", { textContent: contexts.length })), el("ol", {}, contexts.map(twoToned)),
    el("p", { textContent: "Measured there: the change of the target when the source goes from its lowest dose to the one given. Orange: activation of the source; underlined: of the target; framed: where the source was clamped." }));
}
function headSection(heads) {
  if (!heads) return null;
  return el("section", { id: "carriers" }, el("h3", {}, "Which heads carry it", el("small", { textContent: count(heads.n, "sequence") })),
    table("carrier-numbers", ["block.head", "part", "95 % interval", "share", "q"], heads.carriers.map(one => [one.carrier, signed(one.mean), `${number(one.ci_low)} to ${number(one.ci_high)}`, percent(one.share), probability(one.q_value)])),
    el("p", { textContent: `Parts of ${signed(heads.total)}, the direct effect before the target's activation with attention as it is; “bypass” is what passes no head.${heads.more ? ` ${count(heads.more, "smaller part")} not listed.` : ""}` }));
}
function promptSection(prompts) {
  if (!prompts || !prompts.length) return null;
  return el("section", { id: "in-prompts" }, el("h3", {}, "In attribution graphs of prompts", el("small", { textContent: prompts.length })), el("ol", {}, prompts.map(one => el("li", { dir: "auto" }, flat(one.prompt),
    el("small", { className: "change", textContent: ` ${signed(one.weight)} from “${flat(one.words[0].trim())}” (${one.positions[0]}) to “${flat(one.words[1].trim())}” (${one.positions[1]})${one.edges > 1 ? `, the strongest of ${one.edges}` : ""}` })))));
}
const edgeEvidence = edge => { const known = behindEdge(edge); return [curveSection(known.curve), contextSection(known.contexts), headSection(known.heads), promptSection(known.prompts)]; };

function ruleSection(rules) {
  if (!rules || !rules.length) return null;
  const scores = rule => [known(rule.f1) ? `F1 ${number(rule.f1)}${known(rule.low) ? ` [${number(rule.low)}, ${number(rule.high)}]` : ""}` : null, known(rule.precision) ? `precision ${number(rule.precision)}` : null, known(rule.recall) ? `recall ${number(rule.recall)}` : null,
    known(rule.auroc) ? `AUROC ${number(rule.auroc)}` : null, known(rule.q_value) ? `q ${probability(rule.q_value)}` : null, known(rule.n_firings) ? `${count(rule.n_firings, "firing")}` : null,
    known(rule.match) ? `clamped, it moves the output as its texts do: ${number(rule.match)} (p ${probability(rule.match_p)})` : null,
    known(rule.edits) ? `texts edited to make it true: fires in ${percent(rule.edits_fired)} of ${rule.edits}, with another token ${percent(rule.edits_otherwise)}` : null].filter(Boolean).join(" · ");
  return el("section", { id: "rules" }, el("h3", {}, "Hypotheses", el("small", { textContent: "scored on text they were not found on" })),
    rules.map(rule => el("div", { className: "rule", dir: "auto" }, el("b", { textContent: flat(rule.rule) }), el("small", { textContent: scores(rule) }))));
}
function logitSection(known) {
  const part = (title, rows) => rows && rows.length ? el("div", {}, el("h4", { textContent: title }), el("ul", {}, rows.map(([token, by]) => el("li", {}, el("code", { textContent: flat(token.replace(/\n/g, "↵")) || "(empty)" }), el("span", { textContent: signed(by) }))))) : null;
  const parts = [part("promotes", known.promoted), part("suppresses", known.suppressed)].filter(Boolean);
  return parts.length ? el("section", { id: "logits" }, el("h3", {}, "Logits", el("small", { textContent: "direct effect of one unit" })), el("div", { className: "two" }, parts)) : null;
}
const nodeEvidence = node => { const known = behindNode(node); return [ruleSection(known.rules), logitSection(known)]; };
