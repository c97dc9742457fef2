// The explorer in a notebook: its page in a frame of its own, and the traits of a Python object on the other side. What
// the page says (97_bridge.js) is set on the model; what Python sets is asked of the page. A frame that comes later, in a
// second view or after the notebook was loaded again, is told what the model holds.
const TOLD = ["selected", "edge", "hops", "side", "min_strength", "types", "picked", "only", "address"];
const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

function render({ model, el }) {
  const frame = document.createElement("iframe"), heard = {};     // heard: what the page said last
  frame.title = "feature interaction explorer";
  frame.setAttribute("sandbox", "allow-scripts allow-downloads");
  frame.style.cssText = "width:100%;border:1px solid #dde3ea;border-radius:6px";
  frame.style.height = model.get("height");
  let ready = false, waiting = null;
  const show = change => frame.contentWindow.postMessage({ explorer: "show", change }, "*");
  const listen = event => {
    if (event.source !== frame.contentWindow || !event.data || !["ready", "view"].includes(event.data.explorer)) return;
    if (event.data.explorer === "ready") {
      const held = Object.fromEntries(TOLD.map(key => [key, model.get(key)]).filter(([, value]) => value !== null && value !== undefined));
      if (!held.address) delete held.address;
      ready = true;
      show(held);
      return;
    }
    for (const key of TOLD) if (key in event.data) heard[key] = event.data[key];
    const fresh = TOLD.filter(key => key in heard && !same(model.get(key), heard[key]));
    for (const key of fresh) model.set(key, heard[key]);
    if (fresh.length) model.save_changes();
  };
  const moved = () => {                                           // several traits that change together are asked for together
    if (!waiting) queueMicrotask(() => {
      const change = Object.fromEntries([...waiting].map(key => [key, model.get(key)]).filter(([key, value]) => !same(value, heard[key])));
      waiting = null;
      if (ready && Object.keys(change).length) show(change);
    });
    waiting = waiting || new Set();
  };
  const watchers = TOLD.map(key => [`change:${key}`, () => { moved(); waiting.add(key); }]);
  for (const [name, act] of watchers) model.on(name, act);
  window.addEventListener("message", listen);
  frame.srcdoc = model.get("page");
  el.appendChild(frame);
  return () => { window.removeEventListener("message", listen); for (const [name, act] of watchers) model.off(name, act); };
}
export default { render };
