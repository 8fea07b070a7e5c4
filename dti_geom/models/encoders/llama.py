"""Llama and the causal language models built like it."""

from dti_geom.models.encoders.base import Architecture, BranchPath

ARCHITECTURE = Architecture(
    name="Llama-like causal LM",
    model_types=(
        "llama",
        "qwen2",
        "qwen3",
        "mistral",
        "gemma",
        "qwen2_5_vl_text",
        "qwen3_vl_text",
    ),
    module_class="AutoModel",
    token_table=("embed_tokens.weight",),
    position_table=(),
    positions="rotary",
    speaks=True,
    normalization="rms_norm",
    blocks="layers",
    branches=(
        BranchPath("attention", "input_layernorm", "self_attn"),
        BranchPath("mlp", "post_attention_layernorm", "mlp"),
    ),
)
