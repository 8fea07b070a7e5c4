"""The neighbours section: both neighbourhoods side by side, and how much they share."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dti_geom.probes.neighbors import NeighborsResult, TokenNeighbors
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
from dti_geom.reporting.methods import method_name
from dti_geom.reporting.plots import BLUE, GRID, MUTED, hover, rows_of
from dti_geom.reporting.text import number, plot_text, quoted

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

SHARED = "●"
_COLUMNS = (
    Column("by direction", kind="token"),
    Column("id"),
    Column("cosine"),
    Column("both", kind="text"),
    Column("by distance", kind="token"),
    Column("id"),
    Column("distance"),
    Column("both", kind="text"),
)


def neighbors_section(result: NeighborsResult) -> Section:
    """Show both neighbourhoods of every query."""
    blocks: list[Finding | Figure | Note | Section | Limits] = []
    if len(result.queries) > 1:
        blocks += [
            Finding(overlap_finding(result.queries)),
            Figure(
                lambda: overlap_figure(result.queries),
                "How many neighbours are in both lists of a query.",
            ),
        ]
    blocks.append(
        Note(
            "Each query is compared with every row of the token table, itself left out. Cosine "
            "compares directions only, from −1 to 1. Distance is Euclidean, in embedding units, "
            f"so norms count as well. Marked {SHARED}: in both lists."
        )
    )
    blocks += map(_query_section, result.queries)
    blocks.append(
        Limits(
            "What the encoder makes of a token. This is its input; words that lie near each other "
            "here need not mean the same."
        )
    )
    return Section("Nearest tokens", blocks)


def shared_tokens(neighbors: TokenNeighbors) -> set[int]:
    """Return the rows that are neighbours by cosine and by distance."""
    by_direction = {similar.id for similar in neighbors.cosine}
    return by_direction & {near.id for near in neighbors.euclidean}


def neighbors_finding(neighbors: TokenNeighbors) -> str:
    """Say how much the two neighbourhoods share, and which row is first in each."""
    closest, nearest = neighbors.cosine[0], neighbors.euclidean[0]
    return (
        f"{len(shared_tokens(neighbors))} of {_listed(neighbors)} neighbours are in both lists. "
        f"The closest by cosine is {quoted(closest.token)} at {number(closest.similarity)}, the "
        f"nearest by distance {quoted(nearest.token)} at {number(nearest.distance)}; the query "
        f"itself has norm {number(neighbors.norm)}."
    )


def overlap_figure(neighbors: Sequence[TokenNeighbors]) -> "PlotlyFigure":
    """Draw, for each query, how many neighbours the two lists share."""
    figure = rows_of([34 * len(neighbors)])
    places = list(range(len(neighbors)))
    texts = [
        hover(
            f"<b>{plot_text(query.query)}</b>",
            plot_text(query.encoder),
            f"{len(shared_tokens(query))} of {_listed(query)} neighbours in both lists",
        )
        for query in neighbors
    ]
    for name, color, widths in (
        ("listed", GRID, [_listed(query) for query in neighbors]),
        ("shared", BLUE, [len(shared_tokens(query)) for query in neighbors]),
    ):
        figure.add_bar(
            name=name,
            x=widths,
            y=places,
            width=0.3,
            orientation="h",
            marker={"color": color},
            hovertext=texts,
            hovertemplate="%{hovertext}<extra></extra>",
        )
    for place, query in zip(places, neighbors, strict=True):
        figure.add_annotation(
            text=plot_text(query.query, 24),
            x=0,
            xref="x domain",
            xanchor="left",
            y=place - 0.4,
            showarrow=False,
            font={"size": 12, "color": MUTED},
        )
    figure.update_layout(barmode="overlay")
    figure.update_yaxes(range=[len(neighbors) - 0.6, -0.75], visible=False, fixedrange=True)
    most = max(map(_listed, neighbors))
    figure.update_xaxes(
        title=f"neighbours in both lists, of {most}", range=[0, most], tickformat="d", nticks=6
    )
    return figure


def overlap_finding(neighbors: Sequence[TokenNeighbors]) -> str:
    """Say how many neighbours the two metrics share over all queries."""
    shared = sum(len(shared_tokens(query)) for query in neighbors)
    listed = sum(map(_listed, neighbors))
    least = min(neighbors, key=lambda query: len(shared_tokens(query)) / _listed(query))
    return (
        f"Over {len(neighbors)} queries the two metrics agree on {number(shared)} of "
        f"{number(listed)} neighbours ({number(100 * shared / listed, 3)} %), least for "
        f"{quoted(least.query)} with {len(shared_tokens(least))} of {_listed(least)}."
    )


def _query_section(neighbors: TokenNeighbors) -> Section:
    row = "learned" if neighbors.id is None else f"row {neighbors.id}"
    if neighbors.method is not None:
        row = f"learned by {method_name(neighbors.method)}"
    return Section(
        title=quoted(neighbors.query),
        aside=f"{row}, norm {number(neighbors.norm)}",
        blocks=[
            Finding(neighbors_finding(neighbors)),
            Table("", _COLUMNS, _rows(neighbors)),
        ],
    )


def _rows(neighbors: TokenNeighbors) -> list[list[Value]]:
    shared = shared_tokens(neighbors)

    def mark(row: int) -> str:
        return SHARED if row in shared else ""

    return [
        [
            similar.token,
            similar.id,
            similar.similarity,
            mark(similar.id),
            near.token,
            near.id,
            near.distance,
            mark(near.id),
        ]
        for similar, near in zip(neighbors.cosine, neighbors.euclidean, strict=True)
    ]


def _listed(neighbors: TokenNeighbors) -> int:
    return max(len(neighbors.cosine), len(neighbors.euclidean))
