"""Intervals and paired tests: the uncertainty that a finite sample leaves, in one place."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

Z_95 = 1.959964  # two-sided 95 % point of the standard normal
DRAWS = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Share:
    """`right` of `total`, and the Wilson interval that covers the true share in 95 of 100 samples."""

    right: int
    total: int
    share: float
    low: float
    high: float

    @classmethod
    def count(cls, hits: Iterable[bool]) -> "Share":
        """Count the hits."""
        outcomes = [bool(hit) for hit in hits]
        return cls.of(sum(outcomes), len(outcomes))

    @classmethod
    def of(cls, right: int, total: int) -> "Share":
        """Wilson's score interval (1927): sensible at 0 and at `total` too."""
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
        """E.g. "192/200 = 96.0 % [92.3, 98.0]"."""
        return f"{self.right}/{self.total} = {self.share:.1%} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True)
class Interval:
    """A mean over subjects, each weighing the same, and its 95 % interval."""

    mean: float
    low: float | None  # None: one subject and one seed say nothing of their spread
    high: float | None
    subjects: int
    values: int  # of all subjects together


def bootstrap_interval(
    groups: Sequence[Sequence[float]],
    limits: tuple[float, float] = (-np.inf, np.inf),
    seed: int = 0,
) -> Interval:
    """The mean of subjects' means, with a hierarchical bootstrap interval.

    groups: for each subject its values, one per seed. limits: of the score, which the interval keeps.

    Subjects are drawn, and for each its seeds. Means of a few seeds scatter by their seeds already, so drawing both
    as they are would count that twice: the subjects' means are first shrunk to the spread they have beyond it (Davison
    and Hinkley, Bootstrap Methods, 1997, section 3.8). Deviations are stretched from the normal's quantile to that of
    Student's t, or few subjects would give intervals that are too short. With one subject the interval is over its
    seeds alone. Raises ValueError for a subject without values.
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
    drawn = np.arange(counts.max()) < counts[subjects][..., None]
    noise = np.where(drawn, within[subjects[..., None], seeds], 0).sum(axis=-1) / counts[subjects]
    deviations = (between[subjects] + noise).mean(axis=-1)
    tail = (1 + LEVEL) / 2
    stretch = stdtrit(freedom, tail) / ndtri(tail)
    low, high = np.clip(centre + stretch * np.quantile(deviations, [1 - tail, tail]), *limits)
    return Interval(centre, float(low), float(high), len(groups), int(counts.sum()))


def _two_levels(
    groups: Sequence[Sequence[float]], means: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Deviations to draw from: (subjects,) of subjects, and (subjects, most seeds) of seeds about their subject's mean.

    Both have the variance of the population they stand for; drawn together they have that of the subjects' means.
    """
    within = np.zeros((len(groups), counts.max()))
    for row, (group, mean) in enumerate(zip(groups, means, strict=True)):
        if len(group) > 1:
            within[row, : len(group)] = (np.array(group) - mean) * (
                len(group) / (len(group) - 1)
            ) ** 0.5
    if len(groups) == 1:
        return np.zeros(1), within
    variance, noise = means.var(ddof=1), (np.square(within).sum(axis=1) / counts**2).mean()
    share = max(0.0, 1 - noise / variance) if variance else 0.0
    between = (means - means.mean()) * (share * len(groups) / (len(groups) - 1)) ** 0.5
    return between, within * min(1.0, (variance / noise) ** 0.5 if noise else 1.0)
