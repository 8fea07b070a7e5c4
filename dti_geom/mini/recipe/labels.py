"""What a scene or a caption says, as class numbers.

The scorer learns to give these answers for pictures, the text encoder for captions.
"""

from dti_geom.mini.domain import (
    ACCESSORIES,
    BACKGROUND_NAMES,
    BACKGROUNDS,
    COLOURS,
    COUNT_WORDS,
    PATTERNS,
    SIZES,
    STRANGERS,
    THING_NAMES,
)
from dti_geom.mini.scenes import Scene

NAMES: tuple[str, ...] = THING_NAMES + tuple(thing.name for thing in STRANGERS)
NATURAL = "natural"
NONE = "none"

READINGS: dict[str, tuple[str, ...]] = {
    "first": NAMES,  # the only thing, or the left or upper one of a pair
    "second": (NONE, *NAMES),
    "background": BACKGROUND_NAMES,
    "first_colour": (NATURAL, *COLOURS),
    "second_colour": (NATURAL, *COLOURS),
    "accessory": (NONE, *ACCESSORIES),
    "count": COUNT_WORDS,
    "axis": (NONE, "row", "column"),
    "size": ("ordinary", *SIZES),
}

IGNORED = -100  # class number of a question without an answer; cross-entropy skips it

SIDE_WORDS = ("left", "right", "above", "below")


def labels_of(scene: Scene) -> dict[str, int]:
    """Return the class number of every reading.

    A colour is IGNORED where there is no thing, or where it has no single colour.
    """
    values = {
        "first": scene.first.thing,
        "second": scene.second.thing if scene.second else NONE,
        "background": scene.background,
        "accessory": scene.first.accessory or NONE,
        "count": COUNT_WORDS[scene.count - 1],
        "axis": scene.axis,
        "size": scene.size or "ordinary",
    }
    for place, item in zip(("first", "second"), scene.items, strict=False):
        if item.colour or item.style not in PATTERNS:
            values[f"{place}_colour"] = item.colour or NATURAL
    return {
        name: classes.index(values[name]) if name in values else IGNORED
        for name, classes in READINGS.items()
    }


def labels_in_caption(scene: Scene, caption: str) -> dict[str, int]:
    """Return `labels_of` the scene, IGNORED where the caption does not say it.

    A caption may leave out the background, or which thing stands on which side.
    """
    labels = labels_of(scene)
    if not any(phrase in caption for phrase in BACKGROUNDS[scene.background]):
        labels["background"] = IGNORED
    if scene.second and not any(word in caption.split() for word in SIDE_WORDS):
        labels |= dict.fromkeys(("first", "second", "first_colour", "second_colour"), IGNORED)
    return labels
