"""Say why a probe does not apply to an encoder."""

from collections.abc import Sequence

from dti_geom.errors import DoesNotApply
from dti_geom.models import TextEncoder
from dti_geom.probes.learned import LearnedVector, of_width
from dti_geom.probes.registry import Needs


def check(needs: Needs, encoder: TextEncoder, learned: Sequence[LearnedVector]) -> None:
    """Raise DoesNotApply if the encoder or the vectors lack what is needed."""
    if needs is Needs.LEARNED:
        width = encoder.token_table.shape[1]
        if not of_width(learned, width):
            raise DoesNotApply(
                f"{encoder.name}: no learned vector of width {width} was given, so none has turned."
            )
    if needs is Needs.ABSOLUTE_POSITIONS:
        _require_absolute_positions(encoder)
    if needs in (Needs.PRE_NORM_BLOCKS, Needs.ABSOLUTE_POSITIONS):
        _ = encoder.blocks  # raises DoesNotApply for a post-norm encoder


def _require_absolute_positions(encoder: TextEncoder) -> None:
    positions = encoder.position_table
    if encoder.positions != "absolute" or positions is None:
        raise DoesNotApply(
            f"{encoder.name} has {encoder.positions} positions: nothing is added to its tokens, so "
            "there is no positional part of the input that magnitude could attenuate. "
            "`stagnation` does apply."
        )
    if len(positions) < 2:
        raise DoesNotApply(
            f"{encoder.name} has {len(positions)} position; at least two are needed to tell them "
            "apart."
        )
