import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dti_geom.errors import ModelFilesError
from dti_geom.models.downloads import fetch, in_units, needed_files, plan_download
from dti_geom.models.pipelines import open_text_to_image, opening
from dti_geom.models.sources import Folder
from variants import PARTS, with_variants


def weights_of(plan: Any) -> set[str]:
    return {file.name for file in plan.files if file.name.endswith((".safetensors", ".bin"))}


@pytest.fixture
def only_halves(sd15_pipeline: Path, tmp_path: Path) -> Path:
    return with_variants(sd15_pipeline, tmp_path / "halves", full=False)


def test_half_precision_takes_variants_and_float32_whole_files(
    sd15_pipeline: Path, tmp_path: Path
) -> None:
    folder = str(with_variants(sd15_pipeline, tmp_path / "both", full=True))
    whole = {f"{part}/{stem}.safetensors" for part, stem in PARTS.items()}
    assert weights_of(plan_download(folder, "float32")) == whole
    for dtype in ("float16", "bfloat16"):
        chosen = weights_of(plan_download(folder, dtype))
        assert chosen == {
            "text_encoder/model.fp16.safetensors",
            "unet/diffusion_pytorch_model.fp16.safetensors",
            "vae/diffusion_pytorch_model.safetensors",  # the autoencoder computes in float32
        }


def test_a_folder_of_fp16_variants_paints_what_its_rounded_weights_paint(
    only_halves: Path, sd15_pipeline: Path, tmp_path: Path
) -> None:
    rounded = tmp_path / "rounded"
    shutil.copytree(sd15_pipeline, rounded)
    for part, stem in PARTS.items():
        path = rounded / part / f"{stem}.safetensors"
        values = {name: value.half().float() for name, value in load_file(path).items()}
        save_file(values, path, {"format": "pt"})
    painted = [
        open_text_to_image(str(folder), dtype=torch.float32).generate(["a cat"], [0], steps=2)[0]
        for folder in (only_halves, rounded)
    ]
    assert painted[0].tobytes() == painted[1].tobytes()


def test_float32_from_half_precision_files_is_said_where_half_precision_is_faster(
    only_halves: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "default_dtype", lambda _: torch.float32)
    open_text_to_image(str(only_halves), dtype=torch.float32)
    assert caplog.text == ""
    monkeypatch.setattr(opening, "default_dtype", lambda _: torch.bfloat16)
    open_text_to_image(str(only_halves), dtype=torch.float32)
    assert "stores text_encoder, unet, vae in half precision only" in caplog.text
    caplog.clear()
    open_text_to_image(str(only_halves), dtype=torch.bfloat16)
    assert caplog.text == ""


def test_shards_of_a_variant_are_found_through_their_index(only_halves: Path) -> None:
    unet = only_halves / "unet"
    whole = unet / "diffusion_pytorch_model.fp16.safetensors"
    tensors = load_file(whole)
    names = sorted(tensors)
    shards: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"diffusion_pytorch_model.fp16-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, unet / file, {"format": "pt"})
        shards |= dict.fromkeys(part, file)
    whole.unlink()
    index = unet / "diffusion_pytorch_model.safetensors.index.fp16.json"
    index.write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": shards}))
    assert set(shards.values()) <= {
        Path(name).name for name in weights_of(plan_download(str(only_halves), "float16"))
    }
    model = open_text_to_image(str(only_halves), dtype=torch.float32)
    loaded = model.denoiser.state_dict()
    assert all(torch.equal(loaded[name], value.float()) for name, value in tensors.items())


def test_an_index_does_not_lead_out_of_its_folder(only_halves: Path) -> None:
    (only_halves / "unet" / "diffusion_pytorch_model.fp16.safetensors").unlink()
    index = only_halves / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))
    with pytest.raises(ModelFilesError, match=r"names a shard '\.\./\.\./secret"):
        open_text_to_image(str(only_halves), dtype=torch.float32)


def test_pickles_are_read_only_where_there_is_nothing_else(
    sd15_pipeline: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(sd15_pipeline, folder)
    safe = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(safe)
    torch.save(tensors, folder / "unet" / "diffusion_pytorch_model.bin")
    assert "unet/diffusion_pytorch_model.bin" not in weights_of(plan_download(str(folder)))
    safe.unlink()
    assert "unet/diffusion_pytorch_model.bin" in weights_of(plan_download(str(folder)))
    loaded = open_text_to_image(str(folder), dtype=torch.float32).denoiser.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items())


def test_a_part_without_weights_is_named_with_what_is_there(only_halves: Path) -> None:
    (only_halves / "unet" / "diffusion_pytorch_model.fp16.safetensors").unlink()
    with pytest.raises(
        ModelFilesError, match=r"no weights of its unet: there is unet/config\.json"
    ):
        plan_download(str(only_halves))


def test_a_part_of_another_library_is_refused(only_halves: Path) -> None:
    index = json.loads((only_halves / "model_index.json").read_text())
    index["unet"] = ["my_code", "Model"]
    (only_halves / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelFilesError, match=r"takes unet from \['my_code'"):
        open_text_to_image(str(only_halves))


def test_what_is_not_needed_is_not_in_the_plan(only_halves: Path) -> None:
    index = json.loads((only_halves / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    (only_halves / "model_index.json").write_text(json.dumps(index))
    unneeded = (
        "safety_checker/model.safetensors",
        "unet/model.onnx",
        "vae/diffusion_flax_model.msgpack",
        "v1-5-pruned.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
    )
    for name in unneeded:
        (only_halves / name).parent.mkdir(exist_ok=True)
        (only_halves / name).write_bytes(b"never to be read")
    plan = plan_download(str(only_halves))
    assert not {file.name for file in plan.files} & set(unneeded)
    assert plan.cached_bytes == plan.bytes
    assert plan.bytes == sum((only_halves / file.name).stat().st_size for file in plan.files)
    open_text_to_image(str(only_halves))


def test_a_download_says_how_much_and_counts_to_the_end(
    sd15_pipeline: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Far(Folder):
        """A folder whose files are not here."""

        def here(self, file: str) -> bool:
            return file.endswith(".json")

        def local(self, file: str, progress: Any = None) -> Path:
            path = super().local(file)
            if progress:
                progress(file, path.stat().st_size, path.stat().st_size)
            return path

    plan = needed_files(Far(sd15_pipeline), "float32")
    told: list[tuple[str, int, int]] = []
    with caplog.at_level(logging.WARNING, "dti_geom"):
        fetch(Far(sd15_pipeline), plan, lambda *step: told.append(step))
    missing = plan.bytes - plan.cached_bytes
    assert 0 < missing < plan.bytes
    assert f"downloading {in_units(missing)} of {sd15_pipeline}: unet/" in caplog.text
    assert told[-1] == (f"downloading {sd15_pipeline}", missing, missing)
    counts = [done for _, done, _ in told]
    assert counts == sorted(counts)


@pytest.mark.parametrize(
    ("size", "said"),
    [(6_938_012_345, "6.94 GB"), (340_000_000, "340 MB"), (1_000_000, "1 MB"), (1, "1 kB")],
)
def test_sizes_are_written_in_units(size: int, said: str) -> None:
    assert in_units(size) == said
