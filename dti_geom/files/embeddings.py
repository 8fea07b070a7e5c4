"""Reading of embedding files, in every layout that other tools write."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dti_geom.errors import EmbeddingFileError
from dti_geom.files.containers import parse, read_bytes
from dti_geom.files.pickles import ParameterDict
from dti_geom.files.refusals import (
    EXPECTED,
    MAX_NAME,
    MAX_TENSORS,
    MAX_VALUES,
    ONCE,
    Refused,
    clean,
    plain_values,
    shown,
)
from dti_geom.files.run_layout import CHECKPOINTS, is_run
from dti_geom.progress import notice

SUFFIXES = (".bin", ".pt", ".safetensors")
# Text encoders of one token. A pickled list of a million references to one tensor is a small file.
MAX_TOWERS = 4
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

Entry = tuple[Any, str | None, Any]  # token, tower and tensor as stored, not yet checked


@dataclass(frozen=True)
class LearnedToken:
    """The vectors of one token for one text encoder."""

    token: str
    tower: str | None  # as the file says: "clip_l", "clip_g", …, or "1", "2" by position in a list
    vectors: Tensor  # (n, d), n ≥ 1, dtype as stored, finite, on the CPU, without gradient


@dataclass(frozen=True)
class EmbeddingFile:
    """The content of one embedding file."""

    path: Path
    format: str  # a name in LAYOUTS
    tokens: tuple[LearnedToken, ...]
    step: int | None  # of the training run, where stored
    metadata: dict[str, str]  # the safetensors header, or the plain values beside the tensors


def read_embeddings(path: str | Path) -> EmbeddingFile:
    """Return the content of an embedding file in any of the LAYOUTS. Nothing in it is executed.

    Raises EmbeddingFileError, whose one line says what the file is or what is wrong with it, and
    what to do.
    """
    path = Path(path)
    try:
        content, header = parse(read_bytes(path))
        metadata = header | plain_values(content)
        layout, entries = _entries(content, _stored_name(metadata) or path.stem)
        # `write_embeddings` stores which text encoder of several the file is for.
        place = header.get("tower") if header.get("tower") in ("1", "2") else None
        tokens = _learned_tokens(
            [(token, tower or place, value) for token, tower, value in entries]
        )
    except Refused as refused:
        raise EmbeddingFileError(
            f"{shown(str(path), 500)} {refused.finding}. {refused.advice}"
        ) from refused
    return EmbeddingFile(path, layout, tokens, _step(metadata), metadata)


def find_embedding_files(path: str | Path) -> list[Path]:
    """Return the file itself, or the embedding files of a folder and its subfolders.

    Numbers are sorted by value: step-250 comes before step-1000. Hidden files, and links that lead
    out of the folder, are left out. So are the checkpoints of training runs in the folder, which
    would count a run's token several times; a notice says so. Raises EmbeddingFileError if there
    is no file.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            raise EmbeddingFileError(f"{shown(str(path), 500)} does not exist. {EXPECTED}")
        return [path]
    inside = path.resolve()
    files = [file for file in _visible_files(path) if file.suffix.lower() in SUFFIXES]
    files = [file for file in files if file.is_file() and file.resolve().is_relative_to(inside)]
    if not files:
        raise EmbeddingFileError(
            f"{shown(str(path), 500)} holds no file ending in {', '.join(SUFFIXES)}. {EXPECTED}"
        )
    return sorted(files, key=_natural)


def _visible_files(path: Path) -> list[Path]:
    files: list[Path] = []
    for folder, subfolders, names in os.walk(path):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        if CHECKPOINTS in subfolders and is_run(Path(folder)):
            subfolders.remove(CHECKPOINTS)
            notice(
                f"left out the checkpoints of {folder}: its token is there once. To see them, name "
                f"{Path(folder, CHECKPOINTS)}."
            )
        files += [Path(folder, name) for name in names if not name.startswith(".")]
    return files


# --- Layouts: each is a function and a line in LAYOUTS ---


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
    if not tensors.keys() <= {"clip_l", "clip_g", "t5", "t5xxl"}:
        return []
    if tensors.keys() <= {"t5", "t5xxl"}:  # tokens of these names, as diffusers saves them
        return []
    return [(name, tower, tensor) for tower, tensor in tensors.items()]


def _two_tower(content: Any, name: str) -> list[Entry]:
    """Read [{token: tensor}, …] or {token: [tensor, …]}, with one tensor per text encoder."""
    if isinstance(content, list):
        return _list_of_towers(content)
    entries: list[Entry] = []
    if not isinstance(content, dict) or _tensors(content):
        return entries
    for token, values in content.items():
        if isinstance(values, list | tuple) and len(values) <= MAX_TOWERS:
            entries += [(token, str(place), value) for place, value in enumerate(values, 1)]
    return entries


def _list_of_towers(towers: list[Any]) -> list[Entry]:
    entries: list[Entry] = []
    if len(towers) > MAX_TOWERS or not all(_tensors(tower) for tower in towers):
        return entries
    for place, tower in enumerate(towers, 1):
        entries += [(token, str(place), value) for token, value in tower.items()]
    return entries


def _diffusers(content: Any, name: str) -> list[Entry]:
    return [(token, None, tensor) for token, tensor in _tensors(content).items()]


# Each takes the content of a file, and a name for a token that has none there. It returns an empty
# list for a file of another layout. The first that returns entries decides.
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
    names = content if isinstance(content, dict) else ()
    keys = ", ".join(key for key in names if isinstance(key, str))
    raise Refused(
        f"holds a {type(content).__name__} ({shown(keys) or 'without keys'}), not tensors by token"
    )


def _refuse_models(content: Any) -> None:
    """Refuse checkpoints and LoRA files, which the names of their tensors give away."""
    nested = content.values() if isinstance(content, dict) else ()
    # Each group once: a pickle may hold one dictionary under thousands of names.
    groups = {id(group): group for group in (content, *nested)}
    names: list[str] = []
    for group in groups.values():
        names += map(str, _tensors(group))
    _check_lengths(names)
    if any(_is_of_lora(name.lower()) for name in names):
        raise Refused(f"holds {len(names)} tensors, looks like a LoRA")
    if len(names) > MAX_TENSORS or any(name.endswith((".weight", ".bias")) for name in names):
        raise Refused(f"holds {len(names)} tensors, looks like a checkpoint")


def _check_lengths(names: list[str]) -> None:
    longest = max(map(len, names), default=0)
    if longest > MAX_NAME:
        raise Refused(
            f"holds a tensor with a name of {longest} characters", f"Expected at most {MAX_NAME}."
        )


def _is_of_lora(name: str) -> bool:
    return "lora" in name and name.endswith((".weight", ".alpha"))


def _stored_name(metadata: dict[str, str]) -> str:
    names = (metadata.get(key, "").strip() for key in ("name", "token"))
    return next((name for name in names if name.strip("*")), "")


def _step(metadata: dict[str, str]) -> int | None:
    text = metadata.get("step", "")
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


# --- Vectors ---


def _learned_tokens(entries: list[Entry]) -> tuple[LearnedToken, ...]:
    if len(entries) > MAX_TENSORS:
        raise Refused(f"holds {len(entries)} tensors, looks like a checkpoint")
    # Counted before anything is copied: a stored stride of 0 makes gigabytes out of four bytes.
    if sum(value.numel() for _, _, value in entries if isinstance(value, Tensor)) > MAX_VALUES:
        raise Refused(f"holds more than {MAX_VALUES} values, looks like a checkpoint")
    tokens = tuple(
        LearnedToken(_name(name), tower, _vectors(name, value)) for name, tower, value in entries
    )
    named = {(token.token, token.tower): token for token in tokens}
    if len(named) < len(tokens):
        raise Refused("names a token twice", ONCE)
    for token in tokens:
        # diffusers stores the further vectors of <x> as <x>_1, <x>_2, …
        first = named.get((re.sub(r"_\d+$", "", token.token), token.tower), token)
        width, other = first.vectors.shape[1], token.vectors.shape[1]
        if width != other:
            raise Refused(
                f"holds vectors of widths {width} and {other} for {shown(first.token)}",
                "Expected one width, or a list with one tensor for each text encoder.",
            )
    return tokens


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise Refused("holds a token without a name", "Expected text such as <my-token>.")
    _check_lengths([name])
    return clean(name)


def _vectors(token: str, value: Any) -> Tensor:
    """Return a checked copy of the tensor of a token, (n, d)."""
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
    # A copy, since several tensors of a file may share their memory.
    copied = value.detach().clone(memory_format=torch.contiguous_format)
    vectors = copied.reshape(-1, value.shape[-1])
    broken = vectors.isfinite().logical_not().sum(dim=1)
    if broken.any():
        row = int(broken.nonzero()[0])
        raise Refused(
            f"is broken: vector {row} (from 0) of {name} has {broken[row]} values that are not "
            "finite",
            "Take an earlier file of the same training run.",
        )
    return vectors


def _natural(path: Path) -> list[list[str | int]]:
    """Return a sorting key by which 2 comes before 10."""
    return [_text_and_numbers(name) for name in path.parts]


def _text_and_numbers(name: str) -> list[str | int]:
    # split() with a group alternates text and digits, so texts only meet texts in comparisons.
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
