"""Checks tell right pictures from wrong ones."""

import pytest

from dti_geom.mini.checks import both_right, count_right, order_right
from dti_geom.mini.scenes import Item, Scene

ROW = Scene("snow", Item("fox"), Item("car"), "row")


@pytest.mark.parametrize(
    ("first", "second", "axis", "order", "both"),
    [
        ("fox", "car", "row", True, True),
        ("car", "fox", "row", False, True),
        ("fox", "owl", "row", True, False),
        ("owl", "none", "none", False, False),
        ("fox", "car", "column", False, True),
        ("owl", "frog", "row", False, False),
    ],
)
def test_order_and_both_are_different_checks(
    first: str, second: str, axis: str, order: bool, both: bool
) -> None:
    answers = {"first": first, "second": second, "axis": axis}
    assert order_right(ROW, answers) == order
    assert both_right(ROW, answers) == both


def test_count_needs_the_same_things() -> None:
    scene = Scene("snow", Item("fox"), count=2)
    assert count_right(scene, {"count": "two", "axis": "none"})
    assert not count_right(scene, {"count": "two", "axis": "row"})
    assert not count_right(scene, {"count": "three", "axis": "none"})
