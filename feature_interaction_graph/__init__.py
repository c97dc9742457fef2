"""Causal interaction graphs between sparse-autoencoder features of transformers.

The names of the pipeline are importable from here; each is looked up in its module on first use, so that
`import feature_interaction_graph` itself loads neither torch nor any model library.
"""
__version__ = "0.1.0"

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .activations import ActivationStore, collect_activations
    from .candidates import Candidates, identify_candidates
    from .coactivation import CoactivationAtlas, build_coactivation_atlas
    from .config import Config
    from .engine.corpus import Corpus
    from .engine.errors import InputError
    from .features import FeatureTable, feature_table
    from .graph import build_interaction_graph, load_graph, save_graph
    from .interactions import InteractionTable, clamp_measure, measure_interactions
    from .loading import load_corpus, load_model_and_saes, wrap_model
    from .visualization import render_interactive_graph

_MODULE_OF = {
    "Config": "config",
    "Corpus": "engine.corpus",
    "InputError": "engine.errors",
    "load_model_and_saes": "loading",
    "load_corpus": "loading",
    "wrap_model": "loading",
    "ActivationStore": "activations",
    "collect_activations": "activations",
    "FeatureTable": "features",
    "feature_table": "features",
    "CoactivationAtlas": "coactivation",
    "build_coactivation_atlas": "coactivation",
    "Candidates": "candidates",
    "identify_candidates": "candidates",
    "InteractionTable": "interactions",
    "clamp_measure": "interactions",
    "measure_interactions": "interactions",
    "build_interaction_graph": "graph",
    "load_graph": "graph",
    "save_graph": "graph",
    "render_interactive_graph": "visualization",
}

__all__ = [  # noqa: F822  resolved by __getattr__
    "ActivationStore", "Candidates", "CoactivationAtlas", "Config", "Corpus", "FeatureTable", "InputError",
    "InteractionTable", "build_coactivation_atlas", "build_interaction_graph", "clamp_measure", "collect_activations",
    "feature_table", "identify_candidates", "load_corpus", "load_graph", "load_model_and_saes", "measure_interactions",
    "render_interactive_graph", "save_graph", "wrap_model",
]


def __getattr__(name: str) -> Any:
    "Import the module that defines `name` on first use (PEP 562) and remember the object."
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
