"""The training section: curves of runs over their updates, previews, and nearest words."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dti_geom.reporting.blocks import (
    Column,
    Figure,
    Finding,
    Limits,
    Note,
    Picture,
    PictureRow,
    Pictures,
    Section,
    Table,
    Value,
)
from dti_geom.reporting.methods import method_colors
from dti_geom.reporting.plots import INK, MUTED, hover, log_axis, rows_of
from dti_geom.reporting.text import (
    degrees,
    number,
    plot_text,
    quoted,
    short_path,
    shown,
    times,
)
from dti_geom.training.inflation import law_beside
from dti_geom.training.story import (
    LossCurve,
    MeanLoss,
    NearestWords,
    TrainingRun,
    TrainingRuns,
    VectorCurve,
    VocabularyNorms,
)
from dti_geom.training.trainable import LearnedVectorResult

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

_DASHES = {"solid": "━", "dot": "···", "dash": "╌╌", "dashdot": "━·"}  # and their signs in the key
_CHARACTER = 6.8  # pixels: the width of a character of the key's 12-pixel type
_KEY_ROW = 18  # pixels: the height of a row of the key
_KEY_WIDTH = 270  # pixels: what a telephone has room for
_WIDE = 4  # longest norm over shortest from which the norm's axis is logarithmic
_NOISE = 2  # standard errors that a loss must move to be said to move


def training_section(result: TrainingRuns) -> Section:
    """Show curves, previews and nearest words of finished runs."""
    runs = result.runs
    return Section(
        title="Training runs",
        aside=result.model,
        blocks=[
            *(Finding(training_finding(run)) for run in runs),
            *_inflation_findings(result),
            Figure(
                lambda: course_figure(result),
                _course_caption(runs),
                "Loss, norm, angle to the start and cosine to the prior against updates",
            ),
            Table("Where the vectors ended", _end_columns(runs), _end_rows(runs)),
            Figure(
                lambda: pace_figure(result),
                _PACE_CAPTION,
                "Learning rate, gradient norm and time against updates",
                folded="Learning rate, gradient and time",
            ),
            *_adapter_figures(result),
            *(_run_section(run) for run in runs),
            Limits(
                "Which method paints better: the loss is that of a few images under random noise, "
                "and compares poorly between methods. Each line is one run of one seed."
            ),
        ],
    )


def training_data(result: TrainingRuns) -> TrainingRuns:
    """Return the runs without their pictures."""
    bare = (replace(run, pictures=(), references=()) for run in result.runs)
    return replace(result, runs=tuple(bare))


def course_figure(result: TrainingRuns) -> "PlotlyFigure":
    """Draw loss, norm, angle to the start and cosine to the prior against updates, for all runs.

    Each token table has a norm row of its own, with its mean norm and, where the vocabulary was
    measured, the range from its shortest to its longest token.
    """
    lines = _lines(result.runs)
    tables = list(dict.fromkeys((line.model, line.vector.tower) for line in lines))
    figure = rows_of([240, *[200] * len(tables), 180, 180], left=64)
    _add_losses(figure, lines)
    for row, (model, tower) in enumerate(tables, start=2):
        of_table = [line for line in lines if (line.model, line.vector.tower) == (model, tower)]
        laws = [_law(result, line.run, line.vector) for line in of_table]
        _add_norms(figure, row, of_table, laws, _vocabulary(result, model, tower))
        title = "norm" if len(tables) == 1 else f"norm, {plot_text(tower, 16)}"
        figure.update_yaxes(title=title, row=row, col=1)
    angle_row, cosine_row = len(tables) + 2, len(tables) + 3
    _add_vectors(figure, angle_row, lines, _angles_in_degrees, "{}°")
    _add_vectors(
        figure, cosine_row, lines, lambda vector: vector.cosines_to_prior, "cosine to the prior {}"
    )
    figure.update_yaxes(title="angle to start, °", rangemode="tozero", row=angle_row, col=1)
    figure.update_yaxes(title="cosine to prior", row=cosine_row, col=1)
    figure.update_xaxes(title="update", row=cosine_row, col=1)
    _add_key(figure, lines)
    return figure


def pace_figure(result: TrainingRuns) -> "PlotlyFigure":
    """Draw learning rate, gradient norm and time of the updates, for all runs."""
    lines = _lines(result.runs)
    figure = rows_of([150, 180, 180], left=64)
    _add_vectors(figure, 2, lines, lambda vector: vector.gradient_norms, "gradient norm {}")
    milliseconds: list[float] = []
    for run in result.runs:
        line = _first_line(lines, run)
        run_times = [1000 * seconds for seconds in run.seconds]
        milliseconds += run_times
        _add_line(figure, 1, line, run.learning_rates, "learning rate {}")
        _add_line(figure, 3, line, run_times, "{} ms")
    figure.update_yaxes(title="learning rate", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title="gradient norm", rangemode="tozero", row=2, col=1)
    # Logarithmic: the first update, and those on a busy machine, take many times the usual.
    figure.update_yaxes(
        title="milliseconds", **log_axis(min(milliseconds), max(milliseconds)), row=3, col=1
    )
    figure.update_xaxes(title="update", row=3, col=1)
    _add_key(figure, lines)
    return figure


def adapter_figure(result: TrainingRuns) -> "PlotlyFigure":
    """Draw the norm of adapters and of their gradients against updates, for runs that have one."""
    figure = rows_of([180, 180], left=64)
    adapted = tuple(run for run in result.runs if run.adapter)
    lines = _lines(adapted)
    for run in adapted:
        assert run.adapter is not None
        line = _first_line(lines, run)
        _add_line(
            figure, 1, line, [100 * norm for norm in run.adapter.norms], "{} % of the weights"
        )
        _add_line(figure, 2, line, run.adapter.gradient_norms, "gradient norm {}")
    figure.update_yaxes(title="norm, %", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title="gradient norm", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(title="update", row=2, col=1)
    _add_key(figure, lines)
    return figure


def _adapter_figures(result: TrainingRuns) -> list[Figure]:
    if not any(run.adapter for run in result.runs):
        return []
    return [
        Figure(
            lambda: adapter_figure(result),
            "Growth of the adapter: the norm of its change of the denoiser’s layers, in percent of "
            "the norm of the frozen weights there, and the norm of the loss’s gradient in it.",
            "Norm of the adapter and of its gradient against updates",
        )
    ]


def training_finding(run: TrainingRun) -> str:
    """Say where the vectors ended, what the loss did, and how long training took."""
    result = run.result
    longest = max(result.vectors, key=lambda vector: vector.inflation)
    subject = quoted(longest.token)
    if len(result.vectors) > 1:
        subject = f"the longest of {len(result.vectors)} vectors, one of {subject},"
    return (
        f"{quoted(short_path(run.folder))}, {result.config.method.name} on "
        f"{quoted(short_path(result.config.model))}: after {number(result.steps)} updates "
        f"{subject} has norm {number(longest.norm)}, {times(longest.inflation)} the mean token, "
        f"and has turned {degrees(longest.angle_to_start)} from its start. {_loss_finding(run)} "
        f"An update takes {duration(result.seconds_per_step)} (median), all of them "
        f"{duration(result.seconds)}."
    )


def duration(seconds: float) -> str:
    """Write a time as 95.4 ms, 12.3 s or 7.05 min, with a space that does not break."""
    if seconds < 1:
        return f"{number(1000 * seconds, 3)}\u00a0ms"
    if seconds < 120:
        return f"{number(seconds, 3)}\u00a0s"
    return f"{number(seconds / 60, 3)}\u00a0min"


def _inflation_findings(result: TrainingRuns) -> list[Finding]:
    """Compare the longest vector of each free run with what the law of inflation says."""
    findings = []
    for run in result.runs:
        laws = [(_law(result, run, vector), vector) for vector in run.vectors]
        known = [(law[-1], vector) for law, vector in laws if law]
        if known:
            law, vector = max(known, key=lambda pair: pair[1].norms[-1])
            findings.append(
                Finding(
                    f"{quoted(short_path(run.folder))}: the law of inflation gives "
                    f"{quoted(vector.token)} norm {number(law)} at the end; "
                    f"{number(vector.norms[-1])} was measured, {times(vector.norms[-1] / law)} "
                    "the law."
                )
            )
    return findings


def _law(result: TrainingRuns, run: TrainingRun, vector: VectorCurve) -> tuple[float, ...] | None:
    """Return the norms by the law, from the norm after the first update on; None if it is held."""
    config = run.result.config
    vocabulary = _vocabulary(result, config.model, vector.tower)
    if vocabulary is None or vocabulary.width is None:
        return None
    return law_beside(config, vocabulary.width, run.steps, vector.norms)


_PACE_CAPTION = (
    "For methods that move on the sphere, the learning rate is an angle in radians; for the others "
    "it is AdamW’s. The gradient is that of the loss in the method’s own parameters, so its norm "
    "compares within a method only. The time of an update leaves out previews and files."
)


def _course_caption(runs: Sequence[TrainingRun]) -> str:
    windows = " or ".join(dict.fromkeys(str(run.window) for run in runs))
    thinned = "".join(
        f" Of the {number(run.result.steps)} updates of {quoted(short_path(run.folder))}, "
        f"{len(run.steps)} evenly spread ones are drawn."
        for run in runs
        if len(run.steps) < run.result.steps
    )
    return (
        "Faint: the data loss of an update, mean over its batch. Over it: the running median of "
        f"{windows} updates. ±: standard error of the mean loss over a tenth of the updates; a "
        "loss is said to move when it moves by more than two of both together. Norms are in "
        "embedding units. Dashed: the mean token. Shaded, where the vocabulary was measured: from "
        "its shortest token to its longest. Faint and dotted, where a method leaves the norm free: "
        "the law of inflation, from the norm after the first update. Angles are to the vector a "
        f"run started with, cosines to the direction of the class word.{thinned}"
    )


_END_COLUMNS = (
    Column("token", kind="token"),
    Column("tower", kind="token"),
    Column("vector"),
    Column("norm"),
    Column("inflation", "×", digits=3),
    Column("angle to start", "°", digits=3),
    Column("cosine to prior"),
    Column("last loss"),
    Column("nearest words", kind="text"),
)
# With several runs, what tells them apart stands in each row; otherwise it stands beside the title.
_RUN_COLUMNS = (
    Column("method", kind="text"),
    Column("time an update", "ms", digits=3),
    Column("run", kind="path"),
)


def _end_columns(runs: Sequence[TrainingRun]) -> Sequence[Column]:
    return _END_COLUMNS if len(runs) == 1 else (*_END_COLUMNS, *_RUN_COLUMNS)


def _end_rows(runs: Sequence[TrainingRun]) -> list[list[Value]]:
    rows: list[list[Value]] = []
    for run in runs:
        result = run.result
        of_run: list[Value] = []
        if len(runs) > 1:
            of_run = [result.config.method.name, 1000 * result.seconds_per_step, run.folder]
        rows += [[*_end_cells(run, vector), *of_run] for vector in result.vectors]
    return rows


def _end_cells(run: TrainingRun, vector: LearnedVectorResult) -> list[Value]:
    return [
        vector.token,
        vector.tower,
        vector.index,
        vector.norm,
        vector.inflation,
        math.degrees(vector.angle_to_start),
        vector.cosine_to_prior,
        run.result.last_losses[vector.token],
        _word_list(vector.nearest),
    ]


def _run_section(run: TrainingRun) -> Section:
    config = run.result.config
    blocks: list[Note | Pictures | Table] = [*_previews(run)]
    lost = len(run.result.previews) - len(run.pictures)
    if lost:
        total = len(run.result.previews)
        blocks.append(Note(f"{lost} of {total} previews are no longer in the run’s folder."))
    blocks.append(Table("Nearest words by direction, where they changed", *_word_table(run)))
    return Section(
        title=short_path(run.folder),
        aside=f"{shown(config.method.name)}{_adapter_name(run)}, {number(run.result.steps)} "
        f"updates of batch {config.batch_size}, seed {config.seed}",
        blocks=blocks,
    )


def _adapter_name(run: TrainingRun) -> str:
    adapter = run.result.config.adapter
    if adapter is None:
        return ""
    if adapter.kind == "lora":
        return f" with a LoRA of rank {adapter.rank}"
    return f" with an OFT of block size {adapter.block_size}"


def _previews(run: TrainingRun) -> list[Pictures]:
    """Return a grid for each prompt: a row for each seed, a column for each step."""
    grids = []
    for prompt in dict.fromkeys(picture.preview.prompt for picture in run.pictures):
        by_place = {
            (picture.preview.seed, picture.preview.step): picture.uri
            for picture in run.pictures
            if picture.preview.prompt == prompt
        }
        steps = sorted({step for _, step in by_place})
        seeds = dict.fromkeys(seed for seed, _ in by_place)
        rows = [_preview_row(prompt, seed, steps, by_place) for seed in seeds]
        grids.append(Pictures(prompt, [f"update {number(step)}" for step in steps], rows))
    return grids


def _preview_row(
    prompt: str, seed: int, steps: Sequence[int], by_place: dict[tuple[int, int], str]
) -> PictureRow:
    pictures = [
        Picture(
            by_place[seed, step],
            f"{shown(prompt, 200)}, seed {seed}, after {number(step)} updates",
        )
        if (seed, step) in by_place
        else None  # this preview is no longer in the folder
        for step in steps
    ]
    return PictureRow(f"seed {seed}", pictures)


def _word_table(run: TrainingRun) -> tuple[Sequence[Column], list[list[Value]]]:
    columns = [Column("updates", kind="text")]
    several = len(run.vectors) > 1
    if several:
        columns += [Column("token", kind="token"), Column("tower", kind="token"), Column("vector")]
    columns.append(Column("nearest words", kind="text"))
    rows: list[list[Value]] = []
    for stretch in run.words:
        vector: list[Value] = [stretch.token, stretch.tower, stretch.index] if several else []
        rows.append([_updates(stretch), *vector, _word_list(stretch.words)])
    return columns, rows


def _updates(stretch: NearestWords) -> str:
    first = number(stretch.first_step)
    if stretch.last_step == stretch.first_step:
        return first
    return f"{first}–{number(stretch.last_step)}"


def _word_list(words: Iterable[str]) -> str:
    # Isolated, so that a right-to-left word leaves the list in order.
    return ", ".join(f"\u2068{shown(word)}\u2069" for word in words)


@dataclass(frozen=True)
class _Line:
    """One vector of one run, and its look in every row of a figure."""

    run: TrainingRun
    vector: VectorCurve
    name: str
    color: str
    dash: str

    @property
    def model(self) -> str:
        return self.run.result.config.model


def _lines(runs: Sequence[TrainingRun]) -> list[_Line]:
    dashes = list(_DASHES)
    colors = method_colors(run.result.config.method.name for run in runs)
    lines: list[_Line] = []
    for run in runs:
        color = colors[run.result.config.method.name]
        for vector in run.vectors:
            dash = dashes[sum(line.color == color for line in lines) % len(dashes)]
            lines.append(_Line(run, vector, _vector_name(run, vector, runs), color, dash))
    return lines


def _run_name(run: TrainingRun, runs: Sequence[TrainingRun]) -> str:
    method = run.result.config.method.name
    same_method = [other for other in runs if other.result.config.method.name == method]
    name = plot_text(method, 24)
    return name if len(same_method) == 1 else f"{name}, {plot_text(short_path(run.folder), 24)}"


def _vector_name(run: TrainingRun, vector: VectorCurve, runs: Sequence[TrainingRun]) -> str:
    """Return the shortest name that tells a vector from the others in the figure."""
    parts = [] if len(runs) == 1 else [_run_name(run, runs)]
    same_token = [other for other in run.vectors if other.token == vector.token]
    if len(same_token) < len(run.vectors) or len(runs) == 1:
        parts.append(plot_text(vector.token, 16))
    if any(other.tower != vector.tower for other in same_token):
        parts.append(plot_text(vector.tower, 16))
    if any(other.index for other in same_token):
        parts.append(f"[{vector.index}]")
    return " ".join(parts)


def _add_losses(figure: "PlotlyFigure", lines: Sequence[_Line]) -> None:
    """Draw the losses of each token once, in the look of its first vector."""
    for line in lines:
        if line is not _first_line(lines, line.run, line.vector.token):
            continue
        loss = next(loss for loss in line.run.losses if loss.token == line.vector.token)
        _add_line(figure, 1, line, loss.losses, "loss {}", opacity=0.25)
        _add_line(figure, 1, line, loss.medians, "running median {}")
    figure.update_yaxes(title="loss", row=1, col=1)


def _first_line(lines: Sequence[_Line], run: TrainingRun, token: str | None = None) -> _Line:
    return next(line for line in lines if line.run is run and token in (None, line.vector.token))


def _add_norms(
    figure: "PlotlyFigure",
    row: int,
    lines: Sequence[_Line],
    laws: Sequence[tuple[float, ...] | None],
    vocabulary: VocabularyNorms | None,
) -> None:
    """Draw measured norms, those of the law faintly, and the vocabulary's range."""
    _add_vectors(figure, row, lines, lambda vector: vector.norms, "norm {}")
    drawn: list[float] = []
    for line, law in zip(lines, laws, strict=True):
        drawn += line.vector.norms
        if law:
            _add_line(
                figure, row, replace(line, dash="dot"), law, "norm {} by the law", opacity=0.5
            )
            drawn += law
    mean = vocabulary.mean if vocabulary else _mean_token(lines)
    if vocabulary:
        band = {"fillcolor": MUTED, "opacity": 0.15, "line": {"width": 0}, "layer": "below"}
        figure.add_hrect(y0=vocabulary.min, y1=vocabulary.max, row=row, col=1, **band)
        drawn += [vocabulary.min, vocabulary.max]
    if mean:
        figure.add_hline(mean, line={"color": INK, "width": 1, "dash": "dash"}, row=row, col=1)
        drawn.append(mean)
    low, high = min(drawn), max(drawn)
    if 0 < low * _WIDE < high:
        figure.update_yaxes(**log_axis(low, high), row=row, col=1)
    else:
        spare = 0.08 * (high - low) or 0.05 * high
        figure.update_yaxes(range=[low - spare, high + spare], row=row, col=1)


def _angles_in_degrees(vector: VectorCurve) -> list[float]:
    return [math.degrees(angle) for angle in vector.angles_to_start]


def _add_vectors(
    figure: "PlotlyFigure",
    row: int,
    lines: Iterable[_Line],
    values: Callable[[VectorCurve], Sequence[float]],
    text: str,
) -> None:
    for line in lines:
        _add_line(figure, row, line, values(line.vector), text)


def _add_line(
    figure: "PlotlyFigure",
    row: int,
    line: _Line,
    values: Sequence[float],
    text: str,
    opacity: float = 1.0,
) -> None:
    """Add one curve. text: the hover text, with {} for the value."""
    texts = [
        hover(f"{line.name}, update {number(step)}", text.format(number(value)))
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


def _add_key(figure: "PlotlyFigure", lines: Sequence[_Line]) -> None:
    """Name the lines above the figure, in their colours, in rows that fit a telephone."""
    rows: list[list[tuple[float, _Line]]] = [[]]
    start = 0.0
    for line in lines:
        width = _CHARACTER * (len(line.name) + 5)
        if rows[-1] and start + width > _KEY_WIDTH:
            rows.append([])
            start = 0.0
        rows[-1].append((start, line))
        start += width
    taller = _KEY_ROW * len(rows)
    figure.update_layout(
        height=figure.layout.height + taller, margin={"t": figure.layout.margin.t + taller}
    )
    for place, row in enumerate(reversed(rows)):
        for start, line in row:
            figure.add_annotation(
                name=line.name,
                captureevents=True,
                text=f"{_DASHES[line.dash]} {line.name}",
                x=0,
                xref="paper",
                xanchor="left",
                xshift=start,
                y=1,
                yref="paper",
                yanchor="bottom",
                yshift=_KEY_ROW * place + 6,
                showarrow=False,
                font={"color": line.color, "size": 12},
            )


def _vocabulary(result: TrainingRuns, model: str, tower: str) -> VocabularyNorms | None:
    """Return the norms of a tower's token table; None where they were not measured."""
    if result.model != model:  # a run of another model has other tables
        return None
    return next((norms for norms in result.vocabulary or () if norms.tower == tower), None)


def _mean_token(lines: Sequence[_Line]) -> float | None:
    """Return the mean norm of the vectors' token table, which each run's result implies."""
    for line in lines:
        for end in line.run.result.vectors:
            if _is_end(end, line.vector) and end.inflation:
                return end.norm / end.inflation
    return None


def _is_end(end: LearnedVectorResult, vector: VectorCurve) -> bool:
    return (end.token, end.tower, end.index) == (vector.token, vector.tower, vector.index)


def _loss_finding(run: TrainingRun) -> str:
    if len(run.losses) == 1:
        (loss,) = run.losses
        return f"The loss {_movement(loss)}."
    return " ".join(f"The loss of {quoted(loss.token)} {_movement(loss)}." for loss in run.losses)


def _movement(loss: LossCurve) -> str:
    """Say how the mean loss changed from the first to the last tenth, if by more than its noise."""
    first, last = loss.first, loss.last
    before, after = _with_error(first), _with_error(last)
    moved = last.mean - first.mean
    if (
        first.error is None
        or last.error is None
        or abs(moved) <= _NOISE * math.hypot(first.error, last.error)
    ):
        return (
            f"does not move beyond its noise: {before} in the first tenth of the updates, {after} "
            "in the last"
        )
    verb = "falls" if moved < 0 else "rises"
    return f"{verb} from {before} in the first tenth of the updates to {after} in the last"


def _with_error(loss: MeanLoss) -> str:
    """Write the mean to the second digit of its standard error."""
    if not loss.error:
        return number(loss.mean)
    decimals = max(0, 1 - math.floor(math.log10(loss.error)))
    return f"{loss.mean:.{decimals}f} ± {loss.error:.{decimals}f}"
