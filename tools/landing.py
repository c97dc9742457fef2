"""The graph that the first page of the docs shows: `python tools/landing.py GRAPH "TITLE"`.

Of a run's graph the 600 edges with the largest effects in standard deviations, with their ends
and labels, go to nbs/images/landing.h5: small enough to be kept here, and measured."""
import sys
from pathlib import Path

from feature_interaction_graph import load_graph, save_graph

ROOT = Path(__file__).resolve().parent.parent
PLACE, N_EDGES = ROOT / "nbs" / "images" / "landing.h5", 600


def main(file: str, title: str) -> None:
    G = load_graph(file)
    kept = sorted(G.edges(data=True), key=lambda edge: -abs(edge[2]["strength_std"]))[:N_EDGES]
    small = G.edge_subgraph([edge[:2] for edge in kept]).copy()
    small.graph.pop("hyperedges", None)
    small.graph["title"] = title
    # where a model, a text or a run lay on somebody's disk is nothing for readers
    small.graph["config"] = {
        name: Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
        for name, value in G.graph.get("config", {}).items()}
    save_graph(small, PLACE)
    print(f"{small.number_of_edges():,} of {G.number_of_edges():,} edges between "
          f"{small.number_of_nodes():,} features, {PLACE.stat().st_size:,} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 3: sys.exit(__doc__)
    main(*sys.argv[1:])
