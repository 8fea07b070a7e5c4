"""Running a plan in a folder, and reading it: states, scores of all cells together, costs."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from dti_geom.errors import SweepError
from dti_geom.evaluation.evaluation import (
    CheckSummary,
    Difference,
    Summary,
    check_summaries,
    paired_differences,
    summarize,
)
from dti_geom.evaluation.scores import ImageScore, ScorerAccuracy, scorer_accuracy
from dti_geom.evaluation.tables import csv_of_scores
from dti_geom.files import alone_in, load_result, save_result, write_text
from dti_geom.mini.ceilings import ConceptCeiling
from dti_geom.models.image_encoders import is_shipped, open_image_encoder
from dti_geom.result import Result
from dti_geom.sweeps.cells import COST, ERROR, RESULT, CellResult, Cost
from dti_geom.sweeps.engines import Engine, LocalEngine, Outcome
from dti_geom.sweeps.plan import Cell, Plan

PLAN = "plan.json"
Scored = TypeVar("Scored", Summary, Difference)
DONE, FAILED, STARTED, WAITING = "done", "failed", "started", "waiting"

# Called with a cell that has ended (None at the start), the number of those, and of all cells.
CellProgress = Callable[[Outcome | None, int, int], None]


@dataclass(frozen=True)
class CellState:
    """The state of a cell."""

    label: str
    subjects: tuple[str, ...]
    seed: int
    key: str
    run_key: str
    state: str  # done | failed | started (perhaps stopped) | waiting
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
    """A token's norm and scores after some updates, or at the end."""

    label: str
    subject: str
    seed: int
    step: int
    inflation: float
    subject_score: float
    text_score: float


@dataclass(frozen=True)
class MethodCost:
    """Medians over a method's cells, for one concept, in seconds."""

    label: str
    training_seconds: float
    evaluation_seconds: float


@dataclass(frozen=True)
class Sweep(Result):
    """Scores, norms and costs of all finished cells together.

    Intervals are over subjects, training seeds and picture seeds. Scores of fewer than
    `FEW_SUBJECTS` subjects have none.
    """

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
    checks: tuple[CheckSummary, ...] = ()
    ceilings: dict[str, ConceptCeiling] = field(default_factory=dict)  # by subject, where known


@dataclass(frozen=True)
class Finished:
    """The states of a plan's cells in a folder, and the results of the finished ones."""

    plan: Plan
    states: tuple[CellState, ...]  # of all cells
    results: tuple[tuple[CellState, CellResult], ...]  # scores have the labels of the plan

    @cached_property
    def images(self) -> list[tuple[CellState, ImageScore]]:
        """The scores of every picture, with its cell."""
        scores: list[tuple[CellState, ImageScore]] = []
        for state, result in self.results:
            scores += [(state, image) for image in result.images]
        return scores


def run_sweep(
    plan: Plan,
    folder: str | Path,
    engine: Engine | None = None,
    *,
    retry_failed: bool = False,
    progress: CellProgress = lambda outcome, ended, total: None,
) -> list[CellState]:
    """Compute the cells that are not in the folder yet, and return the state of every cell.

    engine: by default worker processes of this machine. retry_failed: also compute cells that
    failed before. A cell that fails does not stop the others. Raises SweepError when no worker
    survives, and FolderInUse while another sweep is at work there.
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
    """Read the plan that was run in this folder last. Raises SweepError."""
    path = Path(folder) / PLAN
    if not path.is_file():
        raise SweepError(
            f"{folder} is not the folder of a sweep: it has no {PLAN}. Name the folder that --out "
            "named."
        )
    return load_result(path, Plan)


def read_states(plan: Plan, folder: str | Path) -> list[CellState]:
    """Return the state of each cell of the plan in this folder."""
    return [_state(cell, Path(folder)) for cell in plan.cells]


def read_finished(plan: Plan, folder: str | Path) -> Finished:
    """Read the finished cells of a plan. Raises SweepError if no cell is finished."""
    states = read_states(plan, folder)
    done = [state for state in states if state.state == DONE]
    if not done:
        raise SweepError(f"{folder}: no cell is finished yet ({state_counts(states)}).")
    results = []
    for state in done:
        result = load_result(Path(folder) / "cells" / state.key / RESULT, CellResult)
        results.append((state, _relabelled(result, state.label)))
    return Finished(plan, tuple(states), tuple(results))


def collect(finished: Finished) -> Sweep:
    """Return the scores, norms and costs of all finished cells together."""
    plan, done = finished.plan, finished.results
    first = done[0][1]
    # A run's scores do not name it, so that they are the same wherever they were computed.
    scores = [replace(image, run=f"seed {state.seed}") for state, image in finished.images]
    ceilings: dict[str, ConceptCeiling] = {}
    for _, result in done:
        ceilings |= result.ceilings
    return Sweep(
        name=plan.name,
        model=plan.model,
        cells=finished.states,
        prompts=first.prompts,
        image_encoder=first.image_encoder,
        text_encoder=first.text_encoder,
        text_unit=first.text_unit,
        summaries=tuple(map(_without_few, summarize(scores))),
        differences=tuple(map(_difference_without_few, paired_differences(scores))),
        norms=tuple(_norms(done)),
        courses=tuple(_courses(done)),
        costs=tuple(_costs(state for state, _ in done)),
        accuracy=_accuracy(first.image_encoder),
        checks=tuple(map(_share_without_few, check_summaries(scores, ceilings))),
        ceilings=ceilings,
    )


def _without_few(row: Scored) -> Scored:
    """Return a row of scores, without intervals over too few subjects."""
    return replace(
        row, subject=row.subject.for_enough_subjects(), text=row.text.for_enough_subjects()
    )


def _difference_without_few(row: Difference) -> Difference:
    row = _without_few(row)
    return row if row.subject.low is not None else replace(row, subject_p=None, text_p=None)


def _share_without_few(row: CheckSummary) -> CheckSummary:
    return replace(row, share=row.share.for_enough_subjects())


def _accuracy(image_encoder: str) -> tuple[ScorerAccuracy, ...]:
    """The accuracy of a shipped scorer; other encoders have none and are not opened."""
    if not is_shipped(image_encoder):
        return ()
    return scorer_accuracy(open_image_encoder(image_encoder))


def save_table(path: Path, finished: Finished) -> None:
    """Write every picture's scores as CSV, with a column of 0 and 1 for each check.

    A check that a picture was not asked for is empty.
    """
    first = "method", "subject"
    last = "prompt", "group", "seed", "file", "subject_score", "text_score"
    rows: list[tuple[list[Any], ImageScore]] = []
    checks: set[str] = set()
    for state, image in finished.images:
        scores = [getattr(image, name) for name in last]
        rows.append(([image.method, image.subject, state.seed, state.key, *scores], image))
        checks |= image.checks.keys()
    table = csv_of_scores((*first, "training_seed", "cell", *last), rows, sorted(checks))
    write_text(path, table, overwrite=True)


def _state(cell: Cell, folder: Path) -> CellState:
    key, run_key = cell.key, cell.run_key
    place, error, cost = folder / "cells" / key, None, None
    if (place / RESULT).exists():
        state, cost = DONE, load_result(place / COST, Cost)
    elif (place / ERROR).exists():
        state, error = FAILED, (place / ERROR).read_text(encoding="utf-8").strip().splitlines()[-1]
    else:
        state = STARTED if place.exists() or (folder / "runs" / run_key).exists() else WAITING
    return CellState(
        label=cell.label,
        subjects=cell.subjects,
        seed=cell.run.seed,
        key=key,
        run_key=run_key,
        state=state,
        error=error,
        cost=cost,
    )


def state_counts(states: Iterable[CellState]) -> str:
    """Return text such as "3 done, 1 failed"."""
    counted: dict[str, int] = defaultdict(int)
    for state in states:
        counted[state.state] += 1
    return ", ".join(f"{number} {name}" for name, number in counted.items())


def _relabelled(result: CellResult, label: str) -> CellResult:
    """A result with the plan's label: cells that share a result may have different labels."""
    labels = {result.method: label, f"{result.method}-rescaled": f"{label}-rescaled"}
    images = [
        replace(image, method=labels.get(image.method, image.method)) for image in result.images
    ]
    return replace(result, images=tuple(images))


def _norms(done: Iterable[tuple[CellState, CellResult]]) -> Iterator[LearnedNorm]:
    for state, result in done:
        tokens = list(dict.fromkeys(vector.token for vector in result.vectors))
        for vector in result.vectors:
            yield LearnedNorm(
                label=state.label,
                subject=state.subjects[tokens.index(vector.token)],
                seed=state.seed,
                tower=vector.tower,
                inflation=vector.inflation,
                angle_to_start=vector.angle_to_start,
            )


def _courses(done: Iterable[tuple[CellState, CellResult]]) -> Iterator[Course]:
    for state, result in done:
        for moment in result.moments:
            yield Course(
                label=state.label,
                subject=moment.subject,
                seed=state.seed,
                step=moment.step,
                inflation=moment.inflation,
                subject_score=moment.subject_score,
                text_score=moment.text_score,
            )


def _costs(states: Iterable[CellState]) -> Iterator[MethodCost]:
    by_label: dict[str, list[CellState]] = defaultdict(list)
    for state in states:
        by_label[state.label].append(state)
    for label, of_label in by_label.items():
        costs = [(state.cost, len(state.subjects)) for state in of_label if state.cost]
        yield MethodCost(
            label=label,
            training_seconds=median(cost.training_seconds / count for cost, count in costs),
            evaluation_seconds=median(cost.evaluation_seconds / count for cost, count in costs),
        )
