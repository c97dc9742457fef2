"""Edges split by heads and scores split by features, on architectures of every kind."""
import numpy as np
import pytest
from coordinate_saes import TOKENS, coordinates, random_model

from feature_interaction_graph import attribute
from feature_interaction_graph.tracing.frozen import FrozenModel
from feature_interaction_graph.tracing.head_loadings import head_loadings
from feature_interaction_graph.tracing.query_key import query_key


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "gptj", "falcon, alibi", "olmo3"])
def test_loadings_add_up_over_two_blocks_and_to_the_logits(name: str) -> None:
    model = random_model(name)
    saes = {0: coordinates("blocks.0.hook_resid_post"), 1: coordinates("blocks.2.hook_resid_post")}
    graph = attribute(model, saes, TOKENS, targets=[5, 7], max_features=40)
    found = head_loadings(model, saes, graph)
    size = np.abs(found.parts).sum(1)
    assert np.abs(found.gap).max() < 1e-4 * size.max() and len(found.edge) == graph.edges.nnz
    used = np.abs(found.heads).sum((0, 2)) > 0
    assert used.tolist() == [False, True, True, True] or used.all()


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt_neox", "gptj", "mistral", "gpt2"])
def test_pairs_add_up_to_the_scores_behind_the_pattern(name: str) -> None:
    "A softmax keeps differences of scores: logarithms of weights of the model's own pattern."
    model = random_model(name)
    for saes in ({1: coordinates("blocks.1.hook_resid_post")},
                 {1: coordinates("blocks.0.hook_resid_post")}):
        pattern = FrozenModel(model, saes, TOKENS).patterns[2]
        one, other = (query_key(model, saes, TOKENS, (2, 3), 8, key) for key in (5, 7))
        wanted = float((pattern[3, 8, 7] / pattern[3, 8, 5]).log())
        assert abs(other.pairs.sum() - one.pairs.sum() - wanted) < 2e-4 * max(1, abs(one.score))
        assert {"feature", "error", "bias"} <= set(one.by_kind().index)
