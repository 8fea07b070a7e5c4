"""What lies between tokens: pictures along straight lines and great circles (Claim E)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, combinations, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dti_geom import geometry
from dti_geom.errors import EvaluationError
from dti_geom.evaluation.learned import TokenVectors
from dti_geom.evaluation.pictures import Picture, SamplerSettings, paint_pictures
from dti_geom.evaluation.sheets import Row, contact_sheet, save_animation, save_picture
from dti_geom.files.adapters import Adapter
from dti_geom.images import open_rgb, png_uri, thumbnail
from dti_geom.models.adapters import Scaled
from dti_geom.models.image_encoders import ImageEncoder
from dti_geom.models.pipelines import TextToImage
from dti_geom.progress import Progress, silent
from dti_geom.result import Result

if TYPE_CHECKING:
    from PIL.Image import Image

CARRIER = "a photo of a {}"
POINTS = 9
ALIKE = 0.5  # of a mean step: two methods whose pictures are nearer than this look alike
_NEAREST = 3  # words named beside a point
_THUMBNAIL = 96  # pixels of a side, at most

Vectors = list[Tensor]  # of one token, (n, d) for each text encoder
PathKey = tuple[str, float]  # method, row
Words = tuple[str, ...]  # nearest first


def nlerp_with_norm(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Return the direction of the straight line from a to b, at a norm that changes linearly.

    a, b: (..., d). Returns (..., d). It turns as lerp does, and its norm changes as slerp's does.
    """
    length = geometry.lerp(geometry.norms(a)[..., None], geometry.norms(b)[..., None], t)
    return length * geometry.nlerp(a, b, t)


# slerp turns at constant speed and changes its norm linearly, so that tokens of different norms
# have a path too.
PATHS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "slerp": geometry.slerp,
    "lerp": geometry.lerp,
    "nlerp": nlerp_with_norm,
}


@dataclass(frozen=True)
class VectorPath:
    """One vector along a path, in one text encoder."""

    tower: str
    index: int  # among the token's vectors
    norms: tuple[float, ...]  # at each point, embedding units
    angle: float  # between the ends, radians
    # Of turning between neighbouring points, radians per unit of t; one fewer than points.
    speeds: tuple[float, ...]
    nearest: tuple[Words, ...]  # at each point, the vocabulary's nearest words by direction


@dataclass(frozen=True)
class Strip:
    """The pictures of a path from one seed."""

    seed: int
    files: tuple[str, ...]  # at each point
    # Angles between the features of neighbouring pictures, radians; empty without an encoder.
    steps: tuple[float, ...]
    unevenness: float | None  # largest step / mean step: 1 is even. None if no picture differs


@dataclass(frozen=True)
class TokenPath:
    """One path from left to right."""

    method: str
    row: float  # among four corners: 0 (top) … 1 (bottom); 0 for two ends
    vectors: tuple[VectorPath, ...]
    strips: tuple[Strip, ...]


@dataclass(frozen=True)
class Likeness:
    """How far apart two methods' pictures are, without the ends, which both share."""

    methods: tuple[str, str]
    distance: float  # mean angle between the features of their pictures at one place, radians
    step: float  # mean angle from a picture to its neighbour on the paths of both, radians


@dataclass(frozen=True)
class Interpolation(Result):
    """Paths between two tokens, or in a square of four."""

    model: str
    prompt: str  # {} for the points
    ends: tuple[str, ...]  # left, right; or top left, top right, bottom left, bottom right
    points: tuple[float, ...]  # t of each, 0 … 1
    seeds: tuple[int, ...]
    settings: SamplerSettings
    encoder: str | None  # compared the pictures
    paths: tuple[TokenPath, ...]
    likenesses: tuple[Likeness, ...]  # of every two methods; empty without an encoder
    thumbnails: dict[str, str] = field(default_factory=dict)  # data URIs by file, for a page


def interpolate(
    model: TextToImage,
    ends: Sequence[str],
    out: str | Path,
    *,
    methods: Sequence[str] = tuple(PATHS),
    points: int = POINTS,
    prompt: str = CARRIER,
    seeds: Sequence[int] = (0,),
    encoder: ImageEncoder | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    size: int | None = None,
    batch_size: int | None = None,
    progress: Progress = silent,
) -> Interpolation:
    """Paint the points between tokens into the folder `out`, and measure their paths.

    ends: two tokens, or the four corners of a square. Each is a learned token that `load_tokens`
    placed, or a word of the vocabulary. All have the same number of vectors, which are blended
    one by one. methods: names of `PATHS`. points: on each path, ends included. encoder: compares
    the pictures. steps, guidance, size: the model's own by default.

    In a square, each row runs between two points of the left and the right edge, and the edges
    run from top to bottom by the same method. On a sphere the order matters: with slerp every row
    turns at constant speed, but a column may not.

    A point is read as a learned token is. A learned end gives the same picture as the token alone.
    So does a word, except in SDXL, which pools at a learned token, and in SANA, whose tokenizer
    sees the space before a word. The model keeps the placeholders <path-…> afterwards.

    Raises EvaluationError for a path that cannot be painted, UnknownToken for an unknown end, and
    GeometryError for ends without a path between them.
    """
    _check(ends, methods, points, prompt)
    corners = [end_vectors(model, end) for end in ends]
    _check_counts(model, ends, corners)
    places = tuple(place / (points - 1) for place in range(points))
    course = _course(methods, corners, places)
    names = _place(model, course, places, [model.adapters.get(end, ()) for end in ends])
    painted = paint_pictures(
        model,
        [prompt],
        seeds,
        out,
        tokens=list(chain.from_iterable(names.values())),
        steps=steps,
        guidance=guidance,
        size=size,
        batch_size=batch_size,
        progress=progress,
    )
    files = {(picture.token, picture.seed): picture.file for picture in painted.pictures}
    features = _features(encoder, Path(out), painted.pictures)
    nearest = _nearest(model, course)
    paths: list[TokenPath] = []
    for key, vectors in course.items():
        strips = [
            _strip(seed, [files[name, seed] for name in names[key]], features) for seed in seeds
        ]
        paths.append(_token_path(model, key, vectors, nearest, strips))
    pairs = combinations(methods, 2) if features and points > 2 else ()
    return Interpolation(
        model=model.name,
        prompt=prompt,
        ends=tuple(ends),
        points=places,
        seeds=tuple(seeds),
        settings=painted.settings,
        encoder=encoder.name if encoder else None,
        paths=tuple(paths),
        likenesses=tuple(_likeness(paths, pair, places, features) for pair in pairs),
    )


def end_vectors(model: TextToImage, end: str) -> Vectors:
    """Return the (n, d) vectors of a learned token or a word for each text encoder.

    They are float32 on the CPU. Raises UnknownToken.
    """
    if end in model.towers[0].learned:
        return [tower.learned[end].detach().float().cpu() for tower in model.towers]
    return [tower.token_table[tower.vocabulary.rows(end)].float().cpu() for tower in model.towers]


def save_grid(
    result: Interpolation, folder: str | Path, path: Path, *, overwrite: bool = False
) -> None:
    """Write all strips as one picture, one below the other. `folder` holds their pictures."""
    rows: list[Row] = []
    for token_path in result.paths:
        for strip in token_path.strips:
            label = f"{_label(result, token_path)}, seed {strip.seed}"
            rows.append((label, [open_rgb(Path(folder) / file) for file in strip.files]))
    columns = [f"{place:.2g}" for place in result.points]
    save_picture(contact_sheet(rows, columns), path, overwrite=overwrite)


def save_film(
    result: Interpolation, folder: str | Path, path: Path, *, overwrite: bool = False
) -> None:
    """Write an animated WebP that shows all paths at once. `folder` holds their pictures."""
    frames = [_frame(result, Path(folder), place) for place in range(len(result.points))]
    save_animation(frames, path, overwrite=overwrite)


def with_thumbnails(result: Interpolation, folder: str | Path) -> Interpolation:
    """Return the result with small copies of its pictures inside; `folder` holds the pictures."""
    files: set[str] = set()
    for path in result.paths:
        for strip in path.strips:
            files |= set(strip.files)
    thumbnails = {
        file: png_uri(thumbnail(open_rgb(Path(folder) / file), _THUMBNAIL))
        for file in sorted(files)
    }
    return replace(result, thumbnails=thumbnails)


def _frame(result: Interpolation, folder: Path, place: int) -> "Image":
    """The pictures of all paths at one point."""
    rows: list[Row] = []
    for path in result.paths:
        pictures = [open_rgb(folder / strip.files[place]) for strip in path.strips]
        rows.append((_label(result, path), pictures))
    return contact_sheet(rows)


# --- Points ---


def _check(ends: Sequence[str], methods: Sequence[str], points: int, prompt: str) -> None:
    if len(ends) not in (2, 4):
        raise EvaluationError(
            f"{len(ends)} tokens were given; a path has two ends, a square four corners."
        )
    for method in methods:
        if method not in PATHS:
            raise EvaluationError(f"no method called '{method}'. Known: {', '.join(PATHS)}.")
    if points < 2:
        raise EvaluationError(f"points is {points}; a path has 2 or more, its ends included.")
    if "{}" not in prompt:
        raise EvaluationError(
            f"the prompt '{prompt}' has no {{}} for the points. Write one such as '{CARRIER}'."
        )


def _check_counts(model: TextToImage, ends: Sequence[str], corners: Sequence[Vectors]) -> None:
    for place, tower in enumerate(model.towers):
        counts = [len(corner[place]) for corner in corners]
        if len(set(counts)) > 1:
            sizes = ", ".join(f"{end} has {count}" for end, count in zip(ends, counts, strict=True))
            raise EvaluationError(
                f"tokens of different numbers of vectors in {tower.name} ({sizes}); all ends of a "
                "path need the same number. Choose words that are one token each."
            )


def _course(
    methods: Sequence[str], corners: Sequence[Vectors], places: Sequence[float]
) -> dict[PathKey, list[Vectors]]:
    """The points of every path, from left to right."""
    rows = places if len(corners) == 4 else (0.0,)
    course: dict[PathKey, list[Vectors]] = {}
    for method in methods:
        for row in rows:
            course[method, row] = _across(method, corners, row, places)
    return course


def _across(
    method: str, corners: Sequence[Vectors], row: float, places: Sequence[float]
) -> list[Vectors]:
    """The points of one row, from left to right."""
    left, right = corners[:2]
    if len(corners) == 4:
        left, right = (_between(method, corners[side], corners[side + 2], row) for side in (0, 1))
    return [_between(method, left, right, place) for place in places]


def _between(method: str, a: Vectors, b: Vectors, t: float) -> Vectors:
    if t in (0, 1):
        return b if t else a  # bit-identical, so that the picture is that of the token alone
    blend = PATHS[method]
    # In float64: the only rounding of a point is that to the float32 the model reads.
    return [blend(x.double(), y.double(), t).float() for x, y in zip(a, b, strict=True)]


def _place(
    model: TextToImage,
    course: dict[PathKey, list[Vectors]],
    places: Sequence[float],
    corners: Sequence[tuple[Scaled, ...]],
) -> dict[PathKey, list[str]]:
    """Place every point as a token of its own; returns their names. corners: their adapters."""
    names: dict[PathKey, list[str]] = {}
    for number, (key, points) in enumerate(course.items()):
        names[key] = []
        for place, vectors in enumerate(points):
            # The number of vectors is in the name, since a token of a model cannot change it.
            name = f"<path-{len(vectors[0])}-{number}-{place}>"
            adapters = _adapters_between(corners, places[place], row=key[1])
            TokenVectors(name, tuple(vectors), adapters).place(model)
            names[key].append(name)
    return names


def _adapters_between(
    corners: Sequence[tuple[Scaled, ...]], t: float, *, row: float
) -> tuple[Scaled, ...]:
    """The corners' adapters, each at its scale times the corner's share of the point."""
    shares = (
        [1 - t, t] if len(corners) == 2 else [s * x for s in (1 - row, row) for x in (1 - t, t)]
    )
    scales: dict[int, float] = {}
    adapters: dict[int, Adapter] = {}
    for share, corner in zip(shares, corners, strict=True):
        for adapter, scale in corner:
            adapters[id(adapter)] = adapter
            scales[id(adapter)] = scales.get(id(adapter), 0.0) + share * scale
    # Shares that add up to 1 may miss it by rounding.
    return tuple((adapter, round(scales[key], 12)) for key, adapter in adapters.items())


# --- Measurements ---


def _nearest(
    model: TextToImage, course: dict[PathKey, list[Vectors]]
) -> dict[tuple[str, float, str], list[list[Words]]]:
    """For each method, row and text encoder: the nearest words of each point's vectors."""
    nearest: dict[tuple[str, float, str], list[list[Words]]] = {}
    for place, tower in enumerate(model.towers):
        table = tower.token_table
        # One search for all points: it reads the whole table.
        rows = torch.cat([point[place] for point in chain.from_iterable(course.values())])
        count = min(_NEAREST, len(table))
        indices = geometry.nearest(rows.to(table.device, table.dtype), table, count).indices
        words = iter([tuple(tower.vocabulary.tokens(row)) for row in indices.tolist()])
        for (method, row), points in course.items():
            nearest[method, row, tower.name] = [
                list(islice(words, len(point[place]))) for point in points
            ]
    return nearest


def _token_path(
    model: TextToImage,
    key: PathKey,
    points: list[Vectors],
    nearest: dict[tuple[str, float, str], list[list[Words]]],
    strips: Sequence[Strip],
) -> TokenPath:
    vectors: list[VectorPath] = []
    for place, tower in enumerate(model.towers):
        words = nearest[(*key, tower.name)]
        for index in range(len(points[0][place])):
            rows = torch.stack([point[place][index] for point in points]).double()
            nearest_words = tuple(of_point[index] for of_point in words)
            vectors.append(_vector_path(tower.name, index, rows, nearest_words))
    method, row = key
    return TokenPath(method, row, tuple(vectors), tuple(strips))


def _vector_path(tower: str, index: int, rows: Tensor, nearest: tuple[Words, ...]) -> VectorPath:
    """rows: (points, d), float64."""
    directions = geometry.normalize(rows)
    turns = geometry.angle(directions[:-1], directions[1:])
    return VectorPath(
        tower=tower,
        index=index,
        norms=tuple(geometry.norms(rows).tolist()),
        angle=float(geometry.angle(directions[0], directions[-1])),
        speeds=tuple((turns * (len(rows) - 1)).tolist()),  # a step is 1 / (points − 1) of t
        nearest=nearest,
    )


def _features(
    encoder: ImageEncoder | None, folder: Path, pictures: Sequence[Picture]
) -> dict[str, Tensor]:
    """The (f,) unit features of each file, float64; empty without an encoder."""
    if encoder is None:
        return {}
    files = sorted({picture.file for picture in pictures})
    embedded = encoder.embed([open_rgb(folder / file) for file in files])
    return dict(zip(files, geometry.normalize(embedded.double()), strict=True))


def _strip(seed: int, files: Sequence[str], features: dict[str, Tensor]) -> Strip:
    if not features:
        return Strip(seed, tuple(files), steps=(), unevenness=None)
    steps = [_apart(features, left, right) for left, right in pairwise(files)]
    mean = sum(steps) / len(steps)
    return Strip(seed, tuple(files), tuple(steps), max(steps) / mean if mean else None)


def _likeness(
    paths: Sequence[TokenPath],
    methods: tuple[str, str],
    places: Sequence[float],
    features: dict[str, Tensor],
) -> Likeness:
    ours, theirs = ([path for path in paths if path.method == method] for method in methods)
    apart: list[float] = []
    for path, other in zip(ours, theirs, strict=True):
        for strip, other_strip in zip(path.strips, other.strips, strict=True):
            for place, left, right in zip(places, strip.files, other_strip.files, strict=True):
                # Both methods paint the ends themselves at the ends of the outer rows.
                if not (place in (0, 1) and path.row in (0, 1)):
                    apart.append(_apart(features, left, right))
    steps: list[float] = []
    for path in (*ours, *theirs):
        for strip in path.strips:
            steps += strip.steps
    distance = sum(apart) / len(apart) if apart else 0.0
    return Likeness(methods, distance, sum(steps) / len(steps))


def _apart(features: dict[str, Tensor], left: str, right: str) -> float:
    """The angle between the features of two files, radians."""
    return float(geometry.angle(features[left], features[right]))


def _label(result: Interpolation, path: TokenPath) -> str:
    return path.method if len(result.ends) == 2 else f"{path.method}, row {path.row:.2g}"
