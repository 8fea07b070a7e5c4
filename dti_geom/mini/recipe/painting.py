"""Paints scenes: sprites, recoloured and dressed, on a drawn background."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dti_geom.mini.domain import BACKGROUND_NAMES, COLOURS, STYLES
from dti_geom.mini.recipe import backgrounds
from dti_geom.mini.recipe.artwork import Sprites, resized
from dti_geom.mini.recipe.backgrounds import PIXELS
from dti_geom.mini.scenes import Item, Scene

# Rec. 601: how much red, green and blue add to the perceived lightness of a pixel.
LUMA = np.array([0.299, 0.587, 0.114], np.float32)

# Longest side in px of a single thing: from, below.
SINGLE_SIZES: dict[str | None, tuple[int, int]] = {
    "small": (19, 22),
    None: (37, 41),
    "large": (54, 58),
}
PAIR_SIZES = (26, 29)  # of two things side by side or stacked
TRIPLE_SIZES = (19, 21)
HAT_OR_BOW = 9  # px that an accessory adds to the longest side


def tinted(picture: Image.Image, colour: str) -> Image.Image:
    """Repaint a sprite in one colour. Light and shade stay, hues go."""
    pixels = np.asarray(picture, dtype=np.float32)
    light = pixels[..., :3] @ LUMA / 255
    paint = np.array(COLOURS[colour], np.float32)
    # Lightness 0.55 gives the pure colour. Below it the colour fades to 30 %, so that dark lines
    # keep a hue; above it the colour goes 60 % of the way to white, so that highlights stay.
    dark = np.clip(light / 0.55, 0, 1)[..., None]
    bright = np.clip((light - 0.55) / 0.45, 0, 1)[..., None]
    painted = paint * (0.3 + 0.7 * dark) + (255 - paint) * 0.6 * bright
    return Image.fromarray(
        np.dstack([painted.round().astype(np.uint8), pixels[..., 3].astype(np.uint8)])
    )


def with_accessory(picture: Image.Image, accessory: Image.Image, kind: str) -> Image.Image:
    """Dress a sprite: a hat sits on top, a bow below the middle."""
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


class Painter:
    """Paints scenes.

    It draws `variants` pictures of each background once, and keeps sprites at every size it used.
    """

    def __init__(self, sprites: Sprites, seed: int, variants: int = 60) -> None:
        """Take the backgrounds and all places from `seed`."""
        self.sprites = sprites
        self.rng = np.random.default_rng(seed)
        self.backgrounds = {
            name: [backgrounds.paint(name, self.rng) for _ in range(variants)]
            for name in BACKGROUND_NAMES
        }
        self._cache: dict[tuple[Item, int], Image.Image] = {}

    def paint(self, scene: Scene) -> NDArray[np.uint8]:
        """Return a picture of the scene, (64, 64, 3)."""
        choices = self.backgrounds[scene.background]
        canvas = choices[self.rng.integers(len(choices))].convert("RGBA")
        for item, size, x, y in self._placed(scene):
            sprite = self.sprite(item, size)
            # A sprite near the edge moves inwards rather than being cut off.
            left = np.clip(round(x - sprite.width / 2), 0, PIXELS - sprite.width)
            top = np.clip(round(y - sprite.height / 2), 0, PIXELS - sprite.height)
            canvas.alpha_composite(sprite, (int(left), int(top)))
        return np.asarray(canvas.convert("RGB"))

    def sprite(self, item: Item, size: int) -> Image.Image:
        """Return an item as an RGBA picture, longest side `size` px."""
        if (item, size) not in self._cache:
            picture = self.sprites[item.style, item.thing]
            if item.colour:
                picture = tinted(picture, item.colour)
            if item.accessory:
                picture = with_accessory(picture, self._accessory(item.accessory), item.accessory)
            self._cache[item, size] = resized(picture, size)
        return self._cache[item, size]

    def _accessory(self, kind: str) -> Image.Image:
        """The hat as it is; the bow in purple, since the artwork's red hides on a strawberry."""
        picture = self.sprites[STYLES[0], kind]
        return tinted(picture, "purple") if kind == "bow" else picture

    def _jitter(self, reach: int) -> int:
        """A random whole number of px from −reach to reach."""
        return int(self.rng.integers(-reach, reach + 1))

    def _placed(self, scene: Scene) -> list[tuple[Item, int, int, int]]:
        """(item, size, centre x, centre y) of everything in the scene, in px."""
        if scene.second is not None:
            return self._placed_pair(scene)
        if scene.count > 1:
            return self._placed_several(scene)
        item = scene.first
        size = self._size(SINGLE_SIZES[scene.size]) + (HAT_OR_BOW if item.accessory else 0)
        reach = 8 if scene.size == "small" else 3
        return [(item, size, 32 + self._jitter(reach), 36 + self._jitter(3))]

    def _placed_pair(self, scene: Scene) -> list[tuple[Item, int, int, int]]:
        jitter = self._jitter
        size = self._size(PAIR_SIZES)
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

    def _placed_several(self, scene: Scene) -> list[tuple[Item, int, int, int]]:
        jitter = self._jitter
        size = self._size(PAIR_SIZES if scene.count == 2 else TRIPLE_SIZES)
        level = 36 + jitter(3)
        centres = {2: (16, 48), 3: (11, 32, 53)}[scene.count]
        return [(scene.first, size, x + jitter(1), level + jitter(1)) for x in centres]

    def _size(self, limits: tuple[int, int]) -> int:
        return int(self.rng.integers(*limits))
