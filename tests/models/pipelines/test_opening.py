import shutil
from pathlib import Path

import pytest
import torch

from dti_geom.errors import ModelFilesError
from dti_geom.models.pipelines import default_dtype, open_text_to_image
from pipelines import library


def test_another_pipeline_and_a_broken_one_are_refused_in_one_line(
    sd15_pipeline: Path, tmp_path: Path
) -> None:
    shutil.copytree(sd15_pipeline, tmp_path / "broken")
    weights = tmp_path / "broken" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(b"no weights")
    with pytest.raises(ModelFilesError, match="did not open as a StableDiffusionPipeline"):
        open_text_to_image(str(tmp_path / "broken"))
    index = tmp_path / "broken" / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "FluxPipeline"))
    with pytest.raises(ModelFilesError, match="a token can be trained on StableDiffusionPipeline"):
        open_text_to_image(str(tmp_path / "broken"))


@pytest.mark.parametrize(
    ("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)], ids=["A100", "T4"]
)
def test_emulated_bfloat16_is_not_a_default(
    monkeypatch: pytest.MonkeyPatch, native: bool, dtype: torch.dtype
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert default_dtype("cuda") == dtype


def test_missing_memory_is_no_fault_of_the_files(
    sd15_pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        )

    monkeypatch.setattr(library("diffusers").StableDiffusionPipeline, "from_pretrained", fail)
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        open_text_to_image(str(sd15_pipeline))
