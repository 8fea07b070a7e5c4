"""The magnitude language: how `--magnitude` and `--rescale` name the norm of a token.

    MAGNITUDE = NUMBER | [NUMBER*]NAME | learned
    NAME      = mean | median | min | max | init | token:WORD

NUMBER      above 0, in embedding units: `0.4`. Before `*` it multiplies: `2*mean`.
mean …      of the norms of the token table's rows that are not zero. The median is a row's own
            norm: the lower of the two middle ones where the number of rows is even.
init        the norm of the word that the token starts from, vector by vector.
token:WORD  the norm of a word of one token, or of the row `#id`.
learned     starts at the mean and learns. Only a training takes it, and without a factor.
"""

import math
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor

from dti_geom import geometry
from dti_geom.errors import MagnitudeError
from dti_geom.geometry import NormSummary
from dti_geom.models.vocabulary import Vocabulary

Name = Literal["number", "mean", "median", "min", "max", "init", "token", "learned"]
WHOLE_TABLE = ("mean", "median", "min", "max")

_EXPECTED = "mean, median, min, max, init, token:WORD, a number times one of these (2*mean)"


@dataclass(frozen=True)
class Magnitude:
    """A norm as the user names it, before the vocabulary it refers to is known."""

    text: str  # as it was written
    name: Name
    factor: float = 1.0  # times the norm of `name`; for "number" the norm itself
    word: str | None = None  # of "token"

    @property
    def needs_vocabulary(self) -> bool:
        """Whether it refers to rows of a token table."""
        return self.name != "number"


def parse_magnitude(text: str, *, may_learn: bool = False) -> Magnitude:
    """Read a magnitude. may_learn: whether `learned` is allowed.

    Raises MagnitudeError naming the grammar for everything else, such as `0`, `nan` or `average`.
    """
    before, star, after = text.partition("*")
    factor, name = _above_zero(before), after
    if not star or factor is None:  # a word may hold a star of its own: token:a*b
        factor, name = 1.0, text
    if name in WHOLE_TABLE or name == "init":
        return Magnitude(text, cast(Name, name), factor)
    if name.startswith("token:") and name != "token:":
        return Magnitude(text, "token", factor, name.removeprefix("token:"))
    if may_learn and text == "learned":
        return Magnitude(text, "learned")
    if (number := _above_zero(text)) is not None:
        return Magnitude(text, "number", number)
    learned = "learned, " if may_learn else ""
    raise MagnitudeError(
        f"'{text}' is no magnitude; expected {_EXPECTED}, {learned}or a number above 0."
    )


def row_norm(
    magnitude: Magnitude,
    table: Tensor,
    vocabulary: Vocabulary,
    summary: NormSummary | None = None,
) -> float:
    """Return the norm that `magnitude.name` refers to, in embedding units, without the factor.

    table: (V, d), any float dtype. summary: of its row norms, where it was measured already.
    A number refers to 1, `learned` to the mean.

    Raises MagnitudeError for `init`, which only a training knows, and for a word of several
    tokens; UnknownToken for a word that the vocabulary lacks.
    """
    if magnitude.name == "number":
        return 1.0
    if magnitude.name == "init":
        raise MagnitudeError(
            f"magnitude '{magnitude.text}' is the norm of a start word, and there is none here. "
            "Name the word: token:WORD."
        )
    if magnitude.name == "token":
        row = _single_row(magnitude, vocabulary)
        return float(geometry.norms(table[row].float()))
    if magnitude.name == "median":
        lengths = geometry.row_norms(table)
        # The lower of the two middle rows, where their number is even: a norm that a token has.
        return float(lengths[lengths > 0].median())
    summary = summary or geometry.summarize_norms(table)
    return {
        "mean": summary.mean,
        "learned": summary.mean,
        "min": summary.min,
        "max": summary.max,
    }[magnitude.name]


def token_norms(
    magnitude: Magnitude,
    table: Tensor,
    vocabulary: Vocabulary,
    init: Tensor,
    summary: NormSummary | None = None,
) -> Tensor:
    """Return the norm of each vector of a token that starts from the rows `init`.

    table, vocabulary, summary: as for `row_norm`. init: (n, d). Returns (n, 1), float32.
    """
    if magnitude.name == "init":
        norms = geometry.norms(init)[:, None]
    else:
        ones = torch.ones(len(init), 1, device=init.device)
        norms = row_norm(magnitude, table, vocabulary, summary) * ones
    return magnitude.factor * norms


def _single_row(magnitude: Magnitude, vocabulary: Vocabulary) -> int:
    word = magnitude.word or ""
    rows = vocabulary.rows(word)
    if len(rows) > 1:
        pieces = " ".join(vocabulary.tokens(rows))
        raise MagnitudeError(
            f"magnitude '{magnitude.text}': {word} is {len(rows)} tokens here ({pieces}). "
            "Choose a word of one token, or one of these rows: "
            f"{', '.join(f'token:#{row}' for row in rows)}."
        )
    return rows[0]


def _above_zero(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if number > 0 and math.isfinite(number) else None
