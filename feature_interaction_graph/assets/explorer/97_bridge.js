// ---- inside a notebook's widget: what is chosen goes to Python, and what Python asks for is shown -----------------------
// The page says {explorer: "ready" | "view", ...view}, the widget says {explorer: "show", change: {...}}; see drawing/widget.
const TALKS = { inside: window.parent !== window, said: "" };
const viewNow = () => ({ selected: state.selected >= 0 ? firstId(state.selected) ?? "" : "", edge: state.edge >= 0 && g === graphs[0] ? edgeName(state.edge).split("~") : [], hops: state.hops, side: state.side,
  min_strength: six(cut()), types: [...state.types].sort(), picked: [...state.picked], only: state.only, address: address() });
function say(kind = "view") {                                // once for every view that is another one
  if (!TALKS.inside) return;
  const view = viewNow(), text = JSON.stringify(view);
  if (kind === "view" && text === TALKS.said) return;
  TALKS.said = kind === "view" ? text : "";
  window.parent.postMessage({ explorer: kind, ...view }, "*");
}
function wanted(change) {                                     // the address that is here, with what is to change in it
  const parts = new URLSearchParams((typeof change.address === "string" ? change.address : address()).replace(/^#/, "")), has = key => key in change;
  const put = (key, value) => value === "" || value === null || value === undefined ? parts.delete(key) : parts.set(key, String(value));
  if (has("selected")) { put("select", change.selected); if (!has("edge")) parts.delete("edge"); }
  if (has("edge")) { put("edge", change.edge.join("~")); if (change.edge.length && !has("selected")) put("select", change.edge[0]); }
  for (const key of ["hops", "side"]) if (has(key)) put(key, change[key]);
  if (has("min_strength")) put("min", change.min_strength);
  if (has("types")) { parts.delete("types"); if (change.types !== null) parts.set("types", change.types.join(",")); }
  if (!has("min_strength") && (has("hops") || has("only") || (has("selected") && focused()))) parts.delete("min");   // a cut belongs to what it was set for
  if (has("picked")) put("picked", change.picked.join("~"));
  if (has("only")) put("only", change.only ? 1 : "");
  return "#" + parts.toString();
}
function show(change) {
  restore(wanted(change));
  eachGraph(() => { g.made = null; refilter(); place(); });
  fillPanel(); remember(); redraw();
  if (state.selected >= 0) centre(state.selected);
}
function buildBridge() {
  if (!TALKS.inside) return;
  window.addEventListener("message", event => { if (event.source === window.parent && event.data && event.data.explorer === "show" && event.data.change) show(event.data.change); });
  say("ready");
}
