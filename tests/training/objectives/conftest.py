"""A batch of the tiny model, with an adapter in its denoiser."""

from collections.abc import Callable

import pytest

from dti_geom.models.pipelines import TextToImage
from dti_geom.training import AdapterConfig, MethodConfig, RunConfig, Trainer
from dti_geom.training.data import Batch


@pytest.fixture
def adapted(
    tiny: Callable[[], TextToImage], config: Callable[..., RunConfig]
) -> tuple[Trainer, Batch]:
    """A trainer with a LoRA that changes nothing yet and a placed token, and its first batch."""
    trainer = Trainer(tiny(), config(method=MethodConfig("ti"), adapter=AdapterConfig()))
    for trainable in trainer.trainables:
        trainable.place(trainer.model, differentiable=True)
    return trainer, trainer._batch(0)
