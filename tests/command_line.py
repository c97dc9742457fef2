"How tests call `fig`: in this process, for its exit code."
from pathlib import Path

from feature_interaction_graph.cli import main

def run(*arguments: str | Path) -> int:
    "Exit code of `fig arguments`."
    try: main([str(part) for part in arguments])
    except SystemExit as leaving: return int(leaving.code or 0)
    return 0
