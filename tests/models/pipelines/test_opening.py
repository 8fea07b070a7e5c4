import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dti_geom.errors import DtiGeomError, ModelFilesError
from dti_geom.models import open_encoders
from dti_geom.models.loading import explained
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
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "KandinskyPipeline"))
    with pytest.raises(ModelFilesError, match="a token can be trained on StableDiffusionPipeline"):
        open_text_to_image(str(tmp_path / "broken"))


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("model_index.json", {"_class_name": []}),
        ("model_index.json", {"text_encoder": None}),
        ("model_index.json", {"unet": []}),
        ("text_encoder/config.json", {"model_type": []}),
        ("text_encoder/config.json", {"architectures": -1}),
        ("text_encoder/config.json", {"hidden_act": "x"}),
        ("text_encoder/config.json", {"attention_dropout": "x"}),
        ("scheduler/scheduler_config.json", {"trained_betas": -1}),
        ("unet/config.json", {"dual_cross_attention": "x"}),
        ("vae/config.json", {"block_out_channels": 10**30}),
    ],
)
def test_a_strange_value_in_a_folder_is_no_bug_of_ours(
    file: str, change: dict[str, Any], sd15_pipeline: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "strange"
    shutil.copytree(sd15_pipeline, folder)
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with contextlib.suppress(DtiGeomError):  # nothing else may come out
        open_text_to_image(str(folder), dtype=torch.float32)
    with contextlib.suppress(DtiGeomError):
        for encoder in open_encoders(str(folder)):
            _ = encoder.module, encoder.tokenizer


def test_a_full_memory_is_not_called_a_broken_folder() -> None:
    with pytest.raises(torch.OutOfMemoryError), explained("the model does not open"):
        raise torch.OutOfMemoryError


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
