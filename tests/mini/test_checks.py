"""Checks tell right pictures from wrong ones."""

import pytest

from dti_geom.mini.checks import (
    CHECKS,
    NOT_IN_TEXT_SCORE,
    both_right,
    check_scene,
    count_right,
    order_right,
)
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


def relations(
    first: str, second: str, axis: str = "row", subject: str = "fox", scene: Scene = ROW
) -> tuple[bool, bool, bool | None]:
    """Presence, both, and the order, which is None where it was not asked."""
    answers = {"first": first, "second": second, "axis": axis, "background": "snow"}
    checks = check_scene(scene, answers, subject)
    return checks["presence"], checks["both"], checks.get("order")


def test_a_picture_without_the_subject_has_no_order() -> None:
    """The other thing in its place used to make the order right."""
    assert relations("owl", "car") == (False, False, None)
    assert relations("car", "none", axis="none") == (False, False, None)


@pytest.mark.parametrize(
    ("first", "second", "axis", "found"),
    [
        ("fox", "car", "row", (True, True, True)),
        ("car", "fox", "row", (True, True, False)),  # exchanged
        ("fox", "car", "column", (True, True, False)),  # along another axis
        ("fox", "owl", "row", (True, False, True)),  # the other thing is a wrong one
        ("fox", "none", "none", (True, False, None)),  # alone, the subject has no side
        ("fox", "fox", "row", (True, False, None)),  # twice, it has both
    ],
)
def test_presence_both_and_order_miss_different_things(
    first: str, second: str, axis: str, found: tuple[bool, bool, bool | None]
) -> None:
    assert relations(first, second, axis) == found


def test_the_subject_may_be_the_second_thing() -> None:
    assert relations("fox", "car", subject="car") == (True, True, True)
    assert relations("car", "owl", subject="car") == (True, False, False)
    assert relations("fox", "owl", subject="car") == (False, False, None)


def test_no_miss_counts_twice_in_the_text_score() -> None:
    """Absent subject, wrong companion, exchanged places: each costs one of the checks."""
    for first, second in (("owl", "car"), ("fox", "owl"), ("car", "fox"), ("fox", "none")):
        answers = {"first": first, "second": second, "axis": "row", "background": "snow"}
        checks = check_scene(ROW, answers, "fox")
        counted = [right for name, right in checks.items() if name not in NOT_IN_TEXT_SCORE]
        assert counted.count(False) == 1


def test_a_thing_without_a_name_is_not_asked_for() -> None:
    answers = {"first": "fox", "second": "car", "axis": "row", "background": "snow"}
    unnamed = Scene("snow", Item("gadget"), Item("car"), "row")
    assert check_scene(unnamed, answers, "gadget") == {"background": True}
    assert set(check_scene(unnamed, answers, "car")) == {"background", "presence", "order"}
    assert check_scene(Scene("snow", Item("gadget")), answers, "gadget") == {"background": True}


def test_two_of_a_kind_have_no_order() -> None:
    twins = Scene("snow", Item("fox"), Item("fox"), "row")
    assert relations("fox", "fox", scene=twins) == (True, True, None)


def test_a_thing_alone_is_asked_for_with_all_that_it_has() -> None:
    scene = Scene("snow", Item("fox", "green", "hat"), count=2)
    answers = {
        "first": "owl",
        "background": "snow",
        "first_colour": "green",
        "accessory": "bow",
        "count": "two",
        "axis": "none",
    }
    checks = check_scene(scene, answers, "fox")
    assert checks == {
        "background": True,
        "object": False,
        "colour": True,
        "accessory": False,
        "count": True,
    }
    assert set(checks) < set(CHECKS)


def test_count_needs_the_same_things() -> None:
    scene = Scene("snow", Item("fox"), count=2)
    assert count_right(scene, {"count": "two", "axis": "none"})
    assert not count_right(scene, {"count": "two", "axis": "row"})
    assert not count_right(scene, {"count": "three", "axis": "none"})
