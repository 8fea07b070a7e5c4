"""Labels leave out what a caption leaves open."""

from dti_geom.mini.recipe.labels import IGNORED, READINGS, labels_in_caption, labels_of
from dti_geom.mini.scenes import Item, Scene


def test_labels_ignore_what_a_caption_leaves_open() -> None:
    scene = Scene("snow", Item("fox", "red"), Item("car"), "row")
    open_sides = labels_in_caption(scene, "a fox with a car")
    assert open_sides["first"] == open_sides["background"] == IGNORED
    told = labels_in_caption(scene, "a red fox to the left of a car in the snow")
    assert told == labels_of(scene)
    assert READINGS["second"][told["second"]] == "car"
