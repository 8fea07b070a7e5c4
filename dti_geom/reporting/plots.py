"""Colours, the common look of figures, and lanes of marked values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, product
from typing import TYPE_CHECKING

from dti_geom.reporting.text import number

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart.
BLUE, SKY, GREEN, VERMILLION = "#0072B2", "#56B4E9", "#009E73", "#D55E00"
PURPLE, OLIVE = "#a3487f", "#7d6c00"  # darker than theirs, so that text in them can be read
INK, MUTED, GRID, PAPER = "#1d1d1b", "#5f5e5a", "#e3e1da", "#fdfcf9"

# A figure is drawn in the colours above; the page exchanges these for its dark theme.
DARK = {
    BLUE: SKY,
    GREEN: "#1fbf92",
    VERMILLION: "#f0813a",
    PURPLE: "#dd8fbf",
    OLIVE: "#cdb82b",
    INK: "#e8e6e1",
    MUTED: "#a3a19b",
    GRID: "#34353a",
    PAPER: "#17181b",
}

FONT = "system-ui, sans-serif"
MAX_LANES = 40
LANE_HEIGHT = 36  # pixels
_MARGIN = {"l": 16, "r": 16, "t": 28, "b": 48}
_GAP = 72  # pixels between two rows: room for the upper one's axis


@dataclass(frozen=True)
class Lane:
    """One labelled line of points."""

    label: str  # this and the hover texts as plotly reads them: see `plot_text`
    values: tuple[float, ...]
    hover: tuple[str, ...]
    color: str
    symbol: str = "circle"
    line: bool = False  # a bar from the first value to the last instead of points


def rows_of(heights: Sequence[int], left: int = _MARGIN["l"]) -> "Figure":
    """Return an empty figure of rows with these heights in pixels, in the look of the report."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    inner = sum(heights) + _GAP * (len(heights) - 1)
    figure = make_subplots(
        rows=len(heights),
        cols=1,
        row_heights=list(heights),
        vertical_spacing=_GAP / inner if len(heights) > 1 else 0,
    )
    axis = {
        "gridcolor": GRID,
        "linecolor": MUTED,
        "zeroline": False,
        "ticks": "",
        "automargin": False,
    }
    below = {"ticklabelstandoff": 6}  # or the first label touches that of the other axis
    figure.update_layout(
        template=go.layout.Template(layout={"xaxis": axis | below, "yaxis": axis}),
        height=inner + _MARGIN["t"] + _MARGIN["b"],
        margin=_MARGIN | {"l": left},
        font={"family": FONT, "size": 12, "color": INK},
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        showlegend=False,
        bargap=0,
        hoverlabel={
            "bgcolor": PAPER,
            "bordercolor": MUTED,
            "font": {"family": FONT, "color": INK},
            "align": "left",
        },
        modebar={"bgcolor": PAPER, "color": MUTED, "activecolor": INK},
    )
    return figure


def few(lanes: Sequence[Lane]) -> list[Lane]:
    """Return at most MAX_LANES lanes; those that are too many share the last one."""
    if len(lanes) <= MAX_LANES:
        return list(lanes)
    kept, rest = lanes[: MAX_LANES - 1], lanes[MAX_LANES - 1 :]
    values = tuple(chain.from_iterable(lane.values for lane in rest))
    texts = tuple(chain.from_iterable(lane.hover for lane in rest))
    return [
        *kept,
        Lane(f"{number(len(rest))} more tokens", values, texts, rest[0].color, rest[0].symbol),
    ]


def lanes_height(lanes: Sequence[Lane]) -> int:
    """Return how many pixels `add_lanes` needs."""
    return LANE_HEIGHT * len(lanes) + 8


def add_lanes(figure: "Figure", lanes: Sequence[Lane], row: int) -> None:
    """Draw lanes below one another, each under its label, so that labels meet nothing else."""
    y_axis = "y" if row == 1 else f"y{row}"
    x_axis = y_axis.replace("y", "x")
    for place, lane in enumerate(lanes):
        figure.add_scatter(
            x=lane.values,
            y=[place] * len(lane.values),
            mode="lines" if lane.line else "markers",
            line={"color": lane.color, "width": 8},
            marker={
                "color": lane.color,
                "symbol": lane.symbol,
                "size": 10,
                "line": {"color": PAPER, "width": 1},
            },
            hovertext=lane.hover,
            hovertemplate="%{hovertext}<extra></extra>",
            row=row,
            col=1,
        )
        figure.add_annotation(
            text=lane.label,
            x=0,
            xref=f"{x_axis} domain",
            xanchor="left",
            y=place - 0.46,
            yref=y_axis,
            showarrow=False,
            font={"size": 12, "color": MUTED},
            bgcolor=PAPER,  # dashed lines end at a label
            borderpad=0,
        )
    figure.update_yaxes(
        range=[len(lanes) - 0.5, -0.75],
        tickvals=list(range(len(lanes))),
        showticklabels=False,
        fixedrange=True,
        row=row,
        col=1,
    )


def log_axis(low: float, high: float, prefix: str = "") -> dict[str, object]:
    """Return a logarithmic axis around [low, high] with a few ticks at round numbers."""
    low, high = math.log10(low), math.log10(high)
    spare = max(0.06 * (high - low), (0.7 - (high - low)) / 2)
    low, high = low - spare, high + spare
    mantissas = (1, 2, 5) if high - low < 1.6 else (1, 3) if high - low < 2.6 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    ticks = [mantissa * 10.0**power for power, mantissa in product(powers, mantissas)]
    return {
        "type": "log",
        "range": [low, high],
        "tickvals": ticks,
        "ticktext": [
            prefix + (f"{tick:g}" if 1e-4 <= tick < 1e6 else number(tick, 1)) for tick in ticks
        ],
    }


def add_magnitudes(figure: "Figure", rows: Sequence[int], scales: Sequence[float]) -> None:
    """Give rows a logarithmic axis of norms around scales > 0, in multiples of the mean norm."""
    for row in rows:
        figure.update_xaxes(**log_axis(min(scales), max(scales), "×"), row=row, col=1)
    follow_magnitude(figure, rows, 1.0)


def follow_magnitude(figure: "Figure", rows: Sequence[int], mean: float) -> None:
    """Let a page's slider of magnitudes move a line through these rows. mean: in their x units."""
    axes = ["x" if row == 1 else f"x{row}" for row in rows]
    figure.update_layout(meta={"magnitude": {"axes": axes, "mean": mean}})


def hover(*lines: str) -> str:
    """Join lines of a hover label."""
    return "<br>".join(lines)
