"""Learned embeddings as single vectors with names, as probes take them."""

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
    step: int | None = None  # the update after which it was stored, as the file says
    method: str | None = None  # the training method, as the file says

    def __repr__(self) -> str:
        """Return label, width, norm and file on one line."""
        norm = float(self.vector.float().norm())
        return f"<LearnedVector {self.label!r}: {len(self.vector)}, norm {norm:.4g}, {self.path}>"


def learned_vectors(files: Iterable[EmbeddingFile]) -> list[LearnedVector]:
    """Return every vector of these files, in their order."""
    vectors = []
    for file in files:
        init = next((file.metadata[key] for key in INIT_KEYS if file.metadata.get(key)), None)
        for learned in file.tokens:
            several = len(learned.vectors) > 1
            vectors += [
                LearnedVector(
                    token=learned.token,
                    index=index,
                    tower=learned.tower,
                    path=file.path,
                    vector=vector,
                    label=f"{learned.token}[{index}]" if several else learned.token,
                    init=init,
                    step=file.step,
                    method=file.metadata.get("method"),
                )
                for index, vector in enumerate(learned.vectors)
            ]
    return vectors


def of_width(learned: Sequence[LearnedVector], dim: int) -> list[LearnedVector]:
    """Return the vectors that can stand in a token table of that width."""
    return [vector for vector in learned if vector.vector.shape[-1] == dim]


def require_some_fit(learned: Sequence[LearnedVector], widths: Iterable[int], model: str) -> None:
    """Raise EmbeddingFileError if there are vectors and none has the width of an encoder."""
    wanted = sorted(set(widths))
    given = sorted({vector.vector.shape[-1] for vector in learned})
    if given and not set(given) & set(wanted):
        raise EmbeddingFileError(
            f"{learned[0].path}: vectors of width {_listed(given)}, but the encoders of {model} "
            f"have width {_listed(wanted)}. Choose the model these were trained for with --model."
        )


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
