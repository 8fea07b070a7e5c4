"""Gemma-2: SANA. Each update is normalised before and after."""

from dti_geom.models.encoders.base import Architecture, BranchPath

ARCHITECTURE = Architecture(
    name="Gemma-2",
    model_types=("gemma2",),
    module_class="Gemma2Model",
    token_table=("embed_tokens.weight",),
    position_table=(),
    positions="rotary",
    speaks=True,
    normalization="rms_norm",
    blocks="layers",
    branches=(
        BranchPath("attention", "input_layernorm", "self_attn", "post_attention_layernorm"),
        BranchPath("mlp", "pre_feedforward_layernorm", "mlp", "post_feedforward_layernorm"),
    ),
)
