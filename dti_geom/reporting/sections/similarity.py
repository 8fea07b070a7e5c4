"""The similarity section: how alike learned tokens are, as a map of cosines."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dti_geom.editing.similarity import Likeness, Similarity
from dti_geom.reporting.blocks import Block, Column, Figure, Finding, Limits, Section, Table, Value
from dti_geom.reporting.plots import BLUE, PAPER, VERMILLION, hover, rows_of
from dti_geom.reporting.text import number, plot_text, quoted

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

MATRIX = 12  # tokens whose matrix a table has room for
DRAWN = 300  # tokens whose matrix a figure has room for
CELL = 14  # pixels


def similarity_section(result: Similarity) -> Section:
    """Show each width's tokens: nearest others, cosines, and what they share."""
    groups = [_group(group) for group in result.groups]
    limits = Limits(
        "Whether two tokens paint the same: a cosine compares their vectors, not what the encoder "
        "makes of them."
    )
    return Section("Similarity", [*groups, limits], aside=f"{result.tokens} tokens")


def similarity_finding(group: Likeness) -> str:
    """Name the two most similar tokens, and say what all share."""
    best = max(range(len(group.labels)), key=lambda row: group.nearest[row][0].cosine)
    other = group.nearest[best][0]
    shares = ", ".join(f"{100 * share:.1f} %" for share in group.principal)
    spread = (
        f"Principal directions hold {shares} of the spread around the mean direction."
        if shares
        else "All point the same way."
    )
    return (
        f"Most alike: {quoted(group.labels[best])} and {quoted(other.label)}, cosine "
        f"{number(other.cosine)}. {spread}"
    )


def similarity_figure(group: Likeness) -> "PlotlyFigure":
    """Draw the matrix of cosines, red below 0 and blue above."""
    names = [plot_text(label, 40) for label in group.labels]
    figure = rows_of([max(160, CELL * len(names))], left=16)
    places = list(range(len(names)))
    figure.add_heatmap(
        x=places,
        y=places,
        z=[list(row) for row in group.cosines],
        text=[
            [
                f"{one}<br>{other}<br>cosine {number(cosine)}"
                for other, cosine in zip(names, row, strict=True)
            ]
            for one, row in zip(names, group.cosines, strict=True)
        ],
        hovertemplate=hover("%{text}"),
        zmin=-1,
        zmax=1,
        colorscale=[[0, VERMILLION], [0.5, PAPER], [1, BLUE]],
        colorbar={"title": "cosine", "thickness": 12},
        xgap=1,
        ygap=1,
    )
    figure.update_xaxes(title="token", tickmode="linear", dtick=_tick(len(names)), showgrid=False)
    figure.update_yaxes(
        autorange="reversed", tickmode="linear", dtick=_tick(len(names)), showgrid=False
    )
    return figure


def _tick(count: int) -> int:
    return max(1, count // 20)


def _group(group: Likeness) -> Section:
    blocks: list[Block] = [Finding(similarity_finding(group))]
    if len(group.labels) <= DRAWN:
        blocks.append(
            Figure(
                lambda: similarity_figure(group),
                "Cosine of each pair of tokens, numbered as in the table below.",
                "Matrix of the cosines between learned tokens",
            )
        )
    blocks.append(Table("Nearest", _COLUMNS, _rows(group)))
    if len(group.labels) <= MATRIX:
        blocks.append(_matrix(group))
    return Section(f"Width {group.width}", blocks, aside=f"{len(group.labels)} tokens")


_COLUMNS = (
    Column("number"),
    Column("token", kind="path"),
    Column("with the mean", digits=3),
    Column("nearest", kind="path"),
    Column("cosine", digits=3),
)


def _rows(group: Likeness) -> list[list[Value]]:
    means: Sequence[float | None] = group.with_mean or [None] * len(group.labels)
    rows = enumerate(zip(group.labels, means, group.nearest, strict=True))
    return [
        [place, label, with_mean, nearest[0].label, nearest[0].cosine]
        for place, (label, with_mean, nearest) in rows
    ]


def _matrix(group: Likeness) -> Table:
    numbers = [Column(str(place), digits=3) for place in range(len(group.labels))]
    cells: list[list[Value]] = [
        [label, *cosines] for label, cosines in zip(group.labels, group.cosines, strict=True)
    ]
    return Table("Cosines", [Column("token", kind="path"), *numbers], cells)
