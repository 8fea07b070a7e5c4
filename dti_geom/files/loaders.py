"""Who loads an embedding file, and what to type there.

Restates how ComfyUI, the web UI of AUTOMATIC1111 and `load_textual_inversion` of diffusers look
into a file. A tool may load a file, take a part of it, or pass over it without a word.
"""

from dataclasses import dataclass

from dti_geom.files.embeddings import SUFFIXES, EmbeddingFile, stored_name
from dti_geom.files.encoder_keys import ENCODERS, key_of

COMFYUI, WEB_UI, DIFFUSERS = "ComfyUI", "web UI", "diffusers"
TOOLS = (COMFYUI, WEB_UI, DIFFUSERS)


@dataclass(frozen=True)
class Loading:
    """What one tool does with a file."""

    tool: str
    type: str  # what to write in a prompt; empty: the tool does not load the file
    note: str = ""  # what it leaves out, or why it loads nothing


def loadings(file: EmbeddingFile) -> tuple[Loading, ...]:
    """Return what each of TOOLS does with a file."""
    return (_comfyui(file), _web_ui(file), _diffusers(file))


def _comfyui(file: EmbeddingFile) -> Loading:
    """Look as ComfyUI does.

    It takes the first tensor of `string_to_param`; of a list, the tensors of the encoder's width;
    else the tensor under the encoder's key; else all bundled ones that end in it; else the first.
    Vectors of a width that the encoder does not have are left out.
    """
    name = f"embedding:{file.path.stem}"
    if file.path.suffix.lower() not in SUFFIXES:
        return Loading(COMFYUI, "", "it loads .safetensors, .pt and .bin files alone")
    match file.format:
        case "two-tower":
            return Loading(COMFYUI, "", "it knows no list of tensors under a token")
        case "ldm" | "web-ui" | "diffusers" if len(file.tokens) > 1:
            first = file.tokens[0].token
            return Loading(COMFYUI, name, f"it takes {first} alone, the first of the file")
        case "bundle" if len(_names(file)) > 1:
            return Loading(COMFYUI, name, "it takes all tokens of the file as one")
        case "pivotal" | "onetrainer" | "emb_params":
            skipped = [key for key in _keys(file)[1:] if key not in _stored_keys(file)]
            if skipped:
                return Loading(COMFYUI, name, f"it passes over {' and '.join(skipped)}")
    return Loading(COMFYUI, name)


def _web_ui(file: EmbeddingFile) -> Loading:
    """Look as AUTOMATIC1111 does: one tensor, or clip_l with clip_g. It names tokens by file."""
    match file.format:
        case "card":
            return Loading(WEB_UI, stored_name(file.metadata) or file.path.stem)
        case "bundle":
            return Loading(WEB_UI, file.tokens[0].token, "while the LoRA is in the prompt too")
        case "two-tower" | "tower list":
            return Loading(WEB_UI, "", "it knows no lists of tensors")
    if {"clip_l", "clip_g"} <= set(_stored_keys(file)):
        others = [key for key in _keys(file) if key not in ("clip_l", "clip_g")]
        passed = f", and it passes over {' and '.join(others)}" if others else ""
        return Loading(WEB_UI, file.path.stem, f"with SDXL{passed}")
    if len(file.tokens) + len(file.outputs) > 1:
        return Loading(WEB_UI, "", "it takes files of one tensor, or of clip_l and clip_g")
    key = _keys(file)[0]
    if key not in ("clip_l", "clip_h"):
        encoder = ENCODERS[key].encoder if key in ENCODERS else key
        return Loading(WEB_UI, "", f"it has no model whose only encoder is {encoder}")
    return Loading(WEB_UI, file.path.stem)


def _diffusers(file: EmbeddingFile) -> Loading:
    """Look as `load_textual_inversion` does: a file of one tensor, or a web UI's."""
    match file.format:
        case "ldm":
            return Loading(DIFFUSERS, "", "its pickle has a class that torch refuses to load")
        case "web-ui" if len(file.tokens) == 1 and "name" in file.metadata:
            name = stored_name(file.metadata)
            return Loading(DIFFUSERS, name or "<x>", "" if name else "with token='<x>'")
        case "diffusers" if len(file.tokens) == 1:
            return Loading(DIFFUSERS, file.tokens[0].token)
        case "emb_params" | "comfyui" if len(file.tokens) + len(file.outputs) == 1:
            return Loading(DIFFUSERS, "<x>", "with token='<x>'")
        case "sdxl" | "pivotal" | "comfyui" | "onetrainer":
            return Loading(DIFFUSERS, "<x>", "one encoder's tensor at a time, with token='<x>'")
    return Loading(DIFFUSERS, "", "convert it with --to diffusers")


def _names(file: EmbeddingFile) -> list[str]:
    return list(dict.fromkeys(token.token for token in file.tokens))


def _keys(file: EmbeddingFile) -> list[str]:
    """Return the encoders that a file has vectors for, in its order."""
    keys = (key_of(token.tower, token.vectors.shape[1]) for token in file.tokens)
    return [key or "an unknown encoder" for key in keys]


def _stored_keys(file: EmbeddingFile) -> list[str]:
    """Return the encoders that the file calls as ComfyUI does."""
    if file.format == "pivotal":
        return []
    return [key for key in _keys(file) if key in ENCODERS and ENCODERS[key].onetrainer == key]
