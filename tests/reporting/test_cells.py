import pytest

from dti_geom.reporting.blocks import Column, Span, Table
from dti_geom.reporting.cells import cell_texts, column_texts


def test_numbers_of_a_column_share_their_decimals_and_drop_common_zeros() -> None:
    assert column_texts(Column("x"), [0.5, 0.12344]) == ["0.5000", "0.1234"]
    assert column_texts(Column("x"), [30.0, 2.5]) == ["30.0", "2.5"]
    assert column_texts(Column("x", digits=2), [0.514, 0.126]) == ["0.51", "0.13"]


def test_a_column_over_many_sizes_keeps_the_digits_of_its_smallest() -> None:
    texts = column_texts(Column("x"), [123.4, 1e-6, 0.0, None])
    assert texts == ["123.4", "1.000×10⁻⁶", "0", "–"]


def test_negative_numbers_have_a_true_minus_and_no_negative_zero() -> None:
    assert column_texts(Column("x"), [-0.5, 0.25]) == ["−0.50", "0.25"]
    assert column_texts(Column("x"), [-0.0, 0.9]) == ["0.0", "0.9"]
    assert column_texts(Column("id"), [-3, 20]) == ["−3", "20"]


def test_units_stand_where_readers_expect_them() -> None:
    assert column_texts(Column("inflation", "×"), [2.5, 10.0]) == ["×2.5", "×10.0"]
    assert column_texts(Column("angle", "°"), [36.9, None]) == ["36.9°", "–"]
    assert column_texts(Column("share", "%"), [50.0]) == ["50 %"]
    assert column_texts(Column("yes"), [True, False]) == ["yes", "no"]


def test_an_interval_shares_the_decimals_of_its_column() -> None:
    texts = column_texts(Column("95 %"), [Span(0.1234, 0.5), Span(None, None)])
    assert texts == ["0.1234 to 0.5000", "–"]


def test_whole_numbers_and_names_stay_as_they_are() -> None:
    table = Table("", [Column("token", kind="token"), Column("id")], [("<x>", 49408), ("y", 7)])
    assert cell_texts(table) == [["<x>", "49408"], ["y", "7"]]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_still_written(value: float) -> None:
    assert column_texts(Column("x"), [1.5, value])[0] == "1.5"
