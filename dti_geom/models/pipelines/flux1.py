"""FLUX.1: CLIP for one pooled state, T5 for the tokens, packed latents, flow matching."""

import inspect
from typing import ClassVar

import torch
from torch import Tensor

from dti_geom.models.noising import Flow, Noising, dynamic_shift
from dti_geom.models.pipelines.base import Conditioning, TextToImage, Tower, at_least_float32
from dti_geom.models.pipelines.packing import pack, positions, unpack


class Flux1(TextToImage):
    """FLUX.1 dev and schnell. A token has vectors of its own in CLIP and in T5.

    CLIP gives its pooled state alone, without projection. It is published with eos_token_id = 2, on
    which transformers pools at the largest id of a prompt: with a learned token that is the token
    itself. diffusers generates this way too, hence training does. T5 reads 512 places without a
    mask, padding among them.
    """

    denoiser_name = "transformer"
    guidance = 3.5
    sampling_steps = 28
    # Told to dev in training. 1 asks for the prediction without guidance, which is what the loss
    # compares with.
    training_guidance: ClassVar[float] = 1.0

    def noising_at(self, resolution: int) -> Noising:
        """Return the flow with the shift that the scheduler gives images of this resolution."""
        config = self.pipeline.scheduler.config
        if not config.get("use_dynamic_shifting"):
            return Flow(float(config["shift"]))
        side = resolution // (2 * int(self.pipeline.vae_scale_factor))
        return Flow(dynamic_shift(config, side**2))

    def encode_text(self, prompts: list[str]) -> Conditioning:
        """Return T5's `states`, (n, 512, d), and CLIP's `pooled`, (n, d₁)."""
        states, pooled, _ = self.pipeline.encode_prompt(prompts, device=self.device)
        return {"states": states, "pooled": pooled}

    def prompt_tokens(self, tower: Tower) -> int:
        """Return the length of CLIP, or that to which the pipeline cuts T5, without the end."""
        if tower.name != "text_encoder_2":
            return super().prompt_tokens(tower)
        call = inspect.signature(self.pipeline.encode_prompt)
        return int(call.parameters["max_sequence_length"].default) - 1

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the transformer's velocity in float32, (n, c, h, w). It takes times up to 1."""
        states = conditioning["states"].to(self.dtype)
        height, width = noisy.shape[2:]
        guided = self.denoiser.config.guidance_embeds
        answer = self.denoiser(
            pack(noisy.to(self.dtype)),
            timestep=t / Flow.scale,
            guidance=torch.full_like(t, self.training_guidance) if guided else None,
            encoder_hidden_states=states,
            pooled_projections=conditioning["pooled"].to(self.dtype),
            txt_ids=states.new_zeros(states.shape[1], 3),
            img_ids=positions(height, width, noisy.device),
            return_dict=False,
        )
        return at_least_float32(unpack(answer[0], height, width))

    def decode_generated(self, latents: Tensor, size: int) -> Tensor:
        """Return the images of packed latents."""
        side = 2 * (size // (2 * int(self.pipeline.vae_scale_factor)))
        return self.decode_latents(unpack(latents, side, side))
