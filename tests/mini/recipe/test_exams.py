"""Exams are seeded, and ask what their names say."""

from dti_geom.mini.domain import HELD_OUT_COLOURS, HELD_OUT_PLACES
from dti_geom.mini.recipe.exams import ExamPaper
from dti_geom.mini.scenes import is_held_out


def test_exams_are_seeded_and_full() -> None:
    first, second = ExamPaper(12, seed=1).all(), ExamPaper(12, seed=1).all()
    assert [exam.prompts for exam in first] == [exam.prompts for exam in second]
    assert {len(exam.scenes) for exam in first} == {12}


def test_only_the_held_out_exams_ask_for_what_training_kept_back() -> None:
    exams = {exam.name: exam for exam in ExamPaper(40).all()}
    for scene in exams.pop("held-out place").scenes:
        assert (scene.first.thing, scene.background) in HELD_OUT_PLACES
    for scene in exams.pop("held-out colour").scenes:
        assert (scene.first.colour, scene.first.thing) in HELD_OUT_COLOURS
    assert not any(is_held_out(scene) for exam in exams.values() for scene in exam.scenes)
