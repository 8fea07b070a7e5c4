"""Find what lies near a token: by direction (cosine), and by Euclidean distance."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dti_geom import geometry
from dti_geom.errors import DoesNotApply, UnknownToken
from dti_geom.models import TextEncoder, Vocabulary
from dti_geom.probes.learned import LearnedVector, of_width
from dti_geom.probes.result import Result

# Measured where no token is named: those of them that the model has as one token.
WORDS = ("dog", "cat", "house", "red", "two", "fox", "beach", "happy")
LEARNED_SHOWN = 12  # learned vectors measured where no token is named; more is not readable


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
class TokenNeighbors(Result):
    """Both neighbourhoods of one vector in one encoder's token table, nearest first."""

    query: str
    encoder: str
    id: int | None  # row of the query, which is left out; None for a learned token
    norm: float
    cosine: tuple[Similar, ...]
    euclidean: tuple[Near, ...]
    method: str | None = None  # by which a learned token was trained, as its file says


@dataclass(frozen=True)
class NeighborsResult(Result):
    """Neighbourhoods of several vectors in one encoder's token table."""

    name: str
    queries: tuple[TokenNeighbors, ...]


@dataclass(frozen=True)
class Query:
    """A vector whose neighbours are wanted."""

    label: str
    vector: Tensor  # (d,)
    id: int | None = None
    learned: LearnedVector | None = None


def measure_neighbors(
    encoder: TextEncoder,
    learned: Sequence[LearnedVector] = (),
    *,
    tokens: str | Sequence[str] = (),
    k: int = 10,
    with_learned: bool = False,
) -> NeighborsResult:
    """Return the k nearest rows of each token, by cosine and by Euclidean distance.

    tokens: one word or several: a learned token, a word (each of its tokens is measured) or `#id`.
    Without any, those of WORDS that are one token here and the first LEARNED_SHOWN of `learned`.
    with_learned: also measure these learned vectors beside the named tokens, as a report does.

    Raises UnknownToken for a name that is none of these, DoesNotApply where there is nothing to
    measure.
    """
    queries = named_queries(encoder, learned, tokens, with_learned=with_learned)
    return NeighborsResult(encoder.name, find_neighbors(encoder, queries, k))


def named_queries(
    encoder: TextEncoder,
    learned: Sequence[LearnedVector],
    tokens: str | Sequence[str],
    *,
    with_learned: bool = False,
) -> list[Query]:
    """Return the vectors that a measurement of named tokens is about, as `measure_neighbors` says.

    Raises UnknownToken, DoesNotApply where there is none.
    """
    names = (tokens,) if isinstance(tokens, str) else tuple(tokens)
    fitting = of_width(learned, encoder.token_table.shape[1])
    queries = parse_queries(encoder, names, learned) if names else _usual(encoder)
    if with_learned or not names:
        labels = {query.label for query in queries}
        queries += [
            Query(vector.label, vector.vector, learned=vector)
            for vector in fitting[:LEARNED_SHOWN]
            if vector.label not in labels
        ]
    if not queries:
        raise DoesNotApply(
            f"{encoder.name}: none of the words {', '.join(WORDS)} is a single token. Name a word "
            "that is one."
        )
    return queries


def find_neighbors(
    encoder: TextEncoder, queries: str | Sequence[Query], k: int = 10
) -> tuple[TokenNeighbors, ...]:
    """Return the k nearest rows of each query under both metrics.

    queries: from `named_queries` or `parse_queries`, or one word or `#id`.

    There are fewer where the table has fewer non-zero rows: zero rows have no direction and so no
    cosine. Raises UnknownToken, GeometryError for a query without a direction.
    """
    if isinstance(queries, str):
        queries = parse_queries(encoder, [queries])
    if not queries:
        return ()
    table, vocabulary = encoder.token_table, encoder.vocabulary
    vectors = torch.stack([query.vector.to(table) for query in queries])
    # A query that is a row finds itself too, so one more is asked for.
    k_and_itself = min(k + 1, int(table.any(dim=1).sum()))
    cosine = geometry.nearest(vectors, table, k_and_itself, metric="cosine")
    euclidean = geometry.nearest(vectors, table, k_and_itself, metric="euclidean")
    lengths = geometry.norms(vectors)
    return tuple(
        TokenNeighbors(
            query=query.label,
            encoder=encoder.name,
            id=query.id,
            norm=lengths[place].item(),
            cosine=tuple(Similar(*row) for row in _others(vocabulary, cosine, place, query.id, k)),
            euclidean=tuple(
                Near(*row) for row in _others(vocabulary, euclidean, place, query.id, k)
            ),
            method=None if query.learned is None else query.learned.method,
        )
        for place, query in enumerate(queries)
    )


def parse_queries(
    encoder: TextEncoder, words: Iterable[str], learned: Sequence[LearnedVector] = ()
) -> list[Query]:
    """Return the vectors a user names: a learned token, a word (each of its tokens), or `#id`.

    Raises UnknownToken.
    """
    table, vocabulary = encoder.token_table, encoder.vocabulary
    queries = []
    for word in words:
        named = [vector for vector in learned if vector.token == word]
        if named:
            fitting = of_width(named, table.shape[1])
            if not fitting:
                raise UnknownToken(
                    f"{word} has width {named[0].vector.shape[-1]}, but {encoder.name} has width "
                    f"{table.shape[1]}. Choose the model it was trained for with --model."
                )
            queries += [Query(vector.label, vector.vector, learned=vector) for vector in fitting]
            continue
        rows = vocabulary.rows(word)
        queries += [
            Query(name, table[row], row)
            for name, row in zip(vocabulary.tokens(rows), rows, strict=True)
        ]
    return queries


def _usual(encoder: TextEncoder) -> list[Query]:
    """Return those of WORDS that are one token."""
    queries: list[Query] = []
    for word in WORDS:
        try:
            word_queries = parse_queries(encoder, [word])
        except UnknownToken:
            continue
        if len(word_queries) == 1:
            queries += word_queries
    return queries


def _others(
    vocabulary: Vocabulary, nearest: tuple[Tensor, Tensor], place: int, itself: int | None, k: int
) -> list[tuple[str, int, float]]:
    """Return token, row and value of the k nearest rows of one query, itself left out."""
    pairs = zip(nearest[1][place].tolist(), nearest[0][place].tolist(), strict=True)
    kept = [(row, value) for row, value in pairs if row != itself][:k]
    names = vocabulary.tokens(row for row, _ in kept)
    return [(name, row, value) for name, (row, value) in zip(names, kept, strict=True)]
