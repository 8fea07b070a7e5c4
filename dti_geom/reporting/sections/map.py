"""The map section: tokens in two dimensions, and how far the map can be trusted."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

from dti_geom.files.packed import unpack
from dti_geom.files.run_layout import CHECKPOINTS, is_token_folder
from dti_geom.probes.map import COSINE_UNIT, MapResult, PlacedVector
from dti_geom.reporting.blocks import (
    Column,
    Finding,
    Limits,
    Note,
    PlacedPoint,
    PointMap,
    Section,
    Table,
    Value,
)
from dti_geom.reporting.plots import BLUE, GRID, INK, PAPER, VERMILLION, hover, rows_of
from dti_geom.reporting.text import number, percent, plot_text, quoted, short_path, times

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

_EMPTY = ""  # stands for an array that the page holds only once
_MAP_COLUMNS = (
    Column("rows"),
    Column("shown"),
    Column("kept", "%", digits=3),
    Column("by chance", "%", digits=3),
    Column("perplexity", digits=3),
)
_LEARNED_COLUMNS = (
    Column("token", kind="token"),
    Column("vector"),
    Column("step"),
    Column("÷ mean", "×", digits=3),
    Column("nearest", kind="token"),
    Column("cosine", digits=3),
    Column("file", kind="path"),
)


def map_section(result: MapResult) -> Section:
    """Show the map, how many neighbourhoods it keeps, and where learned vectors lie."""
    blocks: list[Finding | PointMap | Note | Table | Limits] = [
        Finding(map_finding(result)),
        PointMap(
            draw=lambda: map_figure(result),
            caption=(
                "Directions of the token table; colour: norm. Neighbours are the true ones, by "
                "cosine in the original space. The address of the page names the view."
            ),
            labels=result.tokens,
            ids=result.ids,
            positions=result.positions,
            norms=result.norms,
            mean_norm=result.mean_norm,
            neighbors=result.neighbors,
            cosines=result.cosines,
            cosine_unit=COSINE_UNIT,
            placed=[_point(vector) for vector in result.learned],
        ),
        Note(_method(result)),
        Table("Map", _MAP_COLUMNS, [_row(result)]),
    ]
    if result.learned:
        rows = [_learned_row(vector, result.mean_norm) for vector in result.learned]
        blocks.append(Table("Learned vectors", _LEARNED_COLUMNS, rows))
    blocks.append(
        Limits(
            "How far tokens are from each other: t-SNE keeps near rows near, and lengths across "
            "the map, areas and gaps mean nothing. A learned vector lies among the rows that are "
            "nearest to it, however far they are: read its cosines."
        )
    )
    return Section(
        title="Map of the vocabulary",
        aside=f"{number(len(result.tokens))} of {number(result.rows)} rows",
        blocks=blocks,
    )


def map_data(result: MapResult) -> MapResult:
    """Return the result without its arrays, which the page holds in the map itself."""
    arrays = {
        name: replace(getattr(result, name), data=_EMPTY)
        for name in ("ids", "norms", "positions", "neighbors", "cosines")
    }
    return replace(result, tokens=(), **arrays)


def map_figure(result: MapResult) -> "PlotlyFigure":
    """Draw the map, with tokens and norms in hover texts and learned vectors above them."""
    import plotly.graph_objects as go

    x, y = unpack(result.positions).T
    norms = unpack(result.norms)
    low, high = numpy.quantile(norms, [0.01, 0.99])
    figure = rows_of([560])
    figure.add_trace(
        go.Scattergl(
            x=x,
            y=y,
            mode="markers",
            marker={
                "size": 3 if len(x) > 5000 else 6,
                "color": norms,
                "cmin": low,
                "cmax": high,
                "colorscale": [[0, BLUE], [0.5, GRID], [1, VERMILLION]],
                "showscale": True,
                "colorbar": {"title": "norm", "thickness": 10},
            },
            hovertext=[
                hover(plot_text(token), f"norm {number(float(norm))}")
                for token, norm in zip(result.tokens, norms, strict=True)
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    )
    for line in _lines(result.learned):
        figure.add_scatter(
            x=[vector.x for vector in line],
            y=[vector.y for vector in line],
            mode="lines+markers",
            line={"color": INK, "width": 1.5},
            marker={"color": INK, "symbol": "diamond", "size": 9, "line": {"color": PAPER}},
            hovertext=[
                hover(plot_text(_label(vector)), plot_text(_note(vector)), *_near(vector))
                for vector in line
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, scaleanchor="x")
    return figure


def map_finding(result: MapResult) -> str:
    """Say how many neighbours the map keeps, and beside what the first learned vector lies."""
    kept = (
        f"The map keeps {percent(100 * result.kept)} of a token's {result.k} nearest neighbours "
        f"(a random map: {percent(100 * result.kept_by_chance)})."
    )
    if not result.learned:
        return kept
    last = result.learned[-1]
    nearest = last.neighbors[0]
    return (
        f"{kept} {quoted(last.token)}, {times(last.norm / result.mean_norm)} the mean norm, lies "
        f"beside {quoted(nearest.token)}, with which it has a cosine of "
        f"{number(nearest.similarity, 3)}."
    )


def _method(result: MapResult) -> str:
    equal = ""
    if result.equal_rows:
        equal = f", and {number(result.equal_rows)} rows that equal an earlier one,"
    among = ""
    if len(result.tokens) < result.rows:
        among = (
            f" The {number(len(result.tokens))} rows shown are a random sample of "
            f"{number(result.rows)} and the neighbours of learned vectors. Those were searched in "
            "the whole table, the neighbours of tokens among the rows shown."
        )
    return (
        f"t-SNE of unit vectors by openTSNE from exact neighbours, perplexity "
        f"{result.perplexity:g}. Zero rows{equal} are left out.{among} Learned vectors are placed "
        "afterwards, each alone, and do not change the map."
    )


def _row(result: MapResult) -> list[Value]:
    kept, chance = 100 * result.kept, 100 * result.kept_by_chance
    return [result.rows, len(result.tokens), kept, chance, result.perplexity]


def _learned_row(vector: PlacedVector, mean_norm: float) -> list[Value]:
    nearest = vector.neighbors[0]
    return [
        vector.token,
        vector.index,
        vector.step,
        vector.norm / mean_norm,
        nearest.token,
        nearest.similarity,
        vector.path,
    ]


def _lines(learned: tuple[PlacedVector, ...]) -> Iterator[list[PlacedVector]]:
    """Yield vectors that are one vector after more and more updates."""
    ordered = sorted(learned, key=lambda vector: (_line(vector), vector.step or 0))
    for _, line in groupby(ordered, _line):
        yield list(line)


def _line(vector: PlacedVector) -> str:
    """Return what is the same for all checkpoints of a vector: token, index and run."""
    folder = Path(vector.path).parent
    if vector.step is None:
        folder = Path(vector.path)  # the file says nothing of a run
    elif CHECKPOINTS in folder.parts:
        folder = next(
            above for above in (folder, *folder.parents) if above.name == CHECKPOINTS
        ).parent
    elif is_token_folder(folder):
        folder = folder.parent
    return f"{folder}\n{vector.token}\n{vector.index}"


def _point(vector: PlacedVector) -> PlacedPoint:
    return PlacedPoint(
        label=_label(vector),
        x=vector.x,
        y=vector.y,
        norm=vector.norm,
        line=_line(vector),
        note=_note(vector),
        neighbors=[(near.token, near.id, near.similarity) for near in vector.neighbors],
    )


def _label(vector: PlacedVector) -> str:
    return f"{vector.token}[{vector.index}]" if vector.index else vector.token


def _note(vector: PlacedVector) -> str:
    after = f"after {number(vector.step)} updates, " if vector.step is not None else ""
    return f"{after}{short_path(vector.path)}"


def _near(vector: PlacedVector) -> list[str]:
    return [
        f"{plot_text(near.token)} {number(near.similarity, 3)}" for near in vector.neighbors[:5]
    ]
