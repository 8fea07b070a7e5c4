"""The interpolation section: norm, turn and picture steps along paths between tokens."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from dti_geom.evaluation.interpolation import (
    ALIKE,
    Interpolation,
    Likeness,
    TokenPath,
    VectorPath,
)
from dti_geom.reporting.blocks import (
    Column,
    Figure,
    Finding,
    Limits,
    Note,
    Picture,
    PictureRow,
    Pictures,
    Section,
    Span,
    Table,
    Value,
)
from dti_geom.reporting.curves import LEFT, add_curve, add_keys
from dti_geom.reporting.plots import BLUE, GREEN, INK, VERMILLION, hover, rows_of
from dti_geom.reporting.text import degrees, listed, number, plot_text, quoted, shown, times

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

_COLORS = {"slerp": BLUE, "lerp": VERMILLION, "nlerp": GREEN}
_DASHES = {"nlerp": "dot"}  # its norm is that of slerp and its speed that of lerp: both show below


@dataclass(frozen=True)
class NearestAlong:
    """A stretch of a path with one nearest word by direction."""

    first: float  # t
    last: float
    word: str


def interpolation_section(result: Interpolation) -> Section:
    """Show the pictures, norms and speeds along paths between tokens."""
    steps: list[Figure] = []
    if result.encoder:
        steps.append(
            Figure(
                lambda: step_figure(result),
                "The angle between the features of a picture and those of the next one.",
                "Steps between neighbouring pictures",
            )
        )
    return Section(
        title="Between tokens",
        aside=f"{len(result.points)} points, seeds {', '.join(map(str, result.seeds))}",
        blocks=[
            Finding(interpolation_finding(result)),
            *(Finding(likeness_finding(likeness)) for likeness in result.likenesses),
            Note(_settings_note(result)),
            *_pictures(result),
            *_path_blocks(result),
            *steps,
            Table("Paths", _path_columns(result), _path_rows(result)),
            Limits(_limits(result)),
        ],
    )


def interpolation_data(result: Interpolation) -> Interpolation:
    """Return the result without its small pictures."""
    return replace(result, thumbnails={})


def path_figure(result: Interpolation, vector: int = 0) -> "PlotlyFigure":
    """Draw norm and turning speed along every path. vector: its place among the token's vectors."""
    figure = rows_of([200, 200], left=LEFT)
    for name, path, is_first in _named_paths(result):
        course = path.vectors[vector]
        color, dash = _COLORS.get(path.method, INK), _DASHES.get(path.method)
        norms = _norm_points(result, name, course)
        speeds = _speed_points(result, name, course)
        for row, points in enumerate((norms, speeds), start=1):
            add_curve(figure, row, path.method, points, color, dash=dash, key=is_first)
    figure.update_yaxes(title={"text": "norm", "standoff": 4}, rangemode="tozero", row=1, col=1)
    figure.update_yaxes(
        title={"text": "turning speed, °", "standoff": 4}, rangemode="tozero", row=2, col=1
    )
    _finish(figure, result, (1, 2))
    return figure


def step_figure(result: Interpolation) -> "PlotlyFigure":
    """Draw the angle between the features of neighbouring pictures, for every path and seed."""
    figure = rows_of([220], left=LEFT)
    for name, path, is_first in _named_paths(result):
        for place, strip in enumerate(path.strips):
            points = [
                (
                    t,
                    math.degrees(step),
                    hover(f"{name}, seed {strip.seed}", f"step {degrees(step)}"),
                )
                for t, step in zip(_middles(result), strip.steps, strict=True)
            ]
            color = _COLORS.get(path.method, INK)
            add_curve(figure, 1, path.method, points, color, key=is_first and place == 0)
    figure.update_yaxes(
        title={"text": "picture step, °", "standoff": 4}, rangemode="tozero", row=1, col=1
    )
    _finish(figure, result, (1,))
    return figure


def interpolation_finding(result: Interpolation) -> str:
    """Say how far apart the ends are, how short the paths get, and how evenly pictures change."""
    vector = result.paths[0].vectors[0]
    ends = listed([quoted(end) for end in result.ends])
    if len(result.ends) == 2:
        sentence = (
            f"{ends} are {degrees(vector.angle)} apart, with norms {number(vector.norms[0])} and "
            f"{number(vector.norms[-1])}"
        )
    else:
        sentence = f"{ends} are the corners of a square"
    methods = list(dict.fromkeys(path.method for path in result.paths))
    shortest = [f"{number(_least_norm(result, method))} by {method}" for method in methods]
    sentence += f"; the smallest norm on the way is {listed(shortest)}"
    ratios = [(unevenness(result, method), method) for method in methods]
    largest = [f"{times(ratio)} by {method}" for ratio, method in ratios if ratio is not None]
    if largest:
        sentence += f", and the largest picture step over the mean step {listed(largest)}"
    return f"{sentence}."


def likeness_finding(likeness: Likeness) -> str:
    """Say whether the pictures of two methods look alike, with the angles that decide it."""
    alike = likeness.distance <= ALIKE * likeness.step
    first, second = likeness.methods
    return (
        f"{first} and {second} {'look alike' if alike else 'look different'}: at the same place "
        f"their pictures are {degrees(likeness.distance)} apart, against "
        f"{degrees(likeness.step)} from a picture to the next."
    )


def unevenness(result: Interpolation, method: str) -> float | None:
    """Return largest step / mean step of a method's pictures, mean over paths and seeds.

    None if no picture differs from the next one, or without an image encoder.
    """
    ratios: list[float] = []
    for path in _paths_of(result, method):
        ratios += [strip.unevenness for strip in path.strips if strip.unevenness is not None]
    return sum(ratios) / len(ratios) if ratios else None


def nearest_along(result: Interpolation, vector: VectorPath) -> list[NearestAlong]:
    """Return the nearest words of a vector along its path, stretch by stretch."""
    stretches = groupby(
        zip(result.points, vector.nearest, strict=True), key=lambda point: point[1][0]
    )
    nearest = []
    for word, points in stretches:
        places = [t for t, _ in points]
        nearest.append(NearestAlong(places[0], places[-1], word))
    return nearest


def _settings_note(result: Interpolation) -> str:
    settings = result.settings
    note = (
        f"Pictures of {quoted(result.prompt)} in {settings.steps} sampler steps at guidance "
        f"{settings.guidance:g}, {settings.size} px, {settings.dtype}. Every picture of a row "
        "starts from the noise of its seed. slerp turns at constant speed while its norm changes "
        "linearly. lerp is the straight line. nlerp turns as lerp does, at the norm of slerp."
    )
    if len(result.ends) == 4:
        note += (
            " Each row runs between two points of the left and the right edge; the edges run from "
            "top to bottom by the same method."
        )
    if result.encoder:
        note += (
            " Steps and distances are angles between the pictures’ features in "
            f"{quoted(result.encoder)}. Two methods look alike where theirs are nearer at the same "
            "place than half a mean step."
        )
    return note


def _limits(result: Interpolation) -> str:
    limits = "Other prompts and other noise than these."
    if result.encoder:
        limits += " A difference between pictures that the image encoder does not see is missed."
    return limits


def _pictures(result: Interpolation) -> list[Pictures]:
    """Return a grid for each seed, with a row for each path."""
    if not result.thumbnails:
        return []
    columns = [f"{t:.3g}" for t in result.points]
    return [
        Pictures(
            title=f"Seed {seed}",
            columns=columns,
            rows=[_picture_row(result, path, place) for path in result.paths],
            slider=True,
        )
        for place, seed in enumerate(result.seeds)
    ]


def _picture_row(result: Interpolation, path: TokenPath, place: int) -> PictureRow:
    strip = path.strips[place]
    name = _path_name(result, path)
    label = name
    if strip.unevenness is not None:
        label += f"\nlargest ÷ mean step {number(strip.unevenness, 3)}"
    pictures = [
        Picture(result.thumbnails[file], f"{name}, seed {strip.seed}, at {t:.3g}")
        for t, file in zip(result.points, strip.files, strict=True)
    ]
    return PictureRow(label, pictures)


def _path_blocks(result: Interpolation) -> list[Figure | Section]:
    """Return a figure for each vector of a token, titled where there are several."""
    vectors = result.paths[0].vectors
    blocks: list[Figure | Section] = []
    for place, vector in enumerate(vectors):
        name = _vector_name(vector)
        figure = _path_plot(result, place, name)
        blocks.append(figure if len(vectors) == 1 else Section(name, [figure]))
    return blocks


def _path_plot(result: Interpolation, place: int, name: str) -> Figure:
    return Figure(
        lambda: path_figure(result, place),
        "Above: norm, in embedding units. Below: the angle between neighbouring points, as the "
        "speed at which the whole way would be turned.",
        f"Norm and turning speed along the paths in {name}",
    )


def _path_columns(result: Interpolation) -> list[Column]:
    columns = [
        Column("path", kind="text"),
        Column("tower", kind="token"),
        Column("vector"),
        Column("smallest norm"),
        Column("turning speed", "°"),
    ]
    if result.encoder:
        columns.append(Column("largest ÷ mean step", digits=3))
    return [*columns, Column("nearest word, from t to t", kind="text")]


def _path_rows(result: Interpolation) -> list[list[Value]]:
    rows: list[list[Value]] = []
    for path in result.paths:
        ratios = [strip.unevenness for strip in path.strips if strip.unevenness is not None]
        largest: list[Value] = [max(ratios, default=None)] if result.encoder else []
        for vector in path.vectors:
            speeds = [math.degrees(speed) for speed in vector.speeds]
            rows.append(
                [
                    _path_name(result, path),
                    vector.tower,
                    vector.index,
                    min(vector.norms),
                    Span(min(speeds), max(speeds)),
                    *largest,
                    ", ".join(map(_stretch_text, nearest_along(result, vector))),
                ]
            )
    return rows


def _stretch_text(stretch: NearestAlong) -> str:
    # Isolated, so that a right-to-left word leaves the list in order.
    text = f"\u2068{shown(stretch.word)}\u2069 {stretch.first:.3g}"
    return f"{text}–{stretch.last:.3g}" if stretch.last > stretch.first else text


def _vector_name(vector: VectorPath) -> str:
    return f"{vector.tower}, vector {vector.index}" if vector.index else vector.tower


def _path_name(result: Interpolation, path: TokenPath) -> str:
    return path.method if len(result.ends) == 2 else f"{path.method}, row {path.row:.3g}"


def _norm_points(
    result: Interpolation, name: str, course: VectorPath
) -> list[tuple[float, float, str]]:
    return [
        (
            t,
            norm,
            hover(
                f"{name} at {t:.3g}", f"norm {number(norm)}", f"nearest word {plot_text(words[0])}"
            ),
        )
        for t, norm, words in zip(result.points, course.norms, course.nearest, strict=True)
    ]


def _speed_points(
    result: Interpolation, name: str, course: VectorPath
) -> list[tuple[float, float, str]]:
    return [
        (
            t,
            math.degrees(speed),
            hover(f"{name} at {t:.3g}", f"turns {degrees(speed)} for the whole way"),
        )
        for t, speed in zip(_middles(result), course.speeds, strict=True)
    ]


def _finish(figure: "PlotlyFigure", result: Interpolation, rows: Sequence[int]) -> None:
    left, right = (plot_text(end, 12) for end in result.ends[:2])
    if len(result.ends) == 4:
        left, right = "the left edge", "the right edge"
    for row in rows:
        figure.update_xaxes(
            range=[-0.03, 1.03],
            tickvals=[0, 0.25, 0.5, 0.75, 1],
            ticktext=["0", "0.25", "0.5", "0.75", "1"],
            row=row,
        )
    figure.update_xaxes(title=f"from {left} to {right}", row=rows[-1], col=1)
    add_keys(figure, rows)


def _named_paths(result: Interpolation) -> list[tuple[str, TokenPath, bool]]:
    """Return each path with its name, and whether it is the first of its method."""
    named = []
    methods: set[str] = set()
    for path in result.paths:
        named.append((_path_name(result, path), path, path.method not in methods))
        methods.add(path.method)
    return named


def _paths_of(result: Interpolation, method: str) -> list[TokenPath]:
    return [path for path in result.paths if path.method == method]


def _least_norm(result: Interpolation, method: str) -> float:
    return min(min(path.vectors[0].norms) for path in _paths_of(result, method))


def _middles(result: Interpolation) -> list[float]:
    """Return the t halfway between neighbouring points, where steps are drawn."""
    return [(t + next_t) / 2 for t, next_t in pairwise(result.points)]
