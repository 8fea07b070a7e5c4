"""What commands print: tables and JSON on standard output, notices and progress on standard error."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

    from dti_geom.models.sources import Progress
    from dti_geom.reporting import Report
    from dti_geom.training.run import Progress as TrainingProgress
    from dti_geom.training.trainer import StepRecord

_out = Console(highlight=False)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


def print_error(message: str) -> None:
    """One red message on standard error."""
    _err.print(Text(f"error: {message}", style="red"))


def print_notice(message: str) -> None:
    """A message on standard error that does not stop anything."""
    _err.print(Text(message, style="yellow"))


def print_line(message: str = "", style: str = "") -> None:
    """A line of the result; tokens in it are text, never markup."""
    # Broken between words only: a path or a command stays in one piece.
    lines = (
        textwrap.fill(line, _out.width, break_long_words=False, break_on_hyphens=False) for line in message.split("\n")
    )
    _out.print(Text("\n".join(lines), style=style), soft_wrap=True)


def print_json(result: Any) -> None:
    """The result as JSON and nothing else."""
    from dti_geom.artifacts import dumps

    print(dumps(result))


def keep_report(folder: Path, report: "Report", name: str, *, overwrite: bool) -> Path:
    """Write a page and, beside it under this name, the results it was drawn from. Returns the page's path."""
    from dti_geom.artifacts import save_result
    from dti_geom.reporting import write_page

    save_result(folder / name, report, overwrite=overwrite)
    return write_page(folder / "index.html", report, overwrite=overwrite)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table: numbers to the right with four significant digits, everything else as plain text."""
    rows = [list(row) for row in rows]
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        numeric = any(isinstance(row[place], (int, float)) or str(row[place]).startswith("×") for row in rows)
        table.add_column(Text(column), justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    for row in rows:
        table.add_row(*(Text(_format(value)) for value in row))
    _out.print(table)
    _out.print()


def _format(value: Any) -> str:
    if value is None:
        return "–"
    # Trailing zeros stay, so that the digits of a column stand under each other.
    return f"{value:#.4g}".rstrip(".") if isinstance(value, float) else str(value)


@contextmanager
def reading_progress() -> "Iterator[Progress]":
    """A listener that draws a bar with the remaining time for each large read."""
    from rich.progress import DownloadColumn

    with _bars(DownloadColumn()) as listen:
        yield listen


@contextmanager
def working_progress() -> "Iterator[Progress]":
    """A listener that draws a bar with the remaining time for each long computation."""
    from rich.progress import TaskProgressColumn

    with _bars(TaskProgressColumn()) as listen:
        yield listen


@contextmanager
def _bars(amount: "ProgressColumn") -> "Iterator[Progress]":
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    with Progress(*columns, console=_err, transient=True, disable=not _err.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def listen(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        yield listen


@contextmanager
def training_progress() -> "Iterator[TrainingProgress]":
    """A listener that draws a bar with loss, norm and the remaining time."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=_err, transient=True, disable=not _err.is_terminal) as bars:
        task = bars.add_task("opening the model", total=None, figures="")

        def listen(record: "StepRecord", total: int) -> None:
            loss = sum(record.losses.values()) / len(record.losses)
            figures = f"loss {loss:.3f} · norm {record.vectors[0].norm:.3g}"
            bars.update(task, description="training", total=total, completed=record.step, figures=figures)

        yield listen
