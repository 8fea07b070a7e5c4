"""How a model mixes images with noise, and what it predicts.

x: latents, ε: noise of the same shape, t: one time per sample, in the units the denoiser takes.
"""

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from dti_geom.errors import DoesNotApply, ModelFilesError

TIMES = ("uniform", "logit-normal")  # how a flow's times may be drawn


class Noising(Protocol):
    """A forward process and its prediction target.

    times: how they are drawn, one of TIMES; None where there is no choice.
    """

    times: str | None

    def with_times(self, times: str) -> "Noising":
        """Return the same process with times drawn in this way, one of TIMES.

        Raises DoesNotApply where there is no choice.
        """
        ...

    def draw_times(self, generators: list[torch.Generator]) -> Tensor:
        """Return (n,) on the CPU: a time per generator."""
        ...

    def times_at(self, quantiles: Tensor) -> Tensor:
        """Return (n,): the times below which these shares, in [0, 1), of drawn times lie."""
        ...

    def mix(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return the noisy latents at t."""
        ...

    def target(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return what a perfect denoiser predicts."""
        ...

    def min_snr_weights(self, t: Tensor, gamma: float) -> Tensor:
        """Return (n,): min-SNR-γ loss weights (Hang et al., ICCV 2023).

        Raises DoesNotApply where there is no SNR.
        """
        ...


class Diffusion:
    """Variance-preserving diffusion over discrete times, with ε- or v-prediction.

    Stable Diffusion, SDXL.
    """

    times: str | None = None

    def __init__(self, scheduler_config: Any) -> None:
        """Read betas and prediction type from the configuration of any diffusers scheduler."""
        from diffusers import DDPMScheduler

        scheduler: Any = DDPMScheduler.from_config(scheduler_config)
        self.prediction = scheduler.config.prediction_type
        if self.prediction not in ("epsilon", "v_prediction"):
            raise ModelFilesError(
                f"the scheduler asks for prediction_type '{self.prediction}'; "
                "epsilon and v_prediction can be trained."
            )
        self.signal: Tensor = scheduler.alphas_cumprod.sqrt()  # (T,): √ᾱ
        self.noise: Tensor = (1 - scheduler.alphas_cumprod).sqrt()

    def with_times(self, times: str) -> Noising:
        """Raise DoesNotApply: the model itself was trained at uniform times."""
        raise DoesNotApply(
            f"times '{times}' belongs to flow models; this diffusion model draws uniformly from "
            f"its {len(self.signal)} steps, as in its own training. Leave --times out."
        )

    def draw_times(self, generators: list[torch.Generator]) -> Tensor:
        """Draw uniformly from the T discrete times."""
        return torch.cat(
            [torch.randint(len(self.signal), (1,), generator=generator) for generator in generators]
        )

    def times_at(self, quantiles: Tensor) -> Tensor:
        """Return discrete times."""
        last = len(self.signal) - 1  # a product may round up to T
        return (quantiles * len(self.signal)).long().clamp(max=last)

    def mix(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return √ᾱ·x + √(1 − ᾱ)·ε."""
        self._follow(x)
        return _per_sample(self.signal, t, x) * x + _per_sample(self.noise, t, x) * noise

    def target(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return ε, or v = √ᾱ·ε − √(1 − ᾱ)·x."""
        if self.prediction == "epsilon":
            return noise
        self._follow(x)
        return _per_sample(self.signal, t, x) * noise - _per_sample(self.noise, t, x) * x

    def min_snr_weights(self, t: Tensor, gamma: float) -> Tensor:
        """Return min(SNR, γ) / SNR for ε, min(SNR, γ) / (SNR + 1) for v."""
        self._follow(t)
        snr: Tensor = (self.signal / self.noise)[t] ** 2
        return snr.clamp(max=gamma) / (snr if self.prediction == "epsilon" else snr + 1)

    def _follow(self, tensor: Tensor) -> None:
        """Keep the tables where they are read: a copy at each step waits for the GPU."""
        self.signal, self.noise = self.signal.to(tensor.device), self.noise.to(tensor.device)


class Flow:
    """Rectified flow: x and ε are mixed linearly, and the velocity ε − x is predicted (SANA).

    Times are 1000·σ, σ in (0, 1).
    """

    scale = 1000
    times: str | None

    def __init__(self, shift: float, times: str = "uniform") -> None:
        """shift: of logit-normal times toward noise, as in sampling; SANA 1.5 uses 3.

        times: "uniform" as Kim et al. (2026) train tokens, or "logit-normal" as SANA was trained.
        """
        self.shift, self.times = shift, times

    def with_times(self, times: str) -> "Flow":
        """Return the same flow with times drawn in this way."""
        return Flow(self.shift, times)

    def draw_times(self, generators: list[torch.Generator]) -> Tensor:
        """Draw σ uniformly, or logit-normally and then shifted: shift·σ / (1 + (shift − 1)·σ)."""
        if self.times == "uniform":
            return self.scale * torch.cat([torch.rand(1, generator=own) for own in generators])
        normal = torch.cat([torch.randn(1, generator=generator) for generator in generators])
        return self._shifted(normal.sigmoid())

    def times_at(self, quantiles: Tensor) -> Tensor:
        """Return 1000·σ; the shift keeps the order."""
        if self.times == "uniform":
            return self.scale * quantiles
        # At 0 the normal's quantile is −∞ and σ is 0.
        return self._shifted(torch.special.ndtri(quantiles).sigmoid())

    def _shifted(self, sigma: Tensor) -> Tensor:
        return self.scale * self.shift * sigma / (1 + (self.shift - 1) * sigma)

    def mix(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return (1 − σ)·x + σ·ε."""
        sigma = (t / self.scale).view(-1, *[1] * (x.ndim - 1)).to(x)
        return (1 - sigma) * x + sigma * noise

    def target(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return ε − x, at every time."""
        return noise - x

    def min_snr_weights(self, t: Tensor, gamma: float) -> Tensor:
        """Raise DoesNotApply: there is no SNR."""
        raise DoesNotApply(
            "min-SNR weights belong to diffusion models; this one is trained by flow matching."
        )


def dynamic_shift(config: Any, tokens: int) -> float:
    """Return the shift of times for images of so many tokens, as SD3-like pipelines compute it.

    config: of a scheduler, with two lengths and the logarithms of their shifts, between which and
    beyond which a straight line runs (FLUX.1: 256 tokens and 0.5, 4096 and 1.15).
    """
    first, last = config["base_image_seq_len"], config["max_image_seq_len"]
    low, high = config["base_shift"], config["max_shift"]
    return math.exp(low + (high - low) * (tokens - first) / (last - first))


def _per_sample(table: Tensor, t: Tensor, x: Tensor) -> Tensor:
    return table.to(x)[t].view(-1, *[1] * (x.ndim - 1))
