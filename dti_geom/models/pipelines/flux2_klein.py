"""FLUX.2-klein: states of three blocks of Qwen3 behind a chat template, flow matching.

Train on the base models: the others are distilled to four sampling steps.
"""

import torch
from torch import Tensor

from dti_geom.models.encoders.base import Tap
from dti_geom.models.noising import Flow, Noising, dynamic_shift
from dti_geom.models.pipelines.base import (
    ZERO_PAD,
    Conditioning,
    TextToImage,
    Tower,
    at_least_float32,
)
from dti_geom.models.pipelines.chat import tokens_before


class Flux2Klein(TextToImage):
    """FLUX.2-klein, 4B and 9B.

    The transformer reads all 512 places of the text, padding too, and has no mask for them.
    """

    denoiser_name = "transformer"
    # hidden_states[9], [18] and [27] of Qwen3's 36 blocks, joined in this order.
    taps = {"text_encoder": Tap((27, 18, 9), final_norm=False)}  # noqa: RUF012
    reads_taps_alone = True
    bfloat16_parts = ("text_encoder",)
    zero_pad_takes_spaces = False
    guidance = 4.0
    sampling_steps = 50

    def noising_at(self, resolution: int) -> Noising:
        """Return the flow with FLUX.1's shift for images of this size.

        That of sampling depends on the number of steps too, and the makers published no other.
        """
        tokens = (resolution // self._patch) ** 2
        return Flow(dynamic_shift(self.pipeline.scheduler.config, tokens))

    def autoencode(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the mode of the autoencoder's latents, which the pipeline itself takes."""
        mean, _ = super().autoencode(pixels)
        return mean, None

    def arrange_latents(self, latents: Tensor) -> Tensor:
        """Join patches of 2×2: (n, c, h, w) to (n, 4 c, h / 2, w / 2)."""
        return torch.nn.functional.pixel_unshuffle(latents, 2)

    def restore_latents(self, latents: Tensor) -> Tensor:
        """Undo `arrange_latents`."""
        return torch.nn.functional.pixel_shuffle(latents, 2)

    def latent_statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and inverse deviation of each channel, which the autoencoder carries."""
        norm = self.vae.bn
        mean = norm.running_mean.to(self.device).view(1, -1, 1, 1)
        variance = norm.running_var.to(self.device).view(1, -1, 1, 1)
        return mean, (variance + self.vae.config.batch_norm_eps).rsqrt()

    def decode_generated(self, latents: Tensor, size: int) -> Tensor:
        """Return the images of latents that the pipeline has rescaled and rearranged already."""
        own = latents.to(self.vae.dtype)
        return torch.cat([self.autodecode(latent) for latent in own.split(1)])

    def padded(self, prompt: str, count: int) -> str:
        """Return the prompt after `count` zero vectors; no space is before its first word."""
        return ZERO_PAD * count + prompt

    def prompt_tokens(self, tower: Tower) -> int:
        """Return the pipeline's own limit, less the tokens that begin its chat template."""
        return int(self.pipeline.tokenizer_max_length) - tokens_before(
            tower.tokenizer, enable_thinking=False
        )

    def encode_text(self, prompts: list[str]) -> Conditioning:
        """Return `states`, (n, 512, 3 d)."""
        written = [self.written(prompt) for prompt in prompts]
        states, _ = self.pipeline.encode_prompt(written, device=self.device)
        return {"states": states}

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the transformer's velocity in float32."""
        states = conditioning["states"].to(self.dtype)
        height, width = noisy.shape[2:]
        answer = self.denoiser(
            noisy.to(self.dtype).flatten(2).transpose(1, 2),
            encoder_hidden_states=states,
            timestep=t / 1000,
            img_ids=self._places(1, height, width, 1),
            txt_ids=self._places(1, 1, 1, states.shape[1]),
            guidance=None,
            return_dict=False,
        )
        return at_least_float32(answer[0].transpose(1, 2).reshape(noisy.shape))

    def _places(self, *lengths: int) -> Tensor:
        """Return all places of a grid: time, row, column and place in the text, (n, 4)."""
        return torch.cartesian_prod(*(torch.arange(n, device=self.device) for n in lengths))

    @property
    def _patch(self) -> int:
        """Pixels of a side of what one token of an image covers."""
        return 2 * int(self.pipeline.vae_scale_factor)
