// ---- steering: what a dose is predicted to change downstream, with intervals, and what would cancel the rest -----------
const dose = { node: -1, by: 1, reach: 5, target: -1, extra: new Map(), found: [] };

function reachOf() {                                         // source layer -> layers that effects were measured on
  const reach = new Map();
  for (let edge = 0; edge < g.m; edge++) {
    const from = g.N.layer[g.E.source[edge]];
    if (!reach.has(from)) reach.set(from, new Set());
    reach.get(from).add(g.N.layer[g.E.target[edge]]);
  }
  return reach;
}
function fromOne(push, first, reach) {                       // what was measured from it, then what is measured from the last layer so reached, and so on
  const { N, E } = g, found = new Map(), furthest = layer => reach.has(layer) ? Math.max(...reach.get(layer)) : -Infinity;
  let layer = first, done = first, hops = 0, front = push;
  while (furthest(layer) > done) {
    const fresh = new Map();
    hops++;
    for (const [key, moved] of front) {
      const source = key % g.n, lag = (key - source) / g.n;
      for (const edge of g.out(source)) {
        const target = E.target[edge], there = N.layer[target], again = there <= done && !(hops === 1 && there === layer);
        if (again || !reach.get(layer).has(there) || !known(E.strength[edge])) continue;
        const spread = (valueOf("ci_upper", edge) - valueOf("ci_lower", edge)) / 3.92, error = known(spread) ? spread * spread : 0, by = E.strength[edge];
        const at = target + g.n * (lag + (valueOf("offset", edge) || 0)), mine = fresh.get(at) || { change: 0, variance: 0, hops: 1 };
        mine.change += moved.change * by;
        mine.variance += moved.change ** 2 * error + by ** 2 * moved.variance + error * moved.variance;
        mine.hops = Math.max(mine.hops, hops);
        fresh.set(at, mine);
      }
    }
    for (const [key, moved] of fresh) found.set(key, moved);
    layer = done = furthest(layer);
    front = new Map([...fresh].filter(([key]) => N.layer[key % g.n] === layer));
  }
  return found;
}
function cascade(moves) {                                    // change of every (feature, offset), strongest first; `moves`: feature -> dose
  const reach = reachOf(), found = new Map(), by = (a, b) => g.N.layer[a] - g.N.layer[b] || g.N.feature[a] - g.N.feature[b];
  const before = (a, b) => by(a, b) <= 0;
  for (const source of [...moves.keys()].sort(by)) {
    const already = found.has(source) ? found.get(source).change : 0, push = new Map([[source, { change: moves.get(source) - already, variance: 0, hops: 0 }]]);
    for (const [key, moved] of fromOne(push, g.N.layer[source], reach)) {
      if (key < g.n && moves.has(key) && before(key, source)) continue;
      const mine = found.get(key) || { change: 0, variance: 0, hops: 1 };
      found.set(key, { change: mine.change + moved.change, variance: mine.variance + moved.variance, hops: Math.max(mine.hops, moved.hops) });
    }
  }
  return [...found].filter(([key, moved]) => !(key < g.n && moves.has(key)) && Math.abs(moved.change) >= 1e-6)
    .map(([key, moved]) => ({ node: key % g.n, offset: Math.floor(key / g.n), ...moved }))
    .sort((a, b) => Math.abs(b.change) - Math.abs(a.change) || a.node - b.node);
}

function together(pushes) {                                  // pushes add to what reaches a feature: total effects of each, summed
  const found = new Map();
  for (const [source, by] of pushes) for (const { node, offset, change, variance, hops } of cascade(new Map([[source, by]]))) {
    const key = node + g.n * offset, mine = found.get(key) || { node, offset, change: 0, variance: 0, hops: 1 };
    found.set(key, { ...mine, change: mine.change + change, variance: mine.variance + variance, hops: Math.max(mine.hops, hops) });
  }
  const pushed = new Set(pushes.map(([source]) => source));
  return [...found.values()].filter(moved => !pushed.has(moved.node)).map(moved => ({ ...moved, half: 1.96 * Math.sqrt(moved.variance) }))
    .sort((a, b) => Math.abs(b.change) - Math.abs(a.change) || a.node - b.node);
}

function solve(matrix, right) {                              // a small system, by elimination with pivots
  const n = right.length, rows = matrix.map((row, at) => [...row, right[at]]);
  for (let at = 0; at < n; at++) {
    let best = at;
    for (let row = at + 1; row < n; row++) if (Math.abs(rows[row][at]) > Math.abs(rows[best][at])) best = row;
    [rows[at], rows[best]] = [rows[best], rows[at]];
    if (!rows[at][at]) continue;
    for (let row = 0; row < n; row++) if (row !== at) {
      const share = rows[row][at] / rows[at][at];
      for (let column = at; column <= n; column++) rows[row][column] -= share * rows[at][column];
    }
  }
  return rows.map((row, at) => row[at] ? row[n] / row[at] : 0);
}
function compensate(most = 5) {                              // a few shifts of other features that cancel the rest and leave the target as it is
  const { node, target } = dose, side = cascade(new Map([[node, dose.by]])).filter(moved => moved.node !== target), scores = new Map();
  for (const moved of side.slice(0, 60)) for (const edge of g.into(moved.node)) {
    const source = g.E.source[edge];
    if (source !== node && source !== target && g.N.layer[source] <= g.N.layer[target]) scores.set(source, (scores.get(source) || 0) + (g.E.strength[edge] * moved.change) ** 2);
  }
  const able = [...scores].sort((a, b) => b[1] - a[1]).slice(0, 40).map(([source]) => ({ source, does: cascade(new Map([[source, 1]])) }));
  const place = new Map(), key = moved => moved.node + g.n * moved.offset;      // of everything that moves: what the dose does, and what they would do besides
  for (const moved of [...side, ...able.flatMap(one => one.does)]) if (moved.node !== target && !place.has(key(moved))) place.set(key(moved), place.size);
  const column = does => { const values = new Float64Array(place.size + 1); for (const moved of does) values[moved.node === target ? place.size : place.get(key(moved))] += moved.change; return values; };
  const columns = able.map(one => column(one.does)), wish = column(side).map(value => -value), product = (a, b) => a.reduce((sum, value, at) => sum + value * b[at], 0);
  const heavy = 1e3;                                         // what they do to the target must vanish
  for (const one of columns) one[place.size] *= heavy;
  const gram = columns.map(a => columns.map(b => product(a, b))), right = columns.map(a => product(a, wish)), whole = product(wish, wish);
  const fit = using => {
    const shifts = solve(using.map(i => using.map(j => gram[i][j] * (i === j ? 1 + 1e-6 : 1))), using.map(i => right[i]));
    return { using, shifts, left: whole - 2 * using.reduce((sum, i, at) => sum + shifts[at] * right[i], 0) + using.reduce((sum, i, a) => sum + using.reduce((inner, j, b) => inner + shifts[a] * shifts[b] * gram[i][j], 0), 0) };
  };
  let now = { using: [], shifts: [], left: whole };
  while (now.using.length < most) {
    const tried = able.map((_, i) => i).filter(i => !now.using.includes(i)).map(i => fit([...now.using, i])).sort((a, b) => a.left - b.left)[0];
    if (!tried || !(tried.left < now.left * 0.99)) break;
    now = tried;
  }
  dose.extra = new Map(now.using.map((i, at) => [able[i].source, now.shifts[at]]));
}

function steerFrom(node) {
  Object.assign(dose, { node, extra: new Map(), target: -1 });
  state.tab = "steer";
  predict();
  changed();
}
function predict() {
  const able = dose.node >= 0 && g.out(dose.node).length;
  dose.found = able ? together([[dose.node, dose.by], ...dose.extra]) : [];
  if (able && (dose.target < 0 || !dose.found.some(moved => moved.node === dose.target))) dose.target = dose.found.length ? dose.found[0].node : -1;
  state.values = able ? new Map() : null;
  for (const moved of [...dose.found].reverse()) state.values.set(moved.node, moved.change);
  if (able) { state.values.set(dose.node, dose.by); for (const [node, by] of dose.extra) state.values.set(node, by); }
  state.largest = Math.max(...dose.found.slice(0, 3).map(moved => Math.abs(moved.change)), 1e-9);
}
function movedRow(moved) {
  const css = moved.change < 0 ? "inh" : "exc", made = el("button", { type: "button", className: "row" }, el("b", { textContent: `${moved.node === dose.target ? "target: " : ""}${name(moved.node)}` }),
    el("em", { className: css, textContent: `${signed(moved.change)} ± ${number(moved.half, 2)}` }),
    el("small", { textContent: `${g.N.id[moved.node]}${moved.offset ? ` · ${count(moved.offset, "token")} later` : ""}${moved.hops > 1 ? ` · ${moved.hops} hops` : ""}${measuredText(moved)}` }));
  made.addEventListener("click", () => { dose.target = moved.node; dose.extra = new Map(); predict(); fillPanel(); redraw(); });
  return made;
}
function measuredText(moved) {                               // what a run of the model gave, for a dose that was measured
  const runs = (g.data.measured || {})[g.N.id[dose.node]], run = runs && runs.find(one => Math.abs(one.dose - dose.by) < 1e-6 * Math.max(1, Math.abs(dose.by)));
  const value = run && !dose.extra.size ? run.changes[g.N.id[moved.node]] : undefined;
  return moved.offset === 0 && known(value) ? ` · measured ${signed(value)}` : "";
}
function steerList() {
  const rest = dose.found.filter(moved => moved.node !== dose.target), norm = those => Math.sqrt(those.reduce((sum, moved) => sum + moved.change ** 2, 0));
  const target = dose.found.find(moved => moved.node === dose.target);
  return [el("dl", { id: "steered" }, fact("features that move", dose.found.length.toLocaleString("en")), fact("size of the rest", number(norm(rest)), "root of the summed squares of all changes but the target's"),
    target ? fact("target", `${signed(target.change)} ± ${number(target.half, 2)}`) : null, dose.extra.size ? fact("compensators", [...dose.extra].map(([node, by]) => `${g.N.id[node]} ${signed(by)}`).join(", ")) : null),
    section("Predicted changes", `${dose.found.length.toLocaleString("en")}, activation ± 95 % interval`, dose.found.map(moved => () => movedRow(moved)), 15)].filter(Boolean);
}
function steerPanel() {
  const { node } = dose, pick = chosen => steerFrom(chosen);
  const head = [el("h2", { textContent: "Steer" }), el("p", { textContent: "Pushes one feature by a dose and adds up measured effects: a prediction from the graph, not a run of the model. Intervals take the errors of the edges as independent. A click on a row makes it the target." }), featureField("feature", "steer-feature", node, pick)];
  if (node < 0 || !g.out(node).length) return [...head, el("p", { textContent: node < 0 ? "Choose a feature, here or in the picture." : "It has no measured effect on anything, so its cascade is unknown." })];
  const slider = el("input", { id: "dose", type: "range", min: -1000, max: 1000, value: Math.round(1000 * dose.by / dose.reach), aria: { label: "Dose, in activation" } });
  const exact = el("input", { id: "dose-exact", type: "number", step: "any", value: dose.by, aria: { label: "Dose, exactly" } }), list = el("div", { id: "cascade" }, steerList());
  const show = () => { predict(); list.replaceChildren(...steerList()); redraw(); };
  slider.addEventListener("input", () => { dose.by = Number((dose.reach * slider.value / 1000).toPrecision(3)); exact.value = dose.by; dose.extra = new Map(); show(); });
  slider.addEventListener("change", () => remember());
  exact.addEventListener("change", () => { const by = Number(exact.value); if (!Number.isFinite(by)) return; dose.by = by; dose.reach = Math.max(5, Math.abs(by)); slider.value = Math.round(1000 * by / dose.reach); dose.extra = new Map(); show(); remember(); });
  return [...head, el("label", { className: "dose" }, el("span", { textContent: "dose" }), slider, exact),
    el("div", { className: "actions" }, button("Compensate", () => { compensate(); show(); }, { id: "compensate", title: "A few more pushes that cancel what else moves and leave the target as it is" }), button("Only the dose", () => { dose.extra = new Map(); show(); }), button("Stop steering", stopSteering)), list];
}
function stopSteering() {
  Object.assign(dose, { node: -1, extra: new Map(), target: -1, found: [] });
  state.values = null;
  changed();
}
