import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dti_geom.errors import EmbeddingFileError
from dti_geom.files import (
    EmbeddingFile,
    LearnedToken,
    find_embedding_files,
    read_embeddings,
    write_embeddings,
)
from dti_geom.files.embeddings import LAYOUTS
from dti_geom.files.refusals import MAX_BYTES

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SERIALIZATIONS = pytest.mark.parametrize("in_zip", [True, False], ids=["zip", "legacy"])


def vectors(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def save(content: object, path: Path, in_zip: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=in_zip)
    return path


def zipped(path: Path, pickled: bytes, storages: tuple[bytes, ...] = (), **options: Any) -> Path:
    """A file such as torch.save makes, around a pickle of our own."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
        for key, storage in enumerate(storages):
            archive.writestr(f"archive/data/{key}", storage)
    return path


def legacy(path: Path, pickled: bytes, storages: tuple[bytes, ...] = ()) -> Path:
    """The same in the order torch wrote before 1.6; the storages hold float32."""
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    head = b"".join(pickle.dumps(part, 2) for part in parts) + pickled
    keys = pickle.dumps([str(key) for key in range(len(storages))], 2)
    body = b"".join(struct.pack("<q", len(storage) // 4) + storage for storage in storages)
    path.write_bytes(head + keys + body)
    return path


class Storage:
    """Pickles as torch's reference to the storage of key "0"."""

    def __init__(self, count: int) -> None:
        self.count = count


class Rebuilt:
    """Pickles as a tensor of any claimed size and stride."""

    def __init__(self, count: int, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.arguments: tuple[Any, ...] = (Storage(count), 0, size, stride, False, OrderedDict())

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self.arguments


def tensor_pickle(
    count: int, size: tuple[int, ...], stride: tuple[int, ...], in_zip: bool = True
) -> bytes:
    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            if isinstance(value, Storage):
                return (
                    "storage",
                    torch.FloatStorage,
                    "0",
                    "cpu",
                    value.count,
                    *(() if in_zip else (None,)),
                )
            return None

    stream = io.BytesIO()
    Pickler(stream, 2).dump({"<x>": Rebuilt(count, size, stride)})
    return stream.getvalue()


def refusal(path: Path) -> str:
    with pytest.raises(EmbeddingFileError) as caught:
        read_embeddings(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.isprintable(), "the message is one line"
    return message


def check_token(
    file: EmbeddingFile, index: int, token: str, tower: str | None, stored: Tensor
) -> None:
    found = file.tokens[index]
    assert (found.token, found.tower) == (token, tower)
    assert found.vectors.dtype == stored.dtype
    assert not found.vectors.requires_grad
    assert found.vectors.dim() == 2
    assert torch.equal(found.vectors, stored.reshape(found.vectors.shape))


# --- Layouts ---


@SERIALIZATIONS
@pytest.mark.parametrize("dtype", DTYPES)
def test_diffusers_bin_files_read_back_bit_for_bit(
    tmp_path: Path, dtype: torch.dtype, in_zip: bool
) -> None:
    first, second = vectors(768, dtype=dtype), vectors(3, 768, seed=1, dtype=dtype)
    file = read_embeddings(save({"<cat>": first, "<dog>": second}, tmp_path / "two.bin", in_zip))
    assert (file.format, file.step, file.metadata, len(file.tokens)) == ("diffusers", None, {}, 2)
    check_token(file, 0, "<cat>", None, first)
    check_token(file, 1, "<dog>", None, second)


@pytest.mark.parametrize("dtype", DTYPES)
def test_diffusers_safetensors_files_read_back_bit_for_bit_with_their_header(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    first, second = vectors(2, 768, dtype=dtype), vectors(1024, seed=1, dtype=dtype)
    save_file(
        {"<cat>": first, "<dog>": second},
        tmp_path / "two.safetensors",
        {"format": "pt", "step": "500"},
    )
    file = read_embeddings(tmp_path / "two.safetensors")
    assert (file.format, file.step, file.metadata) == (
        "diffusers",
        500,
        {"format": "pt", "step": "500"},
    )
    check_token(file, 0, "<cat>", None, first)
    check_token(file, 1, "<dog>", None, second)


def test_safetensors_tokens_keep_the_order_of_the_file(tmp_path: Path) -> None:
    names = [f"<{letter}>" for letter in "abcdefgh"]
    save_file({name: vectors(8) for name in reversed(names)}, tmp_path / "x.safetensors")
    for _ in range(3):
        assert [
            token.token for token in read_embeddings(tmp_path / "x.safetensors").tokens
        ] == names


def test_the_numbered_vectors_of_a_diffusers_token_stay_as_stored(tmp_path: Path) -> None:
    content = {"<x>": vectors(768), "<x>_1": vectors(768, seed=1), "<x>_2": vectors(768, seed=2)}
    file = read_embeddings(save(content, tmp_path / "x.bin"))
    assert [token.token for token in file.tokens] == ["<x>", "<x>_1", "<x>_2"]


@SERIALIZATIONS
def test_web_ui_files_give_their_name_step_and_checkpoint(tmp_path: Path, in_zip: bool) -> None:
    stored = vectors(8, 1024)
    content = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": stored},
        "name": "doll",
        "step": 249,
        "sd_checkpoint": "4bdfc29c",
        "sd_checkpoint_name": None,
    }
    file = read_embeddings(save(content, tmp_path / "file.pt", in_zip))
    assert (file.format, file.step) == ("web-ui", 249)
    assert file.metadata == {"name": "doll", "step": "249", "sd_checkpoint": "4bdfc29c"}
    check_token(file, 0, "doll", None, stored)


@pytest.mark.parametrize("name", ["*", "", " ", None, 7.5])
def test_a_web_ui_file_without_a_usable_name_is_called_as_the_file_is(
    tmp_path: Path, name: Any
) -> None:
    content = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": vectors(8)},
        "name": name,
        "step": None,
    }
    file = read_embeddings(save(content, tmp_path / "doll-v2.pt"))
    assert file.step is None
    assert file.tokens[0].token == ("7.5" if name == 7.5 else "doll-v2")


@pytest.mark.parametrize("step", ["many", "²", -1, 2.5, 10**30])
def test_a_step_that_is_no_count_is_left_in_the_metadata(tmp_path: Path, step: Any) -> None:
    file = read_embeddings(save({"<x>": vectors(8), "step": step}, tmp_path / "x.bin"))
    assert (file.step, file.metadata) == (None, {"step": str(step)})


@SERIALIZATIONS
def test_latent_diffusion_files_with_a_parameter_dict_open_without_its_code(
    tmp_path: Path, in_zip: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = vectors(10, 768)
    params = torch.nn.ParameterDict(
        {"*": torch.nn.Parameter(stored), "<y>": torch.nn.Parameter(vectors(768, seed=1))}
    )
    content = {
        "string_to_token": {"*": torch.tensor(265), "<y>": torch.tensor(7)},
        "string_to_param": params,
    }
    path = save(content, tmp_path / "vases.pt", in_zip)
    monkeypatch.setattr(
        torch.nn.ParameterDict, "__setstate__", lambda *_: pytest.fail("code of torch.nn ran")
    )
    file = read_embeddings(path)
    assert (file.format, len(file.tokens)) == ("ldm", 2)
    check_token(file, 0, "vases", None, stored)
    check_token(file, 1, "<y>", None, vectors(1, 768, seed=1))


def test_an_emb_params_file_is_called_as_the_file_is(tmp_path: Path) -> None:
    stored = vectors(4, 768, dtype=torch.float16)
    save_file({"emb_params": stored}, tmp_path / "easy.safetensors")
    file = read_embeddings(tmp_path / "easy.safetensors")
    assert file.format == "emb_params"
    check_token(file, 0, "easy", None, stored)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_sdxl_files_name_their_towers(tmp_path: Path, suffix: str) -> None:
    tensors = {"clip_g": vectors(2, 1280), "clip_l": vectors(2, 768, seed=1)}
    path = tmp_path / f"watercolour{suffix}"
    if suffix == ".pt":
        save(tensors, path)
    else:
        save_file(tensors, path)
    file = read_embeddings(path)
    assert file.format == "sdxl"
    by_tower = {token.tower: token for token in file.tokens}
    assert {token.token for token in file.tokens} == {"watercolour"}
    assert torch.equal(by_tower["clip_l"].vectors, tensors["clip_l"])
    assert torch.equal(by_tower["clip_g"].vectors, tensors["clip_g"])


def test_an_sdxl_file_may_store_the_token_in_its_header(tmp_path: Path) -> None:
    save_file(
        {"clip_l": vectors(768), "clip_g": vectors(1280)},
        tmp_path / "a.safetensors",
        {"name": "<toy>"},
    )
    assert {token.token for token in read_embeddings(tmp_path / "a.safetensors").tokens} == {
        "<toy>"
    }


@SERIALIZATIONS
@pytest.mark.parametrize("kind", ["lists", "tuples", "dicts"])
def test_two_tower_lists_number_their_towers(tmp_path: Path, kind: str, in_zip: bool) -> None:
    small, large = vectors(768), vectors(2, 1280, seed=1)
    contents = {
        "lists": {"<x>": [small, large]},
        "tuples": {"<x>": (small, large)},
        "dicts": [{"<x>": small}, {"<x>": large}],
    }
    file = read_embeddings(save(contents[kind], tmp_path / "x.bin", in_zip))
    assert (file.format, len(file.tokens)) == ("tower list" if kind == "dicts" else "two-tower", 2)
    check_token(file, 0, "<x>", "1", small)
    check_token(file, 1, "<x>", "2", large)


def test_the_bytes_decide_and_not_the_suffix(tmp_path: Path) -> None:
    stored = vectors(768)
    save_file({"<x>": stored}, tmp_path / "really.safetensors")
    (tmp_path / "really.safetensors").rename(tmp_path / "x.bin")
    save({"<x>": stored}, tmp_path / "x.safetensors")
    for name in ("x.bin", "x.safetensors"):
        check_token(read_embeddings(str(tmp_path / name)), 0, "<x>", None, stored)


def test_a_parameter_on_a_large_storage_comes_back_small_and_without_gradient(
    tmp_path: Path,
) -> None:
    table = torch.nn.Parameter(vectors(100, 8))
    file = read_embeddings(save({"<x>": table[7]}, tmp_path / "x.bin"))
    check_token(file, 0, "<x>", None, table[7].detach())
    assert file.tokens[0].vectors.untyped_storage().nbytes() == 8 * 4


def test_a_transposed_tensor_reads_in_the_right_order(tmp_path: Path) -> None:
    stored = vectors(8, 3).T
    check_token(read_embeddings(save({"<x>": stored}, tmp_path / "x.bin")), 0, "<x>", None, stored)


def test_a_zero_vector_is_left_to_geometry(tmp_path: Path) -> None:
    assert (
        not read_embeddings(save({"<x>": torch.zeros(8)}, tmp_path / "x.bin"))
        .tokens[0]
        .vectors.any()
    )


def test_token_text_that_no_file_can_hold_is_replaced(tmp_path: Path) -> None:
    tokens = read_embeddings(save({"<x\ud800>": vectors(8)}, tmp_path / "x.bin")).tokens
    assert tokens[0].token == "<x?>"


# --- Keys of encoders ---


@pytest.mark.parametrize(
    ("layout", "keys"),
    [
        ("comfyui", {"clip_g": "clip_g"}),
        ("comfyui", {"clip_l": "clip_l", "clip_g": "clip_g", "t5xxl": "t5xxl"}),
        ("comfyui", {"qwen25_7b": "qwen25_7b"}),
        ("onetrainer", {"clip_l": "clip_l", "t5": "t5xxl"}),
        ("onetrainer", {"gemma": "gemma2_2b"}),
        ("onetrainer", {"clip_l": "clip_l", "clip_g": "clip_g", "t5": "t5xxl", "llama": "llama"}),
        ("pivotal", {"text_encoders_0": "clip_l", "text_encoders_1": "clip_g"}),
        ("comfyui", {"emb": "clip_l", "emb2": "clip_g"}),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_the_keys_of_encoders_are_no_tokens(
    tmp_path: Path, layout: str, keys: dict[str, str], suffix: str
) -> None:
    tensors = {key: vectors(2, 8 + 4 * place) for place, key in enumerate(keys)}
    path = tmp_path / f"watercolour{suffix}"
    if suffix == ".pt":
        save(tensors, path)
    else:
        save_file(tensors, path)
    file = read_embeddings(path)
    assert file.format == layout
    assert {token.token for token in file.tokens} == {"watercolour"}
    found = {token.tower: token.vectors for token in file.tokens}
    assert found.keys() == set(keys.values())
    assert all(torch.equal(found[keys[key]], tensor) for key, tensor in tensors.items())


@pytest.mark.parametrize("key", ["emb_params", "emp_params", "emb"])
def test_a_file_of_one_tensor_under_a_fixed_name_is_called_as_the_file_is(
    tmp_path: Path, key: str
) -> None:
    save_file({key: vectors(2, 8)}, tmp_path / "doll.safetensors")
    file = read_embeddings(tmp_path / "doll.safetensors")
    assert (file.format, file.outputs) == ("emb_params", ())
    check_token(file, 0, "doll", None, vectors(2, 8))


@pytest.mark.parametrize("key", ["emp_params", "clip_l"])
def test_vectors_behind_an_encoder_are_kept_apart_from_the_token(tmp_path: Path, key: str) -> None:
    save_file({key: vectors(2, 8), f"{key}_out": vectors(2, 8, seed=1)}, tmp_path / "x.safetensors")
    file = read_embeddings(tmp_path / "x.safetensors")
    assert [token.tower for token in file.tokens] == ["clip_l" if key == "clip_l" else None]
    (output,) = file.outputs
    assert (output.token, output.tower) == ("x", "clip_l_out")
    assert torch.equal(output.vectors, vectors(2, 8, seed=1))
    save_file({"clip_l_out": vectors(2, 8)}, tmp_path / "y.safetensors")
    assert "no token" in refusal(tmp_path / "y.safetensors")


def bundled(path: Path, values: int = 8) -> Path:
    """A LoRA that carries two embeddings, of which one has two encoders."""
    lora = {f"lora_unet_{place}.lora_up.weight": torch.zeros(values) for place in range(600)}
    tensors = {
        "bundle_emb.<x>.clip_l": vectors(2, 8),
        "bundle_emb.<x>.clip_g": vectors(2, 12, seed=1),
        "bundle_emb.a.dog.string_to_param.*": vectors(8, seed=2),
    }
    save_file(lora | tensors, path)
    return path


@pytest.mark.parametrize("values", [8, 2**15])
def test_the_embeddings_that_a_lora_carries_are_read_without_the_lora(
    tmp_path: Path, values: int
) -> None:
    path = bundled(tmp_path / "lora.safetensors", values)
    assert (path.stat().st_size > MAX_BYTES) == (values > 8)
    file = read_embeddings(path)
    assert file.format == "bundle"
    found = {(token.token, token.tower): token.vectors for token in file.tokens}
    assert found.keys() == {("<x>", "clip_l"), ("<x>", "clip_g"), ("a.dog", None)}
    assert torch.equal(found["<x>", "clip_g"], vectors(2, 12, seed=1))
    assert torch.equal(found["a.dog", None], vectors(8, seed=2)[None])


def test_a_bundle_whose_header_lies_is_refused(tmp_path: Path) -> None:
    entries: list[Any] = [
        {"dtype": "F32", "shape": [8], "data_offsets": [0, 2**40]},
        {"dtype": "F32", "shape": [8], "data_offsets": [-8, 24]},
        {"dtype": "F32", "shape": [8], "data_offsets": [8, 40]},
        {"dtype": "F32", "shape": [8]},
        [],
    ]
    for entry in entries:
        header = json.dumps({"bundle_emb.<x>.clip_l": entry}).encode()
        (tmp_path / "x.safetensors").write_bytes(
            struct.pack("<Q", len(header)) + header + bytes(32)
        )
        refusal(tmp_path / "x.safetensors")


def test_a_tensor_without_a_name_needs_one(tmp_path: Path) -> None:
    path = save(vectors(2, 8), tmp_path / "x.pt")
    assert "--token" in refusal(path)
    check_token(read_embeddings(path, "<x>"), 0, "<x>", None, vectors(2, 8))
    named = save({"<y>": vectors(8)}, tmp_path / "y.pt")
    check_token(read_embeddings(named, "<x>"), 0, "<y>", None, vectors(8))


def test_the_name_that_a_tool_stores_for_want_of_one_is_no_name(tmp_path: Path) -> None:
    content = {"string_to_param": {"*": vectors(8)}, "name": "_EmbeddingMerge_temp"}
    file = read_embeddings(save(content, tmp_path / "doll.pt"))
    assert file.tokens[0].token == "doll"


# --- Files that would run code ---


class Evil:
    """Pickles as a call, which plain unpickling would make."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def attacks(canary: Path) -> dict[str, tuple[object, str]]:
    touch = f"open({str(canary)!r}, 'w').close()"
    return {
        "system": (Evil(os.system, f"touch {canary}"), f"{os.system.__module__}.system"),
        "eval": ({"<x>": Evil(eval, touch)}, "eval"),
        "exec": ([{"<x>": (Evil(exec, touch),)}], "exec"),
        "open": ({"<x>": Evil(io.open, str(canary), "w")}, "io.open"),
        "getattr": ({"<x>": Evil(getattr, "", "strip")}, "getattr"),
        "torch": ({"<x>": Evil(torch.load, str(canary))}, "torch.serialization.load"),
        "bytearray": ({"<x>": Evil(bytearray, 2**31)}, "bytearray"),
        "numpy": ({"<x>": np.float64(1)}, "numpy"),
    }


@pytest.mark.parametrize("name", list(attacks(Path())))
@pytest.mark.parametrize("wrap", ["plain", "zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_nothing_in_a_pickle_is_executed_and_the_refused_name_is_told(
    tmp_path: Path, name: str, wrap: str, protocol: int
) -> None:
    canary = tmp_path / "canary"
    content, named = attacks(canary)[name]
    pickled = pickle.dumps(content, protocol)
    path = tmp_path / "evil.pt"
    writers: dict[str, Callable[[Path, bytes], Any]]
    writers = {"plain": Path.write_bytes, "zip": zipped, "legacy": legacy}
    writers[wrap](path, pickled)
    message = refusal(path)
    assert f"{named}" in message
    assert message.endswith(
        "which is not among the few types an embedding may hold. It was not opened further."
    )
    assert not canary.exists()


def test_the_canary_of_these_tests_does_sing(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    pickle.loads(pickle.dumps(attacks(canary)["eval"][0]))  # noqa: S301 - shows what reading must not do
    assert canary.exists()


def test_code_in_a_pickle_of_the_oldest_protocol_is_only_text(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    path = tmp_path / "old.pt"
    path.write_bytes(f"cposix\nsystem\n(S'touch {canary}'\ntR.".encode())
    assert "is text, beginning with “cposix" in refusal(path)
    assert not canary.exists()


def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.pt", pickle.dumps({}, 2))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/constants.pkl", pickle.dumps((), 2))
    assert "TorchScript" in refusal(path)


# --- Files that would fill the memory, or break the reader ---


@SERIALIZATIONS
def test_a_storage_larger_than_the_file_is_refused_before_it_is_made(
    tmp_path: Path, in_zip: bool
) -> None:
    pickled = tensor_pickle(10**9, (8,), (1,), in_zip)
    write = zipped if in_zip else legacy
    assert "claims 4000000000 bytes" in refusal(write(tmp_path / "x.bin", pickled, (bytes(32),)))


@SERIALIZATIONS
def test_a_tensor_larger_than_its_storage_is_refused(tmp_path: Path, in_zip: bool) -> None:
    pickled = tensor_pickle(8, (10**9,), (1,), in_zip)
    write = zipped if in_zip else legacy
    assert "is damaged" in refusal(write(tmp_path / "x.bin", pickled, (bytes(32),)))


@pytest.mark.parametrize(
    ("shape", "stride"),
    [
        ((2**62, 2**62), (0, 0)),
        ((2, 2), (2**62, 2**62)),
        ((2,), (2**63 - 1,)),
        ((-1,), (1,)),
        ((8,), (-1,)),
        ((9,), (1,)),
    ],
)
def test_shapes_and_strides_that_overflow_or_reach_beyond_are_refused(
    tmp_path: Path, shape: Any, stride: Any
) -> None:
    refusal(zipped(tmp_path / "x.bin", tensor_pickle(8, shape, stride), (bytes(32),)))


@SERIALIZATIONS
def test_one_number_spread_over_a_large_shape_is_never_copied(tmp_path: Path, in_zip: bool) -> None:
    pickled = tensor_pickle(1, (10**9,), (0,), in_zip)
    write = zipped if in_zip else legacy
    assert "more than 2097152 values" in refusal(write(tmp_path / "x.bin", pickled, (bytes(4),)))


def test_the_hand_made_files_of_these_tests_open_when_they_are_honest(tmp_path: Path) -> None:
    stored = vectors(2, 4)
    for in_zip, write in ((True, zipped), (False, legacy)):
        pickled = tensor_pickle(8, (2, 4), (4, 1), in_zip)
        check_token(
            read_embeddings(write(tmp_path / "x.bin", pickled, (stored.numpy().tobytes(),))),
            0,
            "<x>",
            None,
            stored,
        )


BOMB = b")q\x00" + b"h\x00\x86q\x00" * 60  # a tuple of two of a tuple of two …: 2^60 leaves to hash
TEXT = b"X\x07\0\0\0storage"


@pytest.mark.parametrize("wrap", [zipped, legacy])
@pytest.mark.parametrize(
    "body",
    [
        b"}" + BOMB + b"K\x01s.",
        b"}(" + BOMB + b"K\x01u.",
        b"c__builtin__\nset\n" + BOMB + b"\x85R.",
        b"c__builtin__\nset\n]" + BOMB + b"a\x85R.",
        b"ccollections\nOrderedDict\n" + BOMB + b"K\x01\x86\x85\x85R.",
        b"ccollections\nOrderedDict\n)R" + BOMB + b"K\x01\x86\x85b.",
        b"(" + TEXT + BOMB + TEXT + TEXT + b"K\x01tQ.",
        b"(" + TEXT + b"ctorch\nFloatStorage\n" + BOMB + TEXT + b"K\x01tQ.",
        b"("
        + TEXT
        + b"ctorch\nFloatStorage\n"
        + TEXT
        + TEXT
        + b"K\x01"
        + BOMB
        + b"K\x01K\x01\x87tQ.",
        BOMB + b")R.",  # as a function, which torch would print
        b"ccollections\nOrderedDict\n)R" + TEXT + BOMB + b"s)R.",
        b"})" + b"\x85" * 100_000 + b"K\x01s.",  # deeper than the stack
    ],
)
def test_nested_tuples_are_never_hashed(tmp_path: Path, wrap: Any, body: bytes) -> None:
    message = refusal(wrap(tmp_path / "x.bin", b"\x80\x02" + body))
    reasons = (
        "a key that is neither",
        "a storage like none",
        "a call of a value that is not a function",
        "not tensors by token",
    )
    assert any(reason in message for reason in reasons)


@pytest.mark.parametrize("body", [b"]" + BOMB + b"a.", BOMB + b"\x85."])
def test_storage_keys_of_nested_tuples_are_refused(tmp_path: Path, body: bytes) -> None:
    path = legacy(tmp_path / "x.bin", tensor_pickle(8, (8,), (1,), in_zip=False))
    path.write_bytes(path.read_bytes().removesuffix(pickle.dumps([], 2)) + b"\x80\x02" + body)
    assert "not those that its tensors refer to" in refusal(path)


@pytest.mark.parametrize(
    ("size", "compression"), [(2**24, zipfile.ZIP_DEFLATED), (32, zipfile.ZIP_LZMA)]
)
def test_a_compressed_zip_is_refused_before_it_is_unpacked(
    tmp_path: Path, size: int, compression: Any
) -> None:
    path = zipped(
        tmp_path / "x.bin", tensor_pickle(8, (8,), (1,)), (bytes(size),), compression=compression
    )
    assert "packed as torch never does" in refusal(path)


def test_a_zip_whose_files_overlap_or_share_a_name_is_refused(tmp_path: Path) -> None:
    pickled = tensor_pickle(8, (8,), (1,))
    path = zipped(tmp_path / "x.bin", pickled, (bytes(32),))
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data.pkl", pickled)
    assert "packed as torch never does" in refusal(path)
    data = bytearray(zipped(path, pickled, (bytes(32),)).read_bytes())
    last = data.rindex(
        b"PK\1\2"
    )  # the entry of data/0 in the directory, which now claims 16 MB of plain bytes
    data[last + 20 : last + 28] = struct.pack("<II", 2**24, 2**24)
    path.write_bytes(data)
    assert "packed as torch never does" in refusal(path)


def test_a_long_pickle_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dti_geom.files.pickles.MAX_PICKLE", 1000)
    for wrap in (zipped, legacy):
        path = wrap(tmp_path / "x.bin", b"\x80\x02" + b"N" * 1000 + b".")
        assert "has more than 1000 bytes of pickle, looks like a checkpoint" in refusal(path)


def test_a_storage_of_negative_size_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.bin", tensor_pickle(-8, (1,), (1,)), (bytes(32),))
    assert "a storage like none of torch's" in refusal(path)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_newer_protocols_of_pickle_are_read_too(tmp_path: Path, protocol: int) -> None:
    stored = vectors(2, 4)
    torch.save({"<x>": stored, "step": 7}, tmp_path / "x.bin", pickle_protocol=protocol)
    file = read_embeddings(tmp_path / "x.bin")
    check_token(file, 0, "<x>", None, stored)
    assert file.step == 7


def test_an_instruction_that_no_file_of_tensors_has_is_named(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.bin", pickle.dumps({"<x>": b"bytes"}, 4))
    assert "has the pickle instruction SHORT_BINBYTES" in refusal(path)


def test_many_references_to_one_tensor_are_not_followed(tmp_path: Path) -> None:
    tensor = vectors(8)
    assert "not tensors by token" in refusal(save({"<x>": [tensor] * 9999}, tmp_path / "x.bin"))
    assert "not tensors by token" in refusal(save([{"<x>": tensor}] * 9999, tmp_path / "x.bin"))


def test_a_storage_is_filled_once_and_whole(tmp_path: Path) -> None:
    pickled = tensor_pickle(8, (8,), (1,), in_zip=False)
    path = legacy(tmp_path / "x.bin", pickled, (bytes(32),))
    path.write_bytes(path.read_bytes().replace(pickle.dumps(["0"], 2), pickle.dumps(["0", "0"], 2)))
    assert "not those that its tensors refer to" in refusal(path)
    assert "a storage of 32 bytes has 28" in refusal(
        zipped(path, tensor_pickle(8, (8,), (1,)), (bytes(28),))
    )


def test_values_of_a_big_endian_machine_are_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.bin", tensor_pickle(8, (8,), (1,)), (bytes(32),))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/byteorder", "big")
    assert "a big-endian machine" in refusal(path)


# --- Files that are something else ---


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "nothing.bin")
    assert "is a folder" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "is empty (0 bytes)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3819\n", "git lfs pull"),
        (b"\n <!DOCTYPE html>\n<html><body>Sign in</body></html>", "is a web page"),
        (b"Repository not found", "is text, beginning with “Repository not found”"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is an image"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "is an image"),
        (b"\0\1\2\3\4\5\6\7", "is of no known kind"),
        (struct.pack("<Q", 10**15) + b"{}", "header too large"),
        (struct.pack("<Q", 90_000_000) + b"{}", "is damaged or cut short"),
        (pickle.dumps({"a": 1}, 2), "is a pickle, but not one that torch wrote"),
    ],
)
def test_a_file_that_is_no_embedding_says_what_it_is_instead(
    tmp_path: Path, data: bytes, expected: str
) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(data)
    assert expected in refusal(path)


def test_other_archives_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("photo.jpg", b"")
    assert "a zip archive of other files, such as photo.jpg" in refusal(tmp_path / "x.pt")
    with tarfile.open(tmp_path / "y.pt", "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    refusal(tmp_path / "y.pt")


def test_a_file_above_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with open(path, "wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert "has 64 MB, looks like a model checkpoint" in refusal(path)


def test_an_unreadable_file_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    path = save({"<x>": vectors(8)}, tmp_path / "x.bin")
    monkeypatch.setattr("builtins.open", refuse)
    assert "cannot be opened: Permission denied" in refusal(path)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_every_truncation_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.bin"
    if kind == "safetensors":
        save_file({"<x>": vectors(8)}, path)
    else:
        save({"<x>": vectors(8)}, path, in_zip=kind == "zip")
    data = path.read_bytes()
    for length in range(0, len(data) - 1, max(1, len(data) // 150)):
        path.write_bytes(data[:length])
        refusal(path)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            [f"model.diffusion_model.{place}.weight" for place in range(1133)],
            "holds 1133 tensors, looks like a checkpoint",
        ),
        ([f"<{place}>" for place in range(513)], "holds 513 tensors, looks like a checkpoint"),
        (["lora_unet_mid.lora_up.weight", "lora_unet_mid.alpha"], "looks like a LoRA"),
        (["base_model.q_proj.lora_A.weight"], "looks like a LoRA"),
    ],
)
def test_checkpoints_and_lora_files_are_recognised(
    tmp_path: Path, names: list[str], expected: str
) -> None:
    save_file({name: torch.zeros(1) for name in names}, tmp_path / "x.safetensors")
    assert expected in refusal(tmp_path / "x.safetensors")
    save({"state_dict": {name: torch.zeros(1) for name in names}}, tmp_path / "x.bin")
    assert expected in refusal(tmp_path / "x.bin")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, "holds a dict (without keys)"),
        ([], "holds a list"),
        ({"epoch": 3, "loss": 0.5}, "holds a dict (epoch, loss), not tensors by token"),
        (vectors(8), "holds a tensor without a token"),
        ({"<x>": torch.arange(8)}, "holds torch.int64 values for <x>"),
        ({"<x>": torch.zeros(2, 3, 4)}, "holds shape (2, 3, 4) for <x>"),
        ({"<x>": torch.tensor(1.0)}, "holds shape () for <x>"),
        ({"<x>": torch.zeros(0, 8)}, "holds shape (0, 8) for <x>"),
        ({3: vectors(8)}, "holds a token without a name"),
        ({"": vectors(8)}, "holds a token without a name"),
        ({"<x>": [vectors(8), None]}, "holds a NoneType for <x>"),
        ({"string_to_param": {"*": [1.0]}}, "holds a list for x"),
        ({"string_to_param": {}}, "not tensors by token"),
        ({"optimizer_state_dict": {"state": {}}}, "is the state of an optimiser"),
        ({"state": {0: {"exp_avg": vectors(8)}}, "param_groups": []}, "the state of an optimiser"),
        ({768: [{"linear.0.weight": vectors(8)}], "step": 3}, "is a hypernetwork"),
        ({"layer_structure": [1.0, 2.0], "step": 3}, "is a hypernetwork"),
        ({"<x>": vectors(8), "<x>_1": vectors(4)}, "holds vectors of widths 8 and 4 for <x>"),
        ({"<\x1b[31m\n>": torch.arange(8)}, r"for <\x1b[31m\n>"),
    ],
)
def test_content_that_is_no_embedding_is_described(
    tmp_path: Path, content: Any, expected: str
) -> None:
    assert expected in refusal(save(content, tmp_path / "x.bin"))


def test_three_dimensions_in_safetensors_are_refused(tmp_path: Path) -> None:
    save_file({"<x>": torch.zeros(2, 3, 4)}, tmp_path / "x.safetensors")
    assert "holds shape (2, 3, 4) for <x>" in refusal(tmp_path / "x.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_that_are_not_finite_are_counted(
    tmp_path: Path, value: Any, dtype: torch.dtype
) -> None:
    stored = vectors(4, 768, dtype=dtype)
    stored[2, :14] = value
    message = refusal(save({"<x>": stored}, tmp_path / "x.bin"))
    assert "vector 2 (from 0) of <x> has 14 values that are not finite" in message


def test_a_token_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    save({"string_to_param": {"*": vectors(8), "x": vectors(8)}}, tmp_path / "x.pt")
    assert "names a token twice" in refusal(tmp_path / "x.pt")
    twice = b"\x80\x02}(X\x01\0\0\0aK\x01X\x01\0\0\0aK\x02u."
    assert "names a token twice" in refusal(zipped(tmp_path / "y.pt", twice))
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = json.dumps({"<x>": entry})[:-1] + "," + json.dumps({"<x>": entry})[1:]
    (tmp_path / "z.safetensors").write_bytes(
        struct.pack("<Q", len(header)) + header.encode() + bytes(8)
    )
    assert "names a token twice" in refusal(tmp_path / "z.safetensors")


# --- Folders ---


def test_a_folder_gives_its_embeddings_in_natural_order(tmp_path: Path) -> None:
    for name in (
        "step-1000.bin",
        "step-250.bin",
        "b/x.PT",
        "b/x.safetensors",
        "notes.txt",
        ".hidden.bin",
        ".git/x.bin",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.bin").mkdir()
    found = [str(path.relative_to(tmp_path)) for path in find_embedding_files(tmp_path)]
    assert found == ["b/x.PT", "b/x.safetensors", "step-250.bin", "step-1000.bin"]


def test_links_that_leave_the_folder_are_not_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "x.bin").touch()
    (inside / "y.bin").symlink_to(outside / "x.bin")
    (inside / "z.bin").symlink_to("x.bin")
    (inside / "folder").symlink_to(outside)
    (inside / "round").symlink_to(inside)
    assert [path.name for path in find_embedding_files(inside)] == ["x.bin", "z.bin"]


def test_a_file_is_found_as_itself_whatever_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").touch()
    assert find_embedding_files(str(tmp_path / "x.ckpt")) == [tmp_path / "x.ckpt"]


def test_a_folder_without_embeddings_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        EmbeddingFileError, match=r"holds no file ending in \.bin, \.pt, \.safetensors"
    ):
        find_embedding_files(tmp_path)
    with pytest.raises(EmbeddingFileError, match="does not exist"):
        find_embedding_files(tmp_path / "nothing")


# --- Real files ---


def test_all_thirty_published_files_open(shared_data: Path) -> None:
    files = [read_embeddings(path) for path in find_embedding_files(shared_data / "embeddings")]
    formats = [file.format for file in files]
    assert {name: formats.count(name) for name in LAYOUTS if name in formats} == {
        "ldm": 5,
        "web-ui": 3,
        "diffusers": 22,
    }
    assert {token.vectors.shape[1] for file in files for token in file.tokens} == {768, 1024}
    assert {token.vectors.dtype for file in files for token in file.tokens} == {torch.float32}


def test_the_norm_grows_along_the_published_training_run(shared_data: Path) -> None:
    files = [
        read_embeddings(path)
        for path in find_embedding_files(shared_data / "embeddings" / "trajectory")
    ]
    norms = [float(file.tokens[0].vectors.norm()) for file in files]
    assert len(norms) == 20
    assert norms == sorted(norms)
    assert (norms[0], norms[-1]) == pytest.approx((0.461, 0.949), abs=5e-4)


def test_published_web_ui_files_tell_their_training(shared_data: Path) -> None:
    file = read_embeddings(shared_data / "embeddings" / "webui" / "dgtlv2-sd2.pt")
    assert (file.step, file.metadata["sd_checkpoint_name"]) == (10000, "v2-1_512-ema-pruned")
    assert file.tokens[0].token == "dgtlv2"
    assert file.tokens[0].vectors.shape == (12, 1024)


def test_published_latent_diffusion_files_hold_a_parameter_dict(shared_data: Path) -> None:
    for path in find_embedding_files(shared_data / "embeddings" / "ldm"):
        assert b"torch.nn.modules.container\nParameterDict" in path.read_bytes()
        file = read_embeddings(path)
        assert (file.format, file.tokens[0].token) == ("ldm", path.stem)


def test_a_runs_token_is_found_once_and_its_checkpoints_where_they_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "runs" / "dog"
    ended, earlier = run / "learned_embeds.safetensors", run / "checkpoints" / "step-000100"
    for folder in (run, earlier):
        write_embeddings(folder, [LearnedToken("<x>", "text_encoder", torch.ones(1, 4))])
    both = [earlier / "learned_embeds.safetensors", ended]
    assert find_embedding_files(tmp_path) == both  # any folder may be called checkpoints
    for name in ("config.json", "events.jsonl"):
        (run / name).touch()
    assert caplog.text == ""
    assert find_embedding_files(tmp_path / "runs") == [ended]
    assert f"left out the checkpoints of {run}" in caplog.text
    assert find_embedding_files(run / "checkpoints") == both[:1]
