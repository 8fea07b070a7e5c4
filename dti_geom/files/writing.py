"""Learned embeddings in the layouts that other tools load."""

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

FIRST_TOWER = (None, "1", "clip_l", "text_encoder")  # what readers and encoders call it
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
    """Write one token, for one text encoder or two, as another tool loads it. Returns the files.

    path: a folder for diffusers (`learned_embeds.safetensors`, and `learned_embeds_2.safetensors` for a second tower);
        a `.pt` or `.safetensors` file for webui; a `.safetensors` file for sdxl and kohya.
    tokens: one name. `<x>`, `<x>_1`, `<x>_2`, … are the vectors of one token, as diffusers numbers them.
    metadata: goes into the header of a safetensors file, or beside the tensors of a `.pt` file.

    Vectors keep their bits and dtype, and the same arguments give the same bytes. Nothing is written if one of the
    files exists and `overwrite` is false (FileExists), or if the layout has no place for the token
    (EmbeddingFileError).
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
    """What `write_embeddings` would write, by file."""
    if layout not in LAYOUTS_WRITTEN:
        raise EmbeddingFileError(
            f"no layout called '{layout}'. Known: {', '.join(LAYOUTS_WRITTEN)}."
        )
    token, towers = _one_concept(tokens)
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
    """The tokens; `<x>_1`, `<x>_2`, … have joined the vectors of `<x>` in the same tower, as diffusers takes them."""
    named = {(each.token, each.tower): each for each in tokens}
    joined = []
    for (token, tower), each in named.items():
        base, _, number = token.rpartition("_")
        if re.fullmatch("[1-9][0-9]*", number) and all(
            (name, tower) in named
            for name in (base, *(f"{base}_{place}" for place in range(1, int(number))))
        ):
            continue  # a further vector of another token
        rows = [each.vectors]
        while (f"{token}_{len(rows)}", tower) in named:
            rows.append(named[f"{token}_{len(rows)}", tower].vectors)
        joined.append(LearnedToken(token, tower, torch.cat(rows)))
    return tuple(joined)


class _NoPlace(Exception):
    """Why a layout cannot hold a token, and what can."""


def _one_concept(tokens: Sequence[LearnedToken]) -> tuple[str, Towers]:
    towers: Towers = {}
    joined = join_numbered(tokens)
    names = sorted({each.token for each in joined})
    if len(names) != 1:
        listed = ", ".join(map(shown, names)) or "none"
        raise EmbeddingFileError(
            f"a file holds one token, and these are {len(names)} ({listed}). Write one at a time."
        )
    for each in joined:
        place = 1 if each.tower in FIRST_TOWER else 2 if each.tower in SECOND_TOWER else None
        if place is None or place in towers:
            raise EmbeddingFileError(
                f"{shown(each.token)} has vectors for the tower {shown(str(each.tower))}, which has no place in these "
                "layouts or has it twice. Expected one or two of clip_l and clip_g."
            )
        if each.vectors.dtype not in DTYPES or each.vectors.dim() != 2 or not each.vectors.numel():
            raise EmbeddingFileError(
                f"{shown(each.token)} has {each.vectors.dtype} values of shape {tuple(each.vectors.shape)}. Expected "
                "(vectors, width) in float16, bfloat16, float32 or float64."
            )
        if not each.vectors.isfinite().all():
            raise EmbeddingFileError(
                f"{shown(each.token)} has values that are not finite. Take an earlier checkpoint of the run."
            )
        towers[place] = each.vectors.detach().cpu().clone(memory_format=torch.contiguous_format)
    return clean(names[0]), dict(sorted(towers.items()))


# --- Layouts: each gives the bytes of its files ---


def _diffusers(
    folder: Path, token: str, towers: Towers, metadata: Mapping[str, str]
) -> dict[Path, bytes]:
    if folder.suffix in (".safetensors", ".bin", ".pt"):
        raise _NoPlace(f"{shown(folder.name)} looks like a file, and diffusers loads a folder.")
    files = {}
    for place, vectors in towers.items():
        tower = {"tower": str(place)} if len(towers) > 1 or place > 1 else {}
        name = learned_name(place)
        files[folder / name] = _safetensors({token: vectors}, {**metadata, **tower})
    return files


def _webui(
    path: Path, token: str, towers: Towers, metadata: Mapping[str, str]
) -> dict[Path, bytes]:
    if towers.keys() != {1}:
        raise _NoPlace(
            "it has vectors for a second text encoder. Use sdxl, which web UIs load too."
        )
    if path.suffix == ".safetensors":
        return {path: _safetensors({"emb_params": towers[1]}, metadata)}
    _expect(path, ".pt", ".safetensors")
    step = metadata.get("step", "")
    content = {
        "sd_checkpoint": None,
        "sd_checkpoint_name": None,
        **metadata,
        "step": int(step) if re.fullmatch("[0-9]{1,18}", step) else None,
        "string_to_token": {
            "*": 265
        },  # the CLIP row of *, the placeholder of every training prompt
        "string_to_param": {"*": towers[1]},
    }
    stream = io.BytesIO()  # not the path, whose name torch would put into the archive
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
    return {path: _safetensors({"clip_l": towers[1], "clip_g": towers[2]}, metadata)}


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


def _safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file. The library's own writer orders the metadata anew in every process."""
    header: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
    body = b""
    # Wide values first, so that every tensor lies on a multiple of its own size.
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].element_size()):
        data = tensor.view(torch.uint8).numpy().tobytes()
        offsets = [len(body), len(body) + len(data)]
        dtype = _SAFETENSORS_DTYPES[tensor.dtype]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        body += data
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body
