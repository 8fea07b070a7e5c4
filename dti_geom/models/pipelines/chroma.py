"""Chroma: FLUX.1's transformer without CLIP and guidance; T5 reads with a mask."""

import inspect
from collections.abc import Iterable

from torch import Tensor, nn

from dti_geom.models.noising import Flow, Noising, dynamic_shift
from dti_geom.models.pipelines.base import Conditioning, TextToImage, Tower, at_least_float32
from dti_geom.models.pipelines.packing import pack, positions, unpack


class Chroma(TextToImage):
    """Chroma1.

    Of T5's 512 places, the mask names those of the prompt, of its end and of one padding token.
    diffusers 0.42 hands it on as numbers, which attention adds to its scores: the places outside
    are read e times less, not left out. Training does as generation does.
    """

    denoiser_name = "transformer"
    guidance = 5.0
    sampling_steps = 35

    def noising_at(self, resolution: int) -> Noising:
        """Return the flow with the scheduler's shift, at every resolution unless it is dynamic."""
        config = self.pipeline.scheduler.config
        if not config.get("use_dynamic_shifting"):
            return Flow(float(config["shift"]))
        side = resolution // (2 * int(self.pipeline.vae_scale_factor))
        return Flow(dynamic_shift(config, side**2))

    def encode_text(self, prompts: list[str]) -> Conditioning:
        """Return T5's `states`, (n, 512, d), and their `mask`, (n, 512)."""
        states, _, mask, *_ = self.pipeline.encode_prompt(
            prompts, device=self.device, do_classifier_free_guidance=False
        )
        return {"states": states, "mask": mask}

    def prompt_tokens(self, tower: Tower) -> int:
        """Return the length to which the pipeline cuts T5, without the end."""
        call = inspect.signature(self.pipeline.encode_prompt)
        return int(call.parameters["max_sequence_length"].default) - 1

    def recomputed_blocks(self) -> Iterable[nn.Module]:
        """Return every block: checkpointing of diffusers 0.42 loses the mask of the single ones."""
        return [*self.denoiser.transformer_blocks, *self.denoiser.single_transformer_blocks]

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the transformer's velocity in float32, (n, c, h, w). It takes times up to 1."""
        states, mask = (conditioning[part].to(self.dtype) for part in ("states", "mask"))
        height, width = noisy.shape[2:]
        patches = pack(noisy.to(self.dtype))
        answer = self.denoiser(
            patches,
            timestep=t / Flow.scale,
            encoder_hidden_states=states,
            attention_mask=nn.functional.pad(mask, (0, patches.shape[1]), value=1.0),
            txt_ids=states.new_zeros(states.shape[1], 3),
            img_ids=positions(height, width, noisy.device),
            return_dict=False,
        )
        return at_least_float32(unpack(answer[0], height, width))

    def decode_generated(self, latents: Tensor, size: int) -> Tensor:
        """Return the images of packed latents."""
        side = 2 * (size // (2 * int(self.pipeline.vae_scale_factor)))
        return self.decode_latents(unpack(latents, side, side))
