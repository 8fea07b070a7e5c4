"""The interpolation section: norm, turn and picture steps along paths between tokens, and the pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from math import degrees as in_degrees
from typing import TYPE_CHECKING

from dti_geom.evaluation import Interpolation, Likeness, TokenPath, VectorPath
from dti_geom.evaluation.interpolation import ALIKE
from dti_geom.reporting.curves import LEFT, add_curve, add_keys
from dti_geom.reporting.plots import BLUE, GREEN, INK, VERMILLION, hover, rows_of
from dti_geom.reporting.text import degrees, number, plot_text, quoted, times

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_COLORS = {"slerp": BLUE, "lerp": VERMILLION, "nlerp": GREEN}
_DASHES = {"nlerp": "dot"}  # it covers slerp in norm, and lerp in speed


@dataclass(frozen=True)
class NearestAlong:
    """A stretch of a path over which one word stays the nearest by direction."""

    first: float  # t
    last: float
    word: str


def path_figure(result: Interpolation, vector: int = 0) -> "Figure":
    """Norm and angular speed along every path, for one of the vectors."""
    figure = rows_of([200, 200], left=LEFT)
    for name, path, first in _named(result):
        one, color = path.vectors[vector], _COLORS.get(path.method, INK)
        norms = [
            (
                t,
                norm,
                hover(
                    f"{name} at {t:.3g}",
                    f"norm {number(norm)}",
                    f"nearest word {plot_text(words[0])}",
                ),
            )
            for t, norm, words in zip(result.points, one.norms, one.nearest, strict=True)
        ]
        speeds = [
            (
                middle,
                in_degrees(speed),
                hover(f"{name} at {middle:.3g}", f"turns {degrees(speed)} for the whole way"),
            )
            for middle, speed in zip(_middles(result), one.speeds, strict=True)
        ]
        add_curve(figure, 1, path.method, norms, color, dash=_DASHES.get(path.method), key=first)
        add_curve(figure, 2, path.method, speeds, color, dash=_DASHES.get(path.method), key=first)
    figure.update_yaxes(title={"text": "norm", "standoff": 4}, rangemode="tozero", row=1, col=1)
    figure.update_yaxes(
        title={"text": "turning speed, °", "standoff": 4}, rangemode="tozero", row=2, col=1
    )
    _finish(figure, result, (1, 2))
    return figure


def step_figure(result: Interpolation) -> "Figure":
    """How far each picture lies from the next, in the features of the image encoder, for every path and seed."""
    figure = rows_of([220], left=LEFT)
    for name, path, first in _named(result):
        for place, strip in enumerate(path.strips):
            steps = [
                (
                    middle,
                    in_degrees(step),
                    hover(f"{name}, seed {strip.seed}", f"step {degrees(step)}"),
                )
                for middle, step in zip(_middles(result), strip.steps, strict=True)
            ]
            color = _COLORS.get(path.method, INK)
            add_curve(figure, 1, path.method, steps, color, key=first and place == 0)
    figure.update_yaxes(
        title={"text": "picture step, °", "standoff": 4}, rangemode="tozero", row=1, col=1
    )
    _finish(figure, result, (1,))
    return figure


def interpolation_finding(result: Interpolation) -> str:
    """One sentence: how far the ends lie apart, how short each method gets, how evenly its pictures change."""
    vector = result.paths[0].vectors[0]
    ends = ", ".join(map(quoted, result.ends[:-1])) + f" and {quoted(result.ends[-1])}"
    told = f"{ends} are the corners of a square"
    if len(result.ends) == 2:
        told = (
            f"{ends} are {degrees(vector.angle)} apart, with norms {number(vector.norms[0])} and "
        )
        told += number(vector.norms[-1])
    methods = list(dict.fromkeys(path.method for path in result.paths))
    least = [min(min(path.vectors[0].norms) for path in _of(result, method)) for method in methods]
    shortest = [f"{number(norm)} by {method}" for norm, method in zip(least, methods, strict=True)]
    told += f"; the least norm on the way is {_each(shortest)}"
    uneven = [unevenness(result, method) for method in methods]
    moving = [
        f"{times(one)} by {method}"
        for one, method in zip(uneven, methods, strict=True)
        if one is not None
    ]
    return told + (
        f", and the largest picture step over the mean one {_each(moving)}." if moving else "."
    )


def likeness_finding(likeness: Likeness) -> str:
    """One sentence: whether two methods' pictures look alike, with the figures that say so."""
    alike = likeness.distance <= ALIKE * likeness.step
    return (
        f"{likeness.methods[0]} and {likeness.methods[1]} {'look alike' if alike else 'look different'}: at one place "
        f"their pictures are {degrees(likeness.distance)} apart, against {degrees(likeness.step)} from a picture to "
        "the next."
    )


def unevenness(result: Interpolation, method: str) -> float | None:
    """Largest step / mean step of a method's pictures, mean over its paths and seeds that move at all."""
    found = [
        strip.unevenness
        for path in _of(result, method)
        for strip in path.strips
        if strip.unevenness is not None
    ]
    return sum(found) / len(found) if found else None


def nearest_along(result: Interpolation, vector: VectorPath) -> list[NearestAlong]:
    """The nearest words of a vector along its path, stretch by stretch."""
    stretches = groupby(
        zip(result.points, vector.nearest, strict=True), key=lambda point: point[1][0]
    )
    found = []
    for word, points in stretches:
        places = [t for t, _ in points]
        found.append(NearestAlong(places[0], places[-1], word))
    return found


def without_thumbnails(result: Interpolation | None) -> Interpolation | None:
    """The data that a page lets one save; the pictures lie beside it."""
    return result and replace(result, thumbnails={})


def _finish(figure: "Figure", result: Interpolation, rows: Sequence[int]) -> None:
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


def _named(result: Interpolation) -> list[tuple[str, TokenPath, bool]]:
    """Each path, how hovering names it, and whether it is its method's first."""
    named, seen = [], set[str]()
    for path in result.paths:
        name = path.method if len(result.ends) == 2 else f"{path.method}, row {path.row:.3g}"
        named.append((name, path, path.method not in seen))
        seen.add(path.method)
    return named


def _of(result: Interpolation, method: str) -> list[TokenPath]:
    return [path for path in result.paths if path.method == method]


def _middles(result: Interpolation) -> list[float]:
    return [(one + other) / 2 for one, other in pairwise(result.points)]


def _each(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
