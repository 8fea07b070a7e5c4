"""The angle section: how far learned tokens have turned from the words they started from."""

import math
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from dti_geom.probes.angles import EncoderAngles, LearnedAngle
from dti_geom.probes.drawing import draws
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
    from plotly.graph_objects import Figure

_BIN = 5  # degrees


def angle_figure(encoder: EncoderAngles) -> "Figure":
    """Histogram of the angles to the initialisers; below it those of every vector, and those between words."""
    known = [one for one in encoder.learned if one.angle is not None]
    lanes = [
        *([_lane("to the word it started from", known, "circle", VERMILLION)] if known else []),
        _lane("to the nearest token", encoder.learned, "line-ns-open", MUTED),
        _between_words(encoder),
    ]
    figure = rows_of([180, lanes_height(lanes)], left=52)
    counts = [0] * (180 // _BIN)
    for one in known:
        counts[min(int(math.degrees(one.angle or 0) / _BIN), len(counts) - 1)] += 1
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
    middle = math.degrees(encoder.between_words[1])
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
        range=[0, 120 if max(_degrees(encoder)) < 115 else 180], ticksuffix="°", dtick=30
    )
    figure.update_xaxes(title="angle", row=2, col=1)
    return figure


def angle_finding(encoder: EncoderAngles) -> str:
    """One sentence: the median turn beside the angle between words, and how many still have their start nearest."""
    known = [one for one in encoder.learned if one.angle is not None]
    unknown = len(encoder.learned) - len(known)
    left = f" Of {unknown} more the initialiser is not known." if unknown else ""
    if not known:
        return f"Of none of the {len(encoder.learned)} learned vectors is the initialiser known."
    turns = sorted(math.degrees(one.angle or 0) for one in known)
    near = sum(one.init == one.nearest for one in known)
    return (
        f"{len(known)} learned vectors have turned {number(median(turns), 3)}° (median; {number(turns[0], 3)}° to "
        f"{number(turns[-1], 3)}°) from the words they started from, where two words lie "
        f"{degrees(encoder.between_words[1])} apart; for {near} the start is still the nearest token.{left}"
    )


def _degrees(encoder: EncoderAngles) -> list[float]:
    learned = [one.angle or 0 for one in encoder.learned] + [
        one.nearest_angle for one in encoder.learned
    ]
    return [math.degrees(angle) for angle in (*learned, *encoder.between_words)]


def _lane(label: str, learned: Sequence[LearnedAngle], symbol: str, color: str) -> Lane:
    to_start = color == VERMILLION
    values = [math.degrees((one.angle if to_start else one.nearest_angle) or 0) for one in learned]
    texts = (
        hover(
            f"<b>{plot_text(one.token)}</b>",
            f"vector {one.index} of {plot_text(short_path(one.path), 32)}",
            f"{number(value, 3)}° to {plot_text((one.init if to_start else one.nearest) or '')}",
        )
        for one, value in zip(learned, values, strict=True)
    )
    return Lane(
        f"{label}, median {median(values):.0f}°", tuple(values), tuple(texts), color, symbol
    )


def _between_words(encoder: EncoderAngles) -> Lane:
    low, _, high = (math.degrees(angle) for angle in encoder.between_words)
    text = f"between words, nine tenths: {low:.0f}° to {high:.0f}°"
    return Lane(text, (low, high), (text, text), BLUE, line=True)


draws(EncoderAngles, angle_figure)
