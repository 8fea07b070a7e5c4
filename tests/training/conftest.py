"""A few seeded pictures, and the smallest run there is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dti_geom.models.pipelines import TextToImage, open_text_to_image
from dti_geom.training import ConceptConfig, DataConfig, PreviewConfig, RunConfig


@pytest.fixture(scope="session")
def picture() -> Callable[[int], Image.Image]:
    def paint(seed: int) -> Image.Image:
        return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 80, 3), np.uint8))

    return paint


@pytest.fixture
def images(tmp_path: Path, picture: Callable[[int], Image.Image]) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        picture(number).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def tiny(sd15_pipeline: Path) -> Callable[[], TextToImage]:
    """Open the tiny model anew: a token, once placed, stays."""
    return lambda: open_text_to_image(str(sd15_pipeline), dtype=torch.float32)


@pytest.fixture
def config(images: Path, sd15_pipeline: Path) -> Callable[..., RunConfig]:
    """Build a run of six steps; keywords replace its fields."""

    def build(**changes: Any) -> RunConfig:
        concept = changes.pop("concept", {})
        fields: dict[str, Any] = {
            "model": str(sd15_pipeline),
            "concepts": (ConceptConfig("<x>", str(images), "dog", **concept),),
            "steps": 6,
            "batch_size": 2,
            "checkpoint_every": 2,
            "dtype": "float32",
            "data": DataConfig(resolution=64),
            "preview": PreviewConfig(every=0),
        }
        return RunConfig(**fields | changes)

    return build
