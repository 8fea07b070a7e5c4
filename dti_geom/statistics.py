"""Intervals and paired tests: how far a finite sample may be from the truth.

One kind of inference per table:

- shares of independent pictures have Wilson's interval;
- scores, and their differences, have the hierarchical bootstrap over subjects, training runs and
  picture seeds, and the p-value of the same draws;
- differences of whole concepts have Wilcoxon's test;
- what raters choose has errors that are clustered by rater and by subject, which cross.

The p-values of a table are one family, corrected by Holm's method. No other is shown.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeVar

import numpy as np

Z_95 = 1.959964  # two-sided 95 % point of the standard normal
DRAWS = 2000  # of the bootstrap
LEVEL = 0.95
FEW_SUBJECTS = 5  # with fewer, an interval over subjects may exclude its own estimate
DIGITS = 12  # decimals of a difference; what lies beyond is the noise of sums

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Share:
    """`right` of `total`, with Wilson's 95 % interval of the true share."""

    right: int
    total: int
    share: float
    low: float
    high: float

    @classmethod
    def count(cls, hits: Iterable[bool]) -> "Share":
        """Return the share of hits. Raises ValueError if there is no outcome."""
        outcomes = [bool(hit) for hit in hits]
        return cls.of(sum(outcomes), len(outcomes))

    @classmethod
    def of(cls, right: int, total: int) -> "Share":
        """Return a share with Wilson's score interval (1927), which also holds at 0 and `total`.

        Shares and ends are rounded to 4 decimals. Raises ValueError for a total below 1.
        """
        if total < 1:
            raise ValueError("a share of nothing")
        share, weight = right / total, Z_95**2 / total
        centre = (share + weight / 2) / (1 + weight)
        reach = Z_95 / (1 + weight) * (share * (1 - share) / total + weight / (4 * total)) ** 0.5
        return cls(
            right,
            total,
            round(share, 4),
            round(max(0.0, centre - reach), 4),
            round(min(1.0, centre + reach), 4),
        )

    def __str__(self) -> str:
        """Return text such as "192/200 = 96.0% [92.3, 98.0]"."""
        ends = f"[{100 * self.low:.1f}, {100 * self.high:.1f}]"
        return f"{self.right}/{self.total} = {self.share:.1%} {ends}"


@dataclass(frozen=True)
class Interval:
    """A mean over subjects of equal weight, with its 95 % interval."""

    mean: float
    low: float | None  # None with one subject and one seed, or for too few subjects
    high: float | None
    subjects: int
    values: int  # of all subjects together

    def for_enough_subjects(self) -> "Interval":
        """Return the interval; without its ends if it is over fewer than FEW_SUBJECTS subjects."""
        if self.subjects >= FEW_SUBJECTS:
            return self
        return replace(self, low=None, high=None)


Runs = Sequence[Sequence[float]]
"""A subject's values: for each training run those of its picture seeds."""


def bootstrap_interval(
    subjects: Sequence[Runs], limits: tuple[float, float] = (-np.inf, np.inf), seed: int = 0
) -> Interval:
    """Return the mean of subjects' means, with a hierarchical bootstrap interval.

    subjects: for each its training runs, and for each of those its values, one per picture seed.
    limits: of the score; the interval is cut off there. seed: of the draws.

    Subjects are drawn with replacement, then the runs of each, then the seeds of each run. A mean
    of a few seeds varies with its seeds already, so drawing all levels as they are would count
    that variation twice, or three times: the means of a level are first shrunk to the spread they
    have beyond that of the level below (Davison and Hinkley, Bootstrap Methods, 1997, section
    3.8). Deviations are stretched from the normal's quantile to Student's t, because the interval
    of few subjects would be too short. With one subject the interval is over its runs; with one
    run of it, over its seeds. Of 400 simulated data sets of 12 subjects, 3 runs and 1 or 2 seeds,
    94.8 to 96.0 % of the intervals cover the truth at four spreads of the levels; of 5 subjects and
    3 runs 97.3 %, so few subjects are conservative. Raises ValueError for a subject or a run
    without values.
    """
    return bootstrap_test(subjects, limits, seed)[0]


def bootstrap_test(
    subjects: Sequence[Runs], limits: tuple[float, float] = (-np.inf, np.inf), seed: int = 0
) -> tuple[Interval, float | None]:
    """Return the interval of `bootstrap_interval`, and the p-value that the mean is 0.

    p is two-sided and of the same draws: the mean over their standard deviation, by Student's t.
    It is None where there is no interval. Correct the p-values of a table with `holm`.
    """
    from scipy.special import ndtri, stdtr, stdtrit

    drawn = _draw(subjects, seed)
    if not drawn.freedom:
        return Interval(drawn.mean, None, None, len(subjects), drawn.values), None
    tail = (1 + LEVEL) / 2
    stretch = stdtrit(drawn.freedom, tail) / ndtri(tail)
    ends = drawn.mean + stretch * np.quantile(drawn.deviations, [1 - tail, tail])
    low, high = np.clip(ends, *limits)
    interval = Interval(drawn.mean, float(low), float(high), len(subjects), drawn.values)
    error = round(float(drawn.deviations.std()), DIGITS)
    if not error:
        return interval, 1.0 if round(drawn.mean, DIGITS) == 0 else 0.0
    return interval, float(2 * stdtr(drawn.freedom, -abs(drawn.mean) / error))


def rank_correlation(subjects: Sequence[Sequence[tuple[float, float]]]) -> Interval | None:
    """Return Spearman's correlation of pairs of values, with an interval over subjects.

    subjects: for each its pairs. Pairs of one subject are alike, so the percentile bootstrap draws
    subjects, not pairs. Fewer than `FEW_SUBJECTS` have no interval. None if all first or all second
    values are equal to 6 digits: a correlation of nothing.
    """
    from scipy.stats import spearmanr

    # Rounded: fixed norms differ in their last bits, which must not count as a spread.
    groups = [np.round(np.array(pairs, dtype=float), 6) for pairs in subjects]
    pooled = np.concatenate(groups)
    if np.ptp(pooled, axis=0).min() == 0:
        return None
    low, high = None, None
    if len(groups) >= FEW_SUBJECTS:
        rng = np.random.default_rng(0)
        drawn: list[float] = []
        for _ in range(DRAWS):
            places = rng.integers(len(groups), size=len(groups))
            chosen = np.concatenate([groups[place] for place in places])
            if np.ptp(chosen, axis=0).min() > 0:  # a draw without a spread has no correlation
                drawn.append(float(spearmanr(chosen).statistic))
        low, high = (float(end) for end in np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return Interval(float(spearmanr(pooled).statistic), low, high, len(groups), len(pooled))


@dataclass(frozen=True)
class PairedTest:
    """The mean of paired differences, and Wilcoxon's signed-rank test that they centre on 0."""

    mean: float
    positive: int  # pairs whose difference is above 0
    pairs: int
    p: float  # two-sided, 0 … 1; see `corrected`
    corrected: float | None = None  # p by Holm's method over its table; None of a test alone


def paired_test(differences: Sequence[float]) -> PairedTest:
    """Test paired differences by Wilcoxon's signed-rank test; p is 1 if all of them are 0.

    Differences are rounded to `DIGITS` decimals first: equal means that were summed in another
    order differ in their last bits, and such a difference must not get a rank. Raises ValueError
    without differences.
    """
    from scipy import stats

    values = np.round(np.asarray(differences, dtype=float), DIGITS)
    if not len(values):
        raise ValueError("a paired test needs differences")
    return PairedTest(
        mean=float(values.mean()),
        positive=int((values > 0).sum()),
        pairs=len(values),
        # Without a difference there is no rank to sum, and scipy returns NaN.
        p=float(stats.wilcoxon(values).pvalue) if values.any() else 1.0,
    )


def paired_tests(family: Mapping[Key, Sequence[float]]) -> dict[Key, PairedTest]:
    """Test every row of a table by `paired_test`, and correct for their number by `holm`.

    family: the differences of all rows that are read together, by the name of the row.
    """
    tests = {key: paired_test(differences) for key, differences in family.items()}
    corrected = holm([test.p for test in tests.values()])
    return {
        key: replace(test, corrected=p)
        for (key, test), p in zip(tests.items(), corrected, strict=True)
    }


def crossed_test(
    values: Sequence[float] | np.ndarray,
    first: Sequence[int] | np.ndarray,
    second: Sequence[int] | np.ndarray,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> tuple[Interval, float | None]:
    """Return the mean of values in two crossed groupings, its 95 % interval, and p of a mean of 0.

    first, second: the group of each value, such as its rater and its subject. Values that share
    either are alike, and neither grouping lies within the other, so a nested bootstrap would miss
    one of them. See `crossed_error`. The interval counts the second groups as subjects. limits: of
    a value; the interval is cut off there. p is None where there is no interval. Raises ValueError
    without values.
    """
    from scipy.special import stdtr, stdtrit

    numbers = np.asarray(values, dtype=float)
    if not len(numbers):
        raise ValueError("an interval needs values")
    mean, groups = float(numbers.mean()), len(np.unique(second))
    error, freedom = crossed_error(numbers, first, second)
    if not freedom:
        return Interval(mean, None, None, groups, len(numbers)), None
    reach = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    low, high = np.clip([mean - reach, mean + reach], *limits)
    interval = Interval(mean, float(low), float(high), groups, len(numbers))
    if round(error, DIGITS) == 0:
        return interval, 1.0 if round(mean, DIGITS) == 0 else 0.0
    return interval, float(2 * stdtr(freedom, -abs(mean) / error))


def crossed_error(
    values: np.ndarray,
    first: Sequence[int] | np.ndarray,
    second: Sequence[int] | np.ndarray,
) -> tuple[float, int]:
    """Return the standard error of a mean in two crossed groupings, and its degrees of freedom.

    The variance clustered by the first grouping, plus that by the second, less that by both
    (Cameron, Gelbach and Miller, Journal of Business & Economic Statistics, 2011), and no smaller
    than either alone. A grouping with one group is left out. Degrees of freedom are the smaller
    number of groups less 1; 0, where neither grouping has two groups.
    """
    rest = values - values.mean()
    groupings = [np.unique(groups, return_inverse=True)[1] for groups in (first, second)]
    groupings = [groups for groups in groupings if groups.max() > 0]
    if not groupings:
        return 0.0, 0
    single = [_clustered(rest, groups) for groups in groupings]
    variance = sum(single)
    if len(groupings) == 2:
        both = groupings[0] * (groupings[1].max() + 1) + groupings[1]
        variance -= _clustered(rest, np.unique(both, return_inverse=True)[1])
    freedom = min(int(groups.max()) for groups in groupings)
    return float(max(variance, *single) ** 0.5), freedom


def _clustered(rest: np.ndarray, groups: np.ndarray) -> float:
    """The variance of a mean whose deviations `rest` are alike within groups numbered from 0."""
    sums = np.bincount(groups, rest)
    return float(np.square(sums).sum() / len(rest) ** 2 * len(sums) / max(len(sums) - 1, 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number by Holm's step-down method (1979), in their order.

    The smallest is multiplied by their number, the next by one less, and so on; none is below a
    smaller one's result, and none above 1.
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    ranked = sorted(range(len(p_values)), key=lambda index: p_values[index])
    for rank, index in enumerate(ranked):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


@dataclass(frozen=True)
class _Draws:
    """Bootstrap draws of a mean over subjects."""

    mean: float
    freedom: int  # of Student's t; 0 where nothing varies
    values: int  # of all subjects together
    deviations: np.ndarray  # (DRAWS,), of the mean


def _draw(subjects: Sequence[Runs], seed: int) -> _Draws:
    """Draw subjects, runs and seeds. Raises ValueError for a subject or a run without values."""
    if not subjects or not all(subjects) or not all(map(len, chain.from_iterable(subjects))):
        raise ValueError("every subject needs a value, in each of its runs")
    runs = np.array([len(of_subject) for of_subject in subjects])
    seeds = np.zeros((len(subjects), runs.max()), dtype=int)
    values = np.zeros((*seeds.shape, max(map(len, chain.from_iterable(subjects)))))
    for row, of_subject in enumerate(subjects):
        for place, of_run in enumerate(of_subject):
            seeds[row, place] = len(of_run)
            values[row, place, : len(of_run)] = of_run
    means, levels = _three_levels(values, runs, seeds)
    mean, total = float(means.mean()), int(seeds.sum())
    # The highest level with several members decides how many independent values there are.
    freedom = next((size - 1 for size in (len(runs), runs[0], seeds[0, 0]) if size > 1), 0)
    if not freedom:
        return _Draws(mean, 0, total, np.zeros(DRAWS))
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(runs), size=(DRAWS, len(runs)))
    shape = (*rows.shape, runs.max())
    places = (rng.random(shape) * runs[rows][..., None]).astype(int)
    counts = seeds[rows[..., None], places]
    picks = (rng.random((*shape, seeds.max())) * counts[..., None]).astype(int)
    # Subjects may have different numbers of runs, and runs of seeds: what lies beyond their own
    # number does not count.
    noise = levels[2][rows[..., None, None], places[..., None], picks]
    noise = np.where(np.arange(seeds.max()) < counts[..., None], noise, 0).sum(axis=-1) / counts
    noise = noise + levels[1][rows[..., None], places]
    own = np.arange(runs.max()) < runs[rows][..., None]
    noise = np.where(own, noise, 0).sum(axis=-1) / runs[rows]
    return _Draws(mean, int(freedom), total, (levels[0][rows] + noise).mean(axis=-1))


def _three_levels(
    values: np.ndarray, runs: np.ndarray, seeds: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return subjects' means, and deviations to draw from: of subjects, runs and seeds.

    values: (subjects, runs, seeds), 0 beyond the numbers in `runs` (subjects,) and `seeds`
    (subjects, runs). Each deviation has the variance of its population: drawn together, they have
    the variance that the means of subjects have.
    """
    is_run = np.arange(seeds.shape[1]) < runs[:, None]
    is_seed = np.arange(values.shape[2]) < seeds[..., None]
    of_run = values.sum(axis=2) / np.maximum(seeds, 1)
    means = of_run.sum(axis=1) / runs
    by_seed = np.where(is_seed, values - of_run[..., None], 0) * _bessel(seeds)[..., None]
    by_run = np.where(is_run, of_run - means[:, None], 0) * _bessel(runs)[:, None]
    # Runs: what their means vary by, pooled over the subjects that have several, and the part of it
    # that comes from their seeds.
    several = runs > 1
    if several.any():
        variance = (np.square(by_run).sum(axis=1) / runs)[several].mean()
        noise = (np.square(by_seed).sum(axis=2) / np.maximum(seeds, 1) ** 2)[several]
        by_run, scale = _beyond(by_run, variance, noise.sum() / runs[several].sum())
        by_seed = by_seed * scale
    if len(runs) == 1:
        return means, (np.zeros(1), by_run, by_seed)
    of_seeds = (np.square(by_seed).sum(axis=2) / np.maximum(seeds, 1) ** 2).sum(axis=1)
    noise = (of_seeds + np.square(by_run).sum(axis=1)) / runs**2
    centred = (means - means.mean()) * (len(runs) / (len(runs) - 1)) ** 0.5
    by_subject, scale = _beyond(centred, means.var(ddof=1), noise.mean())
    return means, (by_subject, by_run * scale, by_seed * scale)


def _bessel(counts: np.ndarray) -> np.ndarray:
    """What deviations from a sample's own mean are too small by; 0 of a single value."""
    return np.where(counts > 1, counts / np.maximum(counts - 1, 1), 0) ** 0.5


def _beyond(deviations: np.ndarray, variance: float, noise: float) -> tuple[np.ndarray, float]:
    """Shrink deviations to the spread beyond the noise of the level below.

    variance: of the deviations. Returns them, and the factor for the levels below, which is less
    than 1 where their noise alone is larger than the variance.
    """
    if not variance:
        return deviations * 0, 0.0
    share = max(0.0, 1 - noise / variance)
    return deviations * share**0.5, min(1.0, (variance / noise) ** 0.5 if noise else 1.0)
