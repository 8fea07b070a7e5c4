"""Time and disk that the rest of a sweep needs, by its finished cells or by a short trial."""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from dti_geom.images import png_bytes
from dti_geom.sweeps.cells import open_model, prompts_of, use_threads
from dti_geom.sweeps.plan import Cell, Plan
from dti_geom.sweeps.sweep import DONE, CellState, read_states
from dti_geom.training import train
from dti_geom.training.data import located

UPDATES = 5  # timed ones; one before them is not timed


@dataclass(frozen=True)
class Estimate:
    """Work that is left. A run that several cells share counts for each of them."""

    cells: int  # not done yet
    trainings: int  # of one concept
    pictures: int
    seconds: float  # of one worker
    bytes: int
    source: str  # of the numbers


def estimate(plan: Plan, folder: str | Path, threads: int = 1) -> Estimate:
    """Estimate time and disk of the cells that are not done.

    By the medians of finished cells, for each concept. Without a finished cell, a few updates and
    one picture of the first cell are made here with this number of threads, which opens the model.
    Raises what training raises.
    """
    folder = Path(folder)
    states = read_states(plan, folder)
    left = [cell for cell, state in zip(plan.cells, states, strict=True) if state.state != DONE]
    trainings, pictures = sum(len(cell.subjects) for cell in left), pictures_of_cells(left)
    finished = [state for state in states if state.cost is not None]
    if finished:
        seconds = trainings * median(_seconds(state) for state in finished)
        size = trainings * median(_bytes(state, folder) for state in finished)
        source = f"{len(finished)} finished cells"
    elif left:
        use_threads(threads)
        per_update, per_picture, picture_bytes = _timed(left[0])
        updates = sum(_steps(cell) * len(cell.subjects) for cell in left)
        seconds = per_update * updates + per_picture * pictures
        size = picture_bytes * pictures
        source = f"{UPDATES} updates and 1 picture made here"
    else:
        seconds, size, source = 0.0, 0, "nothing is left"
    return Estimate(
        cells=len(left),
        trainings=trainings,
        pictures=pictures,
        seconds=seconds,
        bytes=int(size),
        source=source,
    )


def pictures_of_cells(cells: Sequence[Cell]) -> int:
    """Return how many pictures cells paint.

    Baselines and prompts with two subjects may differ by a few.
    """
    alike: dict[Any, list[Cell]] = defaultdict(list)
    for cell in cells:
        alike[cell.run.concepts, cell.evaluation].append(cell)
    return sum(len(group) * _pictures_of(group[0]) for group in alike.values())


def _pictures_of(cell: Cell) -> int:
    asked = cell.evaluation
    run = located(cell.run)
    prompts = prompts_of(run, asked)
    count = sum(len(prompts.of(concept.init, concept.init)) for concept in run.concepts)
    return count * asked.seeds * ((3 if asked.baselines else 1) + len(asked.checkpoints))


def _steps(cell: Cell) -> int:
    run = cell.run
    return run.steps or open_model(run.model, run.device, run.dtype).training.steps


def _timed(cell: Cell) -> tuple[float, float, int]:
    """Seconds of an update for one concept, and seconds and bytes of a picture."""
    run = located(cell.run)
    model = open_model(run.model, run.device, run.dtype)
    result = train(replace(run, steps=1 + UPDATES), model=model)
    asked = cell.evaluation
    model.generate(
        ["a photo"], [0], steps=1, guidance=asked.guidance
    )  # untimed: the first one warms up
    started = time.monotonic()
    (picture,) = model.generate(["a photo"], [0], steps=asked.steps, guidance=asked.guidance)
    seconds = time.monotonic() - started
    return result.seconds_per_step / len(run.concepts), seconds, len(png_bytes(picture))


def _seconds(state: CellState) -> float:
    assert state.cost is not None
    return (state.cost.training_seconds + state.cost.evaluation_seconds) / len(state.subjects)


def _bytes(state: CellState, folder: Path) -> float:
    size = 0
    for place in (folder / "cells" / state.key, folder / "runs" / state.run_key):
        size += sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    return size / len(state.subjects)
