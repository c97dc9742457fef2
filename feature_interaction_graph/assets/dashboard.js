// ---- data: one packed block of JSON -----------------------------------------------------------------------------------
const $ = id => document.getElementById(id);
const ROW = 46;                                              // pixels of a line of the list

async function unpack(text) {
  const raw = atob(text.trim()), packed = new Uint8Array(raw.length);
  for (let at = 0; at < raw.length; at++) packed[at] = raw.charCodeAt(at);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

let data = null, C = null, shown = [], chosen = -1;
const state = { text: "", layer: "", sort: "id" };
const byId = new Map(), haystack = [];
const id = at => `L${C.layer[at]}_F${C.feature[at]}`;
const layerOf = at => data.layers.find(one => one.layer === C.layer[at]);

// ---- text: everything from the data enters the page as text, never as markup ------------------------------------------
function el(tag, properties = {}, ...children) {
  const { aria = {}, ...rest } = properties, element = Object.assign(document.createElement(tag), rest);
  for (const [name, value] of Object.entries(aria)) element.setAttribute(name === "role" ? name : `aria-${name}`, value);
  element.append(...children.flat().filter(child => child !== null && child !== undefined));
  return element;
}
const known = value => value !== null && value !== undefined;
function number(value, digits = 3) {
  if (!known(value)) return "unknown";
  const small = value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6);
  return (small ? value.toExponential(1) : String(Number(value.toPrecision(digits)))).replace(/-/g, "−");
}
const signed = value => !known(value) ? "unknown" : (value > 0 ? "+" : "") + number(value);
const percent = value => known(value) ? `${number(100 * value)} %` : "unknown";
const flat = text => text.replace(/\n/g, "↵").replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\ufeff]/g, "␣");
const line = (text, length = 300) => { const one = flat(text); return one.length > length ? one.slice(0, length - 1) + "…" : one; };
const word = at => el("bdi", { className: "word", textContent: flat(data.words[at]) });
const heading = (title, more = "") => el("h3", {}, title, more ? el("small", { textContent: more }) : null);

function jump(name, fallback = name) {
  const at = byId.get(name);
  const text = at === undefined ? fallback : `${name}  ${line(C.label[at], 120)}`;
  if (at === undefined) return el("bdi", { textContent: line(text, 200) });
  const made = el("button", { type: "button", className: "jump" }, el("bdi", { textContent: text }));
  made.addEventListener("click", () => choose(at));
  return made;
}
function table(heads, rows) {
  const cell = (tag, content) => el(tag, {}, typeof content === "string" ? content : el("div", {}, content));
  return el("table", {}, el("thead", {}, el("tr", {}, heads.map(head => el("th", { textContent: head })))),
    el("tbody", {}, rows.map(row => el("tr", {}, row.map(content => cell("td", content))))));
}

// ---- examples ---------------------------------------------------------------------------------------------------------
function spans(tokens, classOf, valueOf, most, titleOf, firing, least = 0) {
  return tokens.map((text, at) => {
    const value = valueOf(at), made = el("span", { textContent: flat(data.words[text]) });
    if (known(value) && value !== 0) {
      made.className = classOf(value);
      made.title = titleOf(value);
      made.style.setProperty("--share", String(Math.round(least + (90 - least) * Math.abs(value) / most)));
    }
    if (at === firing) made.classList.add("firing");
    return made;
  });
}
function example(one) {
  const values = Object.values(one.values).map(Math.abs), most = Math.max(...values, 1e-12);
  const text = el("div", { className: "text", dir: "auto" }, spans(one.tokens, () => "token", at => one.values[at], most,
    value => `activation ${number(value)}`, one.firing, 12));
  const item = el("li", {}, el("em", { textContent: number(one.value), title: `sequence ${one.at[0]}, position ${one.at[1]}` }), text);
  if (one.pattern) {
    const largest = Math.max(...one.pattern.map(Math.abs), 1e-12);
    const earlier = one.earlier > 0 ? `, tokens further back together ${number(one.earlier)} at most` : "";
    item.append(el("div", { className: "why text", dir: "auto" },
      el("small", { textContent: `what each token adds to the pre-activation (gradient × input): ${signed(one.pattern[one.firing])} by the last one${earlier}` }),
      spans(one.tokens.slice(0, one.firing + 1), value => value > 0 ? "adds" : "takes", at => one.pattern[at], largest, value => `adds ${signed(value)}`, one.firing)));
  }
  return item;
}
const BANDS = (at, many) => many === 1 ? "of all firings" : at === 0 ? `the strongest ${Math.round(100 / many)} %` : at === many - 1 ? `the weakest ${Math.round(100 / many)} %`
  : `between the strongest ${Math.round(100 * at / many)} % and ${Math.round(100 * (at + 1) / many)} %`;

// ---- parts of a card --------------------------------------------------------------------------------------------------
function histogram(density) {
  const NS = "http://www.w3.org/2000/svg", most = Math.max(...density.counts, 1), wide = 300 / density.counts.length;
  const make = (tag, attributes, text) => {
    const made = document.createElementNS(NS, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const svg = make("svg", { viewBox: "0 0 300 84", width: "100%", role: "img", "aria-label": `histogram of ${density.counts.reduce((a, b) => a + b, 0)} activations from ${number(density.from)} to ${number(density.to)}` });
  density.counts.forEach((many, at) => {
    const bar = make("rect", { x: at * wide, y: 68 - 64 * many / most, width: Math.max(wide - 1, 1), height: 64 * many / most });
    bar.append(make("title", {}, `${many} firings`));
    svg.append(bar);
  });
  svg.append(make("text", { x: 0, y: 81 }, number(density.from)), make("text", { x: 300, y: 81, "text-anchor": "end" }, number(density.to)));
  return svg;
}
function facts(at, card) {
  const pairs = [["fires at", `${percent(C.activation_freq[at])} of positions`], ["firings", C.count[at].toLocaleString("en")],
    ["mean where it fires", `${number(C.mean[at])} ± ${number(C.std[at])}`], ["10 / 50 / 90 %", [C.p10, C.p50, C.p90].map(one => number(one[at])).join(" / ")],
    ["maximum", number(C.max[at])]];
  if (known(C.importance[at])) pairs.push(["importance", `${number(C.importance[at])} nats a position`]);
  if (card.effect && known(card.effect.kl)) pairs.push(["output changes by", `${number(card.effect.kl)} nats (KL)`], ["loss rises without it by", `${number(card.effect.loss)} nats`]);
  return el("dl", {}, pairs.map(([name, value]) => el("div", {}, el("dt", { textContent: name }), el("dd", { textContent: value }))));
}
function effects(card) {
  const told = card.effect;
  if (!told) return null;
  const rows = some => some.map(([text, removed, direct]) => [word(text), signed(removed), signed(direct)]);
  const agree = known(told.agreement) ? `; over all tokens the two correlate at ${number(told.agreement, 2)}` : "";
  return el("section", {}, heading("What it does to the next token", "logits, less their mean"),
    el("p", { textContent: `Mean over ${told.n} firings of what is gone when the feature is taken away, and of what it writes straight to the logits${agree}.` }),
    table(["raises", "taken away", "direct"], rows(told.up)), table(["lowers", "taken away", "direct"], rows(told.down)));
}
function labels(at, card) {
  const layer = layerOf(at);
  if (!card.labels || !card.labels.length) return null;
  const rows = card.labels.map(([label, many, q]) => {
    const share = many / C.count[at], base = layer.base[label];
    return [el("bdi", { textContent: line(layer.labels[label], 200) }), percent(share), percent(base), base ? `${number(share / base, 2)}×` : "unknown", number(q, 2)];
  });
  return el("section", {}, heading("What holds where it fires"), table(["label", "of firings", "of all text", "lift", "q"], rows));
}
function rules(card) {
  if (!card.rules.length) return null;
  return el("section", {}, heading("When it fires, in words", "scores on text the rule was not found on"), card.rules.map(one => {
    const parts = [`F1 ${number(one.f1, 2)}` + (known(one.low) ? ` [${number(one.low, 2)}, ${number(one.high, 2)}]` : "")];
    for (const [name, key] of [["precision", "precision"], ["recall", "recall"], ["AUROC", "auroc"], ["q", "q_value"], ["firings", "n_firings"]])
      if (known(one[key])) parts.push(`${name} ${number(one[key], key === "n_firings" ? 9 : 2)}`);
    if (known(one.match)) parts.push(`clamped it matches ${number(one.match, 2)} (p ${number(one.match_p, 2)})`);
    if (known(one.edits)) parts.push(`written into the text it fires at ${percent(one.edits_fired)} of ${one.edits} places, another token at ${percent(one.edits_otherwise)}`);
    return el("div", { className: "rule", dir: "auto" }, flat(one.rule), el("small", { textContent: parts.join(" · ") }));
  }));
}
function neighbours(at, card) {
  if (!card.near) return null;
  const side = (of, title) => table([title, "cosine"], card.near[of].map(([other, cosine]) => [jump(`L${C.layer[at]}_F${other}`), number(cosine, 2)]));
  return el("section", {}, heading("Like it in this layer"), side("decoder", "writes nearly the same"), side("encoder", "looks for nearly the same"));
}
function edges(card) {
  if (!card.into && !card.out) return null;
  const rows = some => some.map(one => [el("span", {}, jump(one.other, `${one.other}  ${one.label}`), one.type ? el("small", { textContent: ` ${flat(one.type)}` }) : null),
    el("span", { className: one.strength < 0 ? "inh" : "exc", textContent: signed(one.strength), title: known(one.ci_lower) ? `95 %: ${number(one.ci_lower)} to ${number(one.ci_upper)}` : "" }),
    known(one.strength_std) ? signed(one.strength_std) : "", known(one.q_value) ? number(one.q_value, 2) : ""]);
  const side = (some, title, none) => some.length ? table([title, "strength", "in std", "q"], rows(some)) : el("p", { textContent: none });
  return el("section", {}, heading("Measured edges", "of the graph"), side(card.into, "caused by", "No edge of the graph leads to it."), side(card.out, "causes", "No edge of the graph starts at it."));
}

// ---- a card, and the list ---------------------------------------------------------------------------------------------
function draw(at) {
  const card = data.cards[at], place = $("card");
  const title = el("h2", { dir: "auto" }, `${id(at)}  `, el("bdi", { textContent: flat(C.label[at]) }));
  const score = known(C.label_score[at]) && C.label[at] ? el("p", { textContent: `score of this label ${number(C.label_score[at], 2)}` }) : null;
  const link = card.link ? el("p", {}, el("a", { href: card.link, target: "_blank", rel: "noopener noreferrer", textContent: "on Neuronpedia" })) : null;
  const top = el("section", {}, heading("Where it fires most"), el("ol", {}, card.top.map(example)));
  const bands = el("section", {}, card.bands.length ? heading("And usually", "drawn at random from bands of equal numbers of firings") : null,
    card.bands.map((band, part) => [el("p", { textContent: BANDS(part, card.bands.length) }), el("ol", {}, band.map(example))]));
  const density = el("section", {}, heading("How strongly", "firings by activation"), histogram(card.density));
  const texts = card.top.length ? [rules(card), top, bands] : [el("p", { textContent: "It fires nowhere in this text." })];
  const beside = [card.top.length ? density : null, effects(card), labels(at, card), neighbours(at, card), edges(card)];
  place.replaceChildren(...[title, score, link, facts(at, card), el("div", { className: "columns" }, el("div", {}, texts), el("div", {}, beside))].filter(Boolean));
  place.scrollTop = 0;
}

const SORTS = {
  id: ["number", null], frequency: ["frequency", at => C.activation_freq[at]], max: ["maximum", at => C.max[at]],
  importance: ["importance", at => C.importance[at]], f1: ["F1 of its rule", at => C.f1[at]],
  kl: ["change of the output", at => data.cards[at].effect ? data.cards[at].effect.kl : null],
};
function find() {
  const text = state.text.trim(), expression = /^\/(.+)\/$/.exec(text);
  let fits = at => haystack[at].includes(text.toLowerCase()), fault = "";
  if (expression) try { const made = new RegExp(expression[1], "i"); fits = at => made.test(haystack[at]); } catch { fault = "no regular expression; "; fits = () => false; }
  shown = C.layer.map((_, at) => at).filter(at => (state.layer === "" || C.layer[at] === Number(state.layer)) && fits(at));
  const key = SORTS[state.sort][1], rank = value => known(value) ? value : -Infinity;
  if (key) shown.sort((a, b) => rank(key(b)) - rank(key(a)) || a - b);
  $("found").textContent = `${fault}${shown.length.toLocaleString("en")} of ${C.layer.length.toLocaleString("en")}`;
  $("all").style.height = `${shown.length * ROW}px`;
  list();
}
function list() {
  const box = $("list"), first = Math.max(0, Math.floor(box.scrollTop / ROW) - 4), last = Math.min(shown.length, first + Math.ceil(box.clientHeight / ROW) + 9);
  $("all").replaceChildren(...shown.slice(first, last).map((at, place) => {
    const key = SORTS[state.sort][1], value = key ? ` · ${SORTS[state.sort][0]} ${number(key(at))}` : ` · ${percent(C.activation_freq[at])}`;
    const item = el("div", { className: "item", id: `item-${at}`, aria: { role: "option", selected: String(at === chosen) } },
      el("b", {}, el("bdi", { textContent: line(C.label[at], 120) || id(at) })), el("small", { textContent: `${id(at)}${value}` }));
    item.style.top = `${(first + place) * ROW}px`;
    item.addEventListener("click", () => choose(at));
    return item;
  }));
}
function choose(at, follow = true) {
  chosen = at;
  document.body.dataset.selected = id(at);
  if (follow) history.replaceState(null, "", `#${id(at)}`);
  draw(at);
  const place = shown.indexOf(at), box = $("list");
  if (place >= 0 && (place * ROW < box.scrollTop || (place + 1) * ROW > box.scrollTop + box.clientHeight)) box.scrollTop = place * ROW - box.clientHeight / 2;
  list();
  box.setAttribute("aria-activedescendant", `item-${at}`);
}
function step(by) {
  if (!shown.length) return;
  const place = shown.indexOf(chosen);
  choose(shown[place < 0 ? 0 : Math.min(shown.length - 1, Math.max(0, place + by))]);
}
function named() {
  const at = byId.get(location.hash.slice(1));            // ids need no escaping
  if (at !== undefined && at !== chosen) choose(at, false);
  return at !== undefined;
}

// ---- controls ---------------------------------------------------------------------------------------------------------
function theme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  $("theme").textContent = dark ? "Light" : "Dark";
}
function connect() {
  $("search").addEventListener("input", () => { state.text = $("search").value; $("list").scrollTop = 0; find(); });
  $("layer").addEventListener("change", () => { state.layer = $("layer").value; $("list").scrollTop = 0; find(); });
  $("sort").addEventListener("change", () => { state.sort = $("sort").value; $("list").scrollTop = 0; find(); });
  $("list").addEventListener("scroll", list);
  $("before").addEventListener("click", () => step(-1));
  $("after").addEventListener("click", () => step(1));
  $("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme !== "dark"));
  addEventListener("hashchange", named);
  addEventListener("resize", list);
  addEventListener("keydown", event => {
    const typing = /^(INPUT|SELECT)$/.test(document.activeElement.tagName);
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (typing && event.key === "Enter" && shown.length) choose(shown[0]);
    if (typing && event.key === "Escape") document.activeElement.blur();
    if (typing) return;
    const by = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
    const reading = $("card").contains(document.activeElement) && event.key.startsWith("Arrow");
    if (by && !reading) { step(by); event.preventDefault(); }
    if (event.key === "/") { $("search").focus(); event.preventDefault(); }
  });
}
async function start() {
  data = await unpack($("card-data").textContent);
  C = data.columns;
  C.layer.forEach((_, at) => {
    byId.set(id(at), at);
    const card = data.cards[at], words = card.top.slice(0, 3).map(one => data.words[one.tokens[one.firing]]);
    haystack.push([id(at), C.label[at], ...card.rules.map(one => one.rule), ...words].join(" ").toLowerCase());
  });
  data.layers.forEach(one => $("layer").append(el("option", { value: String(one.layer), textContent: String(one.layer) })));
  for (const [key, [name, value]] of Object.entries(SORTS)) {
    if (!value || C.layer.some((_, at) => known(value(at)))) $("sort").append(el("option", { value: key, textContent: name }));
  }
  $("counts").textContent = `${C.layer.length.toLocaleString("en")} features of ${data.layers.length} ${data.layers.length === 1 ? "layer" : "layers"}, on ${data.n_positions.toLocaleString("en")} positions of text`;
  theme(matchMedia("(prefers-color-scheme: dark)").matches);
  connect();
  find();
  if (!named() && shown.length) choose(shown[0], false);
  document.body.dataset.ready = "true";
}
start().catch(error => { document.body.dataset.fault = String(error); $("card").textContent = `This page could not be drawn: ${error}`; });
