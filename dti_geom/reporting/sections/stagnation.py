"""The stagnation section: how far the encoder turns a token's state, against magnitude and depth."""

import math
from typing import TYPE_CHECKING

from dti_geom.probes.drawing import draws
from dti_geom.probes.stagnation import BranchTurn, EncoderStagnation, LearnedPassage, Passage
from dti_geom.reporting.curves import LEFT, add_curve, add_keys
from dti_geom.reporting.plots import BLUE, GREEN, INK, MUTED, VERMILLION, hover, log_axis, rows_of
from dti_geom.reporting.text import degrees, number, plot_text, quoted, times

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_SHOWN = (
    (1.0, INK),
    (8.0, BLUE),
    (32.0, GREEN),
    (512.0, MUTED),
)  # scales whose way through the branches is drawn


def stagnation_figure(encoder: EncoderStagnation) -> "Figure":
    """The whole turn of the state against magnitude, under arcsin(S/‖x_0‖) where that bounds it."""
    figure = rows_of([300], left=LEFT)
    ends = [(one.scale, one.branches[-1]) for one in encoder.scales if one.scale]
    for name, color, dash, value in (
        ("bound", INK, "dash", lambda end: end.bound),
        ("largest", GREEN, None, lambda end: end.largest_angle),
        ("mean", BLUE, None, lambda end: end.angle),
    ):
        points = [
            (
                scale,
                None if (turn := value(end)) is None else math.degrees(turn),
                _turn_text(scale, end, name),
            )
            for scale, end in ends
        ]
        add_curve(figure, 1, name, points, color, dash=dash)
    marks = [
        (one.inflation, math.degrees(one.natural.branches[-1].angle), _learned_text(one))
        for one in encoder.learned
    ]
    add_curve(figure, 1, "learned", marks, VERMILLION, marks=True)
    places = [scale for scale, _ in ends] + [one.inflation for one in encoder.learned]
    figure.update_xaxes(title="norm ÷ mean token norm", **log_axis(min(places), max(places), "×"))
    figure.update_yaxes(title="whole turn, degrees", rangemode="tozero")
    add_keys(figure, (1,))
    return figure


def branch_figure(encoder: EncoderStagnation) -> "Figure":
    """Branch by branch, at a few magnitudes: the turn so far, and the length of the update over that of the state."""
    figure = rows_of([230, 230], left=LEFT)
    shown = [
        (f"×{scale:g}", color, one)
        for scale, color in _SHOWN
        for one in encoder.scales
        if one.scale == scale
    ]
    if encoder.learned:
        longest = max(encoder.learned, key=lambda one: one.inflation)
        shown.append((plot_text(longest.token, 12), VERMILLION, longest.natural))
    for name, color, passage in shown:
        texts = [_branch_text(name, one) for one in passage.branches]
        angles = [math.degrees(one.angle) for one in passage.branches]
        updates = [
            one.relative_update or None for one in passage.branches
        ]  # a zero has no place on this axis
        places = range(1, len(texts) + 1)
        add_curve(figure, 1, name, zip(places, angles, texts, strict=True), color)
        add_curve(figure, 2, name, zip(places, updates, texts, strict=True), color)
    drawn = [
        one.relative_update
        for _, _, passage in shown
        for one in passage.branches
        if one.relative_update > 0
    ]
    branches = encoder.natural.branches
    firsts = {one.block: place for place, one in reversed(list(enumerate(branches, start=1)))}
    shown_blocks = sorted(firsts)[:: math.ceil(len(firsts) / 8)]
    ticks = {"tickvals": [firsts[block] for block in shown_blocks], "ticktext": shown_blocks}
    figure.update_xaxes(range=[0.5, len(branches) + 0.5], **ticks)
    figure.update_xaxes(title="block, at the first of its branches", row=2, col=1)
    figure.update_yaxes(title="turn so far, degrees", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title="‖update‖ ÷ ‖state‖", row=2, col=1)
    if drawn:
        figure.update_yaxes(**log_axis(min(drawn), max(drawn)), row=2, col=1)
    add_keys(figure, (1,))
    return figure


def stagnation_finding(encoder: EncoderStagnation) -> str:
    """The turn at the mean norm beside that of the longest, the learned tokens', and where the bound begins."""
    usual, longest = _nearest(encoder, 1.0), encoder.scales[-1]
    sentence = (
        f"A word of ×{usual.scale:g} the mean norm is turned by {degrees(usual.branches[-1].angle)} on its "
        f"way through the encoder, one of ×{longest.scale:g} by {degrees(longest.branches[-1].angle)}"
    )
    if encoder.learned:
        top = max(encoder.learned, key=lambda one: one.inflation)
        sentence += (
            f"; the learned vector {quoted(top.token)}, {times(top.inflation)} the mean, by "
            f"{degrees(top.natural.branches[-1].angle)}"
        )
    bounded = next((one for one in encoder.scales if one.branches[-1].tightness is not None), None)
    total = f"The longest updates add up to {number(encoder.total_bound)}"
    if bounded is None:
        return f"{sentence}. {total}, more than any state measured here starts with, so the bound does not apply."
    return (
        f"{sentence}. {total}, so the bound applies from ×{bounded.scale:g} on, where the turn comes to "
        f"{number(100 * (bounded.branches[-1].tightness or 0), 3)} % of it."
    )


def _nearest(encoder: EncoderStagnation, scale: float) -> Passage:
    return min(encoder.scales, key=lambda one: abs(math.log((one.scale or math.inf) / scale)))


def _turn_text(scale: float, end: BranchTurn, name: str) -> str:
    lines = [
        f"norm ×{scale:g}",
        f"mean turn {degrees(end.angle)}",
        f"largest {degrees(end.largest_angle)}",
    ]
    if end.bound is not None and name == "bound":
        lines += [f"bound {degrees(end.bound)}"]
    return hover(*lines)


def _branch_text(name: str, one: BranchTurn) -> str:
    return hover(
        name,
        f"block {one.block}, {one.kind}",
        f"update {number(one.update, 3)}, {times(one.relative_update)} the state",
        f"turn here {degrees(one.turn)}, so far {degrees(one.angle)}",
    )


def _learned_text(one: LearnedPassage) -> str:
    return hover(
        f"<b>{plot_text(one.token)}</b> vector {one.index}",
        f"norm {number(one.norm)}, {times(one.inflation)} the mean",
        f"mean turn {degrees(one.natural.branches[-1].angle)}",
    )


draws(EncoderStagnation, stagnation_figure)
