"""Norms of the rows of a table, and their summary."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dti_geom.errors import GeometryError
from dti_geom.geometry._checks import check_table_like
from dti_geom.geometry.sphere import _row_norms

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)


@dataclass(frozen=True)
class NormSummary:
    """Norms of the non-zero rows of a table, in the units of the table."""

    count: int  # non-zero rows, which all the numbers below describe
    zero_rows: int  # rows that are exactly zero, e.g. padding
    mean: float
    std: float  # of the population: the sum of squares is divided by count
    min: float
    max: float
    percentiles: tuple[float, ...]  # 1, 5, 25, 50, 75, 95, 99 (PERCENTILES), interpolated linearly


def row_norms(table: Tensor) -> Tensor:
    """Return the norms of the rows of a table, without a float32 copy of the table.

    table: (..., d), any float dtype. Returns (n,), one number per row, at least float32, without
    gradient. Raises GeometryError for NaN and infinity.
    """
    check_table_like(table, "table")
    return _row_norms(table.detach().reshape(-1, table.shape[-1]), "table")


def summarize_norms(table: Tensor, lengths: Tensor | None = None) -> NormSummary:
    """Return a summary of the row norms of a table.

    table: (..., d), any float dtype. lengths: its `row_norms`, if they were measured already.
    Raises GeometryError if all rows are zero or any is not finite.
    """
    # In float64 the rounding of sums over hundreds of thousands of rows does not show.
    lengths = (row_norms(table) if lengths is None else lengths).double()
    nonzero = lengths[lengths > 0]
    if nonzero.numel() == 0:
        raise GeometryError(
            f"all {lengths.numel()} rows of the table are zero; expected at least one with a norm. "
            "Check that the weights were loaded."
        )
    # Not torch.quantile, which refuses more than 16 million rows.
    ordered = nonzero.sort().values
    place = (
        torch.tensor(PERCENTILES, dtype=torch.float64, device=ordered.device)
        / 100
        * (ordered.numel() - 1)
    )
    below, above = ordered[place.floor().long()], ordered[place.ceil().long()]
    return NormSummary(
        count=nonzero.numel(),
        zero_rows=lengths.numel() - nonzero.numel(),
        mean=float(nonzero.mean()),
        std=float(nonzero.std(correction=0)),
        min=float(ordered[0]),
        max=float(ordered[-1]),
        percentiles=tuple(torch.lerp(below, above, place.frac()).tolist()),
    )


FEWEST_EXAMPLES = 8
MARGIN = 1.05  # of the length; examples may all have nearly the same
COHERENT = 0.5  # length of the mean direction, 0 … 1, from which rows count as one cluster


def resembling_rows(table: Tensor, examples: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Return which rows look like rows that nothing taught.

    table: (n, d). examples: (k,), numbers of rows known to be of that kind. Returns (n,), bool,
    true for the examples, and for rows that are as near to their mean direction as 99 % of them are
    and not longer by more than MARGIN.
    Where there are fewer than FEWEST_EXAMPLES, or the examples point in all directions, nothing can
    be told about other rows: true for the examples alone.

    Rows that are never read all move alike, by the gradient of tied output weights and by weight
    decay (Land and Bartolo, "Fishing for Magikarp", 2024, section 2).
    """
    lengths = row_norms(table) if lengths is None else lengths
    found = torch.zeros(len(table), dtype=torch.bool, device=table.device)
    found[examples] = True
    examples = examples[lengths[examples] > 0]
    if len(examples) < FEWEST_EXAMPLES:
        return found
    directions = table[examples].float() / lengths[examples, None].float()
    mean = directions.mean(dim=0)
    if mean.norm() < COHERENT:
        return found
    cosines = (table @ mean.to(table.dtype)).float() / (lengths.float() * mean.norm())
    nearest = cosines[examples].quantile(0.01)
    longest = MARGIN * lengths[examples].quantile(0.99)
    similar: Tensor = (lengths > 0) & (cosines >= nearest) & (lengths <= longest)
    return found | similar


def repeated_rows(table: Tensor, lengths: Tensor | None = None, tolerance: float = 1e-3) -> Tensor:
    """Return which rows are nearly the same as the row that is next to them in length.

    table: (n, d). tolerance: largest distance, over the row's norm. Returns (n,), bool; zero rows
    are left out. Copies of a row have its length, so that sorting by length brings them together.
    """
    lengths = row_norms(table) if lengths is None else lengths
    order = lengths.argsort(stable=True)
    found = torch.zeros(len(table), dtype=torch.bool, device=table.device)
    for part in torch.arange(len(order) - 1, device=table.device).split(4096):
        first, second = order[part], order[part + 1]
        apart = (table[first].float() - table[second].float()).norm(dim=-1)
        same = (apart <= tolerance * lengths[second]) & (lengths[first] > 0)
        found[first[same]] = True
        found[second[same]] = True
    return found
