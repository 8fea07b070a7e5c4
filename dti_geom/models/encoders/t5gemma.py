"""The encoder of T5Gemma: Gemma-2's blocks, in which each token sees those behind it too.

Published files hold a decoder as well, which is left out.
"""

from dti_geom.models.encoders.base import Architecture, BranchPath

ARCHITECTURE = Architecture(
    name="T5Gemma encoder",
    model_types=("t5gemma",),
    module_class="T5GemmaEncoderModel",
    token_table=("encoder.embed_tokens.weight",),
    position_table=(),
    positions="rotary",
    normalization="rms_norm",
    blocks="encoder.layers",
    branches=(
        BranchPath("attention", "pre_self_attn_layernorm", "self_attn", "post_self_attn_layernorm"),
        BranchPath("mlp", "pre_feedforward_layernorm", "mlp", "post_feedforward_layernorm"),
    ),
    settings={"is_encoder_decoder": False},
)
