"""How alike learned tokens are: a matrix of cosines, neighbours, and what a group shares."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dti_geom import geometry
from dti_geom.editing.concepts import Concept
from dti_geom.errors import EditingError
from dti_geom.result import Result

NEAREST = 3
DIRECTIONS = 5


@dataclass(frozen=True)
class Neighbor:
    """Another learned token that points a similar way."""

    label: str
    cosine: float


@dataclass(frozen=True)
class Likeness:
    """Tokens of one width, compared by the mean direction of their vectors."""

    width: int
    labels: tuple[str, ...]  # path:token
    cosines: tuple[tuple[float, ...], ...]  # a symmetric matrix in the order of the labels
    nearest: tuple[tuple[Neighbor, ...], ...]  # for each token
    mean_norm: float  # of the tokens' mean vectors, embedding units
    with_mean: tuple[float, ...]  # cosine of each token with the mean direction of the group
    # Shares of the spread around that mean along the first principal directions, 0 … 1.
    principal: tuple[float, ...]


@dataclass(frozen=True)
class Similarity(Result):
    """What `likeness` found, width by width."""

    groups: tuple[Likeness, ...]

    @property
    def tokens(self) -> int:
        """How many tokens are compared."""
        return sum(len(group.labels) for group in self.groups)


def likeness(concepts: Sequence[Concept]) -> Similarity:
    """Compare tokens, those of each width among themselves.

    Raises EditingError if no two of them have vectors of one width.
    """
    by_width: dict[int, list[tuple[str, Tensor]]] = {}
    for concept in concepts:
        for part in concept.tokens:
            mean = part.vectors.double().mean(dim=0)
            if mean.any():
                by_width.setdefault(len(mean), []).append((concept.label, mean))
    groups = {width: members for width, members in by_width.items() if len(members) > 1}
    if not groups:
        raise EditingError(
            f"found {len(concepts)} tokens, no two of one width. Name two or more files for the "
            "same text encoder."
        )
    return Similarity(
        tuple(_likeness(width, *zip(*members, strict=True)) for width, members in groups.items())
    )


def _likeness(width: int, labels: Sequence[str], means: Sequence[Tensor]) -> Likeness:
    directions = geometry.normalize(torch.stack(list(means)))
    cosines = (directions @ directions.T).clamp(-1, 1)
    ordered = cosines.clone().fill_diagonal_(-2).argsort(dim=1, descending=True)
    count = min(NEAREST, len(labels) - 1)
    nearest = [
        tuple(Neighbor(labels[other], float(cosines[row, other])) for other in others)
        for row, others in enumerate(ordered[:, :count].tolist())
    ]
    center = directions.mean(dim=0)
    spread = torch.linalg.svdvals(directions - center).square()
    total = float(spread.sum())
    shares = (spread / total).tolist() if total > 0 else []
    length = float(center.norm())
    with_mean = (directions @ (center / length)).tolist() if length > 1e-9 else []
    return Likeness(
        width=width,
        labels=tuple(labels),
        cosines=tuple(map(tuple, cosines.tolist())),
        nearest=tuple(nearest),
        mean_norm=float(torch.stack(list(means)).norm(dim=1).mean()),
        with_mean=tuple(with_mean),
        principal=tuple(shares[:DIRECTIONS]),
    )
