"""Which vectors a token has: selected, dropped, resized, averaged, or those of several tokens."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dti_geom import geometry
from dti_geom.editing.concepts import Concept
from dti_geom.errors import EditingError
from dti_geom.files import LearnedToken


def select(concept: Concept, indices: Sequence[int]) -> Concept:
    """Return the token with these of its vectors, in this order; indices from 0.

    Raises EditingError for an index that an encoder's vectors do not have.
    """
    return _changed(concept, lambda part: part.vectors[_checked(part, indices)])


def drop(concept: Concept, indices: Sequence[int]) -> Concept:
    """Return the token without these of its vectors. Raises EditingError if none is left."""

    def kept(part: LearnedToken) -> Tensor:
        dropped = set(_checked(part, indices))
        left = [index for index in range(len(part.vectors)) if index not in dropped]
        if not left:
            raise EditingError(f"{part.token} has no vectors left. Drop fewer.")
        return part.vectors[left]

    return _changed(concept, kept)


def resize(concept: Concept, count: int) -> Concept:
    """Return the token with `count` vectors.

    Fewer: each is the mean direction of a run of neighbours, at their mean norm. More: each is
    repeated, as evenly as the count allows, which keeps their order.
    """
    if count < 1:
        raise EditingError(f"a token of {count} vectors. Expected 1 or more.")

    def resized(part: LearnedToken) -> Tensor:
        rows = part.vectors
        if count >= len(rows):
            return rows[[place * len(rows) // count for place in range(count)]]
        edges = [place * len(rows) // count for place in range(count + 1)]
        runs = [rows[edges[place] : edges[place + 1]] for place in range(count)]
        return torch.stack([_mean(run) for run in runs])

    return _changed(concept, resized)


def average(concept: Concept) -> Concept:
    """Return the token with one vector: the mean direction of all, at their mean norm."""
    return _changed(concept, lambda part: _mean(part.vectors)[None])


def concatenate(concepts: Sequence[Concept], token: str) -> Concept:
    """Return one token with the vectors of several, in their order.

    Raises EditingError unless all have vectors for the same text encoders.
    """
    shapes = {tuple((part.tower, part.vectors.shape[1]) for part in one.tokens) for one in concepts}
    if len(shapes) != 1:
        listed = ", ".join(f"{one.label} ({' + '.join(map(str, one.widths))})" for one in concepts)
        raise EditingError(
            f"these tokens have vectors for different encoders: {listed or 'none'}. Convert them "
            "to one layout first, or leave one out."
        )
    columns = zip(*(one.tokens for one in concepts), strict=True)
    parts = [
        replace(column[0], vectors=torch.cat([part.vectors for part in column]))
        for column in columns
    ]
    return replace(concepts[0], tokens=tuple(parts)).renamed(token)


def _changed(concept: Concept, change: Callable[[LearnedToken], Tensor]) -> Concept:
    parts = [replace(part, vectors=change(part)) for part in concept.tokens]
    return replace(concept, tokens=tuple(parts))


def _checked(part: LearnedToken, indices: Sequence[int]) -> list[int]:
    count = len(part.vectors)
    wrong = [index for index in indices if not 0 <= index < count]
    if wrong or not indices:
        named = wrong[0] if wrong else "none"
        raise EditingError(
            f"{part.token} has {count} vectors, 0 to {count - 1}, and {named} was named."
        )
    return list(indices)


def _mean(rows: Tensor) -> Tensor:
    """Return the mean direction of rows (n, d) at their mean norm, (d,)."""
    wide = rows.double()
    total = geometry.normalize(wide).sum(dim=0)
    # What is left of directions that cancel is rounding.
    if total.norm() <= 1e-6 * len(rows):
        raise EditingError("the vectors cancel: their mean has no direction. Select some of them.")
    return (geometry.norms(wide).mean() * geometry.normalize(total)).to(rows.dtype)
