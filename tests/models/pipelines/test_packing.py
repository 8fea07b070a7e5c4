import pytest
import torch

from dti_geom.models.pipelines.packing import pack, positions, unpack
from pipelines import library


@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 6)])
def test_patches_and_positions_are_those_of_the_pipeline_of_flux1(height: int, width: int) -> None:
    pipeline = library("diffusers").FluxPipeline
    latents = torch.randn(2, 16, height, width, generator=torch.Generator().manual_seed(0))
    patches = pack(latents)
    assert torch.equal(patches, pipeline._pack_latents(latents, *latents.shape))
    assert torch.equal(unpack(patches, height, width), latents)
    ids = pipeline._prepare_latent_image_ids(2, height // 2, width // 2, "cpu", torch.float32)
    assert torch.equal(positions(height, width, torch.device("cpu")), ids)


def test_unpacked_latents_lie_in_memory_as_those_of_an_autoencoder() -> None:
    latents = torch.zeros(1, 16, 4, 4)
    assert unpack(pack(latents), 4, 4).is_contiguous()
