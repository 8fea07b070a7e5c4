"""Projection to the vocabulary's median norm, as OneTrainer does."""

from torch import Tensor

from dti_geom import geometry
from dti_geom.training.methods.base import Method, Step


def _project(e: Tensor, step: Step) -> Tensor:
    return step.magnitude * geometry.normalize(e)


METHOD = Method(
    name="median-projection",
    summary="TI, set to the vocabulary's median norm after each step",
    form="free",
    magnitude="median",
    after_step=_project,
)
