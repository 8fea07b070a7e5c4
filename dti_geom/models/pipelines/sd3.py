"""Stable Diffusion 3 and 3.5: two CLIP towers, T5, a transformer over both texts, flow matching."""

import inspect

from torch import Tensor

from dti_geom.models.encoders.base import Tap
from dti_geom.models.noising import Flow, Noising, dynamic_shift
from dti_geom.models.pipelines.base import Conditioning, TextToImage, Tower, at_least_float32


class StableDiffusion3(TextToImage):
    """SD 3 and 3.5. A token has vectors of its own in each of the three towers.

    Both CLIP towers are published with eos_token_id = 2, on which transformers pools at the largest
    id of a prompt: with a learned token that is the token itself. diffusers generates this way too,
    hence training does. A folder without T5 has two towers, and the pipeline writes zeros for it.
    """

    # hidden_states[-2] of diffusers' encode_prompt. The pooled states come from the CLIP outputs.
    taps = {  # noqa: RUF012
        "text_encoder": Tap((1,), final_norm=False),
        "text_encoder_2": Tap((1,), final_norm=False),
    }
    unprompted_first = True
    denoiser_name = "transformer"
    # Of Stability's own sampler for 3.5 large; its setting for medium skips layers.
    guidance = 4.5
    sampling_steps = 40

    def noising_at(self, resolution: int) -> Noising:
        """Return the flow with the scheduler's shift, at every resolution unless it is dynamic."""
        config = self.pipeline.scheduler.config
        if not config.get("use_dynamic_shifting"):
            return Flow(float(config["shift"]))
        patch = int(self.denoiser.config.patch_size) * int(self.pipeline.vae_scale_factor)
        return Flow(dynamic_shift(config, (resolution // patch) ** 2))

    def encode_text(self, prompts: list[str]) -> Conditioning:
        """Return `states`, (n, 77 + 256, d) of CLIP and then T5, and `pooled`, (n, d₁ + d₂)."""
        states, _, pooled, _ = self.pipeline.encode_prompt(
            [self.written(prompt) for prompt in prompts],
            prompt_2=None,
            prompt_3=None,
            device=self.device,
            do_classifier_free_guidance=False,
        )
        return {"states": states, "pooled": pooled}

    def prompt_tokens(self, tower: Tower) -> int:
        """Return the length of CLIP, or that to which the pipeline cuts T5, without the end."""
        if tower.name != "text_encoder_3":
            return super().prompt_tokens(tower)
        call = inspect.signature(self.pipeline.encode_prompt)
        return int(call.parameters["max_sequence_length"].default) - 1

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the transformer's velocity in float32. It takes times up to 1000."""
        answer = self.denoiser(
            noisy.to(self.dtype),
            timestep=t,
            encoder_hidden_states=conditioning["states"].to(self.dtype),
            pooled_projections=conditioning["pooled"].to(self.dtype),
            return_dict=False,
        )
        return at_least_float32(answer[0])
