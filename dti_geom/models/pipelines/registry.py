"""The families a token can be trained on, by the pipeline class that model_index.json names.

Adding one is a file beside this one and a line here. Names are known without importing any of them.
"""

import importlib

from dti_geom.models.encoders.base import Tap
from dti_geom.models.pipelines.base import TextToImage

_PACKAGE = "dti_geom.models.pipelines"

PIPELINES: dict[str, str] = {  # class of diffusers → module of this package : class of it
    "StableDiffusionPipeline": "stable_diffusion:StableDiffusion",
    "StableDiffusionXLPipeline": "stable_diffusion_xl:StableDiffusionXL",
    "StableDiffusion3Pipeline": "sd3:StableDiffusion3",
    "FluxPipeline": "flux1:Flux1",
    "ChromaPipeline": "chroma:Chroma",
    "PixArtSigmaPipeline": "pixart_sigma:PixArtSigma",
    "WanPipeline": "wan:Wan",
    "SanaPipeline": "sana:Sana",
    "Flux2KleinPipeline": "flux2_klein:Flux2Klein",
    "ZImagePipeline": "z_image:ZImage",
    "QwenImagePipeline": "qwen_image:QwenImage",
    "Lumina2Pipeline": "lumina2:Lumina2",
}


def family_of(pipeline_class: str) -> type[TextToImage]:
    """Return the family of a diffusers pipeline class. Raises KeyError for an unknown one."""
    module, _, name = PIPELINES[pipeline_class].partition(":")
    family: type[TextToImage] = getattr(importlib.import_module(f"{_PACKAGE}.{module}"), name)
    return family


def tap_of(pipeline_class: str | None, text_encoder: str) -> Tap:
    """Return which states of a text encoder the pipeline's denoiser reads.

    Of an unknown pipeline, or an encoder alone: its output.
    """
    if pipeline_class not in PIPELINES:
        return Tap()
    return family_of(pipeline_class).taps.get(text_encoder, Tap())
