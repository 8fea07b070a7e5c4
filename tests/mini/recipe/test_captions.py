"""Captions say what a scene shows, and nothing else."""

import numpy as np
import pytest

from dti_geom.mini.domain import BACKGROUNDS, COUNT_WORDS, PLURALS, SIZES
from dti_geom.mini.recipe.captions import caption
from dti_geom.mini.recipe.sampling import SceneSampler
from dti_geom.mini.scenes import Item, Scene

SCENES = SceneSampler(np.random.default_rng(5)).draw_many(60)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.first.thing)
def test_captions_tell_what_is_drawn(scene: Scene) -> None:
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


def test_captions_put_the_first_thing_left_or_above() -> None:
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
