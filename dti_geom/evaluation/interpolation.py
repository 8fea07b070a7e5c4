"""What lies between tokens: pictures along straight lines and great circles (Claim E)."""

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dti_geom import geometry
from dti_geom.errors import EvaluationError
from dti_geom.evaluation.pictures import SamplerSettings, open_picture, paint_pictures
from dti_geom.evaluation.sheets import contact_sheet, save_animation, save_picture
from dti_geom.models.image_encoders import ImageEncoder
from dti_geom.models.pipelines import TextToImage
from dti_geom.progress import Progress, silent

if TYPE_CHECKING:
    from PIL.Image import Image

CARRIER = "a photo of a {}"
POINTS = 9
ALIKE = 0.5  # of a mean step: two methods whose pictures are nearer than this look alike
_NEAREST = 3  # words named beside a point
_THUMBNAIL = 96  # pixels of a side, at most

Vectors = list[Tensor]  # of one token, (n, d) for each tower


def nlerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """The direction of the straight line from a to b, at a norm that changes linearly.

    a, b: (..., d). Returns (..., d). It turns as lerp does and keeps its length as slerp does.
    """
    length = geometry.lerp(geometry.norms(a)[..., None], geometry.norms(b)[..., None], t)
    return length * geometry.nlerp(a, b, t)


# slerp turns at constant speed and changes its norm linearly, so tokens of different norms have a path too.
METHODS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "slerp": geometry.slerp,
    "lerp": geometry.lerp,
    "nlerp": nlerp,
}


@dataclass(frozen=True)
class VectorPath:
    """One vector along a path, in one text encoder."""

    tower: str
    index: int  # among the token's vectors
    norms: tuple[float, ...]  # at each point, embedding units
    angle: float  # between the ends, radians
    speeds: tuple[
        float, ...
    ]  # of turning between neighbouring points, radians per unit of t; one fewer than points
    nearest: tuple[
        tuple[str, ...], ...
    ]  # at each point, the vocabulary's words by direction, nearest first


@dataclass(frozen=True)
class Strip:
    """The pictures of a path from one seed."""

    seed: int
    files: tuple[str, ...]  # at each point
    steps: tuple[
        float, ...
    ]  # angles between the features of neighbouring pictures, radians; () without an encoder
    unevenness: (
        float | None
    )  # largest step / mean step: 1 is as smooth as can be. None if nothing moves


@dataclass(frozen=True)
class TokenPath:
    """One way from left to right."""

    method: str
    row: float  # among four corners: how far down it lies, 0 … 1; 0 for two ends
    vectors: tuple[VectorPath, ...]
    strips: tuple[Strip, ...]


@dataclass(frozen=True)
class Likeness:
    """How far two methods' pictures lie apart, between the ends, where they must agree."""

    methods: tuple[str, str]
    distance: float  # angle between the features of their pictures at the same place, mean, radians
    step: float  # from a picture to its neighbour along both methods' paths, mean, radians


@dataclass(frozen=True)
class Interpolation:
    """Paths between two tokens, or in a square of four."""

    model: str
    prompt: str  # {} where the points stand
    ends: tuple[str, ...]  # left, right; or top left, top right, bottom left, bottom right
    points: tuple[float, ...]  # t of each, 0 … 1
    seeds: tuple[int, ...]
    settings: SamplerSettings
    encoder: str | None  # that compared the pictures
    paths: tuple[TokenPath, ...]
    likenesses: tuple[Likeness, ...]  # of each two methods; none without an encoder
    thumbnails: dict[str, str] = field(default_factory=dict)  # data URIs by file, for a page


def interpolate(
    model: TextToImage,
    ends: Sequence[str],
    out: str | Path,
    *,
    methods: Sequence[str] = tuple(METHODS),
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
    """Paint the points between tokens into the folder `out`, and measure the way.

    ends: two tokens, or four corners; learned ones, placed by `load_tokens`, or words of the vocabulary. A token of
    several vectors is blended vector by vector with one of as many. points: on each path, ends included.

    Among four corners each row runs between two points of the left and the right edge, which run from top to bottom by
    the same method. On a sphere the order matters: with slerp every row turns at constant speed, a column need not.

    A point is read as a learned token is. A learned end gives the picture that it gives alone; so does a word, except
    in SDXL, which pools at a learned token, and in SANA, whose tokenizer sees the space before a word.
    The model keeps the placeholders <path-…> afterwards. Raises EvaluationError, UnknownToken, GeometryError.
    """
    _check(ends, methods, points, prompt)
    corners = [end_vectors(model, end) for end in ends]
    _check_counts(model, ends, corners)
    places = tuple(place / (points - 1) for place in range(points))
    rows = places if len(ends) == 4 else (0.0,)
    course = {
        (method, row): _across(method, corners, row, places) for method in methods for row in rows
    }
    names = _place(model, course)
    pictures = paint_pictures(
        model,
        [prompt],
        seeds,
        out,
        tokens=[name for path in names.values() for name in path],
        steps=steps,
        guidance=guidance,
        size=size,
        batch_size=batch_size,
        progress=progress,
    )
    files = {(one.token, one.seed): one.file for one in pictures.pictures}
    features = _features(encoder, Path(out), sorted(set(files.values())))
    nearest = _nearest(model, course)
    paths = tuple(
        TokenPath(
            method,
            row,
            tuple(_vector_paths(model, course[method, row], nearest[method, row])),
            tuple(
                _strip(seed, [files[name, seed] for name in names[method, row]], features)
                for seed in seeds
            ),
        )
        for method, row in course
    )
    return Interpolation(
        model.name,
        prompt,
        tuple(ends),
        places,
        tuple(seeds),
        pictures.settings,
        encoder.name if encoder else None,
        paths,
        tuple(
            _likeness(paths, two, places, features)
            for two in combinations(methods, 2)
            if features and points > 2
        ),
    )


def end_vectors(model: TextToImage, end: str) -> Vectors:
    """The (n, d) vectors of a learned token or a word in each tower, float32 on the CPU. Raises UnknownToken."""
    if end in model.towers[0].learned:
        return [tower.learned[end].detach().float().cpu() for tower in model.towers]
    return [tower.token_table[tower.vocabulary.rows(end)].float().cpu() for tower in model.towers]


def save_grid(
    result: Interpolation, folder: str | Path, path: Path, *, overwrite: bool = False
) -> None:
    """Write every strip, one below the other, as one picture. `folder` holds the pictures."""
    rows = [
        (
            f"{_label(result, one)}, seed {strip.seed}",
            [open_picture(Path(folder) / file) for file in strip.files],
        )
        for one in result.paths
        for strip in one.strips
    ]
    save_picture(
        contact_sheet(rows, [f"{place:.2g}" for place in result.points]), path, overwrite=overwrite
    )


def save_film(
    result: Interpolation, folder: str | Path, path: Path, *, overwrite: bool = False
) -> None:
    """Write an animated WebP in which all paths run beside each other. `folder` holds the pictures."""
    frames = [
        contact_sheet(
            [
                (
                    _label(result, one),
                    [open_picture(Path(folder) / strip.files[place]) for strip in one.strips],
                )
                for one in result.paths
            ]
        )
        for place in range(len(result.points))
    ]
    save_animation(frames, path, overwrite=overwrite)


def with_thumbnails(result: Interpolation, folder: str | Path) -> Interpolation:
    """The result with its pictures, made small, inside; `folder` holds them."""
    files = {file for path in result.paths for strip in path.strips for file in strip.files}
    return replace(
        result,
        thumbnails={file: _data_uri(open_picture(Path(folder) / file)) for file in sorted(files)},
    )


# --- The way ---


def _check(ends: Sequence[str], methods: Sequence[str], points: int, prompt: str) -> None:
    if len(ends) not in (2, 4):
        raise EvaluationError(
            f"{len(ends)} tokens were given; a path has two ends, a square four corners."
        )
    for method in methods:
        if method not in METHODS:
            raise EvaluationError(f"no method called '{method}'. Known: {', '.join(METHODS)}.")
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
            told = ", ".join(f"{end} has {count}" for end, count in zip(ends, counts, strict=True))
            raise EvaluationError(
                f"tokens of different numbers of vectors in {tower.name} ({told}); a path needs as many at every end. "
                "Choose words that are one token each."
            )


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
        return b if t else a  # to the last bit
    return [METHODS[method](x.double(), y.double(), t).float() for x, y in zip(a, b, strict=True)]


def _place(
    model: TextToImage, course: dict[tuple[str, float], list[Vectors]]
) -> dict[tuple[str, float], list[str]]:
    """Place every point as a token of its own; returns their names."""
    names: dict[tuple[str, float], list[str]] = {}
    for number, (way, points) in enumerate(course.items()):
        # The number of vectors stands in the name, since a token of the model keeps its own.
        names[way] = [
            f"<path-{len(vectors[0])}-{number}-{place}>" for place, vectors in enumerate(points)
        ]
        for name, vectors in zip(names[way], points, strict=True):
            model.place(name, [rows.to(model.device) for rows in vectors])
    return names


# --- What is measured of it ---


def _nearest(
    model: TextToImage, course: dict[tuple[str, float], list[Vectors]]
) -> dict[tuple[str, float], list[list[list[tuple[str, ...]]]]]:
    """For each path, point, tower and vector the nearest words; one search for each tower."""
    words: list[Iterator[tuple[str, ...]]] = []
    for place, tower in enumerate(model.towers):
        rows = torch.cat([point[place] for points in course.values() for point in points])
        table = tower.token_table
        found = geometry.nearest(
            rows.to(table.device, table.dtype), table, min(_NEAREST, len(table))
        ).indices
        words.append(iter([tuple(tower.vocabulary.tokens(each)) for each in found.tolist()]))
    return {
        way: [
            [[next(words[place]) for _ in rows] for place, rows in enumerate(point)]
            for point in points
        ]
        for way, points in course.items()
    }


def _vector_paths(
    model: TextToImage, points: list[Vectors], nearest: list[list[list[tuple[str, ...]]]]
) -> Iterator[VectorPath]:
    for place, tower in enumerate(model.towers):
        for index in range(len(points[0][place])):
            rows = torch.stack([point[place][index] for point in points]).double()
            directions = geometry.normalize(rows)
            turns = geometry.angle(directions[:-1], directions[1:])
            yield VectorPath(
                tower.name,
                index,
                tuple(geometry.norms(rows).tolist()),
                float(geometry.angle(directions[0], directions[-1])),
                tuple((turns * (len(points) - 1)).tolist()),
                tuple(words[place][index] for words in nearest),
            )


def _features(
    encoder: ImageEncoder | None, folder: Path, files: Sequence[str]
) -> dict[str, Tensor]:
    if encoder is None:
        return {}
    rows = geometry.normalize(
        encoder.embed([open_picture(folder / file) for file in files]).double()
    )
    return dict(zip(files, rows, strict=True))


def _strip(seed: int, files: Sequence[str], features: dict[str, Tensor]) -> Strip:
    if not features:
        return Strip(seed, tuple(files), (), None)
    steps = [
        float(geometry.angle(features[one], features[other])) for one, other in pairwise(files)
    ]
    mean = sum(steps) / len(steps)
    return Strip(seed, tuple(files), tuple(steps), max(steps) / mean if mean else None)


def _likeness(
    paths: Sequence[TokenPath],
    methods: tuple[str, str],
    places: Sequence[float],
    features: dict[str, Tensor],
) -> Likeness:
    ours, theirs = ([path for path in paths if path.method == method] for method in methods)
    apart = [
        float(geometry.angle(features[one], features[other]))
        for path, beside in zip(ours, theirs, strict=True)
        for strip, strip_beside in zip(path.strips, beside.strips, strict=True)
        for place, one, other in zip(places, strip.files, strip_beside.files, strict=True)
        if not (place in (0, 1) and path.row in (0, 1))  # both paint the ends themselves there
    ]
    steps = [step for path in (*ours, *theirs) for strip in path.strips for step in strip.steps]
    return Likeness(methods, sum(apart) / len(apart) if apart else 0.0, sum(steps) / len(steps))


def _label(result: Interpolation, path: TokenPath) -> str:
    return path.method if len(result.ends) == 2 else f"{path.method}, row {path.row:.2g}"


def _data_uri(picture: "Image") -> str:
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
