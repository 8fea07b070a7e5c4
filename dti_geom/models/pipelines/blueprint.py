"""A text-to-image model without weights, built from its configuration files alone.

Its parts lie on the meta device: shapes and dtypes are those of the real model, numbers there are
none. The same hooks run on it, so a training step can be costed before anything is downloaded.
"""

import inspect
from typing import Any

import torch
from torch import nn

from dti_geom.errors import ModelFilesError
from dti_geom.models.loading import (
    explained,
    import_transformers,
    load_tokenizer,
    quiet,
    tokenizer_files,
)
from dti_geom.models.pipelines.base import TextToImage
from dti_geom.models.pipelines.registry import PIPELINES, family_of
from dti_geom.models.profiles import NO_PROFILE, Profile
from dti_geom.models.sources import Source, read_json

META = torch.device("meta")


def meta_model(source: Source, dtype: torch.dtype, profile: Profile = NO_PROFILE) -> TextToImage:
    """Return the pipeline of a source on the meta device, with its real tokenizers.

    dtype: of everything but the parts to which the family gives another. Reads model_index.json,
    the configurations and the tokenizers. Raises ModelFilesError.
    """
    import diffusers

    index = read_json(source, "model_index.json")
    kind = str(index.get("_class_name"))
    if kind not in PIPELINES:
        raise ModelFilesError(
            f"{source.name} is a {kind}; a token can be trained on {', '.join(PIPELINES)}."
        )
    dtypes = family_of(kind).part_dtypes(dtype)
    components = {}
    problem = f"the configuration of {source.name} does not describe a {kind}"
    with explained(problem), quiet(import_transformers()), quiet(diffusers):
        pipeline_class: Any = getattr(diffusers, kind)
        for name in inspect.signature(pipeline_class).parameters:
            library, class_name = _named(index, name)
            if class_name is not None:
                part_dtype = dtypes.get(name, dtypes["default"])
                components[name] = _part(source, name, library, class_name, part_dtype)
            elif name in ("safety_checker", "feature_extractor"):
                components[name] = None
        options = {"requires_safety_checker": False} if "safety_checker" in components else {}
        pipeline = pipeline_class(**components, **options)
    model = family_of(kind)(pipeline, source.name, profile)
    for tower in model.towers:
        keep_masks_unread(tower.module)
    return model


def keep_masks_unread(encoder: nn.Module) -> None:
    """Let a text encoder on the meta device take the masks of prompts without looking into them."""
    encoder.register_forward_pre_hook(_with_square_mask, with_kwargs=True)


def _with_square_mask(
    module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]
) -> tuple[Any, Any]:
    """Give a text encoder the mask of its attention, as large as the one that it would make.

    From a mask of places transformers makes none where all are 1, and here no number is known.
    """
    # Wan gives the mask as its second argument.
    given = dict(zip(("input_ids", "attention_mask"), args, strict=False)) | options
    mask, ids = given.get("attention_mask"), given.get("input_ids")
    if mask is None or ids is None or mask.ndim != 2 or mask.shape != ids.shape:
        return args, options
    count, length = mask.shape
    encoder: Any = module
    eager = encoder.config._attn_implementation == "eager"
    square = torch.zeros(
        (count, 1, length, length), dtype=encoder.dtype if eager else torch.bool, device=META
    )
    return args[:1], options | {"attention_mask": square}


def _named(index: dict[str, Any], name: str) -> tuple[str | None, str | None]:
    """Return library and class of a component that training uses, (None, None) for others."""
    entry = index.get(name)
    if not isinstance(entry, list) or name in ("safety_checker", "feature_extractor"):
        return None, None
    return entry[0], entry[1]


def _part(
    source: Source, name: str, library: str | None, class_name: str, dtype: torch.dtype
) -> Any:
    """Return a component: a real tokenizer or scheduler, or a module on the meta device."""
    import diffusers

    if name.startswith("tokenizer"):
        return load_tokenizer(source, tokenizer_files(source, f"{name}/"), class_name)
    if name == "scheduler":
        config = read_json(source, "scheduler/scheduler_config.json")
        return getattr(diffusers, class_name).from_config(config)
    config = read_json(source, f"{name}/config.json")
    with META:
        if library == "transformers":
            part_class = getattr(import_transformers(), class_name)
            module: nn.Module = part_class(part_class.config_class.from_dict(config))
        else:
            module = getattr(diffusers, class_name).from_config(config)
    return module.to(dtype)
