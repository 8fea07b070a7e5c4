"""Exams of the generator: scenes with their prompts and checks, an exam per row of the figures."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from dti_geom.mini.checks import (
    Check,
    accessory_right,
    background_right,
    both_right,
    colour_right,
    count_right,
    object_right,
    order_right,
    size_right,
)
from dti_geom.mini.domain import (
    ACCESSORIES,
    BACKGROUND_NAMES,
    COUNT_WORDS,
    HELD_OUT_COLOURS,
    HELD_OUT_PLACES,
    SIZES,
    THING_NAMES,
    colours_of,
)
from dti_geom.mini.scenes import Axis, Item, Scene, is_held_out
from dti_geom.mini.wording import prompt_for

Rng = np.random.Generator


@dataclass(frozen=True)
class Exam:
    """The scenes to paint, and the checks that a picture has to pass, by name."""

    name: str
    scenes: tuple[Scene, ...]
    checks: dict[str, Check]

    @property
    def prompts(self) -> list[str]:
        """A prompt per scene."""
        return [prompt_for(scene, number) for number, scene in enumerate(self.scenes)]


class ExamPaper:
    """Draws the exams. The same seed and size give the same scenes."""

    def __init__(self, per_row: int, seed: int = 0) -> None:
        """Take `per_row` scenes for every exam."""
        self.per_row = per_row
        self.rng = np.random.default_rng(seed)

    def all(self) -> list[Exam]:
        """Return every exam, in the order of the table of figures."""
        thing, background, colour = object_right, background_right, colour_right
        pair_checks: dict[str, Check] = {
            "order": order_right,
            "both": both_right,
            "background": background,
        }
        return [
            self._exam("single", self._plain, {"object": thing, "background": background}),
            self._exam(
                "held-out place", self._held_out_place, {"object": thing, "background": background}
            ),
            self._exam("colour", self._coloured, {"colour": colour, "object": thing}),
            self._exam(
                "held-out colour", self._held_out_colour, {"colour": colour, "object": thing}
            ),
            self._exam("accessory", self._wearing, {"accessory": accessory_right, "object": thing}),
            self._exam("size", self._sized, {"size": size_right, "object": thing}),
            self._exam("count", self._counted, {"count": count_right, "object": thing}),
            self._exam("row", lambda: self._pair("row"), pair_checks),
            self._exam("column", lambda: self._pair("column"), pair_checks),
        ]

    def _exam(self, name: str, draw: Callable[[], Scene], checks: dict[str, Check]) -> Exam:
        return Exam(name, tuple(draw() for _ in range(self.per_row)), checks)

    def _pick(self, options: tuple[str, ...] | list[str]) -> str:
        return options[self.rng.integers(len(options))]

    def _trained(self, item: Item) -> Scene:
        """The item on a background that training shows it on."""
        while is_held_out(scene := Scene(self._pick(BACKGROUND_NAMES), item)):
            pass
        return scene

    def _plain(self) -> Scene:
        return self._trained(Item(self._pick(THING_NAMES)))

    def _held_out_place(self) -> Scene:
        pairs = sorted(HELD_OUT_PLACES)
        thing, background = pairs[self.rng.integers(len(pairs))]
        return Scene(background, Item(thing))

    def _coloured(self) -> Scene:
        thing = self._pick(THING_NAMES)
        colours = [
            colour for colour in colours_of(thing) if (colour, thing) not in HELD_OUT_COLOURS
        ]
        return self._trained(Item(thing, self._pick(colours)))

    def _held_out_colour(self) -> Scene:
        pairs = sorted(HELD_OUT_COLOURS)
        colour, thing = pairs[self.rng.integers(len(pairs))]
        return replace(self._trained(Item(thing)), first=Item(thing, colour))

    def _wearing(self) -> Scene:
        return self._trained(Item(self._pick(THING_NAMES), accessory=self._pick(list(ACCESSORIES))))

    def _sized(self) -> Scene:
        return replace(self._plain(), size=self._pick(list(SIZES)))

    def _counted(self) -> Scene:
        return replace(self._plain(), count=int(self.rng.integers(1, len(COUNT_WORDS) + 1)))

    def _pair(self, axis: Axis) -> Scene:
        while True:
            first, second = (
                THING_NAMES[i] for i in self.rng.choice(len(THING_NAMES), 2, replace=False)
            )
            scene = Scene(self._pick(BACKGROUND_NAMES), Item(first), Item(second), axis)
            if not is_held_out(scene):
                return scene
