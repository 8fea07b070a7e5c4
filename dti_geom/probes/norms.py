"""Measure how long an encoder's tokens are, and where learned vectors fall among them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from dti_geom import geometry
from dti_geom.geometry import NormSummary
from dti_geom.models import TextEncoder, Vocabulary
from dti_geom.probes.learned import LearnedVector, of_width
from dti_geom.probes.result import Result

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

    # One more than counts. Rows beyond the outermost edges are counted in the outermost bins.
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    examples: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class NormsResult(Result):
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


def measure_norms(
    encoder: TextEncoder, learned: Sequence[LearnedVector] = (), *, extremes: int = 10
) -> NormsResult:
    """Return the L2 norms of the token table's rows, in embedding units, and place vectors in them.

    learned: vectors of another width than the table's are left out. extremes: how many of the
    longest and shortest tokens are listed. Zero rows are counted and left out of everything else.

    Raises GeometryError if every row is zero.
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
    return NormsResult(
        name=encoder.name,
        vocab_size=len(table),
        dim=table.shape[1],
        norms=summary,
        longest=rows(order[-extremes:].flip(0)),
        shortest=rows(order[:extremes]),
        special=rows(special),
        learned=tuple(
            _place(vector, summary, ascending) for vector in of_width(learned, table.shape[1])
        ),
        histogram=_histogram(order, ascending, encoder.vocabulary),
    )


def norms_arrays(encoder: TextEncoder) -> dict[str, NDArray[numpy.floating]]:
    """Return the norm of every row of the token table, zero rows too, under the encoder's name."""
    return {encoder.name: geometry.row_norms(encoder.token_table).cpu().numpy()}


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
    """Count rows in bins of equal width between the 0.1st and the 99.9th percentile.

    The outermost bins also count what lies beyond. Otherwise a single long token, such as the end
    token of CLIP, would squeeze the whole vocabulary into a few bins.
    """
    last = len(ascending) - 1
    low, high = ascending[round(0.001 * last)].item(), ascending[round(0.999 * last)].item()
    # Twice the Rice rule's 2·∛n: few rows get fewer, fuller bins. Equal rows all share one.
    bins = min(MOST_BINS, math.ceil(4 * len(ascending) ** (1 / 3))) if high > low else 1
    edges = torch.linspace(low, high, bins + 1, dtype=ascending.dtype)
    borders = [0, *torch.searchsorted(ascending, edges[1:-1]).tolist(), len(ascending)]
    spans = list(pairwise(borders))
    picked = [
        range(start, stop, max(1, (stop - start) // EXAMPLES_PER_BIN))[:EXAMPLES_PER_BIN]
        for start, stop in spans
    ]
    names = iter(vocabulary.tokens(order[list(chain.from_iterable(picked))].tolist()))
    return Histogram(
        edges=tuple(edges.tolist()),
        counts=tuple(stop - start for start, stop in spans),
        examples=tuple(tuple(next(names) for _ in places) for places in picked),
    )
