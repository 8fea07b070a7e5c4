"""Arrays as text in result files: a list of numbers would take several times the space."""

from base64 import b64decode, b64encode
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy
from numpy.typing import NDArray

from dti_geom.errors import ResultFileError

DTYPES = ("float32", "uint32", "uint16", "int16")


@dataclass(frozen=True)
class Packed:
    """An array, as base64 of its little-endian numbers, row by row."""

    dtype: str  # one of DTYPES
    shape: tuple[int, ...]
    data: str


def pack(array: NDArray[Any], dtype: str) -> Packed:
    """Return an array as text; its numbers are converted to `dtype`.

    Raises ValueError for a dtype that is not among DTYPES, and for what is not finite.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype}; expected one of {', '.join(DTYPES)}.")
    if not numpy.isfinite(array).all():
        raise ValueError("the array holds NaN or infinity; expected finite numbers.")
    converted = numpy.ascontiguousarray(array, dtype=numpy.dtype(dtype).newbyteorder("<"))
    return Packed(dtype, array.shape, b64encode(converted.tobytes()).decode("ascii"))


def unpack(packed: Packed) -> NDArray[Any]:
    """Return the array. Raises ResultFileError for text that is not one of that shape and dtype."""
    try:
        if packed.dtype not in DTYPES or min(packed.shape, default=0) < 0:
            raise ValueError("unknown dtype or negative size")
        found = numpy.frombuffer(
            b64decode(packed.data, validate=True), numpy.dtype(packed.dtype).newbyteorder("<")
        )
        if found.size != prod(packed.shape):
            raise ValueError(f"{found.size} numbers")
    except ValueError as error:
        raise ResultFileError(
            f"an array of shape {packed.shape} and dtype {packed.dtype[:20]!r} was expected "
            f"({error}). Run the command again that wrote it."
        ) from error
    return found.reshape(packed.shape).astype(packed.dtype)
