"""The encoder of T5 and its relatives: many languages (mT5, UMT5), or bytes as tokens (ByT5)."""

from dti_geom.models.encoders.base import Architecture, BranchPath

ARCHITECTURE = Architecture(
    name="T5 encoder",
    model_types=("t5", "umt5", "mt5"),
    module_class="AutoModelForTextEncoding",
    token_table=("shared.weight", "encoder.embed_tokens.weight"),
    position_table=(),
    positions="relative",
    normalization="rms_norm",
    blocks="encoder.block",
    branches=(
        BranchPath("attention", "layer.0.layer_norm", "layer.0.SelfAttention"),
        BranchPath("mlp", "layer.1.layer_norm", "layer.1.DenseReluDense"),
    ),
)
