"""Curves over magnitude or depth, named in a key above their row."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from dti_geom.reporting.methods import LEARNED, learned_color, method_name
from dti_geom.reporting.plots import PAPER
from dti_geom.reporting.text import plot_text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

LEFT = 72  # pixels: room for an axis title beside ticks such as 1×10⁻⁵
# Pixels: a character of a key in font size 12, rounded up, and the space behind an entry.
_CHARACTER, _SPACE = 6.8, 16
_LINE, _LINE_HEIGHT = 336, 17  # pixels: a line of a key


def add_curve(
    figure: "Figure",
    row: int,
    name: str,
    points: Iterable[tuple[float, float | None, str]],
    color: str,
    *,
    dash: str | None = None,
    marks: bool = False,
    key: bool = True,
) -> None:
    """Draw one named curve through points (x, y, hover text). Without y there is a gap.

    Nothing is drawn without points. The name and the hover texts are as plotly reads them: see
    `plot_text`. marks: diamonds instead of a line. key: whether `add_keys` names it.
    """
    points = list(points)
    if not points:
        return
    x, y, texts = zip(*points, strict=True)
    figure.add_scatter(
        x=x,
        y=y,
        name=name,
        showlegend=key,
        mode="markers" if marks else "lines" if dash else "lines+markers",
        line={"color": color, "width": 1.5, "dash": dash},
        marker={
            "color": color,
            "symbol": "diamond" if marks else "circle",
            "size": 10 if marks else 5,
            "line": {"color": PAPER, "width": 1 if marks else 0},
        },
        hovertext=texts,
        hovertemplate="%{hovertext}<extra></extra>",
        row=row,
        col=1,
    )


# The method of a learned vector, None if its file does not say, and its point (x, y, hover text).
LearnedPoint: TypeAlias = tuple[str | None, tuple[float, float | None, str]]


def add_learned(figure: "Figure", row: int, points: Iterable[LearnedPoint]) -> None:
    """Mark learned vectors, each method in its own colour."""
    by_method: dict[str | None, list[tuple[float, float | None, str]]] = defaultdict(list)
    for method, point in points:
        by_method[method].append(point)
    for method, marks in by_method.items():
        name = LEARNED if method is None else plot_text(method_name(method))
        add_curve(figure, row, name, marks, learned_color(method), marks=True)


def add_keys(figure: "Figure", rows: Sequence[int]) -> None:
    """Name the curves of these rows above each row, in their own colours. Call this last.

    Lines are as long as a telephone is wide: plotly's own legend breaks into a column there and
    covers the row above. A click on a key hides the curve of the same name.
    """
    most = 1
    for row in rows:
        axis = "y" if row == 1 else f"y{row}"
        entries = [
            trace
            for trace in figure.data
            if trace.yaxis == axis and trace.name and trace.showlegend
        ]
        texts = [f"{_sign(trace)} {trace.name}" for trace in entries]
        places: list[tuple[float, int]] = []
        start, line = 0.0, 0
        for text in texts:
            width = _CHARACTER * len(text) + _SPACE
            if start and start + width > _LINE:
                start, line = 0.0, line + 1
            places.append((start, line))
            start += width
        most = max(most, line + 1)
        for trace, text, (start, at) in zip(entries, texts, places, strict=True):
            figure.add_annotation(
                name=trace.name,
                captureevents=True,
                text=text,
                x=0,
                xref="paper",
                xanchor="left",
                xshift=start - figure.layout.margin.l,
                y=1,
                yref=f"{axis} domain",
                yanchor="bottom",
                yshift=_LINE_HEIGHT * (line - at)
                + 4,  # above the half of a tick label at the upper end
                showarrow=False,
                font={"color": trace.line.color, "size": 12},
            )
    taller = _LINE_HEIGHT * (most - 1)
    figure.update_layout(
        height=figure.layout.height + taller, margin={"t": figure.layout.margin.t + taller}
    )


def _sign(trace: Any) -> str:
    if trace.mode == "markers":
        return "●" if trace.marker.symbol == "circle" else "◆"
    return "╌╌" if trace.line.dash else "●"
