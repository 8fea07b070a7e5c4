import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dti_geom.errors import ModelFilesError, UnknownToken
from dti_geom.models.noising import Flow
from dti_geom.models.pipelines import Latents, TextToImage, View, family_of, open_text_to_image
from dti_geom.models.profiles import Profile
from pipelines import FAMILIES

VIEW = View((640, 480), (10, 0), (64, 64))


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, pipeline_folder: Callable[[str], Path]) -> TextToImage:
    return open_text_to_image(str(pipeline_folder(request.param)), dtype=torch.float32)


def vectors_of(model: TextToImage, count: int = 1, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        0.1 * torch.randn(count, tower.token_table.shape[1], generator=generator)
        for tower in model.towers
    ]


def test_no_parameter_of_the_model_learns(model: TextToImage) -> None:
    for part in (model.denoiser, model.vae, *(tower.module for tower in model.towers)):
        assert not any(parameter.requires_grad for parameter in part.parameters())


def test_the_rows_of_the_table_are_looked_up_as_before(model: TextToImage) -> None:
    before = model.encode_prompts(["a red dog"], [VIEW])
    model.place("<x>", vectors_of(model))
    after = model.encode_prompts(["a red dog"], [VIEW])
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_equal_prompts_have_equal_conditioning_and_others_have_not(model: TextToImage) -> None:
    states = model.encode_prompts(["a cat", "a dog", "a cat"], [VIEW] * 3)["states"]
    assert torch.equal(states[0], states[2])
    assert not torch.equal(states[0], states[1])


def test_a_token_of_several_vectors_uses_all_of_them(model: TextToImage) -> None:
    vectors = [rows.requires_grad_() for rows in vectors_of(model, 3)]
    model.place("<x>", vectors)
    conditioning = model.encode_prompts(["a <x>"], [VIEW])
    # FLUX.1 reads CLIP's vectors in the pooled state alone.
    total = sum(part.float().square().sum() for part in conditioning.values())
    assert isinstance(total, Tensor)
    total.backward()
    for rows in vectors:
        assert rows.grad is not None
        assert rows.grad.any(dim=1).all()


def test_a_known_word_cannot_be_a_token_and_a_token_keeps_its_number_of_vectors(
    model: TextToImage,
) -> None:
    family = next(
        facts for facts in FAMILIES.values() if type(model) is family_of(facts.pipeline_class)
    )
    with pytest.raises(UnknownToken, match=f"{family.word} is a word of this model already"):
        model.place(family.word, vectors_of(model))
    model.place("<x>", vectors_of(model, 2))
    with pytest.raises(UnknownToken, match="stands for 2 vectors"):
        model.place("<x>", vectors_of(model, 1))


def test_a_picture_depends_on_its_seed_and_token_and_not_on_its_neighbours(
    model: TextToImage,
) -> None:
    model.place("<x>", vectors_of(model))
    alone = model.generate(["a <x>"], [3], steps=2, size=64)[0]
    beside = model.generate(["a dog", "a <x>", "a <x>"], [1, 3, 4], steps=2, size=64)
    difference = [abs(a - b) for a, b in zip(alone.tobytes(), beside[1].tobytes(), strict=True)]
    assert max(difference) <= 1  # matrix products of another shape round differently
    assert beside[1].tobytes() != beside[2].tobytes()
    model.place("<x>", vectors_of(model, seed=1))
    assert model.generate(["a <x>"], [3], steps=2, size=64)[0].tobytes() != alone.tobytes()


def test_a_profile_replaces_the_familys_sampler_settings(sd15_pipeline: Path) -> None:
    opened = open_text_to_image(str(sd15_pipeline), dtype=torch.float32)
    model = type(opened)(opened.pipeline, "x", Profile(guidance=2.0, sampling_steps=3))
    assert (model.guidance, model.sampling_steps) == (2.0, 3)
    assert (opened.guidance, opened.sampling_steps) == (7.5, 50)


def test_a_freed_autoencoder_is_gone_and_a_resting_one_comes_back(sd15_pipeline: Path) -> None:
    model = open_text_to_image(str(sd15_pipeline), dtype=torch.float32)
    model.rest_vae()
    assert model.generate(["a dog"], [0], steps=1, size=64)[0].size == (64, 64)
    model.free_vae()
    assert model.vae is None
    assert model.pipeline.vae is None


class _Patches(TextToImage):
    """Hooks as FLUX.2 needs them: patches of 2×2 with statistics of each channel, and no std."""

    mean = torch.arange(16.0).view(1, 16, 1, 1)
    std = 1 + torch.arange(16.0).view(1, 16, 1, 1)

    def __init__(self) -> None:
        self.vae = torch.nn.Linear(1, 1)  # for its dtype

    def autoencode(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        return pixels, None

    def autodecode(self, latents: Tensor) -> Tensor:
        return latents

    def arrange_latents(self, latents: Tensor) -> Tensor:
        return torch.nn.functional.pixel_unshuffle(latents, 2)

    def restore_latents(self, latents: Tensor) -> Tensor:
        return torch.nn.functional.pixel_shuffle(latents, 2)

    def latent_statistics(self) -> tuple[Tensor | float, Tensor | float]:
        return self.mean, 1 / self.std


def test_patches_with_statistics_of_each_channel_are_a_few_hooks() -> None:
    model = _Patches()
    model.vae.dtype = torch.float32
    images = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    latents: Latents = model.encode_images(images)
    assert latents.mean.shape == (2, 16, 4, 4)
    assert latents.std is None
    patches: Any = torch.nn.functional.pixel_unshuffle(images, 2)
    torch.testing.assert_close(latents.mean, (patches - model.mean) / model.std)
    torch.testing.assert_close(model.decode_latents(latents.mean), images)


def test_flow_models_are_those_with_a_flow(model: TextToImage) -> None:
    assert model.flow == isinstance(model.noising_at(512), Flow)


@pytest.mark.parametrize("size", [None, "many", 8.5])
def test_a_size_that_is_no_number_of_rows_is_named(
    size: object, sd15_pipeline: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(sd15_pipeline, folder)
    place = folder / "unet" / "config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"sample_size": size}))
    with pytest.raises(ModelFilesError, match="sample_size"):
        open_text_to_image(str(folder), dtype=torch.float32)
