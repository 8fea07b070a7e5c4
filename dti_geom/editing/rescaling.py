"""Giving learned vectors the magnitude of vocabulary tokens."""

from collections.abc import Sequence
from dataclasses import replace

from dti_geom import geometry
from dti_geom.errors import EditingError
from dti_geom.files import SECOND_TOWER, LearnedToken
from dti_geom.models import TextEncoder
from dti_geom.models.magnitude import parse_magnitude, row_norm


def target_norm(text: str, encoder: TextEncoder | None = None) -> float:
    """Return the norm that a magnitude names, in embedding units.

    text: in the language of `dti_geom.models.magnitude`, such as `mean`, `1.5*token:dog` or `0.4`.
    encoder: the one whose vocabulary it refers to; a number needs none.

    Raises MagnitudeError for what is no magnitude and for a word of several tokens, UnknownToken
    for an unknown word, EditingError where an encoder is needed and there is none.
    """
    magnitude = parse_magnitude(text)
    if not magnitude.needs_vocabulary:
        return magnitude.factor
    if encoder is None:
        raise EditingError(
            f"'{text}' needs the vocabulary these vectors belong to. Name it with --model, or give "
            "a number."
        )
    return magnitude.factor * row_norm(magnitude, encoder.token_table, encoder.vocabulary)


def rescale(learned: LearnedToken, norm: float) -> LearnedToken:
    """Return the token with every vector at this norm; directions and dtype stay.

    norm: in embedding units. Raises GeometryError for a zero vector.
    """
    directions = geometry.normalize(learned.vectors.double())
    return replace(learned, vectors=(norm * directions).to(learned.vectors.dtype))


def encoder_for(learned: LearnedToken, encoders: Sequence[TextEncoder]) -> TextEncoder | None:
    """Return the encoder whose token table has these vectors' width; None without encoders.

    Of two encoders of the same width, the token's tower decides. Raises EditingError if none fits.
    """
    width = learned.vectors.shape[1]
    fitting = [encoder for encoder in encoders if encoder.token_table.shape[1] == width]
    if encoders and not fitting:
        widths = ", ".join(str(encoder.token_table.shape[1]) for encoder in encoders)
        raise EditingError(
            f"{learned.token} has vectors of width {width}, and the encoders of this model have "
            f"{widths}. Choose the model it was trained for with --model."
        )
    if not fitting:
        return None
    return fitting[-1] if learned.tower in SECOND_TOWER else fitting[0]
