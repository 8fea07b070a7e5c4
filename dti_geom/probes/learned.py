"""Learned embeddings as the probes take them: single vectors with names."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dti_geom.errors import EmbeddingFileError
from dti_geom.files import EmbeddingFile

INIT_KEYS = ("init", "initializer_token")  # of a file's metadata: ours, and what diffusers calls it


@dataclass(frozen=True)
class LearnedVector:
    """One vector of a learned token."""

    token: str
    index: int  # among the token's vectors, from 0
    tower: str | None  # as the file says, e.g. clip_l
    path: Path
    vector: Tensor  # (d,)
    label: str  # the token, with [index] where it has several vectors
    init: str | None = None  # the word it started from, as the file says


def learned_vectors(files: Iterable[EmbeddingFile]) -> list[LearnedVector]:
    """Every vector of these files, in their order."""
    return [
        LearnedVector(
            learned.token,
            index,
            learned.tower,
            file.path,
            vector,
            learned.token if len(learned.vectors) == 1 else f"{learned.token}[{index}]",
            next((file.metadata[key] for key in INIT_KEYS if file.metadata.get(key)), None),
        )
        for file in files
        for learned in file.tokens
        for index, vector in enumerate(learned.vectors)
    ]


def of_width(learned: Sequence[LearnedVector], dim: int) -> list[LearnedVector]:
    """The vectors that can stand in a token table of that width."""
    return [one for one in learned if one.vector.shape[-1] == dim]


def require_some_fit(learned: Sequence[LearnedVector], widths: Iterable[int], model: str) -> None:
    """Raise EmbeddingFileError if there are vectors, and none has the width of one of the model's encoders."""
    wanted = sorted(set(widths))
    if learned and not any(one.vector.shape[-1] in wanted for one in learned):
        found = sorted({one.vector.shape[-1] for one in learned})
        raise EmbeddingFileError(
            f"{learned[0].path}: vectors of width {_listed(found)}, but the encoders of {model} have width "
            f"{_listed(wanted)}. Choose the model these were trained for with --model."
        )


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
