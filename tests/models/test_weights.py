import json
import struct
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file

from dti_geom.errors import ModelFilesError
from dti_geom.models.sources import Folder
from dti_geom.models.weights import Weights, stored_dtype
from dti_geom.progress import Progress, silent


class CountingFolder(Folder):
    """A folder that remembers how much was read of it."""

    bytes_read: ClassVar[int] = 0

    def read(self, file: str, start: int, stop: int, progress: Progress = silent) -> bytearray:
        data = super().read(file, start, stop)
        object.__setattr__(self, "bytes_read", self.bytes_read + len(data))
        return data


def write_weights(folder: Path, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "text_model.embeddings.token_embedding.weight": torch.randn(100, 8, generator=generator).to(
            dtype
        ),
        "text_model.encoder.weight": torch.randn(200_000, 8, generator=generator).to(dtype),
        "vision_model.embeddings.position_embedding.weight": torch.randn(
            5, 8, generator=generator
        ).to(dtype),
    }
    save_file(tensors, folder / "model.safetensors")
    return tensors


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_one_tensor_is_read_bit_for_bit_in_its_own_dtype(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    tensors = write_weights(tmp_path, dtype)
    for name, expected in tensors.items():
        read = Weights(Folder(tmp_path), "").tensor(name)
        assert read.dtype == dtype
        assert torch.equal(read, expected)


def test_no_more_is_read_than_the_header_and_the_tensor(tmp_path: Path) -> None:
    write_weights(tmp_path)
    folder = CountingFolder(tmp_path)
    Weights(folder, "").tensor("text_model.embeddings.token_embedding.weight")
    assert folder.bytes_read <= (1 << 17) + 100 * 8 * 4
    assert folder.bytes_read < (tmp_path / "model.safetensors").stat().st_size / 10


def test_a_header_longer_than_the_first_read_is_read_on(tmp_path: Path) -> None:
    tensors = {
        f"layer.{number:05d}.weight": torch.full((2,), float(number)) for number in range(3000)
    }
    save_file(tensors, tmp_path / "model.safetensors")
    assert struct.unpack("<Q", (tmp_path / "model.safetensors").read_bytes()[:8])[0] > 1 << 17
    weights = Weights(Folder(tmp_path), "")
    assert weights.tensor("layer.02999.weight").tolist() == [2999.0, 2999.0]


def test_names_are_found_by_their_ending_at_a_dot(tmp_path: Path) -> None:
    save_file(
        {"a.shared.weight": torch.ones(1), "unshared.weight": torch.ones(1)},
        tmp_path / "model.safetensors",
    )
    weights = Weights(Folder(tmp_path), "")
    assert weights.find(["shared.weight"]) == "a.shared.weight"
    assert weights.find(["weight.shared"]) is None


def test_pickled_weights_give_the_same_tensor_and_run_nothing(tmp_path: Path) -> None:
    tensors = write_weights(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    name = "text_model.embeddings.token_embedding.weight"
    assert torch.equal(Weights(Folder(tmp_path), "").tensor(name), tensors[name])

    class Malicious:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "canary",)

    torch.save({name: Malicious()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelFilesError, match="did not open as tensors only"):
        Weights(Folder(tmp_path), "").tensor(name)
    assert not (tmp_path / "canary").exists()


def test_shards_are_followed_through_the_index(tmp_path: Path) -> None:
    save_file({"a.weight": torch.ones(2)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"b.weight": torch.zeros(3)}, tmp_path / "model-00002-of-00002.safetensors")
    index = {
        "weight_map": {
            "a.weight": "model-00001-of-00002.safetensors",
            "b.weight": "model-00002-of-00002.safetensors",
        }
    }
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    weights = Weights(Folder(tmp_path), "")
    assert weights.tensor("b.weight").tolist() == [0, 0, 0]
    assert weights.tensor("a.weight").tolist() == [1, 1]


def test_the_same_tensor_comes_out_as_the_safetensors_library_reads_it(sd15_folder: Path) -> None:
    file = sd15_folder / "text_encoder" / "model.safetensors"
    weights = Weights(Folder(sd15_folder), "text_encoder/")
    for name, expected in load_file(file).items():
        assert torch.equal(weights.tensor(name), expected)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is not a safetensors file"),
        (struct.pack("<Q", 1 << 62) + b"{}", "is not a safetensors file"),
        (struct.pack("<Q", 20) + b'{"a": 1', "header is broken"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelFilesError, match=said):
        Weights(Folder(tmp_path), "").files()


def header_file(tmp_path: Path, entry: dict[str, object], body: bytes) -> Weights:
    header = json.dumps({"w": entry}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + body)
    return Weights(Folder(tmp_path), "")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"dtype": "F32", "shape": [4, 2], "data_offsets": [0, 32]}, "truncated"),
        ({"dtype": "F32", "shape": [10**9, 2], "data_offsets": [0, 32]}, "contradicts itself"),
        ({"dtype": "F32", "shape": [4, 2], "data_offsets": [-32, 0]}, "describes no tensors"),
        ({"dtype": "F32", "shape": [4, "2"], "data_offsets": [0, 32]}, "describes no tensors"),
        ({"dtype": "F32"}, "describes no tensors"),
        ({"dtype": "I8", "shape": [4, 2], "data_offsets": [0, 8]}, "stored as I8"),
    ],
)
def test_a_lying_header_is_refused_before_memory_is_taken(
    tmp_path: Path, entry: dict[str, object], said: str
) -> None:
    with pytest.raises(ModelFilesError, match=said):
        header_file(tmp_path, entry, b"\0" * 16).tensor("w")


def test_a_folder_without_weights_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesError, match=r"Looked for model\.safetensors"):
        Weights(Folder(tmp_path), "").files()


HOLLOW: list[dict[str, object]] = [
    {"dtype": "F32", "shape": [2, 2], "data_offsets": [-16, 0]},
    {"dtype": "F32", "shape": [-1, -4], "data_offsets": [0, 16]},
    {"dtype": "F32", "shape": [2, 2], "data_offsets": [16, 0]},
    {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16, 32]},
    {"dtype": "F32", "shape": [2, 2], "data_offsets": [0.0, 16.0]},
    {"dtype": "F32", "shape": [2**70], "data_offsets": [0, 16]},
    {"dtype": "F32", "shape": [1] * 60_000, "data_offsets": [0, 4]},
    {"dtype": "F32", "shape": "4", "data_offsets": [0, 16]},
    {"dtype": ["F32"], "shape": [2, 2], "data_offsets": [0, 16]},
    {"dtype": "F32", "data_offsets": [0, 16]},
    {},
]


@pytest.mark.parametrize("entry", HOLLOW)
def test_a_header_that_cannot_be_true_is_refused(tmp_path: Path, entry: dict[str, object]) -> None:
    weights = header_file(tmp_path, entry, b"\0" * 16)
    with pytest.raises(ModelFilesError, match=r"contradicts itself on w|describes no tensors"):
        weights.tensor("w")


def test_the_dtype_of_a_file_is_not_taken_from_an_entry_that_cannot_be_true(tmp_path: Path) -> None:
    weights = header_file(tmp_path, HOLLOW[0], b"")
    with pytest.raises(ModelFilesError, match=r"contradicts itself on w|describes no tensors"):
        stored_dtype(weights.source, "model.safetensors")


def test_a_tensor_of_20_gigabytes_is_not_asked_for(tmp_path: Path) -> None:
    entry: dict[str, object]
    entry = {"dtype": "F32", "shape": [5 * 2**30], "data_offsets": [0, 20 * 2**30]}
    with pytest.raises(ModelFilesError, match=f"would have {20 * 2**30} bytes"):
        header_file(tmp_path, entry, b"").tensor("w")


def test_a_deep_header_is_broken(tmp_path: Path) -> None:
    header = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ModelFilesError, match="header is broken"):
        Weights(Folder(tmp_path), "").files()
