"""Running a plan in a folder, and what the folder holds: states, scores of all cells together, costs."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median

from dti_geom.errors import SweepError
from dti_geom.evaluation.evaluation import (
    Difference,
    Summary,
    paired_differences,
    summarize,
)
from dti_geom.evaluation.scores import ImageScore, ScorerAccuracy, scorer_accuracy
from dti_geom.evaluation.tables import csv_of_scores
from dti_geom.files import alone_in, load_result, save_result, write_text
from dti_geom.models.image_encoders import is_shipped, open_image_encoder
from dti_geom.sweeps.cells import COST, ERROR, RESULT, CellResult, Cost
from dti_geom.sweeps.engines import Engine, LocalEngine, Outcome
from dti_geom.sweeps.plan import Cell, Plan

PLAN = "plan.json"
DONE, FAILED, STARTED, WAITING = "done", "failed", "started", "waiting"

# A cell that has ended, or none at the start; how many have; how many there are.
Progress = Callable[[Outcome | None, int, int], None]


@dataclass(frozen=True)
class CellState:
    """Where a cell stands."""

    label: str
    subjects: tuple[str, ...]
    seed: int
    key: str
    run_key: str
    state: str  # done | failed | started (or stopped) | waiting
    error: str | None  # last line of its log
    cost: Cost | None


@dataclass(frozen=True)
class LearnedNorm:
    """One learned vector at the end of its training."""

    label: str
    subject: str
    seed: int
    tower: str
    inflation: float  # norm / mean norm of the vocabulary
    angle_to_start: float  # radians


@dataclass(frozen=True)
class Course:
    """A token's norm against its scores, after some updates or at the end."""

    label: str
    subject: str
    seed: int
    step: int
    inflation: float
    subject_score: float
    text_score: float


@dataclass(frozen=True)
class MethodCost:
    """Medians over a method's cells, for one concept."""

    label: str
    training_seconds: float
    evaluation_seconds: float


@dataclass(frozen=True)
class Sweep:
    """What all finished cells say together; intervals are over subjects and picture seeds, training seeds averaged."""

    name: str
    model: str
    cells: tuple[CellState, ...]
    prompts: str
    image_encoder: str
    text_encoder: str
    text_unit: str
    summaries: tuple[Summary, ...]
    differences: tuple[Difference, ...]
    norms: tuple[LearnedNorm, ...]
    courses: tuple[Course, ...]
    costs: tuple[MethodCost, ...]
    accuracy: tuple[ScorerAccuracy, ...]  # of the embedded model's scorer, where it scored


@dataclass(frozen=True)
class Finished:
    """What a folder holds of a plan, read once."""

    plan: Plan
    states: tuple[CellState, ...]  # of all cells
    results: tuple[
        tuple[CellState, CellResult], ...
    ]  # of the finished ones, scores under the plan's labels

    @cached_property
    def images(self) -> list[tuple[CellState, ImageScore]]:
        """The score of every picture, with its cell."""
        return [(state, image) for state, result in self.results for image in result.images]


def run_sweep(
    plan: Plan,
    folder: str | Path,
    engine: Engine | None = None,
    *,
    retry_failed: bool = False,
    progress: Progress = lambda outcome, ended, total: None,
) -> list[CellState]:
    """Compute what is not in the folder yet. A failed cell stays failed unless it is to be retried; the rest goes on.

    Raises SweepError when no worker survives, FolderInUse while another sweep is at work there.
    """
    place = Path(folder)
    with alone_in(place):
        save_result(place / PLAN, plan, overwrite=True)
        skipped = {DONE} if retry_failed else {DONE, FAILED}
        states = read_states(plan, place)
        todo = [
            cell
            for cell, state in zip(plan.cells, states, strict=True)
            if state.state not in skipped
        ]
        ended = len(plan.cells) - len(todo)
        progress(None, ended, len(plan.cells))
        for outcome in (engine or LocalEngine())(todo, place) if todo else ():
            ended += 1
            progress(outcome, ended, len(plan.cells))
        return read_states(plan, place)


def load_plan(folder: str | Path) -> Plan:
    """The plan that was run in this folder last. Raises SweepError."""
    path = Path(folder) / PLAN
    if not path.is_file():
        raise SweepError(
            f"{folder} is not the folder of a sweep: it has no {PLAN}. Name what --out named."
        )
    return load_result(path, Plan)


def read_states(plan: Plan, folder: str | Path) -> list[CellState]:
    """Where each cell of the plan stands."""
    return [_state(cell, Path(folder)) for cell in plan.cells]


def read_finished(plan: Plan, folder: str | Path) -> Finished:
    """What a folder holds of a plan. Raises SweepError if no cell is finished."""
    states = read_states(plan, folder)
    done = [state for state in states if state.state == DONE]
    if not done:
        raise SweepError(f"{folder}: no cell is finished yet ({_counts(states)}).")
    results = (
        (state, load_result(Path(folder) / "cells" / state.key / RESULT, CellResult))
        for state in done
    )
    return Finished(
        plan,
        tuple(states),
        tuple((state, _relabelled(result, state.label)) for state, result in results),
    )


def collect(finished: Finished) -> Sweep:
    """What the finished cells say together."""
    plan, done = finished.plan, finished.results
    first, scores = done[0][1], [image for _, image in finished.images]
    return Sweep(
        name=plan.name,
        model=plan.model,
        cells=finished.states,
        prompts=first.prompts,
        image_encoder=first.image_encoder,
        text_encoder=first.text_encoder,
        text_unit=first.text_unit,
        summaries=tuple(summarize(scores)),
        differences=tuple(paired_differences(scores)),
        norms=tuple(_norms(done)),
        courses=tuple(
            Course(
                state.label,
                one.subject,
                state.seed,
                one.step,
                one.inflation,
                one.subject_score,
                one.text_score,
            )
            for state, result in done
            for one in result.moments
        ),
        costs=tuple(_costs(state for state, _ in done)),
        accuracy=_accuracy(first.image_encoder),
    )


def _accuracy(image_encoder: str) -> tuple[ScorerAccuracy, ...]:
    """The accuracy of a shipped scorer; other encoders have none and are not opened."""
    if not is_shipped(image_encoder):
        return ()
    return scorer_accuracy(open_image_encoder(image_encoder))


def save_table(path: Path, finished: Finished) -> None:
    """Every picture's scores as CSV, which pandas reads: a column of 0 and 1 for each check, empty where not asked."""
    first, last = (
        ("method", "subject"),
        ("prompt", "group", "seed", "file", "subject_score", "text_score"),
    )
    rows = [
        (
            [
                image.method,
                image.subject,
                state.seed,
                state.key,
                *(getattr(image, name) for name in last),
            ],
            image,
        )
        for state, image in finished.images
    ]
    checks = sorted({name for _, image in finished.images for name in image.checks})
    write_text(
        path, csv_of_scores((*first, "training_seed", "cell", *last), rows, checks), overwrite=True
    )


def _state(cell: Cell, folder: Path) -> CellState:
    key, run_key = cell.key, cell.run_key
    place, error, cost = folder / "cells" / key, None, None
    if (place / RESULT).exists():
        state, cost = DONE, load_result(place / COST, Cost)
    elif (place / ERROR).exists():
        state, error = FAILED, (place / ERROR).read_text(encoding="utf-8").strip().splitlines()[-1]
    else:
        state = STARTED if place.exists() or (folder / "runs" / run_key).exists() else WAITING
    return CellState(cell.label, cell.subjects, cell.run.seed, key, run_key, state, error, cost)


def _counts(states: Iterable[CellState]) -> str:
    counted: dict[str, int] = defaultdict(int)
    for one in states:
        counted[one.state] += 1
    return ", ".join(f"{number} {state}" for state, number in counted.items())


def _relabelled(result: CellResult, label: str) -> CellResult:
    """A cell knows its method's name; what it was tried with is known to the plan."""
    ours = {result.method: label, f"{result.method}-rescaled": f"{label}-rescaled"}
    return replace(
        result,
        images=tuple(
            replace(image, method=ours.get(image.method, image.method)) for image in result.images
        ),
    )


def _norms(done: Iterable[tuple[CellState, CellResult]]) -> Iterable[LearnedNorm]:
    for state, result in done:
        tokens = list(dict.fromkeys(one.token for one in result.vectors))
        for one in result.vectors:
            subject = state.subjects[tokens.index(one.token)]
            yield LearnedNorm(
                state.label, subject, state.seed, one.tower, one.inflation, one.angle_to_start
            )


def _costs(states: Iterable[CellState]) -> Iterable[MethodCost]:
    by_label: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for one in states:
        assert one.cost is not None
        each = len(one.subjects)
        by_label[one.label].append(
            (one.cost.training_seconds / each, one.cost.evaluation_seconds / each)
        )
    for label, costs in by_label.items():
        yield MethodCost(label, *(median(values) for values in zip(*costs, strict=True)))
