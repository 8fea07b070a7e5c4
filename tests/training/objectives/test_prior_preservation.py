from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dti_geom.errors import TrainingError
from dti_geom.models.pipelines import TextToImage
from dti_geom.training import AdapterConfig, ObjectiveConfig, RunConfig, Trainer
from dti_geom.training.objectives import denoising
from dti_geom.training.objectives.prior_preservation import prior_preservation
from dti_geom.training.run import train

PRESERVING = ObjectiveConfig(("denoising", "prior-preservation"), prior_count=2, prior_weight=0.5)


@pytest.fixture
def preserving(config: Callable[..., RunConfig]) -> RunConfig:
    return config(adapter=AdapterConfig(), objective=PRESERVING, steps=2)


def test_it_is_the_weighted_loss_of_class_images_under_their_word(
    tiny: Callable[[], TextToImage], preserving: RunConfig, images: Path
) -> None:
    trainer = Trainer(tiny(), preserving, class_images=[str(images)])
    batch = trainer._batch(0)
    assert batch.prior is not None
    assert set(batch.prior.prompts) == {"a photo of a dog"}
    assert not torch.equal(batch.prior.noise, batch.noise)
    (losses,) = prior_preservation(trainer.model, batch, options=PRESERVING).values()
    torch.testing.assert_close(losses, 0.5 * denoising(trainer.model, batch.prior)["denoising"])


def test_the_model_paints_class_images_once(
    tiny: Callable[[], TextToImage], preserving: RunConfig, tmp_path: Path
) -> None:
    train(preserving, tmp_path, model=tiny())
    painted = sorted((tmp_path / "class_images").rglob("*.png"))
    assert [path.name for path in painted] == ["0000.png", "0001.png"]
    assert painted[0].read_bytes() != painted[1].read_bytes()
    with pytest.raises(TrainingError, match="the run has none"):
        train(preserving, None, model=tiny())


def test_given_class_images_are_taken(
    tiny: Callable[[], TextToImage], preserving: RunConfig, images: Path, tmp_path: Path
) -> None:
    given = replace(preserving, objective=replace(PRESERVING, prior_images=str(images)))
    train(given, tmp_path, model=tiny())
    assert not (tmp_path / "class_images").exists()
