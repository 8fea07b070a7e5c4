"""Writing of embedding files, in the layouts that other tools load."""

import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dti_geom.errors import EmbeddingFileError
from dti_geom.files.atomic import write_files
from dti_geom.files.cards import write_card
from dti_geom.files.embeddings import DTYPES, LearnedToken
from dti_geom.files.encoder_keys import ENCODERS, key_of
from dti_geom.files.refusals import clean, shown
from dti_geom.files.run_layout import learned_name

# Names of the second text encoder of SDXL, in files and in models.
SECOND_TOWER = ("2", "clip_g", "text_encoder_2")
SUFFIXES = {  # of the file that each layout writes; none: a folder
    "diffusers": "",
    "webui": ".pt",
    "sdxl": ".safetensors",
    "kohya": ".safetensors",
    "comfyui": ".safetensors",
    "onetrainer": ".safetensors",
    "card": ".png",
}

Towers = dict[str, Tensor]  # (n, d) vectors by the key of their text encoder, as in ENCODERS
_SAFETENSORS_DTYPES = dict(zip(DTYPES, ("F16", "BF16", "F32", "F64"), strict=True))


def write_embeddings(
    path: str | Path,
    tokens: Sequence[LearnedToken],
    layout: str = "diffusers",
    *,
    metadata: Mapping[str, str] = {},
    overwrite: bool = False,
) -> list[Path]:
    """Write one token, for one text encoder or several, for another tool. Returns the files.

    path: for diffusers a folder (`learned_embeds.safetensors`, and `learned_embeds_2.safetensors`
        for a second text encoder); for webui a `.pt` or `.safetensors` file; for card a `.png`
        file; for the others a `.safetensors` file.
    tokens: the vectors of one token. `<x>`, `<x>_1`, `<x>_2`, … are one token, as diffusers numbers
        its vectors.
    layout: a key of `SUFFIXES`.
    metadata: stored in the header of a safetensors file, or beside the tensors of a `.pt` file.

    Vectors keep their bits and dtype. The same arguments give byte-identical files. Raises, before
    anything is written, FileExists if a file exists and `overwrite` is false, and
    EmbeddingFileError if the layout has no place for the token.
    """
    files = embedding_bytes(path, tokens, layout, metadata=metadata)
    write_files(files, overwrite=overwrite)
    return list(files)


def embedding_bytes(
    path: str | Path,
    tokens: Sequence[LearnedToken],
    layout: str,
    *,
    metadata: Mapping[str, str] = {},
) -> dict[Path, bytes]:
    """Return the bytes that `write_embeddings` would write, by file."""
    if layout not in LAYOUTS_WRITTEN:
        raise EmbeddingFileError(
            f"no layout called '{layout}'. Known: {', '.join(LAYOUTS_WRITTEN)}."
        )
    token, towers = _one_token(tokens)
    metadata = {clean(key): clean(value) for key, value in sorted(metadata.items())} | {
        "name": token
    }
    try:
        return LAYOUTS_WRITTEN[layout](Path(path), token, towers, metadata)
    except _NoPlace as error:
        raise EmbeddingFileError(
            f"{shown(token)} cannot be written as {layout}: {error}"
        ) from error


def join_numbered(tokens: Sequence[LearnedToken]) -> tuple[LearnedToken, ...]:
    """Return the tokens with `<x>_1`, `<x>_2`, … joined to the vectors of `<x>`.

    Only within the same text encoder, and without gaps in the numbers, as diffusers joins them.
    """
    named = {(token.token, token.tower): token for token in tokens}
    joined = []
    for (name, tower), token in named.items():
        if _continues_another(name, tower, named):
            continue
        rows = [token.vectors]
        while (f"{name}_{len(rows)}", tower) in named:
            rows.append(named[f"{name}_{len(rows)}", tower].vectors)
        joined.append(LearnedToken(name, tower, torch.cat(rows)))
    return tuple(joined)


def _continues_another(
    name: str, tower: str | None, named: Mapping[tuple[str, str | None], LearnedToken]
) -> bool:
    """Return whether `name` is `<x>_3` and `<x>`, `<x>_1` and `<x>_2` are there too."""
    base, _, number = name.rpartition("_")
    if not re.fullmatch("[1-9][0-9]*", number):
        return False
    earlier = (base, *(f"{base}_{place}" for place in range(1, int(number))))
    return all((other, tower) in named for other in earlier)


class _NoPlace(Exception):
    """A token that a layout has no place for. The message also says what to use instead."""


def _one_token(tokens: Sequence[LearnedToken]) -> tuple[str, Towers]:
    """Return the name of the token and its checked vectors by text encoder."""
    towers: Towers = {}
    joined = join_numbered(tokens)
    names = sorted({token.token for token in joined})
    if len(names) != 1:
        listed = ", ".join(map(shown, names)) or "none"
        raise EmbeddingFileError(
            f"a file holds one token, and these are {len(names)} ({listed}). Write one at a time."
        )
    for token in joined:
        _check_vectors(token)
        key = key_of(token.tower, token.vectors.shape[1])
        if key is None or key in towers:
            raise EmbeddingFileError(
                f"{shown(token.token)} has vectors for the tower {shown(str(token.tower))}, which "
                "has no place in these layouts or has it twice. Expected each of these once: "
                f"{', '.join(ENCODERS)}."
            )
        towers[key] = token.vectors.detach().cpu().clone(memory_format=torch.contiguous_format)
    return clean(names[0]), {key: towers[key] for key in ENCODERS if key in towers}


def _check_vectors(token: LearnedToken) -> None:
    vectors = token.vectors
    if vectors.dtype not in DTYPES or vectors.dim() != 2 or not vectors.numel():
        raise EmbeddingFileError(
            f"{shown(token.token)} has {vectors.dtype} values of shape {tuple(vectors.shape)}. "
            "Expected (vectors, width) in float16, bfloat16, float32 or float64."
        )
    if not vectors.isfinite().all():
        raise EmbeddingFileError(
            f"{shown(token.token)} has values that are not finite. Take an earlier checkpoint of "
            "the run."
        )


# --- Layouts: each returns the bytes of its files ---


def _diffusers(
    folder: Path, token: str, towers: Towers, metadata: Mapping[str, str]
) -> dict[Path, bytes]:
    if folder.suffix in (".safetensors", ".bin", ".pt"):
        raise _NoPlace(f"{shown(folder.name)} looks like a file, and diffusers loads a folder.")
    files = {}
    for place, (key, vectors) in enumerate(towers.items(), 1):
        # The second encoder of SDXL keeps its place where its vectors stand alone.
        place = 2 if key == "clip_g" else place
        numbered = {"clip_l": "1", "clip_g": "2"}.get(key, key)
        tower = {"tower": numbered} if len(towers) > 1 or key == "clip_g" else {}
        files[folder / learned_name(place)] = safetensors_bytes(
            {token: vectors}, {**metadata, **tower}
        )
    return files


def _webui(
    path: Path, token: str, towers: Towers, metadata: Mapping[str, str]
) -> dict[Path, bytes]:
    vectors = _only(towers, "Use sdxl, which web UIs load too.")
    if path.suffix == ".safetensors":
        return {path: safetensors_bytes({"emb_params": vectors}, metadata)}
    _expect(path, ".pt", ".safetensors")
    # Not to the path itself: torch puts the name of the file into the archive.
    stream = io.BytesIO()
    torch.save(_web_ui_content(vectors, metadata), stream)
    return {path: stream.getvalue()}


def _card(path: Path, token: str, towers: Towers, metadata: Mapping[str, str]) -> dict[Path, bytes]:
    _expect(path, ".png")
    vectors = _only(towers, "Use sdxl.")
    if vectors.dtype == torch.float64:
        raise _NoPlace("a card is read in float32, and these are float64 values. Use webui.")
    return {path: write_card(_web_ui_content(vectors, metadata), f"<{token.strip('<>')}>")}


def _web_ui_content(vectors: Tensor, metadata: Mapping[str, str]) -> dict[str, Any]:
    step = metadata.get("step", "")
    return {
        "sd_checkpoint": None,
        "sd_checkpoint_name": None,
        **metadata,
        "step": int(step) if re.fullmatch("[0-9]{1,18}", step) else None,
        # The web UI's placeholder of every training prompt is *, row 265 of CLIP.
        "string_to_token": {"*": 265},
        "string_to_param": {"*": vectors},
    }


def _only(towers: Towers, several: str) -> Tensor:
    """Return the vectors of the one encoder that a web UI's file has room for."""
    if len(towers) > 1:
        raise _NoPlace(f"it has vectors for a second text encoder. {several}")
    ((key, vectors),) = towers.items()
    if key not in ("clip_l", "clip_h"):
        raise _NoPlace(
            f"it has vectors for {ENCODERS[key].encoder} alone, which web UIs load in no file of "
            "its own. Use comfyui."
        )
    return vectors


def _sdxl(
    path: Path, _token: str, towers: Towers, metadata: Mapping[str, str]
) -> dict[Path, bytes]:
    _expect(path, ".safetensors")
    if len(towers) < 2:
        raise _NoPlace(
            f"it has vectors for one text encoder ({next(iter(towers))}), and SDXL has two. Use "
            "diffusers or comfyui."
        )
    if towers.keys() != {"clip_l", "clip_g"}:
        raise _NoPlace(f"it has vectors for {' and '.join(towers)}. Use comfyui.")
    return {path: safetensors_bytes(towers, metadata)}


def _kohya(
    path: Path, token: str, towers: Towers, metadata: Mapping[str, str]
) -> dict[Path, bytes]:
    _expect(path, ".safetensors")
    return (_sdxl if len(towers) > 1 else _webui)(path, token, towers, metadata)


def _comfyui(
    path: Path, _token: str, towers: Towers, metadata: Mapping[str, str]
) -> dict[Path, bytes]:
    _expect(path, ".safetensors")
    return {path: safetensors_bytes(towers, metadata)}


def _onetrainer(
    path: Path, _token: str, towers: Towers, metadata: Mapping[str, str]
) -> dict[Path, bytes]:
    _expect(path, ".safetensors")
    if towers.keys() <= {"clip_l"} or towers.keys() <= {"clip_h"}:
        (vectors,) = towers.values()
        return {path: safetensors_bytes({"emp_params": vectors}, metadata)}
    without = [key for key in towers if not ENCODERS[key].onetrainer]
    if without:
        raise _NoPlace(f"it has no key for {' and '.join(without)}. Use comfyui.")
    spelled = {ENCODERS[key].onetrainer: vectors for key, vectors in towers.items()}
    return {path: safetensors_bytes(spelled, metadata)}


LAYOUTS_WRITTEN: dict[str, Callable[[Path, str, Towers, Mapping[str, str]], dict[Path, bytes]]] = {
    "diffusers": _diffusers,
    "webui": _webui,
    "sdxl": _sdxl,
    "kohya": _kohya,
    "comfyui": _comfyui,
    "onetrainer": _onetrainer,
    "card": _card,
}


def _expect(path: Path, *suffixes: str) -> None:
    if path.suffix not in suffixes:
        raise _NoPlace(f"{shown(path.name)} does not end in {' or '.join(suffixes)}.")


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return the bytes of a safetensors file.

    Not by the library's writer, whose order of metadata differs from process to process.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
    body = b""
    # Wide values come first, so that every tensor is aligned to the size of its values.
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].element_size()):
        data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        header[name] = {
            "dtype": _SAFETENSORS_DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format asks for a header of a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + body
