"""AdamW, then projection to the sphere: the ablation of Kim et al. (2026)."""

from torch import Tensor

from dti_geom import geometry
from dti_geom.training.methods.base import Method, Step


def _retract(v: Tensor, _step: Step) -> Tensor:
    return geometry.normalize(v)


METHOD = Method(
    name="adamw-sphere",
    summary="AdamW on the direction, projected back to the sphere after each step",
    form="direction",
    magnitude="mean",
    after_step=_retract,
)
