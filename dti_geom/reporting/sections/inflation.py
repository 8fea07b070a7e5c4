"""The inflation section: how long a free vector will grow, before its run starts."""

from typing import TYPE_CHECKING

from dti_geom.reporting.blocks import Block, Column, Figure, Finding, Limits, Note, Section, Table
from dti_geom.reporting.curves import LEFT, add_curve, add_keys
from dti_geom.reporting.plots import BLUE, INK, VERMILLION, hover, rows_of
from dti_geom.reporting.text import number, quoted, times
from dti_geom.training.inflation import PredictedInflation, TowerInflation

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

_QUARTERS = 4  # of a run, listed in the table
_COLUMNS = (
    Column("encoder", kind="token"),
    Column("update"),
    Column("norm"),
    Column("inflation", "×", digits=3),
    Column("slowed norm"),
    Column("slowed inflation", "×", digits=3),
)
_RANGE_COLUMNS = (
    Column("encoder", kind="token"),
    Column("mean norm"),
    Column("range ends at"),
    Column("left at update"),
    Column("slowed, left at"),
    Column("rate that stays inside", digits=3),
    Column("plateau"),
)


def inflation_section(result: PredictedInflation) -> Section:
    """Show the predicted norm over a run beside the vocabulary's range."""
    blocks: list[Block] = [
        Finding(inflation_finding(result.steps, tower)) for tower in result.towers
    ]
    blocks += [
        Figure(
            lambda: inflation_figure(result),
            "Predicted norm of a free vector by update. Dashed: the 99th percentile of the "
            "vocabulary's norms, where its range ends.",
        ),
        Table("By update", _COLUMNS, _rows(result), folded=True),
        Table("The vocabulary's range", _RANGE_COLUMNS, _range_rows(result)),
        Note(
            "The law is ‖e‖² ← (1 − ηλ)²‖e‖² + η²d in each update, for gradients of constant "
            "size. The slowed walk has gradients that shrink as 1/‖e‖, which AdamW answers with "
            "smaller steps for a while. Inflation is over the vocabulary's mean norm. "
            "docs/inflation.md derives both."
        ),
        Limits(
            "What the pictures lose. Gradients that agree from update to update make a vector "
            "longer than both curves; a schedule or warmup makes it shorter."
        ),
    ]
    return Section(
        title="Predicted inflation",
        aside=(
            f"{result.model}, rate {result.learning_rate:g}, weight decay {result.weight_decay:g}"
        ),
        blocks=blocks,
    )


def inflation_finding(steps: int, tower: TowerInflation) -> str:
    """Say where the norm ends, when it leaves the vocabulary's range, and what keeps it inside."""
    norm, slowed = tower.norms[-1], tower.slowed_norms[-1]
    return (
        f"{quoted(tower.tower)}: after {number(steps)} updates the norm is {number(norm)}, "
        f"{times(norm / tower.mean_norm)} the mean token, or {number(slowed)} "
        f"({times(slowed / tower.mean_norm)}) if gradients shrink as it grows. {_leaving(tower)}"
    )


def _leaving(tower: TowerInflation) -> str:
    if tower.rate_within is None:
        return "It starts at the end of the vocabulary's range or beyond."
    if tower.leaves is None:
        return "By the law it never leaves the vocabulary's range: weight decay holds it."
    if tower.leaves > tower.updates[-1]:
        return (
            f"By the law it leaves the vocabulary's range after the run, at {number(tower.leaves)}."
        )
    return (
        f"By the law it leaves the vocabulary's range at update {number(tower.leaves)}; a rate of "
        f"{number(tower.rate_within, 3)} keeps it inside."
    )


def inflation_figure(result: PredictedInflation) -> "PlotlyFigure":
    """Draw the norm against the update, a row for each encoder."""
    figure = rows_of([220] * len(result.towers), left=LEFT)
    for row, tower in enumerate(result.towers, start=1):
        curves = (("law", tower.norms, VERMILLION), ("slowed", tower.slowed_norms, BLUE))
        for name, norms, color in curves:
            texts = [
                hover(
                    f"update {number(update)}",
                    f"norm {number(norm)}",
                    f"{times(norm / tower.mean_norm)} the mean",
                )
                for update, norm in zip(tower.updates, norms, strict=True)
            ]
            points = zip(tower.updates, norms, texts, strict=True)
            add_curve(figure, row, name, points, color, key=row == 1)
        figure.add_hline(
            tower.limit, line={"color": INK, "width": 1, "dash": "dash"}, row=row, col=1
        )
        figure.update_yaxes(
            title={"text": "norm", "standoff": 4},
            range=[0, 1.08 * max(tower.limit, *tower.norms)],
            row=row,
            col=1,
        )
    figure.update_xaxes(title="update", row=len(result.towers), col=1)
    add_keys(figure, (1,))
    return figure


def _rows(result: PredictedInflation) -> list[list[str | int | float | None]]:
    rows: list[list[str | int | float | None]] = []
    for tower in result.towers:
        last = len(tower.updates) - 1
        places = dict.fromkeys(last * quarter // _QUARTERS for quarter in range(_QUARTERS + 1))
        for place in places:
            norm, slowed = tower.norms[place], tower.slowed_norms[place]
            rows.append(
                [
                    tower.tower,
                    tower.updates[place],
                    norm,
                    norm / tower.mean_norm,
                    slowed,
                    slowed / tower.mean_norm,
                ]
            )
    return rows


def _range_rows(result: PredictedInflation) -> list[list[str | int | float | None]]:
    return [
        [
            tower.tower,
            tower.mean_norm,
            tower.limit,
            tower.leaves,
            tower.slowed_leaves,
            tower.rate_within,
            tower.plateau,
        ]
        for tower in result.towers
    ]
