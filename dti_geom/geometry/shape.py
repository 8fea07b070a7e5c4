"""Shape of a cloud of points: isotropy, mean cosine, hubs and intrinsic dimension."""

import math

import torch
from torch import Tensor

from dti_geom.errors import GeometryError
from dti_geom.geometry._checks import check_vectors
from dti_geom.geometry.sphere import normalize


@torch.no_grad()
def iso_score(points: Tensor) -> float:
    """Return how evenly a cloud uses its dimensions: 0 (a line) to 1 (alike in all directions).

    points: (n, d), n and d at least 2. The score depends on the eigenvalues of the covariance
    alone, so neither a shift nor a turn nor a common scale changes it. Few points per dimension
    lower it. (IsoScore: Rudman et al. 2022, arXiv 2108.07344, algorithm 1.)

    Raises GeometryError for fewer points, or if all are equal.
    """
    _check_cloud(points, 2)
    dim = points.shape[1]
    if dim < 2:
        raise GeometryError("points has dimension 1; isotropy compares at least two dimensions.")
    variances = torch.linalg.eigvalsh(torch.cov(points.double().T)).clamp_min(0)
    if not variances.any():
        raise GeometryError(f"all {len(points)} points are equal; expected a cloud with a spread.")
    scaled = math.sqrt(dim) * variances / torch.linalg.vector_norm(variances)
    most = 2 * (dim - math.sqrt(dim))  # squared distance to all-equal variances, for a line
    defect = float((scaled - 1).square().sum()) / most
    used = (dim - defect * (dim - math.sqrt(dim))) ** 2 / dim**2  # share of the dimensions
    return min(1.0, max(0.0, (dim * used - 1) / (dim - 1)))


@torch.no_grad()
def mean_cosine(points: Tensor) -> float:
    """Return the mean cosine over all pairs of different points, −1 … 1.

    points: (n, d), n at least 2. The mean is exact: pairs are summed by way of the sum of
    directions. Raises GeometryError for zero vectors.
    """
    _check_cloud(points, 2)
    count = len(points)
    total = normalize(points.double()).sum(dim=0)
    return float((total @ total - count) / (count * (count - 1)))


@torch.no_grad()
def occurrences(neighbors: Tensor) -> Tensor:
    """Return how often each of n points is among the neighbours of the others: (n,), int64.

    neighbors: (n, k), the numbers of each point's neighbours, itself left out. The mean is k.
    """
    return torch.bincount(neighbors.flatten(), minlength=len(neighbors))


@torch.no_grad()
def skewness(values: Tensor) -> float:
    """Return the skewness of a sample: the mean cubed deviation over the cubed standard deviation.

    values: (n,). Of occurrences, it measures hubness: 0 without hubs, above 1 with strong ones
    (Radovanović et al. 2010). Raises GeometryError if all values are equal.
    """
    deviations = values.double() - values.double().mean()
    spread = deviations.square().mean().sqrt()
    if spread == 0:
        raise GeometryError(f"all {values.numel()} values are equal; skewness has no meaning then.")
    return float(deviations.pow(3).mean() / spread**3)


@torch.no_grad()
def two_nearest_dimension(distances: Tensor) -> float:
    """Return the intrinsic dimension from the two nearest neighbours of each point.

    distances: (n, k), k at least 2, to each point's neighbours, ascending and above 0. The ratio
    of the second to the first is Pareto-distributed with the dimension as its exponent; this is
    its maximum-likelihood estimate (two-NN: Facco et al. 2017).
    """
    return _inverse_mean(_checked(distances)[:, :2])


@torch.no_grad()
def nearest_dimension(distances: Tensor) -> float:
    """Return the intrinsic dimension from the k nearest neighbours of each point.

    distances: as in `two_nearest_dimension`. Levina and Bickel's maximum-likelihood estimate
    (2004), its inverse averaged over points, as MacKay and Ghahramani advise. More neighbours
    look at a larger neighbourhood.
    """
    return _inverse_mean(_checked(distances))


def _inverse_mean(distances: Tensor) -> float:
    last = distances[:, -1:]
    inverses = (last / distances[:, :-1]).log().mean(dim=1)
    mean = float(inverses.mean())
    if mean == 0:
        raise GeometryError("all neighbours are equally far; intrinsic dimension has no meaning.")
    return 1 / mean


def _checked(distances: Tensor) -> Tensor:
    if distances.dim() != 2 or distances.shape[1] < 2 or not (distances > 0).all():
        raise GeometryError(
            f"distances has shape {tuple(distances.shape)}; expected (n, k), k at least 2, all "
            "above 0. Leave out equal points."
        )
    return distances.double()


def _check_cloud(points: Tensor, least: int) -> None:
    check_vectors(points, "points")
    if points.dim() != 2 or len(points) < least:
        raise GeometryError(
            f"points has shape {tuple(points.shape)}; expected (n, d), n at least {least}."
        )
