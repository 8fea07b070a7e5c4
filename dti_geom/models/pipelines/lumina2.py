"""Lumina-Image 2.0: the last state but one of Gemma-2 behind a system sentence, flow matching."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dti_geom.models.encoders.base import Tap
from dti_geom.models.noising import Flow, Noising, dynamic_shift
from dti_geom.models.pipelines.base import (
    Conditioning,
    TextToImage,
    Tower,
    at_least_float32,
)
from dti_geom.models.pipelines.prefix import PrefixReader
from dti_geom.models.profiles import NO_PROFILE, Profile
from dti_geom.models.transfer import sent


class Lumina2(TextToImage):
    """Lumina-Image 2.0.

    The transformer predicts x − ε, and its time runs from 0 at noise to 1.
    """

    denoiser_name = "transformer"
    taps = {"text_encoder": Tap((1,), final_norm=False)}  # noqa: RUF012
    reads_taps_alone = True
    bfloat16_parts = ("text_encoder",)
    guidance = 4.0
    sampling_steps = 30

    def __init__(self, pipeline: Any, name: str, profile: Profile = NO_PROFILE) -> None:
        """Freeze the pipeline, as every family does."""
        super().__init__(pipeline, name, profile)
        self._reader = PrefixReader(self.towers[0], self.taps["text_encoder"])

    def noising_at(self, resolution: int) -> Noising:
        """Return the flow with FLUX.1's shift for images of this size, as the model was trained.

        Sampling shifts by a constant 6.
        """
        tokens = (resolution // 16) ** 2
        return Flow(dynamic_shift(self.pipeline.scheduler.config, tokens))

    def prompt_tokens(self, tower: Tower) -> int:
        """Return the pipeline's own limit, less the system sentence behind the begin token."""
        # The sentence ends with a space, which belongs to the first word.
        return self._longest - len(tower.tokenizer.encode(self._before.rstrip())) + 1

    def encode_text(self, prompts: list[str]) -> Conditioning:
        """Return `states`, (n, s, d), and their `mask`, (n, s), with s of the longest prompt.

        The mask is on the CPU.
        """
        tokenizer = self.towers[0].tokenizer
        texts = [self._before + self.written(prompt) for prompt in prompts]
        rows = tokenizer(texts, max_length=self._longest, truncation=True)["input_ids"]
        # The last token of the sentence may join the prompt's first.
        shared = len(tokenizer.encode(self._before.rstrip())) - 1
        states, _ = self._reader.read(rows, shared=shared, kept=shared)
        lengths = torch.tensor([[len(row)] for row in rows])
        return {"states": states, "mask": (torch.arange(states.shape[1]) < lengths).long()}

    @property
    def _before(self) -> str:
        """What the pipeline writes before a prompt."""
        return f"{self.pipeline.system_prompt} <Prompt Start> "

    @property
    def _longest(self) -> int:
        """How many tokens the pipeline reads: a default of its `encode_prompt`."""
        call = inspect.signature(self.pipeline.encode_prompt)
        return int(call.parameters["max_sequence_length"].default)

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the velocity ε − x in float32: the transformer's answer with the other sign."""
        mask = conditioning["mask"]
        with _known_lengths(self.denoiser.rope_embedder, mask):
            answer = self.denoiser(
                noisy.to(self.dtype),
                1 - t / 1000,
                conditioning["states"].to(self.dtype),
                sent(mask, self.device),
                return_dict=False,
            )
        return -at_least_float32(answer[0])


@contextmanager
def _known_lengths(positions: nn.Module, mask: Tensor) -> Iterator[None]:
    """Let the module of positions read the lengths of prompts from a mask on the CPU.

    It asks for them as numbers: from the GPU these would have to be waited for.
    """
    hook = positions.register_forward_pre_hook(lambda _module, inputs: (inputs[0], mask))
    try:
        yield
    finally:
        hook.remove()
