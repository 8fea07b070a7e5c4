"""What is left of a sweep, in hours and bytes: by the cells that are done, or by a picture and a few updates."""

import io
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from dti_geom.sweeps.cells import open_model, prompts_of, use_threads
from dti_geom.sweeps.plan import Cell, Plan, located
from dti_geom.sweeps.sweep import DONE, CellState, read_states
from dti_geom.training import train

UPDATES = 5  # that are timed, after one that is not


@dataclass(frozen=True)
class Estimate:
    """For the cells that are not done; a run that several cells share is counted with each."""

    cells: int
    trainings: int  # of one concept
    pictures: int
    seconds: float  # of one worker
    bytes: int
    source: str  # what it rests on


def estimate(plan: Plan, folder: str | Path, threads: int = 1) -> Estimate:
    """Time and disk of what is left.

    By the medians of finished cells, for each concept; where there is none, one batch of updates and one picture of the
    first cell are made here with so many threads, which opens the model. Raises what training raises.
    """
    folder = Path(folder)
    states = read_states(plan, folder)
    left = [cell for cell, state in zip(plan.cells, states, strict=True) if state.state != DONE]
    trainings, pictures = sum(len(cell.subjects) for cell in left), sum(map(_pictures, left))
    done = [state for state in states if state.cost is not None]
    if done:
        each = median(_seconds(state) for state in done)
        size = median(_bytes(state, folder) for state in done)
        source = f"{len(done)} finished cells"
        return Estimate(
            len(left), trainings, pictures, trainings * each, int(trainings * size), source
        )
    if not left:
        return Estimate(0, 0, 0, 0.0, 0, "nothing is left")
    use_threads(threads)
    update, picture, size = _timed(left[0])
    seconds = update * sum(_steps(cell) * len(cell.subjects) for cell in left) + picture * pictures
    source = f"{UPDATES} updates and 1 picture made here"
    return Estimate(len(left), trainings, pictures, seconds, size * pictures, source)


def _pictures(cell: Cell) -> int:
    """Of its tokens; baselines and prompts with two subjects differ by a few."""
    asked = cell.evaluation
    run = located(cell.run)
    prompts = prompts_of(run, asked)
    each = sum(len(prompts.of(concept.init, concept.init)) for concept in run.concepts)
    return each * (asked.seeds * (3 if asked.baselines else 1) + len(asked.checkpoints))


def _steps(cell: Cell) -> int:
    run = cell.run
    return run.steps or open_model(run.model, run.device, run.dtype).training_steps


def _timed(cell: Cell) -> tuple[float, float, int]:
    """Seconds of an update for one concept, seconds and bytes of a picture."""
    run = located(cell.run)
    model = open_model(run.model, run.device, run.dtype)
    result = train(replace(run, steps=1 + UPDATES), model=model)
    asked = cell.evaluation
    model.generate(["a photo"], [0], steps=1, guidance=asked.guidance)  # whatever is done once
    started = time.monotonic()
    (picture,) = model.generate(["a photo"], [0], steps=asked.steps, guidance=asked.guidance)
    seconds, file = time.monotonic() - started, io.BytesIO()
    picture.save(file, "PNG")
    return result.seconds_per_step / len(run.concepts), seconds, file.tell()


def _seconds(state: CellState) -> float:
    assert state.cost is not None
    return (state.cost.training_seconds + state.cost.evaluation_seconds) / len(state.subjects)


def _bytes(state: CellState, folder: Path) -> float:
    places = folder / "cells" / state.key, folder / "runs" / state.run_key
    files = [path.stat().st_size for place in places for path in place.rglob("*") if path.is_file()]
    return sum(files) / len(state.subjects)
