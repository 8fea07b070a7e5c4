"""The swap section: whom swapped vectors resemble, and what a token's output does as its norm grows."""

from typing import TYPE_CHECKING

from dti_geom.probes.drawing import draws
from dti_geom.probes.painted import PaintedSwap
from dti_geom.probes.swap import (
    LEFT,
    EncoderSwap,
    Resemblance,
    SwappedPair,
    SwapSum,
    Sweep,
    SweptOutput,
)
from dti_geom.reporting.curves import add_curve, add_keys
from dti_geom.reporting.plots import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    PAPER,
    VERMILLION,
    hover,
    log_axis,
    rows_of,
)
from dti_geom.reporting.text import number, plot_text, times

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

OUTPUTS = {"token": "at the token", "pooled": "pooled", "end": "at the end"}
_COLORS = {"token": BLUE, "pooled": GREEN, "end": INK}
_ROW = 44  # pixels


def swap_figure(encoder: EncoderSwap) -> "Figure":
    """Every pair's likeness to both donors; below it, likeness to itself as a word's norm is swept."""
    lanes = [(name, False) for name in _outputs(encoder)]
    lanes += [
        (name, True) for name in _outputs(encoder) if any(pair.learned for pair in encoder.pairs)
    ]
    figure = rows_of([_ROW * len(lanes), 260], left=52)
    _draw_pairs(figure, encoder, lanes)
    _draw_sweeps(figure, encoder)
    add_keys(figure, (1, 2))
    return figure


def swap_finding(encoder: EncoderSwap) -> str:
    """One sentence: how often direction wins, at the norms as stored and at the largest stretch."""
    if not encoder.sums:
        learned = [pair for pair in encoder.pairs if pair.learned]
        return f"{len(learned)} pairs of a learned vector and a word were swapped; no pair of two words."
    plain, far = _sum(encoder, encoder.sums[0].stretch), _sum(encoder, encoder.sums[-1].stretch)
    return (
        f"At the token, {plain.wins.right} of {plain.wins.total} swapped pairs resemble the word whose direction they "
        f"took (95 % interval {number(100 * plain.wins.low, 3)} to {number(100 * plain.wins.high, 3)} %), by "
        f"{number(plain.direction, 3)} against {number(plain.magnitude, 3)}; their norms differ {times(plain.ratio)}. "
        f"Where they differ {times(far.ratio)}, {far.wins.right} of {far.wins.total} do, by {number(far.direction, 3)} "
        f"against {number(far.magnitude, 3)}."
    )


def sweep_finding(sweep: Sweep) -> str:
    """One sentence: what is left of each output at the largest norm, and where it falls below one half."""
    left = ", ".join(
        f"{number(one.similarity[-1], 3)} {OUTPUTS[one.output]}" for one in sweep.outputs
    )
    crossed = [
        f"×{one.leaves:g} {OUTPUTS[one.output]}" for one in sweep.outputs if one.leaves is not None
    ]
    return (
        f"As the norm of {sweep.directions} words grows to ×{sweep.scales[-1]:g} the mean, their similarity to "
        f"themselves falls to {left}; below one half it is {'from ' + ', '.join(crossed) if crossed else 'nowhere'}."
    )


def painted_finding(painted: PaintedSwap) -> str:
    """One sentence: how often pictures follow direction, as stored and at the largest stretch."""
    plain, far = painted.sums[0], painted.sums[-1]
    return (
        f"{plain.wins.right} of {plain.wins.total} swapped pairs look like the word whose direction they took, by "
        f"{number(plain.direction, 3)} against {number(plain.magnitude, 3)} at norms that differ {times(plain.ratio)}, "
        f"and {far.wins.right} of {far.wins.total}, by {number(far.direction, 3)} against {number(far.magnitude, 3)}, "
        f"where they differ {times(far.ratio)}."
    )


def _outputs(encoder: EncoderSwap) -> list[str]:
    return [one.output for one in encoder.alike]


def _sum(encoder: EncoderSwap, stretch: float, output: str = "token") -> SwapSum:
    return next(one for one in encoder.sums if one.stretch == stretch and one.output == output)


def _draw_pairs(figure: "Figure", encoder: EncoderSwap, lanes: list[tuple[str, bool]]) -> None:
    kinds = sorted({pair.learned for pair in encoder.pairs})
    for learned in kinds:
        points = [
            (lanes.index((one.output, learned)), pair, one)
            for pair in encoder.pairs
            for one in pair.resemblances
            if pair.learned == learned
        ]
        texts = [_pair_text(pair, one) for _, pair, one in points]
        directions = [(one.direction, place + 0.12) for place, _, one in points]
        magnitudes = [(one.magnitude, place + 0.34) for place, _, one in points]
        color, key = VERMILLION if learned else BLUE, learned == kinds[0]
        _add_points(figure, "like direction donor", directions, texts, color, "circle", key=key)
        _add_points(
            figure, "like magnitude donor", magnitudes, texts, MUTED, "x-thin-open", key=key
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
    figure: "Figure",
    name: str,
    points: list[tuple[float, float]],
    texts: list[str],
    color: str,
    symbol: str,
    *,
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


def _draw_sweeps(figure: "Figure", encoder: EncoderSwap) -> None:
    words, *learned = encoder.sweeps
    for one in words.outputs:
        points = [
            (scale, value, _sweep_text(words, one, scale))
            for scale, value in zip(words.scales, one.similarity, strict=True)
        ]
        add_curve(figure, 2, OUTPUTS[one.output], points, _COLORS[one.output])
    marks = [
        (
            sweep.inflation,
            one.similarity[sweep.scales.index(sweep.inflation)],
            _sweep_text(sweep, one, sweep.inflation),
        )
        for sweep in learned
        for one in sweep.outputs
        if sweep.inflation is not None and one.output == "token"
    ]
    add_curve(figure, 2, "learned", marks, VERMILLION, marks=True)
    figure.add_hline(LEFT, line={"color": INK, "width": 1, "dash": "dash"}, row=2, col=1)
    scales = [scale for sweep in encoder.sweeps for scale in sweep.scales]
    figure.update_xaxes(title="norm, in multiples of the mean token norm", row=2, col=1)
    figure.update_xaxes(**log_axis(min(scales), max(scales), "×"), row=2, col=1)
    lowest = min(
        value for sweep in encoder.sweeps for one in sweep.outputs for value in one.similarity
    )
    figure.update_yaxes(title={"text": "similarity to itself", "standoff": 4}, row=2, col=1)
    figure.update_yaxes(range=[min(0, lowest) - 0.05, 1.05], row=2, col=1)


def _sweep_text(sweep: Sweep, one: SweptOutput, scale: float) -> str:
    at = sweep.scales.index(scale)
    who = f"{sweep.directions} words" if sweep.token is None else f"<b>{plot_text(sweep.token)}</b>"
    return hover(
        f"{who} at ×{scale:.3g} the mean norm",
        OUTPUTS[one.output],
        f"similarity to itself {number(one.similarity[at], 3)}",
        f"four fifths between {number(one.low[at], 3)} and {number(one.high[at], 3)}",
    )


def _pair_text(pair: SwappedPair, one: Resemblance) -> str:
    return hover(
        f"<b>{plot_text(pair.first)}</b> and <b>{plot_text(pair.second)}</b>",
        f"norms {number(pair.norms[0])} and {number(pair.norms[1])}",
        f"like the direction donor {number(one.direction, 3)}",
        f"like the magnitude donor {number(one.magnitude, 3)}",
        f"donors alike {number(one.donors, 3)}",
    )


draws(EncoderSwap, swap_figure)
