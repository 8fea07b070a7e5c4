"""Backgrounds hold no noise."""

import numpy as np
import pytest

from dti_geom.mini.domain import BACKGROUND_NAMES
from dti_geom.mini.recipe import backgrounds


@pytest.mark.parametrize("name", BACKGROUND_NAMES)
def test_backgrounds_are_smooth_enough_for_the_autoencoder(name: str) -> None:
    pixels = np.asarray(backgrounds.paint(name, np.random.default_rng(0)), np.float32)
    steps = np.abs(np.diff(pixels, axis=1))
    assert (steps > 4).mean() < 0.45  # noise would change almost every pixel
