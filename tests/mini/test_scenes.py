"""The painted world: seeded, told truthfully, and without what is held out."""

import itertools

import numpy as np
import pytest
from PIL import Image

from dti_geom.errors import ModelFilesError
from dti_geom.mini import backgrounds
from dti_geom.mini.captions import caption
from dti_geom.mini.concepts import (
    CONCEPTS,
    IMAGES_PER_CONCEPT,
    concept_images,
    load_concepts,
    patterned,
    save_concepts,
    with_concepts,
)
from dti_geom.mini.domain import (
    BACKGROUND_NAMES,
    BACKGROUNDS,
    COLOURS,
    COUNT_WORDS,
    HELD_OUT_COLOURS,
    HELD_OUT_PLACES,
    NATURAL_COLOURS,
    PLURALS,
    SIZES,
    THING_NAMES,
)
from dti_geom.mini.labels import IGNORED, READINGS, labels_of, labels_told
from dti_geom.mini.scenes import Item, Painter, Scene, SceneSampler, is_held_out, tinted


def many_scenes(count: int = 3000, seed: int = 5) -> list[Scene]:
    return SceneSampler(np.random.default_rng(seed)).draw_many(count)


def test_same_seed_draws_the_same_scenes():
    assert many_scenes(50) == many_scenes(50)
    assert many_scenes(50) != many_scenes(50, seed=6)


def test_same_seed_paints_the_same_pictures(sprites):
    scenes = many_scenes(20)
    first, second = (
        np.stack([painter.paint(s) for s in scenes])
        for painter in (Painter(sprites, 3, 2), Painter(sprites, 3, 2))
    )
    assert (first == second).all()
    assert first.shape == (20, 64, 64, 3)


def test_held_out_pairs_never_appear():
    scenes = many_scenes()
    assert not any(is_held_out(scene) for scene in scenes)
    places = {(item.thing, scene.background) for scene in scenes for item in scene.items}
    colours = {(item.colour, item.thing) for scene in scenes for item in scene.items}
    assert not places & HELD_OUT_PLACES
    assert not colours & HELD_OUT_COLOURS
    assert not colours & NATURAL_COLOURS


def test_every_thing_has_one_background_and_one_colour_held_out():
    assert sorted(thing for thing, _ in HELD_OUT_PLACES) == sorted(THING_NAMES)
    assert sorted(thing for _, thing in HELD_OUT_COLOURS) == sorted(THING_NAMES)


def test_training_shows_every_thing_on_every_other_background():
    places = {(scene.first.thing, scene.background) for scene in many_scenes(12_000)}
    everything = {(thing, background) for thing in THING_NAMES for background in BACKGROUND_NAMES}
    assert places == everything - HELD_OUT_PLACES


def test_twins_swap_places_and_nothing_else():
    scenes = many_scenes(400)
    twins = [
        pair
        for pair in itertools.pairwise(scenes)
        if pair[0].second and pair[0].swapped() == pair[1]
    ]
    assert len(twins) > 50


@pytest.mark.parametrize("scene", many_scenes(60), ids=lambda scene: scene.first.thing)
def test_captions_tell_what_is_drawn(scene):
    text = caption(scene, np.random.default_rng(0))
    words = text.split()
    if scene.count > 1:
        assert PLURALS[scene.first.thing] in words
        assert COUNT_WORDS[scene.count - 1] in words
    for item in scene.items if scene.count == 1 else ():
        assert item.thing in words
        assert item.colour is None or f"{item.colour} {item.thing}" in text
    assert ("wearing" in words) == (scene.first.accessory is not None)
    told = [
        name
        for name, phrases in BACKGROUNDS.items()
        if any(text.endswith(phrase) for phrase in phrases)
    ]
    assert told in ([], [scene.background])
    sizes = [
        size for size, size_words in SIZES.items() if any(word in words for word in size_words)
    ]
    assert sizes == ([scene.size] if scene.size else [])


def test_captions_put_the_first_thing_left_or_above():
    row = Scene("snow", Item("fox"), Item("car"), "row")
    column = Scene("snow", Item("fox"), Item("car"), "column")
    told = {
        caption(scene, np.random.default_rng(seed)) for scene in (row, column) for seed in range(60)
    }
    for text in told:
        if "fox to the" in text:
            assert "fox to the left of a car" in text
        if "car to the" in text:
            assert "car to the right of a fox" in text
        assert "fox below" not in text
        assert "car above" not in text


def test_labels_ignore_what_a_caption_leaves_open():
    scene = Scene("snow", Item("fox", "red"), Item("car"), "row")
    open_sides = labels_told(scene, "a fox with a car")
    assert open_sides["first"] == open_sides["background"] == IGNORED
    told = labels_told(scene, "a red fox to the left of a car in the snow")
    assert told == labels_of(scene)
    assert READINGS["second"][told["second"]] == "car"


@pytest.mark.parametrize("name", BACKGROUND_NAMES)
def test_backgrounds_are_smooth_enough_for_the_autoencoder(name):
    pixels = np.asarray(backgrounds.paint(name, np.random.default_rng(0)), np.float32)
    steps = np.abs(np.diff(pixels, axis=1))
    assert (steps > 4).mean() < 0.45  # noise would change almost every pixel


@pytest.mark.parametrize("colour", COLOURS)
def test_tint_leaves_the_outline_alone(sprites, colour):
    picture = sprites["drawn", "fox"]
    painted = tinted(picture, colour)
    assert painted.getchannel("A").tobytes() == picture.getchannel("A").tobytes()
    assert painted.tobytes() != picture.tobytes()


def test_concepts_are_never_trained():
    assert len({concept.name for concept in CONCEPTS}) == len(CONCEPTS) >= 12
    assert sum(concept.split == "tuning" for concept in CONCEPTS) == 4
    for concept in CONCEPTS:
        assert concept.initialiser in THING_NAMES
        item = concept.item
        is_new = (
            item.style != "drawn"
            or item.thing not in THING_NAMES
            or (item.colour, item.thing) in HELD_OUT_COLOURS
        )
        assert is_new, concept.name


def test_patterns_show_both_colours(sprites):
    picture = patterned(Image.new("RGBA", (64, 64), (200, 200, 200, 255)), "striped")
    assert len(picture.getcolors(5000)) >= 2
    assert ("spotted", "car") in with_concepts(sprites)


def test_shipped_concepts_read_back_as_they_were_written(sprites, tmp_path):
    save_concepts(tmp_path, sprites, seed=0)
    assert load_concepts(tmp_path) == CONCEPTS
    pictures = concept_images(tmp_path, CONCEPTS[0])
    assert [picture.size for picture in pictures] == [(64, 64)] * IMAGES_PER_CONCEPT
    with pytest.raises(ModelFilesError, match=r"concepts\.json"):
        load_concepts(tmp_path / "nowhere")
