"""Find blocks of a section, for tests of sections."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

from dti_geom.reporting.blocks import Figure, Finding, Section, Table, Value, tables

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

Block = TypeVar("Block")


def blocks_of(section: Section, kind: type[Block]) -> list[Block]:
    """Return the section's own blocks of one kind."""
    return [block for block in section.blocks if isinstance(block, kind)]


def findings(section: Section) -> list[str]:
    """Return the sentences of the section's own findings."""
    return [finding.text for finding in blocks_of(section, Finding)]


def figures(section: Section) -> "Iterator[PlotlyFigure]":
    """Draw every figure of a section, those of subsections too."""
    for block in section.blocks:
        if isinstance(block, Figure):
            yield block.draw()
        elif isinstance(block, Section):
            yield from figures(block)


def titles(section: Section) -> list[str]:
    """Return the titles of all tables, those of subsections too."""
    return [table.title for _, table in tables(section)]


def table_named(section: Section, start: str) -> Table:
    """Return the only table whose title starts like this."""
    (table,) = [table for _, table in tables(section) if table.title.startswith(start)]
    assert all(len(row) == len(table.columns) for row in table.rows)
    return table


def column(table: Table, title: str) -> list[Value]:
    """Return the cells below the first heading of that title."""
    place = [column.title for column in table.columns].index(title)
    return [row[place] for row in table.rows]
