"""The attenuation section: what is left of position against magnitude, beside what theory says."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dti_geom.probes.attenuation import EncoderAttenuation, LearnedSignal, PositionalSignal
from dti_geom.probes.drawing import draws
from dti_geom.reporting.curves import LEFT, add_curve, add_keys
from dti_geom.reporting.plots import BLUE, GREEN, INK, MUTED, VERMILLION, hover, log_axis, rows_of
from dti_geom.reporting.text import number, percent, plot_text, quoted, times

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def attenuation_figure(encoder: EncoderAttenuation) -> "Figure":
    """Against magnitude: shares explained by position, the position classifier, and the distance under its bound."""
    figure = rows_of([250, 190, 230], left=LEFT)
    signals, learned = encoder.scales, encoder.learned
    _add_shares(figure, encoder)
    add_curve(
        figure,
        2,
        "accuracy",
        _points(signals, lambda one: one.accuracy, "mean over positions"),
        BLUE,
    )
    first = _points(signals, lambda one: one.accuracy_by_position[0], "position 0 alone")
    add_curve(figure, 2, "position 0", first, MUTED, dash="dot")
    add_curve(
        figure, 2, "chance", _points(signals, lambda _: encoder.chance, "chance"), INK, dash="dash"
    )
    add_curve(
        figure, 3, "bound", _points(signals, lambda one: one.bound, "bound"), INK, dash="dash"
    )
    add_curve(
        figure, 3, "largest", _points(signals, lambda one: one.largest_distance, "largest"), BLUE
    )
    add_curve(figure, 3, "mean", _points(signals, lambda one: one.distance, "mean"), GREEN)
    for row, value in ((2, lambda one: one.accuracy), (3, lambda one: one.largest_distance)):
        marks = [(one.inflation, value(one), _learned_text(one)) for one in learned]
        add_curve(figure, row, "learned", marks, VERMILLION, marks=True)
    places = [one.scale for one in signals if one.scale] + [one.inflation for one in learned]
    x_axis = log_axis(min(places), max(places), "×")
    for row in (1, 2, 3):
        figure.update_xaxes(**x_axis, row=row, col=1)
    figure.update_xaxes(title="norm ÷ mean token norm", row=3, col=1)
    figure.update_yaxes(title="explained by position", row=1, col=1)
    figure.update_yaxes(title="accuracy", range=[-0.03, 1.06], tickformat=".0%", row=2, col=1)
    figure.update_yaxes(title="distance", row=3, col=1)
    distances = [value for one in signals for value in (one.distance, one.bound) if value]
    figure.update_yaxes(**log_axis(min(distances), max(distances)), row=3, col=1)
    add_keys(figure, (1, 2, 3))
    return figure


def attenuation_finding(encoder: EncoderAttenuation) -> str:
    """One sentence or two: how fast position fades, how well it is still read, and where the learned tokens stand."""
    strongest = max(encoder.learned, key=lambda one: one.inflation, default=None)
    longest = encoder.scales[-1]
    slope = (
        f"Position fades with slope {number(encoder.share_slope, 3)} on log-log axes, where theory says −2. "
        if encoder.share_slope is not None
        else ""
    )
    if strongest is not None:
        end = f"that of the learned vector {quoted(strongest.token)}, {times(strongest.inflation)} the mean norm, "
        accuracy = strongest.accuracy
    else:
        end = f"at ×{longest.scale:g} the mean norm "
        accuracy = longest.accuracy
    return (
        f"{slope}A classifier reads the position of held-out words in {percent(100 * encoder.natural.accuracy)} of "
        f"cases, {end}in {percent(100 * accuracy)}; chance is {percent(100 * encoder.chance)}."
    )


def _add_shares(figure: "Figure", encoder: EncoderAttenuation) -> None:
    signals = [one for one in encoder.scales if one.position_share > 0]
    add_curve(
        figure, 1, "variance", _points(signals, lambda one: one.position_share, "of variance"), BLUE
    )
    logits = [one for one in signals if one.logit_share]
    add_curve(
        figure, 1, "logits", _points(logits, lambda one: one.logit_share or 0, "of logits"), GREEN
    )
    if encoder.fitted:
        low, high = encoder.fitted
        start = next(one for one in signals if one.scale == low)
        text = f"slope −2 from ×{low:g}; fitted {number(encoder.share_slope, 4)}"
        line = [(scale, start.position_share * (low / scale) ** 2, text) for scale in (low, high)]
        add_curve(figure, 1, "slope −2", line, INK, dash="dash")
    values = [value for one in signals for value in (one.position_share, one.logit_share) if value]
    figure.update_yaxes(**log_axis(min(values), max(values)), row=1, col=1)


def _points(
    signals: Sequence[PositionalSignal],
    value: Callable[[PositionalSignal], float | None],
    what: str,
) -> list[tuple[float, float | None, str]]:
    return [
        (one.scale, value(one), hover(f"norm ×{one.scale:g}", f"{number(value(one), 3)} {what}"))
        for one in signals
        if one.scale
    ]


def _learned_text(one: LearnedSignal) -> str:
    return hover(
        f"<b>{plot_text(one.token)}</b> vector {one.index}",
        f"norm {number(one.norm)}, {times(one.inflation)} the mean",
        f"accuracy {number(one.accuracy, 3)}",
        f"distance {number(one.largest_distance, 3)}, bound {number(one.bound, 3)}",
        f"cosine between positions {number(one.cosine, 3)}",
    )


draws(EncoderAttenuation, attenuation_figure)
