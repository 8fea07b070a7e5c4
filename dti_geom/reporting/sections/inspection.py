"""The inspection section: how inflated learned tokens are, and how norms grow in training."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import PurePath
from statistics import fmean
from typing import TYPE_CHECKING

from dti_geom.geometry.inflation import implied_rate
from dti_geom.probes.inspection import InspectedFile, InspectedVector, Inspection
from dti_geom.reporting.blocks import (
    Column,
    Figure,
    Finding,
    Limits,
    Section,
    Table,
    Value,
)
from dti_geom.reporting.plots import (
    BLUE,
    INK,
    MUTED,
    VERMILLION,
    Lane,
    add_lanes,
    few,
    hover,
    lanes_height,
    log_axis,
    rows_of,
)
from dti_geom.reporting.text import number, plot_text, quoted, short_path, spread, times

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

_LEAST_STEPS = 3  # different training steps that make a trajectory
_VECTOR_COLUMNS = (
    Column("token", kind="token"),
    Column("vector"),
    Column("norm"),
    Column("inflation", "×", digits=3),
    Column("step"),
    Column("width"),
    Column("dtype", kind="text"),
    Column("format", kind="text"),
    Column("file", kind="path"),
)
_PLACE_COLUMNS = (
    Column("token", kind="token"),
    Column("vector"),
    Column("percentile of norm"),
    Column("nearest tokens", kind="token"),
    Column("copy of", kind="token"),
)
_TURN_COLUMNS = (
    Column("token", kind="token"),
    Column("vector"),
    Column("step"),
    Column("from the first", "°"),
    Column("from the previous", "°"),
    Column("file", kind="path"),
)
_WIDTH_COLUMNS = (
    Column("width"),
    Column("text encoder", kind="token"),
    Column("inflation compares with", kind="token"),
)
_ADVICE_COLUMNS = (
    Column("file", kind="path"),
    Column("verdict", kind="text"),
    Column("advice", kind="sentence"),
)


@dataclass(frozen=True)
class Trajectory:
    """Norms of one token over the checkpoints of a training run."""

    token: str
    folder: str
    tower: str | None
    width: int
    steps: tuple[int, ...]  # ascending
    norms: tuple[float, ...]  # embedding units; the mean where a checkpoint holds several vectors
    reference_norm: float | None  # mean norm of the vocabulary
    reference: str | None
    turns: tuple[float, ...] = ()  # degrees from the first checkpoint; empty where not measured


def inspection_section(result: Inspection) -> Section:
    """Show what is in embedding files, how inflated they are, and what to do about it."""
    files = ordered(result.files)
    blocks: list[Finding | Figure | Table | Section | Limits] = [
        Finding(inflation_finding(files)),
        Figure(
            lambda: inflation_figure(files),
            "One point per vector. Inflation is its L2 norm divided by the mean norm of the token "
            "table it is compared with; a width without such a mean has no inflation. Dashed: the "
            "mean token.",
        ),
    ]
    blocks += map(_trajectory_section, trajectories(files))
    advice: list[list[Value]] = [
        [file.path, file.verdict, file.advice] for file in files if file.advice
    ]
    for title, columns, rows in (
        ("What to do", _ADVICE_COLUMNS, advice),
        ("Vectors", _VECTOR_COLUMNS, _vector_rows(files)),
        ("Among the tokens", _PLACE_COLUMNS, _place_rows(files)),
        ("Turn while training", _TURN_COLUMNS, _turn_rows(files)),
        ("Widths", _WIDTH_COLUMNS, _width_rows(files)),
    ):
        if rows:
            blocks.append(Table(title, columns, rows))
    blocks.append(
        Limits(
            "Whether a token is any good: nothing was painted. An inflation over a published mean "
            "is that of the model the mean was published for."
        )
    )
    vectors = sum(len(file.vectors) for file in files)
    return Section(
        title="Embedding files",
        aside=f"{_count(len(files), 'file')}, {_count(vectors, 'vector')}",
        blocks=blocks,
    )


def ordered(files: Sequence[InspectedFile]) -> list[InspectedFile]:
    """Sort files by folder, then checkpoints of a run by step, then by name."""
    return sorted(
        files, key=lambda file: (str(PurePath(file.path).parent), file.step or 0, file.path)
    )


def trajectories(files: Sequence[InspectedFile]) -> tuple[Trajectory, ...]:
    """Return a trajectory for each token, tower and width with three or more steps in a folder."""
    groups: dict[tuple[str, str, str | None, int], dict[int, list[InspectedVector]]] = defaultdict(
        dict
    )
    for file in files:
        if file.step is None:
            continue
        for vector in file.vectors:
            key = (str(PurePath(file.path).parent), vector.token, vector.tower, vector.dim)
            groups[key].setdefault(file.step, []).append(vector)
    return tuple(
        _trajectory(folder, token, tower, by_step)
        for (folder, token, tower, _), by_step in groups.items()
        if len(by_step) >= _LEAST_STEPS
    )


def trajectory_figure(trajectory: Trajectory) -> "PlotlyFigure":
    """Draw the norm against the training step, and below it the turn if it was measured."""
    figure = rows_of([260, 160] if trajectory.turns else [260], left=52)
    figure.add_scatter(
        x=trajectory.steps,
        y=trajectory.norms,
        mode="lines+markers",
        line={"color": VERMILLION, "width": 2},
        marker={"color": VERMILLION, "size": 7},
        hovertext=[
            hover(
                f"step {number(step)}", f"norm {number(norm)}", *_over_reference(trajectory, norm)
            )
            for step, norm in zip(trajectory.steps, trajectory.norms, strict=True)
        ],
        hovertemplate="%{hovertext}<extra></extra>",
        row=1,
        col=1,
    )
    if trajectory.reference_norm is not None:
        figure.add_hline(
            trajectory.reference_norm,
            line={"color": INK, "width": 1, "dash": "dash"},
            annotation={
                "text": f"vocabulary mean {number(trajectory.reference_norm)}",
                "font": {"color": MUTED},
                "xanchor": "right",
                "yanchor": "top",
            },
            row=1,
            col=1,
        )
    if trajectory.turns:
        figure.add_scatter(
            x=trajectory.steps,
            y=trajectory.turns,
            mode="lines+markers",
            line={"color": BLUE, "width": 2},
            marker={"color": BLUE, "size": 7},
            hovertext=[
                hover(f"step {number(step)}", f"{number(turn, 3)}° from the first checkpoint")
                for step, turn in zip(trajectory.steps, trajectory.turns, strict=True)
            ],
            hovertemplate="%{hovertext}<extra></extra>",
            row=2,
            col=1,
        )
        most = max(*trajectory.turns, 1)
        figure.update_yaxes(
            title={"text": "turn, degrees", "standoff": 4},
            range=[-0.06 * most, 1.08 * most],
            row=2,
            col=1,
        )
    figure.update_xaxes(range=[-0.02 * trajectory.steps[-1], 1.03 * trajectory.steps[-1]])
    figure.update_xaxes(title="training step", row=2 if trajectory.turns else 1, col=1)
    figure.update_yaxes(
        title={"text": "norm, embedding units", "standoff": 4},
        range=[0, 1.08 * max(*trajectory.norms, trajectory.reference_norm or 0)],
        row=1,
        col=1,
    )
    return figure


def trajectory_finding(trajectory: Trajectory) -> str:
    """Say from where to where the norm goes, and how."""
    first, last = trajectory.norms[0], trajectory.norms[-1]
    rises = [after > before for before, after in pairwise(trajectory.norms)]
    falls = [after < before for before, after in pairwise(trajectory.norms)]
    how = "grows" if last > first else "falls" if last < first else "ends where it began"
    if all(rises) or all(falls):
        how += " at every checkpoint,"
    elif any(rises) and any(falls):
        how += ", with turns between,"
    elif last == first:
        how += ","
    ratio = f" ({times(last / first)})" if first else ""
    turned = f", while it turns by {number(trajectory.turns[-1], 3)}°" if trajectory.turns else ""
    return (
        f"The norm of {quoted(trajectory.token)} {how} from {number(first)} at step "
        f"{number(trajectory.steps[0])} to {number(last)} at step "
        f"{number(trajectory.steps[-1])}{ratio}{turned}."
    )


def inflation_figure(files: Sequence[InspectedFile]) -> "PlotlyFigure":
    """Draw the inflation of every learned token; below it norms of those without a reference."""
    rows = [
        lanes
        for lanes in (_lanes(files, referenced=True), _lanes(files, referenced=False))
        if lanes
    ]
    figure = rows_of([lanes_height(lanes) for lanes in rows] or [8])
    for row, lanes in enumerate(rows, start=1):
        inflation = lanes[0].color == VERMILLION
        values = list(chain.from_iterable(lane.values for lane in lanes))
        add_lanes(figure, lanes, row)
        if inflation:
            title = "inflation: norm ÷ mean norm of the vocabulary"
            axis = log_axis(min(*values, 1), max(values), "×")
            figure.add_vline(1, line={"color": INK, "width": 1, "dash": "dash"}, row=row, col=1)
        else:
            title = "norm, embedding units (no reference)"
            axis = log_axis(min(values), max(values))
        figure.update_xaxes(title=title, **axis, row=row, col=1)
    return figure


def inflation_finding(files: Sequence[InspectedFile]) -> str:
    """Say how many vectors are inflated, and name the most inflated."""
    vectors = list(chain.from_iterable(file.vectors for file in files))
    ratios = [(vector.inflation, vector) for vector in vectors if vector.inflation is not None]
    count = _count(len(vectors), "vector")
    start = f"{len(files)} files hold {count}" if len(files) > 1 else f"The file holds {count}"
    if not ratios:
        norms = [vector.norm for vector in vectors]
        return (
            f"{start} with norms from {number(min(norms))} to {number(max(norms))}, and no "
            "reference for their width."
        )
    top, longest = max(ratios, key=lambda pair: pair[0])
    name = quoted(longest.token)
    size = f"has norm {number(longest.norm)}, {times(top)} the mean token"
    if len(ratios) == 1:
        return f"{start}; {name} {size}."
    over_two = sum(ratio > 2 for ratio, _ in ratios)
    return (
        f"{start}; {number(over_two)} of the {number(len(ratios))} with a reference are longer "
        f"than twice the mean token. The most inflated, {name}, {size}."
    )


def rate_finding(trajectory: Trajectory) -> str:
    """Say which learning rate the growth amounts to, and the norm at twice the steps."""
    implied = implied_rate(trajectory.steps, trajectory.norms, trajectory.width)
    if implied is None or not implied.low:
        return (
            "Its squared norm does not clearly grow along a line: no learning rate follows from it."
        )
    last, twice = trajectory.steps[-1], 2 * trajectory.steps[-1]
    norm = math.sqrt(trajectory.norms[-1] ** 2 + implied.rate**2 * trajectory.width * last)
    return (
        f"Its squared norm grows along a line with R² {number(implied.r_squared, 3)}. A free "
        f"vector of AdamW grows so at a learning rate of {number(implied.rate, 3)} (95 % interval "
        f"of the line {number(implied.low, 3)} to {number(implied.high, 3)}), or at a higher one "
        f"if gradients shrank. Growing so, the norm at step {number(twice)} will be {number(norm)}."
    )


def _trajectory_section(trajectory: Trajectory) -> Section:
    caption = (
        f"{len(trajectory.steps)} checkpoints in {quoted(short_path(trajectory.folder))}; L2 norm "
        "in embedding units, the mean where a checkpoint holds several vectors."
    )
    if trajectory.turns:
        caption += " Below: angle to the first checkpoint."
    if trajectory.reference:
        caption += f" Dashed: mean norm, {quoted(trajectory.reference)}."
    return Section(
        title=f"{quoted(trajectory.token)} while training",
        blocks=[
            Finding(trajectory_finding(trajectory)),
            Finding(rate_finding(trajectory)),
            Figure(lambda: trajectory_figure(trajectory), caption),
        ],
    )


def _every(files: Sequence[InspectedFile]) -> Iterator[tuple[InspectedFile, InspectedVector]]:
    """Yield every vector with its file."""
    for file in files:
        for vector in file.vectors:
            yield file, vector


def _vector_rows(files: Sequence[InspectedFile]) -> list[list[Value]]:
    return [
        [
            vector.token,
            vector.index,
            vector.norm,
            vector.inflation,
            file.step,
            vector.dim,
            vector.dtype,
            file.format,
            file.path,
        ]
        for file, vector in _every(files)
    ]


def _place_rows(files: Sequence[InspectedFile]) -> list[list[Value]]:
    return [
        [
            vector.token,
            vector.index,
            vector.percentile,
            " ".join(near.token for near in vector.nearest) or None,
            vector.copy_of,
        ]
        for _, vector in _every(files)
        if vector.percentile is not None
    ]


def _turn_rows(files: Sequence[InspectedFile]) -> list[list[Value]]:
    return [
        [
            vector.token,
            vector.index,
            file.step,
            vector.turn.from_first,
            vector.turn.from_previous,
            file.path,
        ]
        for file, vector in _every(files)
        if vector.turn is not None
    ]


def _width_rows(files: Sequence[InspectedFile]) -> list[list[Value]]:
    """Return what is known of each width: its text encoder, and what inflation compares with."""
    known: set[tuple[int, str, str]] = set()
    for _, vector in _every(files):
        tower = vector.tower or "not known here"
        if vector.tower in ("1", "2"):  # how web UIs number the towers of SDXL
            tower = f"text encoder {vector.tower}"
        reference = vector.reference or "no mean is published; give --model"
        known.add((vector.dim, tower, reference))
    return [list(row) for row in sorted(known)]


def _trajectory(
    folder: str, token: str, tower: str | None, by_step: dict[int, list[InspectedVector]]
) -> Trajectory:
    steps = sorted(by_step)
    example = by_step[steps[-1]][0]
    return Trajectory(
        token=token,
        folder=folder,
        tower=tower,
        width=example.dim,
        steps=tuple(steps),
        norms=tuple(fmean(vector.norm for vector in by_step[step]) for step in steps),
        reference_norm=example.norm / example.inflation if example.inflation else None,
        reference=example.reference,
        turns=_turns([by_step[step] for step in steps]),
    )


def _turns(checkpoints: Sequence[Sequence[InspectedVector]]) -> tuple[float, ...]:
    """Return the mean turn of each checkpoint; nothing if one of the later was not measured."""
    later = [_from_first(vectors) for vectors in checkpoints[1:]]
    return (0.0, *map(fmean, later)) if all(later) else ()


def _from_first(vectors: Sequence[InspectedVector]) -> list[float]:
    return [vector.turn.from_first for vector in vectors if vector.turn]


def _over_reference(trajectory: Trajectory, norm: float) -> list[str]:
    return (
        [f"{times(norm / trajectory.reference_norm)} the mean"] if trajectory.reference_norm else []
    )


def _lanes(files: Sequence[InspectedFile], *, referenced: bool) -> list[Lane]:
    """Return one lane per token, folder and width, the largest value first."""
    groups: dict[tuple[str, str, int], list[tuple[float, str]]] = defaultdict(list)
    for file, vector in _every(files):
        value = vector.inflation if referenced else vector.norm
        # A zero vector has no place on a logarithmic axis.
        if value and (vector.inflation is not None) == referenced:
            key = (vector.token, str(PurePath(file.path).parent), vector.dim)
            groups[key].append((value, _hover(file, vector)))
    largest_first = sorted(groups.items(), key=lambda group: -max(group[1])[0])
    sign = "×" if referenced else ""
    lanes = []
    for (token, _, _), points in largest_first:
        values, texts = zip(*points, strict=True)
        label = f"{plot_text(token, 18)} {spread(values, sign)}"
        lanes.append(Lane(label, values, texts, VERMILLION if referenced else BLUE))
    return few(lanes)


def _hover(file: InspectedFile, vector: InspectedVector) -> str:
    lines = [
        f"<b>{plot_text(vector.token)}</b>",
        f"vector {vector.index} of {plot_text(short_path(file.path), 32)}",
    ]
    if file.step is not None:
        lines.append(f"step {number(file.step)}")
    lines.append(f"norm {number(vector.norm)}")
    if vector.inflation is not None:
        lines.append(f"{times(vector.inflation)}: {plot_text(vector.reference or '')}")
    return hover(*lines)


def _count(count: int, noun: str) -> str:
    return f"{number(count)} {noun}" + "s" * (count != 1)
