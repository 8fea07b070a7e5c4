"""Scenes: what is in a picture (`Scene`), how one is drawn at random (`SceneSampler`), how it is painted (`Painter`).

A scene is one thing alone, two or three of the same, or a pair side by side or stacked. Pairs come as twins: the same
two things with their places swapped, so that only word order tells their captions apart.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from PIL import Image

from dti_geom.mini import backgrounds
from dti_geom.mini.artwork import Sprites, resized
from dti_geom.mini.domain import (
    ACCESSORIES,
    BACKGROUND_NAMES,
    COLOURS,
    HELD_OUT_COLOURS,
    HELD_OUT_PLACES,
    STYLES,
    THING_NAMES,
    colours_of,
)

PIXELS = backgrounds.PIXELS

Axis = Literal["none", "row", "column"]
Rng = np.random.Generator


@dataclass(frozen=True)
class Item:
    """One thing as it is painted; `colour` None is its natural look."""

    thing: str
    colour: str | None = None
    accessory: str | None = None
    style: str = STYLES[0]


@dataclass(frozen=True)
class Scene:
    """What a picture shows. In a pair `first` is the left or upper thing."""

    background: str
    first: Item
    second: Item | None = None
    axis: Axis = "none"
    count: int = 1  # of `first`; above 1 there is no second
    size: str | None = None  # "small", "large" or ordinary; single things only

    @property
    def items(self) -> tuple[Item, ...]:
        """The distinct things in reading order."""
        return (self.first,) if self.second is None else (self.first, self.second)

    def swapped(self) -> "Scene":
        """The twin: the same pair with its places exchanged."""
        if self.second is None:
            raise ValueError("only a pair has a twin")
        return replace(self, first=self.second, second=self.first)


def is_held_out(scene: Scene) -> bool:
    """Whether training must not see this scene."""
    return any(
        (item.thing, scene.background) in HELD_OUT_PLACES
        or (item.colour, item.thing) in HELD_OUT_COLOURS
        for item in scene.items
    )


@dataclass(frozen=True)
class Mixture:
    """Shares of scene kinds and attributes; the rest are single things as they are."""

    pairs: float = 0.27  # of draws; each gives two scenes, twins
    several: float = 0.11
    colour_alone: float = 0.45
    colour_in_pair: float = 0.15
    accessory: float = 0.2
    sized: float = 0.16


class SceneSampler:
    """Random scenes that respect what is held out."""

    def __init__(
        self,
        rng: Rng,
        mixture: Mixture | None = None,
        things: tuple[str, ...] = THING_NAMES,
        styles: tuple[str, ...] = STYLES[:1],
        allow_held_out: bool = False,
    ) -> None:
        """Draws from `rng` alone."""
        self.rng = rng
        self.mixture = mixture or Mixture()
        self.things = things
        self.styles = styles
        self.allow_held_out = allow_held_out

    def draw(self) -> list[Scene]:
        """One scene, or two twins."""
        kind = self.rng.random()
        if kind < self.mixture.pairs:
            scene = self._allowed(self._pair)
            return [scene, scene.swapped()]
        if kind < self.mixture.pairs + self.mixture.several:
            return [self._allowed(self._several)]
        return [self._allowed(self._alone)]

    def draw_many(self, count: int) -> list[Scene]:
        """Exactly `count` scenes; twins stand next to each other."""
        scenes: list[Scene] = []
        while len(scenes) < count:
            scenes += self.draw()
        return scenes[:count]

    def _allowed(self, build: Callable[[], Scene]) -> Scene:
        while True:
            scene = build()
            if self.allow_held_out or not is_held_out(scene):
                return scene

    def _chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def _pick(self, options: tuple[str, ...] | list[str]) -> str:
        return options[self.rng.integers(len(options))]

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
        axis: Axis = "row" if self._chance(0.62) else "column"
        return Scene(self._pick(BACKGROUND_NAMES), items[0], items[1], axis)


def tinted(picture: Image.Image, colour: str) -> Image.Image:
    """Repaint in one colour; light and shade stay, hues go."""
    pixels = np.asarray(picture, dtype=np.float32)
    light = pixels[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    paint = np.array(COLOURS[colour], np.float32)
    dark = np.clip(light / 0.55, 0, 1)[..., None]
    bright = np.clip((light - 0.55) / 0.45, 0, 1)[..., None]
    painted = paint * (0.3 + 0.7 * dark) + (255 - paint) * 0.6 * bright
    return Image.fromarray(
        np.dstack([painted.round().astype(np.uint8), pixels[..., 3].astype(np.uint8)])
    )


def with_accessory(picture: Image.Image, accessory: Image.Image, kind: str) -> Image.Image:
    """A hat sits on top, a bow below the middle."""
    side = max(picture.size)
    if kind == "hat":
        hat = resized(accessory, round(side * 0.56))
        canvas = Image.new("RGBA", (picture.width, picture.height + round(hat.height * 0.72)))
        canvas.alpha_composite(picture, (0, canvas.height - picture.height))
        canvas.alpha_composite(hat, (max(0, (canvas.width - hat.width) // 2), 0))
    else:
        bow = resized(accessory, round(side * 0.5))
        canvas = Image.new(
            "RGBA", (max(picture.width, bow.width), picture.height + round(bow.height * 0.25))
        )
        canvas.alpha_composite(picture, ((canvas.width - picture.width) // 2, 0))
        canvas.alpha_composite(bow, ((canvas.width - bow.width) // 2, canvas.height - bow.height))
    return canvas


SINGLE_SIZES: dict[str | None, tuple[int, int]] = {
    "small": (19, 22),
    None: (37, 41),
    "large": (54, 58),
}


class Painter:
    """Paints scenes. Backgrounds are drawn once, `variants` of each; sprites are cached at every size met."""

    def __init__(self, sprites: Sprites, seed: int, variants: int = 60) -> None:
        """`seed` decides the backgrounds and every jitter."""
        self.sprites = sprites
        self.rng = np.random.default_rng(seed)
        self.backgrounds = {
            name: [backgrounds.paint(name, self.rng) for _ in range(variants)]
            for name in BACKGROUND_NAMES
        }
        self._cache: dict[tuple[Item, int], Image.Image] = {}

    def paint(self, scene: Scene) -> np.ndarray:
        """(64, 64, 3) uint8."""
        choices = self.backgrounds[scene.background]
        canvas = choices[self.rng.integers(len(choices))].convert("RGBA")
        for item, size, x, y in self._placed(scene):
            sprite = self.sprite(item, size)
            left = np.clip(round(x - sprite.width / 2), 0, PIXELS - sprite.width)
            top = np.clip(round(y - sprite.height / 2), 0, PIXELS - sprite.height)
            canvas.alpha_composite(sprite, (int(left), int(top)))
        return np.asarray(canvas.convert("RGB"))

    def sprite(self, item: Item, size: int) -> Image.Image:
        """RGBA, longest side `size` px."""
        if (item, size) not in self._cache:
            picture = self.sprites[item.style, item.thing]
            if item.colour:
                picture = tinted(picture, item.colour)
            if item.accessory:
                picture = with_accessory(picture, self._accessory(item.accessory), item.accessory)
            self._cache[item, size] = resized(picture, size)
        return self._cache[item, size]

    def _accessory(self, kind: str) -> Image.Image:
        """The hat as it is; the bow in purple, or nobody would see the artwork's red one on a strawberry."""
        picture = self.sprites[STYLES[0], kind]
        return tinted(picture, "purple") if kind == "bow" else picture

    def _jitter(self, reach: int) -> int:
        return int(self.rng.integers(-reach, reach + 1))

    def _placed(self, scene: Scene) -> list[tuple[Item, int, int, int]]:
        """(item, size, centre x, centre y) of everything in the scene, px."""
        jitter = self._jitter
        if scene.second is not None:
            size = int(self.rng.integers(26, 29))
            if scene.axis == "row":
                level = 36 + jitter(3)
                return [
                    (item, size, x + jitter(1), level + jitter(1))
                    for item, x in zip(scene.items, (16, 48), strict=True)
                ]
            return [
                (item, size, 32 + jitter(3), y + jitter(1))
                for item, y in zip(scene.items, (17, 47), strict=True)
            ]
        if scene.count > 1:
            size = (
                int(self.rng.integers(26, 29))
                if scene.count == 2
                else int(self.rng.integers(19, 21))
            )
            level = 36 + jitter(3)
            centres = {2: (16, 48), 3: (11, 32, 53)}[scene.count]
            return [(scene.first, size, x + jitter(1), level + jitter(1)) for x in centres]
        size = int(self.rng.integers(*SINGLE_SIZES[scene.size])) + (
            9 if scene.first.accessory else 0
        )
        reach = 8 if scene.size == "small" else 3
        return [(scene.first, size, 32 + jitter(reach), 36 + jitter(3))]
