"""Scaling toward the table's standard deviation, as diffusers' advanced training does."""

from torch import Tensor

from dti_geom.training.methods.base import Method, VocabularyStats


def _match_std(e: Tensor, _m: Tensor, _rate: float, stats: VocabularyStats) -> Tensor:
    return e * (stats.std / e.std()) ** 0.1


METHOD = Method(
    name="std-retraction",
    summary="TI, scaled by (table's std / its std)^0.1 after each step",
    form="free",
    after_step=_match_std,
)
