"""What lies near a token: by direction (cosine), and by true Euclidean distance."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dti_geom import geometry
from dti_geom.errors import UnknownToken
from dti_geom.models import TextEncoder, Vocabulary
from dti_geom.probes.learned import LearnedVector, of_width


@dataclass(frozen=True)
class Similar:
    """A neighbour by direction."""

    token: str
    id: int
    similarity: float  # cosine, −1 … 1


@dataclass(frozen=True)
class Near:
    """A neighbour by distance."""

    token: str
    id: int
    distance: float  # Euclidean, embedding units


@dataclass(frozen=True)
class Neighbors:
    """Both neighbourhoods of one vector in one encoder's token table, nearest first, itself left out."""

    query: str
    encoder: str
    id: int | None  # row of the query; None for a learned token
    norm: float
    cosine: tuple[Similar, ...]
    euclidean: tuple[Near, ...]


@dataclass(frozen=True)
class Query:
    """A vector to look around."""

    label: str
    vector: Tensor  # (d,)
    id: int | None = None


def find_neighbors(
    encoder: TextEncoder, queries: Sequence[Query], k: int = 10
) -> tuple[Neighbors, ...]:
    """The k nearest rows of each query under both metrics, or fewer where the table has fewer non-zero rows.

    Zero rows have no direction and so no cosine. Raises GeometryError for a query without a direction.
    """
    if not queries:
        return ()
    table, vocabulary = encoder.token_table, encoder.vocabulary
    vectors = torch.stack([query.vector.to(table) for query in queries])
    k_and_itself = min(k + 1, int(table.any(dim=1).sum()))
    cosine = geometry.nearest(vectors, table, k_and_itself, metric="cosine")
    euclidean = geometry.nearest(vectors, table, k_and_itself, metric="euclidean")
    lengths = geometry.norms(vectors)
    return tuple(
        Neighbors(
            query=query.label,
            encoder=encoder.name,
            id=query.id,
            norm=lengths[place].item(),
            cosine=tuple(Similar(*row) for row in _others(vocabulary, cosine, place, query.id, k)),
            euclidean=tuple(
                Near(*row) for row in _others(vocabulary, euclidean, place, query.id, k)
            ),
        )
        for place, query in enumerate(queries)
    )


def parse_queries(
    encoder: TextEncoder, words: Iterable[str], learned: Sequence[LearnedVector] = ()
) -> list[Query]:
    """What a user names: a learned token, a word (each of its tokens), or `#id`. Raises UnknownToken."""
    table, vocabulary = encoder.token_table, encoder.vocabulary
    queries = []
    for word in words:
        named = [one for one in learned if one.token == word]
        if named:
            fitting = of_width(named, table.shape[1])
            if not fitting:
                raise UnknownToken(
                    f"{word} has width {named[0].vector.shape[-1]}, but {encoder.name} has width {table.shape[1]}. "
                    "Choose the model it was trained for with --model."
                )
            queries += [Query(one.label, one.vector) for one in fitting]
            continue
        rows = vocabulary.rows(word)
        queries += [
            Query(name, table[row], row)
            for name, row in zip(vocabulary.tokens(rows), rows, strict=True)
        ]
    return queries


def _others(
    vocabulary: Vocabulary, found: tuple[Tensor, Tensor], place: int, itself: int | None, k: int
) -> list[tuple[str, int, float]]:
    pairs = zip(found[1][place].tolist(), found[0][place].tolist(), strict=True)
    kept = [(row, value) for row, value in pairs if row != itself][:k]
    names = vocabulary.tokens(row for row, _ in kept)
    return [(name, row, value) for name, (row, value) in zip(names, kept, strict=True)]
