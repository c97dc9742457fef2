"""Causal interaction graphs between sparse-autoencoder features of transformers.

The names of the pipeline are importable from here; each is looked up in its module on first use, so that
`import feature_interaction_graph` itself loads neither torch nor any model library.
"""
__version__ = "0.1.0"

import importlib
import importlib.abc
import importlib.util
import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .activations import ActivationStore, collect_activations
    from .analysis import (
        GraphStatistics,
        cluster_roles,
        compare_graphs,
        compute_graph_statistics,
        count_motifs,
        detect_communities,
        find_hubs,
        get_edge_type_subgraph,
        layer_distance_decay,
        match_features,
        plot_analysis,
    )
    from .candidates import Candidates, identify_candidates, join_candidates, propose_candidates, transport_candidates
    from .circuits.behaviors import Behavior
    from .circuits.library import predefined_behavior
    from .coactivation import CoactivationAtlas, build_coactivation_atlas
    from .config import Config
    from .control.context_effects import clamped_contexts, fit_context_effects
    from .dictionary.label_counts import label_counts
    from .dictionary.local_models import read_local_model
    from .dictionary.neighbours import feature_neighbours
    from .dictionary.neuronpedia import fetch_labels
    from .dictionary.output_effects import output_effects
    from .dictionary.predicates import predicates_of
    from .dictionary.rule_tests import check_by_clamp, check_by_edit
    from .dictionary.rules import explain_features
    from .dictionary.samples import sampled_examples
    from .dictionary.token_patterns import token_patterns
    from .digits.system import digit_system
    from .drawing.dashboards import render_dashboards
    from .drawing.feature_cards import CardOptions, feature_cards
    from .drawing.figures import figure_numbers
    from .drawing.neighborhood_page import pyvis_neighborhood
    from .drawing.paper import plot_adjacency, plot_cascade_scatter, plot_stability, plot_truth_tables
    from .engine.corpus import Corpus, as_corpus
    from .engine.encoders import number_saes
    from .engine.errors import InputError
    from .engine.transport import TransportScores, transport_scores
    from .evidence.facts import Findings, findings_of
    from .evidence.measured import measure_findings
    from .features import FeatureTable, feature_table, top_examples
    from .graph import build_interaction_graph, get_subgraph, graph_summary, load_graph, save_graph
    from .hosts.importers import import_sae
    from .hosts.own_saes import sae_from_weights
    from .interactions import InteractionTable, clamp_measure, measure_interactions, read_responses
    from .lenses.activation_comparison import compare_activations, plot_activation_comparison
    from .lenses.attention import attention_patterns
    from .lenses.attention_flow import attention_flow, plot_attention_flow
    from .lenses.circuit_figure import plot_edge_circuit
    from .lenses.head_scores import head_scores
    from .lenses.knockout import knock_out
    from .lenses.logit_attribution import logit_attribution
    from .lenses.logit_lens import logit_lens
    from .lenses.probes import probe_layers
    from .lenses.projections import project
    from .loading import load_corpus, load_model_and_saes, wrap_model
    from .measurement.curves import ResponseCurves, plot_response, response_curve
    from .measurement.directions import Direction, with_directions
    from .measurement.gating import GatingTable, measure_gating, pairs_to_gate
    from .measurement.jacobian import jacobian_measure
    from .measurement.mechanisms import MechanismTable, mechanism_split, plot_mechanisms, within_layer_measure
    from .measurement.parts import head_dictionary, neuron_dictionary
    from .patching.ablations import ablate_components
    from .patching.activation import activation_patching
    from .patching.attribution import attribute_attention, attribute_components
    from .patching.discovery import discover
    from .patching.node_circuit import discover_nodes
    from .patching.pairs import PromptPairs
    from .patching.paths import path_patching
    from .steering import Clamp, compare_steering, plot_cascade, predict_cascade, steer, steer_compensated
    from .subgraphs import extract_behavior_subgraph, validate_subgraph
    from .tracking.track import track
    from .tracing.checks import check_edges
    from .tracing.corpus_heads import corpus_head_loadings, corpus_query_key
    from .tracing.explained import explain_edges
    from .tracing.files import load_attribution, save_attribution
    from .tracing.graph import AttributionGraph, attribute
    from .tracing.head_contrast import head_contrast
    from .tracing.head_loadings import head_loadings
    from .tracing.pruning import prune_graph
    from .tracing.query_key import query_key
    from .tracking.results import benchmark_result
    from .training.binary import binary_code
    from .training.report import activation_report
    from .training.saes import read_sae
    from .training.seeds import train_seeds
    from .training.streams import calibrate_sparsity, train_on_rows
    from .training.thresholds import calibrate_thresholds
    from .training.transcoders import train_transcoder, train_transcoders, transcoder_quality
    from .vision.adapters import load_vit, save_vit, vit_from_clip, vit_from_folder, vit_from_huggingface
    from .vision.attribution import attribution_maps
    from .vision.cases import save_cases
    from .vision.comparison import compare_configurations
    from .vision.faithfulness import faithfulness
    from .vision.gate import Gate, gated_transmm
    from .vision.images import ImageSet, images_from_folder, images_from_npz
    from .vision.patch_graph import PatchQuestion, measure_patch_graph
    from .vision.patch_rules import check_classes, explain_patches
    from .vision.saes import train_patch_saes
    from .visualization import explore, plot_circuit, plot_neighborhood, render_explorer, render_interactive_graph, render_neighborhood

_MODULE_OF = {
    "explain_patches": "vision.patch_rules",
    "check_classes": "vision.patch_rules",
    "read_local_model": "dictionary.local_models",
    "plot_truth_tables": "drawing.paper",
    "plot_stability": "drawing.paper",
    "plot_cascade_scatter": "drawing.paper",
    "plot_adjacency": "drawing.paper",
    "pyvis_neighborhood": "drawing.neighborhood_page",
    "figure_numbers": "drawing.figures",
    "train_seeds": "training.seeds",
    "transcoder_quality": "training.transcoders",
    "train_transcoders": "training.transcoders",
    "train_transcoder": "training.transcoders",
    "plot_attention_flow": "lenses.attention_flow",
    "attention_flow": "lenses.attention_flow",
    "plot_activation_comparison": "lenses.activation_comparison",
    "compare_activations": "lenses.activation_comparison",
    "plot_edge_circuit": "lenses.circuit_figure",
    "discover_nodes": "patching.node_circuit",
    "head_contrast": "tracing.head_contrast",
    "findings_of": "evidence.facts",
    "Findings": "evidence.facts",
    "measure_findings": "evidence.measured",
    "render_dashboards": "drawing.dashboards",
    "feature_cards": "drawing.feature_cards",
    "CardOptions": "drawing.feature_cards",
    "output_effects": "dictionary.output_effects",
    "sampled_examples": "dictionary.samples",
    "label_counts": "dictionary.label_counts",
    "token_patterns": "dictionary.token_patterns",
    "feature_neighbours": "dictionary.neighbours",
    "read_sae": "training.saes",
    "fetch_labels": "dictionary.neuronpedia",
    "benchmark_result": "tracking.results",
    "save_cases": "vision.cases",
    "load_vit": "vision.adapters",
    "save_vit": "vision.adapters",
    "measure_patch_graph": "vision.patch_graph",
    "PatchQuestion": "vision.patch_graph",
    "compare_configurations": "vision.comparison",
    "faithfulness": "vision.faithfulness",
    "gated_transmm": "vision.gate",
    "Gate": "vision.gate",
    "attribution_maps": "vision.attribution",
    "train_patch_saes": "vision.saes",
    "vit_from_huggingface": "vision.adapters",
    "vit_from_folder": "vision.adapters",
    "vit_from_clip": "vision.adapters",
    "images_from_npz": "vision.images",
    "images_from_folder": "vision.images",
    "ImageSet": "vision.images",
    "check_by_edit": "dictionary.rule_tests",
    "check_by_clamp": "dictionary.rule_tests",
    "explain_features": "dictionary.rules",
    "predicates_of": "dictionary.predicates",
    "render_explorer": "visualization",
    "explore": "visualization",
    "ActivationStore": "activations",
    "collect_activations": "activations",
    "GraphStatistics": "analysis",
    "cluster_roles": "analysis",
    "compare_graphs": "analysis",
    "compute_graph_statistics": "analysis",
    "count_motifs": "analysis",
    "detect_communities": "analysis",
    "find_hubs": "analysis",
    "get_edge_type_subgraph": "analysis",
    "layer_distance_decay": "analysis",
    "match_features": "analysis",
    "plot_analysis": "analysis",
    "predefined_behavior": "circuits.library",
    "Behavior": "circuits.behaviors",
    "Candidates": "candidates",
    "identify_candidates": "candidates",
    "join_candidates": "candidates",
    "propose_candidates": "candidates",
    "transport_candidates": "candidates",
    "plot_circuit": "visualization",
    "CoactivationAtlas": "coactivation",
    "build_coactivation_atlas": "coactivation",
    "Config": "config",
    "clamped_contexts": "control.context_effects",
    "fit_context_effects": "control.context_effects",
    "Direction": "measurement.directions",
    "with_directions": "measurement.directions",
    "digit_system": "digits.system",
    "Corpus": "engine.corpus",
    "as_corpus": "engine.corpus",
    "number_saes": "engine.encoders",
    "InputError": "engine.errors",
    "import_sae": "hosts.importers",
    "sae_from_weights": "hosts.own_saes",
    "TransportScores": "engine.transport",
    "transport_scores": "engine.transport",
    "FeatureTable": "features",
    "feature_table": "features",
    "top_examples": "features",
    "GatingTable": "measurement.gating",
    "measure_gating": "measurement.gating",
    "pairs_to_gate": "measurement.gating",
    "build_interaction_graph": "graph",
    "get_subgraph": "graph",
    "graph_summary": "graph",
    "load_graph": "graph",
    "save_graph": "graph",
    "InteractionTable": "interactions",
    "clamp_measure": "interactions",
    "measure_interactions": "interactions",
    "read_responses": "interactions",
    "jacobian_measure": "measurement.jacobian",
    "attention_patterns": "lenses.attention",
    "head_scores": "lenses.head_scores",
    "knock_out": "lenses.knockout",
    "logit_attribution": "lenses.logit_attribution",
    "logit_lens": "lenses.logit_lens",
    "probe_layers": "lenses.probes",
    "project": "lenses.projections",
    "track": "tracking.track",
    "load_corpus": "loading",
    "load_model_and_saes": "loading",
    "wrap_model": "loading",
    "head_dictionary": "measurement.parts",
    "neuron_dictionary": "measurement.parts",
    "MechanismTable": "measurement.mechanisms",
    "PromptPairs": "patching.pairs",
    "ablate_components": "patching.ablations",
    "activation_patching": "patching.activation",
    "attribute_attention": "patching.attribution",
    "attribute_components": "patching.attribution",
    "discover": "patching.discovery",
    "path_patching": "patching.paths",
    "mechanism_split": "measurement.mechanisms",
    "plot_mechanisms": "measurement.mechanisms",
    "within_layer_measure": "measurement.mechanisms",
    "ResponseCurves": "measurement.curves",
    "plot_response": "measurement.curves",
    "response_curve": "measurement.curves",
    "Clamp": "steering",
    "steer": "steering",
    "steer_compensated": "steering",
    "compare_steering": "steering",
    "plot_cascade": "steering",
    "predict_cascade": "steering",
    "extract_behavior_subgraph": "subgraphs",
    "validate_subgraph": "subgraphs",
    "check_edges": "tracing.checks",
    "corpus_head_loadings": "tracing.corpus_heads",
    "corpus_query_key": "tracing.corpus_heads",
    "explain_edges": "tracing.explained",
    "load_attribution": "tracing.files",
    "save_attribution": "tracing.files",
    "AttributionGraph": "tracing.graph",
    "attribute": "tracing.graph",
    "head_loadings": "tracing.head_loadings",
    "prune_graph": "tracing.pruning",
    "query_key": "tracing.query_key",
    "binary_code": "training.binary",
    "activation_report": "training.report",
    "calibrate_sparsity": "training.streams",
    "train_on_rows": "training.streams",
    "calibrate_thresholds": "training.thresholds",
    "plot_neighborhood": "visualization",
    "render_interactive_graph": "visualization",
    "render_neighborhood": "visualization",
}

__all__ = [  # noqa: F822  resolved by __getattr__
    "ActivationStore", "AttributionGraph", "Behavior", "Candidates", "CardOptions", "Clamp",
    "CoactivationAtlas", "Config", "Corpus", "Direction", "FeatureTable", "Findings", "Gate", "GatingTable",
    "GraphStatistics", "ImageSet", "InputError", "InteractionTable", "MechanismTable", "PatchQuestion",
    "PromptPairs", "ResponseCurves", "TransportScores", "ablate_components", "activation_patching",
    "activation_report", "as_corpus", "attention_flow", "attention_patterns", "attribute",
    "attribute_attention", "attribute_components", "attribution_maps", "benchmark_result", "binary_code",
    "build_coactivation_atlas", "build_interaction_graph", "calibrate_sparsity", "calibrate_thresholds",
    "check_by_clamp", "check_by_edit", "check_classes", "check_edges", "clamp_measure", "clamped_contexts",
    "cluster_roles", "collect_activations", "compare_activations", "compare_configurations", "compare_graphs",
    "compare_steering", "compute_graph_statistics", "corpus_head_loadings", "corpus_query_key", "count_motifs",
    "detect_communities", "digit_system", "discover", "discover_nodes", "explain_edges", "explain_features",
    "explain_patches", "explore", "extract_behavior_subgraph", "faithfulness", "feature_cards",
    "feature_neighbours", "feature_table", "fetch_labels", "figure_numbers", "find_hubs", "findings_of",
    "fit_context_effects", "gated_transmm", "get_edge_type_subgraph", "get_subgraph", "graph_summary",
    "head_contrast", "head_dictionary", "head_loadings", "head_scores", "identify_candidates",
    "images_from_folder", "images_from_npz", "import_sae", "jacobian_measure", "join_candidates", "knock_out",
    "label_counts", "layer_distance_decay", "load_attribution", "load_corpus", "load_graph",
    "load_model_and_saes", "load_vit", "logit_attribution", "logit_lens", "match_features", "measure_findings",
    "measure_gating", "measure_interactions", "measure_patch_graph", "mechanism_split", "neuron_dictionary",
    "number_saes", "output_effects", "pairs_to_gate", "path_patching", "plot_activation_comparison",
    "plot_adjacency", "plot_analysis", "plot_attention_flow", "plot_cascade", "plot_cascade_scatter",
    "plot_circuit", "plot_edge_circuit", "plot_mechanisms", "plot_neighborhood", "plot_response",
    "plot_stability", "plot_truth_tables", "predefined_behavior", "predicates_of", "predict_cascade",
    "probe_layers", "project", "propose_candidates", "prune_graph", "pyvis_neighborhood", "query_key",
    "read_local_model", "read_responses", "read_sae", "render_dashboards", "render_explorer",
    "render_interactive_graph", "render_neighborhood", "response_curve", "sae_from_weights", "sampled_examples",
    "save_attribution", "save_cases", "save_graph", "save_vit", "steer", "steer_compensated", "token_patterns",
    "top_examples", "track", "train_on_rows", "train_patch_saes", "train_seeds", "train_transcoder",
    "train_transcoders", "transcoder_quality", "transport_candidates", "transport_scores", "validate_subgraph",
    "vit_from_clip", "vit_from_folder", "vit_from_huggingface", "with_directions", "within_layer_measure",
    "wrap_model",
]


# Modules that a documented page imported from under another name, and where they are now.
_MOVED = {"steering_comparison": "steering"}


class _Moved(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    "Finds a module under the name it had before it moved, and says where it is now."

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        package, _, old = name.rpartition(".")
        known = package == __name__ and old in _MOVED
        return importlib.util.spec_from_loader(name, self) if known else None

    def exec_module(self, module: Any) -> None:
        new = f"{__name__}.{_MOVED[module.__name__.rpartition('.')[2]]}"
        warnings.warn(f"{module.__name__} is now {new}", DeprecationWarning, stacklevel=2)
        found = vars(importlib.import_module(new))
        module.__dict__.update({name: value for name, value in found.items()
                                if not name.startswith("__") or name == "__all__"})


if not any(type(finder).__name__ == "_Moved" for finder in sys.meta_path):
    sys.meta_path.append(_Moved())


def __getattr__(name: str) -> Any:
    "Import the module that defines `name` on first use (PEP 562) and remember the object."
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
