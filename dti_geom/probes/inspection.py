"""What is in an embedding file, how long are its vectors against their vocabulary, and what should be done about it?"""

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
from dti_geom.probes.neighbors import Neighbors, Query, Similar, find_neighbors

NEAREST = 3
TWIN = 0.95  # cosine from which two vectors of a file are near-duplicates
ROUNDING = 2e-3  # relative distance that storing a row in 16 bits can cause
ODD = 1.5  # norm over a published mean, or mean over norm, beyond which a vector is out of distribution
OUTER = 1  # percent of the vocabulary at either end that counts as out of distribution

Verdict = Literal["in distribution", "inflated", "short", "broken", "plain", "unknown"]


@dataclass(frozen=True)
class Reference:
    """The mean token norm that vectors of one width are held against."""

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
    tower: (
        str | None
    )  # as the file says, else guessed from the width; None for a width nobody publishes
    index: int
    dim: int
    dtype: str
    norm: float  # embedding units
    inflation: float | None  # norm / mean norm of the reference; None where there is no reference
    reference: str | None
    percentile: float | None = (
        None  # share of the vocabulary's rows that are not longer, in percent
    )
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


def inspect_file(
    file: EmbeddingFile, measured: Mapping[int, Reference] | None = None
) -> InspectedFile:
    """Vectors, norms and inflation of one file; `measured` references, by width, go before the published ones."""
    references = published_references() | dict(measured or {})
    return InspectedFile(
        path=str(file.path),
        format=file.format,
        step=file.step if file.step is not None else _step_in_name(file.path.stem),
        vectors=tuple(_inspect(one, references) for one in learned_vectors([file])),
    )


def inspect_files(
    files: Sequence[EmbeddingFile], encoders: Sequence[TextEncoder] = (), model: str = ""
) -> tuple[InspectedFile, ...]:
    """A diagnosis of each file, with one sentence of advice.

    With the encoders of a model, each vector is also placed among the vocabulary of its width: norm percentile, nearest
    tokens, and whether it is a plain row of it. Vectors of one file are compared with each other, and the checkpoints
    of a folder in the order of their steps.
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
        found = tuple(
            replace(
                seen,
                percentile=place.percentile,
                nearest=place.nearest,
                copy_of=place.copy_of,
                twin=_twin(one, vectors),
                turn=turns.get((file.path, one.token, one.tower, one.index)),
            )
            for seen, one, place in zip(file.vectors, vectors, places, strict=True)
        )
        diagnosed.append(_advised(replace(file, vectors=found), model))
    return tuple(diagnosed)


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


class _Table:
    """A vocabulary, with what every vector is held against computed once."""

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
        fitting = [at for at, one in enumerate(vectors) if len(one.vector) == table.width]
        directed = [at for at in fitting if vectors[at].vector.any()]
        queries = [Query(vectors[at].label, vectors[at].vector) for at in directed]
        found = dict(zip(directed, find_neighbors(table.encoder, queries, NEAREST), strict=True))
        for at in fitting:
            places[at] = _place(vectors[at].vector, table, found.get(at))
    return places


def _place(vector: Tensor, table: _Table, near: Neighbors | None) -> _Place:
    norm = geometry.norms(vector).to(table.ascending)
    not_longer = int(torch.searchsorted(table.ascending, norm, right=True))
    percentile = 100 * not_longer / len(table.ascending)
    if near is None:  # a zero vector has no neighbours
        return _Place(percentile)
    closest = near.euclidean[0]
    distance = float(
        (table.encoder.token_table[closest.id].cpu().double() - vector.double()).norm()
    )
    return _Place(
        percentile, near.cosine, closest.token if distance <= ROUNDING * float(norm) else None
    )


def _twin(one: LearnedVector, vectors: Sequence[LearnedVector]) -> Twin | None:
    """The most similar other vector of the same tower and width, if it is similar enough."""
    others = [each for each in vectors if each is not one and each.tower == one.tower]
    others = of_width(others, len(one.vector))
    if not others:
        return None
    stacked = torch.stack([each.vector.double() for each in others])
    similar = torch.cosine_similarity(one.vector.double(), stacked, dim=-1)
    best = int(similar.argmax())
    if similar[best] < TWIN:
        return None
    return Twin(others[best].token, others[best].index, min(1.0, float(similar[best])))


def _turns(
    inspected: Sequence[InspectedFile], learned: Sequence[Sequence[LearnedVector]]
) -> dict[tuple[str, str, str | None, int], Turn]:
    """The turn of every later checkpoint in a folder, by path, token, tower and index."""
    runs: dict[tuple[object, ...], dict[int, LearnedVector]] = defaultdict(dict)
    for file, vectors in zip(inspected, learned, strict=True):
        for one in vectors:
            if file.step is not None and one.vector.any():
                run = runs[
                    PurePath(file.path).parent, one.token, one.tower, one.index, len(one.vector)
                ]
                run.setdefault(file.step, one)
    turns = {}
    for run in runs.values():
        ordered = [run[step] for step in sorted(run)]
        for before, one in pairwise(ordered):
            turn = Turn(_degrees(ordered[0], one), _degrees(before, one))
            turns[str(one.path), one.token, one.tower, one.index] = turn
    return turns


def _degrees(one: LearnedVector, other: LearnedVector) -> float:
    directions = [geometry.normalize(each.vector.double()) for each in (one, other)]
    return math.degrees(geometry.angle(*directions))


# --- Advice ---


def _advised(file: InspectedFile, model: str) -> InspectedFile:
    verdict, advice = _advice(file, model)
    same = sum(
        one.twin is not None and one.twin.similarity > 1 - ROUNDING**2 for one in file.vectors
    )
    if same:
        advice += f"; {same} of its {len(file.vectors)} vectors point the same way as another"
    return replace(file, verdict=verdict, advice=f"{advice}.")


def _advice(file: InspectedFile, model: str) -> tuple[Verdict, str]:
    zero = next((one for one in file.vectors if not one.norm), None)
    if zero:
        found = f"broken: vector {zero.index} is zero and has no direction; take an earlier file of the same training run"
        return "broken", found
    if all(one.copy_of for one in file.vectors):
        rows = ", ".join(dict.fromkeys(one.copy_of for one in file.vectors if one.copy_of))
        return "plain", f"plain vocabulary: nothing in it is learned, its rows are {rows}"
    judged = [(one.inflation, one) for one in file.vectors if one.inflation is not None]
    if not judged:
        widths = ", ".join(sorted({str(one.dim) for one in file.vectors}))
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


def _is_long(one: InspectedVector) -> bool:
    if one.percentile is not None:
        return one.percentile > 100 - OUTER
    return one.inflation is not None and one.inflation > ODD


def _is_short(one: InspectedVector) -> bool:
    if one.percentile is not None:
        return one.percentile < OUTER
    return one.inflation is not None and one.inflation < 1 / ODD


def _command(file: InspectedFile, one: InspectedVector, model: str) -> str:
    layout = {"web-ui": "webui", "ldm": "webui", "emb_params": "kohya", "sdxl": "sdxl"}.get(
        file.format, "diffusers"
    )
    if one.percentile is not None and model:
        rule = f"mean --model {shlex.quote(model)}"
    elif len({each.dim for each in file.vectors}) > 1:
        rule = "mean --model sdxl"
    else:
        rule = f"{one.norm / (one.inflation or 1):.4g}"
    return f"dti-geom convert {shlex.quote(file.path)} --to {layout} --rescale {rule}"
