"""Writing of embedding files, in the layouts that other tools load."""

import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from dti_geom.errors import EmbeddingFileError
from dti_geom.files.atomic import write_files
from dti_geom.files.embeddings import DTYPES, LearnedToken
from dti_geom.files.refusals import clean, shown
from dti_geom.files.run_layout import learned_name

# Names of the two text encoders, in files and in models.
FIRST_TOWER = (None, "1", "clip_l", "text_encoder")
SECOND_TOWER = ("2", "clip_g", "text_encoder_2")

Towers = dict[int, Tensor]  # (n, d) vectors by the place of their text encoder, 1 or 2
_SAFETENSORS_DTYPES = dict(zip(DTYPES, ("F16", "BF16", "F32", "F64"), strict=True))


def write_embeddings(
    path: str | Path,
    tokens: Sequence[LearnedToken],
    layout: str = "diffusers",
    *,
    metadata: Mapping[str, str] = {},
    overwrite: bool = False,
) -> list[Path]:
    """Write one token, for one text encoder or two, for another tool. Returns the files.

    path: for diffusers a folder (`learned_embeds.safetensors`, and `learned_embeds_2.safetensors`
        for a second text encoder); for webui a `.pt` or `.safetensors` file; for sdxl and kohya a
        `.safetensors` file.
    tokens: the vectors of one token. `<x>`, `<x>_1`, `<x>_2`, … are one token, as diffusers numbers
        its vectors.
    layout: diffusers, webui, sdxl or kohya.
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
        place = 1 if token.tower in FIRST_TOWER else 2 if token.tower in SECOND_TOWER else None
        if place is None or place in towers:
            raise EmbeddingFileError(
                f"{shown(token.token)} has vectors for the tower {shown(str(token.tower))}, which "
                "has no place in these layouts or has it twice. Expected one or two of clip_l and "
                "clip_g."
            )
        _check_vectors(token)
        towers[place] = token.vectors.detach().cpu().clone(memory_format=torch.contiguous_format)
    return clean(names[0]), dict(sorted(towers.items()))


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
    for place, vectors in towers.items():
        tower = {"tower": str(place)} if len(towers) > 1 or place > 1 else {}
        name = learned_name(place)
        files[folder / name] = safetensors_bytes({token: vectors}, {**metadata, **tower})
    return files


def _webui(
    path: Path, token: str, towers: Towers, metadata: Mapping[str, str]
) -> dict[Path, bytes]:
    if towers.keys() != {1}:
        raise _NoPlace(
            "it has vectors for a second text encoder. Use sdxl, which web UIs load too."
        )
    if path.suffix == ".safetensors":
        return {path: safetensors_bytes({"emb_params": towers[1]}, metadata)}
    _expect(path, ".pt", ".safetensors")
    step = metadata.get("step", "")
    content = {
        "sd_checkpoint": None,
        "sd_checkpoint_name": None,
        **metadata,
        "step": int(step) if re.fullmatch("[0-9]{1,18}", step) else None,
        # The web UI's placeholder of every training prompt is *, row 265 of CLIP.
        "string_to_token": {"*": 265},
        "string_to_param": {"*": towers[1]},
    }
    # Not to the path itself: torch puts the name of the file into the archive.
    stream = io.BytesIO()
    torch.save(content, stream)
    return {path: stream.getvalue()}


def _sdxl(
    path: Path, _token: str, towers: Towers, metadata: Mapping[str, str]
) -> dict[Path, bytes]:
    _expect(path, ".safetensors")
    if towers.keys() != {1, 2}:
        raise _NoPlace(
            "it has vectors for one text encoder, and SDXL has two. Use diffusers, webui or kohya."
        )
    return {path: safetensors_bytes({"clip_l": towers[1], "clip_g": towers[2]}, metadata)}


def _kohya(
    path: Path, token: str, towers: Towers, metadata: Mapping[str, str]
) -> dict[Path, bytes]:
    _expect(path, ".safetensors")
    return (_sdxl if len(towers) > 1 else _webui)(path, token, towers, metadata)


LAYOUTS_WRITTEN: dict[str, Callable[[Path, str, Towers, Mapping[str, str]], dict[Path, bytes]]] = {
    "diffusers": _diffusers,
    "webui": _webui,
    "sdxl": _sdxl,
    "kohya": _kohya,
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
