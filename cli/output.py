"""Print results on standard output; notices and progress on standard error."""

import codecs
import io
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.text import Text

from dti_geom.reporting.renderers import terminal
from dti_geom.reporting.renderers.terminal import filled, visible

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import ProgressColumn

    from dti_geom.progress import Progress
    from dti_geom.reporting.blocks import Section
    from dti_geom.sweeps.engines import Outcome
    from dti_geom.sweeps.sweep import CellProgress
    from dti_geom.training.run import Progress as TrainingProgress
    from dti_geom.training.trainer import StepRecord

# One character for one, so that columns stay aligned where the output has no Unicode.
_PLAIN = {"×": "x", "÷": "/", "–": "-", "—": "-", "−": "-", "…": ".", "“": '"', "”": '"', "’": "'"}
_PLAIN |= {"·": ".", "→": ">", "│": "|", "─": "-"}
_PLAIN |= dict.fromkeys("╭╮╰╯┌┐└┘├┤┬┴┼━╸╺", "-")

_out = Console(highlight=False)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


def print_error(message: str) -> None:
    """Print one red message on standard error."""
    _print_message(f"error: {message}", "red")


def print_notice(message: str) -> None:
    """Print a notice on standard error; the command continues."""
    _print_message(message, "yellow")


def _print_message(message: str, style: str) -> None:
    # Only a terminal wants lines that fit it; a log keeps each message on one line.
    text = filled(message, _err.width) if _err.is_terminal else visible(message)
    _err.print(Text(text, style=style))


def print_line(message: str = "", style: str = "") -> None:
    """Print a line of the result; tokens in it are text, never markup."""
    terminal.print_line(_out, message, style)


def print_json(result: Any) -> None:
    """Print the result as JSON and nothing else."""
    from dti_geom.files import dumps

    print(escaped_json(dumps(result), sys.stdout.encoding))


def escaped_json(text: str, encoding: str) -> str:
    """Return JSON of the same value, without characters that steer a terminal.

    Characters that the encoding lacks are escaped too.
    """
    return re.sub(r"[^\n -~]", lambda match: _escaped(match[0], encoding), text)


def _escaped(character: str, encoding: str) -> str:
    if character.isprintable() and character.encode(encoding, "ignore"):
        return character
    return json.dumps(character)[1:-1]


def accept_any_text(stream: TextIO) -> None:
    """Let a stream write what its encoding lacks in plain characters, or escaped."""
    if isinstance(stream, io.TextIOWrapper):
        codecs.register_error("plain", _in_plain)
        stream.reconfigure(errors="plain")


def _in_plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    parts = [
        _PLAIN.get(character, character.encode("ascii", "backslashreplace").decode())
        for character in error.object[error.start : error.end]
    ]
    return "".join(parts), error.end


def print_section(section: "Section") -> None:
    """Print a result's sentences and tables."""
    terminal.print_section(_out, section)
    print_line()


@contextmanager
def reading_progress() -> "Iterator[Progress]":
    """Yield a listener that draws a bar with the remaining time for each large read."""
    from rich.progress import DownloadColumn

    with _bars(DownloadColumn()) as listen:
        yield listen


@contextmanager
def working_progress() -> "Iterator[Progress]":
    """Yield a listener that draws a bar with the remaining time for each long computation."""
    from rich.progress import TaskProgressColumn

    with _bars(TaskProgressColumn()) as listen:
        yield listen


@contextmanager
def _bars(amount: "ProgressColumn") -> "Iterator[Progress]":
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    name = TextColumn("{task.description}", markup=False)  # of a file or token: never markup
    columns = (name, BarColumn(), amount, TimeRemainingColumn())
    with Progress(*columns, console=_err, transient=True, disable=not _err.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def listen(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(visible(name), total=total)
            bars.update(tasks[name], completed=done)

        yield listen


@contextmanager
def training_progress() -> "Iterator[TrainingProgress]":
    """Yield a listener that draws a bar with loss, norm and the remaining time."""
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
    """Yield a listener that draws one bar for all cells of a sweep and reports failures."""
    # Cells are few and long: estimate the remaining time from the whole sweep's pace.
    with _counting("last", speed_estimate_period=1e9) as bars:
        task = bars.add_task("cells", total=None, last="")

        def listen(outcome: "Outcome | None", ended: int, total: int) -> None:
            if outcome is None:  # cells done earlier say nothing about the pace
                bars.reset(task, completed=ended, total=total)
                return
            name = visible(f"{outcome.cell.label}, seed {outcome.cell.run.seed}")
            if outcome.error:
                print_notice(f"{name} failed: {outcome.error}")
            bars.update(task, completed=ended, last=f"last: {name}")

        yield listen


def _counting(field: str, **options: Any) -> "RichProgress":
    """Return a bar with a count and the remaining time, and one field of its task at the end."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn(f"{{task.fields[{field}]}}", markup=False),
    )
    return Progress(*columns, console=_err, transient=True, disable=not _err.is_terminal, **options)
