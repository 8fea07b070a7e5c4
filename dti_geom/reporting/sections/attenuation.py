"""The attenuation section: what is left of position against magnitude, beside theory."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dti_geom.probes.attenuation import AttenuationResult, LearnedSignal, PositionalSignal
from dti_geom.reporting.blocks import (
    Column,
    Figure,
    Finding,
    Limits,
    Note,
    Section,
    Table,
    Value,
)
from dti_geom.reporting.curves import LEFT, add_curve, add_keys, add_learned
from dti_geom.reporting.plots import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    add_magnitudes,
    hover,
    log_axis,
    rows_of,
)
from dti_geom.reporting.text import number, percent, plot_text, quoted, times

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

_SIGNAL_COLUMNS = (
    Column("norm", kind="text"),
    Column("by position", digits=3),
    Column("by word", digits=3),
    Column("logits", digits=3),
    Column("cosine", digits=3),
    Column("accuracy", "%"),
    Column("at position 0", "%"),
    Column("distance", digits=3),
    Column("bound", digits=3),
)
_LEARNED_COLUMNS = (
    Column("token", kind="token"),
    Column("vector"),
    Column("÷ mean", "×", digits=3),
    Column("accuracy", "%"),
    Column("cosine", digits=3),
    Column("distance", digits=3),
    Column("bound", digits=3),
    Column("file", kind="path"),
)
_CAPTION = (
    "Above: the share of variance and of attention logits that position explains. Middle: how "
    "often a linear classifier reads the position. Below: how far a position moves a word's "
    "normalised state, ‖N(e + p) − N(e)‖, and the bound on it."
)


def attenuation_section(result: AttenuationResult) -> Section:
    """Show how much of a token's position is left, against its magnitude."""
    blocks: list[Finding | Figure | Note | Table | Limits] = [
        Finding(attenuation_finding(result)),
        Figure(lambda: attenuation_figure(result), _CAPTION),
        Note(_method(result)),
        Note(_slopes(result)),
        Table("Positional signal", _SIGNAL_COLUMNS, _signal_rows(result), folded=True),
    ]
    if result.learned:
        blocks.append(Table("Learned vectors", _LEARNED_COLUMNS, _learned_rows(result)))
    blocks.append(
        Limits(
            "What follows from it. Only the first normalisation is measured; behind it the other "
            "words of a prompt still know their places. Norms far beyond any learned token's are "
            "there to show the law."
        )
    )
    return Section(
        title="Position against magnitude",
        aside=f"{number(result.words)} words × {number(result.positions)} positions",
        blocks=blocks,
    )


def attenuation_figure(result: AttenuationResult) -> "PlotlyFigure":
    """Draw shares explained by position, the position classifier, and distance below its bound."""
    figure = rows_of([250, 190, 230], left=LEFT)
    _add_shares(figure, result)
    _add_accuracy(figure, result)
    _add_distance(figure, result)
    places = [signal.scale for signal in result.scales if signal.scale]
    places += [vector.inflation for vector in result.learned]
    add_magnitudes(figure, (1, 2, 3), places)
    figure.update_xaxes(title="norm ÷ mean token norm", row=3, col=1)
    add_keys(figure, (1, 2, 3))
    return figure


def attenuation_finding(result: AttenuationResult) -> str:
    """Say how fast position fades, how well it is read, and where the longest token stands."""
    strongest = max(result.learned, key=lambda vector: vector.inflation, default=None)
    longest = result.scales[-1]
    slope = (
        f"Position fades with slope {number(result.share_slope, 3)} on log-log axes, where theory "
        "says −2. "
        if result.share_slope is not None
        else ""
    )
    if strongest is not None:
        end = (
            f"that of the learned vector {quoted(strongest.token)}, "
            f"{times(strongest.inflation)} the mean norm,"
        )
        accuracy = strongest.accuracy
    else:
        end = f"at ×{longest.scale:g} the mean norm"
        accuracy = longest.accuracy
    return (
        f"{slope}A classifier reads the position of held-out words in "
        f"{percent(100 * result.natural.accuracy)} of cases, {end} in {percent(100 * accuracy)}; "
        f"chance is {percent(100 * result.chance)}."
    )


def _method(result: AttenuationResult) -> str:
    return (
        f"Each word is given every norm of the axis (×1 is {number(result.reference_norm)}, the "
        "mean of the token table) and put at every position, through the encoder's own first "
        f"normalisation, in {result.dtype}. Shares are of variance over words and positions. The "
        "classifier is fitted to half of the words at their own norms and tested on the other "
        "half. The bound is ‖g‖∞ √d · 2‖Pp‖/‖Pe‖ with the largest gain ‖g‖∞ = "
        f"{number(result.gain)}, over all words and positions; no distance can exceed it."
    )


def _slopes(result: AttenuationResult) -> str:
    if result.fitted is None:
        return (
            "No slope is fitted: fewer than three of these norms are where theory applies and "
            "rounding is small."
        )
    low, high = result.fitted
    return (
        f"Slopes are fitted from ×{low:g} to ×{high:g}, where positions are short beside the token "
        f"and long beside rounding: variance {number(result.share_slope)}, distance "
        f"{number(result.distance_slope)}. Theory says −2 and −1."
    )


def _signal_rows(result: AttenuationResult) -> list[list[Value]]:
    return [
        [
            "own" if signal.scale is None else f"×{signal.scale:g}",
            signal.position_share,
            signal.word_share,
            signal.logit_share,
            signal.cosine,
            100 * signal.accuracy,
            100 * signal.accuracy_by_position[0],
            signal.largest_distance,
            signal.bound,
        ]
        for signal in (result.natural, *result.scales)
    ]


def _learned_rows(result: AttenuationResult) -> list[list[Value]]:
    return [
        [
            vector.token,
            vector.index,
            vector.inflation,
            100 * vector.accuracy,
            vector.cosine,
            vector.largest_distance,
            vector.bound,
            vector.path,
        ]
        for vector in result.learned
    ]


def _add_shares(figure: "PlotlyFigure", result: AttenuationResult) -> None:
    signals = [signal for signal in result.scales if signal.position_share > 0]
    variance = _points(signals, lambda signal: signal.position_share, "of variance")
    add_curve(figure, 1, "variance", variance, BLUE)
    logits = [signal for signal in signals if signal.logit_share]
    add_curve(
        figure,
        1,
        "logits",
        _points(logits, lambda signal: signal.logit_share or 0, "of logits"),
        GREEN,
    )
    if result.fitted:
        low, high = result.fitted
        start = next(signal for signal in signals if signal.scale == low)
        text = f"slope −2 from ×{low:g}; fitted {number(result.share_slope, 4)}"
        line = [(scale, start.position_share * (low / scale) ** 2, text) for scale in (low, high)]
        add_curve(figure, 1, "slope −2", line, INK, dash="dash")
    values = [signal.position_share for signal in signals]
    values += [signal.logit_share for signal in logits if signal.logit_share]
    figure.update_yaxes(title="explained by position", row=1, col=1)
    figure.update_yaxes(**log_axis(min(values), max(values)), row=1, col=1)


def _add_accuracy(figure: "PlotlyFigure", result: AttenuationResult) -> None:
    signals = result.scales
    mean = _points(signals, lambda signal: signal.accuracy, "mean over positions")
    first = _points(signals, lambda signal: signal.accuracy_by_position[0], "position 0 alone")
    chance = _points(signals, lambda _: result.chance, "chance")
    add_curve(figure, 2, "accuracy", mean, BLUE)
    add_curve(figure, 2, "position 0", first, MUTED, dash="dot")
    add_curve(figure, 2, "chance", chance, INK, dash="dash")
    marks = [
        (vector.method, (vector.inflation, vector.accuracy, _learned_text(vector)))
        for vector in result.learned
    ]
    add_learned(figure, 2, marks)
    figure.update_yaxes(title="accuracy", range=[-0.03, 1.06], tickformat=".0%", row=2, col=1)


def _add_distance(figure: "PlotlyFigure", result: AttenuationResult) -> None:
    signals = result.scales
    bound = _points(signals, lambda signal: signal.bound, "bound")
    largest = _points(signals, lambda signal: signal.largest_distance, "largest")
    mean = _points(signals, lambda signal: signal.distance, "mean")
    add_curve(figure, 3, "bound", bound, INK, dash="dash")
    add_curve(figure, 3, "largest", largest, BLUE)
    add_curve(figure, 3, "mean", mean, GREEN)
    marks = [
        (vector.method, (vector.inflation, vector.largest_distance, _learned_text(vector)))
        for vector in result.learned
    ]
    add_learned(figure, 3, marks)
    values = [signal.distance for signal in signals if signal.distance]
    values += [signal.bound for signal in signals if signal.bound]
    figure.update_yaxes(title="distance", row=3, col=1)
    figure.update_yaxes(**log_axis(min(values), max(values)), row=3, col=1)


def _points(
    signals: Sequence[PositionalSignal],
    value: Callable[[PositionalSignal], float | None],
    what: str,
) -> list[tuple[float, float | None, str]]:
    return [
        (
            signal.scale,
            value(signal),
            hover(f"norm ×{signal.scale:g}", f"{number(value(signal), 3)} {what}"),
        )
        for signal in signals
        if signal.scale
    ]


def _learned_text(vector: LearnedSignal) -> str:
    return hover(
        f"<b>{plot_text(vector.token)}</b> vector {vector.index}",
        f"norm {number(vector.norm)}, {times(vector.inflation)} the mean",
        f"accuracy {number(vector.accuracy, 3)}",
        f"distance {number(vector.largest_distance, 3)}, bound {number(vector.bound, 3)}",
        f"cosine between positions {number(vector.cosine, 3)}",
    )
