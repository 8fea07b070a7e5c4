"""Open a whole text-to-image model from its name, folder or Hub id."""

from typing import Any

import torch

from dti_geom.errors import ModelFilesError, first_line
from dti_geom.models.catalog import check_device, find_source, profile_of
from dti_geom.models.loading import LOADING_ERRORS, import_transformers, quiet
from dti_geom.models.pipelines.base import TextToImage
from dti_geom.models.pipelines.registry import PIPELINES, family_of
from dti_geom.models.sources import Folder, read_json


def open_text_to_image(
    model: str, *, device: str = "cpu", dtype: torch.dtype | None = None
) -> TextToImage:
    """Open a text-to-image model, ready to train a token on or to paint with.

    model: a name of `MODELS`, a Hub id, or a pipeline folder. dtype: of everything but the
    autoencoder; default `default_dtype(device)`. Raises UnknownModel, ModelFilesError.
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
    import diffusers

    options: dict[str, Any] = {"dtype": family_of(kind).part_dtypes(dtype or default_dtype(device))}
    if "safety_checker" in index:
        options |= {"safety_checker": None, "requires_safety_checker": False}
    place = source.path if isinstance(source, Folder) else source.name
    try:
        with quiet(import_transformers()), quiet(diffusers):
            pipeline = getattr(diffusers, kind).from_pretrained(place, **options)
    except LOADING_ERRORS as error:
        raise ModelFilesError(
            f"{source.name} did not open as a {kind} ({first_line(error)}). Fetch it again."
        ) from error
    return family_of(kind)(pipeline.to(device), model, profile_of(model))


def default_dtype(device: str) -> torch.dtype:
    """Return bfloat16 where the device multiplies it faster than float32, else float32."""
    if torch.device(device).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if torch.device(device).type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return torch.float32
