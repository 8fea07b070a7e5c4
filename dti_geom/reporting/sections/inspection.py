"""The inspection section: how inflated learned tokens are, and how norms grow in training."""

import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import PurePath
from statistics import fmean, median
from typing import TYPE_CHECKING

from dti_geom.geometry.inflation import implied_rate
from dti_geom.probes.inspection import (
    InspectedFile,
    InspectedVector,
    Inspection,
    encoder_of,
    verdict_of,
)
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
_TOKEN_COLUMNS = (
    Column("token", kind="token"),
    Column("encoder", kind="text"),
    Column("vectors", kind="text"),
    Column("longest", "×", digits=3),
    Column("typical", "×", digits=3),
    Column("verdict", kind="text"),
    Column("file", kind="path"),
)
_COURSE_COLUMNS = (
    Column("token", kind="token"),
    Column("checkpoints"),
    Column("first step"),
    Column("last step"),
    Column("first norm"),
    Column("last norm"),
    Column("implied rate", digits=3),
    Column("folder", kind="path"),
)
_TYPE_COLUMNS = (
    Column("tool", kind="text"),
    Column("type", kind="token"),
    Column("remark", kind="sentence"),
    Column("file", kind="path"),
)
_DUPLICATE_COLUMNS = (
    Column("token", kind="token"),
    Column("other", kind="token"),
    Column("largest cosine"),
    Column("pairs of vectors"),
    Column("file", kind="path"),
    Column("other file", kind="path"),
)
_LIMITS = Limits(
    "Whether a token is any good: nothing was painted. An inflation over a published mean is that "
    "of the model the mean was published for."
)
_FEW = 8  # files whose advice a terminal has room for
_MOST_SECTIONS = 12  # runs with a section of their own on the page
_MOST_ROWS = 500  # vectors that the page lists
_VERDICTS = ("broken", "inflated", "short", "plain", "unknown", "in distribution")
_SAID = {"plain": "plain vocabulary", "unknown": "not judged"}
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


@dataclass(frozen=True)
class TokenRow:
    """One token of a file, or of all checkpoints of a run."""

    token: str
    encoders: str
    vectors: str  # how many, for each encoder
    longest: float | None  # inflation; of a run, at its last checkpoint
    typical: float | None
    verdict: str
    path: str
    checkpoints: int = 1


def inspection_section(result: Inspection) -> Section:
    """Show what is in embedding files, how inflated they are, and what to do about it."""
    files = ordered(result.files)
    courses = trajectories(files)
    blocks: list[Block] = [
        Finding(inflation_finding(files)),
        Figure(
            lambda: inflation_figure(files),
            "One point per vector. Inflation is its L2 norm divided by the mean norm of the token "
            "table it is compared with; a width without such a mean has no inflation. Dashed: the "
            "mean token.",
        ),
    ]
    if sum(file.step is not None for file in files) > 1:
        blocks.append(
            Figure(
                lambda: steps_figure(files),
                "One point per file that tells its training step: the inflation of its longest "
                "vector. Lines join the checkpoints of a run.",
            )
        )
    blocks += map(_trajectory_section, courses[:_MOST_SECTIONS])
    blocks.append(_token_table(files))
    blocks += _tables(
        ("While training", _COURSE_COLUMNS, _course_rows(courses)),
        ("What to do", _ADVICE_COLUMNS, _advice_rows(files)),
        ("What to type", _TYPE_COLUMNS, _type_rows(files)),
        ("Near-duplicates across files", _DUPLICATE_COLUMNS, _duplicate_rows(result)),
        ("Vectors", _VECTOR_COLUMNS, _vector_rows(files)[:_MOST_ROWS]),
        ("Among the tokens", _PLACE_COLUMNS, _place_rows(files)[:_MOST_ROWS]),
        ("Turn while training", _TURN_COLUMNS, _turn_rows(files)[:_MOST_ROWS]),
        ("Widths", _WIDTH_COLUMNS, _width_rows(files)),
    )
    if sum(len(file.vectors) for file in files) > _MOST_ROWS:
        blocks.append(
            Note(
                f"Tables of vectors end after {number(_MOST_ROWS)} rows, and the download has the "
                "longest vector of each file; inspection.json has all."
            )
        )
    blocks.append(_LIMITS)
    return Section(title="Embedding files", aside=_aside(files), blocks=blocks)


def inspection_data(result: Inspection) -> Inspection:
    """Return what the page offers for download: of many vectors, the longest of each file alone."""
    if sum(len(file.vectors) for file in result.files) <= _MOST_ROWS:
        return result
    longest = [max(file.vectors, key=lambda vector: vector.norm) for file in result.files]
    files = zip(result.files, longest, strict=True)
    return replace(result, files=tuple(replace(file, vectors=(one,)) for file, one in files))


def listing_section(
    result: Inspection, *, rows: int | None = 20, vectors: bool = False, command: str = ""
) -> Section:
    """Show one line for each token, the most inflated first: what a terminal has room for.

    rows: how many tokens to list; None lists all. vectors: also list every vector. command: one
    that rescales all that is inflated.
    """
    files = ordered(result.files)
    folder = common_folder(files)
    table = _token_table(files, folder)
    left = max(0, len(table.rows) - rows) if rows is not None else 0
    blocks: list[Block] = [Finding(inflation_finding(files)), Finding(verdict_finding(files))]
    few_files = len(files) <= _FEW
    if folder:
        blocks.append(Note(f"Files below {folder}"))
    blocks.append(replace(table, rows=table.rows[: len(table.rows) - left]))
    if left:
        blocks.append(Note(f"{_count(left, 'more token')}, less inflated: --all lists them."))
    courses = trajectories(files)
    blocks += _tables(
        ("While training", _COURSE_COLUMNS, _course_rows(courses)[:rows]),
        ("What to do", _ADVICE_COLUMNS, _advice_rows(files) if few_files else []),
        ("What to type", _TYPE_COLUMNS, _type_rows(files) if few_files else []),
        ("Near-duplicates across files", _DUPLICATE_COLUMNS, _duplicate_rows(result)[:_FEW]),
    )
    if len(courses) == 1:
        blocks += [Finding(trajectory_finding(courses[0])), Finding(rate_finding(courses[0]))]
    if vectors:
        blocks += _tables(
            ("Vectors", _VECTOR_COLUMNS, _vector_rows(files)),
            ("Among the tokens", _PLACE_COLUMNS, _place_rows(files)),
            ("Turn while training", _TURN_COLUMNS, _turn_rows(files)),
            ("Widths", _WIDTH_COLUMNS, _width_rows(files)),
        )
    if not few_files:
        blocks.append(Note("Name a file alone to see what to do with it and what to type."))
    if command and any(file.verdict == "inflated" for file in files):
        blocks.append(Finding(f"To rescale all that is inflated: `{command}`"))
    blocks.append(_LIMITS)
    return Section(title="Embedding files", aside=_aside(files), blocks=blocks)


def token_rows(files: Sequence[InspectedFile]) -> list[TokenRow]:
    """Return a row for each token of each file, and one for each run; the most inflated first."""
    of_runs = {(course.folder, course.token) for course in trajectories(files)}
    groups: dict[tuple[str, str], dict[str, list[InspectedVector]]] = defaultdict(dict)
    # In the order of steps, so that the last of a run is its last checkpoint.
    for file, vector in _every(ordered(files)):
        run = str(PurePath(file.path).parent), vector.token
        place = run if file.step is not None and run in of_runs else (file.path, vector.token)
        groups[place].setdefault(file.path, []).append(vector)
    rows = [_token_row(token, checkpoints) for (_, token), checkpoints in groups.items()]
    return sorted(rows, key=lambda row: (-(row.longest or 0), row.path, row.token))


def _token_row(token: str, checkpoints: dict[str, list[InspectedVector]]) -> TokenRow:
    path, vectors = list(checkpoints.items())[-1]
    counts: dict[str, int] = defaultdict(int)
    for vector in vectors:
        counts[encoder_of(vector)] += 1
    ratios = [vector.inflation for vector in vectors if vector.inflation is not None]
    return TokenRow(
        token=token,
        encoders=" + ".join(counts),
        vectors=" + ".join(map(str, counts.values())),
        longest=max(ratios, default=None),
        typical=median(ratios) if ratios else None,
        verdict=verdict_of(vectors),
        path=path,
        checkpoints=len(checkpoints),
    )


def verdict_finding(files: Sequence[InspectedFile]) -> str:
    """Count the tokens of each verdict; a run counts once."""
    rows = token_rows(files)
    counts = Counter(row.verdict for row in rows)
    listed = ", ".join(
        f"{number(counts[verdict])} {_SAID.get(verdict, verdict)}"
        for verdict in _VERDICTS
        if counts[verdict]
    )
    return f"{_count(len(rows), 'token')}: {listed}."


def steps_figure(files: Sequence[InspectedFile]) -> "PlotlyFigure":
    """Draw the inflation of each file's longest vector against its training step."""
    figure = rows_of([280], left=52)
    runs: dict[tuple[str, str], list[tuple[int, float, str]]] = defaultdict(list)
    for file in ordered(files):
        for token in dict.fromkeys(vector.token for vector in file.vectors):
            ratios = [v.inflation for v in file.vectors if v.token == token and v.inflation]
            if file.step is not None and ratios:
                point = (file.step, max(ratios), short_path(file.path))
                runs[str(PurePath(file.path).parent), token].append(point)
    for (_, token), points in runs.items():
        steps, inflations, paths = zip(*points, strict=True)
        figure.add_scatter(
            x=steps,
            y=inflations,
            mode="lines+markers",
            line={"color": BLUE, "width": 1},
            marker={"color": VERMILLION, "size": 6},
            hovertext=[
                hover(f"<b>{plot_text(token)}</b>", plot_text(path, 32), f"step {number(step)}")
                for step, path in zip(steps, paths, strict=True)
            ],
            hovertemplate="%{hovertext}<br>×%{y:.3g}<extra></extra>",
        )
    figure.add_hline(1, line={"color": INK, "width": 1, "dash": "dash"})
    figure.update_xaxes(title="training step")
    figure.update_yaxes(title={"text": "inflation, ×", "standoff": 4})
    return figure


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


def _tables(*parts: tuple[str, Sequence[Column], list[list[Value]]]) -> list[Table]:
    """Return a table of each title, columns and rows that has any rows."""
    return [Table(title, columns, rows) for title, columns, rows in parts if rows]


def _aside(files: Sequence[InspectedFile]) -> str:
    vectors = sum(len(file.vectors) for file in files)
    return f"{_count(len(files), 'file')}, {_count(vectors, 'vector')}"


def common_folder(files: Sequence[InspectedFile]) -> str:
    """Return the folder that several files lie below; empty where there is none."""
    folders = [str(PurePath(file.path).parent) for file in files]
    absolute = {PurePath(folder).is_absolute() for folder in folders}
    if len(files) < 2 or len(absolute) > 1:
        return ""
    folder = os.path.commonpath(folders)
    return "" if folder in ("", "/", ".") else folder


def _token_table(files: Sequence[InspectedFile], folder: str = "") -> Table:
    """List the tokens. folder: paths are shown below it."""
    rows: list[list[Value]] = []
    for row in token_rows(files):
        path = str(PurePath(row.path).relative_to(folder)) if folder else row.path
        if row.checkpoints > 1:
            path = f"{path} and {_count(row.checkpoints - 1, 'earlier checkpoint')}"
        verdict = _SAID.get(row.verdict, row.verdict)
        cells: list[Value] = [
            row.token,
            row.encoders,
            row.vectors,
            row.longest,
            row.typical,
            verdict,
            path,
        ]
        rows.append(cells)
    return Table("Tokens", _TOKEN_COLUMNS, rows)


def _course_rows(courses: Sequence[Trajectory]) -> list[list[Value]]:
    rows: list[list[Value]] = []
    for course in courses:
        implied = implied_rate(course.steps, course.norms, course.width)
        rows.append(
            [
                course.token,
                len(course.steps),
                course.steps[0],
                course.steps[-1],
                course.norms[0],
                course.norms[-1],
                implied.rate if implied and implied.low else None,
                course.folder,
            ]
        )
    return rows


def _advice_rows(files: Sequence[InspectedFile]) -> list[list[Value]]:
    return [[file.path, file.verdict, file.advice] for file in files if file.advice]


def _type_rows(files: Sequence[InspectedFile]) -> list[list[Value]]:
    rows: list[list[Value]] = []
    for file in files:
        for loading in file.tools:
            remark = loading.note or ("" if loading.type else "it does not load this file")
            rows.append([loading.tool, loading.type or None, remark or None, file.path])
    return rows


def _duplicate_rows(result: Inspection) -> list[list[Value]]:
    return [
        [
            pair.token,
            pair.other_token,
            pair.similarity,
            pair.pairs,
            pair.path,
            pair.other_path,
        ]
        for pair in result.duplicates
    ]


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
