"""Scaling toward the table's standard deviation, as diffusers' advanced training does.

Its strength is the exponent: 0 leaves the vectors as they are, 1 gives them the table's deviation.
"""

from torch import Tensor

from dti_geom.training.methods.base import Method, Step


def _match_std(e: Tensor, step: Step) -> Tensor:
    return e * (step.stats.std / e.std()) ** step.strength


METHOD = Method(
    name="std-retraction",
    summary="TI, scaled by (table's std / its std)^0.1 after each step",
    form="free",
    strength=0.1,
    after_step=_match_std,
)
