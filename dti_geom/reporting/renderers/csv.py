"""Render the tables of a section as one CSV text."""

from collections.abc import Sequence

from dti_geom.files.csv_text import csv_text
from dti_geom.reporting.blocks import Section, Span, Table, Value, tables


def section_csv(section: Section) -> str:
    """Return all tables as one: a first column names the table, and each row fills its own columns.

    Numbers keep all their digits. Empty where the section has no table.
    """
    lines = [
        (
            ": ".join((*titles, table.title)),
            dict(zip(table_heads(table), flat_row(table, row), strict=True)),
        )
        for titles, table in tables(section)
        for row in table.rows
    ]
    if not lines:
        return ""
    columns = list(dict.fromkeys(head for _, cells in lines for head in cells))
    rows = [[name, *(cells.get(column) for column in columns)] for name, cells in lines]
    return csv_text([["table", *columns], *rows])


def table_heads(table: Table) -> list[str]:
    """Name every column once, with its unit; a heading that stands twice gets the one before it."""
    titles = [column.title for column in table.columns]
    heads: list[str] = []
    for place, column in enumerate(table.columns):
        head = column.title
        if titles.count(head) > 1 and place:
            head = f"{titles[place - 1]} {head}"
        if column.unit and column.unit != "×":
            head = f"{head}, {column.unit}"
        heads += [f"{head} low", f"{head} high"] if _is_span(table, place) else [head]
    return heads


def flat_row(table: Table, row: Sequence[Value]) -> list[Value]:
    """Return the values of a row, an interval as its two ends, as `table_heads` names them."""
    flat: list[Value] = []
    for place, value in enumerate(row):
        if not _is_span(table, place):
            flat.append(value)
        else:
            flat += [value.low, value.high] if isinstance(value, Span) else [None, None]
    return flat


def _is_span(table: Table, place: int) -> bool:
    return any(isinstance(row[place], Span) for row in table.rows)
