"""Simulated raters, whose preferences are known: they show what the scoring finds.

Raters who are simulated stand in for nobody. They verify the machinery and plan its size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from dti_geom.study.answers import KIND, Answer, RaterAnswers
from dti_geom.study.design import NONE, QUESTIONS, Study

Value = TypeVar("Value")


@dataclass(frozen=True)
class Crowd:
    """How simulated raters choose.

    A picture's worth is its method's, plus normal parts of its subject, rater and case, plus its
    place's, plus Gumbel noise of scale 1; the best is chosen. None is better where the two best
    are nearer than `tie`.
    """

    methods: tuple[float, ...]  # worth, in units of the noise
    subject_spread: float = 0.5  # of a method's worth, from subject to subject
    rater_spread: float = 0.5
    case_spread: float = 0.5
    places: tuple[float, ...] = ()  # added from left to right; default: nothing
    tie: float = 0.2
    spammers: float = 0.0  # share of raters who choose any picture
    slips: float = 0.02  # share of catch trials that a careful rater answers at random


def simulate(study: Study, crowd: Crowd, rng: np.random.Generator) -> list[RaterAnswers]:
    """Return the answers of one simulated rater for each number of the study.

    The first `spammers` of them choose at random.
    """
    trials = {trial.name: trial for trial in study.trials}
    methods = {name: at for at, name in enumerate(study.methods)}
    places = np.array(crowd.places or (0.0,) * study.shown)
    count = len(study.methods)
    of_subject = {
        (question, name): rng.normal(0, crowd.subject_spread, count)
        for question in QUESTIONS
        for name in sorted(study.references)
    }
    of_case = {
        (question, trial.name): rng.normal(0, crowd.case_spread, study.shown)
        for question in QUESTIONS
        for trial in study.trials
    }
    spammers = round(crowd.spammers * len(study.raters))
    found = []
    for number, screens in enumerate(study.raters, 1):
        own = {question: rng.normal(0, crowd.rater_spread, count) for question in QUESTIONS}
        answers = []
        for at, screen in enumerate(screens):
            trial = trials[screen.trial]
            for question in QUESTIONS:
                careless = number <= spammers or rng.random() < crowd.slips
                if trial.catches:
                    choice = _caught(screen.pictures, trial.pictures, careless, rng)
                elif number <= spammers:
                    choice = str(rng.choice(screen.pictures))
                else:
                    shown = [methods[trial.pictures[name]] for name in screen.pictures]
                    of_method = own[question] + of_subject[question, trial.subject]
                    names = list(trial.pictures)
                    case = of_case[question, trial.name]
                    worth = (np.array(crowd.methods) + of_method)[shown] + places
                    worth = worth + case[[names.index(name) for name in screen.pictures]]
                    worth = worth + rng.gumbel(size=len(shown))
                    choice = _best(screen.pictures, worth, crowd.tie if study.ties else 0)
                seconds = round(float(rng.gamma(4, 2)), 1)
                answers.append(Answer(at, screen.trial, question, choice, seconds))
        found.append(RaterAnswers(KIND, study.name, number, "simulated", tuple(answers)))
    return found


def true_shares(study: Study, crowd: Crowd, draws: int = 200_000, seed: int = 0) -> np.ndarray:
    """Return the share of each method over all subjects, cases and careful raters there could be.

    By simulation of `draws` screens of different subjects and raters; places are balanced, as in a
    study. Returns (methods,).
    """
    rng = np.random.default_rng(seed)
    count, shown = len(study.methods), study.shown
    spread = (crowd.subject_spread**2 + crowd.rater_spread**2 + crowd.case_spread**2) ** 0.5
    places = np.array(crowd.places or (0.0,) * shown)
    order = rng.permuted(np.tile(np.arange(count), (draws, 1)), axis=1)[:, :shown]
    worth = np.array(crowd.methods)[order] + places + rng.gumbel(size=order.shape)
    worth = worth + rng.normal(0, spread, order.shape)
    ranked = np.sort(worth, axis=1)
    tied = ranked[:, -1] - ranked[:, -2] < (crowd.tie if study.ties else 0)
    points = (worth == ranked[:, -1:]).astype(float)
    points[tied] = 1 / shown
    return np.array([points[order == method].mean() for method in range(count)])


def _best(pictures: Sequence[str], worth: np.ndarray, tie: float) -> str:
    ranked = np.sort(worth)
    return NONE if ranked[-1] - ranked[-2] < tie else pictures[int(worth.argmax())]


def _caught(
    pictures: Sequence[str], what: dict[str, str], careless: bool, rng: np.random.Generator
) -> str:
    if careless:
        return str(rng.choice(pictures))
    return next(name for name in pictures if what[name] == "right")
