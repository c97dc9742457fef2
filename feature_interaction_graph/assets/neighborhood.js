// A neighbourhood as vis-network draws what pyvis says; what is chosen in the picture is marked in the table, and back.
const told = JSON.parse(document.getElementById("network-data").textContent);
const nodes = new vis.DataSet(told.nodes), edges = new vis.DataSet(told.edges.map((edge, id) => ({ ...edge, id })));
const network = new vis.Network(document.getElementById("network"), { nodes, edges }, told.options);
const rows = [...document.querySelectorAll("tbody tr")];
function mark(chosen) { rows.forEach((row, at) => row.classList.toggle("chosen", chosen.includes(at))); }
network.on("select", found => mark(found.edges));
rows.forEach((row, at) => row.addEventListener("click", () => { network.setSelection({ nodes: [], edges: [at] }); mark([at]); }));
network.once("stabilizationIterationsDone", () => network.fit({ animation: false }));
network.once("afterDrawing", () => { document.body.dataset.ready = "true"; });
