"""Reading of embedding files, in every layout that other tools write."""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dti_geom.errors import EmbeddingFileError
from dti_geom.files.cards import CARD_START, Card, has_card_text
from dti_geom.files.containers import BUNDLE, parse, read_bytes
from dti_geom.files.encoder_keys import OUTPUT, encoder_key, is_output
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

_FIXED = ("emb_params", "emp_params", "emb")  # names of the only tensor of a file
_PLACEHOLDERS = ("_EmbeddingMerge_temp",)  # names that a tool stores for want of one

Entry = tuple[Any, str | None, Any]  # token, tower and tensor as stored, not yet checked


@dataclass(frozen=True)
class LearnedToken:
    """The vectors of one token for one text encoder."""

    token: str
    # The encoder's key in ENCODERS ("clip_l", …), or its position in a list ("1", "2"), as the file
    # says; None where it does not say.
    tower: str | None
    vectors: Tensor  # (n, d), n ≥ 1, dtype as stored, finite, on the CPU, without gradient

    def __repr__(self) -> str:
        """Return name, text encoder, shape and norms on one line."""
        norms = ", ".join(f"{norm:.4g}" for norm in self.vectors.float().norm(dim=-1)[:4])
        of = f" of {self.tower}" if self.tower else ""
        shape = " × ".join(map(str, self.vectors.shape))
        return f"<LearnedToken {self.token!r}{of}: {shape}, norm {norms}>"


@dataclass(frozen=True)
class EmbeddingFile:
    """The content of one embedding file."""

    path: Path
    format: str  # a name in LAYOUTS
    tokens: tuple[LearnedToken, ...]
    step: int | None  # of the training run, where stored
    metadata: dict[str, str]  # the safetensors header, or the plain values beside the tensors
    # Vectors that OneTrainer adds behind an encoder, as "clip_l_out". They are no tokens.
    outputs: tuple[LearnedToken, ...] = ()


def read_embeddings(path: str | Path, bare_token: str | None = None) -> EmbeddingFile:
    """Return the content of an embedding file in any of the LAYOUTS. Nothing in it is executed.

    bare_token: the name of a tensor that is stored without one; None refuses such a file.

    Raises EmbeddingFileError, whose one line says what the file is or what is wrong with it, and
    what to do.
    """
    path = Path(path)
    try:
        content, header = parse(read_bytes(path))
        metadata = header | plain_values(content)
        if isinstance(content, Tensor) and bare_token:
            content = {bare_token: content}
        layout, entries = _entries(content, stored_name(metadata) or path.stem)
        # `write_embeddings` stores which text encoder of several the file is for.
        stored = header.get("tower", "")
        place = stored if stored in ("1", "2") or encoder_key(stored) else None
        tokens = _learned_tokens(
            [(token, tower or place, value) for token, tower, value in entries]
        )
    except Refused as refused:
        raise EmbeddingFileError(
            f"{shown(str(path), 500)} {refused.finding}. {refused.advice}"
        ) from refused
    return EmbeddingFile(
        path=path,
        format=layout,
        tokens=tuple(token for token in tokens if not is_output(token.tower or "")),
        step=_step(metadata),
        metadata=metadata,
        outputs=tuple(token for token in tokens if is_output(token.tower or "")),
    )


def find_embedding_files(path: str | Path) -> list[Path]:
    """Return the file itself, or the embedding files of a folder and its subfolders.

    Numbers are sorted by value: step-250 comes before step-1000. Hidden files, and links that lead
    out of the folder, are left out. So are pictures, except cards that carry an embedding as text,
    and the checkpoints of training runs in the folder, which
    would count a run's token several times; a notice says so. Raises EmbeddingFileError if there
    is no file.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            raise EmbeddingFileError(f"{shown(str(path), 500)} does not exist. {EXPECTED}")
        return [path]
    inside = path.resolve()
    files = [file for file in _visible_files(path) if file.suffix.lower() in (*SUFFIXES, ".png")]
    files = [file for file in files if file.is_file() and file.resolve().is_relative_to(inside)]
    files = [file for file in files if file.suffix.lower() in SUFFIXES or _is_card(file)]
    if not files:
        raise EmbeddingFileError(
            f"{shown(str(path), 500)} holds no file ending in {', '.join(SUFFIXES)}. {EXPECTED}"
        )
    return sorted(files, key=_natural)


def _is_card(path: Path) -> bool:
    with suppress(OSError), open(path, "rb") as file:
        return has_card_text(file.read(CARD_START))
    return False


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


def _card(content: Any, name: str) -> list[Entry]:
    return _web_ui(content, name) if isinstance(content, Card) else []


def _emb_params(content: Any, name: str) -> list[Entry]:
    """Read one tensor under a fixed name; OneTrainer misspells it and may add an output vector."""
    tensors = _tensors(content)
    inputs = [key for key in tensors if key in _FIXED]
    if len(inputs) != 1 or not tensors.keys() <= {inputs[0], f"{inputs[0]}{OUTPUT}"}:
        return []
    entries: list[Entry] = [(name, None, tensors.pop(inputs[0]))]
    return entries + [(name, f"clip_l{OUTPUT}", output) for output in tensors.values()]


def _bundle(content: Any, name: str) -> list[Entry]:
    """Read the embeddings that travel in a LoRA file: bundle_emb.NAME.KEY."""
    entries: list[Entry] = []
    for key, tensor in _tensors(content).items():
        if not str(key).startswith(BUNDLE):
            return []
        token, _, encoder = key.removeprefix(BUNDLE).removesuffix(".*").rpartition(".")
        plain = encoder in ("string_to_param", *_FIXED)
        entries.append((token, None if plain else _tower(encoder), tensor))
    return entries


def _by_encoder(content: Any, name: str) -> list[Entry]:
    """Read one tensor for each encoder, under the encoder's key as any tool spells it."""
    tensors = _tensors(content)
    if not all(isinstance(key, str) and (encoder_key(key) or is_output(key)) for key in tensors):
        return []
    return [(name, _tower(key), tensor) for key, tensor in tensors.items()]


def _tower(key: str) -> str:
    """Return an encoder's key in ENCODERS, or the key itself if no tool is known to write it."""
    if is_output(key):
        return f"{encoder_key(key.removesuffix(OUTPUT))}{OUTPUT}"
    return encoder_key(key) or key


def _sdxl(content: Any, name: str) -> list[Entry]:
    return _by_encoder(content, name) if _tensors(content).keys() == {"clip_l", "clip_g"} else []


def _pivotal(content: Any, name: str) -> list[Entry]:
    keys = {f"text_encoders_{place}" for place in range(MAX_TOWERS)}
    return _by_encoder(content, name) if _tensors(content).keys() <= keys else []


def _onetrainer(content: Any, name: str) -> list[Entry]:
    tensors = _tensors(content)
    own = [key for key in tensors if key in ("t5", "gemma") or is_output(str(key))]
    return _by_encoder(content, name) if own else []


def _tower_list(content: Any, name: str) -> list[Entry]:
    """Read [{token: tensor}, …], with one dictionary for each text encoder."""
    entries: list[Entry] = []
    if not isinstance(content, list) or len(content) > MAX_TOWERS:
        return entries
    if not all(_tensors(tower) for tower in content):
        return entries
    for place, tower in enumerate(content, 1):
        entries += [(token, str(place), value) for token, value in tower.items()]
    return entries


def _two_tower(content: Any, name: str) -> list[Entry]:
    """Read {token: [tensor, …]}, with one tensor for each text encoder."""
    entries: list[Entry] = []
    if not isinstance(content, dict) or _tensors(content):
        return entries
    for token, values in content.items():
        if isinstance(values, list | tuple) and len(values) <= MAX_TOWERS:
            entries += [(token, str(place), value) for place, value in enumerate(values, 1)]
    return entries


def _diffusers(content: Any, name: str) -> list[Entry]:
    return [(token, None, tensor) for token, tensor in _tensors(content).items()]


# Each takes the content of a file, and a name for a token that has none there. It returns an empty
# list for a file of another layout. The first that returns entries decides.
LAYOUTS: dict[str, Callable[[Any, str], list[Entry]]] = {
    "ldm": _ldm,
    "card": _card,
    "web-ui": _web_ui,
    "emb_params": _emb_params,
    "bundle": _bundle,
    "sdxl": _sdxl,
    "pivotal": _pivotal,
    "onetrainer": _onetrainer,
    "comfyui": _by_encoder,
    "tower list": _tower_list,
    "two-tower": _two_tower,
    "diffusers": _diffusers,
}


def _entries(content: Any, name: str) -> tuple[str, list[Entry]]:
    _refuse_models(content)
    for layout, read in LAYOUTS.items():
        if entries := read(content, name):
            if all(is_output(tower or "") for _, tower, _ in entries):
                raise Refused("holds only vectors that are added behind an encoder, no token")
            return layout, entries
    if isinstance(content, Tensor):
        raise Refused(
            "holds a tensor without a token",
            "If it is an embedding, name it: dti-geom convert FILE --to diffusers --token '<x>'. "
            "Aesthetic gradients are such tensors too. They steer the encoder of a web UI and are "
            "no token: nothing here can use one.",
        )
    names = content if isinstance(content, dict) else ()
    keys = ", ".join(key for key in names if isinstance(key, str))
    raise Refused(
        f"holds a {type(content).__name__} ({shown(keys) or 'without keys'}), not tensors by token"
    )


def _refuse_models(content: Any) -> None:
    """Refuse what is no embedding, which the names of its parts give away."""
    keys = set(filter(_is_text, content)) if isinstance(content, dict) else set()
    if "optimizer_state_dict" in keys or {"state", "param_groups"} <= keys:
        raise Refused(
            "is the state of an optimiser, which a training resumes from",
            "The embedding lies beside it, in the file without .optim.",
        )
    if keys >= {"layer_structure"} or _is_hypernetwork(content):
        raise Refused(
            "is a hypernetwork, which changes the attention of a model and holds no token",
            "Load it in a web UI, as <hypernet:NAME:1>; it cannot become an embedding.",
        )
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


def _is_text(key: object) -> bool:
    return isinstance(key, str)


def _is_hypernetwork(content: Any) -> bool:
    """Return whether any key is the width of an attention layer, with weights for keys and values.

    Such a file has two lists of weights under 320, 640, 768 or 1280.
    """
    items = content.items() if isinstance(content, dict) else ()
    return any(type(key) is int and isinstance(value, list | tuple) for key, value in items)


def _check_lengths(names: list[str]) -> None:
    longest = max(map(len, names), default=0)
    if longest > MAX_NAME:
        raise Refused(
            f"holds a tensor with a name of {longest} characters", f"Expected at most {MAX_NAME}."
        )


def _is_of_lora(name: str) -> bool:
    return "lora" in name and name.endswith((".weight", ".alpha"))


def stored_name(metadata: dict[str, str]) -> str:
    """Return the name that a file stores for its token; empty for none or a placeholder."""
    names = (metadata.get(key, "").strip() for key in ("name", "token"))
    return next((name for name in names if name.strip("*") and name not in _PLACEHOLDERS), "")


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
