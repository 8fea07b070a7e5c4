"""Inspect embedding files: what is in them, how long their vectors are, and what to do about it."""

import math
import re
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import PurePath
from typing import Literal

import torch
from torch import Tensor

from dti_geom import geometry
from dti_geom.files import EmbeddingFile
from dti_geom.geometry import NormSummary
from dti_geom.models import PUBLISHED, TextEncoder
from dti_geom.probes.learned import LearnedVector, learned_vectors, of_width
from dti_geom.probes.neighbors import Query, Similar, TokenNeighbors, find_neighbors
from dti_geom.probes.result import Result

NEAREST = 3
TWIN = 0.95  # cosine from which two vectors of a file are near-duplicates
ROUNDING = 2e-3  # relative distance that storing a row in 16 bits can cause
ODD = 1.5  # norm ÷ published mean, or its inverse, beyond which a vector is out of distribution
OUTER = 1  # percent of the vocabulary at either end that counts as out of distribution

Verdict = Literal["in distribution", "inflated", "short", "broken", "plain", "unknown"]


@dataclass(frozen=True)
class ReferenceNorm:
    """The mean token norm that vectors of one width are compared with."""

    mean_norm: float
    source: str  # which table, measured or published


@dataclass(frozen=True)
class Twin:
    """Another vector of the same file that points almost the same way."""

    token: str
    index: int
    similarity: float  # cosine, TWIN … 1


@dataclass(frozen=True)
class Turn:
    """How far training has turned a vector, over the checkpoints of its folder."""

    from_first: float  # degrees, 0 … 180
    from_previous: float


@dataclass(frozen=True)
class InspectedVector:
    """One vector of an embedding file."""

    token: str
    tower: str | None  # as the file says, else by its width; None: no known encoder has it
    index: int
    dim: int
    dtype: str
    norm: float  # embedding units
    inflation: float | None  # norm / mean norm of the reference; None where there is no reference
    reference: str | None
    percentile: float | None = None  # share of the vocabulary's rows that are not longer, percent
    nearest: tuple[Similar, ...] = ()  # rows of the vocabulary by direction
    copy_of: str | None = None  # the row of the vocabulary that this is, up to rounding
    twin: Twin | None = None
    turn: Turn | None = None  # None for the first checkpoint of a run


@dataclass(frozen=True)
class InspectedFile:
    """An embedding file, read without running anything in it."""

    path: str
    format: str
    step: int | None  # training step: stored in the file, else read from its name
    vectors: tuple[InspectedVector, ...]
    verdict: Verdict = "unknown"
    advice: str = ""  # one sentence


@dataclass(frozen=True)
class Inspection(Result):
    """Embedding files that were inspected together."""

    files: tuple[InspectedFile, ...]


def inspect_file(
    file: EmbeddingFile, measured: Mapping[int, ReferenceNorm] | None = None
) -> InspectedFile:
    """Return vectors, norms and inflation of one file.

    measured: references by width, used instead of the published ones.
    """
    references = published_references() | dict(measured or {})
    return InspectedFile(
        path=str(file.path),
        format=file.format,
        step=file.step if file.step is not None else _step_in_name(file.path.stem),
        vectors=tuple(_inspect(vector, references) for vector in learned_vectors([file])),
    )


def inspect_files(
    files: Sequence[EmbeddingFile], encoders: Sequence[TextEncoder] = (), model: str = ""
) -> Inspection:
    """Return a diagnosis of each file, with one sentence of advice.

    encoders: with those of a model, each vector is also placed in the vocabulary of its width: norm
    percentile, nearest tokens, and whether it is a plain row of it. Vectors of one file are
    compared with each other, and checkpoints of a folder in the order of their steps.
    """
    tables = [_Table(encoder) for encoder in encoders]
    references = {
        table.width: measured_reference(model, table.encoder.name, table.summary)
        for table in tables
    }
    inspected = [inspect_file(file, references) for file in files]
    learned = [learned_vectors([file]) for file in files]
    turns = _turns(inspected, learned)
    diagnosed = []
    for file, vectors in zip(inspected, learned, strict=True):
        places = _places(vectors, tables)
        placed = tuple(
            replace(
                plain,
                percentile=place.percentile,
                nearest=place.nearest,
                copy_of=place.copy_of,
                twin=_twin(vector, vectors),
                turn=turns.get((file.path, vector.token, vector.tower, vector.index)),
            )
            for plain, vector, place in zip(file.vectors, vectors, places, strict=True)
        )
        diagnosed.append(_advised(replace(file, vectors=placed), model))
    return Inspection(tuple(diagnosed))


def published_references() -> dict[int, ReferenceNorm]:
    """Return published mean norms, by width."""
    return {
        width: ReferenceNorm(table.mean_norm, f"published mean of {table.tower}")
        for width, table in PUBLISHED.items()
        if table.mean_norm is not None
    }


def measured_reference(model: str, encoder: str, summary: NormSummary) -> ReferenceNorm:
    """Return the measured mean norm of a model's token table as a reference."""
    return ReferenceNorm(summary.mean, f"{encoder} of {model}")


def _inspect(vector: LearnedVector, references: Mapping[int, ReferenceNorm]) -> InspectedVector:
    dim = vector.vector.shape[-1]
    norm = float(geometry.norms(vector.vector))
    reference = references.get(dim)
    published = PUBLISHED.get(dim)
    return InspectedVector(
        token=vector.token,
        tower=vector.tower or (published.tower if published else None),
        index=vector.index,
        dim=dim,
        dtype=str(vector.vector.dtype).removeprefix("torch."),
        norm=norm,
        inflation=norm / reference.mean_norm if reference else None,
        reference=reference.source if reference else None,
    )


def _step_in_name(stem: str) -> int | None:
    """Return 500 for `…-step-500` or `…_steps_500`, as common trainers name checkpoints."""
    match = re.search(r"steps?[-_ ]?(\d+)", stem, re.IGNORECASE)
    return int(match[1]) if match else None


class _Table:
    """A vocabulary, with what every vector is compared with computed once."""

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder = encoder
        self.width = encoder.token_table.shape[1]
        lengths = geometry.row_norms(encoder.token_table)
        self.summary = geometry.summarize_norms(encoder.token_table, lengths)
        self.ascending = lengths[lengths > 0].sort().values


@dataclass(frozen=True)
class _Place:
    percentile: float | None = None
    nearest: tuple[Similar, ...] = ()
    copy_of: str | None = None


def _places(vectors: Sequence[LearnedVector], tables: Sequence[_Table]) -> list[_Place]:
    places = [_Place()] * len(vectors)
    for table in tables:
        fitting = [at for at, vector in enumerate(vectors) if len(vector.vector) == table.width]
        directed = [at for at in fitting if vectors[at].vector.any()]
        queries = [Query(vectors[at].label, vectors[at].vector) for at in directed]
        nearest = find_neighbors(table.encoder, queries, NEAREST)
        by_vector = dict(zip(directed, nearest, strict=True))
        for at in fitting:
            places[at] = _place(vectors[at].vector, table, by_vector.get(at))
    return places


def _place(vector: Tensor, table: _Table, near: TokenNeighbors | None) -> _Place:
    norm = geometry.norms(vector).to(table.ascending)
    not_longer = int(torch.searchsorted(table.ascending, norm, right=True))
    percentile = 100 * not_longer / len(table.ascending)
    if near is None:  # a zero vector has no neighbours
        return _Place(percentile)
    # A copy is compared by distance: storing a row in 16 bits moves it a little.
    closest = near.euclidean[0]
    distance = float(
        (table.encoder.token_table[closest.id].cpu().double() - vector.double()).norm()
    )
    return _Place(
        percentile, near.cosine, closest.token if distance <= ROUNDING * float(norm) else None
    )


def _twin(vector: LearnedVector, vectors: Sequence[LearnedVector]) -> Twin | None:
    """Return the most similar other vector of the same tower and width, if similar enough."""
    others = [other for other in vectors if other is not vector and other.tower == vector.tower]
    others = of_width(others, len(vector.vector))
    if not others:
        return None
    stacked = torch.stack([other.vector.double() for other in others])
    similar = torch.cosine_similarity(vector.vector.double(), stacked, dim=-1)
    best = int(similar.argmax())
    if similar[best] < TWIN:
        return None
    return Twin(others[best].token, others[best].index, min(1.0, float(similar[best])))


def _turns(
    inspected: Sequence[InspectedFile], learned: Sequence[Sequence[LearnedVector]]
) -> dict[tuple[str, str, str | None, int], Turn]:
    """Return the turn of every later checkpoint in a folder, by path, token, tower and index."""
    runs: dict[tuple[object, ...], dict[int, LearnedVector]] = defaultdict(dict)
    for file, vectors in zip(inspected, learned, strict=True):
        if file.step is None:
            continue
        folder = PurePath(file.path).parent
        for vector in vectors:
            if vector.vector.any():
                key = (folder, vector.token, vector.tower, vector.index, len(vector.vector))
                runs[key].setdefault(file.step, vector)
    turns = {}
    for run in runs.values():
        ordered = [run[step] for step in sorted(run)]
        for before, vector in pairwise(ordered):
            turn = Turn(_degrees(ordered[0], vector), _degrees(before, vector))
            turns[str(vector.path), vector.token, vector.tower, vector.index] = turn
    return turns


def _degrees(first: LearnedVector, second: LearnedVector) -> float:
    directions = [geometry.normalize(vector.vector.double()) for vector in (first, second)]
    return math.degrees(geometry.angle(*directions))


# --- Advice ---


def _advised(file: InspectedFile, model: str) -> InspectedFile:
    verdict, advice = _advice(file, model)
    twins = [vector.twin for vector in file.vectors if vector.twin is not None]
    same = sum(twin.similarity > 1 - ROUNDING**2 for twin in twins)
    if same:
        advice += f"; {same} of its {len(file.vectors)} vectors point the same way as another"
    return replace(file, verdict=verdict, advice=f"{advice}.")


def _advice(file: InspectedFile, model: str) -> tuple[Verdict, str]:
    zero = next((vector for vector in file.vectors if not vector.norm), None)
    if zero:
        return "broken", (
            f"broken: vector {zero.index} is zero and has no direction; take an earlier file of "
            "the same training run"
        )
    copies = [vector.copy_of for vector in file.vectors if vector.copy_of]
    if len(copies) == len(file.vectors):
        rows = ", ".join(dict.fromkeys(copies))
        return "plain", f"plain vocabulary: nothing in it is learned, its rows are {rows}"
    judged = [(vector.inflation, vector) for vector in file.vectors if vector.inflation is not None]
    if not judged:
        widths = ", ".join(sorted({str(vector.dim) for vector in file.vectors}))
        return (
            "unknown",
            f"not judged: no mean norm is known for width {widths}; name the model with --model",
        )
    most, longest = max(judged, key=lambda pair: pair[0])
    least, shortest = min(judged, key=lambda pair: pair[0])
    if _is_long(longest):
        return (
            "inflated",
            f"inflated ×{most:.3g}: rescale it with `{_command(file, longest, model)}`",
        )
    if _is_short(shortest):
        return (
            "short",
            f"short, ×{least:.3g} of the mean: rescale it with `{_command(file, shortest, model)}`",
        )
    return "in distribution", "in distribution: leave it as it is"


def _is_long(vector: InspectedVector) -> bool:
    if vector.percentile is not None:
        return vector.percentile > 100 - OUTER
    return vector.inflation is not None and vector.inflation > ODD


def _is_short(vector: InspectedVector) -> bool:
    if vector.percentile is not None:
        return vector.percentile < OUTER
    return vector.inflation is not None and vector.inflation < 1 / ODD


def _command(file: InspectedFile, vector: InspectedVector, model: str) -> str:
    """Return the command that rescales the file."""
    layout = {"web-ui": "webui", "ldm": "webui", "emb_params": "kohya", "sdxl": "sdxl"}.get(
        file.format, "diffusers"
    )
    if vector.percentile is not None and model:
        rule = f"mean --model {shlex.quote(model)}"
    elif len({other.dim for other in file.vectors}) > 1:
        rule = "mean --model sdxl"
    else:
        rule = f"{vector.norm / (vector.inflation or 1):.4g}"  # the mean it was compared with
    return f"dti-geom convert {shlex.quote(file.path)} --to {layout} --rescale {rule}"
