// ---- communities as one mark each: what they do to one another, and open on a click -----------------------------------
function makeGroups() {
  const { N, E, n, m } = g, words = g.data.words["nodes.group"] || [];
  const made = new Map(words.map((title, code) => [code, { title, code, members: [], x: 0, y: 0 }]));
  for (let node = 0; node < n; node++) if (N.group && words[N.group[node]] !== "") made.get(N.group[node]).members.push(node);
  const groups = [...made.values()].filter(group => group.members.length && group.title !== "").sort((a, b) => b.members.length - a.members.length);
  const links = new Map();
  for (let edge = 0; edge < m; edge++) {
    const a = N.group[E.source[edge]], b = N.group[E.target[edge]], key = a * words.length + b;
    if (a === b || words[a] === "" || words[b] === "" || !passes(edge)) continue;
    const link = links.get(key) || { from: a, to: b, up: 0, down: 0, many: 0 };
    strength(edge) < 0 ? link.down += g.size[edge] : link.up += g.size[edge];
    link.many++;
    links.set(key, link);
  }
  const big = Math.max(...groups.map(group => group.members.length), 1);
  const { width, height } = g.view, place = Math.sqrt(width * height / Math.max(1, groups.length));
  for (const group of groups) {
    group.r = Math.max(7, Math.min(46, place * 0.34) * Math.sqrt(group.members.length / big));
    group.x = group.members.reduce((sum, node) => sum + g.X[node], 0) / group.members.length;
    group.y = group.members.reduce((sum, node) => sum + g.Y[node], 0) / group.members.length;
  }
  const stretch = (key, low, high) => {                      // over the whole picture
    const values = groups.map(group => group[key]), least = Math.min(...values), most = Math.max(...values);
    for (const group of groups) group[key] = most > least ? low + (group[key] - least) / (most - least) * (high - low) : (low + high) / 2;
  };
  stretch("x", 60, width - 80); stretch("y", 60, height - 90);
  for (let round = 0; round < 120; round++) for (const a of groups) {      // apart from one another, inside the picture
    for (const b of groups) if (a !== b) {
      const dx = a.x - b.x || (a.code - b.code) * 0.1, dy = a.y - b.y || 0.1, far = Math.hypot(dx, dy), room = (a.r + b.r) * 1.05 + 26;
      if (far < room) { const push = (room - far) / far * 0.25; a.x += dx * push; a.y += dy * push; b.x -= dx * push; b.y -= dy * push; }
    }
    a.x = Math.max(a.r + 8, Math.min(width - a.r - 8, a.x)); a.y = Math.max(a.r + 24, Math.min(height - a.r - 34, a.y));
  }
  return { groups, byCode: new Map(groups.map(group => [group.code, group])), links: [...links.values()].sort((a, b) => b.up + b.down - a.up - a.down) };
}
const groupX = group => group.x * g.view.scale + g.view.x, groupY = group => group.y * g.view.scale + g.view.y;

function drawGroups(pen) {
  if (!g.made) g.made = makeGroups();
  const { groups, byCode, links } = g.made, most = links.length ? links[0].up + links[0].down : 1;
  for (const link of links.slice(0, 150).reverse()) {
    const a = byCode.get(link.from), b = byCode.get(link.to), kind = link.up >= link.down ? "excitatory" : "inhibitory", size = link.up + link.down;
    const angle = Math.atan2(groupY(b) - groupY(a), groupX(b) - groupX(a)), bend = 0.16, side = [-Math.sin(angle), Math.cos(angle)];
    const far = Math.hypot(groupX(b) - groupX(a), groupY(b) - groupY(a)) * bend;
    const mx = (groupX(a) + groupX(b)) / 2 + side[0] * far, my = (groupY(a) + groupY(b)) / 2 + side[1] * far;
    const into = Math.atan2(groupY(b) - my, groupX(b) - mx), tx = groupX(b) - b.r * Math.cos(into), ty = groupY(b) - b.r * Math.sin(into);
    pen.globalAlpha = 0.25 + 0.6 * Math.sqrt(size / most); pen.strokeStyle = pen.fillStyle = colourOf(kind); pen.lineWidth = 0.8 + 5 * Math.sqrt(size / most);
    pen.setLineDash(styleOf(kind).dash);
    pen.beginPath(); pen.moveTo(groupX(a), groupY(a)); pen.quadraticCurveTo(mx, my, tx, ty); pen.stroke();
    pen.setLineDash([]);
    pen.save(); pen.translate(tx, ty); pen.rotate(into); pen.beginPath();
    if (kind === "inhibitory") { pen.lineWidth = 2.4; pen.moveTo(0, -7); pen.lineTo(0, 7); pen.stroke(); } else { pen.moveTo(1, 0); pen.lineTo(-9, -5); pen.lineTo(-9, 5); pen.fill(); }
    pen.restore();
  }
  const names = [];                                          // of the largest first, each only where there is room
  for (const group of groups) {
    const x = groupX(group), y = groupY(group), colour = GROUP_COLOURS[g.groups.indexOf(group.title) % GROUP_COLOURS.length];
    pen.globalAlpha = group === g.pointed ? 1 : 0.9; pen.fillStyle = colour; pen.strokeStyle = ink().paper; pen.lineWidth = 2;
    pen.beginPath(); pen.arc(x, y, group.r, 0, 7); pen.fill(); pen.stroke();
    pen.globalAlpha = 1; pen.fillStyle = "#ffffff"; pen.font = "600 12px system-ui, sans-serif"; pen.textAlign = "center";
    if (group.r > 13) pen.fillText(group.members.length.toLocaleString("en"), x, y + 4);
    pen.font = "11.5px system-ui, sans-serif"; pen.lineWidth = 3.5; pen.lineJoin = "round"; pen.strokeStyle = ink().paper; pen.fillStyle = ink().ink;
    const text = clip(flat(group.title), 26);
    const wide = pen.measureText(text).width / 2, low = y + group.r + 13, at = Math.max(wide + 3, Math.min(g.view.width - wide - 3, x));
    if (names.some(one => Math.abs(one.low - low) < 14 && Math.abs(one.at - at) < one.wide + wide)) continue;
    names.push({ low, at, wide });
    pen.strokeText(text, at, low); pen.fillText(text, at, low);
  }
  pen.textAlign = "left";
  g.counts = { nodesDrawn: groups.length, edgesDrawn: Math.min(150, links.length), gatesDrawn: 0 };
  $("shown").textContent = `${groups.length} ${groupWords()}, ${Math.min(150, links.length)} of ${links.length} effects between them; click one to open it`;
}
function groupAt(x, y) { return ((g.made || {}).groups || []).find(group => Math.hypot(groupX(group) - x, groupY(group) - y) < group.r + 3) || null; }

function openGroup(title) {                                  // "*": all communities as marks; a title: its members; null: every feature
  Object.assign(state, { group: title, selected: -1, edge: -1, hops: 0, only: false, path: null });
  g.made = null;
  showControls();
  changed(true);
}

function groupRow(group) {
  const row = el("button", { type: "button", className: "row" }, el("b", { textContent: flat(group.title) }), el("em", { textContent: count(group.members.length, "feature") }));
  row.addEventListener("click", () => openGroup(group.title));
  return row;
}
function groupPanel(title) {
  const { groups, links } = makeGroups();
  if (title === "*") return [el("h2", { textContent: state.by === "role" ? "Roles" : "Communities" }),
    el("p", { textContent: `${state.by === "role" ? "Groups of features that are wired alike: excited, inhibited and heard in the same way." : "Groups of features that act on one another more than on others."} A curve is the summed |strength| of the edges from one to the other: an arrow where they excite on balance, a bar where they inhibit.` }),
    el("div", { className: "actions" }, button("Every feature", () => openGroup(null))), section(state.by === "role" ? "Roles" : "Communities", groups.length, groups.map(group => () => groupRow(group)), 40)];
  const mine = groups.find(group => group.title === title), row = (link, other, sign) => () => {
    const there = groups.find(group => group.code === other);
    const made = groupRow(there);
    made.querySelector("em").textContent = `${signed(sign * (link.up - link.down))} in ${count(link.many, "edge")}`;
    return made;
  };
  const away = mine ? links.filter(link => link.from === mine.code) : [], toward = mine ? links.filter(link => link.to === mine.code) : [];
  return [el("h2", { textContent: flat(title) }), el("p", { textContent: `a ${groupWord()} of ${count(mine ? mine.members.length : 0, "feature")}` }),
    el("div", { className: "actions" }, button(`← all ${groupWords()}`, () => openGroup("*")), button("Every feature", () => openGroup(null))),
    section("It acts on", away.length, away.map(link => row(link, link.to, 1))), section("Acts on it", toward.length, toward.map(link => row(link, link.from, 1))),
    section("Members", mine ? mine.members.length : 0, (mine ? [...mine.members].sort((a, b) => g.N.size[b] - g.N.size[a]) : []).map(nodeRow), 12)].filter(Boolean);
}
