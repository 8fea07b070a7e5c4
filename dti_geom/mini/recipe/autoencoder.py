"""The autoencoder: 64×64 pictures to 16×16 latents with 8 channels and back."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional

from dti_geom.mini.recipe.dataset import Pictures, as_tensor, save_grid
from dti_geom.mini.recipe.loop import Schedule, Training
from dti_geom.mini.recipe.muon import muon_and_adam

LATENT_CHANNELS = 8
LATENT_SIDE = 16
BATCH = 16
MUON_RATE = 0.02
ADAM_RATE = 2e-3
KL_WEIGHT = 1e-3


def new_autoencoder() -> Any:
    """Return an untrained `AutoencoderKL`, 1.4 million parameters."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 48, 96),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=64,
        force_upcast=False,
    )


def reconstruction_loss(decoded: Tensor, images: Tensor) -> Tensor:
    """Return the sum of absolute, squared, edge and chroma errors of (n, 3, h, w) pictures.

    Pixel errors alone let a small autoencoder trade hue for sharpness: green and yellow fade. So
    chroma errors, also of 4×4 patches, make hue worth as much as an edge.
    """
    error = decoded - images
    # Chroma is what is left of a pixel after its mean over the channels.
    chroma = error - error.mean(dim=1, keepdim=True)
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    patches = functional.avg_pool2d(torch.cat([error, chroma], dim=1), 4).abs().mean()
    return (
        error.abs().mean() + 2 * error.square().mean() + 0.3 * edges + chroma.abs().mean() + patches
    )


def train_autoencoder(
    pictures: Pictures, folder: Path, steps: int, seed: int, device: str = "cpu"
) -> Any:
    """Train on the pictures and their mirror images; return the model.

    Saves the weights and a grid of reconstructions below `folder`.
    """
    torch.manual_seed(seed)
    model = new_autoencoder().to(device).train()
    optimisers = muon_and_adam(model, MUON_RATE, ADAM_RATE)
    training = Training(
        folder, {"autoencoder": model}, optimisers, Schedule(steps, fall_from=0.3), seed
    )
    shown = as_tensor(pictures.pixels[:32], device)

    def losses(generator: torch.Generator) -> dict[str, Tensor]:
        images = _draw(pictures, generator, device)
        noise = _latent_noise(generator, device)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            posterior = model.encode(images).latent_dist
            decoded = model.decode(posterior.mean + posterior.std * noise).sample.float()
        mean, variance = posterior.mean.float(), posterior.var.float()
        # KL divergence from the standard normal distribution, per latent value.
        kl = 0.5 * (mean.square() + variance - 1 - posterior.logvar.float()).mean()
        named = _errors(decoded, images)
        return {**named, "loss": named["loss"] + KL_WEIGHT * kl, "kl": kl}

    def watch(step: int) -> None:
        save_grid(
            torch.stack([shown, decode(model, encode(model, shown))], 1).flatten(0, 1),
            16,
            folder / "grid.png",
        )

    training.run(losses, watch, watch_every=1000)
    model.eval()
    latents = encode(model, as_tensor(pictures.pixels[:2000], device))
    # The scaling factor of latent diffusion: scaled latents have unit variance.
    model.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    model.save_pretrained(folder)
    return model


def polish_decoder(
    model: Any, pictures: Pictures, folder: Path, steps: int, seed: int, device: str = "cpu"
) -> None:
    """Train the decoder alone a little longer, for sharper pictures. The latents stay as they are.

    Saves to `folder`.
    """
    model.to(device).requires_grad_(False)
    decoder = nn.ModuleDict({"decoder": model.decoder, "post_quant_conv": model.post_quant_conv})
    decoder.requires_grad_(True).train()
    optimisers = muon_and_adam(decoder, MUON_RATE / 2, ADAM_RATE / 2)
    training = Training(
        folder, {"decoder": decoder}, optimisers, Schedule(steps, warmup=20, fall_from=0.1), seed
    )

    def losses(generator: torch.Generator) -> dict[str, Tensor]:
        images = _draw(pictures, generator, device)
        noise = _latent_noise(generator, device)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            with torch.no_grad():
                posterior = model.encode(images).latent_dist
            decoded = model.decode(posterior.mean + posterior.std * noise).sample.float()
        return _errors(decoded, images)

    training.run(losses)
    model.eval().save_pretrained(folder)


def _draw(pictures: Pictures, generator: torch.Generator, device: str) -> Tensor:
    """A batch of pictures, all mirrored every other time."""
    chosen = torch.randint(len(pictures), (BATCH,), generator=generator)
    images = as_tensor(pictures.pixels[chosen.numpy()], device)
    return images.flip(-1) if torch.rand((), generator=generator) < 0.5 else images


def _latent_noise(generator: torch.Generator, device: str) -> Tensor:
    return torch.randn((BATCH, LATENT_CHANNELS, LATENT_SIDE, LATENT_SIDE), generator=generator).to(
        device
    )


def _errors(decoded: Tensor, images: Tensor) -> dict[str, Tensor]:
    squared = ((decoded - images) / 2).square().mean()
    return {"loss": reconstruction_loss(decoded, images), "psnr": -10 * squared.log10()}


@torch.no_grad()
def encode(model: Any, images: Tensor, batch: int = 200) -> Tensor:
    """Return the posterior means, unscaled: (n, 3, 64, 64) in [−1, 1] → (n, 8, 16, 16)."""
    return torch.cat([model.encode(part).latent_dist.mean for part in images.split(batch)])


@torch.no_grad()
def decode(model: Any, latents: Tensor, batch: int = 200) -> Tensor:
    """Return pictures of unscaled latents: (n, 8, 16, 16) → (n, 3, 64, 64), in [−1, 1]."""
    return torch.cat(
        [model.decode(part).sample.float().clamp(-1, 1) for part in latents.split(batch)]
    )


def psnr(decoded: Tensor, images: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of each picture in dB, (n,).

    decoded, images: (n, 3, h, w) in [−1, 1]; halved, their peak is 1.
    """
    return -10 * ((decoded - images) / 2).square().mean(dim=(1, 2, 3)).clamp(min=1e-10).log10()
