"""Checks of input tensors, and the precision that the functions compute in."""

import torch
from torch import Tensor

from dti_geom.errors import GeometryError


def working_dtype(*tensors: Tensor) -> torch.dtype:
    """Return the dtype to compute in: the widest of the inputs, and at least float32."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def result_dtype(*tensors: Tensor) -> torch.dtype:
    """Return the dtype of the resulting vectors: the widest of the inputs."""
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def unit_tolerance(dtype: torch.dtype) -> float:
    """Return how far from 1 the norm of a unit vector stored in `dtype` may be.

    Rounding the coordinates moves a norm by at most eps/2 (0.004 in bfloat16). Wider types are
    allowed 1e-4, because most vectors went through other operations after they were normalised.
    """
    return max(torch.finfo(dtype).eps, 1e-4)


def check_table_like(x: Tensor, name: str) -> None:
    """Raise unless `x` is a floating-point tensor (..., d). Its values are not read."""
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.dim() == 0 or x.shape[-1] == 0:
        description = (
            f"{x.dtype} of shape {tuple(x.shape)}"
            if isinstance(x, Tensor)
            else f"a {type(x).__name__}"
        )
        raise GeometryError(
            f"{name} is {description}; expected a floating-point tensor of shape (..., d), d > 0."
        )


def check_vectors(x: Tensor, name: str) -> None:
    """Raise unless `x` is a floating-point tensor (..., d) without NaN or infinity."""
    check_table_like(x, name)
    finite = torch.isfinite(x)
    if not finite.all():
        bad = int((~finite).any(dim=-1).sum())
        raise GeometryError(
            f"{name} holds NaN or infinity in {bad} of {x.shape[:-1].numel()} vectors; expected "
            "finite numbers. Find the step that produced them before measuring."
        )


def check_same_space(x: Tensor, y: Tensor, x_name: str, y_name: str) -> None:
    """Raise unless `x` and `y` have the same last dimension and leading shapes that broadcast."""
    if x.shape[-1] != y.shape[-1]:
        raise GeometryError(
            f"{x_name} has dimension {x.shape[-1]} and {y_name} has dimension {y.shape[-1]}; "
            "expected the same. Check that both come from the same encoder."
        )
    try:
        torch.broadcast_shapes(x.shape, y.shape)
    except RuntimeError:
        raise GeometryError(
            f"{x_name} of shape {tuple(x.shape)} and {y_name} of shape {tuple(y.shape)} do not "
            "broadcast; expected equal leading dimensions, or 1. Insert dimensions with x[:, None]."
        ) from None


def check_unit(x: Tensor, name: str) -> None:
    """Raise unless the vectors of `x` have unit norm up to the rounding of their dtype.

    `x` must be finite: call `check_vectors` first.
    """
    # The norm itself must not be rounded to bfloat16, hence the working dtype.
    off = (torch.linalg.vector_norm(x.detach().to(working_dtype(x)), dim=-1) - 1).abs()
    if (off > unit_tolerance(x.dtype)).any():
        bad = int((off > unit_tolerance(x.dtype)).sum())
        raise GeometryError(
            f"{name} is not unit: {bad} of {off.numel()} norms are off 1, by up to "
            f"{float(off.max()):.3g} (allowed in {str(x.dtype).removeprefix('torch.')}: "
            f"{unit_tolerance(x.dtype):.1g}). Pass normalize(x) if only its direction matters."
        )


def check_nonzero(x: Tensor, name: str) -> None:
    """Raise if a vector of `x` is exactly zero: it has no direction."""
    # any() is exact: a norm could underflow to zero for tiny vectors that do have a direction.
    zero = ~x.detach().any(dim=-1)
    if zero.any():
        raise GeometryError(
            f"{name} holds {int(zero.sum())} zero vectors out of {zero.numel()}; expected non-zero "
            "ones, since zero has no direction. Leave those rows out."
        )
