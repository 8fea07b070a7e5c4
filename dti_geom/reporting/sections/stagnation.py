"""The stagnation section: how far the encoder turns a token's state, by magnitude and depth."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dti_geom.probes.stagnation import BranchTurn, LearnedPassage, Passage, StagnationResult
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
    VERMILLION,
    add_magnitudes,
    hover,
    log_axis,
    rows_of,
)
from dti_geom.reporting.text import degrees, number, plot_text, quoted, times

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

# Scales whose way through the branches is drawn.
_SHOWN = ((1.0, INK), (8.0, BLUE), (32.0, GREEN), (512.0, MUTED))


def stagnation_section(result: StagnationResult) -> Section:
    """Show how far the encoder turns a token's state, against magnitude and branch by branch."""
    blocks: list[Finding | Figure | Note | Table | Limits] = [
        Finding(stagnation_finding(result)),
        Figure(lambda: stagnation_figure(result), _TURN_CAPTION),
        Note(_method(result)),
        Table("Whole turn", [Column("norm", kind="text"), *_TURN_COLUMNS], _turn_rows(result)),
    ]
    if result.learned:
        title = "Whole turn of learned vectors, at their own norms"
        blocks.append(Table(title, _LEARNED_COLUMNS, _learned_rows(result)))
    if result.natural.added is not None:
        title = "What is left of the input in the state that is read"
        blocks.append(Table(title, _LEFT_COLUMNS, _left_rows(result)))
    blocks += [
        Figure(lambda: branch_figure(result), _BRANCH_CAPTION),
        Table(
            "Branches, words at their own norms",
            _BRANCH_COLUMNS,
            _branch_rows(result),
            folded=True,
        ),
        Limits(
            "How much turning a picture needs. The turn stays near 90° however far the updates "
            "grow beyond x₀. A bound that is far away says little, and norms far beyond any "
            "learned token's are there to show the limit."
        ),
    ]
    return Section(
        title="Turn against magnitude",
        aside=f"{result.words} words in {len(result.prompts)} prompts",
        blocks=blocks,
    )


def stagnation_figure(result: StagnationResult) -> "PlotlyFigure":
    """Draw the whole turn of the state against magnitude, below arcsin(S/‖x₀‖) where it bounds."""
    figure = rows_of([300], left=LEFT)
    ends = [(passage.scale, passage.branches[-1]) for passage in result.scales if passage.scale]
    add_curve(figure, 1, "bound", _end_points(ends, "bound"), INK, dash="dash")
    add_curve(figure, 1, "largest", _end_points(ends, "largest"), GREEN)
    add_curve(figure, 1, "mean", _end_points(ends, "mean"), BLUE)
    marks = [
        (vector.method, (vector.inflation, _whole_turn(vector), _learned_text(vector)))
        for vector in result.learned
    ]
    add_learned(figure, 1, marks)
    places = [scale for scale, _ in ends] + [vector.inflation for vector in result.learned]
    figure.update_xaxes(title="norm ÷ mean token norm")
    add_magnitudes(figure, (1,), places)
    figure.update_yaxes(title="whole turn, degrees", rangemode="tozero")
    add_keys(figure, (1,))
    return figure


def _whole_turn(vector: LearnedPassage) -> float:
    return math.degrees(vector.natural.branches[-1].angle)


def branch_figure(result: StagnationResult) -> "PlotlyFigure":
    """Draw the turn so far and the relative update, branch by branch, at a few magnitudes."""
    figure = rows_of([230, 230], left=LEFT)
    drawn: list[float] = []
    for name, color, passage in _shown_passages(result):
        texts = [_branch_text(name, branch) for branch in passage.branches]
        angles = [math.degrees(branch.angle) for branch in passage.branches]
        # A zero has no place on a logarithmic axis.
        updates = [branch.relative_update or None for branch in passage.branches]
        drawn += [update for update in updates if update]
        places = range(1, len(texts) + 1)
        add_curve(figure, 1, name, zip(places, angles, texts, strict=True), color)
        add_curve(figure, 2, name, zip(places, updates, texts, strict=True), color)
    branches = result.natural.branches
    firsts = {branch.block: place for place, branch in reversed([*enumerate(branches, start=1)])}
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


def stagnation_finding(result: StagnationResult) -> str:
    """Say how far short and long tokens are turned, and from which norm on the bound applies."""
    usual, longest = _nearest(result, 1.0), result.scales[-1]
    turns = (
        f"A word of ×{usual.scale:g} the mean norm is turned by "
        f"{degrees(usual.branches[-1].angle)} on its way through the encoder, one of "
        f"×{longest.scale:g} by {degrees(longest.branches[-1].angle)}"
    )
    if result.learned:
        top = max(result.learned, key=lambda vector: vector.inflation)
        turns += (
            f"; the learned vector {quoted(top.token)}, {times(top.inflation)} the mean, by "
            f"{degrees(top.natural.branches[-1].angle)}"
        )
    if usual.added is not None and longest.added is not None:
        turns += (
            f". All updates together are {times(usual.added)} as long as the word's input at "
            f"×{usual.scale:g}, and {times(longest.added)} at ×{longest.scale:g}"
        )
    total = f"The longest updates add up to {number(result.total_bound)}"
    for passage in result.scales:
        tightness = passage.branches[-1].tightness
        if tightness is not None:
            return (
                f"{turns}. {total}, so the bound applies from ×{passage.scale:g} on, where the "
                f"turn comes to {number(100 * tightness, 3)} % of it."
            )
    return (
        f"{turns}. {total}, more than any state measured here starts with, so the bound does not "
        "apply."
    )


_TURN_COLUMNS = (
    Column("‖x₀‖"),
    Column("turn", "°"),
    Column("largest", "°"),
    Column("bound", "°"),
    Column("÷ bound", digits=3),
)
_LEARNED_COLUMNS = (
    Column("token", kind="token"),
    Column("vector"),
    Column("÷ mean", "×", digits=3),
    *_TURN_COLUMNS,
    Column("file", kind="path"),
)
_LEFT_COLUMNS = (
    Column("what", kind="token"),
    Column("norm ÷ mean", "×", digits=3),
    Column("added ÷ ‖x₀‖", "×", digits=3),
    Column("‖x₀‖ ÷ ‖x_L‖", digits=3),
    Column("x_L along x₀", digits=3),
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
_TURN_CAPTION = (
    "The whole turn: angle between the state at the word's place behind the last block and x₀, the "
    "encoder's input there. Dashed: the bound on it."
)
_BRANCH_CAPTION = (
    "Above: angle to x₀ after each branch. Below: length of what the branch adds, divided by the "
    "length of the state it is added to. Means over words and prompts."
)


def _method(result: StagnationResult) -> str:
    prompts = ", ".join(quoted(prompt) for prompt in result.prompts)
    note = (
        f"States are in {result.dtype}; ×1 is {number(result.reference_norm)}, the mean norm of "
        "the token table. The bound is arcsin(S/‖x₀‖) for the shortest x₀, with "
        f"S = {number(result.total_bound)} the sum of each branch's longest update; where S is "
        f"larger than ‖x₀‖ nothing is bounded. Prompts: {prompts}."
    )
    if result.read:
        note += (
            f" The state that is read: {result.read}. Here x_L is always taken before that norm."
        )
    return note


def _turn_rows(result: StagnationResult) -> list[list[Value]]:
    passages = [("own", result.natural)]
    passages += [(f"×{passage.scale:g}", passage) for passage in result.scales]
    return [[name, *_turn_cells(passage)] for name, passage in passages]


def _learned_rows(result: StagnationResult) -> list[list[Value]]:
    return [
        [
            vector.token,
            vector.index,
            vector.inflation,
            *_turn_cells(vector.natural),
            vector.path,
        ]
        for vector in result.learned
    ]


def _left_rows(result: StagnationResult) -> list[list[Value]]:
    """Return what the blocks add beside x₀, for words and for learned vectors."""
    passages: list[tuple[str, float | None, Passage]] = [("words, own norms", None, result.natural)]
    passages += [("words", passage.scale, passage) for passage in result.scales]
    passages += [(vector.token, vector.inflation, vector.natural) for vector in result.learned]
    return [
        [name, norm, passage.added, passage.start_share, passage.along_start]
        for name, norm, passage in passages
    ]


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


def _nearest(result: StagnationResult, scale: float) -> Passage:
    return min(
        result.scales, key=lambda passage: abs(math.log((passage.scale or math.inf) / scale))
    )


def _shown_passages(result: StagnationResult) -> list[tuple[str, str, Passage]]:
    """Return name, colour and passage of the scales that are drawn, and the longest vector's."""
    by_scale = {passage.scale: passage for passage in result.scales}
    passages = [
        (f"×{scale:g}", color, by_scale[scale]) for scale, color in _SHOWN if scale in by_scale
    ]
    if result.learned:
        longest = max(result.learned, key=lambda vector: vector.inflation)
        passages.append((plot_text(longest.token, 12), VERMILLION, longest.natural))
    return passages


def _end_points(
    ends: Sequence[tuple[float, BranchTurn]], name: str
) -> list[tuple[float, float | None, str]]:
    """Return the points of one curve: its bound, largest or mean whole turn, in degrees."""
    points = []
    for scale, end in ends:
        turn = {"bound": end.bound, "largest": end.largest_angle, "mean": end.angle}[name]
        lines = [
            f"norm ×{scale:g}",
            f"mean turn {degrees(end.angle)}",
            f"largest {degrees(end.largest_angle)}",
        ]
        if end.bound is not None and name == "bound":
            lines += [f"bound {degrees(end.bound)}"]
        points.append((scale, None if turn is None else math.degrees(turn), hover(*lines)))
    return points


def _branch_text(name: str, branch: BranchTurn) -> str:
    return hover(
        name,
        f"block {branch.block}, {branch.kind}",
        f"update {number(branch.update, 3)}, {times(branch.relative_update)} the state",
        f"turn here {degrees(branch.turn)}, so far {degrees(branch.angle)}",
    )


def _learned_text(vector: LearnedPassage) -> str:
    return hover(
        f"<b>{plot_text(vector.token)}</b> vector {vector.index}",
        f"norm {number(vector.norm)}, {times(vector.inflation)} the mean",
        f"mean turn {degrees(vector.natural.branches[-1].angle)}",
    )
