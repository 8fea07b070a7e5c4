"""Blends of learned and vocabulary tokens, such as `0.7*<a> + 0.3*cat`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from dti_geom import __version__, geometry
from dti_geom.editing.concepts import Concept, concepts_of, find_concept
from dti_geom.errors import EditingError, GeometryError
from dti_geom.files import EmbeddingFile, LearnedToken, embedding_bytes, write_files
from dti_geom.models import TextEncoder

BlendMethod = Literal["slerp", "lerp"]

_TERM = re.compile(
    r"""\s*(?P<sign>[+-])?\s*                  # between terms, and perhaps before the first
        (?:(?P<weight>[0-9]*\.?[0-9]+)\s*\*\s*)?  # 0.7*
        (?P<name><[^<>\s]+> | "[^"]+" | \#[0-9]+
            | [^\s<>"+*#-][^\s<>"+*]*:<[^<>\s]+> | [^\s<>"+*#-][^\s<>"+*]*)""",
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
    method: BlendMethod
    token: str
    terms: tuple[Term, ...]
    vectors: tuple[MergedVector, ...]
    files: tuple[str, ...]


def parse_expression(text: str) -> tuple[Term, ...]:
    """Return the terms of `[WEIGHT*]NAME (+|-) [WEIGHT*]NAME …`; a missing weight is 1.

    NAME is `<a learned token>`, `path:<a learned token>`, a word, `"several words"`, or `#id`. The
    expression is a sum of weighted names and nothing else. Raises EditingError, which quotes the
    part it cannot read.
    """
    terms: list[Term] = []
    place = 0
    while place < len(text.rstrip()):
        match = _TERM.match(text, place)
        if match is None or (terms and match["sign"] is None):
            raise EditingError(
                f"'{text}' is no blend from '{text[place:].strip()}' on. Expected weighted names "
                "such as '0.7*<a> + 0.3*cat'; put several words in double quotes."
            )
        weight = float(match["weight"] or 1) * (-1 if match["sign"] == "-" else 1)
        terms.append(Term(weight, match["name"].strip('"')))
        place = match.end()
    if not terms:
        raise EditingError("an empty blend. Expected weighted names such as '0.7*<a> + 0.3*cat'.")
    if any(term.weight == 0 for term in terms):
        raise EditingError(f"'{text}' has a weight of 0. Leave that name out.")
    return tuple(terms)


def merge(
    expression: str,
    encoders: Sequence[TextEncoder],
    files: Sequence[EmbeddingFile],
    path: Path,
    *,
    method: BlendMethod = "slerp",
    token: str = "<merged>",
    layout: str = "diffusers",
    overwrite: bool = False,
) -> Merged:
    """Blend tokens in every encoder of a model, and write the result as one learned token.

    method: "slerp" takes the weighted mean of directions on the sphere; for two terms that is a
        point on the great circle between them. Weights must be positive. "lerp" takes the direction
        of the weighted sum; weights may be negative, as in "king - man + woman".
    files: hold the learned tokens that the expression may name. A token that several of them have
        is named with its path: `a.safetensors:<x>`.

    Either way the norm is the mean of the terms' norms, weighted by |weight|. Each norm is first
    clamped between the 1st and the 99th percentile of the vocabulary, so that an inflated term
    lends its direction and not its length. Terms of several vectors are blended vector by vector; a
    term of one vector joins each of them.

    Raises EditingError, UnknownToken, GeometryError where the terms cancel, FileExists.
    """
    terms = parse_expression(expression)
    if method == "slerp" and any(term.weight < 0 for term in terms):
        raise EditingError(
            f"'{expression}' has a negative weight, which slerp has no meaning for. Use --method "
            "lerp."
        )
    concepts = concepts_of(files)
    blended: list[LearnedToken] = []
    described: list[MergedVector] = []
    for place, encoder in enumerate(encoders, 1):
        operands = _operands(terms, encoder, place, concepts)
        vectors = _blend(operands, terms, method, encoder)
        blended.append(LearnedToken(token, str(place) if len(encoders) > 1 else None, vectors))
        described += _described(vectors, operands, encoder)
    metadata = {
        "expression": expression,
        "method": f"merge by {method}",
        "tool": f"dti-geom {__version__}",
    }
    contents = embedding_bytes(path, blended, layout, metadata=metadata)
    write_files(contents, overwrite=overwrite)
    return Merged(
        expression=expression,
        method=method,
        token=token,
        terms=terms,
        vectors=tuple(described),
        files=tuple(map(str, contents)),
    )


def _described(vectors: Tensor, operands: Tensor, encoder: TextEncoder) -> list[MergedVector]:
    """Return each vector of a blend, (n, d), beside its terms, (terms, n, d)."""
    described = []
    for index, vector in enumerate(vectors):
        terms = operands[:, index]
        cosines = torch.cosine_similarity(vector.double(), terms, dim=-1)
        described.append(
            MergedVector(
                encoder=encoder.name,
                index=index,
                norm=float(geometry.norms(vector)),
                similarities=tuple(cosines.tolist()),
                term_norms=tuple(geometry.norms(terms).tolist()),
            )
        )
    return described


def _operands(
    terms: Sequence[Term], encoder: TextEncoder, place: int, concepts: Sequence[Concept]
) -> Tensor:
    """Return the vectors of each term in one encoder, (terms, n, d), float64."""
    operands = [_named(term.name, encoder, place, concepts).double() for term in terms]
    count = max(map(len, operands))
    for term, vectors in zip(terms, operands, strict=True):
        if len(vectors) not in (1, count):
            raise EditingError(
                f"{term.name} has {len(vectors)} vectors in {encoder.name}, and another term has "
                f"{count}. Expected as many, or one."
            )
    return torch.stack([vectors.expand(count, -1) for vectors in operands])


def _named(name: str, encoder: TextEncoder, place: int, concepts: Sequence[Concept]) -> Tensor:
    """Return the vectors of a name in encoder number `place` (from 1), (n, d).

    A learned token of this name and width comes before the rows of a word.
    """
    width = encoder.token_table.shape[1]
    fit = [concept for concept in concepts if width in concept.widths]
    concept = find_concept(name, fit) or find_concept(name, concepts)
    if concept is None:
        return encoder.token_table[encoder.vocabulary.rows(name)]
    fitting = [part for part in concept.tokens if part.vectors.shape[1] == width]
    if not fitting:
        raise EditingError(
            f"{name} has width {concept.tokens[0].vectors.shape[1]}, and {encoder.name} has "
            f"{width}. Choose the model it was trained for with --model."
        )
    return fitting[min(place, len(fitting)) - 1].vectors


def _blend(
    operands: Tensor, terms: Sequence[Term], method: BlendMethod, encoder: TextEncoder
) -> Tensor:
    """(terms, n, d) → (n, d), float32."""
    weights = torch.tensor([term.weight for term in terms], dtype=torch.float64)
    low, *_, high = geometry.summarize_norms(encoder.token_table).percentiles
    norms = (weights.abs() @ geometry.norms(operands).clamp(low, high)) / weights.abs().sum()
    if method == "slerp":
        directions = geometry.frechet_mean(geometry.normalize(operands).transpose(0, 1), weights)
    else:
        total = torch.einsum("t,tnd->nd", weights, operands)
        # What is left of cancelling terms is rounding: its direction means nothing.
        if (geometry.norms(total) <= 1e-6 * geometry.norms(operands).amax(dim=0)).any():
            raise GeometryError("the terms cancel: their sum has no direction. Change a weight.")
        directions = geometry.normalize(total)
    return (norms[:, None] * directions).float()
