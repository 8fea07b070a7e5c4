"""Write the values of a table's cells, in the same words on a page and in a terminal."""

import math
from collections.abc import Callable, Sequence

from dti_geom.reporting.blocks import Column, Span, Table, Value
from dti_geom.reporting.text import number

NO_VALUE = "–"


def cell_texts(table: Table) -> list[list[str]]:
    """Return the texts of a table's cells by row. Numbers of one column share their decimals."""
    columns = [
        column_texts(column, [row[place] for row in table.rows])
        for place, column in enumerate(table.columns)
    ]
    return [list(row) for row in zip(*columns, strict=True)]


def column_texts(column: Column, values: Sequence[Value]) -> list[str]:
    """Return the texts of one column's cells."""
    numbers = [part for value in values for part in _floats(value)]
    decimals = _shared_decimals(numbers, column.digits)

    def text(value: float) -> str:
        if not math.isfinite(value):
            return str(value)
        if decimals is None:
            return number(value, column.digits)
        return f"{value + 0.0:.{decimals}f}".replace("-", "−")  # + 0.0 turns −0.0 into 0.0

    return [_text(column, value, text) for value in values]


def _text(column: Column, value: Value, text: Callable[[float], str]) -> str:
    if isinstance(value, Span):
        if value.low is None or value.high is None:
            return NO_VALUE
        return f"{text(value.low)} to {text(value.high)}{_behind(column.unit)}"
    if value is None:
        return NO_VALUE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    shown = text(value) if isinstance(value, float) else str(value).replace("-", "−")
    return f"×{shown}" if column.unit == "×" else f"{shown}{_behind(column.unit)}"


def _behind(unit: str) -> str:
    if not unit or unit == "×":
        return ""
    return unit if unit == "°" else f" {unit}"


def _floats(value: Value) -> list[float]:
    if isinstance(value, Span):
        return [part for part in (value.low, value.high) if part is not None]
    return [value] if isinstance(value, float) else []


def _shared_decimals(values: Sequence[float], digits: int) -> int | None:
    """Return the decimals a column's numbers share; None if the smallest would keep one digit."""
    sizes = [abs(value) for value in values if value and math.isfinite(value)]
    if not sizes:
        return 0
    decimals = max(0, digits - 1 - math.floor(math.log10(max(sizes))))
    if min(sizes) < 10 ** (1 - decimals) or max(sizes) >= 1e6:
        return None
    # Drop decimals that are zeros in the whole column.
    while decimals and all(round(size, decimals) == round(size, decimals - 1) for size in sizes):
        decimals -= 1
    return decimals
