import pytest
import torch
from torch import Tensor

from dti_geom.errors import GeometryError
from dti_geom.geometry.neighbors import nearest
from dti_geom.geometry.shape import (
    iso_score,
    mean_cosine,
    nearest_dimension,
    occurrences,
    skewness,
    two_nearest_dimension,
)


def gaussian(count: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(
        count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def distances(points: Tensor, k: int) -> Tensor:
    return nearest(points, points, k + 1, metric="euclidean").values[:, 1:]


def test_a_cross_is_isotropic_and_a_line_is_not() -> None:
    cross = torch.cat([torch.eye(8), -torch.eye(8)])
    assert iso_score(cross) == pytest.approx(1)
    line = torch.arange(5.0)[:, None] * torch.ones(8)
    assert iso_score(line) == pytest.approx(0, abs=1e-9)


def test_many_gaussian_points_are_isotropic_wherever_they_lie() -> None:
    points = gaussian(20000, 8)
    assert iso_score(points) > 0.99
    assert iso_score(3 * points + 100) == pytest.approx(iso_score(points), abs=1e-6)


@pytest.mark.parametrize("used", [2, 5, 9])
def test_isotropy_counts_the_dimensions_that_are_used_alike(used: int) -> None:
    cross = torch.cat([torch.eye(10), -torch.eye(10)])
    cross[:, used:] = 0
    # The score of Rudman et al. for variances that are equal in `used` of n dimensions.
    assert iso_score(cross) == pytest.approx((used - 1) / 9)


def test_the_mean_cosine_is_that_of_all_pairs() -> None:
    points = gaussian(30, 6) + 1
    unit = torch.nn.functional.normalize(points, dim=1)
    pairs = torch.triu_indices(30, 30, offset=1)
    expected = float((unit[pairs[0]] * unit[pairs[1]]).sum(dim=1).mean())
    assert mean_cosine(points) == pytest.approx(expected)


def test_a_hub_is_counted_once_for_every_point_that_it_is_near() -> None:
    star = torch.tensor([[1], [0], [0], [0], [0]])  # the first point is nearest to all others
    assert occurrences(star).tolist() == [4, 1, 0, 0, 0]
    assert skewness(torch.tensor([1.0, 2.0, 3.0])) == pytest.approx(0)
    assert skewness(torch.tensor([0.0, 0.0, 0.0, 4.0])) == pytest.approx(2 / 3**0.5)


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_the_dimension_of_a_planted_subspace_is_found(dim: int) -> None:
    points = torch.rand(2000, dim, generator=torch.Generator().manual_seed(1)).double()
    turned = points @ torch.linalg.qr(gaussian(12, dim)).Q.T
    found = distances(turned, 10)
    assert two_nearest_dimension(found) == pytest.approx(dim, rel=0.1)
    assert nearest_dimension(found) == pytest.approx(dim, rel=0.1)


def test_clouds_without_a_shape_are_refused() -> None:
    with pytest.raises(GeometryError, match="are equal"):
        iso_score(torch.ones(5, 3))
    with pytest.raises(GeometryError, match="n at least 2"):
        mean_cosine(torch.ones(1, 3))
    with pytest.raises(GeometryError, match="no meaning"):
        skewness(torch.ones(4))
    with pytest.raises(GeometryError, match="equal points"):
        two_nearest_dimension(torch.tensor([[0.0, 1.0]]))
