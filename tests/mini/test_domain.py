"""What is held out of training."""

from dti_geom.mini.domain import (
    HELD_OUT_COLOURS,
    HELD_OUT_PLACES,
    THING_NAMES,
)


def test_every_thing_has_one_background_and_one_colour_held_out() -> None:
    assert sorted(thing for thing, _ in HELD_OUT_PLACES) == sorted(THING_NAMES)
    assert sorted(thing for _, thing in HELD_OUT_COLOURS) == sorted(THING_NAMES)
