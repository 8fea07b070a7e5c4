"""The denoiser, trained together with the text encoder: word order is learned because the picture needs it."""

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
LAYOUT_LEVELS = 700  # above it, where nearly all is noise, it is decided what goes where
LAYOUT_SHARES = (
    0.5,
    0.25,
)  # of training draws that come from above LAYOUT_LEVELS alone: at first, and later
LAYOUT_UNTIL = 0.3  # share of the steps after which shapes matter more than places
SNR_CAP = 5.0
UNCONDITIONAL = 0.1
BATCH = 64
MUON_RATE = 0.02
ADAM_RATE = 7e-4
TEXT_RATE = 3e-4


def new_denoiser() -> Any:
    """An untrained `UNet2DConditionModel` for 16×16 latents, 11.2 million parameters."""
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
    """Stable Diffusion's noise schedule with v-prediction."""
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
    """mean, std: (n, 8, 16, 16) half, the autoencoder's posterior; ids: (n, captions, MAX_TOKENS)."""

    mean: Tensor
    std: Tensor
    ids: Tensor
    scale: float  # the autoencoder's scaling factor


def draw_levels(count: int, layout_share: float, generator: torch.Generator) -> Tensor:
    """Noise levels, (count,): `layout_share` of them from the noisiest part alone, the rest from everywhere."""
    anywhere = torch.randint(NOISE_LEVELS, (count,), generator=generator)
    noisy = torch.randint(LAYOUT_LEVELS, NOISE_LEVELS, (count,), generator=generator)
    return torch.where(torch.rand(count, generator=generator) < layout_share, noisy, anywhere)


def loss_weights(scheduler: Any) -> Tensor:
    """min(SNR + 1, cap + 1) / (SNR + 1) by noise level: min-SNR (Hang et al. 2023) for v-prediction, 1 where noisy."""
    kept = scheduler.alphas_cumprod
    snr = kept / (1 - kept)
    return (snr + 1).clamp(max=SNR_CAP + 1) / (snr + 1)


@dataclass
class Joint:
    """The two networks that learn together, and what they learn from."""

    denoiser: Any
    text_encoder: Any
    pictures: LatentPictures
    empty_ids: Tensor  # (MAX_TOKENS,), the empty caption
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Fix the noise schedule and what its levels weigh."""
        self.scheduler = new_scheduler()
        self.weights = loss_weights(self.scheduler)

    def losses(self, generator: torch.Generator, layout_share: float) -> dict[str, Tensor]:
        """Weighted error of the predicted velocity on one batch; `noisy` is the plain error where layout is decided."""
        latents, ids = self._batch(generator)
        levels = draw_levels(BATCH, layout_share, generator)
        noise = torch.randn(latents.shape, generator=generator)
        noised = self.scheduler.add_noise(latents, noise, levels)
        velocity = self.scheduler.get_velocity(latents, noise, levels).to(self.device)
        with torch.autocast(torch.device(self.device).type, torch.bfloat16):
            states = self.text_encoder(ids.to(self.device)).last_hidden_state
            found = self.denoiser(noised.to(self.device), levels.to(self.device), states).sample
        errors = (found.float() - velocity).square().mean(dim=(1, 2, 3))
        loss = (self.weights[levels].to(self.device) * errors).mean()
        return {
            "loss": loss,
            "error": errors.mean(),
            "noisy": errors[levels >= LAYOUT_LEVELS].mean(),
        }

    def _batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Scaled latents (BATCH, 8, 16, 16) and caption ids (BATCH, MAX_TOKENS), a tenth of them empty."""
        pictures = self.pictures
        chosen = torch.randint(len(pictures.mean), (BATCH,), generator=generator)
        spread = torch.randn((BATCH, *pictures.mean.shape[1:]), generator=generator)
        latents = (
            pictures.mean[chosen].float() + pictures.std[chosen].float() * spread
        ) * pictures.scale
        told = torch.randint(pictures.ids.shape[1], (BATCH,), generator=generator)
        silent = torch.rand(BATCH, generator=generator) < UNCONDITIONAL
        ids = torch.where(silent[:, None], self.empty_ids, pictures.ids[chosen, told])
        return latents, ids

    def train(
        self, folder: Path, steps: int, seed: int, watch: Callable[[int], None], watch_every: int
    ) -> Ema:
        """All steps still to take; returns the average that is to be shipped. `watch` sees the averaged networks."""
        # Fused attention's bfloat16 backward is slow on CPUs, so attention is written out while training.
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
