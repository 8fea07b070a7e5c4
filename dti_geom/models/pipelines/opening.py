"""Open a whole text-to-image model from its name, folder or Hub id."""

import json
from typing import Any

import torch

from dti_geom.errors import ModelFilesError, first_line
from dti_geom.models.catalog import check_device, find_source, profile_of
from dti_geom.models.downloads import (
    FLOAT32_PARTS,
    UNUSED_PARTS,
    Download,
    fetch,
    needed_files,
)
from dti_geom.models.loading import LOADING_ERRORS, import_transformers, laid_out, quiet
from dti_geom.models.pipelines.base import TextToImage
from dti_geom.models.pipelines.registry import PIPELINES, family_of
from dti_geom.models.sources import Source, read_json
from dti_geom.models.weights import stored_dtype
from dti_geom.progress import Progress, notice, silent


def open_text_to_image(
    model: str,
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    progress: Progress = silent,
) -> TextToImage:
    """Open a text-to-image model, ready to train a token on or to paint with.

    model: a name of `MODELS`, a Hub id, or a pipeline folder. dtype: of everything but the
    autoencoder; default `default_dtype(device)`. progress: called with the bytes of a download.
    Raises UnknownModel, ModelFilesError.
    """
    check_device(device)
    source = find_source(model)
    index = read_json(source, "model_index.json")
    kind = str(index.get("_class_name"))
    if kind not in PIPELINES:
        raise ModelFilesError(
            f"{source.name} is a {kind}; a token can be trained on {', '.join(PIPELINES)}. "
            "To add a family, write a file in dti_geom/models/pipelines and name it in "
            "registry.py there."
        )
    wanted = dtype or default_dtype(device)
    plan = needed_files(source, str(wanted).removeprefix("torch."))
    fetch(source, plan, progress)
    if wanted == torch.float32:
        _say_if_half(source, plan)
    pipeline = _load(source, plan, index, wanted)
    return family_of(kind)(pipeline.to(device), model, profile_of(model))


def _load(source: Source, plan: Download, index: dict[str, Any], dtype: torch.dtype) -> Any:
    """Return the diffusers pipeline. Raises ModelFilesError."""
    import diffusers

    kind = index["_class_name"]
    options: dict[str, Any] = {}
    if "safety_checker" in index:
        options = {"requires_safety_checker": False}
    dtypes = dict.fromkeys(FLOAT32_PARTS, torch.float32) | {"default": dtype}
    names = {file.name: file.loaded_as for file in plan.files}
    absent = {part: [None, None] for part in UNUSED_PARTS if part in index}
    try:
        with quiet(import_transformers()), quiet(diffusers), laid_out(source, names) as folder:
            (folder / "model_index.json").write_text(json.dumps(index | absent))
            return getattr(diffusers, kind).from_pretrained(
                folder, dtype=dtypes, local_files_only=True, trust_remote_code=False, **options
            )
    except LOADING_ERRORS as error:
        raise ModelFilesError(
            f"{source.name} did not open as a {kind} ({first_line(error)}). Fetch it again."
        ) from error


def _say_if_half(source: Source, plan: Download) -> None:
    """Say which parts are stored in half precision although float32 was asked for."""
    halves = (torch.float16, torch.bfloat16)
    stored = [file.name for file in plan.files if stored_dtype(source, file.name) in halves]
    if stored:
        parts = ", ".join(dict.fromkeys(name.split("/")[0] for name in stored))
        notice(
            f"{source.name} holds its {parts} in half precision only. float32 takes twice the "
            "memory and brings no lost digit back; --dtype bfloat16 or float16 takes them as "
            "they are."
        )


def default_dtype(device: str) -> torch.dtype:
    """Return bfloat16 where the device multiplies it faster than float32, else float32.

    A card that only emulates bfloat16 (T4, V100) is slower in it than in float32.
    """
    if torch.device(device).type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    if torch.device(device).type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return torch.float32
