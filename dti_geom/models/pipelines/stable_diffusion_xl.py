"""Stable Diffusion XL: two CLIP towers and a pooled state; the UNet also reads sizes and crops."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dti_geom.models.encoders.base import Tap
from dti_geom.models.pipelines.base import (
    Conditioning,
    TextToImage,
    TrainingDefaults,
    View,
    at_least_float32,
)
from dti_geom.models.transfer import sent


class StableDiffusionXL(TextToImage):
    """SDXL.

    The published second tower says eos_token_id = 2, on which transformers pools at the largest id
    of a prompt: with a learned token that is the token itself, not the end. diffusers generates
    this way too, hence training does.
    """

    # hidden_states[-2] of diffusers' encode_prompt; the pooled state comes from the output.
    taps = {  # noqa: RUF012
        "text_encoder": Tap((1,), final_norm=False),
        "text_encoder_2": Tap((1,), final_norm=False),
    }
    unprompted_first = True
    guidance = 5.0
    # The paper's resolution. A step at 1024 costs 1.9 times as much.
    training = TrainingDefaults(resolution=768)

    def encode_text(self, prompts: list[str]) -> Conditioning:
        """Return `states`, (n, 77, d₁ + d₂), and `pooled`, (n, d₂)."""
        states, _, pooled, _ = self.pipeline.encode_prompt(
            prompts, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return {"states": states, "pooled": pooled}

    def describe_views(self, views: Sequence[View]) -> Conditioning:
        """Return `time_ids`, (n, 6): original size, corner of the crop, size of the crop."""
        # In float32 whatever the UNet computes in: bfloat16 has no 1023.
        numbers = [[*view.original, *view.corner, *view.size] for view in views]
        return {"time_ids": sent(torch.tensor(numbers, dtype=torch.float32), self.device)}

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the UNet's prediction in float32."""
        added = {"text_embeds": conditioning["pooled"], "time_ids": conditioning["time_ids"]}
        answer = self.denoiser(
            noisy.to(self.dtype),
            t,
            conditioning["states"],
            added_cond_kwargs=added,
            return_dict=False,
        )
        return at_least_float32(answer[0])
