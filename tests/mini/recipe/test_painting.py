"""Pictures are seeded, and paint stays inside the outline."""

import numpy as np
import pytest

from dti_geom.mini.domain import COLOURS
from dti_geom.mini.recipe.artwork import Sprites
from dti_geom.mini.recipe.painting import Painter, tinted
from dti_geom.mini.recipe.sampling import SceneSampler


def test_same_seed_paints_the_same_pictures(sprites: Sprites) -> None:
    scenes = SceneSampler(np.random.default_rng(5)).draw_many(20)
    first, second = (
        np.stack([painter.paint(s) for s in scenes])
        for painter in (Painter(sprites, 3, 2), Painter(sprites, 3, 2))
    )
    assert (first == second).all()
    assert first.shape == (20, 64, 64, 3)


@pytest.mark.parametrize("colour", COLOURS)
def test_tint_leaves_the_outline_alone(sprites: Sprites, colour: str) -> None:
    picture = sprites["drawn", "fox"]
    painted = tinted(picture, colour)
    assert painted.getchannel("A").tobytes() == picture.getchannel("A").tobytes()
    assert painted.tobytes() != picture.tobytes()
