"""Row norms of a table in a few numbers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dti_geom.errors import GeometryError
from dti_geom.geometry._checks import check_table_like
from dti_geom.geometry.sphere import _row_norms

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)


@dataclass(frozen=True)
class NormSummary:
    """Norms of the non-zero rows of a table; all but the counts in embedding units."""

    count: int  # non-zero rows, which all the figures below describe
    zero_rows: int  # rows left out because they are exactly zero, e.g. padding
    mean: float
    std: float  # of the population, that is divided by count
    min: float
    max: float
    percentiles: tuple[float, ...]  # 1, 5, 25, 50, 75, 95, 99 (PERCENTILES), interpolated linearly


def row_norms(table: Tensor) -> Tensor:
    """Norms of the rows of a table, without holding a float32 copy of it.

    table: (..., d), any float dtype. Returns (n,), one for each row, at least float32, without gradient.
    """
    check_table_like(table, "table")
    return _row_norms(table.detach().reshape(-1, table.shape[-1]), "table")


def summarize_norms(table: Tensor, lengths: Tensor | None = None) -> NormSummary:
    """Summary of the row norms of a table.

    table: (..., d), any float dtype. lengths: its `row_norms`, where they were measured already.
    Returns a NormSummary; raises if every row is zero or any is not finite.
    """
    lengths = (row_norms(table) if lengths is None else lengths).double()
    nonzero = lengths[lengths > 0]
    if nonzero.numel() == 0:
        raise GeometryError(
            f"all {lengths.numel()} rows of the table are zero; expected at least one with a norm. "
            "Check that the weights were loaded."
        )
    # Sorted by hand because torch.quantile refuses more than 16 million rows.
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
