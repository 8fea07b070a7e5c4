import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dti_geom.errors import DoesNotApply
from dti_geom.models.pipelines import TextToImage
from dti_geom.training import ConceptConfig, MethodConfig, RunConfig, Trainer
from dti_geom.training.objectives.context import PROMPTS
from dti_geom.training.objectives.separation import _contrast, separation


def test_equal_tokens_have_the_loss_of_chance_and_apart_they_have_less(
    tiny: Callable[[], TextToImage], config: Callable[..., RunConfig], images: Path
) -> None:
    concepts = tuple(ConceptConfig(f"<{name}>", str(images), "dog") for name in "xy")
    trainer = Trainer(tiny(), config(concepts=concepts, method=MethodConfig("ti")))
    batch = trainer._batch(0)

    def losses() -> torch.Tensor:
        for concept in trainer.concepts:
            concept.trainable.place(trainer.model, differentiable=True)
        return separation(trainer.model, batch)["separation"]

    equal = losses()
    # Each of the other prompts' outputs, of either token, is as near.
    assert equal.tolist() == [pytest.approx(equal[0].item(), rel=1e-5)] * 4
    assert equal[0] > 0.1 * math.log((2 * len(PROMPTS) - 1) / (len(PROMPTS) - 1))
    parameters = [concept.trainable.parameters()[0] for concept in trainer.concepts]
    noise = torch.randn(parameters[0].shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        parameters[0] += noise
    assert losses().max() < equal[0]
    assert all(x.any() for x in torch.autograd.grad(losses().sum(), parameters))


def test_tokens_at_right_angles_have_the_loss_of_that_angle() -> None:
    class Apart:
        """One place in each prompt: the same direction for a token, another for the other."""

        ids = [[0]] * (2 * len(PROMPTS))
        states = [torch.eye(2)[:1]] * len(PROMPTS) + [torch.eye(2)[1:]] * len(PROMPTS)

        def place_of(self, prompt: int, token: str) -> int:
            return 0

    count = len(PROMPTS)
    expected = math.log(count - 1 + count * math.exp(-10))  # a cosine of 1 at a temperature of 0.1
    losses = _contrast(Apart(), ["<x>", "<y>"])  # type: ignore[arg-type]
    assert losses.tolist() == [pytest.approx(expected, rel=1e-5)] * 2


def test_a_single_token_has_nothing_to_be_apart_from(
    tiny: Callable[[], TextToImage], config: Callable[..., RunConfig]
) -> None:
    trainer = Trainer(tiny(), config())
    with pytest.raises(DoesNotApply, match="two tokens"):
        separation(trainer.model, trainer._batch(0))
