"""What it costs to keep a large graph in a file: bytes, seconds and memory of every format.

`python benchmarks/graph_files.py` makes a graph of 20,000 features with as many edges as asked,
each with the attributes that `build_interaction_graph` gives, writes it and reads it back in every
format, and in the same run writes and reads GraphML and JSON as the package did before it streamed
(the whole document as a tree or a text). Seconds are those of the processor. Memory is the peak of
the process above the graph itself: above what it holds before writing, above what it holds after
reading. Every reading is a process of its own; what is read must be the graph that was written.
"""

import argparse
import contextlib
import ctypes
import gc
import json
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from record import write

from feature_interaction_graph.graphs.files import check_interaction_graph, load_graph, save_graph
from feature_interaction_graph.graphs.graphml import graphml_kind, graphml_text, reader_of
from feature_interaction_graph.graphs.values import plain_edges, plain_nodes, to_strict_json

FEATURES, LAYERS, BEFORE = 20_000, 10, 100_000      # a tree of 300,000 edges takes 5 GB
NUMBERS = ("strength", "strength_std", "pre_strength", "p_value", "q_value", "ci_lower", "ci_upper",
           "std_strength", "variance", "share_nonzero", "share_same_sign", "median", "pre_p_value",
           "placebo_p_value", "placebo_q_value", "silent_p_value", "resolution", "gating_score")


def large_graph(n_edges: int) -> nx.DiGraph:
    "Features of ten layers; every edge goes to a later one."
    rng, per = np.random.default_rng(0), FEATURES // LAYERS
    G = nx.DiGraph(config={"seed": 0, "n_tokens": 10**6}, counts={"attempted": n_edges})
    for k in range(FEATURES):
        G.add_node(f"L{k // per}_F{k % per}", layer=k // per, feature_idx=k % per,
                   label=f"words about {k % 977}", importance=float(rng.random()),
                   activation_freq=float(rng.random()))
    names = list(G)
    while G.number_of_edges() < n_edges:
        n = min(2**15, n_edges - G.number_of_edges())
        ends = np.sort(rng.integers(0, FEATURES, (n, 2)), axis=1)
        values = rng.normal(size=(n, len(NUMBERS))).tolist()
        samples = rng.integers(8, 400, n).tolist()
        G.add_edges_from(
            (names[a], names[b],
             {"interaction_type": "excitatory" if row[0] > 0 else "inhibitory",
              **dict(zip(NUMBERS, row, strict=True)), "n_samples": count, "method": "clamping",
              "offset": 0, "abs_strength": abs(row[0]), "n_offsets": 1, "other_offsets": ""})
            for (a, b), row, count in zip(ends.tolist(), values, samples, strict=True)
            if a // per != b // per)
    return G


# ---- as it was done before

def tree_written(G: nx.DiGraph, path: Path) -> None:
    "GraphML as one tree of elements and one text."
    copy = nx.DiGraph(**G.graph)
    copy.add_nodes_from(plain_nodes(G))
    copy.add_edges_from(plain_edges(G))
    root = ElementTree.Element("graphml", xmlns="http://graphml.graphdrawing.org/xmlns")
    keys: dict[tuple[str, str, str], str] = {}
    def data(parent: ElementTree.Element, attributes: dict[str, Any]) -> None:
        for name, value in attributes.items():
            key = keys.setdefault((parent.tag, name, graphml_kind(value)), f"d{len(keys)}")
            ElementTree.SubElement(parent, "data", key=key).text = graphml_text(value)
    graph = ElementTree.Element("graph", edgedefault="directed")
    data(graph, {"fig_format": "feature-interaction-graph 1 graph", **copy.graph})
    for node, attributes in copy.nodes(data=True):
        data(ElementTree.SubElement(graph, "node", id=node), attributes)
    for source, target, attributes in copy.edges(data=True):
        data(ElementTree.SubElement(graph, "edge", source=source, target=target), attributes)
    for (scope, name, kind), key in keys.items():
        ElementTree.SubElement(
            root, "key", {"id": key, "for": scope, "attr.name": name, "attr.type": kind})
    root.append(graph)
    path.write_bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def tree_read(path: Path) -> nx.DiGraph:
    "GraphML by way of the tree of the whole document."
    root = ElementTree.fromstring(path.read_bytes())
    readers = {key.attrib["id"]: (key.attrib["attr.name"], reader_of(key.attrib["attr.type"]))
               for key in root.iterfind("{*}key")}
    def attributes(element: ElementTree.Element) -> dict[str, Any]:
        return {name: read(data.text or "") for data in element.iterfind("{*}data")
                for name, read in [readers[data.attrib["key"]]]}
    graph = root.find("{*}graph")
    assert graph is not None
    nodes = [(node.attrib["id"], attributes(node)) for node in graph.iterfind("{*}node")]
    edges = [(edge.attrib["source"], edge.attrib["target"], attributes(edge))
             for edge in graph.iterfind("{*}edge")]
    G = nx.DiGraph()
    G.add_nodes_from(nodes)
    G.add_edges_from(edges)
    return check_interaction_graph(G)


def text_written(G: nx.DiGraph, path: Path) -> None:
    "JSON as one text."
    copy = nx.DiGraph(**G.graph)
    copy.add_nodes_from(plain_nodes(G))
    copy.add_edges_from(plain_edges(G))
    rows = [[{"id": node, **facts} for node, facts in copy.nodes(data=True)],
            [{"source": a, "target": b, **facts} for a, b, facts in copy.edges(data=True)]]
    nodes, edges = (",\n".join(json.dumps(to_strict_json(row), allow_nan=False) for row in each)
                    for each in rows)
    path.write_bytes((f'{{"graph": {json.dumps(copy.graph)}, "nodes": [\n{nodes}], '
                      f'"edges": [\n{edges}]}}').encode("ascii"))


def text_read(path: Path) -> nx.DiGraph:
    "JSON parsed whole."
    data = json.loads(path.read_text())
    G = nx.DiGraph(**data["graph"])
    G.add_nodes_from((node.pop("id"), node) for node in data["nodes"])
    G.add_edges_from((edge.pop("source"), edge.pop("target"), edge) for edge in data["edges"])
    return check_interaction_graph(G)


# name: suffix, writer, reader
WAYS: dict[str, tuple[str, Callable[[nx.DiGraph, Path], Any], Callable[[Path], nx.DiGraph]]] = {
    "columns": ("h5", save_graph, load_graph), "json": ("json", save_graph, load_graph),
    "graphml": ("graphml", save_graph, load_graph),
    "pickle": ("pkl", save_graph, lambda path: load_graph(path, allow_pickle=True)),
    "json_before": ("json", text_written, text_read),
    "graphml_before": ("graphml", tree_written, tree_read),
}


# ---- measuring

def status(name: str) -> int:
    "Bytes that Linux counts for this process: `VmRSS` now, `VmHWM` at most."
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def settled() -> int:
    "Bytes of this process when everything that is free was given back."
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return status("VmRSS")


@contextlib.contextmanager
def measured(into: dict[str, float], which: str) -> Iterator[None]:
    "Processor seconds, and the peak above the larger of what there is before and after."
    before = settled()
    Path("/proc/self/clear_refs").write_text("5")        # the peak starts anew
    start = time.process_time()
    yield
    into[f"{which}_seconds"] = round(time.process_time() - start, 2)
    peak = status("VmHWM")
    held = settled()
    into[f"{which}_peak_mb_above_graph"] = round((peak - max(before, held)) / 1e6, 1)
    if which == "read": into["graph_mb_in_memory"] = round((held - before) / 1e6, 1)


def fingerprint(G: nx.DiGraph) -> list[Any]:
    "Sizes and a sum that depends on every edge and its order."
    total = sum((k % 97) * data["strength"] for k, (*_, data) in enumerate(G.edges(data=True)))
    return [len(G), G.number_of_edges(), total, sum(map(len, (d for *_, d in G.edges(data=True))))]


def read_alone(name: str, path: Path) -> None:
    "Reads one file and prints what it took."
    found: dict[str, Any] = {}
    with measured(found, "read"): G = WAYS[name][2](path)
    print(json.dumps({**found, "fingerprint": fingerprint(G)}))


def of_size(n_edges: int) -> dict[str, Any]:
    "Every way with a graph of that many edges; as before only up to `BEFORE`."
    G, numbers = large_graph(n_edges), {}                # type: nx.DiGraph, dict[str, Any]
    ways = {name: way for name, way in WAYS.items()
            if n_edges <= BEFORE or not name.endswith("before")}
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.{way[0]}" for name, way in ways.items()}
        for name, (_, writer, _) in ways.items():
            found = numbers[name] = {}
            with measured(found, "write"): writer(G, paths[name])
            found["bytes"] = paths[name].stat().st_size
            found["bytes_per_edge"] = round(found["bytes"] / n_edges)
        before = fingerprint(G)
        del G
        for name, found in numbers.items():
            done = subprocess.run([sys.executable, __file__, "--read", name, str(paths[name])],
                                  text=True, capture_output=True, check=True)
            found |= json.loads(done.stdout)
            assert found.pop("fingerprint") == before, name
            print(name, found, flush=True)
    for name in ("json", "graphml") if n_edges <= BEFORE else ():
        old, new = numbers[f"{name}_before"], numbers[name]
        numbers[name]["before_over_now"] = {
            key: round(old[key] / new[key], 2) for key in ("write_seconds", "read_seconds")}
    return numbers


def main() -> None:
    "Measures every way and writes the numbers."
    asked = argparse.ArgumentParser()
    asked.add_argument("--edges", type=int, nargs="+", default=[100_000])
    asked.add_argument("--read", nargs=2, help=argparse.SUPPRESS)
    options = asked.parse_args()
    if options.read is not None: return read_alone(options.read[0], Path(options.read[1]))
    done: dict[str, Any] = {}
    for n_edges in options.edges:
        done[f"{n_edges} edges"] = of_size(n_edges)
        write("graph_files", {"features": FEATURES, "attributes_per_edge": len(NUMBERS) + 7,
                              "before_measured_up_to_edges": BEFORE}, done)


if __name__ == "__main__": main()
