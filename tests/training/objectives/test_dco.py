import math

import pytest
import torch
from torch import Tensor

from dti_geom.errors import DoesNotApply
from dti_geom.training import ObjectiveConfig, Trainer
from dti_geom.training.data import Batch, join
from dti_geom.training.objectives import denoising
from dti_geom.training.objectives.dco import dco

Adapted = tuple[Trainer, Batch]


def token_gradient(trainer: Trainer, loss: Tensor) -> Tensor:
    (parameter,) = trainer.concepts[0].trainable.parameters()
    return torch.autograd.grad(loss, parameter, retain_graph=True)[0]


def moved(trainer: Trainer) -> None:
    """Move the adapter away from the frozen model."""
    assert trainer.adapter is not None
    with torch.no_grad():
        for parameter in trainer.adapter.parameters():
            parameter += 0.2


def test_a_new_adapter_has_a_loss_of_log_2_and_half_of_betas_gradient(adapted: Adapted) -> None:
    trainer, batch = adapted
    loss = dco(trainer.model, batch, options=ObjectiveConfig(dco_beta=50.0))["dco"]
    assert loss.tolist() == [pytest.approx(math.log(2), abs=1e-7)] * 2
    error = denoising(trainer.model, batch)["denoising"].mean()
    expected = 25 * token_gradient(trainer, error)
    torch.testing.assert_close(token_gradient(trainer, loss.mean()), expected)


def test_for_a_small_beta_it_is_half_of_beta_times_the_denoising_loss(adapted: Adapted) -> None:
    trainer, batch = adapted
    moved(trainer)
    beta = 1e-3
    loss = dco(trainer.model, batch, options=ObjectiveConfig(dco_beta=beta))["dco"].mean()
    error = denoising(trainer.model, batch)["denoising"].mean()
    assert loss.item() == pytest.approx(math.log(2), abs=1e-3)
    torch.testing.assert_close(
        token_gradient(trainer, loss) / beta, token_gradient(trainer, error) / 2, rtol=1e-2, atol=0
    )


def test_it_compares_batch_means_with_and_without_the_adapter(adapted: Adapted) -> None:
    trainer, batch = adapted
    moved(trainer)
    model = trainer.model
    assert model.adapter is not None
    error = denoising(model, batch)["denoising"].mean()
    with model.adapter.without():
        reference = denoising(model, batch)["denoising"].mean()
    expected = -math.log(1 / (1 + math.exp(7 * (error - reference).item())))
    loss = dco(model, batch, options=ObjectiveConfig(dco_beta=7.0))["dco"]
    assert loss.tolist() == [pytest.approx(expected, rel=1e-4)] * 2


def test_the_reference_may_read_the_class_word(adapted: Adapted) -> None:
    trainer, batch = adapted
    assert trainer.model.adapter is not None
    assert all("dog" in prompt and "<x>" not in prompt for prompt in batch.class_prompts)
    with torch.no_grad():
        trainer.concepts[0].trainable.parameters()[0].mul_(-3)
    trainer.concepts[0].trainable.place(trainer.model, differentiable=True)
    same, other = (
        dco(trainer.model, batch, options=ObjectiveConfig(dco_reference=name))["dco"][0].item()
        for name in ("same", "class-word")
    )
    assert same == pytest.approx(math.log(2), abs=1e-6)
    assert other != pytest.approx(math.log(2), abs=1e-3)


def test_every_token_is_compared_with_its_own_mean(adapted: Adapted) -> None:
    from dataclasses import replace

    trainer, batch = adapted
    moved(trainer)
    other = replace(batch, noise=-batch.noise, tokens=("<y>",) * 2)
    options = ObjectiveConfig(dco_beta=7.0)
    losses = dco(trainer.model, join([batch, other]), options=options)["dco"]
    alone = [dco(trainer.model, part, options=options)["dco"] for part in (batch, other)]
    torch.testing.assert_close(losses, torch.cat(alone))
    assert losses[0] != losses[2]


def test_without_an_adapter_there_is_nothing_to_compare(adapted: Adapted) -> None:
    trainer, batch = adapted
    trainer.model.take_adapter_out()
    with pytest.raises(DoesNotApply, match="without an adapter"):
        dco(trainer.model, batch)
