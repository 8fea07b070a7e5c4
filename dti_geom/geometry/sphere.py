"""Norms, directions and the unit sphere.

Vectors lie along the last dimension; leading shapes broadcast. Inputs are never modified.
Computation is in at least float32. Vectors are returned in the widest dtype of the inputs, and
scalars such as norms and angles in at least float32.

Unit vectors that were rounded to bfloat16 are normalised again before use. Otherwise two roundings
of the same direction would have an angle between them.
"""

import torch
from torch import Tensor

from dti_geom.errors import GeometryError
from dti_geom.geometry._checks import (
    check_nonzero,
    check_same_space,
    check_unit,
    check_vectors,
    result_dtype,
    unit_tolerance,
    working_dtype,
)


def norms(x: Tensor) -> Tensor:
    """Return the L2 norms over the last dimension.

    x: (..., d). Returns (...), in the units of x, at least float32. A zero vector has norm 0 and
    gradient 0. Raises GeometryError for NaN and infinity.

    Vectors are first scaled by a power of two, so that squares neither overflow nor underflow.
    """
    check_vectors(x, "x")
    return _norms(x.to(working_dtype(x)))


def normalize(x: Tensor) -> Tensor:
    """Return directions: x / |x|.

    x: (..., d), no zero vectors. Returns (..., d), unit norm, in the dtype of x.
    Raises GeometryError for a zero vector, which has no direction.
    """
    check_vectors(x, "x")
    check_nonzero(x, "x")
    return _unit(x.to(working_dtype(x))).to(x.dtype)


def swap(direction_of: Tensor, magnitude_of: Tensor) -> Tensor:
    """Return the direction of one vector at the norm of another: |b| · a/|a|.

    direction_of, magnitude_of: (..., d); shapes broadcast. direction_of has no zero vectors.
    Returns (..., d), in the units of magnitude_of.
    """
    check_vectors(direction_of, "direction_of")
    check_same_space(direction_of, magnitude_of, "direction_of", "magnitude_of")
    check_nonzero(direction_of, "direction_of")
    direction = _unit(direction_of.to(working_dtype(direction_of, magnitude_of)))
    return (norms(magnitude_of)[..., None] * direction).to(result_dtype(direction_of, magnitude_of))


def angle(x: Tensor, y: Tensor) -> Tensor:
    """Return the angle between unit vectors, in radians.

    x, y: (..., d), unit norm; shapes broadcast.
    Returns (...), in [0, pi], at least float32. The gradient at x = y and at x = −y is 0.

    Uses 2·atan2(|x − y|, |x + y|). acos(xᵀy) loses half the digits for nearby points, which is
    where learned tokens live.
    """
    return _angle(*_unit_pair(x, y, "x", "y"))


def lerp(x: Tensor, y: Tensor, t: float | Tensor) -> Tensor:
    """Return points of the straight line from x to y: (1 − t)·x + t·y.

    x, y: (..., d); t: a number or (...), 0 at x and 1 at y; shapes broadcast. Returns (..., d).
    """
    x_work, y_work, t_work = _path_inputs(x, y, t)
    # This form is exactly x at t = 0 and, where x = y, exactly x for every t.
    return (x_work + t_work * (y_work - x_work)).to(result_dtype(x, y))


def nlerp(x: Tensor, y: Tensor, t: float | Tensor) -> Tensor:
    """Return directions along the straight line from x to y (normalised linear interpolation).

    x, y: (..., d); t: a number or (...), 0 at x and 1 at y; shapes broadcast.
    Returns (..., d), unit norm. Raises GeometryError where the line passes through zero.
    Unlike slerp, it does not turn at constant speed.
    """
    x_work, y_work, t_work = _path_inputs(x, y, t)
    point = x_work + t_work * (y_work - x_work)
    check_nonzero(point, "the line from x to y")
    return _unit(point).to(result_dtype(x, y))


def slerp(x: Tensor, y: Tensor, t: float | Tensor) -> Tensor:
    """Return points of the great-circle path from x to y (spherical linear interpolation).

    The direction turns at constant speed and the norm changes linearly.
    x, y: (..., d), non-zero, not antipodal; t: a number or (...), 0 at x and 1 at y; shapes
    broadcast. Returns (..., d), unit norm where x and y are.
    """
    x_work, y_work, t_work = _path_inputs(x, y, t)
    check_nonzero(x, "x")
    check_nonzero(y, "y")
    v, w = _unit(x_work), _unit(y_work)
    _check_not_antipodal(v, w, result_dtype(x, y), "x", "y")
    # exp(t·log) rather than sin((1 − t)θ)/sin θ: the quotient is 0/0 where x and y are close.
    direction = _exp(v, t_work * _log(v, w))
    x_norm, y_norm = norms(x_work)[..., None], norms(y_work)[..., None]
    return ((x_norm + t_work * (y_norm - x_norm)) * direction).to(result_dtype(x, y))


def project_tangent(v: Tensor, g: Tensor) -> Tensor:
    """Return the part of g that is tangent to the sphere at v: g − (vᵀg)·v.

    v: (..., d), unit norm; g: (..., d); shapes broadcast. Returns (..., d), in the units of g.
    """
    v_work, g_work = _point_and_vector(v, g, "g")
    return _tangent(v_work, g_work).to(result_dtype(v, g))


def retract(v: Tensor, step: Tensor) -> Tensor:
    """Return the point of the sphere below v + step: (v + step) / |v + step|.

    v: (..., d), unit norm; step: (..., d), need not be tangent; shapes broadcast.
    Returns (..., d), unit norm. Raises GeometryError where v + step is zero.
    Agrees with exp_map to second order in a tangent step.
    """
    v_work, step_work = _point_and_vector(v, step, "step")
    check_nonzero(v_work + step_work, "v + step")
    return _unit(v_work + step_work).to(result_dtype(v, step))


def exp_map(v: Tensor, tangent: Tensor) -> Tensor:
    """Return the point reached from v along a geodesic: cos|τ|·v + sin|τ|·τ/|τ|.

    v: (..., d), unit norm; tangent τ: (..., d), orthogonal to v, with the angle in radians as its
    norm; shapes broadcast. Returns (..., d), unit norm.
    """
    v_work, tangent_work = _point_and_vector(v, tangent, "tangent")
    radial = (v_work * tangent_work).sum(dim=-1).detach().abs()
    # Rounding errors grow with the tangent, so the tolerance is relative above length 1.
    allowed = unit_tolerance(result_dtype(v, tangent)) * norms(tangent_work).detach().clamp_min(1)
    if (radial > allowed).any():
        raise GeometryError(
            f"tangent has a part along v of up to {float(radial.max()):.3g}; expected it "
            "orthogonal to v. Pass project_tangent(v, tangent)."
        )
    # Projecting again removes the radial part that rounding left.
    return _unit(_exp(v_work, _tangent(v_work, tangent_work))).to(result_dtype(v, tangent))


def log_map(v: Tensor, w: Tensor) -> Tensor:
    """Return the tangent at v that leads to w along the shorter geodesic.

    Inverse of exp_map: exp_map(v, log_map(v, w)) = w.
    v, w: (..., d), unit norm, not antipodal; shapes broadcast.
    Returns (..., d), orthogonal to v, with the angle in radians as its norm, in [0, pi).
    """
    v_work, w_work = _unit_pair(v, w, "v", "w")
    _check_not_antipodal(v_work, w_work, result_dtype(v, w), "v", "w")
    return _log(v_work, w_work).to(result_dtype(v, w))


def frechet_mean(points: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the point of the sphere with the least mean squared angle to the given points.

    points: (..., n, d), unit norm; weights: (..., n), non-negative, of any positive sum. Without
    weights all points count the same. Returns (..., d), unit norm.

    Repeats mean ← exp(mean, Σ w·log(mean, point)), in float64, from the normalised arithmetic mean.
    This finds the only minimum if the points lie within pi/2 of it (Karcher 1977). Points that
    spread wider can have several means; GeometryError is raised if the iteration does not settle.
    """
    check_vectors(points, "points")
    if points.dim() < 2 or points.shape[-2] == 0:
        raise GeometryError(
            f"points has shape {tuple(points.shape)}; expected (..., n, d) with n > 0."
        )
    check_unit(points, "points")
    if weights is None:
        weights = points.new_ones(points.shape[-2])
    _check_weights(weights, points)
    x = _unit(points.double())
    share = (weights.double() / weights.double().sum(dim=-1, keepdim=True))[..., None]
    mean = _mean_direction(share, x, torch.finfo(points.dtype).eps)
    for _ in range(1000):
        _check_not_antipodal(mean[..., None, :], x, torch.float64, "the mean", "points")
        step = (share * _log(mean[..., None, :], x)).sum(dim=-2)
        # A mean of tangents is tangent only up to rounding, which would add up over the steps.
        mean = _unit(_exp(mean, _tangent(mean, step)))
        # Steps shrink to a few eps of float64 (2e-16) and no further.
        if (torch.linalg.vector_norm(step.detach(), dim=-1) < 1e-14).all():
            return mean.to(points.dtype)
    raise GeometryError(
        "the Fréchet mean did not settle in 1000 steps; expected points within a quarter turn of "
        "their mean. Look at them in groups."
    )


def _check_weights(weights: Tensor, points: Tensor) -> None:
    check_vectors(weights, "weights")
    if (
        weights.shape[-1] != points.shape[-2]
        or (weights < 0).any()
        or (weights.sum(dim=-1) <= 0).any()
    ):
        raise GeometryError(
            f"weights has shape {tuple(weights.shape)}; expected (..., {points.shape[-2]}), one "
            "non-negative number per point, with a positive sum."
        )


def _mean_direction(share: Tensor, x: Tensor, eps: float) -> Tensor:
    """Return the normalised arithmetic mean, where Karcher's iteration starts."""
    centre = (share * x).sum(dim=-2)
    # A mean shorter than the rounding of the points has an arbitrary direction.
    if (torch.linalg.vector_norm(centre, dim=-1) <= eps).any():
        raise GeometryError(
            "points balance out to zero; expected points that lean to one side, since otherwise no "
            "mean direction is better than its opposite. Look at them in groups."
        )
    return _unit(centre)


# --- Unchecked forms, in the dtype of their inputs ---


def _row_norms(table: Tensor, name: str) -> Tensor:
    """Return the norms (n,) of a large table (n, d), without a float32 copy of the table.

    Raises GeometryError for NaN and infinity.
    """
    # Results are written in place: small tensors that live between large temporary ones would
    # fragment the heap by gigabytes.
    result = table.new_empty(len(table), dtype=working_dtype(table))
    # About four million numbers at a time: 16 MB in float32.
    step = max(1, (1 << 22) // table.shape[1])
    for chunk, out in zip(table.split(step), result.split(step), strict=True):
        out.copy_(torch.linalg.vector_norm(chunk.to(out.dtype), dim=1))
        # Out of these bounds, squares may have left the range of float32 (1e-38 to 3e38), or a
        # number was not finite. Those few rows are checked and measured again with scaling.
        doubtful = ~((out > 1e-15) & (out < 1e15))
        if doubtful.any():
            check_vectors(chunk, name)
            out[doubtful] = _norms(chunk[doubtful].to(out.dtype))
    return result


def _binary_scale(x: Tensor) -> Tensor:
    """Return a power of two near the largest coordinate of each vector, (..., 1).

    Dividing by a power of two is exact.
    """
    largest = torch.linalg.vector_norm(x.detach(), ord=float("inf"), dim=-1, keepdim=True)
    # frexp writes x = m·2ᵉ with ½ ≤ m < 1, so 2ᵉ⁻¹ ≤ largest. For a zero vector it gives 2⁻¹.
    return torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent - 1)


def _norms(x: Tensor) -> Tensor:
    scale = _binary_scale(x)
    length: Tensor = scale.squeeze(-1) * torch.linalg.vector_norm(x / scale, dim=-1)
    return length


def _unit(x: Tensor) -> Tensor:
    # The scale cancels, and keeps the squares inside vector_norm in range.
    x = x / _binary_scale(x)
    direction: Tensor = x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return direction


def _tangent(v: Tensor, g: Tensor) -> Tensor:
    return g - (v * g).sum(dim=-1, keepdim=True) * v


def _angle(v: Tensor, w: Tensor) -> Tensor:
    return 2 * torch.atan2(
        torch.linalg.vector_norm(v - w, dim=-1), torch.linalg.vector_norm(v + w, dim=-1)
    )


def _exp(v: Tensor, tangent: Tensor) -> Tensor:
    size = torch.linalg.vector_norm(tangent, dim=-1, keepdim=True)
    # torch.sinc(x) is sin(πx)/(πx), so this is sin|τ|·τ/|τ| without 0/0 at τ = 0.
    return torch.cos(size) * v + torch.sinc(size / torch.pi) * tangent


def _log(v: Tensor, w: Tensor) -> Tensor:
    # Projecting w − v rather than w keeps the digits of nearby points.
    tangent = _tangent(v, w - v)
    sine = torch.linalg.vector_norm(tangent, dim=-1, keepdim=True)
    # Nearby, angle/sine = 1 + angle²/6 is 1 to working precision. Writing 1 avoids 0/0, also in
    # the gradient. Near −v the sine is small too, and the quotient is needed.
    near = (sine < torch.finfo(v.dtype).eps ** 0.5) & ((v * w).sum(dim=-1, keepdim=True) > 0)
    # The denominator is replaced before dividing: where() alone would let NaN into the gradient.
    ratio = _angle(v, w)[..., None] / torch.where(near, torch.ones_like(sine), sine)
    return torch.where(near, torch.ones_like(sine), ratio) * tangent


# --- Checked inputs ---


def _unit_pair(x: Tensor, y: Tensor, x_name: str, y_name: str) -> tuple[Tensor, Tensor]:
    check_vectors(x, x_name)
    check_vectors(y, y_name)
    check_same_space(x, y, x_name, y_name)
    check_unit(x, x_name)
    check_unit(y, y_name)
    dtype = working_dtype(x, y)
    return _unit(x.to(dtype)), _unit(y.to(dtype))


def _point_and_vector(v: Tensor, vector: Tensor, name: str) -> tuple[Tensor, Tensor]:
    check_vectors(v, "v")
    check_vectors(vector, name)
    check_same_space(v, vector, "v", name)
    check_unit(v, "v")
    dtype = working_dtype(v, vector)
    return _unit(v.to(dtype)), vector.to(dtype)


def _path_inputs(x: Tensor, y: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    check_vectors(x, "x")
    check_vectors(y, "y")
    check_same_space(x, y, "x", "y")
    dtype = working_dtype(x, y)
    position = torch.as_tensor(t, dtype=dtype, device=x.device)
    if not torch.isfinite(position).all():
        raise GeometryError("t holds NaN or infinity; expected numbers, 0 at x and 1 at y.")
    return x.to(dtype), y.to(dtype), position[..., None]


def _check_not_antipodal(
    v: Tensor, w: Tensor, dtype: torch.dtype, v_name: str, w_name: str
) -> None:
    """Raise where v + w is lost in the rounding of `dtype`.

    Every great circle through v also passes through −v, so there is no shortest path to it.
    """
    gap = torch.linalg.vector_norm(v.detach() + w.detach(), dim=-1)
    count = int((gap <= 4 * torch.finfo(dtype).eps).sum())
    if count:
        raise GeometryError(
            f"{v_name} and {w_name} are antipodal in {count} places; expected one shortest path "
            "between them. Choose a point in between and go in two steps."
        )
