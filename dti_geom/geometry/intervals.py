"""Shares with the uncertainty a finite sample leaves."""

from collections.abc import Iterable
from dataclasses import dataclass

Z_95 = 1.959964  # two-sided 95 % point of the standard normal


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
            right, total, round(share, 4), round(max(0.0, centre - reach), 4), round(min(1.0, centre + reach), 4)
        )

    def __str__(self) -> str:
        """E.g. "192/200 = 96.0 % [92.3, 98.0]"."""
        return f"{self.right}/{self.total} = {self.share:.1%} [{100 * self.low:.1f}, {100 * self.high:.1f}]"
