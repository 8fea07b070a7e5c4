import math
import warnings
from typing import Any

import numpy as np
import pytest
import scipy.spatial
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dti_geom.errors import GeometryError
from dti_geom.geometry import (
    angle,
    exp_map,
    frechet_mean,
    lerp,
    log_map,
    nlerp,
    normalize,
    norms,
    project_tangent,
    retract,
    slerp,
    swap,
)

with warnings.catch_warnings():
    # geoopt scripts its helpers when imported, which newer torch deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    import geoopt

DTYPES = [torch.float32, torch.float64, torch.bfloat16]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-6, torch.bfloat16: 2e-2}
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def random_units(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    units: Tensor = x / x.norm(dim=-1, keepdim=True)
    return units.to(dtype)


def pair_at(theta: float, dim: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two unit vectors in float64 at a known angle."""
    v, other = random_units(2, dim, seed=seed)
    u = other - (v @ other) * v
    return v, math.cos(theta) * v + math.sin(theta) * u / u.norm()


units = st.builds(
    lambda dim, seed, batch: random_units(2, *batch, dim, seed=seed),
    st.integers(2, 64),
    st.integers(0, 2**31),
    st.lists(st.integers(1, 3), max_size=2),
)


# norms, normalize, swap


def test_norms_of_known_vectors_are_exact() -> None:
    assert norms(torch.tensor([[3.0, 4.0], [0.0, 0.0], [-5.0, 12.0]])).tolist() == [5.0, 0.0, 13.0]


@pytest.mark.parametrize("size", [1e-42, 1e-30, 1e30, 3e38])
def test_norm_and_direction_survive_sizes_whose_squares_leave_float32(size: int) -> None:
    x = torch.tensor([size, 0.0, 0.0])
    assert norms(x).item() == x[0].item()
    assert normalize(x).tolist() == [1.0, 0.0, 0.0]


@dtypes
def test_norms_are_at_least_float32_and_vectors_keep_their_dtype(dtype: torch.dtype) -> None:
    x = random_units(4, 7, dtype=dtype) * 3
    assert norms(x).dtype == torch.promote_types(dtype, torch.float32)
    assert normalize(x).dtype == dtype
    assert norms(normalize(x)).double() == pytest.approx(
        torch.ones(4).double(), abs=TOLERANCE[dtype]
    )


def test_bfloat16_norms_are_computed_in_float32() -> None:
    x = torch.full((4096,), 0.1, dtype=torch.bfloat16)
    assert norms(x).item() == pytest.approx(64 * x[0].item(), rel=1e-5)


@dtypes
def test_swap_takes_direction_from_one_and_norm_from_the_other(dtype: torch.dtype) -> None:
    a, b = 0.4 * random_units(3, 16, dtype=dtype), 7 * random_units(3, 16, dtype=dtype, seed=1)
    mixed = swap(direction_of=a, magnitude_of=b)
    assert mixed.dtype == dtype
    torch.testing.assert_close(norms(mixed), norms(b), rtol=TOLERANCE[dtype], atol=0)
    torch.testing.assert_close(normalize(mixed), normalize(a), rtol=0, atol=TOLERANCE[dtype])


# angle


@pytest.mark.parametrize(
    "theta", [0.0, 1e-12, 1e-7, 1e-3, 1.0, math.pi / 2, 3.0, math.pi - 1e-7, math.pi]
)
def test_angle_is_right_to_many_digits_also_near_zero_and_pi(theta: float) -> None:
    v, w = torch.tensor([[1.0, 0.0], [math.cos(theta), math.sin(theta)]], dtype=torch.float64)
    assert angle(v, w).item() == pytest.approx(theta, rel=1e-14, abs=0)


@dtypes
def test_angle_of_identical_vectors_is_exactly_zero(dtype: torch.dtype) -> None:
    v = random_units(100, 768, dtype=dtype)
    assert torch.equal(
        angle(v, v.clone()), torch.zeros(100, dtype=torch.promote_types(dtype, torch.float32))
    )


def test_angle_ignores_the_rounding_of_bfloat16_norms() -> None:
    v = random_units(100, 768, dtype=torch.bfloat16)
    assert angle(v, normalize(v.double()).float()).max() < 1e-6


@given(units)
def test_angle_is_symmetric_and_supplementary_to_the_opposite(pair: Any) -> None:
    x, y = pair
    torch.testing.assert_close(angle(x, y), angle(y, x), rtol=0, atol=0)
    torch.testing.assert_close(
        angle(x, y) + angle(x, -y), torch.full_like(angle(x, y), math.pi), rtol=1e-12, atol=0
    )


@given(units)
def test_angle_equals_geoopt_distance(pair: Any) -> None:
    x, y = pair
    torch.testing.assert_close(angle(x, y), geoopt.Sphere().dist(x, y), rtol=0, atol=2e-8)


# paths


@dtypes
@pytest.mark.parametrize("path", [lerp, slerp])
def test_paths_start_at_x_and_end_at_y(path: Any, dtype: torch.dtype) -> None:
    x, y = 0.3 * random_units(5, 12, dtype=dtype), 2 * random_units(5, 12, dtype=dtype, seed=1)
    assert path(x, y, 0.3).dtype == dtype
    torch.testing.assert_close(path(x, y, 0.0), x, rtol=0, atol=TOLERANCE[dtype])
    torch.testing.assert_close(path(x, y, 1.0), y, rtol=0, atol=2 * TOLERANCE[dtype])


@pytest.mark.parametrize("theta", [1e-9, 1e-3, 1.0, 3.0])
def test_slerp_equals_scipy_geometric_slerp(theta: float) -> None:
    x, y = pair_at(theta)
    t = np.linspace(0, 1, 7)
    expected = scipy.spatial.geometric_slerp(x.numpy(), y.numpy(), t, tol=1e-16)
    torch.testing.assert_close(
        slerp(x, y, torch.from_numpy(t)), torch.from_numpy(expected), rtol=0, atol=1e-13
    )


@given(units, st.floats(0, 1))
def test_slerp_turns_at_constant_speed_and_keeps_the_norm(pair: Any, t: Any) -> None:
    x, y = pair
    point = slerp(x, y, t)
    torch.testing.assert_close(norms(point), torch.ones(x.shape[:-1]).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(angle(x, point), t * angle(x, y), rtol=0, atol=1e-11)


def test_slerp_of_unequal_norms_moves_direction_by_angle_and_norm_linearly() -> None:
    x, y = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 6.0])
    root = math.sqrt(0.5)
    torch.testing.assert_close(slerp(x, y, 0.5), torch.tensor([4 * root, 4 * root]))


def test_slerp_takes_one_position_per_vector() -> None:
    x, y = random_units(3, 5), random_units(3, 5, seed=1)
    t = torch.tensor([0.0, 0.5, 1.0])
    together = slerp(x, y, t)
    for i in range(3):
        torch.testing.assert_close(together[i], slerp(x[i], y[i], float(t[i])))
    assert slerp(x[0], y[0], torch.linspace(0, 1, 9)).shape == (9, 5)


def test_lerp_dips_to_the_cosine_of_half_the_angle_and_nlerp_does_not() -> None:
    x, y = pair_at(2.0)
    assert norms(lerp(x, y, 0.5)).item() == pytest.approx(math.cos(1.0))
    torch.testing.assert_close(nlerp(x, y, 0.5), slerp(x, y, 0.5))


@dtypes
def test_antipodal_vectors_have_no_slerp_and_no_log(dtype: torch.dtype) -> None:
    v = random_units(3, 768, dtype=dtype)
    with pytest.raises(GeometryError, match="antipodal in 3 places"):
        slerp(v, -v, 0.5)
    with pytest.raises(GeometryError, match="antipodal"):
        log_map(v, -v)
    with pytest.raises(GeometryError, match="zero"):
        nlerp(v, -v, 0.5)


@dtypes
def test_vectors_antipodal_up_to_rounding_are_antipodal(dtype: torch.dtype) -> None:
    v = random_units(768, dtype=dtype)
    nudged = -v
    nudged[0] *= 1 + torch.finfo(dtype).eps
    with pytest.raises(GeometryError, match="antipodal"):
        slerp(v, nudged, 0.5)


@pytest.mark.parametrize("gap", [1e-6, 1e-9])
def test_slerp_and_log_still_work_a_little_short_of_antipodal(gap: float) -> None:
    x, y = pair_at(math.pi - gap)
    torch.testing.assert_close(
        angle(x, slerp(x, y, 0.5)).item(), (math.pi - gap) / 2, rtol=0, atol=1e-6
    )
    torch.testing.assert_close(norms(log_map(x, y)).item(), math.pi - gap, rtol=0, atol=1e-12)


# tangents


@given(units)
def test_projected_vectors_are_tangent_and_stay_so(pair: Any) -> None:
    v, g = pair
    tangent = project_tangent(v, 5 * g)
    assert (v * tangent).sum(-1).abs().max() < 1e-14
    torch.testing.assert_close(project_tangent(v, tangent), tangent, rtol=0, atol=1e-13)
    torch.testing.assert_close(tangent, geoopt.Sphere().proju(v, 5 * g), rtol=0, atol=1e-13)


@dtypes
def test_log_undoes_exp(dtype: torch.dtype) -> None:
    v, g = random_units(20, 9, dtype=dtype), random_units(20, 9, dtype=dtype, seed=1)
    tangent = project_tangent(v, 2 * g)
    w = exp_map(v, tangent)
    assert w.dtype == dtype
    torch.testing.assert_close(
        norms(w).double(), torch.ones(20).double(), rtol=0, atol=TOLERANCE[dtype]
    )
    torch.testing.assert_close(log_map(v, w), tangent, rtol=0, atol=3 * TOLERANCE[dtype])


@given(units)
def test_exp_undoes_log_and_the_log_is_as_long_as_the_angle(pair: Any) -> None:
    v, w = pair
    torch.testing.assert_close(exp_map(v, log_map(v, w)), w, rtol=0, atol=1e-11)
    torch.testing.assert_close(norms(log_map(v, w)), angle(v, w), rtol=1e-12, atol=1e-14)


@given(units)
def test_maps_equal_those_of_geoopt(pair: Any) -> None:
    v, w = pair
    sphere = geoopt.Sphere()
    tangent = project_tangent(v, 3 * w)
    torch.testing.assert_close(exp_map(v, tangent), sphere.expmap(v, tangent), rtol=0, atol=1e-12)
    torch.testing.assert_close(retract(v, tangent), sphere.retr(v, tangent), rtol=0, atol=1e-12)
    torch.testing.assert_close(log_map(v, w), sphere.logmap(v, w), rtol=0, atol=1e-6)


@pytest.mark.parametrize("theta", [0.0, 1e-300, 1e-12, 1e-8, 1e-4])
def test_log_of_a_near_point_keeps_its_digits(theta: float) -> None:
    v, w = torch.tensor([[1.0, 0.0], [math.cos(theta), math.sin(theta)]], dtype=torch.float64)
    expected = torch.tensor([0.0, theta], dtype=torch.float64)
    torch.testing.assert_close(log_map(v, w), expected, rtol=1e-12, atol=theta * 1e-12)


@dtypes
def test_log_of_a_point_at_itself_is_exactly_zero(dtype: torch.dtype) -> None:
    v = random_units(50, 768, dtype=dtype)
    assert not log_map(v, v.clone()).any()


def test_retraction_agrees_with_the_exponential_to_second_order() -> None:
    v, g = random_units(2, 6)
    tangent = project_tangent(v, g)
    errors = [norms(retract(v, h * tangent) - exp_map(v, h * tangent)).item() for h in (1e-2, 1e-3)]
    assert errors[0] / errors[1] == pytest.approx(1000, rel=0.01)


# gradients


@pytest.mark.parametrize(
    "function",
    [
        norms,
        normalize,
        lambda x: swap(x, torch.ones(3).double()),
        lambda x: angle(normalize(x), random_units(3, seed=5)),
        lambda x: slerp(x, torch.tensor([0.1, 1.0, 2.0]).double(), 0.3),
        lambda x: nlerp(x, torch.tensor([0.1, 1.0, 2.0]).double(), 0.3),
        lambda x: log_map(normalize(x), random_units(3, seed=5)),
        lambda x: exp_map(random_units(3, seed=5), project_tangent(random_units(3, seed=5), x)),
        lambda x: retract(random_units(3, seed=5), x),
        lambda x: frechet_mean(normalize(torch.stack([x, torch.tensor([1.0, 2.0, 2.0]).double()]))),
    ],
)
def test_gradients_equal_finite_differences(function: Any) -> None:
    x = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, x)


@dtypes
@pytest.mark.parametrize(
    "function",
    [
        lambda x: norms(0 * x),
        lambda x: angle(x, x.detach()),
        lambda x: angle(x, -x.detach()),
        lambda x: slerp(x, x.detach(), 0.4),
        lambda x: log_map(x, x.detach()),
        lambda x: log_map(x.detach(), x),
        lambda x: exp_map(x.detach(), 0 * x),
    ],
)
def test_values_and_gradients_are_finite_at_coinciding_points(
    function: Any, dtype: torch.dtype
) -> None:
    x = random_units(2, 5, dtype=dtype).requires_grad_()
    value = function(x)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient).all()


def test_the_log_at_its_own_point_has_the_projection_as_derivative() -> None:
    v = random_units(4)
    jacobian = torch.autograd.functional.jacobian(lambda w: log_map(v, w), v)
    torch.testing.assert_close(jacobian, torch.eye(4).double() - torch.outer(v, v))


# Fréchet mean


def test_mean_of_two_points_is_the_middle_of_their_arc() -> None:
    x, y = pair_at(2.5)
    torch.testing.assert_close(frechet_mean(torch.stack([x, y])), slerp(x, y, 0.5))
    torch.testing.assert_close(
        frechet_mean(torch.stack([x, y]), torch.tensor([3.0, 1.0])), slerp(x, y, 0.25)
    )


@dtypes
def test_the_pulls_of_all_points_cancel_at_their_mean(dtype: torch.dtype) -> None:
    points = normalize(random_units(2, 9, 6) + 0.8 * random_units(2, 1, 6, seed=1)).to(dtype)
    mean = frechet_mean(points)
    assert mean.dtype == dtype
    pulls = log_map(mean[:, None], points).double().mean(dim=1)
    assert pulls.norm(dim=-1).max() < TOLERANCE[dtype]


def test_points_without_a_mean_raise() -> None:
    v = random_units(5)
    with pytest.raises(GeometryError, match="balance out"):
        frechet_mean(torch.stack([v, -v]))
    with pytest.raises(GeometryError, match="weights has shape"):
        frechet_mean(torch.stack([v, v]), torch.ones(3))


# errors and promises common to all

V = random_units(4)
TWO_ARGUMENTS = [
    swap,
    angle,
    lambda x, y: lerp(x, y, 0.5),
    lambda x, y: nlerp(x, y, 0.5),
    lambda x, y: slerp(x, y, 0.5),
    project_tangent,
    retract,
    exp_map,
    log_map,
]


@pytest.mark.parametrize("function", TWO_ARGUMENTS)
def test_two_argument_functions_refuse_nan_and_mismatched_shapes(function: Any) -> None:
    bad = V.clone()
    bad[0] = math.nan
    with pytest.raises(GeometryError, match=r"NaN or infinity in 1 of 1"):
        function(bad, V)
    with pytest.raises(GeometryError, match="NaN or infinity"):
        function(V, bad)
    with pytest.raises(GeometryError, match=r"dimension 4 and .* dimension 3"):
        function(V, random_units(3))
    with pytest.raises(GeometryError, match="do not broadcast"):
        function(V.expand(2, 4), V.expand(3, 4))


@pytest.mark.parametrize("function", [normalize, lambda x: swap(x, V), lambda x: slerp(V, x, 0.5)])
def test_zero_vectors_have_no_direction(function: Any) -> None:
    with pytest.raises(GeometryError, match="1 zero vectors out of 2"):
        function(torch.stack([V, 0 * V]))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: angle(x, V),
        lambda x: angle(V, x),
        lambda x: log_map(V, x),
        lambda x: project_tangent(x, V),
        lambda x: retract(x, V),
        lambda x: exp_map(x, 0 * V),
        lambda x: frechet_mean(x[None]),
    ],
)
def test_functions_on_the_sphere_refuse_vectors_off_it(function: Any) -> None:
    with pytest.raises(GeometryError, match=r"not unit: 1 of 1 norms are off 1, by up to 0\.01"):
        function(1.01 * V)


def test_exp_map_refuses_a_vector_that_is_not_tangent() -> None:
    with pytest.raises(GeometryError, match="project_tangent"):
        exp_map(V, 0.5 * V)


def test_integers_and_lists_are_refused_with_the_type_named() -> None:
    with pytest.raises(GeometryError, match=r"torch.int64 of shape \(3,\)"):
        norms(torch.arange(3))
    with pytest.raises(GeometryError, match="a list"):
        norms([1.0, 2.0])  # type: ignore[arg-type]


@dtypes
def test_inputs_are_left_as_they_were(dtype: torch.dtype) -> None:
    x, y = random_units(2, 3, 4, dtype=dtype)
    before = x.clone(), y.clone()
    for function in (angle, swap, log_map, retract, project_tangent):
        function(x, y)
    slerp(x, y, 0.5)
    frechet_mean(x)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])
