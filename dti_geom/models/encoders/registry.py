"""The known encoder architectures. Adding one is a file beside this one and a line here."""

from collections.abc import Mapping
from typing import Any

from dti_geom.errors import ModelFilesError
from dti_geom.models.encoders import (
    bert,
    clip,
    gemma2,
    llama,
    roberta,
    smollm3,
    t5,
    t5gemma,
    vision_language,
)
from dti_geom.models.encoders.base import Architecture

ARCHITECTURES: tuple[Architecture, ...] = (
    clip.ARCHITECTURE,
    gemma2.ARCHITECTURE,
    llama.ARCHITECTURE,
    vision_language.ARCHITECTURE,
    smollm3.ARCHITECTURE,
    t5.ARCHITECTURE,
    t5gemma.ARCHITECTURE,
    bert.ARCHITECTURE,
    roberta.ARCHITECTURE,
)


def architecture_of(config: Mapping[str, Any], where: str) -> Architecture:
    """Return the architecture of a transformers `config.json`.

    where: the file, for the message. Raises ModelFilesError for an unknown `model_type`.
    """
    model_type = str(config.get("model_type", "(none)"))
    known: dict[str, Architecture] = {}
    for architecture in ARCHITECTURES:
        known |= dict.fromkeys(architecture.model_types, architecture)
    if model_type not in known:
        raise ModelFilesError(
            f"{where}: model_type '{model_type}' is not a text encoder known here. "
            f"Known: {', '.join(sorted(known))}. To add one, write a file in "
            "dti_geom/models/encoders and name it in registry.py there."
        )
    return known[model_type]
