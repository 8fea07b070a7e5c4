"""Wan 2.1: UMT5, a video autoencoder and transformer, flow matching; here of a single frame."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dti_geom.errors import DoesNotApply, UnknownToken
from dti_geom.models.noising import Flow, Noising
from dti_geom.models.pipelines.base import Conditioning, TextToImage, Tower, at_least_float32


class Wan(TextToImage):
    """Wan 2.1, text to video, on pictures: videos of one frame.

    UMT5 reads with a mask. The transformer has none: it reads 512 places, of which those behind a
    prompt are zero.
    """

    denoiser_name = "transformer"
    guidance = 6.0  # what Wan recommends for the model of 1.3 billion parameters
    sampling_steps = 50

    def __init__(self, pipeline: Any, name: str, *options: Any) -> None:
        """Freeze the pipeline. Raises DoesNotApply for Wan 2.2 with its two transformers."""
        if getattr(pipeline, "transformer_2", None) is not None:
            raise DoesNotApply(
                f"{name} has two transformers, one for each half of the times, as Wan 2.2; tokens "
                "are trained on models with one. Choose Wan 2.1."
            )
        super().__init__(pipeline, name, *options)

    @property
    def resolution(self) -> int:
        """Pixels of a side: the model was trained on videos of 480 rows."""
        return 480

    @property
    def dtype(self) -> torch.dtype:
        """What the transformer computes in; some of its parts stay in float32."""
        return self.denoiser.patch_embedding.weight.dtype  # type: ignore[no-any-return]

    def noising_at(self, resolution: int) -> Noising:
        """Return the flow with the scheduler's shift, at every resolution."""
        config = self.pipeline.scheduler.config
        return Flow(float(config.get("flow_shift") or config["shift"]))

    def place(self, token: str, vectors: Sequence[Tensor]) -> None:
        """Let `token` stand for vectors. Raises UnknownToken for one that cleaning changes."""
        from diffusers.pipelines.wan.pipeline_wan import prompt_clean

        if (read := prompt_clean(token)) != token:
            raise UnknownToken(f"{token}: Wan reads it as {read}. Write the token as that.")
        super().place(token, vectors)

    def encode_text(self, prompts: list[str]) -> Conditioning:
        """Return UMT5's `states`, (n, 512, d), zero behind the end of each prompt.

        512 places are what the model was trained with and what the pipeline's call asks for; the
        default of `encode_prompt` is 226. UMT5 itself reads no more than the longest prompt.
        """
        from diffusers.pipelines.wan.pipeline_wan import prompt_clean

        texts = [self.written(prompt) for prompt in prompts]
        ids = self.towers[0].tokenizer([prompt_clean(text) for text in texts])["input_ids"]
        places = self.prompt_tokens(self.towers[0]) + 1
        states, _ = self.pipeline.encode_prompt(
            texts,
            do_classifier_free_guidance=False,
            device=self.device,
            max_sequence_length=min(places, max(len(row) for row in ids)),
        )
        return {"states": nn.functional.pad(states, (0, 0, 0, places - states.shape[1]))}

    def prompt_tokens(self, tower: Tower) -> int:
        """Return the length to which the pipeline's call cuts UMT5, without the end."""
        call = inspect.signature(type(self.pipeline).__call__)
        return int(call.parameters["max_sequence_length"].default) - 1

    def autoencode(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return mean and standard deviation of the latents of a frame, (n, c, h, w)."""
        mean, std = super().autoencode(pixels[:, :, None])
        return mean.squeeze(2), None if std is None else std.squeeze(2)

    def autodecode(self, latents: Tensor) -> Tensor:
        """Return the frame of latents, (n, 3, h, w)."""
        return super().autodecode(latents[:, :, None]).squeeze(2)

    def latent_statistics(self) -> tuple[Tensor | float, Tensor | float]:
        """Return the mean of each channel, and the inverse of its standard deviation."""
        config = self.vae.config
        mean, std = (
            torch.tensor(numbers, device=self.device).view(1, -1, 1, 1)
            for numbers in (config.latents_mean, config.latents_std)
        )
        return mean, 1 / std

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the transformer's velocity in float32. It takes times up to 1000."""
        answer = self.denoiser(
            noisy[:, :, None].to(self.dtype),
            timestep=t,
            encoder_hidden_states=conditioning["states"].to(self.dtype),
            return_dict=False,
        )
        return at_least_float32(answer[0].squeeze(2))

    @property
    def image_processor(self) -> Any:
        """What turns decoded pixels into pictures: that of videos does so too."""
        return self.pipeline.video_processor

    def call_options(self, guidance: float) -> dict[str, Any]:
        """Return the options that paint a single frame."""
        return {"guidance_scale": guidance, "num_frames": 1}

    def decode_generated(self, latents: Tensor, size: int) -> Tensor:
        """Return the images of videos of one frame."""
        return self.decode_latents(latents.squeeze(2))
