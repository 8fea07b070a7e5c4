"""Giving learned vectors the magnitude of vocabulary tokens."""

import math
from collections.abc import Sequence
from dataclasses import replace

from dti_geom import geometry
from dti_geom.errors import EditingError
from dti_geom.files import SECOND_TOWER, LearnedToken
from dti_geom.models import TextEncoder

RULES = "mean, median, token:WORD, or a number above 0"


def target_norm(rule: str, encoder: TextEncoder | None = None) -> float:
    """The norm that a rule asks for, in embedding units.

    rule: `mean` or `median` of the encoder's non-zero rows, `token:WORD` for the norm of a word's row (the mean, where
        it has several), or a number.
    Raises EditingError for another rule, or where the rule needs an encoder and there is none; UnknownToken for a word.
    """
    if (number := _number(rule)) is not None:
        return number
    if rule not in ("mean", "median") and not rule.startswith("token:"):
        raise EditingError(f"'{rule}' is no magnitude. Expected {RULES}.")
    if encoder is None:
        raise EditingError(
            f"'{rule}' needs the vocabulary these vectors live in. Name it with --model, or give a number."
        )
    if rule.startswith("token:"):
        rows = encoder.vocabulary.rows(rule.removeprefix("token:"))
        return float(geometry.norms(encoder.token_table[rows]).mean())
    summary = geometry.summarize_norms(encoder.token_table)
    return summary.mean if rule == "mean" else summary.percentiles[geometry.PERCENTILES.index(50)]


def rescale(learned: LearnedToken, norm: float) -> LearnedToken:
    """The token with every vector at this norm: direction and dtype stay. Raises GeometryError for a zero vector."""
    directions = geometry.normalize(learned.vectors.double())
    return replace(learned, vectors=(norm * directions).to(learned.vectors.dtype))


def encoder_for(learned: LearnedToken, encoders: Sequence[TextEncoder]) -> TextEncoder | None:
    """The encoder whose table these vectors fit; None without encoders. Raises EditingError if none of them fits."""
    width = learned.vectors.shape[1]
    fitting = [encoder for encoder in encoders if encoder.token_table.shape[1] == width]
    if encoders and not fitting:
        widths = ", ".join(str(encoder.token_table.shape[1]) for encoder in encoders)
        raise EditingError(
            f"{learned.token} has vectors of width {width}, and the encoders of this model have {widths}. Choose the "
            "model it was trained for with --model."
        )
    return (fitting[-1] if learned.tower in SECOND_TOWER else fitting[0]) if fitting else None


def _number(rule: str) -> float | None:
    try:
        number = float(rule)
    except ValueError:
        return None
    if not (math.isfinite(number) and number > 0):
        raise EditingError(f"{rule} is no magnitude. Expected {RULES}.")
    return number
