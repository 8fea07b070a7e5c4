"""Exams ask what they say, and their checks tell right from wrong."""

import pytest

from dti_geom.mini.domain import HELD_OUT_COLOURS, HELD_OUT_PLACES
from dti_geom.mini.exams import ExamPaper, both_right, count_right, order_right, prompt_for
from dti_geom.mini.scenes import Item, Scene, is_held_out

ROW = Scene("snow", Item("fox"), Item("car"), "row")


def test_exams_are_seeded_and_full():
    first, second = ExamPaper(12, seed=1).all(), ExamPaper(12, seed=1).all()
    assert [exam.prompts for exam in first] == [exam.prompts for exam in second]
    assert {len(exam.scenes) for exam in first} == {12}


def test_only_the_held_out_exams_ask_for_what_training_kept_back():
    exams = {exam.name: exam for exam in ExamPaper(40).all()}
    for scene in exams.pop("held-out place").scenes:
        assert (scene.first.thing, scene.background) in HELD_OUT_PLACES
    for scene in exams.pop("held-out colour").scenes:
        assert (scene.first.colour, scene.first.thing) in HELD_OUT_COLOURS
    assert not any(is_held_out(scene) for exam in exams.values() for scene in exam.scenes)


def test_prompts_use_both_directions_of_a_relation():
    told = {prompt_for(ROW, number) for number in range(4)}
    assert told == {
        "a photo of a fox to the left of a car in the snow",
        "a photo of a car to the right of a fox in the snow",
    }


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
def test_order_and_both_are_told_apart(first, second, axis, order, both):
    read = {"first": first, "second": second, "axis": axis}
    assert order_right(ROW, read) == order
    assert both_right(ROW, read) == both


def test_count_needs_the_same_things():
    scene = Scene("snow", Item("fox"), count=2)
    assert count_right(scene, {"count": "two", "axis": "none"})
    assert not count_right(scene, {"count": "two", "axis": "row"})
    assert not count_right(scene, {"count": "three", "axis": "none"})
