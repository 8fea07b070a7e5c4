"""The training section: loss and geometry of runs over their updates, previews, nearest words."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dti_geom.geometry import NormSummary
from dti_geom.probes import Norms
from dti_geom.reporting.plots import BLUE, GREEN, INK, MUTED, VERMILLION, hover, log_axis, rows_of
from dti_geom.reporting.text import degrees, number, plot_text, quoted, short_path, times
from dti_geom.training import LearnedVectorResult, TrainingRun
from dti_geom.training.story import LossCurve, MeanLoss, Picture, VectorCurve

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_COLORS = (BLUE, VERMILLION, GREEN, INK, MUTED)
_DASHES = {"solid": "━", "dot": "···", "dash": "╌╌", "dashdot": "━·"}  # and how the key writes them
_CHARACTER, _KEY_ROW, _KEY_WIDTH = (
    6.8,
    18,
    270,
)  # pixels: of the key's 12-pixel type, and what a telephone has room for
_WIDE = 4  # longest norm over shortest from which the norm's axis is logarithmic
_NOISE = 2  # standard errors that a loss must move to be said to move


@dataclass(frozen=True)
class Strip:
    """The previews of one prompt: a row for each seed, a column for each step."""

    prompt: str
    steps: tuple[int, ...]
    rows: tuple[
        tuple[int, tuple[Picture | None, ...]], ...
    ]  # seed, and its pictures; None where one is gone


@dataclass(frozen=True)
class _Line:
    """One vector of one run, and how it is drawn everywhere."""

    run: TrainingRun
    vector: VectorCurve
    name: str
    color: str
    dash: str


def course_figure(runs: Sequence[TrainingRun], norms: Norms | None = None) -> "Figure":
    """Loss, norm, angle to the start and cosine to the prior over the updates, all runs in each row.

    The norm has a row for each token table, with its mean and, where `norms` are of the run's model, its whole range.
    """
    lines = _lines(runs)
    tables = list(dict.fromkeys((one.run.result.config.model, one.vector.tower) for one in lines))
    figure = rows_of([240, *[200] * len(tables), 180, 180], left=64)
    _add_losses(figure, lines)
    for row, (model, tower) in enumerate(tables, start=2):
        drawn = [
            one
            for one in lines
            if (one.run.result.config.model, one.vector.tower) == (model, tower)
        ]
        _add_norms(figure, row, drawn, _summary(norms, model, tower))
        title = "norm" if len(tables) == 1 else f"norm, {plot_text(tower, 16)}"
        figure.update_yaxes(title=title, row=row, col=1)
    angles, cosines = len(tables) + 2, len(tables) + 3
    _add_vectors(
        figure,
        angles,
        lines,
        lambda one: [math.degrees(each) for each in one.angles_to_start],
        "{}°",
    )
    _add_vectors(figure, cosines, lines, lambda one: one.cosines_to_prior, "cosine to the prior {}")
    figure.update_yaxes(title="angle to start, °", rangemode="tozero", row=angles, col=1)
    figure.update_yaxes(title="cosine to prior", row=cosines, col=1)
    figure.update_xaxes(title="update", row=cosines, col=1)
    _add_key(figure, lines)
    return figure


def pace_figure(runs: Sequence[TrainingRun]) -> "Figure":
    """Learning rate, gradient norm and time of the updates, all runs in each row."""
    lines = _lines(runs)
    figure = rows_of([150, 180, 180], left=64)
    _add_vectors(figure, 2, lines, lambda one: one.gradient_norms, "gradient norm {}")
    for run in runs:
        first = _first(lines, run)
        _add_line(figure, 1, first, run.learning_rates, "learning rate {}")
        _add_line(figure, 3, first, [1000 * each for each in run.seconds], "{} ms")
    for row, title in enumerate(("learning rate", "gradient norm"), start=1):
        figure.update_yaxes(title=title, rangemode="tozero", row=row, col=1)
    milliseconds = [1000 * each for run in runs for each in run.seconds]
    # Logarithmic, since the first update and a busy machine's can take many times the usual.
    figure.update_yaxes(
        title="milliseconds", **log_axis(min(milliseconds), max(milliseconds)), row=3, col=1
    )
    figure.update_xaxes(title="update", row=3, col=1)
    _add_key(figure, lines)
    return figure


def training_finding(run: TrainingRun) -> str:
    """Where the vectors ended, what the loss did, and how long it took."""
    result = run.result
    top = max(result.vectors, key=lambda one: one.inflation)
    who = quoted(top.token)
    if len(result.vectors) > 1:
        who = f"the longest of {len(result.vectors)} vectors, one of {who},"
    return (
        f"{quoted(short_path(run.folder))}, {result.config.method.name} on {quoted(short_path(result.config.model))}: "
        f"after {number(result.steps)} updates {who} has norm {number(top.norm)}, {times(top.inflation)} the mean "
        f"token, and has turned {degrees(top.angle_to_start)} from its start. {_loss_finding(run)} An update takes "
        f"{duration(result.seconds_per_step)} (median), all of them {duration(result.seconds)}."
    )


def strips(run: TrainingRun) -> list[Strip]:
    """The previews of a run as strips, prompt by prompt."""
    found = []
    for prompt in dict.fromkeys(one.preview.prompt for one in run.pictures):
        shown = {
            (one.preview.seed, one.preview.step): one
            for one in run.pictures
            if one.preview.prompt == prompt
        }
        steps = tuple(sorted({step for _, step in shown}))
        seeds = dict.fromkeys(seed for seed, _ in shown)
        rows = tuple((seed, tuple(shown.get((seed, step)) for step in steps)) for seed in seeds)
        found.append(Strip(prompt, steps, rows))
    return found


def without_pictures(runs: Iterable[TrainingRun]) -> tuple[TrainingRun, ...]:
    """The runs' figures alone: the page holds each picture once, as an image."""
    return tuple(replace(run, pictures=()) for run in runs)


def duration(seconds: float) -> str:
    """A time as 95.4 ms, 12.3 s or 7.05 min, with a space that does not break."""
    if seconds < 1:
        return f"{number(1000 * seconds, 3)}\u00a0ms"
    return (
        f"{number(seconds, 3)}\u00a0s" if seconds < 120 else f"{number(seconds / 60, 3)}\u00a0min"
    )


def _lines(runs: Sequence[TrainingRun]) -> list[_Line]:
    lines: list[_Line] = []
    for run in runs:
        for vector in run.vectors:
            place = len(lines)
            color, dash = (
                _COLORS[place % len(_COLORS)],
                list(_DASHES)[place // len(_COLORS) % len(_DASHES)],
            )
            lines.append(_Line(run, vector, _vector_name(run, vector, runs), color, dash))
    return lines


def _run_name(run: TrainingRun, runs: Sequence[TrainingRun]) -> str:
    method = run.result.config.method.name
    same = [one for one in runs if one.result.config.method.name == method]
    name = plot_text(method, 24)
    return name if len(same) == 1 else f"{name}, {plot_text(short_path(run.folder), 24)}"


def _vector_name(run: TrainingRun, vector: VectorCurve, runs: Sequence[TrainingRun]) -> str:
    """As much as tells this vector from the others drawn beside it."""
    parts = [] if len(runs) == 1 else [_run_name(run, runs)]
    same = [one for one in run.vectors if one.token == vector.token]
    if len(same) < len(run.vectors) or len(runs) == 1:
        parts.append(plot_text(vector.token, 16))
    if any(one.tower != vector.tower for one in same):
        parts.append(plot_text(vector.tower, 16))
    if any(one.index for one in same):
        parts.append(f"[{vector.index}]")
    return " ".join(parts)


def _add_losses(figure: "Figure", lines: Sequence[_Line]) -> None:
    """The losses of each token, in the look of its first vector."""
    for one in lines:
        loss = next(each for each in one.run.losses if each.token == one.vector.token)
        if one is _first(lines, one.run, loss.token):
            _add_line(figure, 1, one, loss.losses, "loss {}", opacity=0.25)
            _add_line(figure, 1, one, loss.medians, "running median {}")
    figure.update_yaxes(title="loss", row=1, col=1)


def _first(lines: Sequence[_Line], run: TrainingRun, token: str | None = None) -> _Line:
    return next(one for one in lines if one.run is run and token in (None, one.vector.token))


def _add_norms(
    figure: "Figure", row: int, lines: Sequence[_Line], summary: NormSummary | None
) -> None:
    _add_vectors(figure, row, lines, lambda one: one.norms, "norm {}")
    values = [norm for one in lines for norm in one.vector.norms]
    mean = summary.mean if summary else _mean_token(lines)
    if summary:
        band = {"fillcolor": MUTED, "opacity": 0.15, "line": {"width": 0}, "layer": "below"}
        figure.add_hrect(y0=summary.min, y1=summary.max, row=row, col=1, **band)
        values += [summary.min, summary.max]
    if mean:
        figure.add_hline(mean, line={"color": INK, "width": 1, "dash": "dash"}, row=row, col=1)
        values.append(mean)
    low, high = min(values), max(values)
    if 0 < low * _WIDE < high:
        figure.update_yaxes(**log_axis(low, high), row=row, col=1)
    else:
        spare = 0.08 * (high - low) or 0.05 * high
        figure.update_yaxes(range=[low - spare, high + spare], row=row, col=1)


def _add_vectors(
    figure: "Figure",
    row: int,
    lines: Iterable[_Line],
    values: Callable[[VectorCurve], Sequence[float]],
    what: str,
) -> None:
    for one in lines:
        _add_line(figure, row, one, values(one.vector), what)


def _add_line(
    figure: "Figure",
    row: int,
    line: _Line,
    values: Sequence[float],
    what: str,
    opacity: float = 1.0,
) -> None:
    texts = [
        hover(f"{line.name}, update {number(step)}", what.format(number(value)))
        for step, value in zip(line.run.steps, values, strict=True)
    ]
    figure.add_scatter(
        x=line.run.steps,
        y=values,
        name=line.name,
        mode="lines",
        line={"color": line.color, "width": 1.5, "dash": line.dash},
        opacity=opacity,
        hovertext=texts,
        hovertemplate="%{hovertext}<extra></extra>",
        row=row,
        col=1,
    )


def _add_key(figure: "Figure", lines: Sequence[_Line]) -> None:
    """Name the lines above the figure, in their colours, broken into rows that fit a telephone."""
    rows: list[list[tuple[float, _Line]]] = [[]]
    start = 0.0
    for one in lines:
        wide = _CHARACTER * (len(one.name) + 5)
        if rows[-1] and start + wide > _KEY_WIDTH:
            rows.append([])
            start = 0.0
        rows[-1].append((start, one))
        start += wide
    taller = _KEY_ROW * len(rows)
    figure.update_layout(
        height=figure.layout.height + taller, margin={"t": figure.layout.margin.t + taller}
    )
    for place, row in enumerate(reversed(rows)):
        for start, one in row:
            figure.add_annotation(
                name=one.name,
                captureevents=True,
                text=f"{_DASHES[one.dash]} {one.name}",
                x=0,
                xref="paper",
                xanchor="left",
                xshift=start,
                y=1,
                yref="paper",
                yanchor="bottom",
                yshift=_KEY_ROW * place + 6,
                showarrow=False,
                font={"color": one.color, "size": 12},
            )


def _summary(norms: Norms | None, model: str, tower: str) -> NormSummary | None:
    if norms is None or norms.model != model:
        return None
    return next((one.norms for one in norms.encoders if one.name == tower), None)


def _mean_token(lines: Sequence[_Line]) -> float | None:
    """The mean norm of the table these vectors are held against, which each result implies."""
    ends = [one for line in lines for one in line.run.result.vectors if _is_end(one, line.vector)]
    return next((one.norm / one.inflation for one in ends if one.inflation), None)


def _is_end(end: LearnedVectorResult, vector: VectorCurve) -> bool:
    return (end.token, end.tower, end.index) == (vector.token, vector.tower, vector.index)


def _loss_finding(run: TrainingRun) -> str:
    if len(run.losses) == 1:
        (loss,) = run.losses
        return f"The loss {_movement(loss)}."
    return " ".join(f"The loss of {quoted(loss.token)} {_movement(loss)}." for loss in run.losses)


def _movement(loss: LossCurve) -> str:
    """What the mean loss did from the first to the last tenth, as far as its noise lets one say."""
    first, last = loss.first, loss.last
    before, after = _with_error(first), _with_error(last)
    moved = last.mean - first.mean
    if (
        first.error is None
        or last.error is None
        or abs(moved) <= _NOISE * math.hypot(first.error, last.error)
    ):
        return f"does not move beyond its noise: {before} in the first tenth of the updates, {after} in the last"
    verb = "falls" if moved < 0 else "rises"
    return f"{verb} from {before} in the first tenth of the updates to {after} in the last"


def _with_error(loss: MeanLoss) -> str:
    """The mean to the second digit of its standard error."""
    if not loss.error:
        return number(loss.mean)
    decimals = max(0, 1 - math.floor(math.log10(loss.error)))
    return f"{loss.mean:.{decimals}f} ± {loss.error:.{decimals}f}"
