"""The list of personal concepts, and how their reference pictures are painted."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dti_geom.mini.concepts import CONCEPTS_FILE, IMAGES_PER_CONCEPT, Concept
from dti_geom.mini.domain import STYLES
from dti_geom.mini.recipe.artwork import Sprites
from dti_geom.mini.recipe.painting import LUMA, Painter
from dti_geom.mini.scenes import Item, Scene

# One for each of the IMAGES_PER_CONCEPT pictures.
REFERENCE_BACKGROUNDS: tuple[str, ...] = ("white", "wood", "beach", "meadow", "snow")


def _artwork(style: str, thing: str, split: str) -> Concept:
    return Concept(f"{style}-{thing}", thing, split, "artwork", Item(thing, style=style))


def _colour(colour: str, thing: str, split: str) -> Concept:
    return Concept(f"{colour}-{thing}", thing, split, "colour", Item(thing, colour))


def _pattern(pattern: str, thing: str, split: str) -> Concept:
    return Concept(f"{pattern}-{thing}", thing, split, "pattern", Item(thing, style=pattern))


def _stranger(thing: str, initialiser: str) -> Concept:
    return Concept(thing, initialiser, "test", "stranger", Item(thing))


CONCEPTS: tuple[Concept, ...] = (
    _artwork("round", "teapot", "tuning"),
    _artwork("flat", "owl", "tuning"),
    _colour("green", "fox", "tuning"),
    _pattern("spotted", "car", "tuning"),
    _artwork("round", "frog", "test"),
    _artwork("flat", "octopus", "test"),
    _artwork("flat", "butterfly", "test"),
    _artwork("round", "penguin", "test"),
    _colour("yellow", "rocket", "test"),
    _pattern("striped", "apple", "test"),
    _pattern("spotted", "whale", "test"),
    _pattern("striped", "mushroom", "test"),
    _stranger("duck", "penguin"),
    _stranger("teddy", "panda"),
    _stranger("helicopter", "rocket"),
    _stranger("robot", "car"),
)

PATTERN_COLOURS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "spotted": ((70, 190, 180), (250, 245, 225)),
    "striped": ((245, 130, 30), (60, 40, 110)),
}


def patterned(picture: Image.Image, pattern: str) -> Image.Image:
    """Cover a sprite with spots or stripes in two colours. Its light and shade stay."""
    ground, figure = PATTERN_COLOURS[pattern]
    cloth = Image.new("RGB", picture.size, ground)
    draw = ImageDraw.Draw(cloth)
    if pattern == "striped":
        for x in range(-picture.height, picture.width, 16):
            draw.line((x, picture.height, x + picture.height, 0), fill=figure, width=7)
    else:
        for row, y in enumerate(range(4, picture.height, 14)):
            for x in range(4 + 8 * (row % 2), picture.width, 16):
                draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=figure)
    pixels = np.asarray(picture, np.float32)
    light = pixels[..., :3] @ LUMA / 255
    # From 35 % of the cloth's colour in black lines to all of it from lightness 0.72 on.
    shade = np.clip(0.35 + 0.9 * light, 0, 1)[..., None]
    painted = np.asarray(cloth, np.float32) * shade
    return Image.fromarray(np.dstack([painted, pixels[..., 3]]).round().astype(np.uint8))


def with_concepts(sprites: Sprites) -> Sprites:
    """Return the artwork and the patterned sprites, whose style is their pattern."""
    patterned_sprites = {
        (concept.item.style, concept.item.thing): patterned(
            sprites[STYLES[0], concept.item.thing], concept.item.style
        )
        for concept in CONCEPTS
        if concept.kind == "pattern"
    }
    return sprites | patterned_sprites


def reference_images(concept: Concept, sprites: Sprites, seed: int) -> list[NDArray[np.uint8]]:
    """Return pictures of the concept alone, one on each of REFERENCE_BACKGROUNDS."""
    painter = Painter(with_concepts(sprites), seed)
    return [painter.paint(Scene(background, concept.item)) for background in REFERENCE_BACKGROUNDS]


def save_concepts(folder: Path, sprites: Sprites, seed: int) -> None:
    """Write NAME/0.png … NAME/4.png for every concept, and concepts.json."""
    entries = []
    for index, concept in enumerate(CONCEPTS):
        target = folder / concept.name
        target.mkdir(parents=True, exist_ok=True)
        files = [f"{concept.name}/{number}.png" for number in range(IMAGES_PER_CONCEPT)]
        for file, pixels in zip(
            files, reference_images(concept, sprites, seed + index), strict=True
        ):
            Image.fromarray(pixels).save(folder / file, optimize=True)
        backgrounds = list(REFERENCE_BACKGROUNDS)
        entries.append({**asdict(concept), "images": files, "backgrounds": backgrounds})
    (folder / CONCEPTS_FILE).write_text(json.dumps(entries, indent=1) + "\n")
