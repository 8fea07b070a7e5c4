"""Captions of scenes. A scene has many captions, and each is true of it."""

import numpy as np

from dti_geom.mini.domain import BACKGROUNDS, SIZES
from dti_geom.mini.scenes import Scene
from dti_geom.mini.wording import counted_noun, noun, relation, with_article

Rng = np.random.Generator

# {} is the thing with its article, {bare} without: "a photo of my red fox". The single templates
# have the adjectives of the prompts that textual inversion trains with, and they change nothing.
PLAIN_TEMPLATES: tuple[str, ...] = ("a photo of {}", "a picture of {}", "an image of {}", "{}")
SINGLE_TEMPLATES: tuple[str, ...] = (
    "a photo of {}",
    "a photo of {}",
    "a photo of {}",
    "a picture of {}",
    "an image of {}",
    "{}",
    "a rendering of {}",
    "a rendition of {}",
    "a depiction of {}",
    "a close-up photo of {}",
    "a cropped photo of {}",
    "a good photo of {}",
    "a bright photo of {}",
    "a dark photo of {}",
    "the photo of {}",
    "a photo of the {bare}",
    "a photo of my {bare}",
    "a photo of one {bare}",
    "a photo of a nice {bare}",
    "a photo of a cool {bare}",
    "a photo of a clean {bare}",
    "a photo of a dirty {bare}",
    "a photo of a weird {bare}",
)

BACKGROUND_NAMED = 0.85  # share of captions that name the background
SIDES_OPEN = 0.1  # share of row captions that do not name the sides: "a fox with a car"


def caption(scene: Scene, rng: Rng) -> str:
    """Return a random caption of the scene."""
    body = (
        _several(scene, rng)
        if scene.count > 1
        else _pair(scene, rng)
        if scene.second
        else _alone(scene, rng)
    )
    if rng.random() < BACKGROUND_NAMED:
        body += " " + _pick(BACKGROUNDS[scene.background], rng)
    return body


def _pick(options: tuple[str, ...], rng: Rng) -> str:
    return options[rng.integers(len(options))]


def _alone(scene: Scene, rng: Rng) -> str:
    size = _pick(SIZES[scene.size], rng) if scene.size else None
    bare = noun(scene.first, size)
    template = _pick(SINGLE_TEMPLATES, rng)
    wearing = f" wearing a {scene.first.accessory}" if scene.first.accessory else ""
    return template.format(with_article(bare) + wearing, bare=bare + wearing)


def _several(scene: Scene, rng: Rng) -> str:
    return _pick(PLAIN_TEMPLATES, rng).format(counted_noun(scene))


def _pair(scene: Scene, rng: Rng) -> str:
    turned = bool(rng.random() < 0.5)
    if scene.axis == "row" and rng.random() < SIDES_OPEN:
        nouns = [with_article(noun(item)) for item in scene.items]
        return _pick(PLAIN_TEMPLATES, rng).format(
            " with ".join(reversed(nouns) if turned else nouns)
        )
    return _pick(PLAIN_TEMPLATES, rng).format(relation(scene, second_first=turned))
