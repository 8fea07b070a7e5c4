"""The explain section: tokens as sums of words, and whether the sums are better than chance."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dti_geom.probes.explain import (
    FALSE_POSITIVES,
    RANDOM,
    ExplainedSpace,
    ExplainedToken,
    ExplainResult,
    WordSum,
)
from dti_geom.reporting.blocks import Column, Figure, Finding, Limits, Note, Section, Table, Value
from dti_geom.reporting.curves import LEFT, add_curve, add_keys
from dti_geom.reporting.plots import BLUE, INK, MUTED, VERMILLION, hover, rows_of
from dti_geom.reporting.text import number, percent, plot_text, quoted, shown

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

_TITLES = {"table": "In the token table", "contextual": "In the encoder's output"}
_COLUMNS = (
    Column("token", kind="token"),
    Column("words"),
    Column("explained", "%", digits=3),
    Column("all", "%", digits=3),
    Column("p", digits=2),
    Column("above ordinary words", "%", digits=3),
    Column("verdict", kind="text"),
)
_FILE_COLUMNS = (Column("step"), Column("file", kind="path"))
_WORD_COLUMNS = (
    Column("token", kind="token"),
    Column("word", kind="token"),
    Column("id"),
    Column("weight", digits=3),
    Column("kept", kind="text"),
)
KEPT = "●"


def explain_section(result: ExplainResult) -> Section:
    """Show tokens as sums of words, one subsection for each space."""
    return Section(
        title="What tokens are made of",
        aside=f"at most {result.words} words",
        blocks=[
            Note(_note()),
            *(_space_section(space) for space in result.spaces),
            Limits(
                "What a token paints. A sum of directions is a statement about the input of the "
                "encoder, or about one of its outputs; painting the sum is the test. An "
                "unexplained token may well have a meaning, for which there is no word."
            ),
        ],
    )


def explain_finding(space: ExplainedSpace) -> str:
    """Say how many tokens are explained, and what the best explained one is made of."""
    explained = [token for token in space.tokens if token.explained]
    limit = percent(100 * space.random[-1])
    if not explained:
        return (
            f"None of {len(space.tokens)} tokens is explained: no sum of up to "
            f"{len(space.random)} words explains more than that of each of {RANDOM} random "
            f"directions does (at most {limit})."
        )
    best = max(explained, key=lambda token: token.explanation.share)
    return (
        f"{len(explained)} of {len(space.tokens)} tokens are explained better than each of "
        f"{RANDOM} random directions (at most {limit}). Best explained is {quoted(best.query)}: "
        f"{sum_text(best.explanation)} explains {percent(100 * best.explanation.share)}."
    )


def sum_text(words: WordSum) -> str:
    """Write a sum as 0.62 fox + 0.41 red."""
    return " + ".join(f"{number(word.weight, 2)} {quoted(word.token)}" for word in words.words)


def share_figure(space: ExplainedSpace) -> "PlotlyFigure":
    """Draw the share that sums explain against their number of words."""
    figure = rows_of([240], left=LEFT)
    for name, shares, color in (
        (f"the best of {RANDOM} random directions", space.random, MUTED),
        ("ordinary words, median", space.ordinary, INK),
    ):
        points = [
            (float(count), 100 * share, hover(name, f"{count} words", percent(100 * share)))
            for count, share in enumerate(shares, 1)
        ]
        add_curve(figure, 1, name, points, color, dash="dash")
    named: set[str] = set()
    for token in space.tokens:
        name, color = ("words", BLUE) if token.id is not None else ("learned", VERMILLION)
        points = [
            (
                float(len(found.words)),
                100 * found.share,
                hover(
                    f"<b>{plot_text(token.query)}</b>",
                    f"{len(found.words)} words: {percent(100 * found.share)}",
                    *(f"{number(word.weight, 2)} {plot_text(word.token)}" for word in found.words),
                ),
            )
            for found in token.sums
        ]
        add_curve(figure, 1, name, points, color, key=name not in named)
        named.add(name)
    figure.update_xaxes(title="words in the sum", dtick=1)
    figure.update_yaxes(title="explained", ticksuffix=" %", range=[0, 102])
    add_keys(figure, [1])
    return figure


def _note() -> str:
    return (
        "A token's direction is written as a sum of other directions with weights that are not "
        "negative; “explained” is the share of its squared length. Words are kept until the next "
        "one explains no more of what is left than the first word of a random direction does; "
        f"“all” is the longest sum. A token is called explained if its longest sum is better than "
        f"those of all {RANDOM} random directions: of random directions, "
        f"{percent(100 * FALSE_POSITIVES)} are called so. Ordinary words are explained without "
        "their own row."
    )


def _space_section(space: ExplainedSpace) -> Section:
    blocks: list[Finding | Figure | Table] = [
        Finding(explain_finding(space)),
        Figure(
            lambda: share_figure(space),
            "Share of the squared length that a sum of words explains. Dashed: the best of random "
            "directions, and ordinary words without their own row.",
        ),
    ]
    learned = any(token.path is not None for token in space.tokens)
    columns = (*_COLUMNS, *(_FILE_COLUMNS if learned else ()))
    blocks.append(Table("Explanations", columns, [_row(t, learned) for t in space.tokens]))
    rows: list[list[Value]] = []
    for token in space.tokens:
        rows += _word_rows(token)
    blocks.append(Table(f"Words of the longest sums ({KEPT}: kept)", _WORD_COLUMNS, rows))
    return Section(
        title=_TITLES[space.space],
        aside=f"{number(space.rows)} rows of {space.dim} numbers",
        blocks=blocks,
    )


def _row(token: ExplainedToken, learned: bool) -> Sequence[Value]:
    row: list[Value] = [
        shown(token.query),
        len(token.explanation.words),
        100 * token.explanation.share,
        100 * token.share,
        token.p,
        100 * token.above_ordinary,
        "explained" if token.explained else "unexplained",
    ]
    return [*row, token.step, token.path] if learned else row


def _word_rows(token: ExplainedToken) -> list[list[Value]]:
    kept = {word.id for word in token.explanation.words}
    words = token.sums[-1].words if token.sums else ()
    return [
        [token.query, word.token, word.id, word.weight, KEPT if word.id in kept else ""]
        for word in words
    ]
