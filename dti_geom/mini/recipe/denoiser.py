"""The denoiser, trained together with the text encoder.

The text encoder learns word order here, because the picture depends on it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from dti_geom.mini.recipe.autoencoder import LATENT_CHANNELS, LATENT_SIDE
from dti_geom.mini.recipe.loop import Ema, Schedule, Training
from dti_geom.mini.recipe.muon import muon_and_adam
from dti_geom.mini.recipe.text import WIDTH, decay_groups

NOISE_LEVELS = 1000
LAYOUT_LEVELS = 700  # from here on nearly all is noise, and the layout is decided
# Share of training draws that come from the layout levels alone: first, and after LAYOUT_UNTIL.
LAYOUT_SHARES = (0.5, 0.25)
LAYOUT_UNTIL = 0.3  # share of the steps; later, shapes matter more than places
SNR_CAP = 5.0  # the gamma of min-SNR weighting
UNCONDITIONAL = 0.1  # share of empty captions, for classifier-free guidance
BATCH = 64
MUON_RATE = 0.02
ADAM_RATE = 7e-4
TEXT_RATE = 3e-4


def new_denoiser() -> Any:
    """Return an untrained `UNet2DConditionModel` for 16×16 latents, 11.2 million parameters."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(48, 96, 160),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=(2, 3, 5),  # read as the number of heads
        norm_num_groups=16,
    )


def new_scheduler() -> Any:
    """Return Stable Diffusion's noise schedule, with v-prediction."""
    return DDIMScheduler(
        num_train_timesteps=NOISE_LEVELS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


@dataclass(frozen=True)
class LatentPictures:
    """Pictures as the autoencoder's posterior, with the token ids of their captions.

    mean, std: (n, 8, 16, 16), half precision. ids: (n, captions, MAX_TOKENS).
    """

    mean: Tensor
    std: Tensor
    ids: Tensor
    scale: float  # the autoencoder's scaling factor


def draw_levels(count: int, layout_share: float, generator: torch.Generator) -> Tensor:
    """Draw (count,) noise levels: a `layout_share` from the layout levels, the others from all."""
    anywhere = torch.randint(NOISE_LEVELS, (count,), generator=generator)
    noisy = torch.randint(LAYOUT_LEVELS, NOISE_LEVELS, (count,), generator=generator)
    return torch.where(torch.rand(count, generator=generator) < layout_share, noisy, anywhere)


def loss_weights(scheduler: Any) -> Tensor:
    """Return the weight of each noise level's error, (NOISE_LEVELS,), in (0, 1].

    min(SNR + 1, cap + 1) / (SNR + 1): min-SNR weighting for v-prediction (Hang et al. 2023). It is
    1 at noisy levels.
    """
    signal = scheduler.alphas_cumprod
    # The error of v is that of the picture times SNR + 1, so min-SNR for v divides by it.
    snr = signal / (1 - signal)
    weights: Tensor = (snr + 1).clamp(max=SNR_CAP + 1) / (snr + 1)
    return weights


@dataclass
class Joint:
    """The two networks that learn together, and their training data."""

    denoiser: Any
    text_encoder: Any
    pictures: LatentPictures
    empty_ids: Tensor  # (MAX_TOKENS,), the empty caption
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Fix the noise schedule and the weights of its levels."""
        self.scheduler = new_scheduler()
        self.weights = loss_weights(self.scheduler)

    def losses(self, generator: torch.Generator, layout_share: float) -> dict[str, Tensor]:
        """Draw a batch; return the weighted error of the predicted velocity as "loss".

        "error" is its plain mean, "noisy" the plain mean over the layout levels.
        """
        latents, ids = self._batch(generator)
        levels = draw_levels(BATCH, layout_share, generator)
        noise = torch.randn(latents.shape, generator=generator)
        noised = self.scheduler.add_noise(latents, noise, levels)
        velocity = self.scheduler.get_velocity(latents, noise, levels).to(self.device)
        with torch.autocast(torch.device(self.device).type, torch.bfloat16):
            states = self.text_encoder(ids.to(self.device)).last_hidden_state
            predicted = self.denoiser(noised.to(self.device), levels.to(self.device), states).sample
        errors = (predicted.float() - velocity).square().mean(dim=(1, 2, 3))
        loss = (self.weights[levels].to(self.device) * errors).mean()
        return {
            "loss": loss,
            "error": errors.mean(),
            "noisy": errors[levels >= LAYOUT_LEVELS].mean(),
        }

    def _batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Scaled latents (BATCH, 8, 16, 16) and token ids of captions (BATCH, MAX_TOKENS)."""
        pictures = self.pictures
        chosen = torch.randint(len(pictures.mean), (BATCH,), generator=generator)
        spread = torch.randn((BATCH, *pictures.mean.shape[1:]), generator=generator)
        latents = (
            pictures.mean[chosen].float() + pictures.std[chosen].float() * spread
        ) * pictures.scale
        captions = torch.randint(pictures.ids.shape[1], (BATCH,), generator=generator)
        is_empty = torch.rand(BATCH, generator=generator) < UNCONDITIONAL
        ids = torch.where(is_empty[:, None], self.empty_ids, pictures.ids[chosen, captions])
        return latents, ids

    def train(
        self, folder: Path, steps: int, seed: int, watch: Callable[[int], None], watch_every: int
    ) -> Ema:
        """Take the remaining steps; return the average of the weights, which is what ships.

        watch: called every `watch_every` steps while the networks hold the average.
        """
        # On CPUs the bfloat16 backward of fused attention is slow: use plain matrix products.
        self.denoiser.set_attn_processor(AttnProcessor())
        self.denoiser.train()
        self.text_encoder.train()
        networks = {"denoiser": self.denoiser, "text_encoder": self.text_encoder}
        optimisers = [
            *muon_and_adam(self.denoiser, MUON_RATE, ADAM_RATE),
            torch.optim.AdamW(
                decay_groups(self.text_encoder, TEXT_RATE), TEXT_RATE, betas=(0.9, 0.99), fused=True
            ),
        ]
        ema = Ema(parameter for network in networks.values() for parameter in network.parameters())
        training = Training(folder, networks, optimisers, Schedule(steps), seed, ema)

        def watched(step: int) -> None:
            with ema:
                self.denoiser.eval()
                self.text_encoder.eval()
                watch(step)
            self.denoiser.train()
            self.text_encoder.train()

        def losses(generator: torch.Generator) -> dict[str, Tensor]:
            return self.losses(generator, LAYOUT_SHARES[training.progress >= LAYOUT_UNTIL])

        training.run(losses, watched, watch_every)
        return ema
