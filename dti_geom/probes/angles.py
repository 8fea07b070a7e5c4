"""How far have learned tokens turned from the words they started from?"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dti_geom import geometry
from dti_geom.errors import DoesNotApply, UnknownToken
from dti_geom.models import TextEncoder
from dti_geom.probes.drawing import Drawable
from dti_geom.probes.learned import LearnedVector, of_width, require_some_fit
from dti_geom.probes.material import where_it_applies, whole_words

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
class EncoderAngles(Drawable):
    """Directions of learned vectors in one encoder's token table."""

    name: str
    words: int  # sampled whole words, which the next two figures describe
    between_words: tuple[
        float, ...
    ]  # 5th, 50th and 95th percentile (BAND) of their pairwise angles, radians
    to_nearest: float  # median angle from a word to the nearest other token, radians
    learned: tuple[LearnedAngle, ...]


@dataclass(frozen=True)
class Angles:
    """Directions of learned vectors in every text encoder of a model that has their width."""

    model: str
    encoders: tuple[EncoderAngles, ...]
    does_not_apply: tuple[str, ...]  # a sentence for each other encoder


def model_angles(
    model: str,
    encoders: Sequence[TextEncoder],
    learned: Sequence[LearnedVector],
    *,
    init: str | None = None,
    seed: int = 0,
) -> Angles:
    """`encoder_angles` of each encoder it applies to. Raises EmbeddingFileError if no vector has the width of any."""
    require_some_fit(learned, [encoder.token_table.shape[1] for encoder in encoders], model)
    measured, reasons = where_it_applies(
        encoders, lambda encoder: encoder_angles(encoder, learned, init=init, seed=seed)
    )
    return Angles(model, measured, reasons)


@torch.no_grad()
def encoder_angles(
    encoder: TextEncoder,
    learned: Sequence[LearnedVector],
    *,
    init: str | None = None,
    seed: int = 0,
) -> EncoderAngles:
    """Angles of the vectors that have the table's width to their initialisers and to the nearest tokens.

    init: the initialiser of vectors whose file names none. Of a word of several tokens, vector i is held against token
    i, and where there are more vectors than tokens, against the tokens over again: so the trainer starts them.

    Raises DoesNotApply without such vectors or with fewer than two words, GeometryError for a zero vector.
    """
    table = encoder.token_table
    fitting = of_width(learned, table.shape[1])
    if not fitting:
        raise DoesNotApply(
            f"{encoder.name}: no learned vector of width {table.shape[1]} was given, so none has turned."
        )
    rows = whole_words(encoder, WORDS, seed)
    if len(rows) < 2:
        raise DoesNotApply(
            f"{encoder.name} has one whole word; angles between words take two or more."
        )
    words = geometry.normalize(table[rows.to(table.device)].float())
    return EncoderAngles(
        name=encoder.name,
        words=len(rows),
        between_words=_band(words),
        to_nearest=float(_nearest(table, words, 2)[1].median()),  # each word finds itself first
        learned=_learned(encoder, fitting, init),
    )


def _learned(
    encoder: TextEncoder, learned: Sequence[LearnedVector], init: str | None
) -> tuple[LearnedAngle, ...]:
    table = encoder.token_table
    vectors = torch.stack([one.vector.to(table.device, torch.float32) for one in learned])
    directions, norms = geometry.normalize(vectors), geometry.norms(vectors).tolist()
    nearest, nearest_angle = _nearest(table, directions, 1)
    found = []
    for place, one in enumerate(learned):
        row, unknown = _initializer(encoder, one, init)
        found.append(
            LearnedAngle(
                token=one.token,
                index=one.index,
                path=str(one.path),
                norm=norms[place],
                init=None if row is None else encoder.vocabulary.token(row),
                angle=None if row is None else float(_angle(directions[place], table[row])),
                unknown=unknown,
                nearest=encoder.vocabulary.token(int(nearest[place])),
                nearest_id=int(nearest[place]),
                nearest_angle=float(nearest_angle[place]),
            )
        )
    return tuple(found)


def _initializer(
    encoder: TextEncoder, one: LearnedVector, init: str | None
) -> tuple[int | None, str | None]:
    """The row a vector started from, or why it is not known."""
    word = one.init or init
    if word is None:
        return None, "the file names no initialiser; --init WORD does"
    try:
        rows = encoder.vocabulary.rows(word)
    except UnknownToken as error:
        return None, str(error)
    row = rows[one.index % len(rows)]
    if not encoder.token_table[row].any():
        return None, f"the row of '{word}' is zero, which has no direction"
    return row, None


def _nearest(table: Tensor, directions: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Row and angle of the k-th nearest direction of each: (n,), (n,)."""
    _, rows = geometry.nearest(directions.to(table), table, k, metric="cosine")
    return rows[:, -1], _angle(directions, table[rows[:, -1]])


def _angle(directions: Tensor, rows: Tensor) -> Tensor:
    return geometry.angle(directions, geometry.normalize(rows.float()))


def _band(words: Tensor) -> tuple[float, ...]:
    """Percentiles of all pairwise angles; (n, d) unit vectors."""
    pairs = torch.triu_indices(len(words), len(words), offset=1, device=words.device)
    between = geometry.angle(words[pairs[0]], words[pairs[1]])
    return tuple(torch.quantile(between, torch.tensor(BAND, device=words.device) / 100).tolist())
