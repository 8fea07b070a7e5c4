"""Files we write load in diffusers' own pipelines and paint the original's picture."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dti_geom.editing import convert
from dti_geom.files import read_embeddings


def opened(folder: Path) -> Any:
    import diffusers

    pipeline: Any = diffusers.DiffusionPipeline
    pipeline = pipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def painted(pipeline: Any, prompt: str) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    result = pipeline(
        prompt, height=64, width=64, num_inference_steps=2, generator=generator, output_type="np"
    )
    return np.asarray(result.images[0])


def vectors(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("layout", ["diffusers", "webui", "kohya"])
def test_one_tower_paints_the_same_picture_before_and_after(
    tmp_path: Path, sd15_pipeline: Path, layout: str, count: int
) -> None:
    torch.save({"<x>": vectors(count, 32)}, tmp_path / "x.bin")
    pipeline = opened(sd15_pipeline)
    without = painted(pipeline, "a red <x>")
    pipeline.load_textual_inversion(str(tmp_path / "x.bin"))
    before = painted(pipeline, "a red <x>")
    assert np.abs(before - without).max() > 1e-3

    (result,) = convert([read_embeddings(tmp_path / "x.bin")], layout, tmp_path / "out").written
    path = Path(result.files[0])
    pipeline = opened(sd15_pipeline)
    if layout == "diffusers":
        pipeline.load_textual_inversion(str(path.parent))
    else:
        # A file of one tensor has no place for a name that diffusers would see.
        pipeline.load_textual_inversion(str(path), token="<x>" if layout == "kohya" else None)
    np.testing.assert_array_equal(painted(pipeline, "a red <x>"), before)


@pytest.mark.parametrize("count", [1, 3])
def test_two_towers_paint_the_same_picture_before_and_after(
    tmp_path: Path, sdxl_pipeline: Path, count: int
) -> None:
    towers = {"clip_l": vectors(count, 32), "clip_g": vectors(count, 48, seed=1)}
    save_file(towers, tmp_path / "toy.safetensors")
    pipeline = opened(sdxl_pipeline)
    without = painted(pipeline, "a red <toy>")
    for name, suffix in (("clip_l", ""), ("clip_g", "_2")):
        load(pipeline, load_file(tmp_path / "toy.safetensors")[name], suffix, token="<toy>")
    before = painted(pipeline, "a red <toy>")
    assert np.abs(before - without).max() > 1e-3

    file = read_embeddings(tmp_path / "toy.safetensors")
    (result,) = convert([file], "diffusers", tmp_path / "out", token="<toy>").written
    pipeline = opened(sdxl_pipeline)
    for path, suffix in zip(result.files, ("", "_2"), strict=True):
        load(pipeline, path, suffix)
    np.testing.assert_array_equal(painted(pipeline, "a red <toy>"), before)

    files = [read_embeddings(path) for path in result.files]
    (back,) = convert(files, "sdxl", tmp_path / "back").written
    for name, stored in load_file(back.files[0]).items():
        assert torch.equal(stored, towers[name])


def load(pipeline: Any, source: Any, suffix: str, **options: str) -> None:
    pipeline.load_textual_inversion(
        source,
        tokenizer=getattr(pipeline, f"tokenizer{suffix}"),
        text_encoder=getattr(pipeline, f"text_encoder{suffix}"),
        **options,
    )
