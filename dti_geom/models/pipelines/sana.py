"""SANA 1.5: Gemma-2 with an instruction before every prompt, a linear transformer, flow matching.

Its autoencoder is deterministic and divides sides by 32.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dti_geom.errors import UnknownToken
from dti_geom.models.noising import Flow, Noising
from dti_geom.models.pipelines.base import (
    Conditioning,
    TextToImage,
    Tower,
    TrainingDefaults,
    at_least_float32,
)


class Sana(TextToImage):
    """SANA 1.5."""

    denoiser_name = "transformer"
    guidance = 4.5
    sampling_steps = 20
    training = TrainingDefaults(steps=500, kappa=5e-5, weight_decay=0.0)

    @classmethod
    def part_dtypes(cls, dtype: torch.dtype) -> dict[str, torch.dtype]:
        """Return bfloat16 for Gemma-2 where float16 is asked for: its states overflow that."""
        dtypes = super().part_dtypes(dtype)
        return dtypes | {"text_encoder": torch.bfloat16} if dtype == torch.float16 else dtypes

    def noising_at(self, resolution: int) -> Noising:
        """Return the flow with the scheduler's shift, at every resolution."""
        config = self.pipeline.scheduler.config
        return Flow(float(config.get("flow_shift") or config.get("shift") or 1.0))

    def place(self, token: str, vectors: Sequence[Tensor]) -> None:
        """Let `token` stand for vectors. SANA lower-cases prompts, so capitals are refused."""
        if token != token.lower():
            raise UnknownToken(
                f"{token}: SANA reads prompts in lower case. Write the token as {token.lower()}."
            )
        super().place(token, vectors)

    def written(self, prompt: str) -> str:
        """Return the prompt with every token of several vectors spelled out.

        Other pipelines do so themselves (`maybe_convert_prompt`); this one does not.
        """
        return self.spelled(prompt)

    def prompt_tokens(self, tower: Tower) -> int:
        """Return the pipeline's own limit: Gemma's tokenizer has none, and writes no end token."""
        call = inspect.signature(self.pipeline.encode_prompt)
        return int(call.parameters["max_sequence_length"].default)

    def encode_text(self, prompts: list[str]) -> Conditioning:
        """Return `states`, (n, 300, d), and their `mask`, (n, 300)."""
        # The instruction that generation puts before each prompt is a default of the call.
        call = inspect.signature(type(self.pipeline).__call__)
        states, mask, _, _ = self.pipeline.encode_prompt(
            [self.written(prompt) for prompt in prompts],
            do_classifier_free_guidance=False,
            device=self.device,
            complex_human_instruction=call.parameters["complex_human_instruction"].default,
        )
        return {"states": states, "mask": mask}

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the transformer's velocity in float32."""
        answer = self.denoiser(
            noisy.to(self.dtype),
            encoder_hidden_states=conditioning["states"].to(self.dtype),
            encoder_attention_mask=conditioning["mask"],
            timestep=t * getattr(self.denoiser.config, "timestep_scale", 1.0),
            return_dict=False,
        )
        # Some variants predict a variance too, in channels behind the velocity.
        return at_least_float32(answer[0][:, : noisy.shape[1]])

    def call_options(self, guidance: float) -> dict[str, Any]:
        """Return the options that paint at the size asked for, not at the nearest published one."""
        return {"guidance_scale": guidance, "use_resolution_binning": False}
