"""Random scenes: what the training pictures show, and how often."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dti_geom.mini.domain import ACCESSORIES, BACKGROUND_NAMES, STYLES, THING_NAMES, colours_of
from dti_geom.mini.scenes import Axis, Item, Scene, is_held_out

Rng = np.random.Generator
ROW_SHARE = 0.62  # of pairs; the others stand above one another


@dataclass(frozen=True)
class Mixture:
    """Shares of the kinds of scene and of their attributes. The rest are plain single things."""

    pairs: float = 0.27  # of draws; a draw of a pair gives two scenes, twins
    several: float = 0.11
    colour_alone: float = 0.45
    colour_in_pair: float = 0.15
    accessory: float = 0.2
    sized: float = 0.16


class SceneSampler:
    """Draws random scenes, and none that is held out.

    Pairs come as twins: the same two things with exchanged places, so that only word order tells
    their captions apart.
    """

    def __init__(
        self,
        rng: Rng,
        mixture: Mixture | None = None,
        things: tuple[str, ...] = THING_NAMES,
        styles: tuple[str, ...] = STYLES[:1],
        allow_held_out: bool = False,
    ) -> None:
        """Take all randomness from `rng`."""
        self.rng = rng
        self.mixture = mixture or Mixture()
        self.things = things
        self.styles = styles
        self.allow_held_out = allow_held_out

    def draw(self) -> list[Scene]:
        """Draw one scene, or two twins."""
        kind = self.rng.random()
        if kind < self.mixture.pairs:
            scene = self._allowed(self._pair)
            return [scene, scene.swapped()]
        if kind < self.mixture.pairs + self.mixture.several:
            return [self._allowed(self._several)]
        return [self._allowed(self._alone)]

    def draw_many(self, count: int) -> list[Scene]:
        """Draw exactly `count` scenes. Twins stand next to each other."""
        scenes: list[Scene] = []
        while len(scenes) < count:
            scenes += self.draw()
        return scenes[:count]

    def _allowed(self, build: Callable[[], Scene]) -> Scene:
        """Draw again until the scene is one that training may show."""
        while True:
            scene = build()
            if self.allow_held_out or not is_held_out(scene):
                return scene

    def _chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def _pick(self, options: Sequence[str]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def _item(self, thing: str, colour_share: float) -> Item:
        colour = self._pick(colours_of(thing)) if self._chance(colour_share) else None
        return Item(thing, colour, style=self._pick(self.styles))

    def _alone(self) -> Scene:
        item = self._item(self._pick(self.things), self.mixture.colour_alone)
        if self._chance(self.mixture.accessory):
            item = replace(item, accessory=self._pick(list(ACCESSORIES)))
            return Scene(self._pick(BACKGROUND_NAMES), item)
        size = self._pick(["small", "large"]) if self._chance(self.mixture.sized) else None
        return Scene(self._pick(BACKGROUND_NAMES), item, size=size)

    def _several(self) -> Scene:
        item = self._item(self._pick(self.things), self.mixture.colour_in_pair)
        return Scene(self._pick(BACKGROUND_NAMES), item, count=2 + int(self._chance(0.5)))

    def _pair(self) -> Scene:
        first, second = self.rng.choice(len(self.things), 2, replace=False)
        items = [self._item(self.things[i], self.mixture.colour_in_pair) for i in (first, second)]
        axis: Axis = "row" if self._chance(ROW_SHARE) else "column"
        return Scene(self._pick(BACKGROUND_NAMES), items[0], items[1], axis)
