"""Measure the shape of a token table: isotropy, hubs, intrinsic dimension, and norm by row number.

Neighbours in many dimensions have hubs even without any structure, so a cloud of random directions
of the same size stands beside the table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dti_geom import geometry
from dti_geom.errors import DoesNotApply
from dti_geom.geometry.shape import (
    iso_score,
    mean_cosine,
    nearest_dimension,
    occurrences,
    skewness,
    two_nearest_dimension,
)
from dti_geom.models import TextEncoder
from dti_geom.probes.learned import LearnedVector
from dti_geom.probes.material import distinct_rows
from dti_geom.probes.registry import Needs
from dti_geom.probes.result import Result

SAMPLE = 16384  # rows whose covariance is measured
NEIGHBORS_AMONG = 4096  # of those, rows that are searched for neighbours
K = 10
HUBS = 8
LEAST = 32  # rows that a shape is measured of


@dataclass(frozen=True)
class Hub:
    """A row that is a neighbour of many."""

    token: str
    id: int
    count: int  # rows that have it among their K nearest; K on average


@dataclass(frozen=True)
class CloudShape:
    """Shape of one cloud of points."""

    # "rows" as stored, their "directions", those "centred" (less their mean, again of unit norm),
    # or "random" directions
    cloud: str
    isotropy: float  # IsoScore, 0 … 1
    mean_cosine: float  # over all pairs, −1 … 1
    hubness: float  # skewness of how often a row is among the K nearest of another
    never: float  # share of rows that are no row's neighbour
    two_nearest: float  # intrinsic dimension from two neighbours
    dimension: float  # the same from K neighbours
    hubs: tuple[Hub, ...]  # most frequent first; none for random directions


@dataclass(frozen=True)
class ShapeResult(Result):
    """Shape of one encoder's token table."""

    name: str
    rows: int  # that are not zero and differ from all others
    equal_rows: int  # non-zero rows left out because an earlier one is equal
    dim: int
    sampled: int  # rows whose isotropy and mean cosine were measured
    searched: int  # rows that were searched for neighbours, among each other
    k: int  # neighbours of each
    norm_by_row: (
        float | None
    )  # Spearman's correlation of norm and row number; None: norms are equal
    clouds: tuple[CloudShape, ...]


@torch.no_grad()
def measure_shape(
    encoder: TextEncoder, learned: Sequence[LearnedVector] = (), *, seed: int = 0
) -> ShapeResult:
    """Return isotropy, hubness and intrinsic dimension of a token table, and of its directions.

    learned: not used; a few vectors have no shape. Zero rows, special tokens and repeated rows are
    left out. Larger tables are sampled. Row numbers of a byte-pair vocabulary follow the order of
    merges, so early rows are frequent pieces; `norm_by_row` says whether norms follow them.

    Raises DoesNotApply with fewer than LEAST such rows.
    """
    Needs.TOKEN_TABLE.check(encoder, learned)
    table = encoder.token_table
    rows, equal = distinct_rows(encoder)
    if len(rows) < LEAST:
        raise DoesNotApply(
            f"{encoder.name}: {len(rows)} different rows that are not zero; a shape takes {LEAST}."
        )
    generator = torch.Generator().manual_seed(seed)
    sample = rows[torch.randperm(len(rows), generator=generator)[:SAMPLE]]
    points = table[sample.to(table.device)].float().cpu()
    directions = geometry.normalize(points)
    clouds = {
        "rows": points,
        "directions": directions,
        "centred": geometry.normalize(directions - directions.mean(dim=0)),
        "random": geometry.normalize(torch.randn(points.shape, generator=generator)),
    }
    return ShapeResult(
        name=encoder.name,
        rows=len(rows),
        equal_rows=equal,
        dim=table.shape[1],
        sampled=len(sample),
        searched=min(len(sample), NEIGHBORS_AMONG),
        k=K,
        norm_by_row=_norm_by_row(table, rows),
        clouds=tuple(
            _cloud(encoder, name, cloud, None if name == "random" else sample)
            for name, cloud in clouds.items()
        ),
    )


def _norm_by_row(table: Tensor, rows: Tensor) -> float | None:
    from scipy.stats import spearmanr

    norms = geometry.row_norms(table)[rows.to(table.device)].cpu()
    if bool((norms == norms[0]).all()):
        return None
    return float(spearmanr(rows.numpy(), norms.numpy()).statistic)


def _cloud(encoder: TextEncoder, name: str, points: Tensor, rows: Tensor | None) -> CloudShape:
    searched = points[:NEIGHBORS_AMONG]
    distances, neighbors = _neighbors(searched)
    counts = occurrences(neighbors)
    hubs: list[Hub] = []
    if rows is not None:
        count, place = counts.sort(descending=True, stable=True)
        ids = rows[place[:HUBS]].tolist()
        names = encoder.vocabulary.tokens(ids)
        hubs = list(map(Hub, names, ids, count[:HUBS].tolist()))
    apart = distances[distances[:, 0] > 0]  # directions of different rows may still be equal
    return CloudShape(
        cloud=name,
        isotropy=iso_score(points),
        mean_cosine=mean_cosine(points),
        hubness=skewness(counts),
        never=float((counts == 0).double().mean()),
        two_nearest=two_nearest_dimension(apart),
        dimension=nearest_dimension(apart),
        hubs=tuple(hubs),
    )


def _neighbors(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return distances and numbers of the K nearest other points of each: (n, K), (n, K)."""
    found = geometry.nearest(points, points, K + 1, metric="euclidean")
    itself = torch.arange(len(points))[:, None]
    others = found.indices != itself
    # Where equal points push a point out of its own list, the last of the others goes.
    others &= others.cumsum(dim=1) <= K
    shape = (len(points), K)
    return found.values[others].reshape(shape), found.indices[others].reshape(shape)
