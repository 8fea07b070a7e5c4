"""Qwen-Image: the output of Qwen2.5-VL's language model behind a fixed template, flow matching."""

from typing import Any

import torch
from torch import Tensor, nn

from dti_geom.models.encoders.base import Tap
from dti_geom.models.noising import Flow, Noising, dynamic_shift
from dti_geom.models.pipelines.base import (
    ZERO_PAD,
    Conditioning,
    TextToImage,
    Tower,
    at_least_float32,
)
from dti_geom.models.pipelines.packing import pack, unpack
from dti_geom.models.pipelines.prefix import PrefixReader
from dti_geom.models.profiles import NO_PROFILE, Profile
from dti_geom.models.transfer import sent

MAX_TOKENS = 512  # behind the template's first: a default of the pipeline's call


class QwenImage(TextToImage):
    """Qwen-Image.

    The template's first tokens are read before every prompt, and their states dropped. Pictures
    are guided away from an empty prompt, without which the pipeline ignores guidance.
    """

    denoiser_name = "transformer"
    reads_taps_alone = True
    bfloat16_parts = ("text_encoder",)
    zero_pad_takes_spaces = False
    guidance = 4.0
    sampling_steps = 50

    def __init__(self, pipeline: Any, name: str, profile: Profile = NO_PROFILE) -> None:
        """Freeze the pipeline, and leave out the encoder's vision tower: prompts are text."""
        pipeline.text_encoder.model.visual = nn.Identity()
        super().__init__(pipeline, name, profile)
        self._reader = PrefixReader(self.towers[0], Tap())

    def noising_at(self, resolution: int) -> Noising:
        """Return the flow with the shift of sampling for images of this size."""
        tokens = (resolution // (2 * int(self.pipeline.vae_scale_factor))) ** 2
        return Flow(dynamic_shift(self.pipeline.scheduler.config, tokens))

    def autoencode(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return mean and deviation of an image's latents: those of a film of one frame."""
        mean, std = super().autoencode(pixels[:, :, None])
        return mean[:, :, 0], None if std is None else std[:, :, 0]

    def autodecode(self, latents: Tensor) -> Tensor:
        """Return the images of the autoencoder's own latents."""
        return super().autodecode(latents[:, :, None])[:, :, 0]

    def latent_statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and inverse deviation of each channel, from the configuration."""
        config = self.vae.config
        mean, std = (
            torch.tensor(numbers, device=self.device).view(1, -1, 1, 1)
            for numbers in (config.latents_mean, config.latents_std)
        )
        return mean, 1 / std

    def decode_generated(self, latents: Tensor, size: int) -> Tensor:
        """Return the images of packed latents, (n, h w / 4, 4 c)."""
        side = size // int(self.pipeline.vae_scale_factor)
        return self.decode_latents(unpack(latents, side, side))

    def padded(self, prompt: str, count: int) -> str:
        """Return the prompt after `count` zero vectors; no space is before its first word."""
        return ZERO_PAD * count + prompt

    def prompt_tokens(self, tower: Tower) -> int:
        """Return the pipeline's own limit, less the template's tokens that it counts."""
        before, _, _ = self.pipeline.prompt_template_encode.partition("{}")
        return self._longest - len(tower.tokenizer.encode(before))

    def encode_text(self, prompts: list[str]) -> Conditioning:
        """Return `states`, (n, s, d), and their `mask`, (n, s), with s of the longest prompt.

        The mask is on the CPU.
        """
        template = self.pipeline.prompt_template_encode
        texts = [template.format(self.written(prompt)) for prompt in prompts]
        tokenizer = self.towers[0].tokenizer
        rows = tokenizer(texts, max_length=self._longest, truncation=True)["input_ids"]
        states, mask = self._reader.read(rows, shared=self._dropped, kept=0)
        lengths = torch.tensor([[len(row) - self._dropped] for row in rows])
        live = (torch.arange(states.shape[1]) < lengths).long()
        return {"states": states * mask[..., None].to(states), "mask": live}

    @property
    def _dropped(self) -> int:
        """How many tokens of the template have states that nothing reads."""
        return int(self.pipeline.prompt_template_encode_start_idx)

    @property
    def _longest(self) -> int:
        """How many tokens of template and prompt are read."""
        return self._dropped + MAX_TOKENS

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the transformer's velocity in float32."""
        count, _, height, width = noisy.shape
        mask = conditioning["mask"]
        answer = self.denoiser(
            pack(noisy.to(self.dtype)),
            encoder_hidden_states=conditioning["states"].to(self.dtype),
            # Like the pipeline, none where nothing is padded: attention is faster so.
            encoder_hidden_states_mask=None if mask.all() else sent(mask, self.device),
            timestep=t / 1000,
            img_shapes=[[(1, height // 2, width // 2)]] * count,
            guidance=None,
            return_dict=False,
        )
        return unpack(at_least_float32(answer[0]), height, width)

    def call_options(self, guidance: float) -> dict[str, Any]:
        """Return the options of guidance away from an empty prompt."""
        return {"true_cfg_scale": guidance, "negative_prompt": " ", "guidance_scale": None}
