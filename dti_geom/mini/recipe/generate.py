"""Pictures from prompts, through the standard pipeline."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from dti_geom.models.catalog import profile_of

PROFILE = profile_of("mini")
assert PROFILE.sampling_steps is not None
assert PROFILE.guidance is not None
STEPS: int = PROFILE.sampling_steps
GUIDANCE: float = PROFILE.guidance


def assemble(vae: Any, text_encoder: Any, tokenizer: Any, unet: Any, scheduler: Any) -> Any:
    """Return a silent `StableDiffusionPipeline` of these parts.

    It has no safety checker, since the model knows emoji alone.
    """
    pipeline: Any = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def open_pipeline(folder: Path, device: str = "cpu") -> Any:
    """Open a pipeline folder in single precision."""
    pipeline: Any = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device, torch.float32)


@torch.no_grad()
def generate(
    pipeline: Any,
    prompts: Sequence[str],
    seed: int = 0,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    batch: int = 32,
) -> Tensor:
    """Return (n, 3, 64, 64) pictures in [−1, 1].

    Picture i starts from the noise of seed + i, whatever the batch size.
    """
    images = []
    for start in range(0, len(prompts), batch):
        part = list(prompts[start : start + batch])
        noise = [torch.Generator().manual_seed(seed + start + i) for i in range(len(part))]
        result = pipeline(
            part,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=noise,
            output_type="pt",
        )
        images.append(result.images.float().cpu() * 2 - 1)
    return torch.cat(images)
