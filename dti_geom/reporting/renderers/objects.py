"""Render a result as Python objects: a line of text, a plot, a table, JSON."""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from dti_geom.errors import DtiGeomError
from dti_geom.files import dumps
from dti_geom.reporting.blocks import Figure, Finding, Table, blocks_of
from dti_geom.reporting.registry import section_of
from dti_geom.reporting.renderers.csv import flat_row, table_heads
from dti_geom.reporting.text import sentence

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure as PlotlyFigure

Kept = TypeVar("Kept", Figure, Table)

LINE = 160  # characters of a result's line


def result_line(result: object) -> str:
    """Return the title and the first finding of a result on one line."""
    kind = type(result).__name__
    try:
        section = section_of(result)
    except Exception:  # a debugger also prints objects that are half made
        return f"<{kind}>"
    findings = [finding.text for _, finding in blocks_of(section, Finding)]
    said = ": ".join([" · ".join(filter(None, (section.title, section.aside))), *findings[:1]])
    return f"<{kind} {sentence(said, LINE)}>"


def result_figure(result: object, which: int | str) -> "PlotlyFigure":
    """Return one plot of a result, as `Result.figure` says. Raises DtiGeomError."""
    found = list(blocks_of(section_of(result), Figure))
    named = [(_name(titles, figure.label or figure.caption), figure) for titles, figure in found]
    return _chosen("plot", named, which).draw()


def result_table(result: object, which: int | str) -> "DataFrame":
    """Return one table of a result, as `Result.table` says. Raises DtiGeomError."""
    found = list(blocks_of(section_of(result), Table))
    named = [(_name(titles, table.title), table) for titles, table in found]
    table = _chosen("table", named, which)
    try:
        pandas = importlib.import_module("pandas")
    except ModuleNotFoundError as error:
        raise DtiGeomError(
            "table() returns a pandas DataFrame, and pandas is not installed. Run: pip install "
            "'dti-geom[pandas]'. Without it, to_json() has the same numbers."
        ) from error
    rows = [flat_row(table, row) for row in table.rows]
    frame: DataFrame = pandas.DataFrame(rows, columns=table_heads(table))
    return frame


def result_json(result: object) -> str:
    """Return a result as JSON text."""
    return dumps(result)


def _name(titles: Sequence[str], title: str) -> str:
    return sentence(": ".join(filter(None, (*titles, title))))


def _chosen(kind: str, named: Sequence[tuple[str, Kept]], which: int | str) -> Kept:
    """Return the plot or table that a number or a part of its name means."""
    if isinstance(which, str):
        found = [item for name, item in named if which.lower() in name.lower()]
    else:
        found = [item for _, item in named][which:][:1] if which < len(named) else []
    if not found:
        there = "; ".join(f"{number} {name}" for number, (name, _) in enumerate(named))
        raise DtiGeomError(
            f"no {kind} {which!r}. There {'is none' if not named else f'are: {there}'}."
        )
    return found[0]
