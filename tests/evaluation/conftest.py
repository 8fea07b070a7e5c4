import pytest
import torch

from dti_geom.models.pipelines import open_text_to_image


@pytest.fixture
def sd15(sd15_pipeline):
    return open_text_to_image(str(sd15_pipeline), dtype=torch.float32)


@pytest.fixture
def sdxl(sdxl_pipeline):
    return open_text_to_image(str(sdxl_pipeline), dtype=torch.float32)


@pytest.fixture(params=["sd15", "sdxl", "sana"])
def family(request):
    """A tiny pipeline of each family with a tower or two of its own kind."""
    folder = request.getfixturevalue(f"{request.param}_pipeline")
    return open_text_to_image(str(folder), dtype=torch.float32)


@pytest.fixture
def place():
    """Places a token of `count` seeded vectors, whose norm is about `norm`."""

    def place(model, token="<x>", count=1, norm=0.4, seed=0):
        generator = torch.Generator().manual_seed(seed)
        widths = [tower.token_table.shape[1] for tower in model.towers]
        vectors = [
            norm * torch.randn(count, width, generator=generator) / width**0.5 for width in widths
        ]
        model.place(token, vectors)
        return vectors

    return place
