"""How long a free vector grows under AdamW, as a random walk without a fitted number.

Adam moves every coordinate by about the rate η, whatever the size of the gradient. Gradients that
are white and do not point along the vector therefore add η²·d to its squared norm in each update:

    n² ← (1 − ηλ)²·n² + η²·d        width d, decoupled weight decay λ

β₁ does not enter: see docs/inflation.md, which derives the law and says where it breaks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dti_geom.errors import GeometryError
from dti_geom.statistics import LEVEL

BETA_2 = 0.999  # of AdamW's running second moment


@dataclass(frozen=True)
class Walk:
    """A free vector under AdamW, before it starts."""

    width: int  # d, coordinates of the vector
    start_norm: float  # embedding units
    learning_rate: float  # η of an update
    weight_decay: float = 0.0  # λ of AdamW

    def __post_init__(self) -> None:
        """Raise GeometryError for what no run could do."""
        _check("width", self.width, self.width >= 1, "1 or more")
        for name in ("start_norm", "weight_decay"):
            value = getattr(self, name)
            _check(name, value, 0 <= value < math.inf, "a finite number, 0 or more")
        rate = self.learning_rate
        _check("learning_rate", rate, 0 < rate < math.inf, "a finite number above 0")
        shrinks = rate * self.weight_decay < 1
        _check("weight_decay", self.weight_decay, shrinks, f"less than 1/rate, {1 / rate:g}")

    @property
    def _kept(self) -> float:
        """The share of the squared norm that an update keeps."""
        return (1 - self.learning_rate * self.weight_decay) ** 2

    @property
    def _lost(self) -> float:
        """One minus the share kept, without cancellation."""
        decay = self.learning_rate * self.weight_decay
        return decay * (2 - decay)

    @property
    def _gain(self) -> float:
        """What an update adds to the squared norm."""
        return self.learning_rate**2 * self.width

    def norm(self, steps: int) -> float:
        """Return the predicted norm after that many updates, in embedding units."""
        if not self._lost:
            return math.sqrt(self.start_norm**2 + self._gain * steps)
        shrunk = math.expm1(steps * math.log1p(-self._lost))  # keptᵀ − 1
        return math.sqrt(self.start_norm**2 * (1 + shrunk) - self._gain * shrunk / self._lost)

    @property
    def plateau(self) -> float | None:
        """The norm at which decay takes what an update adds; None without decay."""
        return math.sqrt(self._gain / self._lost) if self._lost else None

    def leaves(self, limit: float) -> int | None:
        """Return the first update after which the norm is above `limit`, or None if none is.

        0 means that the start is above it already.
        """
        if self.start_norm > limit:
            return 0
        room = limit**2 - self.start_norm**2
        if not self._lost:
            return math.floor(room / self._gain) + 1
        top = self._gain / self._lost
        if top <= limit**2:
            return None
        left = (top - limit**2) / (top - self.start_norm**2)
        return math.floor(math.log(left) / math.log1p(-self._lost)) + 1

    def scheduled_norms(self, shares: Sequence[float]) -> list[float]:
        """Return the norms after 0, 1, … updates if each has this share of the learning rate.

        Returns one number more than there are shares.
        """
        square = self.start_norm**2
        norms = [self.start_norm]
        for share in shares:
            kept = (1 - share * self.learning_rate * self.weight_decay) ** 2
            square = kept * square + share**2 * self._gain
            norms.append(math.sqrt(square))
        return norms

    def slowed_norms(self, steps: int) -> list[float]:
        """Return the norms after 0 … `steps` updates if gradients shrink as 1/‖e‖.

        They do where only the direction of e counts. Adam divides by the root of a running mean of
        squares, which remembers the larger gradients of a shorter vector, so its steps fall below
        η. Returns steps + 1 numbers.
        """
        square = self.start_norm**2
        if not square:
            raise GeometryError("start_norm is 0, where 1/‖e‖ has no value. Start above 0.")
        norms, second_moment = [self.start_norm], 0.0
        for step in range(1, steps + 1):
            second_moment = BETA_2 * second_moment + (1 - BETA_2) / square
            share = (1 / square) / (second_moment / (1 - BETA_2**step))
            square = self._kept * square + self._gain * share
            norms.append(math.sqrt(square))
        return norms


def rate_within(
    width: int, start_norm: float, limit: float, steps: int, weight_decay: float = 0.0
) -> float | None:
    """Return the largest rate whose predicted norm after `steps` updates is at most `limit`.

    None if the start is at the limit already or above it.
    """
    room = limit**2 - start_norm**2
    if room <= 0:
        return None
    low = math.sqrt(room / (width * steps))  # right without decay, too small with it
    if not weight_decay:
        return low
    # Decay shortens the vector, so the rate may be larger. A rate of 1/λ would be no walk at all.
    high = 1 / weight_decay
    for _ in range(100):  # halves the interval to the last bit of a float
        middle = (low + high) / 2
        if not low < middle < high:
            break
        inside = Walk(width, start_norm, middle, weight_decay).norm(steps) <= limit
        low, high = (middle, high) if inside else (low, middle)
    return low


@dataclass(frozen=True)
class ImpliedRate:
    """The learning rate that a growth of norms amounts to, with the line it was read from."""

    rate: float
    low: float  # 95 % interval of the line's slope; 0 where the slope may be 0 or falling
    high: float
    r_squared: float
    start_norm: float | None  # where the line meets update 0; None if below 0


def implied_rate(steps: Sequence[int], norms: Sequence[float], width: int) -> ImpliedRate | None:
    """Return η from the least-squares line of ‖e‖² on the update; None if the norm does not grow.

    steps: of three or more checkpoints, different. The interval is Student's, for independent
    residuals. Those of a walk are not, so it says how straight the line is, and nothing of the
    next run.
    """
    from scipy import stats

    if len(set(steps)) < 3:
        raise GeometryError(
            f"found checkpoints at {len(set(steps))} different updates; expected 3 or more."
        )
    line = stats.linregress(steps, [norm**2 for norm in norms])
    if line.slope <= 0:
        return None
    reach = float(stats.t.ppf((1 + LEVEL) / 2, len(steps) - 2)) * line.stderr
    low, rate, high = (
        math.sqrt(max(0.0, slope) / width)
        for slope in (line.slope - reach, line.slope, line.slope + reach)
    )
    return ImpliedRate(
        rate=rate,
        low=low,
        high=high,
        r_squared=float(line.rvalue**2),
        start_norm=math.sqrt(line.intercept) if line.intercept >= 0 else None,
    )


def _check(name: str, value: float, valid: bool, expected: str) -> None:
    if not valid:
        raise GeometryError(f"{name} is {value}; expected {expected}.")
