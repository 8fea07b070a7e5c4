"""The angles section: how far learned tokens have turned from the words they started from."""

import math
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from dti_geom.probes.angles import AnglesResult, LearnedAngle
from dti_geom.reporting.blocks import Column, Figure, Finding, Limits, Note, Section, Table, Value
from dti_geom.reporting.plots import (
    BLUE,
    INK,
    MUTED,
    VERMILLION,
    Lane,
    add_lanes,
    hover,
    lanes_height,
    rows_of,
)
from dti_geom.reporting.text import degrees, number, plot_text, short_path

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

_BIN = 5  # degrees
_COLUMNS = (
    Column("token", kind="token"),
    Column("vector"),
    Column("started from", kind="token"),
    Column("angle", "°"),
    Column("nearest token", kind="token"),
    Column("angle", "°"),
    Column("norm"),
    Column("file", kind="path"),
)
_UNKNOWN_COLUMNS = (
    Column("token", kind="token"),
    Column("vector"),
    Column("why its initialiser is not known", kind="text"),
)


def angles_section(result: AnglesResult) -> Section:
    """Show how far learned vectors have turned from their initialisers."""
    blocks: list[Finding | Figure | Note | Table | Limits] = [
        Finding(angle_finding(result)),
        Figure(
            lambda: angle_figure(result),
            "Angles between directions in the token table. Dashed: the median between two words.",
        ),
        Note(_note(result)),
        Table("Learned vectors", _COLUMNS, _rows(result)),
    ]
    unknown: list[list[Value]] = [
        [vector.token, vector.index, vector.unknown]
        for vector in result.learned
        if vector.unknown is not None
    ]
    if unknown:
        blocks.append(Table("Initialiser not known", _UNKNOWN_COLUMNS, unknown))
    blocks.append(
        Limits(
            "Whether the turn was needed. A token may turn far and keep its meaning, or a little "
            "and lose it; scores of pictures say more."
        )
    )
    count = len(result.learned)
    return Section(
        title="Turn from the initialiser",
        aside=f"{count} learned vector" + "s" * (count != 1),
        blocks=blocks,
    )


def angle_figure(result: AnglesResult) -> "PlotlyFigure":
    """Draw a histogram of the angles to the initialisers, and below it every vector's angles."""
    known = [vector for vector in result.learned if vector.angle is not None]
    lanes = [
        *([_lane("to the word it started from", known, "circle", VERMILLION)] if known else []),
        _lane("to the nearest token", result.learned, "line-ns-open", MUTED),
        _between_words(result),
    ]
    figure = rows_of([180, lanes_height(lanes)], left=52)
    counts = [0] * (180 // _BIN)
    for vector in known:
        counts[min(int(math.degrees(vector.angle or 0) / _BIN), len(counts) - 1)] += 1
    figure.add_bar(
        x=[_BIN * (place + 0.5) for place in range(len(counts))],
        y=counts,
        width=_BIN * 0.92,
        marker={"color": VERMILLION},
        hovertext=[
            hover(f"{_BIN * place}° to {_BIN * (place + 1)}°", f"{count} learned vectors")
            for place, count in enumerate(counts)
        ],
        hovertemplate="%{hovertext}<extra></extra>",
        row=1,
        col=1,
    )
    add_lanes(figure, lanes, row=2)
    middle = math.degrees(result.between_words[1])
    for row, text in ((1, f"two words {middle:.0f}°"), (2, "")):
        label = (
            {"text": text, "font": {"color": MUTED}, "yanchor": "bottom", "xanchor": "center"}
            if text
            else None
        )
        figure.add_vline(
            middle,
            line={"color": INK, "width": 1, "dash": "dash"},
            annotation=label,
            row=row,
            col=1,
        )
    figure.update_yaxes(
        title={"text": "learned vectors", "standoff": 4}, rangemode="tozero", row=1, col=1
    )
    figure.update_yaxes(dtick=max(1, math.ceil(max(counts) / 5)), row=1, col=1)
    figure.update_xaxes(
        range=[0, 120 if max(_degrees(result)) < 115 else 180], ticksuffix="°", dtick=30
    )
    figure.update_xaxes(title="angle", row=2, col=1)
    return figure


def angle_finding(result: AnglesResult) -> str:
    """Say the median turn beside the angle between words, and how many are nearest their start."""
    known = [vector for vector in result.learned if vector.angle is not None]
    unknown = len(result.learned) - len(known)
    if not known:
        return f"The initialiser is not known for any of the {len(result.learned)} learned vectors."
    turns = sorted(math.degrees(vector.angle or 0) for vector in known)
    near = sum(vector.init == vector.nearest for vector in known)
    missing = f" The initialiser of {unknown} more is not known." if unknown else ""
    return (
        f"{len(known)} learned vectors have turned {number(median(turns), 3)}° (median; "
        f"{number(turns[0], 3)}° to {number(turns[-1], 3)}°) from the words they started from; two "
        f"words lie {degrees(result.between_words[1])} apart. For {near} of them the initialiser "
        f"is still the nearest token.{missing}"
    )


def _note(result: AnglesResult) -> str:
    low, middle, high = map(degrees, result.between_words)
    return (
        f"Norms do not count. The median angle between two of {result.words} sampled words is "
        f"{middle} (nine tenths from {low} to {high}). The median angle from one of them to the "
        f"nearest other token is {degrees(result.to_nearest)}."
    )


def _rows(result: AnglesResult) -> list[list[Value]]:
    return [
        [
            vector.token,
            vector.index,
            vector.init,
            None if vector.angle is None else math.degrees(vector.angle),
            vector.nearest,
            math.degrees(vector.nearest_angle),
            vector.norm,
            vector.path,
        ]
        for vector in result.learned
    ]


def _degrees(result: AnglesResult) -> list[float]:
    """Return every angle that is drawn."""
    angles = [vector.angle or 0 for vector in result.learned]
    angles += [vector.nearest_angle for vector in result.learned]
    return [math.degrees(angle) for angle in (*angles, *result.between_words)]


def _lane(label: str, learned: Sequence[LearnedAngle], symbol: str, color: str) -> Lane:
    to_start = color == VERMILLION
    angles = [(vector.angle if to_start else vector.nearest_angle) or 0 for vector in learned]
    values = [math.degrees(angle) for angle in angles]
    texts = (
        hover(
            f"<b>{plot_text(vector.token)}</b>",
            f"vector {vector.index} of {plot_text(short_path(vector.path), 32)}",
            f"{number(value, 3)}° to "
            f"{plot_text((vector.init if to_start else vector.nearest) or '')}",
        )
        for vector, value in zip(learned, values, strict=True)
    )
    return Lane(
        f"{label}, median {median(values):.0f}°", tuple(values), tuple(texts), color, symbol
    )


def _between_words(result: AnglesResult) -> Lane:
    low, _, high = (math.degrees(angle) for angle in result.between_words)
    text = f"between words, nine tenths: {low:.0f}° to {high:.0f}°"
    return Lane(text, (low, high), (text, text), BLUE, line=True)
