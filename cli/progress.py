"""Show how far long work is: bars at a terminal, a plain line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from dti_geom.reporting.renderers.terminal import visible

from .output import ERRORS, print_notice

if TYPE_CHECKING:
    from rich.progress import ProgressColumn, Task

    from dti_geom.progress import Progress
    from dti_geom.sweeps.engines import Outcome
    from dti_geom.sweeps.sweep import CellProgress
    from dti_geom.training.run import Progress as TrainingProgress
    from dti_geom.training.run import Stage
    from dti_geom.training.trainer import StepRecord

SILENCE = 5.0  # seconds between two plain lines, and before the first
SHARE = 1 / 20  # of the time so far between two lines, so that a log of hours stays short


class Display(Protocol):
    """Shows how far each piece of work is."""

    def __call__(self, name: str, done: int, total: int | None, note: str = "") -> None:
        """Show `done` of `total`, None for an unknown total. note: more to say about it."""


@contextmanager
def reading_progress() -> "Iterator[Progress]":
    """Yield a listener that shows each large read, with the remaining time."""
    with _display(_megabytes, in_bytes=True) as show:
        yield show


@contextmanager
def working_progress() -> "Iterator[Progress]":
    """Yield a listener that shows each long computation, with the remaining time."""
    with _display(_counted) as show:
        yield show


@contextmanager
def training_progress() -> "Iterator[tuple[TrainingProgress, Stage, Progress]]":
    """Yield listeners to updates, to what happens between them, and to a download before them."""
    done, total, note = 0, None, ""
    with _display(_counted, together=True) as show:

        def update(record: "StepRecord", updates: int) -> None:
            nonlocal done, total, note
            loss = sum(record.losses.values()) / len(record.losses)
            done, total = record.step, updates
            note = f"loss {loss:.3f} · norm {record.vectors[0].norm:.3g}"
            show("training", done, total, note)

        def stage(name: str) -> None:
            show(name, done, total, note)

        def download(name: str, read: int, size: int) -> None:
            show(name, read // 10**6, size // 10**6, "MB")

        yield update, stage, download


@contextmanager
def cell_progress() -> "Iterator[CellProgress]":
    """Yield a listener that shows all cells of a sweep together and reports failures."""
    # Cells are few and long: estimate the remaining time from the whole sweep's pace.
    with _display(_counted, speed_estimate_period=1e9) as show:

        def listen(outcome: "Outcome | None", ended: int, total: int) -> None:
            if outcome is None:
                show("cells", ended, total)
                return
            name = f"{outcome.cell.label}, seed {outcome.cell.run.seed}"
            if outcome.error:
                print_notice(f"{name} failed: {outcome.error}")
            show("cells", ended, total, f"last: {name}")

        yield listen


# --- At a terminal, and elsewhere ---


@contextmanager
def _display(
    amount: "Callable[[int, int | None], str]",
    *,
    in_bytes: bool = False,
    together: bool = False,
    **options: Any,
) -> Iterator[Display]:
    """Yield what shows progress. together: one bar, whose name changes."""
    if not ERRORS.is_terminal:
        yield Lines(amount)
        return
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns: tuple[ProgressColumn, ...] = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        _amount_column(in_bytes=in_bytes),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=ERRORS, transient=True, **options) as bars:
        tasks: dict[str, TaskID] = {}

        def show(name: str, done: int, total: int | None, note: str = "") -> None:
            name, note = visible(name), visible(note)
            key = "" if together else name
            if key not in tasks:
                # What was done before says nothing about the pace.
                tasks[key] = bars.add_task(name, total=total, completed=done, note=note)
            bars.update(tasks[key], description=name, completed=done, total=total, note=note)

        yield show


def _amount_column(*, in_bytes: bool) -> "ProgressColumn":
    """Return the column of what is done; it stays empty while the total is unknown."""
    from rich.progress import DownloadColumn, MofNCompleteColumn
    from rich.text import Text

    kind: type[ProgressColumn] = DownloadColumn if in_bytes else MofNCompleteColumn

    class Amount(kind):  # type: ignore[valid-type,misc]
        def render(self, task: "Task") -> Text:
            return Text() if task.total is None else super().render(task)

    return Amount()


class Lines:
    """Prints a plain line about the work now and then, for logs.

    There is at most one every `SILENCE` seconds, and fewer as time passes. Work that is over sooner
    prints nothing.
    """

    def __init__(self, amount: Callable[[int, int | None], str]) -> None:
        """amount: says how much is done of how much."""
        self.amount = amount
        self.started = self.last = time.monotonic()
        self.first: dict[str, tuple[int, float]] = {}  # done and time when a name came first

    def __call__(self, name: str, done: int, total: int | None, note: str = "") -> None:
        """Print a line if the last one is long enough ago."""
        now = time.monotonic()
        begun, since = self.first.setdefault(name, (done, now))
        if now - self.last < max(SILENCE, SHARE * (now - self.started)):
            return
        self.last = now
        parts = [f"{name} {self.amount(done, total)}".strip()]
        if total is not None and done > begun:
            left = (total - done) * (now - since) / (done - begun)
            parts.append(f"{timedelta(seconds=round(left))} left")
        ERRORS.print(visible(", ".join([*parts, *([note] if note else [])])), markup=False)


def _counted(done: int, total: int | None) -> str:
    return "" if total is None else f"{done} of {total}"


def _megabytes(done: int, total: int | None) -> str:
    return f"{done / 1e6:.1f}" + ("" if total is None else f" of {total / 1e6:.1f}") + " MB"
