"""A prompt says what its scene shows."""

from dti_geom.mini.scenes import Item, Scene
from dti_geom.mini.wording import prompt_for

ROW = Scene("snow", Item("fox"), Item("car"), "row")


def test_prompts_use_both_directions_of_a_relation() -> None:
    told = {prompt_for(ROW, number) for number in range(4)}
    assert told == {
        "a photo of a fox to the left of a car in the snow",
        "a photo of a car to the right of a fox in the snow",
    }
