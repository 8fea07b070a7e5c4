"""The shape section: isotropy, hubs and intrinsic dimension of a token table."""

from typing import TYPE_CHECKING

from dti_geom.probes.shape import CloudShape, ShapeResult
from dti_geom.reporting.blocks import Column, Figure, Finding, Limits, Note, Section, Table, Value
from dti_geom.reporting.plots import (
    BLUE,
    MUTED,
    Lane,
    add_lanes,
    hover,
    lanes_height,
    rows_of,
)
from dti_geom.reporting.text import number, percent, plot_text, quoted

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

_NAMES = {
    "rows": "rows as stored",
    "directions": "directions",
    "centred": "directions less mean",
    "random": "random directions",
}
_COLUMNS = (
    Column("cloud", kind="text"),
    Column("isotropy", digits=3),
    Column("mean cosine", digits=3),
    Column("hubness", digits=3),
    Column("never", "%", digits=3),
    Column("dim. (2)", digits=3),
    Column("dim. (k)", digits=3),
)
_HUB_COLUMNS = (
    Column("cloud", kind="text"),
    Column("token", kind="token"),
    Column("id"),
    Column("neighbour of"),
)


def shape_section(result: ShapeResult) -> Section:
    """Show the shape of a token table beside that of random directions."""
    return Section(
        title="Shape of the vocabulary",
        aside=f"{number(result.rows)} rows of {result.dim} numbers",
        blocks=[
            Finding(shape_finding(result)),
            Figure(
                lambda: hub_figure(result),
                f"How many rows have the strongest hubs among their {result.k} nearest; on average "
                f"a row is a neighbour of {result.k}.",
            ),
            Note(_note(result)),
            Table("Shape", _COLUMNS, [_row(cloud) for cloud in result.clouds]),
            Table("Strongest hubs", _HUB_COLUMNS, _hub_rows(result)),
            Limits(
                "Which shape is good. Intrinsic dimension is underestimated where points are few "
                "for their dimension, and a sample has other neighbours than the whole table: "
                "compare with the random directions beside it, not with other sizes."
            ),
        ],
    )


def shape_finding(result: ShapeResult) -> str:
    """Say isotropy and hubness beside random directions, and what removing the mean does."""
    clouds = {cloud.cloud: cloud for cloud in result.clouds}
    directions, centred, random = (clouds[name] for name in ("directions", "centred", "random"))
    norms = (
        "All rows have the same norm."
        if result.norm_by_row is None
        else f"Norm and row number correlate by {number(result.norm_by_row, 2)} (Spearman)."
    )
    return (
        f"Directions have isotropy {number(directions.isotropy, 3)}; as many random ones have "
        f"{number(random.isotropy, 3)}. Their mean cosine is {number(directions.mean_cosine, 2)}, "
        f"and {number(centred.mean_cosine, 2)} once their mean is removed. Hubness is "
        f"{number(directions.hubness, 3)}, of random directions {number(random.hubness, 3)}; the "
        f"strongest hub is {quoted(directions.hubs[0].token)}, among the {result.k} nearest of "
        f"{number(directions.hubs[0].count)} rows. {norms}"
    )


def hub_figure(result: ShapeResult) -> "PlotlyFigure":
    """Draw the strongest hubs of each cloud as points."""
    lanes = [_lane(cloud) for cloud in result.clouds if cloud.hubs]
    figure = rows_of([lanes_height(lanes)])
    add_lanes(figure, lanes, row=1)
    figure.add_vline(result.k, line={"color": MUTED, "width": 1, "dash": "dash"})
    figure.update_xaxes(title="rows that it is a neighbour of", rangemode="tozero")
    return figure


def _note(result: ShapeResult) -> str:
    equal = (
        f" {number(result.equal_rows)} rows that repeat an earlier one are left out."
        if result.equal_rows
        else ""
    )
    return (
        "Isotropy is the IsoScore: 0 for a line, 1 for a cloud that is alike in all directions. "
        f"Hubness is the skewness of how often a row is among the {result.k} nearest of another, "
        "“never” the share of rows that are no row’s neighbour. “dim.” is the intrinsic dimension "
        f"of neighbourhoods, from 2 and from {result.k} neighbours. Isotropy and mean cosine are "
        f"of {number(result.sampled)} sampled rows; neighbours are searched among "
        f"{number(result.searched)}. Random directions are as many.{equal}"
    )


def _row(cloud: CloudShape) -> list[Value]:
    return [
        _NAMES[cloud.cloud],
        cloud.isotropy,
        cloud.mean_cosine,
        cloud.hubness,
        100 * cloud.never,
        cloud.two_nearest,
        cloud.dimension,
    ]


def _hub_rows(result: ShapeResult) -> list[list[Value]]:
    rows: list[list[Value]] = []
    for cloud in result.clouds:
        rows += [[_NAMES[cloud.cloud], hub.token, hub.id, hub.count] for hub in cloud.hubs]
    return rows


def _lane(cloud: CloudShape) -> Lane:
    texts = [
        hover(f"<b>{plot_text(hub.token)}</b>", f"neighbour of {number(hub.count)} rows")
        for hub in cloud.hubs
    ]
    label = f"{_NAMES[cloud.cloud]}, never a neighbour: {percent(100 * cloud.never)}"
    return Lane(label, tuple(float(hub.count) for hub in cloud.hubs), tuple(texts), BLUE)
