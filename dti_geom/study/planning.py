"""Plan the size of a study by simulation: how many raters find a difference."""

from dataclasses import dataclass, replace

import numpy as np

from dti_geom.errors import StudyError
from dti_geom.progress import Progress, silent
from dti_geom.statistics import Share
from dti_geom.study.design import Case, Study, plan_study
from dti_geom.study.scoring import differences, judgements
from dti_geom.study.simulation import Crowd, simulate, true_shares

SIGNIFICANT = 0.05
_MOST_RATERS = 640
_MOST_WORTH = 6.0  # of a method: it is nearly always chosen


@dataclass(frozen=True)
class PlanStep:
    """How often the difference is found with a number of raters."""

    raters: int
    answers: int  # to each question
    found: Share


@dataclass(frozen=True)
class StudyPlan:
    """Sizes of a study, and how often each finds a difference."""

    difference: float  # of the shares of two methods, 0 … 1
    power: float
    methods: int
    shown: int
    subjects: int
    prompts: int
    trials: int
    spread: float
    studies: int  # simulated for each number of raters
    steps: tuple[PlanStep, ...]
    enough: PlanStep | None  # the first that reaches the power


def plan_size(
    difference: float,
    power: float = 0.8,
    *,
    methods: int = 4,
    shown: int | None = None,
    subjects: int = 30,
    prompts: int = 20,
    trials: int = 20,
    spread: float = 0.5,
    studies: int = 50,
    seed: int = 0,
    progress: Progress = silent,
) -> StudyPlan:
    """Simulate studies with 10, 20, 40, … raters until a difference is found often enough.

    difference: of the share of the best method and of each other, which are equal; 0 … 1. power:
    how often it should be found for the question it is planted in. spread: see `Crowd`. Raises
    StudyError for a difference that no worth leads to.
    """
    if not 0 < difference < 1 or not 0 < power < 1:
        raise StudyError(
            f"difference is {difference:g} and power {power:g}; expected numbers between 0 and 1. "
            "A difference of 10 points is 0.1."
        )
    shown = min(methods, 4) if shown is None else shown

    def designed(raters: int) -> Study:
        return _study(methods, shown, subjects, prompts, trials, raters)

    crowd = _crowd(designed(2), difference, spread)
    steps: list[PlanStep] = []
    raters = 10
    while raters <= _MOST_RATERS:
        study = designed(raters)
        hits = []
        for number in range(studies):
            progress(f"studies of {raters} raters", number, studies)
            hits.append(_found(study, crowd, np.random.default_rng([seed, raters, number])))
        progress(f"studies of {raters} raters", studies, studies)
        steps.append(PlanStep(raters, raters * trials, Share.count(hits)))
        if steps[-1].found.share >= power:
            break
        raters *= 2
    return StudyPlan(
        difference=difference,
        power=power,
        methods=methods,
        shown=shown,
        subjects=subjects,
        prompts=prompts,
        trials=trials,
        spread=spread,
        studies=studies,
        steps=tuple(steps),
        enough=steps[-1] if steps[-1].found.share >= power else None,
    )


def _study(
    methods: int, shown: int, subjects: int, prompts: int, trials: int, raters: int
) -> Study:
    """A study of pictures that do not exist, without catch trials."""
    names = [f"method {at}" for at in range(methods)]
    cases = [
        Case(
            subject=f"subject {subject}",
            prompt=f"{{}} {prompt}",
            words=str(prompt),
            group="all",
            seed=0,
            files={name: f"{name}/{subject}/{prompt}" for name in names},
            text_scores=dict.fromkeys(names, 0.0),
        )
        for subject in range(subjects)
        for prompt in range(prompts)
    ]
    references: dict[str, list[str]] = {f"subject {at}": [] for at in range(subjects)}
    return plan_study(
        cases,
        references,
        {},
        model="none",
        seed=0,
        raters=raters,
        trials=trials,
        shown=shown,
        catch=0,
    )


def _crowd(study: Study, difference: float, spread: float) -> Crowd:
    """The crowd whose first method leads by this difference, found by halving."""
    rest = (0.0,) * (len(study.methods) - 1)
    base = Crowd((0.0, *rest), spread, spread, spread)
    low, high = 0.0, _MOST_WORTH
    for _ in range(16):
        middle = (low + high) / 2
        shares = true_shares(study, replace(base, methods=(middle, *rest)), draws=40_000)
        low, high = (middle, high) if shares[0] - shares[1:].mean() < difference else (low, middle)
    if high == _MOST_WORTH:
        raise StudyError(
            f"a difference of {difference:g} is out of reach with {study.shown} pictures a screen "
            "and ties. Plan for a smaller one."
        )
    return replace(base, methods=(low, *rest))


def _found(study: Study, crowd: Crowd, rng: np.random.Generator) -> bool:
    """Whether the first method is found ahead of the second, in the first question."""
    answers = simulate(study, crowd, rng)
    judged = {name: judgements(study, answers, name) for name in ("subject", "text")}
    first = differences(judged, study.methods)[0]
    return first.p is not None and first.p < SIGNIFICANT and first.difference.mean > 0
