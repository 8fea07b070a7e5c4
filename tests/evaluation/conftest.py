from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dti_geom.models.image_encoders import (
    ImageEncoder,
    ImageTextEncoder,
    open_image_encoder,
    open_image_text_encoder,
)
from dti_geom.models.pipelines import TextToImage, open_text_to_image
from image_models import build_clip, build_dinov2

Place = Callable[..., list[Tensor]]


@pytest.fixture(scope="module")
def opened() -> Callable[[Path], TextToImage]:
    """Open each tiny pipeline once for a file of tests.

    Tests may place tokens. A token keeps its number of vectors in a model, for all tests of a file.
    A test that changes anything else takes `fresh_sd15`.
    """
    models: dict[Path, TextToImage] = {}

    def opened(folder: Path) -> TextToImage:
        if folder not in models:
            models[folder] = open_text_to_image(str(folder), dtype=torch.float32)
        return models[folder]

    return opened


@pytest.fixture
def sd15(opened: Callable[[Path], TextToImage], sd15_pipeline: Path) -> Iterator[TextToImage]:
    model = opened(sd15_pipeline)
    yield model
    model.forget()


@pytest.fixture
def sdxl(opened: Callable[[Path], TextToImage], sdxl_pipeline: Path) -> Iterator[TextToImage]:
    model = opened(sdxl_pipeline)
    yield model
    model.forget()


@pytest.fixture(params=["sd15", "sdxl", "sana"])
def family(
    request: pytest.FixtureRequest, opened: Callable[[Path], TextToImage]
) -> Iterator[TextToImage]:
    """A tiny pipeline of each family with a tower or two of its own kind."""
    model = opened(request.getfixturevalue(f"{request.param}_pipeline"))
    yield model
    model.forget()


@pytest.fixture
def fresh_sd15(sd15_pipeline: Path) -> TextToImage:
    """A model of its own, for tests that change its weights, sampler or vocabulary."""
    return open_text_to_image(str(sd15_pipeline), dtype=torch.float32)


@pytest.fixture(scope="session")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> ImageEncoder:
    return open_image_encoder(str(build_dinov2(tmp_path_factory.mktemp("dinov2"))))


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ImageTextEncoder:
    return open_image_text_encoder(str(build_clip(tmp_path_factory.mktemp("clip"))))


@pytest.fixture
def place() -> Place:
    """Places a token of `count` seeded vectors, whose norm is about `norm`."""

    def place(
        model: TextToImage, token: str = "<x>", count: int = 1, norm: float = 0.4, seed: int = 0
    ) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        widths = [tower.token_table.shape[1] for tower in model.towers]
        vectors = [
            norm * torch.randn(count, width, generator=generator) / width**0.5 for width in widths
        ]
        model.place(token, vectors)
        return vectors

    return place
