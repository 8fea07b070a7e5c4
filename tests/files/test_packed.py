import numpy
import pytest

from dti_geom.errors import ResultFileError
from dti_geom.files import from_json, to_json
from dti_geom.files.packed import DTYPES, Packed, pack, unpack


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_array_comes_back_as_it_was(dtype: str) -> None:
    array = numpy.arange(12).reshape(3, 4).astype(dtype)
    packed = from_json(Packed, to_json(pack(array, dtype)))
    found = unpack(packed)
    assert found.dtype == dtype
    numpy.testing.assert_array_equal(found, array)


def test_numbers_are_little_endian_row_by_row() -> None:
    assert pack(numpy.array([[1, 2], [3, 258]]), "uint16").data == "AQACAAMAAgE="


@pytest.mark.parametrize(
    "packed",
    [
        Packed("object", (1,), "AAAAAAAAAAA="),
        Packed("float32", (2,), "AAAA"),
        Packed("float32", (-1, -1), "AAAAAA=="),
        Packed("float32", (1,), "§"),
        Packed("uint16", (3,), "AQACAA=="),
    ],
)
def test_text_that_is_no_such_array_is_refused(packed: Packed) -> None:
    with pytest.raises(ResultFileError, match="Run the command again"):
        unpack(packed)


def test_what_is_not_finite_or_of_another_type_is_not_written() -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        pack(numpy.array([1.0, numpy.nan]), "float32")
    with pytest.raises(ValueError, match="dtype is float64"):
        pack(numpy.ones(2), "float64")
