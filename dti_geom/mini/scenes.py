"""A scene says what a picture shows: one thing, several of the same, or a pair of things."""

from dataclasses import dataclass, replace
from typing import Literal

from dti_geom.mini.domain import HELD_OUT_COLOURS, HELD_OUT_PLACES, STYLES

Axis = Literal["none", "row", "column"]


@dataclass(frozen=True)
class Item:
    """A thing as it is painted. Without a colour it has its natural look."""

    thing: str
    colour: str | None = None
    accessory: str | None = None
    style: str = STYLES[0]


@dataclass(frozen=True)
class Scene:
    """The content of a picture. In a pair, `first` is the left or the upper thing."""

    background: str
    first: Item
    second: Item | None = None
    axis: Axis = "none"
    count: int = 1  # of `first`; above 1 there is no second
    size: str | None = None  # "small", "large", or None for ordinary; single things only

    @property
    def items(self) -> tuple[Item, ...]:
        """The distinct things, in reading order."""
        return (self.first,) if self.second is None else (self.first, self.second)

    def swapped(self) -> "Scene":
        """Return the twin of a pair: the same two things with exchanged places."""
        if self.second is None:
            raise ValueError("only a pair has a twin; this scene has one thing")
        return replace(self, first=self.second, second=self.first)


def is_held_out(scene: Scene) -> bool:
    """Return whether training never shows this scene."""
    return any(
        (item.thing, scene.background) in HELD_OUT_PLACES
        or (item.colour, item.thing) in HELD_OUT_COLOURS
        for item in scene.items
    )
