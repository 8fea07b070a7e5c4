"""The norm section: a histogram of the vocabulary, and marked tokens at their true norm."""

from collections import defaultdict
from itertools import pairwise
from pathlib import PurePath
from typing import TYPE_CHECKING

from dti_geom.geometry import PERCENTILES
from dti_geom.probes import EncoderNorms, PlacedToken, TokenNorm
from dti_geom.probes.drawing import draws
from dti_geom.reporting.plots import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    VERMILLION,
    Lane,
    add_lanes,
    few,
    hover,
    lanes_height,
    log_axis,
    rows_of,
)
from dti_geom.reporting.text import number, percent, plot_text, quoted, short_path, spread, times

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_READABLE = 0.35  # least share of a linear axis that the vocabulary may be squeezed into


def norm_figure(encoder: EncoderNorms) -> "Figure":
    """Histogram of an encoder's token norms; below it the special, extreme and learned tokens at their true norms.

    Both rows share a linear axis while the vocabulary fills enough of it. Where a token lies far outside, the lower
    row gets a logarithmic axis of its own, so that the shape of the vocabulary and the token can both be read.
    """
    histogram, edges = encoder.histogram, encoder.histogram.edges
    lanes = _lanes(encoder)
    figure = rows_of([240, lanes_height(lanes)], left=52)
    figure.add_bar(
        x=[(low + high) / 2 for low, high in pairwise(edges)],
        y=histogram.counts,
        width=[(high - low) or 0.01 * high for low, high in pairwise(edges)],
        marker={"color": BLUE, "line": {"width": 0}},
        hovertext=_bin_texts(encoder),
        hovertemplate="%{hovertext}<extra></extra>",
        row=1,
        col=1,
    )
    add_lanes(figure, lanes, row=2)
    mean = encoder.norms.mean
    label = {
        "text": f"mean {number(mean)}",
        "font": {"color": MUTED},
        "yanchor": "bottom",
        "xanchor": "center",
    }
    for row, annotation in ((1, label), (2, None)):
        figure.add_vline(
            mean,
            line={"color": INK, "width": 1, "dash": "dash"},
            annotation=annotation,
            row=row,
            col=1,
        )
    figure.update_yaxes(
        title={"text": "tokens per bar", "standoff": 4}, rangemode="tozero", row=1, col=1
    )
    values = [*edges, *(value for lane in lanes for value in lane.values)]
    low, high = min(values), max(values)
    if edges[-1] - edges[0] >= _READABLE * (high - low):
        spare = 0.03 * (high - low) or 0.05 * high
        figure.update_xaxes(range=[low - spare, high + spare])
        figure.update_xaxes(matches="x", title="norm, embedding units", row=2, col=1)
    else:
        figure.update_xaxes(title="norm, embedding units", row=1, col=1)
        figure.update_xaxes(
            title="norm, embedding units, logarithmic", **log_axis(low, high), row=2, col=1
        )
    return figure


def norm_finding(encoder: EncoderNorms) -> str:
    """One sentence: where the learned tokens fall, or without any, how wide the vocabulary spreads."""
    norms = encoder.norms
    if not encoder.learned:
        quarter, three_quarters = (norms.percentiles[PERCENTILES.index(each)] for each in (25, 75))
        longest, shortest = encoder.longest[0], encoder.shortest[0]
        return (
            f"Half of the {number(norms.count)} tokens have norms between {number(quarter)} and "
            f"{number(three_quarters)}, around a mean of {number(norms.mean)}; the longest, {quoted(longest.token)}, "
            f"is {times(longest.norm / norms.mean)} the mean, the shortest, {quoted(shortest.token)}, "
            f"{times(shortest.norm / norms.mean)}."
        )
    top = max(encoder.learned, key=lambda one: one.norm)
    place = (
        f"{quoted(top.token)} has norm {number(top.norm)}, {times(top.inflation)} the mean of {number(norms.mean)}: at "
        f"least as long as {percent(top.percentile)} of the {number(norms.count)} tokens."
    )
    if len(encoder.learned) == 1:
        return f"The learned vector {place}"
    beyond = sum(one.norm > norms.max for one in encoder.learned)
    return f"{beyond} of {len(encoder.learned)} learned vectors are longer than every token; the longest, {place}"


def _lanes(encoder: EncoderNorms) -> list[Lane]:
    norms = encoder.norms
    middle = (norms.percentiles[0], norms.percentiles[-1])
    text = f"{PERCENTILES[-1] - PERCENTILES[0]} % of the vocabulary: {number(middle[0])} to {number(middle[1])}"
    extremes = (*encoder.longest, *encoder.shortest)
    special = [one for one in encoder.special if one.norm > 0]
    lanes = [
        Lane(text, middle, (text, text), BLUE, line=True),
        _token_lane(
            f"the {len(encoder.longest)} longest and {len(encoder.shortest)} shortest tokens",
            extremes,
            encoder,
        ),
    ]
    if special:
        names = (
            ", ".join(plot_text(one.token, 15) for one in special)
            if len(special) < 3
            else f"{len(special)} of them"
        )
        lanes.append(_token_lane(f"special tokens: {names}", special, encoder, GREEN, "diamond"))
    return lanes + _learned_lanes(encoder)


def _token_lane(
    label: str,
    tokens: tuple[TokenNorm, ...] | list[TokenNorm],
    encoder: EncoderNorms,
    color: str = MUTED,
    symbol: str = "line-ns-open",
) -> Lane:
    texts = (
        hover(
            plot_text(one.token),
            f"norm {number(one.norm)}",
            f"{times(one.norm / encoder.norms.mean)} the mean",
        )
        for one in tokens
    )
    return Lane(label, tuple(one.norm for one in tokens), tuple(texts), color, symbol)


def _learned_lanes(encoder: EncoderNorms) -> list[Lane]:
    groups: dict[tuple[str, str], list[PlacedToken]] = defaultdict(list)
    for one in encoder.learned:
        if one.norm > 0:  # a zero vector has no place on a logarithmic axis
            groups[one.token, str(PurePath(one.path).parent)].append(one)
    ordered = sorted(groups.values(), key=lambda group: -max(one.norm for one in group))
    return few([_learned_lane(group) for group in ordered])


def _learned_lane(group: list[PlacedToken]) -> Lane:
    return Lane(
        f"{plot_text(group[0].token, 18)} {spread([one.inflation for one in group], '×')}",
        tuple(one.norm for one in group),
        tuple(
            hover(
                f"<b>{plot_text(one.token)}</b>",
                f"vector {one.index} of {plot_text(short_path(one.path), 32)}",
                f"norm {number(one.norm)}",
                f"{times(one.inflation)} the mean",
                f"z-score {number(one.z_score)}",
                f"percentile {percent(one.percentile)}",
            )
            for one in group
        ),
        VERMILLION,
    )


def _bin_texts(encoder: EncoderNorms) -> list[str]:
    edges, counts = encoder.histogram.edges, encoder.histogram.counts
    texts = []
    for place, (count, examples) in enumerate(zip(counts, encoder.histogram.examples, strict=True)):
        span = f"norm {number(edges[place])} to {number(edges[place + 1])}"
        if place == 0:
            span = f"norm up to {number(edges[1])}"
        if place == len(counts) - 1:
            span = f"norm from {number(edges[place])}"
        names = [plot_text(token, 20) for token in examples]
        lines = [", ".join(names[start : start + 2]) for start in range(0, len(names), 2)]
        texts.append(hover(span, f"{number(count)} token" + "s" * (count != 1), *lines))
    return texts


draws(EncoderNorms, norm_figure)
