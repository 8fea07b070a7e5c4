"""The sweep section: what each method scores, and how that relates to the norm."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from dti_geom.evaluation.evaluation import ALL, Difference, Summary
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
from dti_geom.reporting.curves import add_keys
from dti_geom.reporting.methods import COLORS, method_colors
from dti_geom.reporting.plots import (
    BLUE,
    PAPER,
    Lane,
    add_lanes,
    hover,
    lanes_height,
    log_axis,
    rows_of,
)
from dti_geom.reporting.sections.evaluation import (
    CORRECTION,
    INTERVAL,
    TEXT_BY_CHECKS,
    accuracy_tables,
    ceiling_notes,
    ceiling_tables,
    check_tables,
    difference_cells,
    difference_columns,
    has_ceilings,
    has_p,
    interval_cells,
    interval_text,
    score_text,
    summary_cells,
    summary_columns,
)
from dti_geom.reporting.text import number, plot_text, quoted, shown, times
from dti_geom.statistics import FEW_SUBJECTS, LEVEL, Interval, rank_correlation
from dti_geom.sweeps.estimates import Estimate
from dti_geom.sweeps.sweep import DONE, CellState, Course, Sweep, state_counts

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

_SYMBOLS = ("circle", "diamond", "square", "cross")
CELLS_SHOWN = 200  # rows of a table that people still read, and a terminal prints at once


def sweep_section(result: Sweep) -> Section:
    """Show the scores of each method, their paired differences, and their cost."""
    finding = methods_finding(result)
    caption = _CAPTION if subjects_of(result) >= FEW_SUBJECTS else _CAPTION_OF_FEW
    blocks: list[Block] = [
        Finding(finding),
        Note(_measured(result)),
        *_too_few(result),
        *ceiling_notes(result),
        Figure(lambda: scores_figure(result), caption, finding),
        _score_table(result),
        *_group_tables(result),
        *check_tables(result.checks),
        *_difference_blocks(result),
    ]
    if result.courses:
        blocks.append(_norm_section(result))
    blocks += [
        Table("Cost", _COST_COLUMNS, _cost_rows(result)),
        Note(
            "Cost: median over cells, for one concept, on whatever machines computed them and "
            "whatever else ran there."
        ),
        *ceiling_tables(result.ceilings),
        *accuracy_tables(result.accuracy),
        Limits(
            "How a method would do at another setting than the sweep gave it, on other subjects, "
            "or in the eyes of people: both scores are those of networks."
        ),
    ]
    done = sum(cell.state == DONE for cell in result.cells)
    return Section(
        title="Methods against one another",
        aside=f"{result.model}, {done} of {len(result.cells)} cells",
        blocks=blocks,
    )


def cells_section(states: Sequence[CellState], estimate: Estimate | None = None) -> Section:
    """Show where the cells of a sweep stand and, with an estimate, what is left to compute."""
    blocks: list[Block] = []
    if estimate is not None:
        blocks.append(
            Finding(
                f"{estimate.cells} of {len(states)} cells are left: {estimate.trainings} "
                f"trainings of a concept, about {estimate.pictures} pictures."
            )
        )
        blocks.append(
            Finding(
                f"They take about {estimate.seconds / 3600:.2g} hours of one worker and "
                f"{estimate.bytes / 1e9:.2g} GB, by {estimate.source}."
            )
        )
    rows = [
        [state.state, state.seed, state.label, " ".join(state.subjects), _minutes(state)]
        for state in states[:CELLS_SHOWN]
    ]
    blocks.append(Table("", _CELL_COLUMNS, rows))
    if len(states) > CELLS_SHOWN:
        more = states[CELLS_SHOWN:]
        blocks.append(Note(f"And {len(more)} more: {state_counts(more)}. --json lists all cells."))
    return Section("Cells", blocks)


def scores_figure(sweep: Sweep) -> "PlotlyFigure":
    """Draw every method's mean over all prompts with its interval: subject above, text below."""
    summaries = overall_summaries(sweep)
    subjects = [summary.subject for summary in summaries]
    texts = [summary.text for summary in summaries]
    height = lanes_height([_lane(summary, summary.subject) for summary in summaries])
    figure = rows_of([height, height])
    for row, intervals in ((1, subjects), (2, texts)):
        lanes = [
            _lane(summary, interval) for summary, interval in zip(summaries, intervals, strict=True)
        ]
        add_lanes(figure, lanes, row)
        traces = figure.data[-len(summaries) :]
        for trace, interval in zip(traces, intervals, strict=True):
            if interval.low is not None and interval.high is not None:
                trace.error_x = {
                    "array": [interval.high - interval.mean],
                    "arrayminus": [interval.mean - interval.low],
                    "color": BLUE,
                    "thickness": 2,
                    "width": 5,
                }
    figure.update_xaxes(title="subject: cosine to references", row=1, col=1)
    figure.update_xaxes(title=f"text: {plot_text(sweep.text_unit)}", row=2, col=1)
    return figure


def norm_scores_figure(sweep: Sweep) -> "PlotlyFigure":
    """Draw the norm of every learned token against its text score; checkpoints are faint."""
    figure = rows_of([360], left=56)
    last_step: dict[tuple[str, str, int], int] = {}
    for course in sweep.courses:
        token = (course.label, course.subject, course.seed)
        last_step[token] = max(course.step, last_step.get(token, course.step))
    labels = list(dict.fromkeys(course.label for course in sweep.courses))
    colors = method_colors(labels)
    for place, label in enumerate(labels):
        courses = [course for course in sweep.courses if course.label == label]
        color = colors[label]
        ended = [
            course.step == last_step[course.label, course.subject, course.seed]
            for course in courses
        ]
        figure.add_scatter(
            name=plot_text(label),
            showlegend=True,
            x=[course.inflation for course in courses],
            y=[course.text_score for course in courses],
            mode="markers",
            line={"color": color},
            marker={
                "color": color,
                "size": [8 if end else 6 for end in ended],
                "opacity": [0.8 if end else 0.35 for end in ended],
                "symbol": _SYMBOLS[place // COLORS % len(_SYMBOLS)],
                "line": {"color": PAPER, "width": 0.5},
            },
            hovertext=[_course_text(course) for course in courses],
            hovertemplate="%{hovertext}<extra></extra>",
            row=1,
            col=1,
        )
    inflations = [course.inflation for course in sweep.courses]
    figure.update_xaxes(
        title="norm ÷ mean norm of the vocabulary",
        **log_axis(min(inflations), max(inflations), "×"),
    )
    figure.update_yaxes(title={"text": f"text: {plot_text(sweep.text_unit)}", "standoff": 4})
    add_keys(figure, (1,))
    return figure


def methods_finding(sweep: Sweep) -> str:
    """Say which method has the best mean in each score, and how many differences are clear."""
    summaries = overall_summaries(sweep)
    subject = max(summaries, key=lambda summary: summary.subject.mean)
    text = max(summaries, key=lambda summary: summary.text.mean)
    sentence = (
        f"{shown(subject.method, 40)} looks most like its subject, "
        f"{_score_and_interval(subject.subject)}, and "
        f"{shown(text.method, 40)} follows prompts best, {_score_and_interval(text.text)}"
    )
    pairs = overall_differences(sweep)
    if not has_p(pairs):
        return f"{sentence}."
    clear_subject = sum(is_clear(pair.subject_p) for pair in pairs)
    clear_text = sum(is_clear(pair.text_p) for pair in pairs)
    return (
        f"{sentence}; of {number(len(pairs))} pairs of methods, {number(clear_subject)} differ in "
        f"subject and {number(clear_text)} in text, with p < {1 - LEVEL:.2f} after Holm’s "
        f"correction for {number(2 * len(pairs))} tests."
    )


def subjects_of(sweep: Sweep) -> int:
    """Return the number of subjects that the sweep's scores are of."""
    return max(summary.subject.subjects for summary in sweep.summaries)


def _score_and_interval(interval: Interval) -> str:
    if interval.low is None:
        return score_text(interval.mean)
    return f"{score_text(interval.mean)} ({interval_text(interval)})"


def norm_score_finding(sweep: Sweep) -> str:
    """Say the rank correlation of norm and text score over all learned tokens."""
    correlation = norm_text_correlation(sweep.courses)
    if correlation is None:
        return "All learned tokens have the same norm, so nothing can depend on it."
    finding = (
        f"Over {number(len(sweep.courses))} learned tokens, norm and text score have a rank "
        f"correlation of {score_text(correlation.mean)}"
    )
    if correlation.low is None:
        return f"{finding}."
    return f"{finding} (95 % interval over subjects {interval_text(correlation)})."


def norm_text_correlation(courses: Sequence[Course]) -> Interval | None:
    """Return Spearman's correlation of norm and text score; None if either never varies."""
    by_subject: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for course in courses:
        by_subject[course.subject].append((course.inflation, course.text_score))
    return rank_correlation(list(by_subject.values()))


def overall_summaries(sweep: Sweep) -> list[Summary]:
    """Return every method's summary over all prompts."""
    return [summary for summary in sweep.summaries if summary.group == ALL]


def overall_differences(sweep: Sweep) -> list[Difference]:
    """Return the difference of every two methods over all prompts."""
    return [difference for difference in sweep.differences if difference.group == ALL]


def is_clear(p: float | None) -> bool:
    """Whether a corrected p-value says that a difference is not 0."""
    return p is not None and p < 1 - LEVEL


def by_group(sweep: Sweep) -> tuple[list[str], list[tuple[str, dict[str, Summary]]]]:
    """Return the groups of prompts, and for each method its summaries by group."""
    rows: dict[str, dict[str, Summary]] = defaultdict(dict)
    groups: list[str] = []
    for summary in sweep.summaries:
        if summary.group == ALL:
            continue
        rows[summary.method][summary.group] = summary
        groups.append(summary.group)
    return list(dict.fromkeys(groups)), list(rows.items())


def mean_inflation(sweep: Sweep) -> dict[str, float]:
    """Return for each method the mean of norm / mean norm over its learned vectors."""
    inflations: dict[str, list[float]] = defaultdict(list)
    for norm in sweep.norms:
        inflations[norm.label].append(norm.inflation)
    return {label: fmean(values) for label, values in inflations.items()}


def missing(sweep: Sweep) -> str:
    """Say which cells the figures lack; empty when every cell is done."""
    left = [cell for cell in sweep.cells if cell.state != DONE]
    if not left:
        return ""
    return (
        f"{len(left)} of {len(sweep.cells)} cells are not in these figures: {state_counts(left)}."
    )


_COST_COLUMNS = (
    Column("method", kind="token"),
    Column("training", "s", digits=3),
    Column("pictures and scores", "s", digits=3),
)
_CELL_COLUMNS = (
    Column("state", kind="text"),
    Column("seed"),
    Column("method", kind="token"),
    Column("concepts", kind="text"),
    Column("minutes", digits=3),
)


_CAPTION = (
    "Diamonds: means over subjects. Bars: 95 % bootstrap intervals over subjects, training seeds "
    "and picture seeds. Methods with overlapping bars may still differ: the paired differences "
    "decide."
)
_CAPTION_OF_FEW = "Diamonds: means over subjects."


def _too_few(result: Sweep) -> list[Block]:
    count = subjects_of(result)
    if count >= FEW_SUBJECTS:
        return []
    return [
        Note(
            f"Subjects: {count}. That is too few for intervals or for a verdict on any difference; "
            f"{FEW_SUBJECTS} or more have them."
        )
    ]


def _measured(result: Sweep) -> str:
    note = (
        f"Sweep {quoted(result.name)}: every method learns the same concepts from the same "
        f"training seeds and paints the same prompts ({quoted(result.prompts)}) from the same "
        f"noise. Subject: mean cosine to the reference images, by {quoted(result.image_encoder)}. "
        f"Text: {result.text_unit}, by {quoted(result.text_encoder)}"
        f"{TEXT_BY_CHECKS if result.checks else '.'}"
    )
    incomplete = missing(result)
    return f"{note} {incomplete}" if incomplete else note


def _score_table(result: Sweep) -> Table:
    inflation, summaries = mean_inflation(result), overall_summaries(result)
    ceilings = has_ceilings(summaries)
    columns = [
        Column("method", kind="token"),
        Column("norm ÷ mean", "×", digits=3),
        *summary_columns(ceilings),
        Column("pictures"),
    ]
    rows = [
        [row.method, inflation.get(row.method), *summary_cells(row, ceilings), row.images]
        for row in summaries
    ]
    return Table("Scores over all prompts", columns, rows)


def _group_tables(result: Sweep) -> list[Table]:
    """Return the text scores by what prompts ask for; no table without groups."""
    groups, methods = by_group(result)
    if not groups:
        return []
    columns = [Column("method", kind="token")]
    for group in groups:
        columns += [Column(group, digits=3), Column(INTERVAL, digits=3)]
    rows: list[list[Value]] = []
    for method, summaries in methods:
        row: list[Value] = [method]
        for group in groups:
            row += interval_cells(summaries[group].text if group in summaries else None)
        rows.append(row)
    return [Table("Text score by what is asked for", columns, rows)]


def _difference_blocks(result: Sweep) -> list[Block]:
    differences = overall_differences(result)
    if not differences:
        return []
    tested = has_p(differences)
    columns = [
        Column("first", kind="token"),
        Column("less", kind="token"),
        *difference_columns(tested),
    ]
    rows: list[list[Value]] = [
        [row.first, row.second, *difference_cells(row, tested)] for row in differences
    ]
    title = "Paired differences over all prompts"
    if not tested:
        return [Table(title, columns, rows)]
    columns.append(Column("differs in", kind="text"))
    for row, difference in zip(rows, differences, strict=True):
        row.append(_clear_scores(difference))
    return [
        Table(title, columns, rows),
        Note(f"“Differs in”: p < {1 - LEVEL:.2f}. {CORRECTION}"),
    ]


def _clear_scores(difference: Difference) -> str:
    scores = [("subject", difference.subject_p), ("text", difference.text_p)]
    return ", ".join(name for name, p in scores if is_clear(p)) or "neither"


def _norm_section(result: Sweep) -> Section:
    finding = norm_score_finding(result)
    return Section(
        title="Norm against text score",
        blocks=[
            Finding(finding),
            Figure(
                lambda: norm_scores_figure(result),
                "A point is one learned token, scored on all its pictures. Faint "
                "points are checkpoints on the way. This is a correlation: methods that let the "
                "norm grow differ in other ways too.",
                finding,
            ),
        ],
    )


def _cost_rows(result: Sweep) -> list[list[Value]]:
    return [[cost.label, cost.training_seconds, cost.evaluation_seconds] for cost in result.costs]


def _minutes(state: CellState) -> float | None:
    if state.cost is None:
        return None
    return (state.cost.training_seconds + state.cost.evaluation_seconds) / 60


def _lane(summary: Summary, interval: Interval) -> Lane:
    name = plot_text(summary.method)
    text = hover(
        f"<b>{name}</b>",
        f"{score_text(interval.mean)}, 95 % {interval_text(interval)}",
        f"{summary.images} pictures",
    )
    return Lane(name, (interval.mean,), (text,), BLUE, "diamond")


def _course_text(course: Course) -> str:
    return hover(
        f"<b>{plot_text(course.label)}</b>",
        f"{plot_text(course.subject)}, seed {course.seed}, after {course.step} updates",
        f"norm {times(course.inflation)} the mean, text {score_text(course.text_score)}",
        f"subject {score_text(course.subject_score)}",
    )
