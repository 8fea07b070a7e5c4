"""Text-to-image pipelines behind one small interface: one file per family."""

from dti_geom.models.pipelines.base import (
    Conditioning,
    Latents,
    TextToImage,
    Tower,
    TrainingDefaults,
    View,
)
from dti_geom.models.pipelines.opening import default_dtype, open_text_to_image
from dti_geom.models.pipelines.registry import PIPELINES, family_of

__all__ = [
    "PIPELINES",
    "Conditioning",
    "Latents",
    "TextToImage",
    "Tower",
    "TrainingDefaults",
    "View",
    "default_dtype",
    "family_of",
    "open_text_to_image",
]
