"""Blends of learned and vocabulary tokens, such as `0.7*<a> + 0.3*cat`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from dti_geom import __version__, geometry
from dti_geom.errors import EditingError, GeometryError
from dti_geom.files import LearnedToken, embedding_bytes, write_files
from dti_geom.models import TextEncoder

Method = Literal["slerp", "lerp"]

_TERM = re.compile(
    r"""\s*(?P<sign>[+-])?\s*                              # between terms, and perhaps before the first
        (?:(?P<weight>[0-9]*\.?[0-9]+)\s*\*\s*)?           # 0.7*
        (?P<name><[^<>\s]+> | "[^"]+" | \#[0-9]+ | [^\s<>"+*#-][^\s<>"+*]*)""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Term:
    """One summand: a weight and the name of a token."""

    weight: float
    name: str


@dataclass(frozen=True)
class MergedVector:
    """One vector of a blend, beside what it was made of."""

    encoder: str
    index: int
    norm: float  # embedding units
    similarities: tuple[float, ...]  # cosine with each term, in the expression's order
    term_norms: tuple[float, ...]


@dataclass(frozen=True)
class Merged:
    """A blend, written as a learned token."""

    expression: str
    method: Method
    token: str
    terms: tuple[Term, ...]
    vectors: tuple[MergedVector, ...]
    files: tuple[str, ...]


def parse_expression(text: str) -> tuple[Term, ...]:
    """The terms of `[WEIGHT*]NAME (+|-) [WEIGHT*]NAME …`; a weight that is left out is 1.

    NAME is `<a learned token>`, a word, `"several words"`, or `#id`. Nothing is evaluated: a sum of weighted names is
    all there is. Raises EditingError with the place where the text stops being one.
    """
    terms: list[Term] = []
    place = 0
    while place < len(text.rstrip()):
        found = _TERM.match(text, place)
        if found is None or (terms and found["sign"] is None):
            raise EditingError(
                f"'{text}' is no blend from '{text[place:].strip()}' on. Expected weighted names such as "
                "'0.7*<a> + 0.3*cat'; put several words in double quotes."
            )
        weight = float(found["weight"] or 1) * (-1 if found["sign"] == "-" else 1)
        terms.append(Term(weight, found["name"].strip('"')))
        place = found.end()
    if not terms:
        raise EditingError("an empty blend. Expected weighted names such as '0.7*<a> + 0.3*cat'.")
    if any(term.weight == 0 for term in terms):
        raise EditingError(f"'{text}' has a weight of 0. Leave that name out.")
    return tuple(terms)


def merge(
    expression: str,
    encoders: Sequence[TextEncoder],
    learned: Sequence[LearnedToken],
    path: Path,
    *,
    method: Method = "slerp",
    token: str = "<merged>",
    layout: str = "diffusers",
    overwrite: bool = False,
) -> Merged:
    """Blend tokens in every encoder of a model and write the result as one learned token.

    slerp: the weighted mean of directions on the sphere, which for two terms is the point on the great circle between
        them; weights must be positive. lerp: the direction of the weighted sum; weights may be negative, as in
        "king - man + woman".
    Either way the norm is the mean of the terms' norms by absolute weight, each first brought between the 1st and the
    99th percentile of the vocabulary: an inflated term lends its direction, not its length. Terms of several vectors
    are blended vector by vector; a term of one vector goes with each of them.
    """
    terms = parse_expression(expression)
    if method == "slerp" and any(term.weight < 0 for term in terms):
        raise EditingError(
            f"'{expression}' has a negative weight, which slerp has no meaning for. Use --method lerp."
        )
    blended, described = [], []
    for place, encoder in enumerate(encoders, 1):
        operands = _operands(terms, encoder, place, learned)
        vectors = _blend(operands, terms, method, encoder)
        blended.append(LearnedToken(token, str(place) if len(encoders) > 1 else None, vectors))
        described += [
            MergedVector(
                encoder.name,
                index,
                float(geometry.norms(vector)),
                tuple(
                    torch.cosine_similarity(vector.double(), operands[:, index], dim=-1).tolist()
                ),
                tuple(geometry.norms(operands[:, index]).tolist()),
            )
            for index, vector in enumerate(vectors)
        ]
    metadata = {
        "expression": expression,
        "method": f"merge by {method}",
        "tool": f"dti-geom {__version__}",
    }
    files = embedding_bytes(path, blended, layout, metadata=metadata)
    write_files(files, overwrite=overwrite)
    return Merged(expression, method, token, terms, tuple(described), tuple(map(str, files)))


def _operands(
    terms: Sequence[Term], encoder: TextEncoder, place: int, learned: Sequence[LearnedToken]
) -> Tensor:
    """The vectors of each term in one encoder, (terms, n, d) in float64."""
    found = [_named(term.name, encoder, place, learned).double() for term in terms]
    count = max(map(len, found))
    for term, vectors in zip(terms, found, strict=True):
        if len(vectors) not in (1, count):
            raise EditingError(
                f"{term.name} has {len(vectors)} vectors in {encoder.name}, and another term has {count}. Expected "
                "as many, or one."
            )
    return torch.stack([vectors.expand(count, -1) for vectors in found])


def _named(name: str, encoder: TextEncoder, place: int, learned: Sequence[LearnedToken]) -> Tensor:
    """(n, d): a learned token where there is one of this name and width, else the rows of a word."""
    named = [each for each in learned if each.token == name]
    width = encoder.token_table.shape[1]
    fitting = [each for each in named if each.vectors.shape[1] == width]
    if named and not fitting:
        raise EditingError(
            f"{name} has width {named[0].vectors.shape[1]}, and {encoder.name} has {width}. Choose the model it was "
            "trained for with --model."
        )
    if fitting:
        return fitting[min(place, len(fitting)) - 1].vectors
    return encoder.token_table[encoder.vocabulary.rows(name)]


def _blend(operands: Tensor, terms: Sequence[Term], method: Method, encoder: TextEncoder) -> Tensor:
    """(n, d) in float32."""
    weights = torch.tensor([term.weight for term in terms], dtype=torch.float64)
    low, *_, high = geometry.summarize_norms(encoder.token_table).percentiles
    norms = (weights.abs() @ geometry.norms(operands).clamp(low, high)) / weights.abs().sum()
    if method == "slerp":
        directions = geometry.frechet_mean(geometry.normalize(operands).transpose(0, 1), weights)
    else:
        total = torch.einsum("t,tnd->nd", weights, operands)
        if (geometry.norms(total) <= 1e-6 * geometry.norms(operands).amax(dim=0)).any():
            raise GeometryError("the terms cancel: their sum has no direction. Change a weight.")
        directions = geometry.normalize(total)
    return (norms[:, None] * directions).float()
