"""The comparison section: the paper's tables beside the user's scores."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dti_geom.evaluation.reference import TABLES, ComparedRow, Comparison, OtherRow
from dti_geom.reporting.blocks import (
    Block,
    Column,
    Figure,
    Finding,
    Limits,
    Note,
    Section,
    Table,
    Value,
)
from dti_geom.reporting.curves import add_keys
from dti_geom.reporting.methods import learned_color
from dti_geom.reporting.plots import MUTED, hover, rows_of
from dti_geom.reporting.sections.evaluation import (
    INTERVAL,
    accuracy_tables,
    add_mean,
    ceiling_tables,
    has_ceilings,
    interval_cells,
    score_text,
    summary_cells,
    summary_columns,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

    from dti_geom.statistics import Interval

NOT_RUN = "not run"
# Methods that have a key and a colour; other published methods are MUTED.
_KEYS = ("ti", "ti-rescaled", "crossinit", "dti")


def comparison_section(result: Comparison) -> Section:
    """Show the published rows beside the user's scores, with their differences."""
    finding = comparison_finding(result)
    blocks: list[Block] = [
        Finding(finding),
        Figure(lambda: comparison_figure(result), _CAPTION, finding),
        *(Note(note) for note in result.notes),
    ]
    for table, title in TABLES.items():
        rows = [_row(row) for row in result.rows if row.reference.table == table]
        blocks.append(Table(title[0].upper() + title[1:], _COLUMNS, rows))
    if result.others:
        blocks.append(_other_table(result.others))
    blocks += [*ceiling_tables(result.ceilings), *accuracy_tables(result.accuracy)]
    blocks.append(
        Limits(
            "A difference of methods alone. Images, prompts, noise and software differ between "
            "what was published and what was run here, in ways that a paper does not describe."
        )
    )
    return Section("Beside the paper", blocks)


def comparison_figure(comparison: Comparison) -> "PlotlyFigure":
    """Draw published rows as rings and the user's as diamonds, in the colours of the methods."""
    figure = rows_of([360], left=56)
    published = [
        row.reference
        for row in comparison.rows
        if row.reference.subject is not None and row.reference.text is not None
    ]
    for method in dict.fromkeys(row.method for row in published):
        rows = [row for row in published if row.method == method]
        color = _color(method)
        figure.add_scatter(
            name=method,
            showlegend=method in _KEYS,
            x=[row.text for row in rows],
            y=[row.subject for row in rows],
            mode="markers",
            line={"color": color},
            marker={"color": color, "size": 9, "symbol": "circle-open", "line": {"width": 1.5}},
            hovertext=[
                hover(
                    f"<b>{method}</b> on {row.model}",
                    f"published, {row.table} table",
                    f"subject {score_text(row.subject)}, text {score_text(row.text)}",
                )
                for row in rows
            ],
            hovertemplate="%{hovertext}<extra></extra>",
            row=1,
            col=1,
        )
    for (model, method), (subject, text) in _user_scores(comparison).items():
        color = _color(method)
        name = f"{method} on {model}"
        add_mean(figure, name, text=text, subject=subject, color=color, key=False)
    figure.update_xaxes(title="text score")
    figure.update_yaxes(title={"text": "subject score", "standoff": 4})
    add_keys(figure, (1,))
    return figure


def _color(method: str) -> str:
    return learned_color(method) if method in _KEYS else MUTED


def comparison_finding(comparison: Comparison) -> str:
    """Say how many published rows have a run of the user's beside them."""
    matched = sum(row.subject is not None for row in comparison.rows)
    sentence = f"{matched} of {len(comparison.rows)} published rows have a run of yours beside them"
    if comparison.others:
        sentence += f"; {len(comparison.others)} of your methods have no published row"
    return f"{sentence}."


_CAPTION = (
    "Rings: published by Kim et al. (ICLR 2026, arXiv 2512.13672) and its public code; DINOv2 "
    "similarity and SigLIP score. Diamonds: yours, with 95 % bootstrap intervals over subjects and "
    "seeds. What was published has no intervals, so a difference is as uncertain as your score."
)
# Δ: yours less the published value. Its interval is that of the score, moved by a constant.
_COLUMNS = (
    Column("method on model", kind="text"),
    Column("paper subject", digits=3),
    Column("your subject", digits=3),
    Column(INTERVAL, digits=3),
    Column("Δ subject", digits=3),
    Column("paper text", digits=3),
    Column("your text", digits=3),
    Column(INTERVAL, digits=3),
    Column("Δ text", digits=3),
)


def _other_table(others: Sequence[OtherRow]) -> Table:
    ceilings = has_ceilings(others)
    columns = [Column("method on model", kind="text"), *summary_columns(ceilings)]
    rows = [
        [f"{other.method} on {other.model}", *summary_cells(other, ceilings)] for other in others
    ]
    return Table("Yours, without a published row", columns, rows)


def _row(row: ComparedRow) -> list[Value]:
    published = row.reference
    return [
        f"{published.method} on {published.model}",
        published.subject,
        *_user_cells(row.subject),
        _mean(row.subject_difference),
        published.text,
        *_user_cells(row.text),
        _mean(row.text_difference),
    ]


def _user_cells(interval: "Interval | None") -> list[Value]:
    return [NOT_RUN, None] if interval is None else interval_cells(interval)


def _mean(interval: "Interval | None") -> float | None:
    return None if interval is None else interval.mean


def _user_scores(
    comparison: Comparison,
) -> "dict[tuple[str, str], tuple[Interval, Interval]]":
    """Return subject and text score of each of the user's (model, method), once."""
    scores = {}
    for row in comparison.rows:
        if row.subject is not None and row.text is not None:
            scores[row.reference.model, row.reference.method] = (row.subject, row.text)
    for other in comparison.others:
        scores[other.model, other.method] = (other.subject, other.text)
    return scores
