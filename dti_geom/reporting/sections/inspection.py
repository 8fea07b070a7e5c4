"""The inspection section: how inflated each learned token is, and how norms grow while training."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePath
from statistics import fmean
from typing import TYPE_CHECKING

from dti_geom.probes import InspectedFile, InspectedVector
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
    from plotly.graph_objects import Figure

_LEAST_STEPS = 3  # different training steps that make a trajectory


@dataclass(frozen=True)
class Trajectory:
    """Norms of one token over the checkpoints of a training run."""

    token: str
    folder: str
    tower: str | None
    steps: tuple[int, ...]  # ascending
    norms: tuple[float, ...]  # embedding units; the mean where a checkpoint holds several vectors
    reference_norm: float | None  # mean norm of the vocabulary
    reference: str | None
    turns: tuple[
        float, ...
    ] = ()  # degrees from the first checkpoint, one per step; empty where not measured


def ordered(files: Sequence[InspectedFile]) -> list[InspectedFile]:
    """By folder, then the checkpoints of a run by step, then by name."""
    return sorted(
        files, key=lambda file: (str(PurePath(file.path).parent), file.step or 0, file.path)
    )


def trajectories(files: Sequence[InspectedFile]) -> tuple[Trajectory, ...]:
    """Groups of files that share folder and token and have at least three different steps, one per tower and width."""
    groups: dict[tuple[str, str, str | None, int], dict[int, list[InspectedVector]]] = defaultdict(
        dict
    )
    for file in files:
        if file.step is None:
            continue
        for one in file.vectors:
            key = (str(PurePath(file.path).parent), one.token, one.tower, one.dim)
            groups[key].setdefault(file.step, []).append(one)
    return tuple(
        _trajectory(folder, token, tower, by_step)
        for (folder, token, tower, _), by_step in groups.items()
        if len(by_step) >= _LEAST_STEPS
    )


def trajectory_figure(trajectory: Trajectory) -> "Figure":
    """Norm against training step, over the mean norm of the vocabulary where it is known; below it the turn."""
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
    """One sentence: from where to where the norm goes, and how."""
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
        f"The norm of {quoted(trajectory.token)} {how} from {number(first)} at step {number(trajectory.steps[0])} to "
        f"{number(last)} at step {number(trajectory.steps[-1])}{ratio}{turned}."
    )


def inflation_figure(files: Sequence[InspectedFile]) -> "Figure":
    """Inflation of every learned token on a logarithmic axis; where there is no reference, its norm in a row below."""
    rows = [
        lanes
        for lanes in (_lanes(files, referenced=True), _lanes(files, referenced=False))
        if lanes
    ]
    figure = rows_of([lanes_height(lanes) for lanes in rows] or [8])
    for row, lanes in enumerate(rows, start=1):
        inflation = lanes[0].color == VERMILLION
        values = [value for lane in lanes for value in lane.values]
        add_lanes(figure, lanes, row)
        axis = log_axis(
            min(*values, 1) if inflation else min(values), max(values), "×" if inflation else ""
        )
        title = (
            "inflation: norm ÷ mean norm of the vocabulary"
            if inflation
            else "norm, embedding units (no reference)"
        )
        figure.update_xaxes(title=title, **axis, row=row, col=1)
        if inflation:
            figure.add_vline(1, line={"color": INK, "width": 1, "dash": "dash"}, row=row, col=1)
    return figure


def inflation_finding(files: Sequence[InspectedFile]) -> str:
    """One sentence: how many vectors are inflated, and the worst of them."""
    vectors = [one for file in files for one in file.vectors]
    ratios = [(one.inflation, one) for one in vectors if one.inflation is not None]
    found = (
        f"{len(files)} files hold {number(len(vectors))} vectors"
        if len(files) > 1
        else f"The file holds {_count(vectors)}"
    )
    if not ratios:
        norms = [one.norm for one in vectors]
        return f"{found} with norms from {number(min(norms))} to {number(max(norms))}, and no reference for their width."
    top, vector = max(ratios, key=lambda pair: pair[0])
    name, size = (
        quoted(vector.token),
        f"has norm {number(vector.norm)}, {times(top)} the mean token",
    )
    if len(ratios) == 1:
        return f"{found}; {name} {size}."
    over_two = sum(ratio > 2 for ratio, _ in ratios)
    return (
        f"{found}; {number(over_two)} of the {number(len(ratios))} with a reference are longer than twice the mean "
        f"token; the most inflated, {name}, {size}."
    )


def _trajectory(
    folder: str, token: str, tower: str | None, by_step: dict[int, list[InspectedVector]]
) -> Trajectory:
    steps = sorted(by_step)
    example = by_step[steps[-1]][0]
    return Trajectory(
        token=token,
        folder=folder,
        tower=tower,
        steps=tuple(steps),
        norms=tuple(fmean(one.norm for one in by_step[step]) for step in steps),
        reference_norm=example.norm / example.inflation if example.inflation else None,
        reference=example.reference,
        turns=_turns([by_step[step] for step in steps]),
    )


def _turns(checkpoints: Sequence[Sequence[InspectedVector]]) -> tuple[float, ...]:
    """The mean turn of each checkpoint; nothing where one of the later ones was not measured."""
    later = [[one.turn.from_first for one in vectors if one.turn] for vectors in checkpoints[1:]]
    return (0.0, *map(fmean, later)) if all(later) else ()


def _over_reference(trajectory: Trajectory, norm: float) -> list[str]:
    return (
        [f"{times(norm / trajectory.reference_norm)} the mean"] if trajectory.reference_norm else []
    )


def _lanes(files: Sequence[InspectedFile], *, referenced: bool) -> list[Lane]:
    """One lane per token and folder, the largest value first."""
    groups: dict[tuple[str, str, int], list[tuple[float, str]]] = defaultdict(list)
    for file in files:
        for one in file.vectors:
            value = one.inflation if referenced else one.norm
            if (
                one.inflation is not None
            ) == referenced and value:  # a zero vector has no place on a log axis
                groups[one.token, str(PurePath(file.path).parent), one.dim].append(
                    (value, _hover(file, one))
                )
    largest_first = sorted(groups.items(), key=lambda group: -max(group[1])[0])
    lanes = [
        Lane(
            f"{plot_text(token, 18)} {spread([value for value, _ in points], '×' if referenced else '')}",
            tuple(value for value, _ in points),
            tuple(text for _, text in points),
            VERMILLION if referenced else BLUE,
        )
        for (token, _, _), points in largest_first
    ]
    return few(lanes)


def _hover(file: InspectedFile, one: InspectedVector) -> str:
    return hover(
        f"<b>{plot_text(one.token)}</b>",
        f"vector {one.index} of {plot_text(short_path(file.path), 32)}",
        *([f"step {number(file.step)}"] if file.step is not None else []),
        f"norm {number(one.norm)}",
        *(
            [f"{times(one.inflation)}: {plot_text(one.reference or '')}"]
            if one.inflation is not None
            else []
        ),
    )


def _count(vectors: Sequence[InspectedVector]) -> str:
    return "1 vector" if len(vectors) == 1 else f"{number(len(vectors))} vectors"
