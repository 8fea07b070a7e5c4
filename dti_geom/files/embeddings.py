"""Learned embeddings in every layout that other tools save them in."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dti_geom.errors import EmbeddingFileError
from dti_geom.files.containers import decode, read_bytes
from dti_geom.files.pickles import ParameterDict
from dti_geom.files.refusals import (
    EXPECTED,
    MAX_TENSORS,
    MAX_VALUES,
    ONCE,
    Refused,
    clean,
    plain_values,
    shown,
)

SUFFIXES = (".bin", ".pt", ".safetensors")
MAX_TOWERS = 4  # of one token; a list of a million references to one tensor takes few bytes
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

Entry = tuple[Any, str | None, Any]  # token, tower, tensor: as found, not yet checked


@dataclass(frozen=True)
class LearnedToken:
    """The vectors of one token for one text encoder."""

    token: str
    tower: str | None  # as the file says: "clip_l", "clip_g", …, or "1", "2" by position in a list
    vectors: Tensor  # (n, d), n ≥ 1, dtype as stored, finite, on the CPU, without gradient


@dataclass(frozen=True)
class EmbeddingFile:
    """What one embedding file holds."""

    path: Path
    format: str  # a name in LAYOUTS
    tokens: tuple[LearnedToken, ...]
    step: int | None  # of the training run, where stored
    metadata: dict[str, str]  # the safetensors header, or the plain values beside the tensors


def read_embeddings(path: str | Path) -> EmbeddingFile:
    """Read an embedding file in any of the LAYOUTS. Nothing in it is executed.

    Raises EmbeddingFileError with one line: what the file is instead, or what is wrong with it, and what to do.
    """
    path = Path(path)
    try:
        content, header = decode(read_bytes(path))
        metadata = header | plain_values(content)
        layout, entries = _entries(content, _stored_name(metadata) or path.stem)
        place = (
            header.get("tower") if header.get("tower") in ("1", "2") else None
        )  # as `write_embeddings` says it
        tokens = _learned_tokens(
            [(token, tower or place, value) for token, tower, value in entries]
        )
    except Refused as refused:
        raise EmbeddingFileError(
            f"{shown(str(path), 500)} {refused.found}. {refused.advice}"
        ) from refused
    return EmbeddingFile(path, layout, tokens, _step(metadata), metadata)


def find_embedding_files(path: str | Path) -> list[Path]:
    """The file itself, or the embedding files of a folder and its subfolders; step-250 comes before step-1000.

    Hidden files, and links that lead out of the folder, are left out.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            raise EmbeddingFileError(f"{shown(str(path), 500)} does not exist. {EXPECTED}")
        return [path]
    found: list[Path] = []
    for folder, subfolders, names in os.walk(path):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    inside = path.resolve()
    found = [file for file in found if file.suffix.lower() in SUFFIXES and file.is_file()]
    found = [file for file in found if file.resolve().is_relative_to(inside)]
    if not found:
        wanted = ", ".join(SUFFIXES)
        raise EmbeddingFileError(
            f"{shown(str(path), 500)} holds no file ending in {wanted}. {EXPECTED}"
        )
    return sorted(found, key=_natural)


# --- Layouts: a new one is a function, and a line in the table ---


def _tensors(content: Any) -> dict[Any, Tensor]:
    items = content.items() if isinstance(content, dict) else ()
    return {key: value for key, value in items if isinstance(value, Tensor)}


def _params(params: Any, name: str) -> list[Entry]:
    # "*" is the placeholder of every training prompt, not a name.
    items = params.items() if isinstance(params, dict) else ()
    return [(name if key == "*" else key, None, value) for key, value in items]


def _ldm(content: Any, name: str) -> list[Entry]:
    params = content.get("string_to_param") if isinstance(content, dict) else None
    return _params(params._parameters, name) if isinstance(params, ParameterDict) else []


def _web_ui(content: Any, name: str) -> list[Entry]:
    return _params(content.get("string_to_param"), name) if isinstance(content, dict) else []


def _emb_params(content: Any, name: str) -> list[Entry]:
    tensors = _tensors(content)
    return [(name, None, tensors["emb_params"])] if tensors.keys() == {"emb_params"} else []


def _sdxl(content: Any, name: str) -> list[Entry]:
    tensors = _tensors(content)
    known = tensors.keys() <= {"clip_l", "clip_g", "t5", "t5xxl"} and not tensors.keys() <= {
        "t5",
        "t5xxl",
    }
    return [(name, tower, tensor) for tower, tensor in tensors.items()] if known else []


def _two_tower(content: Any, name: str) -> list[Entry]:
    if (
        isinstance(content, list)
        and len(content) <= MAX_TOWERS
        and all(_tensors(tower) for tower in content)
    ):
        return [
            (token, str(place), value)
            for place, tower in enumerate(content, 1)
            for token, value in tower.items()
        ]
    items = content.items() if isinstance(content, dict) and not _tensors(content) else ()
    lists = [(token, values) for token, values in items if isinstance(values, list | tuple)]
    lists = [(token, values) for token, values in lists if len(values) <= MAX_TOWERS]
    return [
        (token, str(place), value)
        for token, values in lists
        for place, value in enumerate(values, 1)
    ]


def _diffusers(content: Any, name: str) -> list[Entry]:
    return [(token, None, tensor) for token, tensor in _tensors(content).items()]


# Each takes what a file holds, and a name for the token that has none there; it returns nothing for another layout.
LAYOUTS: dict[str, Callable[[Any, str], list[Entry]]] = {
    "ldm": _ldm,
    "web-ui": _web_ui,
    "emb_params": _emb_params,
    "sdxl": _sdxl,
    "two-tower": _two_tower,
    "diffusers": _diffusers,
}


def _entries(content: Any, name: str) -> tuple[str, list[Entry]]:
    _refuse_models(content)
    for layout, read in LAYOUTS.items():
        if entries := read(content, name):
            return layout, entries
    if isinstance(content, Tensor):
        raise Refused("holds a tensor without a token", "Save it as {token: tensor}.")
    keys = (
        ", ".join(key for key in content if isinstance(key, str))
        if isinstance(content, dict)
        else ""
    )
    raise Refused(
        f"holds a {type(content).__name__} ({shown(keys) or 'without keys'}), not tensors by token"
    )


def _refuse_models(content: Any) -> None:
    """Tell checkpoints and LoRA files, the usual mix-ups, by the names of their tensors."""
    nested = content.values() if isinstance(content, dict) else ()
    names = [str(name) for group in (content, *nested) for name in _tensors(group)]
    if any(re.search(r"lora\S*\.(weight|alpha)$", name, re.IGNORECASE) for name in names):
        raise Refused(f"holds {len(names)} tensors, looks like a LoRA")
    if len(names) > MAX_TENSORS or any(name.endswith((".weight", ".bias")) for name in names):
        raise Refused(f"holds {len(names)} tensors, looks like a checkpoint")


def _stored_name(metadata: dict[str, str]) -> str:
    names = (metadata.get(key, "").strip() for key in ("name", "token"))
    return next((name for name in names if name.strip("*")), "")


def _step(metadata: dict[str, str]) -> int | None:
    text = metadata.get("step", "")
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


# --- Vectors ---


def _learned_tokens(entries: list[Entry]) -> tuple[LearnedToken, ...]:
    # Counted before anything is copied: a stored stride of 0 makes gigabytes out of four bytes.
    if sum(value.numel() for _, _, value in entries if isinstance(value, Tensor)) > MAX_VALUES:
        raise Refused(f"holds more than {MAX_VALUES} values, looks like a checkpoint")
    tokens = tuple(
        LearnedToken(_token(token), tower, _vectors(token, value))
        for token, tower, value in entries
    )
    named = {(each.token, each.tower): each for each in tokens}
    if len(named) < len(tokens):
        raise Refused("names a token twice", ONCE)
    for each in tokens:
        # diffusers stores the further vectors of <x> as <x>_1, <x>_2, …
        first = named.get((re.sub(r"_\d+$", "", each.token), each.tower), each)
        width, other = first.vectors.shape[1], each.vectors.shape[1]
        if width != other:
            advice = "Expected one width, or a list with one tensor for each text encoder."
            raise Refused(
                f"holds vectors of widths {width} and {other} for {shown(first.token)}", advice
            )
    return tokens


def _token(token: Any) -> str:
    if not isinstance(token, str) or not token:
        raise Refused("holds a token without a name", "Expected text such as <my-token>.")
    return clean(token)


def _vectors(token: str, value: Any) -> Tensor:
    """The (n, d) tensor of a token, checked, in memory of its own."""
    name = shown(token)
    if not isinstance(value, Tensor):
        raise Refused(f"holds a {type(value).__name__} for {name}", "Expected a tensor.")
    if value.dtype not in DTYPES:
        raise Refused(
            f"holds {value.dtype} values for {name}",
            "Expected float16, bfloat16, float32 or float64.",
        )
    if value.dim() not in (1, 2) or not value.numel():
        raise Refused(
            f"holds shape {tuple(value.shape)} for {name}", "Expected (width,) or (vectors, width)."
        )
    vectors = (
        value.detach().clone(memory_format=torch.contiguous_format).reshape(-1, value.shape[-1])
    )
    broken = vectors.isfinite().logical_not().sum(dim=1)
    if broken.any():
        row = int(broken.nonzero()[0])
        found = f"is broken: vector {row} (from 0) of {name} has {broken[row]} values that are not finite"
        raise Refused(found, "Take an earlier file of the same training run.")
    return vectors


def _natural(path: Path) -> list[list[str | int]]:
    """A sorting key by which 2 comes before 10."""
    return [
        [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
        for name in path.parts
    ]
