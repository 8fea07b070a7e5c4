"""Z-Image: the last state but one of Qwen3-4B behind a chat template, flow matching.

Train on the base model: Z-Image-Turbo is distilled to eight steps.
"""

from typing import Any

import torch
from torch import Tensor

from dti_geom.models.encoders.base import Tap
from dti_geom.models.noising import Flow, Noising
from dti_geom.models.pipelines.base import (
    ZERO_PAD,
    Conditioning,
    TextToImage,
    Tower,
    at_least_float32,
)
from dti_geom.models.pipelines.chat import as_message, tokens_before
from dti_geom.models.pipelines.prefix import PrefixReader
from dti_geom.models.profiles import NO_PROFILE, Profile

MAX_TOKENS = 512  # of the template and the prompt: a default of the pipeline


class ZImage(TextToImage):
    """Z-Image.

    The transformer reads the tokens of the template and the prompt, and no padding. It predicts
    x − ε, and its time runs from 0 at noise to 1. Its guidance counts from 0, elsewhere from 1.
    """

    denoiser_name = "transformer"
    taps = {"text_encoder": Tap((1,), final_norm=False)}  # noqa: RUF012
    reads_taps_alone = True
    bfloat16_parts = ("text_encoder",)
    zero_pad_takes_spaces = False
    guidance = 5.0
    sampling_steps = 50

    def __init__(self, pipeline: Any, name: str, profile: Profile = NO_PROFILE) -> None:
        """Freeze the pipeline, as every family does."""
        super().__init__(pipeline, name, profile)
        self._reader = PrefixReader(self.towers[0], self.taps["text_encoder"])

    @property
    def resolution(self) -> int:
        """Pixels of a side that the model was trained at; a default of the pipeline's call."""
        return 1024

    def noising_at(self, resolution: int) -> Noising:
        """Return the flow with the scheduler's shift, at every resolution."""
        return Flow(float(self.pipeline.scheduler.config.shift))

    def autoencode(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the mode of the autoencoder's latents, which diffusers' own training takes."""
        mean, _ = super().autoencode(pixels)
        return mean, None

    def padded(self, prompt: str, count: int) -> str:
        """Return the prompt after `count` zero vectors; no space is before its first word."""
        return ZERO_PAD * count + prompt

    def prompt_tokens(self, tower: Tower) -> int:
        """Return the pipeline's own limit, less the tokens that begin its chat template."""
        return MAX_TOKENS - tokens_before(tower.tokenizer, enable_thinking=True)

    def encode_text(self, prompts: list[str]) -> Conditioning:
        """Return `states`, (n, s, d), s of the longest prompt, and `lengths`, (n,), on the CPU."""
        tokenizer = self.towers[0].tokenizer
        texts = [
            as_message(tokenizer, self.written(prompt), enable_thinking=True) for prompt in prompts
        ]
        rows = tokenizer(texts, max_length=MAX_TOKENS, truncation=True)["input_ids"]
        states, _ = self._reader.read(rows, shared=0, kept=0)
        return {"states": states, "lengths": torch.tensor([len(row) for row in rows])}

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the velocity ε − x in float32: the transformer's answer with the other sign."""
        prompts = zip(conditioning["states"], conditioning["lengths"].tolist(), strict=True)
        answer = self.denoiser(
            list(noisy.to(self.dtype)[:, :, None]),  # one frame each
            1 - t / 1000,
            [states[:length] for states, length in prompts],
            return_dict=False,
        )
        return -at_least_float32(torch.stack(answer[0])[:, :, 0])

    def call_options(self, guidance: float) -> dict[str, Any]:
        """Return the guidance, at the pipeline's limit of tokens."""
        return {"guidance_scale": guidance, "max_sequence_length": MAX_TOKENS}
