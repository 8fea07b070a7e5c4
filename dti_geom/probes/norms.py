"""Measure how long an encoder's tokens are, and where learned vectors fall among them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from dti_geom import geometry
from dti_geom.geometry import NormSummary
from dti_geom.models import TextEncoder, Vocabulary
from dti_geom.models.row_kinds import KINDS, NEVER_READ, row_kinds
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
    method: str | None = None  # the training method, as its file says


@dataclass(frozen=True)
class Histogram:
    """Counts of non-zero rows by norm, with a few of the tokens in each bin."""

    # One more than counts. Rows beyond the outermost edges are counted in the outermost bins.
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    examples: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class RowGroup:
    """Rows of one kind, and their norms."""

    kind: str
    told_by: str  # how a row is known to belong here
    rows: int
    norms: NormSummary | None  # None: every row is zero
    examples: tuple[str, ...]


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
    # Each row is in one group. Empty without a tokenizer, and in results of older versions.
    groups: tuple[RowGroup, ...] = ()
    trained: NormSummary | None = None  # of the groups that text can teach; None: no groups


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
        **_grouped(encoder, lengths),
    )


UNTAUGHT = {
    "like rows never read": "as near to the mean of the reserved rows, and as short, as these are",
    "repeated": "the same as another row, to a thousandth of its norm",
}


def _grouped(encoder: TextEncoder, lengths: Tensor) -> dict[str, Any]:
    """Return the groups of rows, and the summary of those that text can teach."""
    vocabulary, table = encoder.vocabulary, encoder.token_table
    if vocabulary.tokenizer is None:
        return {}
    kinds = row_kinds(vocabulary) + ["beyond the tokenizer"] * (len(table) - vocabulary.size)
    by_kind: dict[str, list[int]] = {kind: [] for kind in (*KINDS, *UNTAUGHT)}
    never = [row for row, kind in enumerate(kinds) if kind in NEVER_READ]
    examples = torch.tensor(never, dtype=torch.long, device=table.device)
    similar = geometry.resembling_rows(table, examples, lengths).tolist()
    repeated = geometry.repeated_rows(table, lengths).tolist()
    for row, kind in enumerate(kinds):
        if kind not in NEVER_READ and similar[row]:
            kind = "like rows never read"
        elif kind not in NEVER_READ and repeated[row]:
            kind = "repeated"
        by_kind[kind].append(row)
    untaught = {*NEVER_READ, *UNTAUGHT}
    taught = [row for kind, rows in by_kind.items() if kind not in untaught for row in rows]
    return {
        "groups": tuple(
            RowGroup(
                kind=kind,
                told_by=(KINDS | UNTAUGHT)[kind],
                rows=len(rows),
                norms=_summary(lengths, rows),
                examples=tuple(vocabulary.tokens(rows[:: max(1, len(rows) // 3)][:3])),
            )
            for kind, rows in by_kind.items()
            if rows
        ),
        "trained": _summary(lengths, taught),
    }


def _summary(lengths: Tensor, rows: list[int]) -> NormSummary | None:
    chosen = lengths[torch.tensor(rows, dtype=torch.long, device=lengths.device)]
    return geometry.summarize_norms(chosen[:, None], chosen) if chosen.any() else None


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
        method=learned.method,
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
