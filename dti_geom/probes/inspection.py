"""What is in an embedding file, and how long are its vectors against the vocabulary they live in?"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from dti_geom import geometry
from dti_geom.artifacts import EmbeddingFile
from dti_geom.geometry import NormSummary
from dti_geom.models import PUBLISHED
from dti_geom.probes.learned import LearnedVector, learned_vectors


@dataclass(frozen=True)
class Reference:
    """The mean token norm that vectors of one width are held against."""

    mean_norm: float
    source: str  # which table, measured or published


@dataclass(frozen=True)
class InspectedVector:
    """One vector of an embedding file."""

    token: str
    tower: str | None  # as the file says, else guessed from the width; None for a width nobody publishes
    index: int
    dim: int
    dtype: str
    norm: float  # embedding units
    inflation: float | None  # norm / mean norm of the reference; None where there is no reference
    reference: str | None


@dataclass(frozen=True)
class InspectedFile:
    """An embedding file, read without running anything in it."""

    path: str
    format: str
    step: int | None  # training step: stored in the file, else read from its name
    vectors: tuple[InspectedVector, ...]


def inspect_file(file: EmbeddingFile, measured: Mapping[int, Reference] | None = None) -> InspectedFile:
    """Vectors, norms and inflation of one file; `measured` references, by width, go before the published ones."""
    references = published_references() | dict(measured or {})
    return InspectedFile(
        path=str(file.path),
        format=file.format,
        step=file.step if file.step is not None else _step_in_name(file.path.stem),
        vectors=tuple(_inspect(one, references) for one in learned_vectors([file])),
    )


def published_references() -> dict[int, Reference]:
    """Mean norms that others have published, by width."""
    return {
        width: Reference(table.mean_norm, f"published mean of {table.tower}")
        for width, table in PUBLISHED.items()
        if table.mean_norm is not None
    }


def measured_reference(model: str, encoder: str, summary: NormSummary) -> Reference:
    """The mean norm of a token table that is at hand."""
    return Reference(summary.mean, f"{encoder} of {model}")


def _inspect(one: LearnedVector, references: Mapping[int, Reference]) -> InspectedVector:
    dim = one.vector.shape[-1]
    norm = float(geometry.norms(one.vector))
    reference = references.get(dim)
    published = PUBLISHED.get(dim)
    return InspectedVector(
        token=one.token,
        tower=one.tower or (published.tower if published else None),
        index=one.index,
        dim=dim,
        dtype=str(one.vector.dtype).removeprefix("torch."),
        norm=norm,
        inflation=norm / reference.mean_norm if reference else None,
        reference=reference.source if reference else None,
    )


def _step_in_name(stem: str) -> int | None:
    """Checkpoints of the common trainers are called `…-step-500` or `…_steps_500`."""
    match = re.search(r"steps?[-_ ]?(\d+)", stem, re.IGNORECASE)
    return int(match[1]) if match else None
