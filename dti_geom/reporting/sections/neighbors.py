"""The neighbour section: both neighbourhoods side by side, and how much they share."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dti_geom.probes import Neighbors
from dti_geom.reporting.plots import BLUE, GRID, MUTED, hover, rows_of
from dti_geom.reporting.text import number, plot_text, quoted

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def shared_tokens(neighbors: Neighbors) -> set[int]:
    """Rows that are neighbours by cosine and by distance."""
    return {one.id for one in neighbors.cosine} & {one.id for one in neighbors.euclidean}


def neighbors_finding(neighbors: Neighbors) -> str:
    """One sentence: how much the two neighbourhoods share, and who leads each."""
    closest, nearest = neighbors.cosine[0], neighbors.euclidean[0]
    return (
        f"{len(shared_tokens(neighbors))} of {_listed(neighbors)} neighbours are in both lists; the closest by cosine "
        f"is {quoted(closest.token)} at {number(closest.similarity)}, the nearest by distance {quoted(nearest.token)} "
        f"at {number(nearest.distance)}, where the query itself has norm {number(neighbors.norm)}."
    )


def overlap_figure(neighbors: Sequence[Neighbors]) -> "Figure":
    """For each query, how many neighbours the two lists share."""
    figure = rows_of([34 * len(neighbors)])
    places = list(range(len(neighbors)))
    for name, color, widths in (
        ("listed", GRID, [_listed(one) for one in neighbors]),
        ("shared", BLUE, [len(shared_tokens(one)) for one in neighbors]),
    ):
        figure.add_bar(
            name=name,
            x=widths,
            y=places,
            width=0.3,
            orientation="h",
            marker={"color": color},
            hovertext=[
                hover(
                    f"<b>{plot_text(one.query)}</b>",
                    plot_text(one.encoder),
                    f"{len(shared_tokens(one))} of {_listed(one)} neighbours in both lists",
                )
                for one in neighbors
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    several = len({one.encoder for one in neighbors}) > 1
    for place, one in zip(places, neighbors, strict=True):
        figure.add_annotation(
            text=plot_text(one.query, 24) + (f" · {plot_text(one.encoder, 16)}" if several else ""),
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


def overlap_finding(neighbors: Sequence[Neighbors]) -> str:
    """One sentence over all queries."""
    shares = [(len(shared_tokens(one)), _listed(one)) for one in neighbors]
    least = min(neighbors, key=lambda one: len(shared_tokens(one)) / _listed(one))
    total, listed = (sum(column) for column in zip(*shares, strict=True))
    return (
        f"Over {len(neighbors)} queries the two metrics agree on {number(total)} of {number(listed)} neighbours "
        f"({number(100 * total / listed, 3)} %), least for {quoted(least.query)} with {len(shared_tokens(least))} of "
        f"{_listed(least)}."
    )


def _listed(neighbors: Neighbors) -> int:
    return max(len(neighbors.cosine), len(neighbors.euclidean))
