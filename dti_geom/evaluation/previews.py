"""The preview that a trainer painted of a token, as the token's file records it."""

import json
from dataclasses import dataclass

from dti_geom.errors import EvaluationError
from dti_geom.files import EmbeddingFile, from_json


@dataclass(frozen=True)
class Preview:
    """The settings of a preview.

    `paint_pictures` with these settings, the token placed, and all pictures in one batch gives
    byte-identical files on a CPU.
    """

    model: str
    prompts: tuple[str, ...]  # the token filled in
    seeds: tuple[int, ...]
    steps: int
    guidance: float
    size: int  # pixels of a side
    dtype: str  # of the model
    instruction: bool | None = None  # whether prompts follow SANA's; None: the model's own


def read_preview(file: EmbeddingFile) -> Preview:
    """Return the preview in a token file's metadata. Raises EvaluationError if there is none."""
    try:
        model, settings = file.metadata["base_model"], json.loads(file.metadata["preview"])
        return from_json(Preview, {"model": model, **settings})
    except (KeyError, TypeError, ValueError) as error:
        raise EvaluationError(
            f"{file.path} does not say how it was previewed. `dti-geom train` writes that; for "
            "other files give --embedding, --prompt and --seed."
        ) from error
