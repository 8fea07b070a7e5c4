"""The stagnation section: how far the encoder turns a token's state, against magnitude and depth."""

import math
from typing import TYPE_CHECKING

from dti_geom.probes.stagnation import BranchTurn, LearnedPassage, Passage, StagnationResult
from dti_geom.reporting.blocks import (
    Column,
    Figure,
    Finding,
    Limits,
    Section,
    Table,
    Value,
)
from dti_geom.reporting.curves import LEFT, add_curve, add_keys
from dti_geom.reporting.plots import BLUE, GREEN, INK, MUTED, VERMILLION, hover, log_axis, rows_of
from dti_geom.reporting.text import degrees, number, plot_text, quoted, shown, times

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

_SHOWN = (
    (1.0, INK),
    (8.0, BLUE),
    (32.0, GREEN),
    (512.0, MUTED),
)  # scales whose way through the branches is drawn


def stagnation_section(result: StagnationResult) -> Section:
    """Show how far the encoder turns a token's state, against magnitude and branch by branch."""
    return Section(
        title="Turn against magnitude",
        aside=f"{result.words} words in {len(result.prompts)} prompts",
        blocks=[
            Finding(stagnation_finding(result)),
            Figure(lambda: stagnation_figure(result), _turn_caption(result)),
            Table("Whole turn", _TURN_COLUMNS, _turn_rows(result)),
            Figure(lambda: branch_figure(result), _BRANCH_CAPTION),
            Table("Branches, words at their own norms", _BRANCH_COLUMNS, _branch_rows(result)),
            Limits(
                "How much turning a picture needs. A bound that is far away says little, and norms "
                "far beyond any learned token's are there to show the limit."
            ),
        ],
    )


def stagnation_figure(encoder: StagnationResult) -> "PlotlyFigure":
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


def branch_figure(encoder: StagnationResult) -> "PlotlyFigure":
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


def stagnation_finding(encoder: StagnationResult) -> str:
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


_TURN_COLUMNS = (
    Column("norm", kind="text"),
    Column("‖x₀‖"),
    Column("turn", "°"),
    Column("largest", "°"),
    Column("bound", "°"),
    Column("÷ bound", digits=3),
)
_BRANCH_COLUMNS = (
    Column("block"),
    Column("branch", kind="text"),
    Column("‖f‖"),
    Column("‖f‖ ÷ ‖x‖", digits=3),
    Column("turn", "°"),
    Column("turn so far", "°"),
    Column("longest ‖f‖"),
)
_BRANCH_CAPTION = (
    "Above: angle to x₀ after each branch. Below: length of what the branch adds, divided by the "
    "length of the state it is added to. Means over words and prompts."
)


def _turn_caption(result: StagnationResult) -> str:
    prompts = ", ".join(quoted(prompt) for prompt in result.prompts)
    return (
        "Angle between the state at the word's place behind the last block and x₀, the encoder's "
        f"input there, in {result.dtype}; ×1 is {number(result.reference_norm)}, the mean norm of "
        "the token table. Dashed: arcsin(S/‖x₀‖) for the shortest x₀, with "
        f"S = {number(result.total_bound)} the sum of each branch's longest update; where S is "
        f"larger than ‖x₀‖ nothing is bounded. Prompts: {prompts}."
    )


def _turn_rows(result: StagnationResult) -> list[list[Value]]:
    passages = [("own", result.natural)]
    passages += [(f"×{passage.scale:g}", passage) for passage in result.scales]
    passages += [
        (f"{shown(learned.token)} {times(learned.inflation)}", learned.natural)
        for learned in result.learned
    ]
    return [[name, *_turn_cells(passage)] for name, passage in passages]


def _turn_cells(passage: Passage) -> list[Value]:
    end = passage.branches[-1]
    return [
        passage.start_norm,
        math.degrees(end.angle),
        math.degrees(end.largest_angle),
        None if end.bound is None else math.degrees(end.bound),
        end.tightness,
    ]


def _branch_rows(result: StagnationResult) -> list[list[Value]]:
    return [
        [
            branch.block,
            branch.kind,
            branch.update,
            branch.relative_update,
            math.degrees(branch.turn),
            math.degrees(branch.angle),
            bound.largest_update,
        ]
        for branch, bound in zip(result.natural.branches, result.bounds, strict=True)
    ]


def _nearest(encoder: StagnationResult, scale: float) -> Passage:
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
