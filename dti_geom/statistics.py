"""Intervals and paired tests: how far a finite sample may be from the truth.

One kind of inference per table: shares have Wilson's interval, scores of subjects and seeds the
hierarchical bootstrap, and paired differences Student's interval and Wilcoxon's test with Holm's
correction.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

Z_95 = 1.959964  # two-sided 95 % point of the standard normal
DRAWS = 2000  # of the bootstrap
LEVEL = 0.95
FEW_SUBJECTS = 5  # with fewer, an interval over subjects may exclude its own estimate


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


def bootstrap_interval(
    groups: Sequence[Sequence[float]],
    limits: tuple[float, float] = (-np.inf, np.inf),
    seed: int = 0,
) -> Interval:
    """Return the mean of subjects' means, with a hierarchical bootstrap interval.

    groups: for each subject its values, one per seed. limits: of the score; the interval is cut
    off there. seed: of the draws.

    Subjects are drawn with replacement, and then the seeds of each. A mean of a few seeds varies
    with its seeds already, so drawing both as they are would count that variation twice: the
    subjects' means are first shrunk to the spread they have beyond it (Davison and Hinkley,
    Bootstrap Methods, 1997, section 3.8). Deviations are stretched from the normal's quantile to
    Student's t, because the interval of few subjects would be too short. With one subject the
    interval is over its seeds. Raises ValueError for a subject without values.
    """
    from scipy.special import ndtri, stdtrit

    counts = np.array([len(group) for group in groups])
    if not len(counts) or not counts.all():
        raise ValueError("every subject needs a value")
    means = np.array([np.mean(group) for group in groups])
    centre = float(means.mean())
    freedom = len(groups) - 1 if len(groups) > 1 else int(counts[0]) - 1
    if not freedom:
        return Interval(centre, None, None, len(groups), int(counts.sum()))
    between, within = _two_levels(groups, means, counts)
    rng = np.random.default_rng(seed)
    subjects = rng.integers(len(groups), size=(DRAWS, len(groups)))
    seeds = (rng.random((*subjects.shape, counts.max())) * counts[subjects][..., None]).astype(int)
    # Subjects may have different numbers of seeds; columns beyond a subject's own do not count.
    drawn = np.arange(counts.max()) < counts[subjects][..., None]
    noise = np.where(drawn, within[subjects[..., None], seeds], 0).sum(axis=-1) / counts[subjects]
    deviations = (between[subjects] + noise).mean(axis=-1)
    tail = (1 + LEVEL) / 2
    stretch = stdtrit(freedom, tail) / ndtri(tail)
    low, high = np.clip(centre + stretch * np.quantile(deviations, [1 - tail, tail]), *limits)
    return Interval(centre, float(low), float(high), len(groups), int(counts.sum()))


@dataclass(frozen=True)
class PairedTest:
    """The mean of paired differences, and Wilcoxon's signed-rank test that they centre on 0."""

    mean: float
    positive: int  # pairs whose difference is above 0
    pairs: int
    p: float  # two-sided, 0 … 1


def paired_test(differences: Sequence[float]) -> PairedTest:
    """Test paired differences by Wilcoxon's signed-rank test; p is 1 if all of them are 0.

    Raises ValueError without differences.
    """
    from scipy import stats

    values = np.asarray(differences, dtype=float)
    if not len(values):
        raise ValueError("a paired test needs differences")
    return PairedTest(
        mean=float(values.mean()),
        positive=int((values > 0).sum()),
        pairs=len(values),
        # Without a difference there is no rank to sum, and scipy returns NaN.
        p=float(stats.wilcoxon(values).pvalue) if values.any() else 1.0,
    )


def student_interval(values: Sequence[float]) -> Interval:
    """Return the mean of independent values with Student's 95 % interval.

    One value has no interval. Raises ValueError without values.
    """
    from scipy import stats

    if not len(values):
        raise ValueError("an interval needs values")
    count, mean = len(values), np.mean(values)
    if count == 1:
        return Interval(float(mean), low=None, high=None, subjects=1, values=1)
    # Not `stats.t.interval`, which has no value where all values are equal.
    reach = stats.t.ppf((1 + LEVEL) / 2, count - 1) * stats.sem(values)
    low, high = float(mean - reach), float(mean + reach)
    return Interval(float(mean), low, high, subjects=count, values=count)


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


def _two_levels(
    groups: Sequence[Sequence[float]], means: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Deviations to draw from, of subjects and of seeds about their subject's mean.

    Shapes (subjects,) and (subjects, most seeds). Each has the variance of its population; drawn
    together they have the variance of the subjects' means.
    """
    within = np.zeros((len(groups), counts.max()))
    for row, (group, mean) in enumerate(zip(groups, means, strict=True)):
        if len(group) > 1:
            # Bessel: deviations from a sample's own mean are too small by this factor.
            bessel = (len(group) / (len(group) - 1)) ** 0.5
            within[row, : len(group)] = (np.array(group) - mean) * bessel
    if len(groups) == 1:
        return np.zeros(1), within
    # The variance of subjects' means, and the part of it that comes from their seeds.
    variance, noise = means.var(ddof=1), (np.square(within).sum(axis=1) / counts**2).mean()
    share = max(0.0, 1 - noise / variance) if variance else 0.0
    between = (means - means.mean()) * (share * len(groups) / (len(groups) - 1)) ** 0.5
    return between, within * min(1.0, (variance / noise) ** 0.5 if noise else 1.0)
