"""The preview that a trainer painted of a token, as its file remembers it."""

import json
from dataclasses import dataclass

from dti_geom.errors import EvaluationError
from dti_geom.files import EmbeddingFile, from_json


@dataclass(frozen=True)
class Preview:
    """What makes the pictures again: with the token placed, `paint_pictures` in one batch gives the same bytes."""

    model: str
    prompts: tuple[str, ...]  # the token filled in
    seeds: tuple[int, ...]
    steps: int
    guidance: float
    size: int  # pixels of a side
    dtype: str  # of the model


def read_preview(file: EmbeddingFile) -> Preview:
    """The preview in a token file's metadata. Raises EvaluationError for a file that remembers none."""
    try:
        model, told = file.metadata["base_model"], json.loads(file.metadata["preview"])
        return from_json(Preview, {"model": model, **told})
    except (KeyError, TypeError, ValueError) as error:
        raise EvaluationError(
            f"{file.path} does not say how it was previewed. `dti-geom train` writes that; for other files give "
            "--embedding, --prompt and --seed."
        ) from error
