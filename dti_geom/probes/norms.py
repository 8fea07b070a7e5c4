"""How long are an encoder's tokens, which are unusual, and where does a learned one fall?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from dti_geom import geometry
from dti_geom.geometry import NormSummary
from dti_geom.models import TextEncoder, Vocabulary
from dti_geom.probes.drawing import Drawable
from dti_geom.probes.learned import LearnedVector, of_width

MOST_BINS = 80
EXAMPLES_PER_BIN = 6


@dataclass(frozen=True)
class TokenNorm:
    """A row of the token table and its length."""

    token: str
    id: int
    norm: float  # embedding units


@dataclass(frozen=True)
class PlacedToken:
    """A learned vector, placed in the distribution of the non-zero rows."""

    token: str
    index: int
    path: str
    norm: float
    z_score: float | None  # (norm − mean) / std; None where every row has the same length
    percentile: float  # share of rows that are not longer, in percent
    inflation: float  # norm / mean


@dataclass(frozen=True)
class Histogram:
    """Counts of non-zero rows by norm, with a few of the tokens in each bin."""

    edges: tuple[
        float, ...
    ]  # one more than counts; rows beyond the outermost are counted in the outermost bins
    counts: tuple[int, ...]
    examples: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class EncoderNorms(Drawable):
    """Row norms of one encoder's token table."""

    name: str
    vocab_size: int
    dim: int
    norms: NormSummary
    longest: tuple[TokenNorm, ...]
    shortest: tuple[TokenNorm, ...]  # of the non-zero rows
    special: tuple[TokenNorm, ...]
    learned: tuple[PlacedToken, ...]
    histogram: Histogram


@dataclass(frozen=True)
class Norms:
    """Row norms of every text encoder of a model."""

    model: str
    encoders: tuple[EncoderNorms, ...]


def encoder_norms(
    encoder: TextEncoder, learned: Sequence[LearnedVector] = (), extremes: int = 10
) -> EncoderNorms:
    """Norms of the token table's rows, in embedding units; learned vectors of the table's width are placed in them.

    Zero rows are counted and left out of everything else. Raises GeometryError if every row is zero.
    """
    table = encoder.token_table
    lengths = geometry.row_norms(table)
    summary = geometry.summarize_norms(table, lengths)
    order = lengths.argsort(stable=True)
    order = order[lengths[order] > 0]
    ascending = lengths[order]

    def rows(ids: Tensor) -> tuple[TokenNorm, ...]:
        names = encoder.vocabulary.tokens(ids.tolist())
        return tuple(
            TokenNorm(name, row, norm)
            for name, row, norm in zip(names, ids.tolist(), lengths[ids].tolist(), strict=True)
        )

    special = torch.tensor(sorted(set(encoder.vocabulary.special.values())), dtype=torch.long)
    return EncoderNorms(
        name=encoder.name,
        vocab_size=len(table),
        dim=table.shape[1],
        norms=summary,
        longest=rows(order[-extremes:].flip(0)),
        shortest=rows(order[:extremes]),
        special=rows(special),
        learned=tuple(_place(one, summary, ascending) for one in of_width(learned, table.shape[1])),
        histogram=_histogram(order, ascending, encoder.vocabulary),
    )


def _place(learned: LearnedVector, summary: NormSummary, ascending: Tensor) -> PlacedToken:
    norm = float(geometry.norms(learned.vector))
    not_longer = int(
        torch.searchsorted(ascending, torch.tensor(norm, dtype=ascending.dtype), right=True)
    )
    return PlacedToken(
        token=learned.token,
        index=learned.index,
        path=str(learned.path),
        norm=norm,
        z_score=(norm - summary.mean) / summary.std if summary.std > 0 else None,
        percentile=100 * not_longer / len(ascending),
        inflation=norm / summary.mean,
    )


def _histogram(order: Tensor, ascending: Tensor, vocabulary: Vocabulary) -> Histogram:
    """Bins of equal width between the 0.1st and the 99.9th percentile; the outermost bins take what lies beyond.

    A single long token (the end token of CLIP) would otherwise squeeze the whole vocabulary into a few bins.
    """
    last = len(ascending) - 1
    low, high = ascending[round(0.001 * last)].item(), ascending[round(0.999 * last)].item()
    bins = (
        min(MOST_BINS, math.ceil(4 * len(ascending) ** (1 / 3))) if high > low else 1
    )  # few rows: fewer, fuller bins
    edges = torch.linspace(low, high, bins + 1, dtype=ascending.dtype)
    borders = [0, *torch.searchsorted(ascending, edges[1:-1]).tolist(), len(ascending)]
    spans = list(pairwise(borders))
    picked = [
        range(start, stop, max(1, (stop - start) // EXAMPLES_PER_BIN))[:EXAMPLES_PER_BIN]
        for start, stop in spans
    ]
    names = iter(
        vocabulary.tokens(order[[place for places in picked for place in places]].tolist())
    )
    return Histogram(
        edges=tuple(edges.tolist()),
        counts=tuple(stop - start for start, stop in spans),
        examples=tuple(tuple(next(names) for _ in places) for places in picked),
    )
