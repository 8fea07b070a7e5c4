"""Decay of the norm toward 0.4, as cloneofsimo/lora does.

Its strength is the share of the gap that an update closes, over the learning rate; at most all.
"""

from torch import Tensor

from dti_geom import geometry
from dti_geom.training.methods.base import Method, Step


def _decay(e: Tensor, step: Step) -> Tensor:
    norm = geometry.norms(e)[:, None]
    # At strength 100, a learning rate of 0.01 closes the whole gap: the decay is a projection.
    closed = min(1.0, step.strength * step.rate)
    return geometry.normalize(e) * (norm + closed * (step.magnitude - norm))


METHOD = Method(
    name="norm-decay",
    summary="TI, its norm drawn toward 0.4 by min(1, 100·rate) after each step",
    form="free",
    magnitude="0.4",
    strength=100.0,
    after_step=_decay,
)
