from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dti_geom.models.pipelines import TextToImage
from dti_geom.training import MethodConfig, ObjectiveConfig, RunConfig, Trainer
from dti_geom.training.data import Batch
from dti_geom.training.objectives.context import context, shared_places

ids = st.lists(st.integers(0, 3), min_size=1, max_size=6)


@given(start=ids, end=ids, first=ids, second=ids)
def test_shared_places_hold_the_same_tokens_in_order(
    start: list[int], end: list[int], first: list[int], second: list[int]
) -> None:
    ours, theirs = [*start, *first, *end], [*start, *second, *end]
    here, there = shared_places(ours, theirs)
    assert [ours[place] for place in here] == [theirs[place] for place in there]
    assert len(set(here)) == len(here) >= min(len(ours), len(theirs), len(start) + len(end))


def loss_of(trainer: Trainer, batch: Batch, weight: float = 0.1) -> torch.Tensor:
    trainer.concepts[0].trainable.place(trainer.model, differentiable=True)
    return context(trainer.model, batch, options=ObjectiveConfig(context_weight=weight))["context"]


@pytest.fixture
def drawn(
    tiny: Callable[[], TextToImage], config: Callable[..., RunConfig]
) -> tuple[Trainer, Batch]:
    trainer = Trainer(tiny(), config(method=MethodConfig("ti")))
    return trainer, trainer._batch(0)


def test_a_token_that_is_its_class_word_disturbs_no_context(drawn: tuple[Trainer, Batch]) -> None:
    assert loss_of(*drawn).abs().max() < 1e-5


def test_a_huge_token_disturbs_it_more_and_the_gradient_leads_back(
    drawn: tuple[Trainer, Batch],
) -> None:
    trainer, batch = drawn
    vectors: Any = trainer.concepts[0].trainable
    (parameter,) = vectors.parameters()
    noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    losses = []
    for size in (0.005, 0.05):
        with torch.no_grad():
            parameter.copy_(vectors.vectors[0].start + size * noise)
        losses.append(loss_of(trainer, batch)[0])
    assert 1e-5 < losses[0] < losses[1]
    torch.testing.assert_close(loss_of(trainer, batch, 0.4)[0], 4 * losses[1])
    losses[1].backward()
    assert parameter.grad is not None
    with torch.no_grad():
        parameter -= 0.05 * parameter.grad / parameter.grad.norm()
    assert loss_of(trainer, batch)[0] < losses[1]
