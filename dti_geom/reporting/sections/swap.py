"""The swap section: which donor swapped vectors resemble, and what a growing norm does."""

from itertools import chain
from typing import TYPE_CHECKING

from dti_geom.probes.painted import PaintedSum
from dti_geom.probes.swap import (
    LEFT,
    MagnitudeCurve,
    OutputCurve,
    Resemblance,
    SwappedPair,
    SwapResult,
    SwapSum,
)
from dti_geom.reporting.blocks import (
    Column,
    Figure,
    Finding,
    Limits,
    Note,
    Section,
    Span,
    Table,
    Value,
)
from dti_geom.reporting.curves import add_curve, add_keys
from dti_geom.reporting.plots import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    PAPER,
    VERMILLION,
    add_magnitudes,
    hover,
    rows_of,
)
from dti_geom.reporting.text import number, plot_text, quoted, times

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

OUTPUTS = {"token": "at the token", "pooled": "pooled", "end": "at the end"}
_COLORS = {"token": BLUE, "pooled": GREEN, "end": INK}
_ROW = 44  # pixels

# Headings are short so that the table fits a terminal in one part.
DONOR_COLUMNS = (  # of `donor_cells`
    Column("stretch", "×"),
    Column("norms", "×", digits=3),
    Column("direction"),
    Column("magnitude"),
    Column("donors"),
    Column("wins"),
    Column("of"),
    Column("95 % interval", "%", digits=3),
)
_SUM_COLUMNS = (Column("output", kind="text"), *DONOR_COLUMNS)
_PAIR_COLUMNS = (
    Column("first", kind="token"),
    Column("norm"),
    Column("second", kind="token"),
    Column("norm"),
    Column("direction"),
    Column("magnitude"),
    Column("donors"),
)


def swap_section(result: SwapResult) -> Section:
    """Show which donor swapped vectors resemble, and what a growing norm does to an output."""
    words, *learned = result.curves
    blocks: list[Finding | Figure | Note | Table | Limits] = [
        Finding(swap_finding(result)),
        Finding(magnitude_finding(words)),
        Figure(lambda: swap_figure(result), _CAPTION.format(mean=number(result.mean_norm))),
        Note(_note(result)),
    ]
    if result.sums:
        title = "Pairs of words, the second at multiples of its norm: similarity to either donor"
        blocks.append(Table(title, _SUM_COLUMNS, _sum_rows(result)))
    if any(pair.learned for pair in result.pairs):
        title = "Learned vectors and words, similarity to either donor at the token"
        blocks.append(Table(title, _PAIR_COLUMNS, _learned_pair_rows(result)))
    title = f"Similarity to itself at the mean norm, {words.directions} words"
    blocks.append(Table(title, [Column("norm", "×"), *_output_columns(words)], _scale_rows(words)))
    if learned:
        columns = [
            Column("token", kind="token"),
            Column("÷ mean", "×", digits=3),
            *_output_columns(learned[0]),
        ]
        title = "Similarity to itself at the mean norm, learned vectors at their own norms"
        blocks.append(Table(title, columns, [_learned_row(curve) for curve in learned]))
    blocks.append(
        Limits(
            "How two directions mix, and what lies between words: all directions are those of "
            "tokens. The output of a text encoder is not yet a picture. Intervals are over pairs "
            "of words of this one model."
        )
    )
    return Section(
        title="Direction against magnitude",
        aside=f"{len(result.pairs)} pairs in {len(result.carriers)} prompts",
        blocks=blocks,
    )


def swap_figure(result: SwapResult) -> "PlotlyFigure":
    """Draw every pair's similarity to both donors; below it, similarity to itself against norm."""
    outputs = [parallel.output for parallel in result.alike]
    lanes = [(output, False) for output in outputs]
    if any(pair.learned for pair in result.pairs):
        lanes += [(output, True) for output in outputs]
    figure = rows_of([_ROW * len(lanes), 260], left=52)
    _draw_pairs(figure, result, lanes)
    _draw_curves(figure, result)
    add_keys(figure, (1, 2))
    return figure


def swap_finding(result: SwapResult) -> str:
    """Say how often direction wins, at the norms as stored and at the largest stretch."""
    if not result.sums:
        learned = [pair for pair in result.pairs if pair.learned]
        return (
            f"{len(learned)} pairs of a learned vector and a word were swapped; no pair of two "
            "words."
        )
    plain = _sum(result, result.sums[0].stretch)
    far = _sum(result, result.sums[-1].stretch)
    return (
        f"At the token, {plain.wins.right} of {plain.wins.total} swapped pairs resemble the word "
        f"whose direction they took (95 % interval {number(100 * plain.wins.low, 3)} to "
        f"{number(100 * plain.wins.high, 3)} %), with similarity {number(plain.direction, 3)} "
        f"against {number(plain.magnitude, 3)}; their norms differ {times(plain.ratio)}. Where "
        f"norms differ {times(far.ratio)}, {far.wins.right} of {far.wins.total} do, with "
        f"{number(far.direction, 3)} against {number(far.magnitude, 3)}."
    )


def magnitude_finding(curve: MagnitudeCurve) -> str:
    """Say what is left of each output at the largest norm, and where it falls below one half."""
    left = ", ".join(
        f"{number(output.similarity[-1], 3)} {OUTPUTS[output.output]}" for output in curve.outputs
    )
    crossed = [
        f"×{output.leaves:g} {OUTPUTS[output.output]}"
        for output in curve.outputs
        if output.leaves is not None
    ]
    return (
        f"At ×{curve.scales[-1]:g} the mean norm, the similarity of {curve.directions} words to "
        f"themselves at the mean norm is {left}; it "
        f"{'falls below one half from ' + ', '.join(crossed) if crossed else 'stays above half'}."
    )


_CAPTION = (
    "Above: each vector of a pair is given the other's norm; a point is one pair, mean over both "
    "swaps and all prompts. Below: directions at multiples of the mean norm ({mean}), compared "
    "with themselves at the mean norm; dashed: one half."
)


def _note(result: SwapResult) -> str:
    alike = ", ".join(
        f"{OUTPUTS[parallel.output]} {number(parallel.cosine)}" for parallel in result.alike
    )
    note = (
        "Similarity is the cosine of what a vector adds to the output: the output minus the mean "
        "output of sampled words, because outputs of any two words are nearly parallel before "
        f"that ({alike}). Outputs: token, the state at the token that the denoiser reads; "
        "pooled, the state at the end of the text after the encoder's last norm; and end, the same "
        "before that norm. Direction, magnitude: similarity to the output of the vector whose "
        "direction or norm was taken. Donors: similarity between those two. Wins: pairs that "
        "resemble the direction donor more."
    )
    if result.read:
        note += f" The denoiser reads {result.read}."
    if result.left_out:
        words = ", ".join(map(quoted, result.left_out))
        note += f" Left out because they are not one token here: {words}."
    return note


def _sum_rows(result: SwapResult) -> list[list[Value]]:
    return [[total.output, *donor_cells(total)] for total in result.sums]


def donor_cells(total: SwapSum | PaintedSum) -> list[Value]:
    """Return the cells of all pairs at one stretch: which donor they resemble, and how often."""
    return [
        total.stretch,
        total.ratio,
        total.direction,
        total.magnitude,
        total.donors,
        total.wins.right,
        total.wins.total,
        Span(100 * total.wins.low, 100 * total.wins.high),
    ]


def _learned_pair_rows(result: SwapResult) -> list[list[Value]]:
    rows: list[list[Value]] = []
    for pair in result.pairs:
        if not pair.learned:
            continue
        at_token = next(like for like in pair.resemblances if like.output == "token")
        first, second = pair.norms
        similarities = [at_token.direction, at_token.magnitude, at_token.donors]
        rows.append([pair.first, first, pair.second, second, *similarities])
    return rows


def _output_columns(curve: MagnitudeCurve) -> list[Column]:
    return [Column(OUTPUTS[output.output]) for output in curve.outputs]


def _scale_rows(curve: MagnitudeCurve) -> list[list[Value]]:
    return [
        [scale, *(output.similarity[at] for output in curve.outputs)]
        for at, scale in enumerate(curve.scales)
    ]


def _learned_row(curve: MagnitudeCurve) -> list[Value]:
    at = curve.scales.index(curve.inflation or 0)
    return [
        curve.token,
        curve.inflation,
        *(output.similarity[at] for output in curve.outputs),
    ]


def _sum(result: SwapResult, stretch: float) -> SwapSum:
    """Return the sum at the token."""
    return next(
        total for total in result.sums if total.stretch == stretch and total.output == "token"
    )


def _draw_pairs(figure: "PlotlyFigure", result: SwapResult, lanes: list[tuple[str, bool]]) -> None:
    kinds = sorted({pair.learned for pair in result.pairs})
    for learned in kinds:
        points = []
        for pair in result.pairs:
            if pair.learned == learned:
                points += [
                    (lanes.index((like.output, learned)), pair, like) for like in pair.resemblances
                ]
        texts = [_pair_text(pair, like) for _, pair, like in points]
        directions = [(like.direction, place + 0.12) for place, _, like in points]
        magnitudes = [(like.magnitude, place + 0.34) for place, _, like in points]
        color, key = VERMILLION if learned else BLUE, learned == kinds[0]
        _add_points(
            figure,
            "like direction donor",
            points=directions,
            texts=texts,
            color=color,
            symbol="circle",
            key=key,
        )
        _add_points(
            figure,
            "like magnitude donor",
            points=magnitudes,
            texts=texts,
            color=MUTED,
            symbol="x-thin-open",
            key=key,
        )
    for place, (output, learned) in enumerate(lanes):
        figure.add_annotation(
            text=OUTPUTS[output] + (", learned vectors" if learned else ""),
            x=0,
            xref="x domain",
            xanchor="left",
            y=place - 0.22,
            yref="y",
            showarrow=False,
            font={"size": 12, "color": MUTED},
            bgcolor=PAPER,
            borderpad=0,
        )
    figure.update_yaxes(
        range=[len(lanes) - 0.4, -0.5], showticklabels=False, showgrid=False, fixedrange=True, row=1
    )
    figure.update_xaxes(range=[-1.05, 1.05], row=1, col=1)


def _add_points(
    figure: "PlotlyFigure",
    name: str,
    *,
    points: list[tuple[float, float]],
    texts: list[str],
    color: str,
    symbol: str,
    key: bool,
) -> None:
    x, y = zip(*points, strict=True)
    figure.add_scatter(
        name=name,
        showlegend=key,  # for the key above the row
        x=x,
        y=y,
        mode="markers",
        line={"color": color},
        marker={"symbol": symbol, "size": 8, "color": color, "opacity": 0.7},
        hovertext=texts,
        hovertemplate="%{hovertext}<extra></extra>",
        row=1,
        col=1,
    )


def _draw_curves(figure: "PlotlyFigure", result: SwapResult) -> None:
    words, *learned = result.curves
    for output in words.outputs:
        points = [
            (scale, value, _curve_text(words, output, scale))
            for scale, value in zip(words.scales, output.similarity, strict=True)
        ]
        add_curve(figure, 2, OUTPUTS[output.output], points, _COLORS[output.output])
    marks = []
    for curve in learned:
        if curve.inflation is None:
            continue
        at = curve.scales.index(curve.inflation)
        marks += [
            (curve.inflation, output.similarity[at], _curve_text(curve, output, curve.inflation))
            for output in curve.outputs
            if output.output == "token"
        ]
    add_curve(figure, 2, "learned", marks, VERMILLION, marks=True)
    figure.add_hline(LEFT, line={"color": INK, "width": 1, "dash": "dash"}, row=2, col=1)
    scales = list(chain.from_iterable(curve.scales for curve in result.curves))
    figure.update_xaxes(title="norm, in multiples of the mean token norm", row=2, col=1)
    add_magnitudes(figure, (2,), scales)
    outputs = chain.from_iterable(curve.outputs for curve in result.curves)
    lowest = min(min(output.similarity) for output in outputs)
    figure.update_yaxes(title={"text": "similarity to itself", "standoff": 4}, row=2, col=1)
    figure.update_yaxes(range=[min(0, lowest) - 0.05, 1.05], row=2, col=1)


def _curve_text(curve: MagnitudeCurve, output: OutputCurve, scale: float) -> str:
    at = curve.scales.index(scale)
    who = f"{curve.directions} words" if curve.token is None else f"<b>{plot_text(curve.token)}</b>"
    return hover(
        f"{who} at ×{scale:.3g} the mean norm",
        OUTPUTS[output.output],
        f"similarity to itself {number(output.similarity[at], 3)}",
        f"four fifths between {number(output.low[at], 3)} and {number(output.high[at], 3)}",
    )


def _pair_text(pair: SwappedPair, like: Resemblance) -> str:
    return hover(
        f"<b>{plot_text(pair.first)}</b> and <b>{plot_text(pair.second)}</b>",
        f"norms {number(pair.norms[0])} and {number(pair.norms[1])}",
        f"like the direction donor {number(like.direction, 3)}",
        f"like the magnitude donor {number(like.magnitude, 3)}",
        f"donors alike {number(like.donors, 3)}",
    )
