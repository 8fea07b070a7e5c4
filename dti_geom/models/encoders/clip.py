"""The text tower of CLIP: Stable Diffusion, SDXL."""

from collections.abc import Mapping
from typing import Any

from dti_geom.models.encoders.base import Architecture, BranchPath


def _module_class(config: Mapping[str, Any]) -> str:
    """Return the class with the projection where the files have one.

    A whole CLIP (text and vision) is opened as its text tower, whose states need no projection.
    """
    projected = "CLIPTextModelWithProjection"
    return projected if config.get("architectures") == [projected] else "CLIPTextModel"


ARCHITECTURE = Architecture(
    name="CLIP text tower",
    model_types=("clip_text_model", "clip"),
    module_class=_module_class,
    # The second name of each is OpenCLIP's own, in single-file checkpoints.
    token_table=("embeddings.token_embedding.weight", "token_embedding.weight"),
    position_table=("embeddings.position_embedding.weight", "positional_embedding"),
    positions="absolute",
    normalization="layer_norm",
    blocks="encoder.layers",
    branches=(
        BranchPath("attention", "layer_norm1", "self_attn"),
        BranchPath("mlp", "layer_norm2", "mlp"),
    ),
)
