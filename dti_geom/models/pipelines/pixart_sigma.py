"""PixArt-Σ: T5 with a mask, a diffusion transformer that also predicts a variance."""

import inspect
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dti_geom.errors import UnknownToken
from dti_geom.models.pipelines.base import Conditioning, TextToImage, Tower, at_least_float32


class PixArtSigma(TextToImage):
    """PixArt-Σ.

    The pipeline reads prompts in lower case. By default its call also cleans them, which removes
    what looks like a tag: <x> would be gone. Training and generation here read prompts as written.
    """

    unprompted_first = True
    denoiser_name = "transformer"
    guidance = 4.5
    sampling_steps = 20

    def place(self, token: str, vectors: Sequence[Tensor]) -> None:
        """Let `token` stand for vectors. PixArt lower-cases prompts, so capitals are refused."""
        if token != token.lower():
            raise UnknownToken(
                f"{token}: PixArt reads prompts in lower case. Write the token as {token.lower()}."
            )
        super().place(token, vectors)

    def encode_text(self, prompts: list[str]) -> Conditioning:
        """Return `states`, (n, s, d), and their `mask`, (n, s), with s of the longest prompt.

        The mask keeps the padding behind it out of T5 and out of the transformer, so that it need
        not be encoded.
        """
        texts = [self.written(prompt) for prompt in prompts]
        ids = self.towers[0].tokenizer([text.lower().strip() for text in texts])["input_ids"]
        longest = max(len(row) for row in ids)
        states, mask, _, _ = self.pipeline.encode_prompt(
            texts,
            do_classifier_free_guidance=False,
            device=self.device,
            clean_caption=False,
            max_sequence_length=min(longest, self.prompt_tokens(self.towers[0]) + 1),
        )
        return {"states": states, "mask": mask}

    def prompt_tokens(self, tower: Tower) -> int:
        """Return the length to which the pipeline cuts T5, without the end."""
        call = inspect.signature(self.pipeline.encode_prompt)
        return int(call.parameters["max_sequence_length"].default) - 1

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the transformer's prediction of ε in float32, without that of the variance."""
        answer = self.denoiser(
            noisy.to(self.dtype),
            encoder_hidden_states=conditioning["states"].to(self.dtype),
            encoder_attention_mask=conditioning["mask"],
            timestep=t,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )
        return at_least_float32(answer[0][:, : noisy.shape[1]])

    def call_options(self, guidance: float) -> dict[str, Any]:
        """Return the options that keep prompts as written, and paint at the size asked for."""
        return {
            "guidance_scale": guidance,
            "clean_caption": False,
            "use_resolution_binning": False,
        }
