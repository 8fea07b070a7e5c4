"""The attention section: what a token gets and gives as its norm grows, and maps of one prompt."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dti_geom.probes.attention import AttentionCurves, EncoderAttention, HeadAttention
from dti_geom.probes.drawing import draws
from dti_geom.reporting.curves import add_curve, add_keys
from dti_geom.reporting.plots import (
    BLUE,
    FONT,
    GREEN,
    INK,
    MUTED,
    PAPER,
    VERMILLION,
    hover,
    log_axis,
    rows_of,
)
from dti_geom.reporting.text import number, plot_text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_COLORS = (BLUE, GREEN, INK)  # first, middle, last layer
_TITLES = ("attention it gets", "its row’s entropy, nats", "context sensitivity")


def attention_figure(encoder: EncoderAttention) -> "Figure":
    """Attention to the token, entropy of its row and context sensitivity against norm, in first, middle, last layer."""
    figure = rows_of([200, 200, 200], left=52)
    words, *learned = encoder.curves
    for row in (1, 2, 3):
        for layer, color in zip(_chosen(encoder), _COLORS, strict=False):
            values = _values(words, layer, row)
            points = [
                (scale, value, _text(words, layer, row, scale))
                for scale, value in zip(words.scales, values, strict=True)
            ]
            add_curve(figure, row, f"layer {layer}", points, color)
        marks = [
            (
                one.inflation,
                _at(one, layer, row, one.inflation),
                _text(one, layer, row, one.inflation),
            )
            for layer in _chosen(encoder)
            for one in learned
            if one.inflation is not None
        ]
        add_curve(figure, row, "learned", marks, VERMILLION, marks=True)
    scales = [scale for curves in encoder.curves for scale in curves.scales]
    for row, (title, even) in enumerate(
        zip(_TITLES, (encoder.uniform, encoder.most_entropy, None), strict=True), 1
    ):
        if even is not None:
            figure.add_hline(
                even, line={"color": MUTED, "width": 1, "dash": "dash"}, row=row, col=1
            )
            figure.update_yaxes(range=[0, 1.08 * max(even, *_shown(encoder, row))], row=row, col=1)
        figure.update_yaxes(
            title={"text": title, "standoff": 4}, rangemode="tozero", row=row, col=1
        )
        figure.update_xaxes(**log_axis(min(scales), max(scales), "×"), row=row, col=1)
    figure.update_xaxes(title="norm, in multiples of the mean token norm", row=3, col=1)
    add_keys(figure, (1,))
    return figure


def map_figure(encoder: EncoderAttention) -> "Figure":
    """Attention weights of one prompt, mean over heads: layers below one another, norms side by side."""
    from plotly.subplots import make_subplots

    layers = sorted({one.layer for one in encoder.maps})
    scales = sorted({one.scale for one in encoder.maps})
    figure = make_subplots(
        rows=len(layers),
        cols=len(scales),
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.04,
        column_titles=[f"×{scale:g}" for scale in scales],
    )
    tokens = [plot_text(token, 10) for token in encoder.mapped]
    tokens[encoder.place] = f"<b>{tokens[encoder.place]}</b>"
    places = list(range(len(tokens)))
    for one in encoder.maps:
        figure.add_heatmap(
            z=one.weights,
            x=places,
            y=places,
            zmin=0,
            zmax=1,
            colorscale=[[0, "rgba(0,114,178,0)"], [1, "rgba(0,114,178,1)"]],
            showscale=False,
            hovertext=[
                [
                    hover(
                        f"layer {one.layer} at ×{one.scale:g}",
                        f"{source} to {target}",
                        number(weight, 3),
                    )
                    for target, weight in zip(tokens, row, strict=True)
                ]
                for source, row in zip(tokens, one.weights, strict=True)
            ],
            hovertemplate="%{hovertext}<extra></extra>",
            row=layers.index(one.layer) + 1,
            col=scales.index(one.scale) + 1,
        )
    axis = {
        "tickvals": places,
        "ticktext": tokens,
        "tickfont": {"size": 9},
        "fixedrange": True,
        "showgrid": False,
        "zeroline": False,
    }
    figure.update_xaxes(
        **axis | {"showticklabels": False}
    )  # on a telephone they would cover each other
    figure.update_yaxes(**axis, autorange="reversed")
    for row, layer in enumerate(layers, 1):
        figure.update_yaxes(title={"text": f"layer {layer}", "standoff": 2}, row=row, col=1)
    figure.update_layout(
        height=170 * len(layers) + 54,
        margin={"l": 96, "r": 16, "t": 28, "b": 16},
        font={"family": FONT, "size": 12, "color": INK},
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        hoverlabel={
            "bgcolor": PAPER,
            "bordercolor": MUTED,
            "font": {"family": FONT, "color": INK},
            "align": "left",
        },
        modebar={"bgcolor": PAPER, "color": MUTED, "activecolor": INK},
    )
    figure.update_annotations(font={"size": 12, "color": MUTED})
    return figure


def attention_finding(encoder: EncoderAttention) -> str:
    """One sentence: first layer's attention and entropy, and context sensitivity, from ×1 to the largest norm."""
    words = encoder.curves[0]
    start = min(range(len(words.scales)), key=lambda at: abs(words.scales[at] - 1))
    received, entropy, context = (
        f"{number(values[start], 3)} → {number(values[-1], 3)}"
        for values in (_values(words, layer, row) for layer, row in ((1, 1), (1, 2), (0, 3)))
    )
    return (
        f"From ×{words.scales[start]:g} to ×{words.scales[-1]:g} the mean norm: in the first layer a word gets "
        f"{received} of each position’s attention (equal shares: {number(encoder.uniform, 3)}), and the entropy of its "
        f"own row goes {entropy} nats, of {number(encoder.most_entropy, 3)} at most; the context sensitivity of "
        f"its final state goes {context}."
    )


def layer_rows(
    curves: AttentionCurves, scale: float
) -> list[tuple[int, float, float, float, float]]:
    """For a table, at one scale: layer, attention got, to itself, entropy (means over heads), context sensitivity."""
    at = curves.scales.index(scale)
    layers = sorted({head.layer for head in curves.heads})
    return [
        (
            layer,
            _head_mean(curves, layer, lambda head: head.received)[at],
            _head_mean(curves, layer, lambda head: head.itself)[at],
            _head_mean(curves, layer, lambda head: head.entropy)[at],
            _values(curves, layer, 3)[at],
        )
        for layer in layers
    ]


def _chosen(encoder: EncoderAttention) -> list[int]:
    layers = sorted({head.layer for head in encoder.curves[0].heads})
    return sorted({layers[0], layers[len(layers) // 2], layers[-1]})


def _shown(encoder: EncoderAttention, row: int) -> list[float]:
    return [
        value
        for curves in encoder.curves
        for layer in _chosen(encoder)
        for value in _values(curves, layer, row)
    ]


def _values(curves: AttentionCurves, layer: int, row: int) -> Sequence[float]:
    """What a row of the figure shows of a layer, at each scale."""
    if row == 3:
        return next(one.values for one in curves.sensitivity if one.layer == layer)
    return _head_mean(curves, layer, _measure(row))


def _measure(row: int) -> Callable[[HeadAttention], tuple[float, ...]]:
    return (lambda head: head.received) if row == 1 else (lambda head: head.entropy)


def _head_mean(
    curves: AttentionCurves, layer: int, measure: Callable[[HeadAttention], tuple[float, ...]]
) -> list[float]:
    heads = [measure(head) for head in curves.heads if head.layer == layer]
    return [sum(values) / len(heads) for values in zip(*heads, strict=True)]


def _at(curves: AttentionCurves, layer: int, row: int, scale: float) -> float:
    return _values(curves, layer, row)[curves.scales.index(scale)]


def _text(curves: AttentionCurves, layer: int, row: int, scale: float) -> str:
    who = (
        f"{curves.directions} words"
        if curves.token is None
        else f"<b>{plot_text(curves.token)}</b>"
    )
    lines = [
        f"{who} at ×{scale:.3g} the mean norm",
        f"layer {layer}: {number(_at(curves, layer, row, scale), 3)}",
    ]
    if row < 3:
        place = curves.scales.index(scale)
        heads = [_measure(row)(head)[place] for head in curves.heads if head.layer == layer]
        lines.append(f"{len(heads)} heads from {number(min(heads), 3)} to {number(max(heads), 3)}")
    return hover(*lines)


draws(EncoderAttention, attention_figure)
