"""The effects section: what each effect of magnitude does to a token's state."""

from typing import TYPE_CHECKING

from dti_geom.probes.effects import CellShift, EffectSize, EffectsResult
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
from dti_geom.reporting.plots import (
    BLUE,
    VERMILLION,
    Lane,
    add_lanes,
    few,
    hover,
    lanes_height,
    rows_of,
)
from dti_geom.reporting.text import number, plot_text, quoted, times
from dti_geom.statistics import Interval

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

_NAMES = {"neither": "neither", "I": "I alone", "II": "II alone", "both": "both"}
_CELL_COLUMNS = (
    Column("input", kind="text"),
    Column("moved", digits=3),
    Column("95 % interval", digits=3),
    Column("at the end", digits=3),
    Column("turned", digits=3),
    Column("place read", "%", digits=3),
)
_EFFECT_COLUMNS = (
    Column("effect", kind="text"),
    Column("moves by", digits=3),
    Column("95 % interval", digits=3),
    Column("at the end", digits=3),
    Column("95 % interval", digits=3),
)
_LEARNED_COLUMNS = (
    Column("token", kind="token"),
    Column("÷ mean", "×", digits=3),
    *_EFFECT_COLUMNS[:3],
)


def effects_section(result: EffectsResult) -> Section:
    """Show how far Effects I and II move a token's state, and what each adds to the other."""
    words, *learned = result.groups
    blocks: list[Finding | Figure | Note | Table | Limits] = [
        Finding(effects_finding(result)),
        Finding(reading_finding(result)),
        Figure(lambda: effects_figure(result), _CAPTION),
        Note(_method(result)),
    ]
    title = f"Input by input, {words.tokens} words"
    blocks.append(Table(title, _CELL_COLUMNS, [_cell_row(cell) for cell in words.cells]))
    title = f"Effects and interaction, {words.tokens} words"
    blocks.append(Table(title, _EFFECT_COLUMNS, [_effect_row(size) for size in words.effects]))
    for group in learned:
        title = f"Input by input, {group.token}"
        blocks.append(Table(title, _CELL_COLUMNS, [_cell_row(cell) for cell in group.cells]))
    if learned:
        rows: list[list[Value]] = []
        for group in learned:
            rows += [
                [group.token, group.inflation, *_effect_row(size)[:3]] for size in group.effects
            ]
        blocks.append(Table("Effects and interaction, learned vectors", _LEARNED_COLUMNS, rows))
    blocks.append(
        Limits(
            "Whether a picture minds. A state that has moved may still ask for the same picture, "
            "and one that has moved little for another. benchmarks/effects.py paints the same "
            "inputs."
        )
    )
    return Section(
        title="Effects I and II apart",
        aside=f"{times(result.scale)} as long, {len(result.prompts)} prompts",
        blocks=blocks,
    )


def effects_finding(result: EffectsResult) -> str:
    """Say how far each effect moves the state of words."""
    words = result.groups[0]
    sizes = {size.effect: size.moved for size in words.effects}
    unit = "the mean distance between two words"
    if result.without_positions:
        return (
            f"A word {times(result.scale)} as long moves its state by {_with_ends(sizes['II'])} of "
            f"{unit} by Effect II. Effect I cannot act: {result.without_positions}"
        )
    return (
        f"For a word {times(result.scale)} as long, Effect I (position hidden) moves the state by "
        f"{_with_ends(sizes['I'])} of {unit}, Effect II (state long) by {_with_ends(sizes['II'])}; "
        f"their interaction is {_with_ends(sizes['interaction'])}."
    )


def reading_finding(result: EffectsResult) -> str:
    """Say how often the position of a held-out word can still be read."""
    shares = ", ".join(
        f"{number(100 * cell.readable.share, 3)} % {_NAMES[cell.cell]}"
        for cell in result.groups[0].cells
    )
    return (
        f"A linear reader names the place of held-out words, of {result.places}, in: {shares}; a "
        f"guess in {number(100 / result.places, 3)} %."
    )


def effects_figure(result: EffectsResult) -> "PlotlyFigure":
    """Draw how far the state moves in each cell: words, then learned vectors."""
    lanes = []
    for group in result.groups:
        who = f"{group.tokens} words" if group.token is None else plot_text(group.token, 24)
        for cell in group.cells[1:]:  # `neither` moves nothing
            color = BLUE if group.token is None else VERMILLION
            text = hover(
                f"<b>{who}</b>, {_NAMES[cell.cell]}",
                f"moved by {_with_ends(cell.moved)} of the distance between two words",
                f"1 − cosine {number(cell.turned.mean, 3)}",
            )
            lanes.append(Lane(f"{who}, {_NAMES[cell.cell]}", (cell.moved.mean,), (text,), color))
    shown = few(lanes)
    figure = rows_of([lanes_height(shown)])
    add_lanes(figure, shown, 1)
    figure.update_xaxes(title="distance from neither, in words", rangemode="tozero")
    return figure


_CAPTION = (
    "How far each input moves the token's state from that of the ordinary input. 1 is the mean "
    "distance between two words in the same prompt."
)


def _method(result: EffectsResult) -> str:
    prompts = ", ".join(quoted(prompt) for prompt in result.prompts)
    inputs = (
        "neither, e; II alone, k·e"
        if result.without_positions
        else ("neither, e + p; I alone, e + p/k; II alone, k·e + k·p; both, k·e + p")
    )
    return (
        f"The encoder's input for the token: {inputs}. e has the mean norm "
        f"{number(result.mean_norm)}, p is its position, k is {number(result.scale, 3)}. "
        f"The state that is read: {result.read}. Moved: distance from the state under “neither”, "
        "in mean distances between two words there; at the end: of the state at the prompt's last "
        "token. Turned: 1 − cosine, without the mean state of words. Effects are means over the "
        "other effect; intervals are over tokens and prompts. Place read: by a linear classifier "
        f"trained on “neither”, on words it has not seen. Prompts: {prompts}."
    )


def _cell_row(cell: CellShift) -> list[Value]:
    end = cell.moved_end
    return [
        _NAMES[cell.cell],
        cell.moved.mean,
        _span(cell.moved),
        None if end is None else end.mean,
        cell.turned.mean,
        100 * cell.readable.share,
    ]


def _effect_row(size: EffectSize) -> list[Value]:
    end = size.moved_end
    return [
        "interaction" if size.effect == "interaction" else f"Effect {size.effect}",
        size.moved.mean,
        _span(size.moved),
        None if end is None else end.mean,
        None if end is None else _span(end),
    ]


def _span(interval: Interval) -> Span:
    return Span(interval.low, interval.high)


def _with_ends(interval: Interval) -> str:
    """Write a mean with its 95 % interval, if it has one."""
    if interval.low is None or interval.high is None:
        return number(interval.mean, 3)
    ends = f"{number(interval.low, 3)} to {number(interval.high, 3)}"
    return f"{number(interval.mean, 3)} ({ends})"
