"""Measure how far learned tokens have turned from the words they started from."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dti_geom import geometry
from dti_geom.errors import DoesNotApply, UnknownToken
from dti_geom.models import TextEncoder
from dti_geom.probes.learned import LearnedVector, of_width
from dti_geom.probes.material import whole_words
from dti_geom.probes.registry import Needs
from dti_geom.probes.result import Result

BAND = (5, 50, 95)  # percentiles of the angles between words
WORDS = 128


@dataclass(frozen=True)
class LearnedAngle:
    """Where a learned vector points; angles in radians, 0 … π."""

    token: str
    index: int
    path: str
    norm: float  # embedding units
    init: str | None  # the token it started from; None: `unknown` says why
    angle: float | None  # to that token's direction
    unknown: str | None
    nearest: str  # the token whose direction is nearest
    nearest_id: int
    nearest_angle: float


@dataclass(frozen=True)
class AnglesResult(Result):
    """Directions of learned vectors in one encoder's token table."""

    name: str
    words: int  # sampled whole words, which the next two figures describe
    between_words: tuple[float, ...]  # percentiles (BAND) of their pairwise angles, radians
    to_nearest: float  # median angle from a word to the nearest other token, radians
    learned: tuple[LearnedAngle, ...]


@torch.no_grad()
def measure_angles(
    encoder: TextEncoder,
    learned: Sequence[LearnedVector] = (),
    *,
    init: str | None = None,
    seed: int = 0,
) -> AnglesResult:
    """Return the angles of learned vectors to their initialisers and to the nearest tokens.

    learned: vectors of another width than the table's are left out. init: the initialiser of
    vectors whose file names none. If the initialiser has several tokens, vector i is compared with
    token i, and further vectors with the tokens over again: this is how the trainer starts them.

    Raises DoesNotApply without vectors of the table's width or with fewer than two words,
    GeometryError for a zero vector.
    """
    Needs.LEARNED.check(encoder, learned)
    table = encoder.token_table
    rows = whole_words(encoder, WORDS, seed)
    if len(rows) < 2:
        raise DoesNotApply(
            f"{encoder.name} has one whole word; angles between words take two or more."
        )
    words = geometry.normalize(table[rows.to(table.device)].float())
    return AnglesResult(
        name=encoder.name,
        words=len(rows),
        between_words=_band(words),
        to_nearest=float(_nearest(table, words, 2)[1].median()),  # each word finds itself first
        learned=_learned(encoder, of_width(learned, table.shape[1]), init),
    )


def _learned(
    encoder: TextEncoder, learned: Sequence[LearnedVector], init: str | None
) -> tuple[LearnedAngle, ...]:
    table = encoder.token_table
    vectors = torch.stack([vector.vector.to(table.device, torch.float32) for vector in learned])
    directions, norms = geometry.normalize(vectors), geometry.norms(vectors).tolist()
    nearest, nearest_angle = _nearest(table, directions, 1)
    angles = []
    for place, vector in enumerate(learned):
        row, unknown = _initializer(encoder, vector, init)
        angles.append(
            LearnedAngle(
                token=vector.token,
                index=vector.index,
                path=str(vector.path),
                norm=norms[place],
                init=None if row is None else encoder.vocabulary.token(row),
                angle=None if row is None else float(_angle(directions[place], table[row])),
                unknown=unknown,
                nearest=encoder.vocabulary.token(int(nearest[place])),
                nearest_id=int(nearest[place]),
                nearest_angle=float(nearest_angle[place]),
            )
        )
    return tuple(angles)


def _initializer(
    encoder: TextEncoder, vector: LearnedVector, init: str | None
) -> tuple[int | None, str | None]:
    """Return the row a vector started from, or why it is not known."""
    word = vector.init or init
    if word is None:
        return None, "the file names no initialiser; give one with --init WORD"
    try:
        rows = encoder.vocabulary.rows(word)
    except UnknownToken as error:
        return None, str(error)
    row = rows[vector.index % len(rows)]
    if not encoder.token_table[row].any():
        return None, f"the row of '{word}' is zero, which has no direction"
    return row, None


def _nearest(table: Tensor, directions: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return row and angle of the k-th nearest direction of each: (n,), (n,)."""
    _, rows = geometry.nearest(directions.to(table), table, k, metric="cosine")
    return rows[:, -1], _angle(directions, table[rows[:, -1]])


def _angle(directions: Tensor, rows: Tensor) -> Tensor:
    return geometry.angle(directions, geometry.normalize(rows.float()))


def _band(words: Tensor) -> tuple[float, ...]:
    """Return percentiles of all pairwise angles; words: (n, d) unit vectors."""
    pairs = torch.triu_indices(len(words), len(words), offset=1, device=words.device)
    between = geometry.angle(words[pairs[0]], words[pairs[1]])
    return tuple(torch.quantile(between, torch.tensor(BAND, device=words.device) / 100).tolist())
