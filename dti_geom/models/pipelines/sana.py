"""SANA 1.5: Gemma-2 with an instruction before every prompt, a linear transformer, flow matching.

Its autoencoder is deterministic and divides sides by 32.

The pipeline encodes about 490 tokens for every prompt: an instruction, 10 to 20 of the prompt, and
padding. Gemma is causal, so the instruction does not change with the prompt, and padding changes
nothing. Training encodes the instruction once, and then only the tokens of the prompts. The
conditioning is that of the pipeline without its padding.
"""

import inspect
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dti_geom.errors import UnknownToken
from dti_geom.models.encoders.base import Tap
from dti_geom.models.noising import Flow, Noising
from dti_geom.models.pipelines.base import (
    ZERO_PAD,
    Conditioning,
    TextToImage,
    Tower,
    TrainingDefaults,
    at_least_float32,
)
from dti_geom.models.pipelines.prefix import PrefixReader
from dti_geom.models.profiles import NO_PROFILE, Profile


class Sana(TextToImage):
    """SANA 1.5."""

    instruction = True

    unprompted_first = True
    denoiser_name = "transformer"
    guidance = 4.5
    sampling_steps = 20
    bfloat16_parts = ("text_encoder",)
    training = TrainingDefaults(steps=500, kappa=5e-5, weight_decay=0.0)

    def __init__(self, pipeline: Any, name: str, profile: Profile = NO_PROFILE) -> None:
        """Freeze the pipeline, as every family does."""
        super().__init__(pipeline, name, profile)
        self._reader = PrefixReader(self.towers[0], Tap())

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

    def padded(self, prompt: str, count: int) -> str:
        """Return the prompt after `count` zero vectors.

        A space separates its first word from the instruction; without one there is none.
        """
        return super().padded(prompt, count) if self.instruction else ZERO_PAD * count + prompt

    def prompt_tokens(self, tower: Tower) -> int:
        """Return the pipeline's own limit: Gemma's tokenizer has none, and writes no end token."""
        call = inspect.signature(self.pipeline.encode_prompt)
        return int(call.parameters["max_sequence_length"].default)

    def encode_text(self, prompts: list[str]) -> Conditioning:
        """Return `states`, (n, s, d), and their `mask`, (n, s), with s of the longest prompt.

        Those of the pipeline's `encode_prompt`, without the places that are padding in all prompts.
        """
        rows, hidden = self._tokens(prompts)
        states, mask = self._reader.read(rows, shared=hidden, kept=min(1, hidden))
        return {"states": states, "mask": mask}

    def _tokens(self, prompts: list[str]) -> tuple[list[list[int]], int]:
        """Return the tokens of each prompt, and how many begin them that no prompt changes.

        The transformer reads the first of these, and everything behind them: the instruction's
        last token too.
        """
        tokenizer, instruction = self.towers[0].tokenizer, "\n".join(self.instruction_lines())
        before = len(tokenizer.encode(instruction)) if instruction else 2
        # The pipeline lowers and strips prompts, and counts the begin token twice.
        texts = [instruction + self.written(prompt).lower().strip() for prompt in prompts]
        length = before + self.prompt_tokens(self.towers[0]) - 2
        cut = tokenizer(texts, max_length=length, truncation=True)
        return cut["input_ids"], before - 1 if instruction else 0

    def instruction_lines(self) -> list[str]:
        """Return the lines that generation puts before each prompt: a default of its call."""
        if not self.instruction:
            return []
        call = inspect.signature(type(self.pipeline).__call__)
        return call.parameters["complex_human_instruction"].default  # type: ignore[no-any-return]

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
        return {
            "guidance_scale": guidance,
            "use_resolution_binning": False,
            "complex_human_instruction": self.instruction_lines(),
        }
