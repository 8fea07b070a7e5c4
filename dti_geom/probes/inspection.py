"""Inspect embedding files: what is in them, how long their vectors are, and what to do about it."""

import math
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import PurePath
from typing import Literal

import torch
from torch import Tensor

from dti_geom import geometry
from dti_geom.files import EmbeddingFile, key_of
from dti_geom.files.encoder_keys import ENCODERS
from dti_geom.files.loaders import Loading, loadings
from dti_geom.geometry import NormSummary
from dti_geom.geometry.pairs import similar_pairs
from dti_geom.models import PUBLISHED, TextEncoder
from dti_geom.models.judging import ROUNDING, is_same_row, length_verdict, percentile_of
from dti_geom.probes.learned import LearnedVector, learned_vectors, of_width
from dti_geom.probes.neighbors import Query, Similar, TokenNeighbors, find_neighbors
from dti_geom.probes.result import Result

NEAREST = 3
TWIN = 0.95  # cosine from which two vectors are near-duplicates
MOST_DUPLICATES = 100  # pairs of near-duplicates across files that a result keeps

Verdict = Literal["in distribution", "inflated", "short", "broken", "plain", "unknown"]
# A vector that is a row of the vocabulary is neither inflated nor short, however long it is.
VectorVerdict = Literal["in distribution", "inflated", "short", "zero", "vocabulary", "unknown"]
MODEL_NAMES = {  # what to give --model for encoders whose mean norm nobody has published
    "clip_h": "sd21",
}


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
    # A file of another token with the same vector, as two have that keep a word of the vocabulary.
    shared_with: str | None = None
    verdict: VectorVerdict = "unknown"


@dataclass(frozen=True)
class Duplicate:
    """Two tokens of different files with vectors that point almost the same way."""

    path: str
    token: str
    index: int  # of the most similar pair
    other_path: str
    other_token: str
    other_index: int
    similarity: float  # cosine of that pair, TWIN … 1
    pairs: int  # of vectors at TWIN or above


@dataclass(frozen=True)
class InspectedFile:
    """An embedding file, read without running anything in it."""

    path: str
    format: str
    step: int | None  # training step: stored in the file, else read from its name
    vectors: tuple[InspectedVector, ...]
    verdict: Verdict = "unknown"
    advice: str = ""  # one sentence
    tools: tuple[Loading, ...] = ()  # who loads it, and what to type there
    command: str = ""  # rescales what is inflated or short; empty where nothing is


@dataclass(frozen=True)
class Inspection(Result):
    """Embedding files that were inspected together."""

    files: tuple[InspectedFile, ...]
    duplicates: tuple[Duplicate, ...] = ()  # across files, checkpoints of one run left out


def inspect_file(
    file: EmbeddingFile, measured: Mapping[int, ReferenceNorm] | None = None
) -> InspectedFile:
    """Return vectors, norms and inflation of one file.

    measured: references by width, used instead of the published ones; a width that they lack has
        no inflation.
    """
    references = measured if measured else published_references()
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
    shared, duplicates = _across_files(inspected, learned)
    diagnosed = []
    for file, source, vectors in zip(inspected, files, learned, strict=True):
        places = _places(vectors, tables)
        placed = tuple(
            _judged(
                replace(
                    plain,
                    percentile=place.percentile,
                    nearest=place.nearest,
                    copy_of=place.copy_of,
                    twin=_twin(vector, vectors),
                    turn=turns.get((file.path, vector.token, vector.tower, vector.index)),
                    shared_with=shared.get((file.path, vector.token, vector.tower, vector.index)),
                )
            )
            for plain, vector, place in zip(file.vectors, vectors, places, strict=True)
        )
        tools = loadings(source)
        diagnosed.append(_advised(replace(file, vectors=placed, tools=tools), model))
    return Inspection(tuple(diagnosed), duplicates)


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
    percentile = percentile_of(float(geometry.norms(vector)), table.ascending)
    if near is None:  # a zero vector has no neighbours
        return _Place(percentile)
    # A copy is compared by distance: storing a row in 16 bits moves it a little.
    closest = near.euclidean[0]
    is_copy = is_same_row(vector, table.encoder.token_table[closest.id].cpu())
    return _Place(percentile, near.cosine, closest.token if is_copy else None)


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


# --- Across files ---

_Key = tuple[str, str, str | None, int]  # path, token, tower, index


def _across_files(
    inspected: Sequence[InspectedFile], learned: Sequence[Sequence[LearnedVector]]
) -> tuple[dict[_Key, str], tuple[Duplicate, ...]]:
    """Return rows that files of different tokens share, and near-duplicates across files."""
    shared: dict[_Key, str] = {}
    duplicates: list[Duplicate] = []
    by_width: dict[int, list[tuple[tuple[object, ...], LearnedVector]]] = defaultdict(list)
    for file, vectors in zip(inspected, learned, strict=True):
        for vector in vectors:
            # Checkpoints of one run are expected to be alike.
            series = PurePath(file.path).parent if file.step is not None else file.path
            if vector.vector.any():
                group = (series, vector.token if file.step is not None else None)
                by_width[len(vector.vector)].append((group, vector))
    for members in by_width.values():
        pairs = _pairs_of(members)
        of_tokens: dict[tuple[str, ...], list[tuple[int, int, float]]] = defaultdict(list)
        for pair in pairs:
            first, second = members[pair[0]][1], members[pair[1]][1]
            of_tokens[str(first.path), first.token, str(second.path), second.token].append(pair)
        duplicates += [_duplicate(found, members) for found in of_tokens.values()]
        same = [(members[i][1], members[j][1]) for i, j, _ in pairs]
        shared |= _shared_rows([pair for pair in same if is_same_row(*_tensors(pair))], members)
    ordered = sorted(duplicates, key=lambda pair: -pair.similarity)
    return shared, tuple(ordered[:MOST_DUPLICATES])


def _pairs_of(
    members: Sequence[tuple[tuple[object, ...], LearnedVector]],
) -> list[tuple[int, int, float]]:
    numbers = {group: place for place, group in enumerate(dict.fromkeys(g for g, _ in members))}
    groups = torch.tensor([numbers[group] for group, _ in members])
    return similar_pairs(torch.stack([v.vector.float() for _, v in members]), groups, TWIN)


def _tensors(pair: tuple[LearnedVector, LearnedVector]) -> tuple[Tensor, Tensor]:
    return pair[0].vector, pair[1].vector


def _shared_rows(
    pairs: Sequence[tuple[LearnedVector, LearnedVector]],
    members: Sequence[tuple[tuple[object, ...], LearnedVector]],
) -> dict[_Key, str]:
    """Return the equal rows of files that are not copies of one another, as a whole."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for _, vector in members:
        counts[str(vector.path), vector.token] += 1
    together: dict[tuple[tuple[str, str], tuple[str, str]], list[_Pair]] = defaultdict(list)
    for pair in pairs:
        first, second = ((str(vector.path), vector.token) for vector in pair)
        together[first, second].append(pair)
    shared: dict[_Key, str] = {}
    for (first, second), equal in together.items():
        if len(equal) >= min(counts[first], counts[second]):
            continue  # one is a copy of the other, or a part of it
        for one, other in equal:
            shared[_key(one)] = str(other.path)
            shared[_key(other)] = str(one.path)
    return shared


_Pair = tuple[LearnedVector, LearnedVector]


def _key(vector: LearnedVector) -> _Key:
    return str(vector.path), vector.token, vector.tower, vector.index


def _duplicate(
    found: Sequence[tuple[int, int, float]],
    members: Sequence[tuple[tuple[object, ...], LearnedVector]],
) -> Duplicate:
    """Return what is known of two tokens from their similar vectors, most similar first."""
    i, j, similarity = found[0]
    first, second = members[i][1], members[j][1]
    return Duplicate(
        path=str(first.path),
        token=first.token,
        index=first.index,
        other_path=str(second.path),
        other_token=second.token,
        other_index=second.index,
        similarity=similarity,
        pairs=len(found),
    )


# --- Advice ---


def _judged(vector: InspectedVector) -> InspectedVector:
    """Return the vector with its own verdict."""
    verdict: VectorVerdict
    if not vector.norm:
        verdict = "zero"
    elif vector.copy_of or vector.shared_with:
        verdict = "vocabulary"
    else:
        verdict = length_verdict(vector.inflation, vector.percentile)
    return replace(vector, verdict=verdict)


def _advised(file: InspectedFile, model: str) -> InspectedFile:
    verdict, advice = _advice(file, model)
    command = _command(file, model, verdict)
    if command:
        advice += f"; rescale {'it' if len(_with(file, verdict)) == 1 else 'them'} with `{command}`"
    rows = _with(file, "vocabulary")
    if rows and verdict != "plain":
        advice += f"; {_of(rows, file)} {_is_are(rows)} plain vocabulary"
    if verdict != "unknown" and (unjudged := _with(file, "unknown")):
        advice += f"; {_of(unjudged, file)} {_is_are(unjudged)} not judged"
    twins = [vector.twin for vector in file.vectors if vector.twin is not None]
    same = sum(twin.similarity > 1 - ROUNDING**2 for twin in twins)
    if same:
        advice += f"; {same} of its {len(file.vectors)} vectors point the same way as another"
    return replace(file, verdict=verdict, advice=f"{advice}.", command=command)


def _with(file: InspectedFile, verdict: str) -> list[InspectedVector]:
    return [vector for vector in file.vectors if vector.verdict == verdict]


def _of(vectors: Sequence[InspectedVector], file: InspectedFile) -> str:
    """Say which of a file's vectors are meant: all of them, or a few by their indices."""
    if len(vectors) == len(file.vectors):
        return "its vector" if len(vectors) == 1 else f"all {len(vectors)} vectors"
    indices = ", ".join(dict.fromkeys(str(vector.index) for vector in vectors[:8]))
    more = ", …" if len(vectors) > 8 else ""
    index = "index" if len(vectors) == 1 else "indices"
    return f"{len(vectors)} of {len(file.vectors)} vectors ({index} {indices}{more})"


def _if_several(vectors: Sequence[InspectedVector], file: InspectedFile) -> str:
    return f": {_of(vectors, file)}" if len(file.vectors) > 1 else ""


def _is_are(vectors: Sequence[InspectedVector]) -> str:
    return "is" if len(vectors) == 1 else "are"


def _advice(file: InspectedFile, model: str) -> tuple[Verdict, str]:
    verdict = verdict_of(file.vectors)
    outliers = _with(file, verdict)
    match verdict:
        case "broken":
            text = (
                f"broken: vector {_with(file, 'zero')[0].index} is zero and has no direction; take "
                "an earlier file of the same training run"
            )
        case "plain":
            rows = [vector.copy_of or "of other files too" for vector in file.vectors]
            named = ", ".join(dict.fromkeys(rows))
            text = f"plain vocabulary: nothing in it is learned, its rows are {named}"
        case "inflated":
            most = max(vector.inflation or 0 for vector in outliers)
            text = f"inflated ×{most:.3g}{_if_several(outliers, file)}"
        case "short":
            least = min(vector.inflation or 0 for vector in outliers)
            text = f"short, ×{least:.3g} of the mean{_if_several(outliers, file)}"
        case "in distribution":
            text = "in distribution: leave it as it is"
        case "unknown":
            text = _unjudged(file, model)
    return verdict, text


def _unjudged(file: InspectedFile, model: str) -> str:
    widths = sorted({vector.dim for vector in file.vectors})
    if model:
        listed = ", ".join(map(str, widths))
        return f"not judged: {model} has no encoder of width {listed}; choose another --model"
    keys = {encoder_of(vector) for vector in file.vectors}
    names = ", ".join(sorted(filter(None, map(_encoder_name, keys)))) or "its encoder"
    known = next((MODEL_NAMES[key] for key in sorted(keys) if key in MODEL_NAMES), "")
    given = f", such as --model {known}" if known else " with --model"
    listed = ", ".join(map(str, widths))
    return (
        f"not judged: no mean norm is published for width {listed} ({names}); name the model{given}"
    )


def encoder_of(vector: InspectedVector) -> str:
    """Return the key of a vector's encoder; the file's name for it or the width of unknown ones."""
    tower = _tower_key(vector)
    key = key_of(tower, vector.dim)
    if tower in ENCODERS or (key in ENCODERS and ENCODERS[key].width == vector.dim):
        return tower if tower in ENCODERS else str(key)
    return f"width {vector.dim}" if tower in (None, "1", "2") else str(tower)


def verdict_of(vectors: Sequence[InspectedVector]) -> Verdict:
    """Return the verdict on the vectors of a token or a file: that of its outliers, if any."""
    found = {vector.verdict for vector in vectors}
    if "zero" in found:
        return "broken"
    if found == {"vocabulary"}:
        return "plain"
    order: tuple[Verdict, ...] = ("inflated", "short", "in distribution")
    return next((verdict for verdict in order if verdict in found), "unknown")


def _tower_key(vector: InspectedVector) -> str | None:
    """Return the tower as the file says it: an inspected vector may have an encoder's name."""
    return next((row.key for row in ENCODERS.values() if row.encoder == vector.tower), vector.tower)


def _encoder_name(key: str) -> str:
    return ENCODERS[key].encoder if key in ENCODERS else ""


def _command(file: InspectedFile, model: str, verdict: Verdict) -> str:
    """Return the command that rescales what is out of distribution; empty where nothing is."""
    if verdict not in ("inflated", "short"):
        return ""
    outside = _with(file, verdict)
    rule = "published"
    if model:
        rule = f"mean --model {shlex.quote(model)}"
    only = _only(outside, file, verdict)
    return f"dti-geom convert {shlex.quote(file.path)} --rescale {rule}{only}"


def _only(outside: Sequence[InspectedVector], file: InspectedFile, verdict: Verdict) -> str:
    """Return the option that leaves the other vectors alone."""
    if len(outside) == len(file.vectors):
        return ""
    if len({(vector.token, vector.tower) for vector in file.vectors}) == 1:
        return f" --only {','.join(str(vector.index) for vector in outside)}"
    return f" --only {verdict}"


def batch_command(paths: Iterable[str], model: str = "") -> str:
    """Return one command that rescales every inflated vector of some files or folders."""
    rule = f"mean --model {shlex.quote(model)}" if model else "published"
    listed = " ".join(map(shlex.quote, paths))
    return f"dti-geom convert {listed} --rescale {rule} --only inflated --out repaired"
