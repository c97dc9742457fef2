"""Rows against plain hooked forwards on architectures of every kind, and the table that says so."""
import json
import sys
import warnings
from pathlib import Path

import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig
from sae_lens.saes.sae import SAEMetadata

from feature_interaction_graph import clamp_measure, jacobian_measure
from feature_interaction_graph.engine.branched import BranchedForward
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.engine.hook_points import (
    HookPoint, catch, check_parts, decoder_layers, edit, map_block
)

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
from architectures import ARCHITECTURES, largest_error, random_model, row_of  # noqa: E402

TOKENS = torch.randint(3, 97, (6, 40), generator=torch.Generator().manual_seed(2))
BRANCHED = ["opt", "opt, norms after", "falcon, one key head", "falcon, grouped heads",
            "falcon, alibi", "gptj", "codegen", "gpt_neo", "bloom", "mpt", "gpt_oss", "granite",
            "glm4", "olmo3", "gemma3", "deepseek_v2", "granitemoe"]
HOOKED = ["llama4", "bamba", "mamba", "diffllama", "doge", "openai-gpt", "zaya"]


def sae(layer: int) -> StandardSAE:
    "An SAE of random directions after block `layer`."
    torch.manual_seed(layer)
    metadata = SAEMetadata(hook_name=f"blocks.{layer}.hook_resid_post")
    made = StandardSAE(StandardSAEConfig(d_in=32, d_sae=48, metadata=metadata))
    made.W_dec.data = torch.nn.functional.normalize(torch.randn(48, 32), dim=-1)
    made.W_enc.data = made.W_dec.data.T.contiguous()
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize("name", BRANCHED)
def test_rows_equal_a_plain_hooked_forward(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        engine = BranchedForward(random_model(name))
    assert engine.branched and largest_error(engine) <= 1e-4


@pytest.mark.parametrize("name", HOOKED)
def test_what_cannot_be_branched_is_measured_by_hooked_passes(name: str) -> None:
    with pytest.warns(UserWarning, match="exact hooked forward passes are used instead"):
        engine = BranchedForward(random_model(name))
    assert not engine.branched and engine.why_not and largest_error(engine) <= 1e-5


@pytest.mark.parametrize("name", ["deepseek_v2", "llama4", "bamba", "bloom", "gpt_oss"])
@pytest.mark.filterwarnings("ignore:.*cannot be branched")
def test_clamps_and_slopes_come_out_of_every_kind(name: str) -> None:
    model, saes = random_model(name), {0: sae(0), 2: sae(2)}
    asked = (model, saes, [(0, 3)], TOKENS)
    clamped = clamp_measure(*asked, n_samples=6, progress=False).columns
    assert len(clamped["strength"]) == 48
    forward = jacobian_measure(*asked, n_samples=6, mode="forward", progress=False).columns
    along = jacobian_measure(*asked, n_samples=6, mode="forward", steps=8, progress=False).columns
    size = abs(clamped["pre_strength"]).max()
    # where no expert is switched on the way, the mean slope along it is the clamped effect
    if name in ("bloom", "bamba"):
        assert abs(along["pre_strength"] - clamped["pre_strength"]).max() < 0.02 * size
    if BranchedForward(model).branched:
        reverse = jacobian_measure(*asked, n_samples=6, mode="reverse", progress=False).columns
        assert abs(forward["pre_strength"] - reverse["pre_strength"]).max() < 1e-4 * size


def test_a_part_without_a_derivative_is_said_in_a_sentence() -> None:
    model, saes = random_model("recurrent_gemma"), {0: sae(0), 2: sae(2)}
    with pytest.raises(InputError, match="has no forward derivative .* clamp_measure"), \
            pytest.warns(UserWarning, match="cannot be branched"):
        jacobian_measure(model, saes, [(0, 3)], TOKENS, n_samples=6, progress=False)


@pytest.mark.parametrize("name", ["granite", "granitemoe", "glm4", "olmo2", "bloom", "opt", "mpt",
                                  "falcon, one key head", "falcon, alibi", "gpt_neo", "gptj"])
def test_parts_of_a_block_are_what_is_added(name: str) -> None:
    model, tokens = random_model(name), TOKENS[:, :12]
    layers = decoder_layers(model)
    points = [HookPoint(kind, 1) for kind in ("resid_pre", "attn_out", "mlp_out", "resid_post")]
    check_parts(model, points)
    with catch(layers, points) as caught: model(tokens)
    before, attention, mlp, after = (caught[point.name] for point in points)
    torch.testing.assert_close(before + attention + mlp, after, atol=1e-5, rtol=1e-5)
    # what attention adds is seen by the MLP unless they run side by side
    push = torch.randn(32, generator=torch.Generator().manual_seed(3))
    with (edit(layers, HookPoint("attn_out", 1), lambda stream: stream + push),
          catch(layers, points) as pushed): model(tokens)
    same = torch.allclose(pushed[points[2].name], mlp, atol=1e-5)
    assert same == map_block(layers[1]).parallel


@pytest.mark.parametrize("name", ["opt, norms after", "minimax", "falcon_h1"])
def test_parts_that_do_not_sum_to_the_stream_are_refused(name: str) -> None:
    model = random_model(name)
    with pytest.raises(InputError, match="is not the stream before it plus what attention and MLP"):
        check_parts(model, [HookPoint("mlp_out", 1)])
    check_parts(model, [HookPoint("resid_post", 1)])


def test_dropout_changes_nothing_and_the_mode_is_given_back() -> None:
    model, saes = random_model("gpt2"), {0: sae(0), 2: sae(2)}
    def strengths() -> torch.Tensor:
        table = clamp_measure(model, saes, [(0, 3)], TOKENS, n_samples=6, progress=False)
        return torch.as_tensor(table.columns["strength"])
    true = strengths()
    model.train()
    model.transformer.h[1].eval()
    assert torch.equal(strengths(), true) and torch.equal(strengths(), true)
    assert model.training and not model.transformer.h[1].training


def test_the_table_is_of_today() -> None:
    table = json.loads((ROOT / "benchmarks/results/architectures.json").read_text())
    assert list(table["numbers"]) == list(ARCHITECTURES)
    stored = {name: (kind, more) for name, (kind, more)
              in table["settings"]["architectures"].items()}
    assert stored == ARCHITECTURES
    assert sum(row["branched"] for row in table["numbers"].values()) >= 55
    for name, row in table["numbers"].items():
        assert row["error"] <= 1e-4 and row["branched"] == (row["why"] == ""), name
    for name in ("bloom", "doge"):
        now, then = row_of(name), table["numbers"][name]
        assert now.pop("error") <= 1e-4
        assert now.items() <= then.items()
