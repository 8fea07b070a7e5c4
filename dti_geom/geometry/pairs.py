"""Pairs of similar vectors among many."""

import torch
from torch import Tensor

from dti_geom.geometry.sphere import normalize

_BLOCK = 1024  # rows that are compared at once: 4 MB of cosines


def similar_pairs(
    vectors: Tensor, groups: Tensor, least: float, most: int = 10_000
) -> list[tuple[int, int, float]]:
    """Return pairs (i, j, cosine) of vectors of different groups, most similar first.

    vectors: (n, d), none of them zero. groups: (n,), whole numbers; vectors of one group are not
    compared. least: the smallest cosine of a pair, −1 … 1. most: how many pairs to return. Every
    pair is returned once, i < j.
    """
    directions = normalize(vectors.float())
    pairs: list[tuple[int, int, float]] = []
    for start in range(0, len(directions), _BLOCK):
        cosines = directions[start : start + _BLOCK] @ directions.T
        rows = torch.arange(start, start + len(cosines))
        apart = groups[rows, None] != groups[None]
        later = torch.arange(len(directions)) > rows[:, None]
        found = ((cosines >= least) & apart & later).nonzero()
        values = cosines[found[:, 0], found[:, 1]].clamp(max=1)
        best = values.argsort(descending=True, stable=True)[:most]
        found, values = found[best], values[best]
        pairs += [
            (start + int(i), int(j), float(value))
            for (i, j), value in zip(found.tolist(), values.tolist(), strict=True)
        ]
        pairs = sorted(pairs, key=lambda pair: (-pair[2], pair[:2]))[:most]
    return pairs
