// ---- start ---------------------------------------------------------------------------------------------------------------
function onStage(graph, suffix) {
  Object.assign(graph, { stage: $(`stage${suffix}`), canvas: $(`canvas${suffix}`), overCanvas: $(`over${suffix}`), tip: $(`tip${suffix}`) });
  Object.assign(graph, { pen: graph.canvas.getContext("2d"), over: graph.overCanvas.getContext("2d"), grids: {} });
}
async function start() {
  setTimeout(() => { if (!document.body.dataset.ready) $("counts").textContent = "unpacking the graph …"; }, 300);
  const texts = ["graph-data", "graph-data-2"].map($).filter(Boolean).map(block => { const text = block.textContent; block.remove(); return text; });
  graphs = (await Promise.all(texts.map(unpack))).map(makeGraph);
  g = graphs[0];
  graphs.forEach((graph, at) => onStage(graph, at ? `-${at + 1}` : ""));
  matching(g, graphs[1] || g);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  document.documentElement.dataset.theme = dark.matches ? "dark" : "light";
  buildControls(); buildSearch(); buildKeys(); buildGrip(); graphs.forEach(buildPointer);
  setTheme(document.documentElement.dataset.theme);
  dark.addEventListener("change", () => setTheme(dark.matches ? "dark" : "light"));
  const hash = location.hash.length > 1 ? location.hash : g.data.start;
  restore(hash); eachGraph(() => refilter()); fillPanel(); resize(); zoomTo(hash);
  for (const graph of graphs) new ResizeObserver(resize).observe(graph.stage);
  window.addEventListener("popstate", () => { restore(); eachGraph(() => { g.made = null; refilter(); place(); }); fillPanel(); redraw(); say(); });
  buildBridge();
  requestAnimationFrame(() => { performance.mark("drawn"); document.body.dataset.ready = "true"; });
}
start().catch(fault => {
  const old = typeof DecompressionStream === "undefined";
  $("counts").textContent = old ? "This browser is too old to unpack the graph; use one of 2023 or later." : `The graph in this file could not be read (${fault.message}); write the page again.`;
  document.body.dataset.fault = String(fault.stack || fault);
});
