"""Simulated raters, whose preferences are known: they show what the scoring finds.

Raters who are simulated stand in for nobody. They verify the machinery and plan its size.
"""

from dataclasses import dataclass

import numpy as np

from dti_geom.study.answers import KIND, Answer, RaterAnswers
from dti_geom.study.design import NONE, QUESTIONS, Study


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
    trials = {trial.name: (at, trial) for at, trial in enumerate(study.trials)}
    methods = {name: at for at, name in enumerate(study.methods)}
    subjects = {name: at for at, name in enumerate(study.references)}
    places = np.array(crowd.places or (0.0,) * study.shown)
    count, asked = len(methods), len(QUESTIONS)
    of_subject = rng.normal(0, crowd.subject_spread, (asked, len(subjects), count))
    of_case = rng.normal(0, crowd.case_spread, (asked, len(trials), study.shown))
    spammers = round(crowd.spammers * len(study.raters))
    found = []
    for number, screens in enumerate(study.raters, 1):
        shown = [trials[screen.trial] for screen in screens]
        # Right pictures of catch trials are method −1, and wrong ones method −2.
        what = [
            [_method(methods, trial.pictures[name]) for name in screen.pictures]
            for screen, (_, trial) in zip(screens, shown, strict=True)
        ]
        order = [
            [list(trial.pictures).index(name) for name in screen.pictures]
            for screen, (_, trial) in zip(screens, shown, strict=True)
        ]
        numbers = np.array(what)
        of_trial = np.array([at for at, _ in shown])
        of_thing = np.array([subjects[trial.subject] for _, trial in shown])
        worth = np.array(crowd.methods)[numbers.clip(0)] + places
        worth = worth + rng.normal(0, crowd.rater_spread, (asked, count))[:, numbers.clip(0)]
        worth = worth + of_subject[:, of_thing[:, None], numbers.clip(0)]
        worth = worth + of_case[:, of_trial[:, None], np.array(order)]
        worth = worth + rng.gumbel(size=worth.shape)
        chosen = worth.argmax(axis=-1)
        ranked = np.sort(worth, axis=-1)
        tied = ranked[..., -1] - ranked[..., -2] < (crowd.tie if study.ties else 0)
        chosen = np.where(tied, -1, chosen)
        guesses = rng.integers(study.shown, size=chosen.shape)
        caught = numbers.min(axis=1) < 0
        right = np.where(rng.random(chosen.shape) < crowd.slips, guesses, (numbers == -1).argmax(1))
        chosen = guesses if number <= spammers else np.where(caught, right, chosen)
        seconds = rng.gamma(4, 2, chosen.shape).round(1)
        answers = [
            Answer(
                screen=at,
                trial=screen.trial,
                question=question,
                choice=NONE if chosen[row, at] < 0 else screen.pictures[chosen[row, at]],
                seconds=float(seconds[row, at]),
            )
            for at, screen in enumerate(screens)
            for row, question in enumerate(QUESTIONS)
        ]
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


def _method(methods: dict[str, int], what: str) -> int:
    return {"right": -1, "wrong": -2}.get(what, methods.get(what, 0))
