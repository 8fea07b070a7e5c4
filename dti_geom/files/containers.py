"""The bytes of a file from an unknown source as plain Python values, checked and never executed.

The bytes decide what a file is, not its suffix.
"""

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor

from dti_geom.errors import first_line
from dti_geom.files.cards import PNG, read_card
from dti_geom.files.pickles import Storage, unpickle
from dti_geom.files.refusals import (
    EXPECTED,
    MAX_BYTES,
    MAX_HEADER,
    MAX_VALUES,
    ONCE,
    WHOLE,
    Refused,
    plain_values,
    shown,
)

BUNDLE = "bundle_emb."  # begins the names of embeddings that travel in a LoRA file
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # begins the files of torch before version 1.6
_KINDS = {  # by the first bytes, in lower case
    b"version https://git-lfs": ("is a Git LFS pointer", "Fetch the real file with git lfs pull."),
    b"<!doctype html": ("is a web page", "Download the file itself, not the page that shows it."),
    b"<html": ("is a web page", "Download the file itself, not the page that shows it."),
    b"\xff\xd8\xff": ("is an image", EXPECTED),
    b"riff": ("is an image or a sound", EXPECTED),
}


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a regular file of at most MAX_BYTES. Raises Refused.

    Of a LoRA file of any size that carries embeddings, the bytes of those alone, as a file.
    """
    if path.is_dir():
        raise Refused("is a folder", "Expected one file.")
    if not path.is_file():
        raise Refused("is not a regular file" if path.exists() else "does not exist")
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if bundle := _bundle_bytes(file, size):
                return bundle
            if size > MAX_BYTES:
                raise Refused(f"has {size / 2**20:.0f} MB, looks like a model checkpoint")
            file.seek(0)
            return file.read(size)  # read(MAX_BYTES) would allocate MAX_BYTES first
    except OSError as error:
        raise Refused(f"cannot be opened: {error.strerror}", "Expected a readable file.") from error


def _bundle_bytes(file: BinaryIO, size: int) -> bytes:
    """Return a safetensors file of the embeddings that a larger one carries; empty if it has none.

    Only the header and those embeddings are read.
    """
    start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    if start[8:] != b"{" or not 0 < length <= min(MAX_HEADER, size - 8):
        return b""
    file.seek(8)
    text = file.read(length)
    if f'"{BUNDLE}'.encode() not in text:
        return b""
    try:
        return _gathered(file, json.loads(text, object_pairs_hook=_without_repeats), 8 + length)
    except Refused:
        raise
    except Exception as error:  # any other exception means that the header is damaged
        raise Refused(f"is damaged or cut short ({shown(first_line(error))})", WHOLE) from error


def _gathered(file: BinaryIO, header: dict[str, Any], body: int) -> bytes:
    """Return a safetensors file of the bundled tensors. body: where the values begin."""
    kept: dict[str, Any] = {"__metadata__": header.get("__metadata__") or {}}
    values = b""
    for name, entry in header.items():
        if name.startswith(BUNDLE):
            begin, end = entry["data_offsets"]
            if not 0 <= begin <= end or len(values) + end - begin > 8 * MAX_VALUES:
                raise Refused(f"bundles more than {MAX_VALUES} values, looks like a checkpoint")
            file.seek(body + begin)
            kept[name] = entry | {"data_offsets": [len(values), len(values) + end - begin]}
            values += file.read(end - begin)
    text = json.dumps(kept).encode()
    return len(text).to_bytes(8, "little") + text + values


def parse(data: bytes) -> tuple[Any, dict[str, str]]:
    """Return the content of a file, and the metadata of a safetensors header. Raises Refused."""
    _refuse_other_kinds(data)
    try:
        if data[7:9] == b"\0{":  # safetensors: a header length of eight bytes, then JSON
            return _read_safetensors(data)
        if data.startswith(b"PK\3\4"):
            return _read_torch_zip(data), {}
        if data.startswith(b"\x80"):
            return _read_torch_legacy(data), {}
        if data.startswith(PNG):
            return read_card(data), {}
    except Refused:
        raise
    except Exception as error:  # any exception of a reader means that the file is damaged
        raise Refused(f"is damaged or cut short ({shown(first_line(error))})", WHOLE) from error
    text = data[:40].decode("utf-8", "ignore")
    if text and all(character.isprintable() or character.isspace() for character in text):
        raise Refused(f"is text, beginning with “{shown(text)}”")
    raise Refused(f"is of no known kind, beginning with the bytes {data[:8].hex(' ')}")


def _refuse_other_kinds(data: bytes) -> None:
    if not data:
        raise Refused("is empty (0 bytes)", WHOLE)
    start = data[:64].lstrip().lower()
    for signature, (finding, advice) in _KINDS.items():
        if start.startswith(signature):
            raise Refused(finding, advice)


def _read_safetensors(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    length = int.from_bytes(data[:8], "little")
    if MAX_HEADER < length < len(data):
        raise Refused(f"has a header of {length} bytes, looks like a checkpoint")
    tensors = load_safetensors(data)
    header = json.loads(data[8 : 8 + length], object_pairs_hook=_without_repeats)
    metadata = plain_values(header.pop("__metadata__", None))
    # In the order of the header: that of the reader changes from run to run.
    return {key: tensors[key] for key in header}, metadata


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise Refused("names a token twice", ONCE)
    return dict(pairs)


def _read_torch_zip(data: bytes) -> Any:
    """Read what `torch.save` writes: a zip of `data.pkl` and a raw file for each storage."""
    members = _zip_members(data)
    _refuse_big_endian(members.get("byteorder") == b"big")
    storages: dict[str, Storage] = {}
    content = unpickle(io.BytesIO(members["data.pkl"]), storages, len(data))
    for key, storage in storages.items():
        _fill(storage, members[f"data/{key}"])
    return content


def _zip_members(data: bytes) -> dict[str, bytes]:
    """Return the members of a torch archive by name, without the name of its root folder."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = archive.infolist()
        sizes = {info.filename: info.file_size for info in infos}
        roots = (name.removesuffix("data.pkl") for name in sizes if name.endswith("/data.pkl"))
        root = next(roots, None)
        if root is None:
            raise Refused(
                f"is a zip archive of other files, such as {shown(next(iter(sizes), 'none'))}"
            )
        if f"{root}constants.pkl" in sizes:
            raise Refused("is a TorchScript program, which is never run here")
        # torch stores its members uncompressed and apart. Compressed or overlapping members could
        # unpack to far more bytes than the file has.
        compressed = any(info.compress_type for info in infos)
        repeated = len(sizes) < len(infos)
        if compressed or repeated or sum(sizes.values()) > len(data):
            raise Refused(
                "is a zip archive packed as torch never does, compressed or with files that overlap"
            )
        return {name.removeprefix(root): archive.read(name) for name in sizes}


def _read_torch_legacy(data: bytes) -> Any:
    """Read what `torch.save` wrote before version 1.6.

    Five pickles (magic number, protocol, machine, content, keys of storages), then raw storages.
    """
    stream = io.BytesIO(data)
    storages: dict[str, Storage] = {}
    if unpickle(stream, storages, len(data)) != _LEGACY_MAGIC:
        raise Refused("is a pickle, but not one that torch wrote")
    _, machine, content, keys = (unpickle(stream, storages, len(data)) for _ in range(4))
    _refuse_big_endian(machine.get("little_endian") is False)
    known = len(keys) == len(storages) and all(isinstance(key, str) for key in keys)
    if not known or sorted(keys) != sorted(storages):
        raise ValueError("its storages are not those that its tensors refer to")
    for key in keys:
        count = int.from_bytes(stream.read(8), "little")
        if count != len(storages[key].values):
            raise ValueError("a storage has another length than its tensors refer to")
        _fill(storages[key], stream.read(storages[key].values.nbytes))
    return content


def _fill(storage: Storage, data: bytes) -> None:
    """Copy the raw bytes of a storage into its values."""
    if len(data) != storage.values.nbytes:
        raise ValueError(f"a storage of {storage.values.nbytes} bytes has {len(data)}")
    if data:
        storage.values.view(torch.uint8).copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))


def _refuse_big_endian(big_endian: bool) -> None:
    if big_endian:
        raise Refused(
            "was written by a big-endian machine",
            "Expected little-endian values; save it again elsewhere.",
        )
