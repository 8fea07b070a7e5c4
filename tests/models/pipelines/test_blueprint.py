from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dti_geom.errors import ModelFilesError
from dti_geom.models.pipelines import View, open_text_to_image
from dti_geom.models.pipelines.blueprint import meta_model
from dti_geom.models.sources import Folder
from pipelines import FAMILIES, published, published_folder

Folders = Callable[[str], Path]
VIEW = View((64, 64), (0, 0), (64, 64))

per_family = pytest.mark.parametrize("name", FAMILIES)
PUBLISHED: list[tuple[str, str]] = []
for _name, _family in FAMILIES.items():
    PUBLISHED += [(_name, denoiser) for denoiser in _family.denoisers]


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("name", "denoiser"), PUBLISHED)
def test_the_parts_have_the_published_sizes_and_no_numbers(
    name: str, denoiser: str, tmp_path: Path
) -> None:
    published_folder(tmp_path, name, denoiser)
    model = meta_model(Folder(tmp_path), torch.bfloat16)
    assert model.device.type == "meta"
    assert parameters(model.denoiser) == published(denoiser)["parameters"]
    assert parameters(model.vae) == published(FAMILIES[name].autoencoder)["parameters"]
    family = FAMILIES[name]
    for tower, size in zip(model.towers, family.towers_of(denoiser), strict=True):
        unread = family.unread.get(size, 0)
        assert parameters(tower.module) == published(size)["parameters"] - unread


@per_family
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_step_has_the_shapes_and_dtypes_of_the_real_model(
    name: str, dtype: torch.dtype, pipeline_folder: Folders
) -> None:
    folder = pipeline_folder(name)
    answers = []
    for model in (
        meta_model(Folder(folder), dtype),
        open_text_to_image(str(folder), dtype=dtype),
    ):
        rows = [torch.zeros(1, tower.token_table.shape[1]) for tower in model.towers]
        vectors = [row.to(model.device).requires_grad_() for row in rows]
        model.place("<x>", vectors)
        x = model.encode_images(torch.zeros(2, 3, 64, 64)).mean
        t = torch.zeros(2, device=model.device)
        conditioning = model.encode_prompts(["a <x>", "red <x>"], [VIEW, VIEW])
        answer = model.predict(x, t if model.flow else t.long(), conditioning)
        answer.sum().backward()
        assert all(vector.grad is not None for vector in vectors)
        parts = [*conditioning.values(), answer]
        answers.append([(part.shape, part.dtype) for part in parts])
    assert answers[0] == answers[1]


def test_a_folder_of_another_pipeline_says_so(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "OtherPipeline"}')
    with pytest.raises(ModelFilesError, match="OtherPipeline"):
        meta_model(Folder(tmp_path), torch.float32)


def test_a_configuration_that_no_model_has_says_so(tmp_path: Path) -> None:
    FAMILIES["sd15"].build(tmp_path)
    (tmp_path / "unet" / "config.json").write_text('{"block_out_channels": [3, 5]}')
    with pytest.raises(ModelFilesError, match="does not describe a StableDiffusionPipeline"):
        meta_model(Folder(tmp_path), torch.float32)
