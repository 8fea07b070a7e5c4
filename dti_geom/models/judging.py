"""Whether a learned vector has the length of a token, or is a row of the vocabulary itself."""

from typing import Literal

import torch
from torch import Tensor

from dti_geom.models.published import PUBLISHED

ODD = 1.5  # norm ÷ mean norm, or its inverse, beyond which a vector is out of distribution
OUTER = 1  # percent of the vocabulary at either end that counts as out of distribution
ROUNDING = 2e-3  # relative distance that storing a row in 16 bits can cause

Length = Literal["in distribution", "inflated", "short", "unknown"]


def length_verdict(inflation: float | None, percentile: float | None = None) -> Length:
    """Judge a norm.

    inflation: norm / mean norm of the vocabulary; None where no mean is known.
    percentile: share of the vocabulary's rows that are not longer, 0 … 100, which goes first.
    """
    if percentile is not None:
        outside = percentile > 100 - OUTER, percentile < OUTER
    elif inflation is not None:
        outside = inflation > ODD, inflation < 1 / ODD
    else:
        return "unknown"
    return "inflated" if outside[0] else "short" if outside[1] else "in distribution"


def published_mean(width: int) -> float | None:
    """Return the published mean norm of the encoder whose table has this width, if there is one."""
    table = PUBLISHED.get(width)
    return table.mean_norm if table else None


def percentile_of(norm: float, ascending: Tensor) -> float:
    """Return the share of norms that are not larger, in percent.

    ascending: (V,), the norms of a vocabulary's rows that are not zero, sorted.
    """
    found = torch.searchsorted(ascending, torch.tensor(norm).to(ascending), right=True)
    return 100 * int(found) / len(ascending)


def is_same_row(first: Tensor, second: Tensor) -> bool:
    """Return whether two vectors, (d,), are one row up to rounding to 16 bits."""
    difference = (first.double() - second.double().to(first.device)).norm()
    return bool(difference <= ROUNDING * first.double().norm())
