"""Score the answers of a study: shares, strengths, agreement, and who is left out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations
from statistics import median

import numpy as np

from dti_geom.errors import StudyError
from dti_geom.result import Result
from dti_geom.statistics import Interval, Share, crossed_error, crossed_test, holm
from dti_geom.study.answers import RaterAnswers, Refused
from dti_geom.study.design import NONE, QUESTIONS, Study, Trial, least_right

# The user study of Kim et al. (ICLR 2026, arXiv 2512.13672): 100 raters, share that chose DTI.
PUBLISHED = {("subject", "dti"): 0.4345, ("text", "dti"): 0.6677}
PUBLISHED_RATERS = 100
_SPREAD = 3.0  # of the weak normal prior of log strengths: keeps a method that never won finite
_TIE = -1  # the chosen place of an answer that no picture is better


@dataclass(frozen=True)
class MethodShare:
    """How often a method's picture was chosen, of the screens that showed it.

    The answer that none is better counts for all pictures of a screen in equal parts.
    """

    question: str
    method: str
    screens: int
    share: Interval  # 0 … 1, clustered by rater and subject
    published: float | None  # in the paper's study, whose other methods and pictures differ


@dataclass(frozen=True)
class ShareDifference:
    """The share of the first method minus the second's, over the screens that showed both."""

    question: str
    first: str
    second: str
    screens: int
    difference: Interval
    p: float | None  # corrected by Holm's method over all pairs and both questions


@dataclass(frozen=True)
class Strength:
    """A method's log strength in a Bradley–Terry model with ties; the mean of all is 0."""

    question: str
    method: str
    log_strength: Interval


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's alpha of the chosen methods: 1 is full agreement, 0 chance."""

    question: str
    alpha: float | None  # None: no trial has two raters, or all answers are equal
    trials: int  # that two or more raters saw
    answers: int  # to them


@dataclass(frozen=True)
class SideShare:
    """How often the picture at one place was chosen, whatever method painted it."""

    question: str
    side: int  # from the left, 1 is the first
    share: Interval


@dataclass(frozen=True)
class LeftOutRater:
    """A rater who failed the catch trials."""

    rater: int
    session: str
    right: int
    asked: int
    needed: int


@dataclass(frozen=True)
class StudyScore(Result):
    """What the raters of a study preferred."""

    study: str
    model: str
    methods: tuple[str, ...]
    shown: int
    raters: int  # who count
    answers: int  # of these, without catch trials
    ties: int  # of these, that no picture is better
    seconds: float  # median time from a screen's appearance to an answer
    catches: Share | None  # right answers of the raters who count; None without catch trials
    shares: tuple[MethodShare, ...]
    differences: tuple[ShareDifference, ...]
    strengths: tuple[Strength, ...]
    agreement: tuple[Agreement, ...]
    sides: tuple[SideShare, ...]
    left_out: tuple[LeftOutRater, ...]
    refused: tuple[Refused, ...] = ()


@dataclass(frozen=True)
class Judgements:
    """All answers to one question as arrays."""

    raters: np.ndarray  # (n,) numbers of raters
    subjects: np.ndarray  # (n,) numbers of subjects
    trials: np.ndarray  # (n,) numbers of trials
    shown: np.ndarray  # (n, k) numbers of methods, from left to right
    chosen: np.ndarray  # (n,) the place chosen, or −1 for a tie

    def points(self) -> np.ndarray:
        """Return (n, k): 1 for the chosen picture, and 1/k for each picture of a tie."""
        shown = self.shown.shape[1]
        points = (np.arange(shown) == self.chosen[:, None]).astype(float)
        points[self.chosen == _TIE] = 1 / shown
        return np.asarray(points)


def score_study(
    study: Study, answers: Sequence[RaterAnswers], refused: Sequence[Refused] = ()
) -> StudyScore:
    """Score answers that `read_answers` checked.

    A rater counts whose right answers to catch trials are at least `least_right`: more than a
    rater who guesses reaches in 95 % of cases. Raises StudyError if nobody counts.
    """
    trials = {trial.name: trial for trial in study.trials}
    kept, left_out, right, asked = [], [], 0, 0
    for rater in answers:
        own_right, own_asked = _catches(rater, trials)
        needed = least_right(own_asked, study.shown)
        if any(trial.catches for trial in study.trials) and own_right < needed:
            left_out.append(LeftOutRater(rater.rater, rater.session, own_right, own_asked, needed))
            continue
        kept.append(rater)
        right, asked = right + own_right, asked + own_asked
    judged = {question: judgements(study, kept, question) for question in QUESTIONS}
    judged = {question: found for question, found in judged.items() if len(found.chosen)}
    if not judged:
        failed = f": {len(left_out)} of {len(answers)} failed the catch trials" if left_out else ""
        raise StudyError(f"no rater has an answer that counts{failed}.")
    items = list(judged.items())
    ordinary = [
        answer for rater in kept for answer in rater.answers if not trials[answer.trial].catches
    ]
    return StudyScore(
        study=study.name,
        model=study.model,
        methods=study.methods,
        shown=study.shown,
        raters=len(kept),
        answers=len(ordinary),
        ties=sum(answer.choice == NONE for answer in ordinary),
        seconds=median(answer.seconds for answer in ordinary),
        catches=Share.of(right, asked) if asked else None,
        shares=tuple(chain.from_iterable(shares(*item, study.methods) for item in items)),
        differences=tuple(differences(judged, study.methods)),
        strengths=tuple(chain.from_iterable(strengths(*item, study.methods) for item in items)),
        agreement=tuple(agreement(*item) for item in items),
        sides=tuple(chain.from_iterable(sides(*item) for item in items)),
        left_out=tuple(left_out),
        refused=tuple(refused),
    )


def judgements(study: Study, answers: Sequence[RaterAnswers], question: str) -> Judgements:
    """Return the answers to one question of ordinary trials as arrays."""
    trials = {trial.name: (at, trial) for at, trial in enumerate(study.trials)}
    subjects = {name: at for at, name in enumerate(sorted({t.subject for t in study.trials}))}
    methods = {name: at for at, name in enumerate(study.methods)}
    rows, shown = [], []
    for number, rater in enumerate(answers):
        for answer in rater.answers:
            at, trial = trials[answer.trial]
            if trial.catches or answer.question != question:
                continue
            pictures = study.raters[rater.rater - 1][answer.screen].pictures
            place = _TIE if answer.choice == NONE else pictures.index(answer.choice)
            rows.append((number, subjects[trial.subject], at, place))
            shown.append([methods[trial.pictures[name]] for name in pictures])
    columns = np.array(rows, dtype=int).reshape(-1, 4).T
    return Judgements(
        raters=columns[0],
        subjects=columns[1],
        trials=columns[2],
        shown=np.array(shown, dtype=int).reshape(-1, study.shown),
        chosen=columns[3],
    )


def shares(question: str, judged: Judgements, methods: Sequence[str]) -> Iterator[MethodShare]:
    """Yield how often each method was chosen, where it was shown."""
    points = judged.points()
    for number, method in enumerate(methods):
        rows, places = np.nonzero(judged.shown == number)
        if len(rows):
            share, _ = crossed_test(
                points[rows, places], judged.raters[rows], judged.subjects[rows], (0, 1)
            )
            published = PUBLISHED.get((question, method))
            yield MethodShare(question, method, len(rows), share, published)


def differences(judged: dict[str, Judgements], methods: Sequence[str]) -> list[ShareDifference]:
    """Compare every two methods on the screens that showed both; p is corrected for all of them."""
    found = []
    for question, given in judged.items():
        points = given.points()
        for first, second in combinations(range(len(methods)), 2):
            is_first, is_second = given.shown == first, given.shown == second
            rows = is_first.any(axis=1) & is_second.any(axis=1)
            if rows.any():
                values = np.where(is_first, points, 0) - np.where(is_second, points, 0)
                difference, p = crossed_test(
                    values.sum(axis=1)[rows], given.raters[rows], given.subjects[rows], (-1, 1)
                )
                names = methods[first], methods[second]
                count = int(rows.sum())
                found.append(ShareDifference(question, *names, count, difference, p))
    tested = [difference for difference in found if difference.p is not None]
    corrected = iter(holm([difference.p or 0.0 for difference in tested]))
    return [
        difference if difference.p is None else replace(difference, p=next(corrected))
        for difference in found
    ]


def strengths(question: str, judged: Judgements, methods: Sequence[str]) -> Iterator[Strength]:
    """Yield each method's log strength, with an interval clustered by rater and subject.

    A picture is chosen with a probability in proportion to its strength, and none with one in
    proportion to the geometric mean of the strengths shown: the model of Davidson (Journal of the
    American Statistical Association, 1970) for pairs, and Luce's choice where nobody answers that
    none is better.
    """
    from scipy.special import stdtrit

    features = _features(judged, len(methods))
    places = np.where(judged.chosen == _TIE, judged.shown.shape[1], judged.chosen)
    given = features[np.arange(len(places)), places]
    fitted, hessian = _fit(features, given)
    rest = given - np.einsum("nc,ncm->nm", _probabilities(features, fitted), features)
    # What each answer moves the estimate by, times their number.
    moves = len(given) * np.linalg.solve(hessian, rest.T).T
    logs, moves = fitted[: len(methods)], moves[:, : len(methods)]
    logs, moves = logs - logs.mean(), moves - moves.mean(axis=1, keepdims=True)
    for number, method in enumerate(methods):
        error, freedom = crossed_error(moves[:, number], judged.raters, judged.subjects)
        reach = float(stdtrit(freedom, 0.975)) * error if freedom else None
        log, count = float(logs[number]), len(np.unique(judged.subjects))
        low, high = (None, None) if reach is None else (log - reach, log + reach)
        yield Strength(question, method, Interval(log, low, high, count, len(given)))


def agreement(question: str, judged: Judgements) -> Agreement:
    """Return Krippendorff's alpha of the chosen methods, over trials that several raters saw."""
    import krippendorff

    rows = np.arange(len(judged.chosen))
    tie = judged.shown.max() + 1
    values = np.where(judged.chosen == _TIE, tie, judged.shown[rows, judged.chosen])
    trials = np.unique(judged.trials, return_inverse=True)[1]
    counts = np.zeros((trials.max() + 1, tie + 1), dtype=int)
    np.add.at(counts, (trials, values), 1)
    counts = counts[counts.sum(axis=1) > 1]
    alpha = None
    if (counts.sum(axis=0) > 0).sum() > 1:
        alpha = float(krippendorff.alpha(value_counts=counts, level_of_measurement="nominal"))
    return Agreement(question, alpha, len(counts), int(counts.sum()))


def sides(question: str, judged: Judgements) -> Iterator[SideShare]:
    """Yield how often the picture at each place was chosen."""
    points = judged.points()
    for side in range(points.shape[1]):
        share, _ = crossed_test(points[:, side], judged.raters, judged.subjects, (0, 1))
        yield SideShare(question, side + 1, share)


def _catches(rater: RaterAnswers, trials: dict[str, Trial]) -> tuple[int, int]:
    """Right answers to the question that a catch trial asks, and how many were answered."""
    caught = [
        trials[answer.trial].pictures.get(answer.choice) == "right"
        for answer in rater.answers
        if trials[answer.trial].catches == answer.question
    ]
    return sum(caught), len(caught)


def _features(judged: Judgements, methods: int) -> np.ndarray:
    """(n, k + 1, methods + 1): of each choice, a tie last, what its log weight is the sum of."""
    count, shown = judged.shown.shape
    features = np.zeros((count, shown + 1, methods + 1))
    rows, places = np.indices(judged.shown.shape)
    features[rows, places, judged.shown] = 1
    features[:, -1] = features[:, :-1].mean(axis=1)
    features[:, -1, -1] = 1
    # Without a tie its weight would fall without end.
    return features if (judged.chosen == _TIE).any() else features[:, :-1, :-1]


def _probabilities(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    from scipy.special import softmax

    return np.asarray(softmax(features @ weights, axis=1))


def _fit(features: np.ndarray, given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weights of greatest posterior density, and the Hessian there."""
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    prior = np.full(features.shape[2], _SPREAD**-2)

    def loss(weights: np.ndarray) -> float:
        likelihood = given @ weights - logsumexp(features @ weights, axis=1)
        return float(0.5 * prior @ weights**2 - likelihood.sum())

    def slope(weights: np.ndarray) -> np.ndarray:
        expected = np.einsum("nc,ncm->m", _probabilities(features, weights), features)
        return np.asarray(prior * weights + expected - given.sum(axis=0))

    def curvature(weights: np.ndarray) -> np.ndarray:
        shares = _probabilities(features, weights)
        mean = np.einsum("nc,ncm->nm", shares, features)
        squares = np.einsum("nc,ncm,ncl->ml", shares, features, features)
        return np.asarray(squares - mean.T @ mean + np.diag(prior))

    start = np.zeros(features.shape[2])
    found = minimize(loss, start, jac=slope, hess=curvature, method="trust-exact").x
    return found, curvature(found)
