import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from dti_geom.errors import EmbeddingFileError, FileExists
from dti_geom.files import LearnedToken
from dti_geom.files.adapters import (
    Adapter,
    AdapterShape,
    adapter_beside,
    find_adapter,
    read_adapter,
    write_adapter,
    write_bundle,
)

LAYER = "mid_block.attentions.0.to_q"


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


LORA = Adapter(
    "unet",
    AdapterShape(targets=("to_q",), rank=2, alpha=3.0),
    {f"{LAYER}.lora_A": numbers(2, 8), f"{LAYER}.lora_B": numbers(6, 2)},
    {"method": "dti"},
)
OFT = Adapter(
    "transformer", AdapterShape("oft", ("to_q",), block_size=4), {f"{LAYER}.oft_R": numbers(2, 6)}
)
both = pytest.mark.parametrize("adapter", [LORA, OFT], ids=["lora", "oft"])


@both
def test_what_is_written_comes_back_with_its_shape(adapter: Adapter, tmp_path: Path) -> None:
    write_adapter(tmp_path, adapter)
    read = read_adapter(tmp_path)
    assert (read.part, read.shape) == (adapter.part, adapter.shape)
    assert adapter.metadata.items() <= read.metadata.items()
    assert read.weights.keys() == adapter.weights.keys()
    assert all(torch.equal(read.weights[name], x) for name, x in adapter.weights.items())


@both
def test_the_same_adapter_gives_the_same_bytes_and_replaces_nothing_unasked(
    adapter: Adapter, tmp_path: Path
) -> None:
    files = write_adapter(tmp_path / "a", adapter)
    others = write_adapter(tmp_path / "b", adapter)
    assert [path.read_bytes() for path in files] == [path.read_bytes() for path in others]
    with pytest.raises(FileExists):
        write_adapter(tmp_path / "a", adapter)
    assert write_adapter(tmp_path / "a", adapter, overwrite=True) == files


def test_a_lora_file_names_its_layers_and_its_alpha_as_diffusers_does(tmp_path: Path) -> None:
    (path,) = write_adapter(tmp_path, LORA)
    with safe_open(path, "pt") as file:
        names, metadata = set(file.keys()), file.metadata()
    assert names == {f"unet.{LAYER}.lora_A.weight", f"unet.{LAYER}.lora_B.weight"}
    settings = json.loads(metadata["lora_adapter_metadata"])
    assert (settings["unet.r"], settings["unet.lora_alpha"]) == (2, 3.0)


def test_a_lora_of_another_tool_gets_its_rank_and_alpha_from_the_file(tmp_path: Path) -> None:
    tensors = {f"unet.{name}.weight": weight for name, weight in LORA.weights.items()}
    save_file(tensors, tmp_path / "other.safetensors")
    assert read_adapter(tmp_path / "other.safetensors").shape == AdapterShape(
        targets=("to_q",), rank=2, alpha=2.0
    )


def test_a_bundle_holds_kohyas_layers_and_the_tokens_of_both_text_encoders(tmp_path: Path) -> None:
    rows = {name: numbers(1, width) for name, width in (("text_encoder", 3), ("text_encoder_2", 5))}
    tokens = [LearnedToken("<x>", tower, vectors) for tower, vectors in rows.items()]
    write_bundle(tmp_path / "both.safetensors", LORA, tokens)
    stem = "lora_unet_mid_block_attentions_0_to_q"
    held = load_file(tmp_path / "both.safetensors")
    assert torch.equal(held[f"{stem}.lora_down.weight"], LORA.weights[f"{LAYER}.lora_A"])
    assert torch.equal(held[f"{stem}.lora_up.weight"], LORA.weights[f"{LAYER}.lora_B"])
    assert held[f"{stem}.alpha"] == 3.0
    assert torch.equal(held["bundle_emb.x.clip_l"], rows["text_encoder"])
    assert torch.equal(held["bundle_emb.x.clip_g"], rows["text_encoder_2"])
    write_bundle(tmp_path / "one.safetensors", LORA, tokens[:1])
    assert "bundle_emb.x.string_to_param.*" in load_file(tmp_path / "one.safetensors")
    with pytest.raises(EmbeddingFileError, match="OFT of a transformer"):
        write_bundle(tmp_path / "oft.safetensors", OFT, tokens)


def test_an_adapter_belongs_to_the_tokens_of_its_run_alone(tmp_path: Path) -> None:
    write_adapter(tmp_path, OFT)
    found = find_adapter(tmp_path)
    assert found is not None
    assert adapter_beside(tmp_path / "learned_embeds.safetensors") == found
    assert adapter_beside(tmp_path / "00-x" / "learned_embeds_2.safetensors") == found
    assert adapter_beside(tmp_path / "other.safetensors") is None
    assert adapter_beside(tmp_path / "deeper" / "learned_embeds.safetensors") is None


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({f"unet.{LAYER}.lora_B.weight": None}, "one of its two"),
        ({f"unet.{LAYER}.lora_B.weight": numbers(6, 3)}, "rank 2"),
        ({f"unet.{LAYER}.lora_A.weight": torch.full((2, 8), torch.nan)}, "no finite"),
        ({"text_encoder.x.lora_A.weight": numbers(2, 8)}, "text_encoder, unet"),
    ],
)
def test_other_files_are_refused(
    tmp_path: Path, change: dict[str, Tensor | None], finding: str
) -> None:
    tensors = {f"unet.{name}.weight": weight for name, weight in LORA.weights.items()} | change
    path = tmp_path / "x.safetensors"
    save_file({name: weight for name, weight in tensors.items() if weight is not None}, path)
    with pytest.raises(EmbeddingFileError, match=finding):
        read_adapter(path)
    path.write_bytes(b"no safetensors")
    with pytest.raises(EmbeddingFileError, match="no adapter"):
        read_adapter(path)
