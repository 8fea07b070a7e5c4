"""Scenes are seeded, and none of them is held out."""

import itertools

import numpy as np

from dti_geom.mini.domain import (
    BACKGROUND_NAMES,
    HELD_OUT_COLOURS,
    HELD_OUT_PLACES,
    NATURAL_COLOURS,
    THING_NAMES,
)
from dti_geom.mini.recipe.sampling import SceneSampler
from dti_geom.mini.scenes import Scene, is_held_out


def many_scenes(count: int = 3000, seed: int = 5) -> list[Scene]:
    return SceneSampler(np.random.default_rng(seed)).draw_many(count)


def test_same_seed_draws_the_same_scenes() -> None:
    assert many_scenes(50) == many_scenes(50)
    assert many_scenes(50) != many_scenes(50, seed=6)


def test_held_out_pairs_never_appear() -> None:
    scenes = many_scenes()
    assert not any(is_held_out(scene) for scene in scenes)
    places = {(item.thing, scene.background) for scene in scenes for item in scene.items}
    colours = {(item.colour, item.thing) for scene in scenes for item in scene.items}
    assert not places & HELD_OUT_PLACES
    assert not colours & HELD_OUT_COLOURS
    assert not colours & NATURAL_COLOURS


def test_training_shows_every_thing_on_every_other_background() -> None:
    places = {(scene.first.thing, scene.background) for scene in many_scenes(12_000)}
    everything = {(thing, background) for thing in THING_NAMES for background in BACKGROUND_NAMES}
    assert places == everything - HELD_OUT_PLACES


def test_twins_swap_places_and_nothing_else() -> None:
    scenes = many_scenes(400)
    twins = [
        pair
        for pair in itertools.pairwise(scenes)
        if pair[0].second and pair[0].swapped() == pair[1]
    ]
    assert len(twins) > 50
