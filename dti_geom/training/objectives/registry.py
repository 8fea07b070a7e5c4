"""The objectives by name. Adding one takes a file beside this one and a line here.

An objective is a function (model, batch, *, min_snr) → {name of a loss: (n,) values}, free of
side effects. `Method.objectives` names those that a method minimises; the losses are added.
"""

from typing import Protocol

from torch import Tensor

from dti_geom.models.pipelines import TextToImage
from dti_geom.training.data import Batch
from dti_geom.training.objectives.denoising import denoising


class Objective(Protocol):
    """A function from a batch to named losses, each (n,), one value per sample."""

    def __call__(
        self, model: TextToImage, batch: Batch, *, min_snr: float | None = None
    ) -> dict[str, Tensor]:
        """Return the losses of a batch."""


OBJECTIVES: dict[str, Objective] = {
    "denoising": denoising,
}
