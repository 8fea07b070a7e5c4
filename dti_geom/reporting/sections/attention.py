"""The attention section: what a token gets and gives as its norm grows, and maps of one prompt."""

from collections.abc import Callable, Sequence
from itertools import chain
from statistics import fmean
from typing import TYPE_CHECKING

from dti_geom.probes.attention import (
    AttentionCurves,
    AttentionResult,
    HeadAttention,
    HeatMap,
    Sensitivity,
)
from dti_geom.probes.sinks import Sinks
from dti_geom.reporting.blocks import Column, Figure, Finding, Limits, Note, Section, Table, Value
from dti_geom.reporting.curves import add_curve, add_keys
from dti_geom.reporting.plots import (
    BLUE,
    FONT,
    GREEN,
    INK,
    MUTED,
    PAPER,
    VERMILLION,
    add_magnitudes,
    hover,
    rows_of,
)
from dti_geom.reporting.text import number, percent, plot_text, quoted

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

_COLORS = (BLUE, GREEN, INK)  # first, middle, last layer
_TITLES = ("attention it gets", "its row's entropy, nats", "context sensitivity")
_FIGURE_COLUMNS = (
    Column("gets"),
    Column("gives itself"),
    Column("entropy, nats"),
    Column("context sensitivity"),
    Column("by context", "%", digits=3),
)
_LAYER_COLUMNS = (Column("layer"), *_FIGURE_COLUMNS)
_SINK_COLUMNS = (
    Column("layer"),
    Column("to first", "%", digits=3),
    Column("one head", "%", digits=3),
    Column("to padding", "%", digits=3),
    Column("largest", digits=3),
    Column("÷ median", "×", digits=3),
    Column("at", kind="token"),
    Column("dim."),
)
_MASSIVE = 100.0  # and _MASSIVE_RATIO times the median: Sun et al. 2024, section 2
_MASSIVE_RATIO = 1000.0
_LEARNED_COLUMNS = (
    Column("token", kind="token"),
    Column("÷ mean", "×", digits=3),
    *_FIGURE_COLUMNS,
)


def attention_section(result: AttentionResult) -> Section:
    """Show the attention a token gets and gives, and its use of context, against its norm."""
    words, *learned = result.curves
    blocks: list[Finding | Figure | Note | Table | Limits | Section] = [
        Finding(attention_finding(result)),
        Figure(
            lambda: attention_figure(result),
            "Attention a word gets, entropy of its own row and context sensitivity, in the first, "
            "the middle and the last layer. Dashed: all positions attended to alike.",
        ),
        Note(_method(result)),
        Figure(
            lambda: map_figure(result),
            "Attention maps of one prompt, mean over heads, with norms × the mean side by side. A "
            "row shows where a position looks; columns are in the order of the rows. Bold: the "
            "word that is scaled. No colour is 0, full colour 1.",
            label="Attention maps of one prompt",
        ),
    ]
    for scale in _tabled_scales(words):
        title = f"{words.directions} words at ×{scale:g} the mean norm"
        blocks.append(Table(title, _LAYER_COLUMNS, _layer_rows(words, scale)))
    if learned:
        title = "Learned vectors at their own norms, first layer"
        blocks.append(Table(title, _LEARNED_COLUMNS, [_learned_row(curves) for curves in learned]))
    if result.sinks is not None:
        blocks.append(sink_section(result.sinks))
    blocks.append(
        Limits(
            "What a head moves: a weight says how much a position is looked at, not how long the "
            "value is that is taken from it. Means over heads hide single heads that do "
            "otherwise; the data hold each."
        )
    )
    kind = "causal" if result.causal else "bidirectional"
    return Section(
        title="Attention and context",
        aside=f"{kind} attention, {len(result.contexts)} prompts",
        blocks=blocks,
    )


def attention_figure(result: AttentionResult) -> "PlotlyFigure":
    """Draw attention, entropy and context sensitivity against norm, for three layers."""
    figure = rows_of([200, 200, 200], left=52)
    scales = list(chain.from_iterable(curves.scales for curves in result.curves))
    for row, even in enumerate((result.uniform, result.most_entropy, None), start=1):
        _add_layers(figure, row, result)
        if even is not None:
            figure.add_hline(
                even, line={"color": MUTED, "width": 1, "dash": "dash"}, row=row, col=1
            )
            figure.update_yaxes(range=[0, 1.08 * max(even, *_drawn(result, row))], row=row, col=1)
        figure.update_yaxes(
            title={"text": _TITLES[row - 1], "standoff": 4}, rangemode="tozero", row=row, col=1
        )
    add_magnitudes(figure, (1, 2, 3), scales)
    figure.update_xaxes(title="norm, in multiples of the mean token norm", row=3, col=1)
    add_keys(figure, (1,))
    return figure


def map_figure(result: AttentionResult) -> "PlotlyFigure":
    """Draw attention weights of one prompt: layers below one another, norms side by side."""
    from plotly.subplots import make_subplots

    layers = sorted({heat_map.layer for heat_map in result.maps})
    scales = sorted({heat_map.scale for heat_map in result.maps})
    figure = make_subplots(
        rows=len(layers),
        cols=len(scales),
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.04,
        column_titles=[f"×{scale:g}" for scale in scales],
    )
    tokens = [plot_text(token, 10) for token in result.mapped]
    tokens[result.place] = f"<b>{tokens[result.place]}</b>"
    places = list(range(len(tokens)))
    for heat_map in result.maps:
        figure.add_heatmap(
            z=heat_map.weights,
            x=places,
            y=places,
            zmin=0,
            zmax=1,
            colorscale=[[0, "rgba(0,114,178,0)"], [1, "rgba(0,114,178,1)"]],
            showscale=False,
            hovertext=[
                _map_texts(heat_map, source, tokens, row)
                for source, row in zip(tokens, heat_map.weights, strict=True)
            ],
            hovertemplate="%{hovertext}<extra></extra>",
            row=layers.index(heat_map.layer) + 1,
            col=scales.index(heat_map.scale) + 1,
        )
    axis = {
        "tickvals": places,
        "ticktext": tokens,
        "tickfont": {"size": 9},
        "fixedrange": True,
        "showgrid": False,
        "zeroline": False,
    }
    # Labels of columns would cover each other on a telephone; rows have the same ones.
    figure.update_xaxes(**axis | {"showticklabels": False})
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


def attention_finding(result: AttentionResult) -> str:
    """Say how attention, entropy and context sensitivity change up to the largest norm."""
    words = result.curves[0]
    start = min(range(len(words.scales)), key=lambda at: abs(words.scales[at] - 1))

    def change(layer: int, row: int) -> str:
        values = _values(words, layer, row)
        return f"{number(values[start], 3)} → {number(values[-1], 3)}"

    share = ""
    if shares := _context(words, 0).share:
        share = (
            f", and {number(100 * shares[start], 3)} % → {number(100 * shares[-1], 3)} % of that "
            "state's variance depend on the context"
        )
    return (
        f"From ×{words.scales[start]:g} to ×{words.scales[-1]:g} the mean norm: in the first layer "
        f"a word gets {change(1, 1)} of each position's attention (equal shares: "
        f"{number(result.uniform, 3)}), and the entropy of its own row goes {change(1, 2)} nats "
        f"(at most {number(result.most_entropy, 3)}); the context sensitivity of its final state "
        f"goes {change(0, 3)}{share}."
    )


def sink_section(sinks: Sinks) -> Section:
    """Show by layer where attention is parked, and the largest activation."""
    return Section(
        title="Sinks and massive activations",
        blocks=[
            Finding(sink_finding(sinks)),
            Note(_sink_method(sinks)),
            Table("Sinks by layer", _SINK_COLUMNS, _sink_rows(sinks), folded=True),
        ],
    )


def sink_finding(sinks: Sinks) -> str:
    """Say which layer gives most to the first position and to padding, and what is massive."""
    most = max(sinks.layers, key=lambda layer: fmean(layer.first))
    first = quoted(sinks.begin) if sinks.begin else "the first position"
    sentence = (
        f"Most attention goes to {first} in layer {most.layer}: "
        f"{percent(100 * fmean(most.first))} (equal shares: {percent(100 * sinks.even_first)})"
    )
    if sinks.even_padding:
        fullest = max(sinks.layers, key=lambda layer: fmean(layer.padding or (0.0,)))
        sentence += (
            f"; padding that is not masked gets {percent(100 * fmean(fullest.padding or (0.0,)))} "
            f"in layer {fullest.layer} (equal shares: {percent(100 * sinks.even_padding)})"
        )
    massive = [
        layer
        for layer in sinks.layers
        if layer.largest > max(_MASSIVE, _MASSIVE_RATIO * layer.median)
    ]
    if not massive:
        return f"{sentence}. No layer has a massive activation."
    top = max(massive, key=lambda layer: layer.largest)
    return (
        f"{sentence}. {len(massive)} of {len(sinks.layers)} layers have a massive activation: "
        f"{number(top.largest, 3)} in layer {top.layer}, at {quoted(top.token)}."
    )


def _sink_method(sinks: Sinks) -> str:
    padded = "No prompt has room for padding."
    if sinks.even_padding == 0:
        padded = "Padding stands behind every token, so a causal mask hides it."
    elif sinks.even_padding is not None:
        padded = f"To padding: of prompts padded to {sinks.positions} positions without a mask."
    return (
        "Attention of a prompt's tokens, without the first, to the first position, mean over heads "
        f"and of the head that gives most. {padded} Largest: absolute number of a block's output "
        f"at the tokens. Massive: above {_MASSIVE:g} and {number(int(_MASSIVE_RATIO))} times the "
        "median."
    )


def _sink_rows(sinks: Sinks) -> list[list[Value]]:
    return [
        [
            layer.layer,
            100 * fmean(layer.first),
            100 * max(layer.first),
            None if layer.padding is None else 100 * fmean(layer.padding),
            layer.largest,
            layer.largest / layer.median if layer.median else None,
            layer.token,
            layer.dimension,
        ]
        for layer in sinks.layers
    ]


def _method(result: AttentionResult) -> str:
    attending = "those behind it" if result.causal else "all others"
    without = ""
    if _context(result.curves[0], 0).centred:
        without = (
            " It is taken without the mean state of sampled words of that norm, because any two "
            "states are nearly parallel. By context: of the states' variance about that mean, what "
            "differs between contexts of one word."
        )
    read = f" The denoiser reads {result.read}." if result.read else ""
    return (
        f"The model's own attention weights, mean over heads, {result.curves[0].directions} "
        f"sampled words and {len(result.contexts)} prompts. Attention a word gets: mean weight "
        f"from each position that may attend to it, {attending}. Context sensitivity: 1 − mean "
        "cosine between the word's states behind that layer in prompts that have the word at the "
        f"same place.{without}{read}"
    )


def _tabled_scales(words: AttentionCurves) -> list[float]:
    """Return the scale nearest to 1 and the largest."""
    nearest = min(words.scales, key=lambda scale: abs(scale - 1))
    return list(dict.fromkeys((nearest, words.scales[-1])))


def _layer_rows(curves: AttentionCurves, scale: float) -> list[list[Value]]:
    """Return layer, attention got, to itself, entropy (means over heads), context's part."""
    at = curves.scales.index(scale)
    return [
        [
            layer,
            _head_mean(curves, layer, lambda head: head.received)[at],
            _head_mean(curves, layer, lambda head: head.itself)[at],
            _head_mean(curves, layer, lambda head: head.entropy)[at],
            _values(curves, layer, 3)[at],
            100 * shares[at] if (shares := _context(curves, layer).share) else None,
        ]
        for layer in sorted({head.layer for head in curves.heads})
    ]


def _learned_row(curves: AttentionCurves) -> list[Value]:
    first_layer = _layer_rows(curves, curves.inflation or 0)[0]
    return [curves.token, curves.inflation, *first_layer[1:]]


def _map_texts(
    heat_map: HeatMap, source: str, tokens: Sequence[str], weights: Sequence[float]
) -> list[str]:
    """Return the hover texts of one row of a map. source, tokens: as plotly reads them."""
    return [
        hover(
            f"layer {heat_map.layer} at ×{heat_map.scale:g}",
            f"{source} to {target}",
            number(weight, 3),
        )
        for target, weight in zip(tokens, weights, strict=True)
    ]


def _add_layers(figure: "PlotlyFigure", row: int, result: AttentionResult) -> None:
    """Draw a curve for each chosen layer, and the learned vectors in all of them."""
    words, *learned = result.curves
    marks = []
    for layer, color in zip(_chosen(result), _COLORS, strict=False):
        points = [
            (scale, value, _text(words, layer, row, scale))
            for scale, value in zip(words.scales, _values(words, layer, row), strict=True)
        ]
        add_curve(figure, row, f"layer {layer}", points, color)
        marks += [
            (
                curves.inflation,
                _at(curves, layer, row, curves.inflation),
                _text(curves, layer, row, curves.inflation),
            )
            for curves in learned
            if curves.inflation is not None
        ]
    add_curve(figure, row, "learned", marks, VERMILLION, marks=True)


def _chosen(result: AttentionResult) -> list[int]:
    """Return the first, the middle and the last layer."""
    layers = sorted({head.layer for head in result.curves[0].heads})
    return sorted({layers[0], layers[len(layers) // 2], layers[-1]})


def _drawn(result: AttentionResult, row: int) -> list[float]:
    """Return every value that a row of the figure shows."""
    values: list[float] = []
    for curves in result.curves:
        for layer in _chosen(result):
            values += _values(curves, layer, row)
    return values


def _values(curves: AttentionCurves, layer: int, row: int) -> Sequence[float]:
    """Return what a row of the figure shows of a layer, at each scale."""
    if row == 3:
        # Results of older versions have no centred values.
        return _context(curves, layer).centred or _context(curves, layer).values
    return _head_mean(curves, layer, _measure(row))


def _context(curves: AttentionCurves, layer: int) -> Sensitivity:
    return next(known for known in curves.sensitivity if known.layer == layer)


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
