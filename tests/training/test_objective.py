from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dti_geom.models.pipelines import TextToImage
from dti_geom.training import RunConfig
from dti_geom.training.data import Batch
from dti_geom.training.objectives import denoising
from dti_geom.training.trainer import Trainer


def denoising_losses(model: TextToImage, batch: Batch, min_snr: float | None = None) -> Tensor:
    (losses,) = denoising(model, batch, min_snr=min_snr).values()
    return losses


@pytest.fixture
def batch(
    tiny: Callable[[], TextToImage], config: Callable[..., RunConfig]
) -> tuple[TextToImage, Batch]:
    trainer = Trainer(tiny(), config())
    return trainer.model, trainer.concepts[0].samples.draw(range(4), trainer.model.noising)


def test_a_loss_is_the_mean_squared_error_of_the_noise(batch: tuple[TextToImage, Batch]) -> None:
    model, drawn = batch
    losses = denoising_losses(model, drawn)
    scheduler_noisy = model.noising.mix(drawn.x, drawn.noise, drawn.times)
    states, _ = model.pipeline.encode_prompt(list(drawn.prompts), "cpu", 1, False)
    answer = model.denoiser(scheduler_noisy, drawn.times, states).sample
    torch.testing.assert_close(losses, (answer - drawn.noise).square().mean(dim=(1, 2, 3)))


def test_losses_do_not_depend_on_their_neighbours(batch: tuple[TextToImage, Batch]) -> None:
    model, drawn = batch
    alone = replace(
        drawn,
        x=drawn.x[1:2],
        noise=drawn.noise[1:2],
        times=drawn.times[1:2],
        prompts=drawn.prompts[1:2],
        views=drawn.views[1:2],
    )
    torch.testing.assert_close(denoising_losses(model, alone)[0], denoising_losses(model, drawn)[1])


def test_a_mask_of_ones_changes_nothing_and_a_half_mask_counts_its_half(
    batch: tuple[TextToImage, Batch],
) -> None:
    model, drawn = batch
    plain = denoising_losses(model, drawn)
    ones = torch.ones(4, 1, 8, 8)
    torch.testing.assert_close(denoising_losses(model, replace(drawn, mask=ones)), plain)
    left = ones.clone()
    left[..., 4:] = 0
    halves = [denoising_losses(model, replace(drawn, mask=mask)) for mask in (left, 1 - left)]
    torch.testing.assert_close((halves[0] + halves[1]) / 2, plain)
    assert not torch.allclose(halves[0], plain)


def test_min_snr_weights_multiply_the_losses(batch: tuple[TextToImage, Batch]) -> None:
    model, drawn = batch
    weights = model.noising.min_snr_weights(drawn.times, 5.0)
    torch.testing.assert_close(
        denoising_losses(model, drawn, 5.0), denoising_losses(model, drawn) * weights
    )
