"""Decay of the norm toward 0.4, as cloneofsimo/lora does."""

from torch import Tensor

from dti_geom import geometry
from dti_geom.training.methods.base import Method, VocabularyStats


def _decay(e: Tensor, m: Tensor, rate: float, _stats: VocabularyStats) -> Tensor:
    norm = geometry.norms(e)[:, None]
    # From a learning rate of 0.01 on, the whole gap is closed: the decay is a projection.
    return geometry.normalize(e) * (norm + min(1.0, 100 * rate) * (m - norm))


METHOD = Method(
    name="norm-decay",
    summary="TI, its norm drawn toward 0.4 by min(1, 100·rate) after each step",
    form="free",
    magnitude="0.4",
    after_step=_decay,
)
