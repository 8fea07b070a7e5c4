"""Text-to-image pipelines behind one small interface: one file per family."""

from dti_geom.models.pipelines.base import (
    ADAPTERS,
    TEMPLATES,
    Conditioning,
    Latents,
    Mini,
    Sana,
    StableDiffusion,
    StableDiffusionXL,
    TextToImage,
    Tower,
    View,
    default_dtype,
    names_of,
    open_text_to_image,
)

__all__ = [
    "ADAPTERS",
    "TEMPLATES",
    "Conditioning",
    "Latents",
    "Mini",
    "Sana",
    "StableDiffusion",
    "StableDiffusionXL",
    "TextToImage",
    "Tower",
    "View",
    "default_dtype",
    "names_of",
    "open_text_to_image",
]
