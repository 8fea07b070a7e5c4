"""The scorer's lessons: concepts stand wherever a thing may stand, and every look has a number."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dti_geom.mini.domain import PATTERNS
from dti_geom.mini.recipe.artwork import Sprites
from dti_geom.mini.recipe.concept_pictures import CONCEPTS
from dti_geom.mini.recipe.labels import IGNORED, READINGS
from dti_geom.mini.recipe.scorer_training import (
    IDENTITIES,
    Lessons,
    ScorerSampler,
    paint_scorer_pictures,
)
from dti_geom.mini.scenes import Item, Scene

# What makes a concept, whatever it wears and whichever colour it takes.
LOOKS = {
    (concept.item.style, concept.item.thing) for concept in CONCEPTS if concept.kind != "colour"
}


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return ScorerSampler(np.random.default_rng(0)).draw_many(6000)


def patterned(item: Item) -> bool:
    return item.style in PATTERNS


def test_every_concept_is_seen_first_and_second_in_both_kinds_of_pair_and_in_counts(
    scenes: list[Scene],
) -> None:
    seen: dict[str, set[tuple[str, str]]] = {}
    for scene in scenes:
        places = [f"{scene.axis} {place}" for place in range(len(scene.items))]
        if scene.count > 1:
            places = ["count"]
        for place, item in zip(places, scene.items, strict=True):
            seen.setdefault(place, set()).add((item.style, item.thing))
    assert set(seen) == {"none 0", "count", "row 0", "row 1", "column 0", "column 1"}
    assert all(looks >= LOOKS for looks in seen.values())


def test_twins_of_pairs_with_concepts_stay_twins() -> None:
    sampler = ScorerSampler(np.random.default_rng(1))
    pairs = [drawn for drawn in (sampler.draw() for _ in range(400)) if len(drawn) == 2]
    assert any(patterned(item) for first, _ in pairs for item in first.items)
    assert all(second == first.swapped() for first, second in pairs)


def test_patterned_things_are_dressed_and_repainted_too(scenes: list[Scene]) -> None:
    shown = [item for scene in scenes for item in scene.items if patterned(item)]
    assert any(item.accessory for item in shown)
    assert any(item.colour for item in shown)
    assert any(item.colour is None for item in shown)


def test_lessons_number_the_looks_of_both_places(sprites: Sprites) -> None:
    pictures = paint_scorer_pictures(sprites, 60, seed=2)
    lessons = Lessons.of(pictures, pictures.pixels[:7])
    assert lessons.images.shape == (67, 64, 64, 3)
    assert lessons.answers.shape == (67, len(READINGS))
    assert torch.equal(lessons.identities[:7], lessons.identities[60:])
    for scene, (first, second) in zip(pictures.scenes, lessons.identities.tolist(), strict=False):
        item = scene.first
        assert IDENTITIES[first] == (item.style, item.thing, item.colour)
        if scene.second is None:
            assert second == IGNORED
        else:
            assert IDENTITIES[second][:2] == (scene.second.style, scene.second.thing)


def test_a_repainted_pattern_has_a_colour_and_a_plain_one_has_none(sprites: Sprites) -> None:
    striped = next(concept.item for concept in CONCEPTS if concept.item.style == "striped")
    pictures = paint_scorer_pictures(sprites, 2, seed=0)
    scenes = [Scene("snow", striped), Scene("snow", replace(striped, colour="blue"))]
    lessons = Lessons.of(replace(pictures, scenes=scenes), pictures.pixels[:0])
    plain, blue = lessons.answers[:, list(READINGS).index("first_colour")].tolist()
    assert plain == IGNORED
    assert READINGS["first_colour"][blue] == "blue"
