"""What commands print: tables and JSON on standard output, notices and progress on standard error."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import ProgressColumn

    from dti_geom.progress import Progress
    from dti_geom.reporting.blocks import Section
    from dti_geom.sweeps import Outcome
    from dti_geom.sweeps.sweep import Progress as CellProgress
    from dti_geom.training.run import Progress as TrainingProgress
    from dti_geom.training.trainer import StepRecord

_out = Console(highlight=False)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


def print_error(message: str) -> None:
    """One red message on standard error."""
    _print_message(f"error: {message}", "red")


def print_notice(message: str) -> None:
    """A message on standard error that does not stop anything."""
    _print_message(message, "yellow")


def _print_message(message: str, style: str) -> None:
    # Only a terminal wants lines that fit it; a log keeps each message in one.
    _err.print(
        Text(_filled(message, _err.width) if _err.is_terminal else _visible(message), style=style)
    )


def print_line(message: str = "", style: str = "") -> None:
    """A line of the result; tokens in it are text, never markup."""
    _out.print(Text(_filled(message, _out.width), style=style), soft_wrap=True)


def _filled(message: str, width: int) -> str:
    """Broken between words only: a path or a command stays in one piece. width: terminal cells, not characters."""
    lines = []
    for paragraph in _visible(message).split("\n"):
        line, *words = paragraph.split(" ")
        for word in words:
            if cell_len(f"{line} {word}") > width:
                lines.append(line)
                line = word
            else:
                line += f" {word}"
        lines.append(line)
    return "\n".join(lines)


def _visible(text: str) -> str:
    """Tokens and file names come from strangers: what would steer a terminal is shown as an escape instead."""
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode()
        for each in text
    )


def print_json(result: Any) -> None:
    """The result as JSON and nothing else."""
    from dti_geom.files import dumps

    print(dumps(result))


def keep_report(*_arguments: Any, **_options: Any) -> None:
    """Stand in until every command writes its page through reporting.folder."""
    raise NotImplementedError


def print_section(section: "Section") -> None:
    """Print a result's sentences and tables."""
    from dti_geom.reporting.renderers import terminal

    terminal.print_section(_out, section)
    print_line()


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    files: Sequence[str] | None = None,
) -> None:
    """A table: numbers to the right, everything else as plain text.

    files: the path of each row, for a last column. Where that is too wide, the column holds numbers, and the paths
    stand below, each in one piece.
    """
    rows = list(rows)
    values = [[row[place] for row in rows] for place in range(len(columns))]
    numeric = [
        any(isinstance(one, (int, float)) or str(one).startswith("×") for one in column)
        for column in values
    ]
    cells = [_aligned(column) for column in values]
    below: dict[str, str] = {}
    if files is not None:
        columns, numeric, cells = [*columns, "file"], [*numeric, False], [*cells, list(files)]
        widths = [
            max(map(cell_len, (name, *column))) for name, column in zip(columns, cells, strict=True)
        ]
        if sum(widths) + 2 * (len(widths) - 1) > _out.width:
            below = {path: str(number) for number, path in enumerate(dict.fromkeys(files), 1)}
            cells[-1] = [below[path] for path in files]
    if title:
        print_line(title)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, right in zip(columns, numeric, strict=True):
        table.add_column(
            Text(name), justify="right" if right else "left", overflow="fold", no_wrap=right
        )
    for row in zip(*cells, strict=True):
        table.add_row(*(Text(_visible(cell.replace("\n", "\\n"))) for cell in row))
    for segments in _out.render_lines(table, pad=False):
        line = Text.assemble(*((segment.text, segment.style or "") for segment in segments))
        line.rstrip()
        _out.print(line, soft_wrap=True)
    for path, number in below.items():
        print_line(f"file {number}: {path}")
    print_line()


def _aligned(column: Sequence[Any]) -> list[str]:
    """A column's cells. Its numbers share their decimals where four digits of the largest leave two of the least."""
    numbers = [
        abs(value)
        for value in column
        if isinstance(value, float) and value and math.isfinite(value)
    ]
    decimals = max(0, 3 - math.floor(math.log10(max(numbers)))) if numbers else 0
    if numbers and min(numbers) < 10 ** (1 - decimals):
        return [_shown(value, lambda number: f"{number:#.4g}".rstrip(".")) for value in column]
    while decimals and all(
        round(number, decimals) == round(number, decimals - 1) for number in numbers
    ):
        decimals -= 1  # no digits that are zeros in the whole column
    return [_shown(value, lambda number: f"{number:.{decimals}f}") for value in column]


def _shown(value: Any, number: Callable[[float], str]) -> str:
    if value is None:
        return "–"
    return number(value) if isinstance(value, float) else str(value)


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
    with _counting("figures") as bars:
        task = bars.add_task("opening the model", total=None, figures="")

        def listen(record: "StepRecord", total: int) -> None:
            loss = sum(record.losses.values()) / len(record.losses)
            figures = f"loss {loss:.3f} · norm {record.vectors[0].norm:.3g}"
            bars.update(
                task, description="training", total=total, completed=record.step, figures=figures
            )

        yield listen


@contextmanager
def cell_progress() -> "Iterator[CellProgress]":
    """A listener that draws one bar for all cells of a sweep, and tells of those that fail."""
    # Cells are few and long: the pace of the whole sweep tells more than that of its last half minute.
    with _counting("last", speed_estimate_period=1e9) as bars:
        task = bars.add_task("cells", total=None, last="")

        def listen(outcome: "Outcome | None", ended: int, total: int) -> None:
            if outcome is None:  # what was done before says nothing of the pace
                bars.reset(task, completed=ended, total=total)
                return
            name = f"{outcome.cell.label}, seed {outcome.cell.run.seed}"
            if outcome.error:
                print_notice(f"{name} failed: {outcome.error}")
            bars.update(task, completed=ended, last=f"last: {name}")

        yield listen


def _counting(field: str, **options: Any) -> "RichProgress":
    """A bar of so many of so many, with the remaining time, and this field of its task behind it."""
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
        TextColumn(f"{{task.fields[{field}]}}"),
    )
    return Progress(*columns, console=_err, transient=True, disable=not _err.is_terminal, **options)
