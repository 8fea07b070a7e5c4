"""Single tensors out of weight files, reading no more than the tensor itself.

A safetensors file starts with a JSON header with the place of each tensor, so a tensor is a slice
of the file: a seek on disk, a range request on the Hub.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dti_geom.errors import ModelFilesError, first_line
from dti_geom.files.atomic import atomic_path
from dti_geom.files.refusals import shown
from dti_geom.models.sources import Source, first_existing, read_weight_map
from dti_geom.progress import Progress, silent

# In the order of search: what transformers itself prefers, then half precision, then pickles.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "model.fp16.safetensors",
    "model.safetensors.index.fp16.json",
    "model.bf16.safetensors",
    "model.safetensors.index.bf16.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# Bytes; the headers of all published text encoders fit. A longer one takes a second request.
_FIRST_READ = 1 << 17
_LONGEST_HEADER = 100_000_000  # the limit of the safetensors format itself
_LARGEST_TENSOR = 2**34  # bytes; the largest token table that is published has a quarter of it
_MAX_DIMENSIONS = 8


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies in a file, as its header says."""

    dtype: str
    shape: tuple[int, ...]
    start: int  # bytes after the header, as the next
    stop: int


@dataclass
class Weights:
    """The weight files of one encoder: `folder` inside `source`.

    given: the file to start from, where it is known. prefix: how the names of this encoder's
    tensors begin in a checkpoint, which holds other parts too; they are used without it.
    """

    source: Source
    folder: str
    given: str | None = None
    prefix: str = ""
    _headers: dict[str, tuple[dict[str, Any], int]] = field(default_factory=dict, repr=False)
    _pickles: dict[str, dict[str, Tensor]] = field(default_factory=dict, repr=False)

    @property
    def entry(self) -> str:
        """The file to start from: the weights, or the index of their shards."""
        if self.given is None:
            candidates = [self.folder + name for name in WEIGHT_FILES]
            self.given = first_existing(self.source, candidates)
        if self.given is None:
            raise ModelFilesError(
                f"{self.source.name}: no weights in '{self.folder or '.'}'. "
                f"Looked for {', '.join(WEIGHT_FILES)}."
            )
        return self.given

    def files(self) -> dict[str, str]:
        """Return every tensor's name and its file."""
        if self.entry.endswith(".json"):
            return read_weight_map(self.source, self.entry)
        names: Iterable[str]
        names = (
            self._pickle(self.entry) if self.entry.endswith(".bin") else self._header(self.entry)[0]
        )
        return dict.fromkeys(names, self.entry)

    def shards(self) -> list[str]:
        """Return the files of the tensors, in order, without opening them."""
        return sorted(set(self.files().values())) if self.entry.endswith(".json") else [self.entry]

    def find(self, endings: Iterable[str]) -> str | None:
        """Return the shortest tensor name with one of these endings, at a dot, or None."""
        names = self.files()
        for ending in endings:
            matches = [name for name in names if name == ending or name.endswith("." + ending)]
            if matches:
                return min(matches, key=len)
        return None

    def tensor(self, name: str, progress: Progress = silent) -> Tensor:
        """Return the tensor of that name, in its stored dtype.

        The result of a range request is kept under `cache_folder()`.
        """
        file = self.files()[name]
        if file.endswith(".bin"):
            return self._pickle(file)[name]
        identity = self.source.identity(file)
        if identity is None:
            return self._slice(file, name, progress)
        key = hashlib.sha256(f"{identity}/{name}".encode()).hexdigest()
        cached = cache_folder() / "tables" / f"{key}.safetensors"
        if not cached.exists():
            with atomic_path(cached, overwrite=True) as beside:
                save_file(
                    {"table": self._slice(file, name, progress)},
                    beside,
                    {"source": identity, "tensor": name},
                )
        return load_file(cached)["table"]

    def shape(self, name: str) -> torch.Size:
        """Return the shape of a tensor in a safetensors file, without reading it."""
        return torch.Size(self._place(self.files()[name], name).shape)

    def _slice(self, file: str, name: str, progress: Progress) -> Tensor:
        _, base = self._header(file)
        place = self._place(file, name)
        dtype = _DTYPES.get(place.dtype)
        if dtype is None:
            raise ModelFilesError(
                f"{file}: {name} is stored as {shown(place.dtype)}. "
                f"Expected one of {', '.join(_DTYPES)}; "
                "quantised weights have no geometry of their own, use the original ones."
            )
        size = place.stop - place.start
        if size != prod(place.shape) * dtype.itemsize:
            raise self._contradiction(file, name)
        if size > _LARGEST_TENSOR:
            raise ModelFilesError(
                f"{file}: {shown(name)} would have {size} bytes; expected at most "
                f"{_LARGEST_TENSOR}. Fetch the file again."
            )
        data = self.source.read(file, base + place.start, base + place.stop, progress)
        if len(data) != size:
            raise ModelFilesError(
                f"{file} ends inside {shown(name)}: it is truncated. Fetch the file again."
            )
        return torch.frombuffer(data, dtype=dtype).reshape(place.shape)

    def _place(self, file: str, name: str) -> _Place:
        """Return where a header says that a tensor lies."""
        header, _ = self._header(file)
        entry = header[name]
        start, stop = entry["data_offsets"]
        if start > stop or len(entry["shape"]) > _MAX_DIMENSIONS:
            raise self._contradiction(file, name)
        return _Place(entry["dtype"], tuple(entry["shape"]), start, stop)

    def _contradiction(self, file: str, name: str) -> ModelFilesError:
        return ModelFilesError(
            f"{file}: the header contradicts itself on {shown(name)}. Fetch the file again."
        )

    def _header(self, file: str) -> tuple[dict[str, Any], int]:
        """Return the header of a safetensors file, and the offset of its first tensor."""
        if file not in self._headers:
            data = self.source.read(file, 0, _FIRST_READ)
            length = int.from_bytes(data[:8], "little")
            if len(data) < 10 or data[8:9] != b"{" or length > _LONGEST_HEADER:
                raise ModelFilesError(
                    f"{self.source.name}: {file} is not a safetensors file. Fetch it again."
                )
            if len(data) < 8 + length:
                data += self.source.read(file, len(data), 8 + length)
            try:
                header = json.loads(data[8 : 8 + length])
            except (ValueError, RecursionError) as error:
                raise ModelFilesError(
                    f"{file}: the safetensors header is broken. Fetch the file again."
                ) from error
            header.pop("__metadata__", None)
            if not all(map(_is_entry, header.values())):
                raise ModelFilesError(
                    f"{file}: the safetensors header describes no tensors. Fetch the file again."
                )
            mine = {
                name.removeprefix(self.prefix): entry
                for name, entry in header.items()
                if name.startswith(self.prefix)
            }
            self._headers[file] = mine, 8 + length
        return self._headers[file]

    def _pickle(self, file: str) -> dict[str, Tensor]:
        if file not in self._pickles:
            path = self.source.local(file)
            try:  # mapped: only the pages of the asked tensor are read
                loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except Exception as error:
                raise ModelFilesError(
                    f"{path} did not open as tensors only ({first_line(error)}). Nothing else in "
                    "it was run. Save files of PyTorch before 1.6 again, or use the model's "
                    "safetensors weights."
                ) from error
            self._pickles[file] = {
                name: value for name, value in loaded.items() if isinstance(value, Tensor)
            }
        return self._pickles[file]


def _is_entry(entry: object) -> bool:
    """Whether a value of a header describes a tensor: its dtype, its shape, and its place."""
    if not isinstance(entry, dict):
        return False
    shape, place = entry.get("shape"), entry.get("data_offsets")
    if not (isinstance(shape, list) and isinstance(place, list) and len(place) == 2):
        return False
    return isinstance(entry.get("dtype"), str) and all(
        isinstance(number, int) and 0 <= number < 1 << 63 for number in (*shape, *place)
    )


def stored_dtype(source: Source, file: str) -> torch.dtype | None:
    """Return the dtype of a safetensors file's largest tensor; None for other files."""
    if not file.endswith(".safetensors"):
        return None
    weights = Weights(source, "")
    header, _ = weights._header(file)
    places = [weights._place(file, name) for name in header]
    largest = max(places, key=lambda place: place.stop - place.start, default=None)
    return None if largest is None else _DTYPES.get(largest.dtype)


def cache_folder() -> Path:
    """Return the folder of fetched token tables.

    DTI_GEOM_CACHE, else `dti-geom` in the user's cache folder.
    """
    if chosen := os.environ.get("DTI_GEOM_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dti-geom"
