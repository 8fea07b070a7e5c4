"""The norms section: how long tokens are, and where learned tokens fall among them."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, pairwise
from pathlib import PurePath
from typing import TYPE_CHECKING

from dti_geom.geometry import PERCENTILES
from dti_geom.probes.norms import NormsResult, PlacedToken, TokenNorm
from dti_geom.reporting.blocks import Column, Figure, Finding, Limits, Section, Table, Value
from dti_geom.reporting.methods import learned_color, method_name
from dti_geom.reporting.plots import (
    BLUE,
    INK,
    MUTED,
    Lane,
    add_lanes,
    few,
    follow_magnitude,
    hover,
    lanes_height,
    log_axis,
    rows_of,
)
from dti_geom.reporting.text import number, percent, plot_text, quoted, short_path, spread, times

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

_READABLE = 0.35  # least share of a linear axis that the vocabulary may be squeezed into

_SUMMARY_COLUMNS = (
    Column("tokens"),
    Column("zero rows"),
    Column("mean"),
    Column("std"),
    Column("min"),
    Column("max"),
)
_GROUP_COLUMNS = (
    Column("rows", kind="text"),
    Column("number"),
    Column("mean"),
    Column("std"),
    Column("÷ mean of all", "×", digits=3),
    Column("examples", kind="text"),
    Column("told by", kind="text"),
)
_LEARNED_COLUMNS = (
    Column("token", kind="token"),
    Column("vector"),
    Column("norm"),
    Column("÷ mean", "×", digits=3),
    Column("z-score"),
    Column("percentile", "%"),
    Column("file", kind="path"),
)
_TOKEN_COLUMNS = (
    Column("token", kind="token"),
    Column("id"),
    Column("norm"),
    Column("÷ mean", "×", digits=3),
)


def norms_section(result: NormsResult) -> Section:
    """Show how long tokens are, which are unusual, and where learned vectors fall."""
    norms = result.norms
    percentiles = [
        "median" if percentile == 50 else f"{percentile} %" for percentile in PERCENTILES
    ]
    summary: list[Value] = [
        norms.count,
        norms.zero_rows,
        norms.mean,
        norms.std,
        norms.min,
        norms.max,
    ]
    blocks: list[Finding | Figure | Table | Limits] = [
        Finding(norm_finding(result)),
        Figure(lambda: norm_figure(result), _caption(result)),
        Table("Norms", _SUMMARY_COLUMNS, [summary]),
        Table(
            "Percentiles of the norm",
            [*map(Column, percentiles)],
            [norms.percentiles],
            folded=True,
        ),
    ]
    if result.groups:
        blocks.append(Table("Kinds of rows", _GROUP_COLUMNS, _group_rows(result)))
    if result.learned:
        blocks.append(Table("Learned vectors", _LEARNED_COLUMNS, _learned_rows(result)))
    for title, tokens in (
        ("Longest tokens", result.longest),
        ("Shortest tokens", result.shortest),
        ("Special tokens", result.special),
    ):
        if tokens:
            blocks.append(Table(title, _TOKEN_COLUMNS, _token_rows(tokens, norms.mean)))
    blocks.append(
        Limits(
            "What a norm does; the sections on magnitude measure that. Each token table has its "
            "own units, so lengths compare within one encoder, and ratios to its mean between "
            "encoders."
        )
    )
    return Section(
        title="Token norms",
        aside=f"{number(result.vocab_size)} tokens × {number(result.dim)} dimensions",
        blocks=blocks,
    )


def norm_figure(result: NormsResult) -> "PlotlyFigure":
    """Draw a histogram of token norms, and below it special, extreme and learned tokens.

    Both rows share a linear axis while the vocabulary fills enough of it. Where a token lies far
    outside, the lower row gets its own logarithmic axis, so that the shape of the vocabulary and
    the token can both be read.
    """
    histogram, edges = result.histogram, result.histogram.edges
    lanes = _lanes(result)
    figure = rows_of([240, lanes_height(lanes)], left=52)
    figure.add_bar(
        x=[(low + high) / 2 for low, high in pairwise(edges)],
        y=histogram.counts,
        width=[(high - low) or 0.01 * high for low, high in pairwise(edges)],
        marker={"color": BLUE, "line": {"width": 0}},
        hovertext=_bin_texts(result),
        hovertemplate="%{hovertext}<extra></extra>",
        row=1,
        col=1,
    )
    add_lanes(figure, lanes, row=2)
    mean = result.norms.mean
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
    values = [*edges, *chain.from_iterable(lane.values for lane in lanes)]
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
    follow_magnitude(figure, (1, 2), mean)
    return figure


def norm_finding(result: NormsResult) -> str:
    """Say where the learned tokens fall, or without any, how wide the vocabulary spreads."""
    norms = result.norms
    if not result.learned:
        quarter = norms.percentiles[PERCENTILES.index(25)]
        three_quarters = norms.percentiles[PERCENTILES.index(75)]
        longest, shortest = result.longest[0], result.shortest[0]
        return (
            f"Half of the {number(norms.count)} tokens have norms between {number(quarter)} and "
            f"{number(three_quarters)}; the mean is {number(norms.mean)}. The longest, "
            f"{quoted(longest.token)}, is {times(longest.norm / norms.mean)} the mean, the "
            f"shortest, {quoted(shortest.token)}, {times(shortest.norm / norms.mean)}."
        )
    top = max(result.learned, key=lambda vector: vector.norm)
    place = (
        f"{quoted(top.token)} has norm {number(top.norm)}, {times(top.inflation)} the mean of "
        f"{number(norms.mean)}: at least as long as {percent(top.percentile)} of the "
        f"{number(norms.count)} tokens."
    )
    if len(result.learned) == 1:
        return f"The learned vector {place}"
    beyond = sum(vector.norm > norms.max for vector in result.learned)
    return (
        f"{beyond} of {len(result.learned)} learned vectors are longer than every token; the "
        f"longest, {place}"
    )


def _caption(result: NormsResult) -> str:
    norms = result.norms
    zero = f"{number(norms.zero_rows)} zero row" + "s" * (norms.zero_rows != 1)
    return (
        f"L2 norms of the {number(norms.count)} rows of the token table that are not zero ({zero} "
        "left out), in embedding units. Dashed: their mean. The outermost bars also count what "
        "lies beyond them."
    )


def _token_rows(tokens: Sequence[TokenNorm], mean: float) -> list[list[Value]]:
    return [[token.token, token.id, token.norm, token.norm / mean] for token in tokens]


def _group_rows(result: NormsResult) -> list[list[Value]]:
    rows: list[list[Value]] = []
    for group in result.groups:
        norms = group.norms
        numbers: list[Value] = [None, None, None]
        if norms is not None:
            numbers = [norms.mean, norms.std, norms.mean / result.norms.mean]
        rows.append([group.kind, group.rows, *numbers, ", ".join(group.examples), group.told_by])
    if result.trained is not None:
        trained = result.trained
        mean = trained.mean / result.norms.mean
        told = "all but rows that no text reads, rows like these, and repeated rows"
        count = trained.count + trained.zero_rows
        rows.append(["together, trained", count, trained.mean, trained.std, mean, "", told])
    return rows


def _learned_rows(result: NormsResult) -> list[list[Value]]:
    return [
        [
            vector.token,
            vector.index,
            vector.norm,
            vector.inflation,
            vector.z_score,
            vector.percentile,
            vector.path,
        ]
        for vector in result.learned
    ]


def _lanes(result: NormsResult) -> list[Lane]:
    norms = result.norms
    low, high = norms.percentiles[0], norms.percentiles[-1]
    share = PERCENTILES[-1] - PERCENTILES[0]
    text = f"{share} % of the vocabulary: {number(low)} to {number(high)}"
    extremes = (*result.longest, *result.shortest)
    special = [token for token in result.special if token.norm > 0]
    lanes = [
        Lane(text, (low, high), (text, text), BLUE, line=True),
        _token_lane(
            f"the {len(result.longest)} longest and {len(result.shortest)} shortest tokens",
            extremes,
            result,
        ),
    ]
    if special:
        names = (
            ", ".join(plot_text(token.token, 15) for token in special)
            if len(special) < 3
            else f"{len(special)} of them"
        )
        lanes.append(_token_lane(f"special tokens: {names}", special, result, MUTED, "diamond"))
    return lanes + _learned_lanes(result)


def _token_lane(
    label: str,
    tokens: Sequence[TokenNorm],
    result: NormsResult,
    color: str = MUTED,
    symbol: str = "line-ns-open",
) -> Lane:
    texts = (
        hover(
            plot_text(token.token),
            f"norm {number(token.norm)}",
            f"{times(token.norm / result.norms.mean)} the mean",
        )
        for token in tokens
    )
    return Lane(label, tuple(token.norm for token in tokens), tuple(texts), color, symbol)


def _learned_lanes(result: NormsResult) -> list[Lane]:
    groups: dict[tuple[str, str], list[PlacedToken]] = defaultdict(list)
    for vector in result.learned:
        if vector.norm > 0:  # a zero vector has no place on a logarithmic axis
            groups[vector.token, str(PurePath(vector.path).parent)].append(vector)
    ordered = sorted(groups.values(), key=lambda group: -max(vector.norm for vector in group))
    return few([_learned_lane(group) for group in ordered])


def _learned_lane(group: list[PlacedToken]) -> Lane:
    return Lane(
        f"{_learned_label(group[0])} {spread([vector.inflation for vector in group], '×')}",
        tuple(vector.norm for vector in group),
        tuple(
            hover(
                f"<b>{plot_text(vector.token)}</b>",
                f"vector {vector.index} of {plot_text(short_path(vector.path), 32)}",
                f"norm {number(vector.norm)}",
                f"{times(vector.inflation)} the mean",
                f"z-score {number(vector.z_score)}",
                f"percentile {percent(vector.percentile)}",
            )
            for vector in group
        ),
        learned_color(group[0].method),
    )


def _learned_label(vector: PlacedToken) -> str:
    name = plot_text(vector.token, 18)
    if vector.method is None:
        return name
    return f"{name} by {plot_text(method_name(vector.method), 18)}"


def _bin_texts(result: NormsResult) -> list[str]:
    edges, counts = result.histogram.edges, result.histogram.counts
    texts = []
    for place, (count, examples) in enumerate(zip(counts, result.histogram.examples, strict=True)):
        span = f"norm {number(edges[place])} to {number(edges[place + 1])}"
        if place == 0:
            span = f"norm up to {number(edges[1])}"
        if place == len(counts) - 1:
            span = f"norm from {number(edges[place])}"
        names = [plot_text(token, 20) for token in examples]
        lines = [", ".join(names[start : start + 2]) for start in range(0, len(names), 2)]
        texts.append(hover(span, f"{number(count)} token" + "s" * (count != 1), *lines))
    return texts
