"""Open a whole text-to-image model from its name, folder or Hub id."""

import json
from pathlib import Path
from typing import Any

import torch

from dti_geom.errors import ModelFilesError
from dti_geom.models.catalog import (
    check_device,
    encoders_of,
    find_source,
    profile_of,
    variant_of,
)
from dti_geom.models.checkpoints import Checkpoint
from dti_geom.models.downloads import (
    UNUSED_PARTS,
    Download,
    fetch,
    needed_files,
)
from dti_geom.models.encoders.registry import architecture_of
from dti_geom.models.loading import check_readable, explained, import_transformers, laid_out, quiet
from dti_geom.models.pipelines.base import TextToImage
from dti_geom.models.pipelines.registry import PIPELINES, family_of
from dti_geom.models.sources import HubRepository, Source, read_json
from dti_geom.models.variants import apply_gain
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

    model: a name of `MODELS`, a Hub id, a pipeline folder, or a variant such as `mini:gain=64`.
    dtype: of everything but the autoencoder; default `default_dtype(device)`. progress: called
    with the bytes of a download. Raises UnknownModel, ModelFilesError.
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
    if isinstance(source, Checkpoint) and source.kind.doubt and model == source.name:
        notice(f"{model} is {source.kind.what}: {source.kind.doubt}.")
    if dtype == torch.float32 != default_dtype(device):
        _say_if_half(model, source, plan)
    pipeline = _load(source, plan, index, wanted)
    variant = variant_of(model)
    if variant.gain != 1:
        _apply_gain(pipeline, source.name, variant.gain)
    with explained(f"{source.name} did not open as a {kind}"):
        pipeline = pipeline.to(device)
    opened = family_of(kind)(pipeline, model, profile_of(model))
    opened.training = opened.training.at_gain(variant.gain, keep_decay=variant.keep_decay)
    if isinstance(source, HubRepository):
        opened.commit = source.commit()
    return opened


def _load(source: Source, plan: Download, index: dict[str, Any], dtype: torch.dtype) -> Any:
    """Return the diffusers pipeline. Raises ModelFilesError."""
    import diffusers

    kind = index["_class_name"]
    options: dict[str, Any] = {}
    if "safety_checker" in index:
        options = {"requires_safety_checker": False}
    dtypes = family_of(kind).part_dtypes(dtype)
    names = {file.name: file.loaded_as for file in plan.files}
    check_readable(names)
    absent = {part: [None, None] for part in UNUSED_PARTS if part in index}
    problem = f"{source.name} did not open as a {kind}"
    with (
        explained(problem),
        quiet(import_transformers()),
        quiet(diffusers),
        laid_out(source, names) as folder,
    ):
        (folder / "model_index.json").write_text(json.dumps(index | absent))
        if isinstance(source, Checkpoint):
            return _load_checkpoint(source, folder, kind, dtype=dtype, options=options)
        return getattr(diffusers, kind).from_pretrained(
            folder, dtype=dtypes, local_files_only=True, trust_remote_code=False, **options
        )


def _apply_gain(pipeline: Any, name: str, gain: float) -> None:
    """Multiply the tables of a pipeline's text encoders in place."""
    for part, module in pipeline.components.items():
        if part.startswith("text_encoder") and module is not None:
            apply_gain(module, architecture_of(module.config.to_dict(), f"{name}/{part}"), gain)


def _load_checkpoint(
    source: Checkpoint, folder: Path, kind: str, *, dtype: torch.dtype, options: dict[str, Any]
) -> Any:
    """Return the diffusers pipeline of a single-file checkpoint.

    folder: its configurations and a link to the file. Text encoders are opened as the probes open
    them, which checks that no tensor is missing.
    """
    import diffusers

    file, place = str(folder / source.path.name), str(folder)
    encoders = encoders_of(source, device="cpu", dtype=dtype)
    towers = {encoder.name: encoder.module for encoder in encoders}
    try:
        vae = diffusers.AutoencoderKL.from_single_file(
            file, config=place, subfolder="vae", torch_dtype=torch.float32
        )
        return getattr(diffusers, kind).from_single_file(
            file, config=place, torch_dtype=dtype, vae=vae, **towers, **options
        )
    except NotImplementedError as error:  # a parameter was left without a value
        raise ModelFilesError(
            f"{source.name} lacks tensors of its UNet or its autoencoder. Fetch the file again, or "
            f"name another configuration: --model {source.name}@./my-model"
        ) from error


def _say_if_half(model: str, source: Source, plan: Download) -> None:
    """Say which parts are stored in half precision although float32 was asked for."""
    halves = (torch.float16, torch.bfloat16)
    stored = [file.name for file in plan.files if stored_dtype(source, file.name) in halves]
    if stored:
        parts = ", ".join(dict.fromkeys(name.split("/")[0] for name in stored))
        notice(
            f"{model} stores {parts} in half precision only. In float32 they take twice the "
            "memory and gain no digits; --dtype bfloat16 or float16 leaves them as they are."
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
