"""Stand-ins for the artwork, which the repository does not hold."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dti_geom.mini.domain import ACCESSORIES, STRANGERS, STYLES, THINGS
from dti_geom.mini.recipe.artwork import Sprites


@pytest.fixture(scope="session")
def sprites() -> Sprites:
    """A coloured disc per style and name."""
    rng = np.random.default_rng(0)
    names = [thing.name for thing in THINGS + STRANGERS] + list(ACCESSORIES)
    made: Sprites = {}
    for style in STYLES:
        for name in names:
            picture = Image.new("RGBA", (64, 56))
            colour = tuple(int(value) for value in rng.integers(0, 256, 3))
            ImageDraw.Draw(picture).ellipse((2, 2, 61, 53), fill=(*colour, 255))
            made[style, name] = picture
    return made
