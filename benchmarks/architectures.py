"""Every architecture is built small, with random weights, and its rows are compared with plain
hooked forwards.

`python benchmarks/architectures.py` writes `benchmarks/results/architectures.json`: for each
architecture of transformers below, whether rows are branched or exact hooked passes are used (and
why), the largest error relative to the stream, and whether TransformerLens has a bridge for it.
"""
import warnings
from typing import Any

import torch
import transformers
from record import write
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from feature_interaction_graph.engine.branched import BranchedForward
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.engine.hook_points import HookPoint
from feature_interaction_graph.engine.residuals import hooked_forward
from feature_interaction_graph.loading import wrap_model

SIZES: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2
}
GROUPED = {"num_key_value_heads": 2}
HEADS = {"num_key_value_heads": 2, "head_dim": 8}
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2,
           "moe_intermediate_size": 32}
LATENT = {"num_key_value_heads": 4, "q_lora_rank": None, "kv_lora_rank": 16, "qk_rope_head_dim": 4,
          "qk_nope_head_dim": 4, "v_head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2,
          "moe_intermediate_size": 32, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
          "n_shared_experts": 1}
LINEAR = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8,
          "linear_value_head_dim": 8}
# name in the table -> (model type of transformers, settings beyond SIZES)
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {}),
    "gpt_neox": ("gpt_neox", {}),
    "llama": ("llama", GROUPED),
    "qwen3": ("qwen3", HEADS),
    "mistral": ("mistral", {**GROUPED, "sliding_window": 6}),
    "gemma2": ("gemma2", {**HEADS, "sliding_window": 6, "query_pre_attn_scalar": 8}),
    "opt": ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 32}),
    "opt, norms after": ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 32,
                                 "do_layer_norm_before": False}),
    "falcon, one key head": ("falcon", {"new_decoder_architecture": False, "multi_query": True}),
    "falcon, grouped heads": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon, alibi": ("falcon", {"alibi": True, "multi_query": False, "parallel_attn": False}),
    "gptj": ("gptj", {"rotary_dim": 4}),
    "codegen": ("codegen", {"rotary_dim": 4}),
    "gpt_neo": ("gpt_neo", {"attention_types": [[["global", "local"], 2]], "window_size": 6}),
    "bloom": ("bloom", {}),
    "mpt": ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 4, "max_seq_len": 128}),
    "gpt_oss": ("gpt_oss", {**HEADS, **EXPERTS, "sliding_window": 6}),
    "gpt_bigcode": ("gpt_bigcode", {}),
    "starcoder2": ("starcoder2", {**GROUPED, "sliding_window": 6}),
    "phi": ("phi", {}),
    "phi3": ("phi3", {**GROUPED, "sliding_window": 6}),
    "stablelm": ("stablelm", GROUPED),
    "stablelm, parallel": ("stablelm", {**GROUPED, "use_parallel_residual": True}),
    "cohere": ("cohere", GROUPED),
    "cohere2": ("cohere2", {**HEADS, "sliding_window": 6}),
    "olmo": ("olmo", GROUPED),
    "olmo2": ("olmo2", GROUPED),
    "olmo3": ("olmo3", {**GROUPED, "sliding_window": 6}),
    "olmoe": ("olmoe", {**GROUPED, **EXPERTS}),
    "mixtral": ("mixtral", {**GROUPED, **EXPERTS}),
    "qwen2": ("qwen2", GROUPED),
    "qwen2_moe": ("qwen2_moe", {**GROUPED, **EXPERTS, "shared_expert_intermediate_size": 32}),
    "qwen3_moe": ("qwen3_moe", {**HEADS, **EXPERTS}),
    "gemma": ("gemma", HEADS),
    "gemma3": ("gemma3_text", {**HEADS, "sliding_window": 6, "query_pre_attn_scalar": 8}),
    "granite": ("granite", {**GROUPED, "residual_multiplier": 0.3}),
    "granitemoe": ("granitemoe", {**GROUPED, **EXPERTS, "residual_multiplier": 0.3}),
    "glm": ("glm", HEADS),
    "glm4": ("glm4", HEADS),
    "smollm3": ("smollm3", GROUPED),
    "nemotron": ("nemotron", {**HEADS}),
    "persimmon": ("persimmon", {}),
    "arcee": ("arcee", GROUPED),
    "apertus": ("apertus", GROUPED),
    "helium": ("helium", HEADS),
    "exaone4": ("exaone4", {**GROUPED, "sliding_window": 6}),
    "seed_oss": ("seed_oss", HEADS),
    "bitnet": ("bitnet", GROUPED),
    "biogpt": ("biogpt", {}),
    "xglm": ("xglm", {"d_model": 32, "num_layers": 4, "attention_heads": 4, "ffn_dim": 64}),
    "openai-gpt": ("openai-gpt", {}),
    "gpt_neox_japanese": ("gpt_neox_japanese", {}),
    "deepseek_v2": ("deepseek_v2", LATENT),
    "deepseek_v3": ("deepseek_v3", {**LATENT, "q_lora_rank": 16}),
    "minicpm3": ("minicpm3", {**LATENT, "q_lora_rank": 16}),
    "llama4": ("llama4_text", {**HEADS, "intermediate_size_mlp": 64, "num_local_experts": 2,
                               "no_rope_layers": [1, 1, 1, 0], "attention_chunk_size": 8,
                               "interleave_moe_layer_step": 2}),
    "phimoe": ("phimoe", {**GROUPED, **EXPERTS}),
    "minimax": ("minimax", {**HEADS, **EXPERTS}),
    "diffllama": ("diffllama", GROUPED),
    "bamba": ("bamba", {**GROUPED, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8,
                        "attn_layer_indices": [1, 3]}),
    "jamba": ("jamba", {**GROUPED, **EXPERTS, "use_mamba_kernels": False}),
    "mamba": ("mamba", {}),
    "falcon_h1": ("falcon_h1", {**GROUPED, "mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_d_head": 8,
                                "mamba_d_state": 8}),
    "lfm2": ("lfm2", {**GROUPED, "full_attn_idxs": [1, 3]}),
    "recurrent_gemma": ("recurrent_gemma", {**HEADS, "lru_width": 32, "attention_window_size": 6}),
    "doge": ("doge", GROUPED),
    "vaultgemma": ("vaultgemma", {**HEADS, "sliding_window": 6, "query_pre_attn_scalar": 8}),
    "nanochat": ("nanochat", GROUPED),
    "ministral3": ("ministral3", HEADS),
    "qwen3_next": ("qwen3_next", {**HEADS, **EXPERTS, **LINEAR,
                                  "shared_expert_intermediate_size": 32}),
    "rwkv": ("rwkv", {"attention_hidden_size": 32}),
    "gemma4": ("gemma4_text", {**HEADS, "vocab_size_per_layer_input": 97,
                               "hidden_size_per_layer_input": 8}),
    "glm4_moe": ("glm4_moe", {**HEADS, **EXPERTS, "n_routed_experts": 4}),
    "ernie4_5": ("ernie4_5", HEADS),
    "zaya": ("zaya", {}),
}


def random_model(name: str) -> PreTrainedModel:
    """The architecture `name` of the table in miniature, its weights large enough that attention is
    far from uniform."""
    kind, more = ARCHITECTURES[name]
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SIZES, **more})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for parameter in model.parameters():
        # some leave what they would load as it lies in memory
        parameter.data = parameter.data.nan_to_num().clamp(-2, 2)
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return model.eval().requires_grad_(False)


def largest_error(engine: BranchedForward, horizon: int = 3) -> float:
    """Largest difference of rows from plain hooked forwards, relative to the largest number of the
    stream, over sources before and after a block, two targets and all offsets."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(3, 97, (3, 24), generator=generator)
    sequences, positions = torch.tensor([[0, 0, 1, 2, 2, 2], [3, 20, 0, 9, 15, 9]])
    last, worst = engine.n_layers - 1, 0.0
    targets = [HookPoint("resid_post", 2), HookPoint("resid_post", last)]
    for source in (HookPoint("resid_pre", 1), HookPoint("resid_post", 1)):
        clean = engine.record(tokens, starts=[1, 2], last=last)
        stream = clean.streams[1]
        added = 2 * stream.std() * torch.randn(6, stream.shape[-1], generator=generator)
        for rows, fast in engine.run(clean, source, sequences, positions, added, targets, horizon):
            plain = hooked_forward(engine.twin, tokens, source, sequences[rows], positions[rows],
                                   added[rows], targets, horizon)
            for name, read in fast.items():
                error = (read - plain[name]).nan_to_num().abs().max()
                worst = max(worst, float(error / plain[name].nan_to_num().abs().max()))
    return worst


def row_of(name: str) -> dict[str, Any]:
    "What the table says of one architecture."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = random_model(name)
        engine = BranchedForward(model)
        error = largest_error(engine)
        try: wrap_model(model)
        except InputError: bridged = False
        else: bridged = True
    return {"class": type(model).__name__, "branched": engine.branched, "why": engine.why_not,
            "error": error, "bridged": bridged}


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    numbers = {}
    for each in ARCHITECTURES:
        numbers[each] = row_of(each)
        print(each, numbers[each], flush=True)
    write("architectures", {"sizes": SIZES, "architectures": ARCHITECTURES}, numbers)
