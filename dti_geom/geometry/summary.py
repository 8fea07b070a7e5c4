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
