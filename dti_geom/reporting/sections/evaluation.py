"""The evaluation section: subject against text, method by method, with pictures."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

from dti_geom.evaluation.evaluation import (
    ALL,
    Difference,
    Evaluation,
    PromptScore,
)
from dti_geom.evaluation.scores import ImageScore, ScorerAccuracy
from dti_geom.reporting.blocks import (
    Block,
    Column,
    Figure,
    Finding,
    Limits,
    Note,
    Picture,
    PictureRow,
    Pictures,
    Section,
    Span,
    Table,
    Value,
)
from dti_geom.reporting.curves import add_keys
from dti_geom.reporting.plots import BLUE, GREEN, INK, MUTED, PAPER, VERMILLION, hover, rows_of
from dti_geom.reporting.text import number, plot_text, quoted, short_path, shown
from dti_geom.statistics import Interval

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

_COLORS = (BLUE, VERMILLION, GREEN, INK, MUTED)
INTERVAL = "95 %"  # the heading of every column of intervals
# Mean and interval of both scores, as most tables of scores have them.
SCORE_COLUMNS = (
    Column("subject", digits=3),
    Column(INTERVAL, digits=3),
    Column("text", digits=3),
    Column(INTERVAL, digits=3),
)


def evaluation_section(result: Evaluation) -> Section:
    """Show the scores of each method, their differences, and a picture of each prompt."""
    finding = evaluation_finding(result)
    blocks: list[Block] = [
        Finding(finding),
        Note(_measured(result)),
        *_left_out(result),
        Figure(lambda: tradeoff_figure(result), _CAPTION, finding),
        Table("Scores", _SUMMARY_COLUMNS, _summary_rows(result)),
    ]
    if result.differences:
        title = "Differences on the same subjects, prompts and seeds"
        blocks.append(Table(title, _DIFFERENCE_COLUMNS, _difference_rows(result)))
    blocks.append(Table("Prompt by prompt", _prompt_columns(result), _prompt_rows(result)))
    if result.pictures:
        blocks.append(_pictures_section(result))
    blocks += accuracy_tables(result.accuracy)
    blocks.append(
        Limits(
            "Whether people would agree: both scores are those of networks. Every method was "
            "trained at one setting, and a better one may exist for each."
        )
    )
    return Section(
        title="Subject against text",
        aside=f"{number(len(result.images))} pictures, prompts {shown(result.prompts)}",
        blocks=blocks,
    )


def evaluation_data(result: Evaluation) -> Evaluation:
    """Return the scores without the small pictures."""
    return replace(result, pictures=())


def accuracy_tables(accuracy: Sequence[ScorerAccuracy]) -> list[Table]:
    """Return the table of how often the embedded model's scorer is right; none if it is empty."""
    if not accuracy:
        return []
    columns = [
        Column("check", kind="text"),
        Column("drawn scenes", "%"),
        Column("of"),
        Column("through the autoencoder", "%"),
        Column("of"),
    ]
    rows: list[list[Value]] = [
        [
            check.check,
            100 * check.renders.share,
            check.renders.total,
            100 * check.reconstructions.share,
            check.reconstructions.total,
        ]
        for check in accuracy
    ]
    return [Table("The scorer's own accuracy", columns, rows)]


def score_cells(subject: Interval | None, text: Interval | None) -> list[Value]:
    """Return the cells of `SCORE_COLUMNS`."""
    return [*interval_cells(subject), *interval_cells(text)]


def interval_cells(interval: Interval | None) -> list[Value]:
    """Return the mean and the ends of an interval as two cells; None where there is none."""
    if interval is None:
        return [None, None]
    return [interval.mean, Span(interval.low, interval.high)]


def tradeoff_figure(evaluation: Evaluation) -> "PlotlyFigure":
    """Draw every method's mean with its intervals and, faint, each subject in each prompt.

    A faint point is a mean over seeds. Its `customdata` is the `key` of its picture, which the page
    shows over it.
    """
    figure = rows_of([360], left=56)
    methods = [summary for summary in evaluation.summaries if summary.group == ALL]
    for place, summary in enumerate(methods):
        _add_points(figure, evaluation, summary.method, _COLORS[place % len(_COLORS)])
    for place, summary in enumerate(methods):
        add_mean(
            figure,
            summary.method,
            text=summary.text,
            subject=summary.subject,
            color=_COLORS[place % len(_COLORS)],
        )
    figure.update_xaxes(title=f"text: {plot_text(evaluation.text_unit)}")
    figure.update_yaxes(title={"text": "subject: cosine to references", "standoff": 4})
    add_keys(figure, (1,))
    return figure


def evaluation_finding(evaluation: Evaluation) -> str:
    """Say how the first two methods differ, or what the only one scores."""
    differences = [one for one in evaluation.differences if one.group == ALL]
    if differences:
        return _difference_finding(differences[0])
    only = evaluation.summaries[0]
    return (
        f"{shown(only.method)} scores {_with_interval(only.subject)} in subject and "
        f"{_with_interval(only.text)} in text, over {number(only.images)} pictures."
    )


def example_finding(evaluation: Evaluation) -> str:
    """Say in how many rows of pictures the first method scores above the second."""
    scores = _picture_scores(evaluation)
    first, *others = dict.fromkeys(score.method for score in scores)
    if not others:
        return f"{number(len(scores))} pictures by {quoted(first)}."
    rows = {(score.method, score.subject, score.prompt): score for score in scores}
    pairs = [
        (score, rows[others[0], score.subject, score.prompt])
        for score in scores
        if score.method == first and (others[0], score.subject, score.prompt) in rows
    ]
    subject = [score.subject_score - other.subject_score for score, other in pairs]
    text = [score.text_score - other.text_score for score, other in pairs]
    return (
        f"Of {number(len(pairs))} pairs of pictures of {quoted(first)} and {quoted(others[0])}, "
        f"the first is more like its subject in {_wins(subject)}, and follows the prompt better in "
        f"{_wins(text)}."
    )


def interval_text(interval: Interval | None) -> str:
    """Write the ends of an interval; a dash where it has none."""
    if interval is None or interval.low is None or interval.high is None:
        return "–"
    return f"{score_text(interval.low)} to {score_text(interval.high)}"


def score_text(value: float | None) -> str:
    """Write a score with three decimals; a dash for None."""
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


def add_mean(
    figure: "PlotlyFigure",
    name: str,
    *,
    text: Interval,
    subject: Interval,
    color: str,
    key: bool = True,
) -> None:
    """Add a diamond at the mean of both scores, with bars for its intervals.

    key: whether `add_keys` names it.
    """
    figure.add_scatter(
        name=plot_text(name),
        showlegend=key,
        x=[text.mean],
        y=[subject.mean],
        error_x=_bars(text, color),
        error_y=_bars(subject, color),
        mode="markers",
        line={"color": color},
        marker={
            "color": color,
            "symbol": "diamond",
            "size": 12,
            "line": {"color": PAPER, "width": 1},
        },
        hovertext=[
            hover(
                f"<b>{plot_text(name)}</b>",
                f"subject {score_text(subject.mean)}, {interval_text(subject)}",
                f"text {score_text(text.mean)}, {interval_text(text)}",
                f"{subject.subjects} subjects, {subject.values} subject-seeds",
            )
        ],
        hovertemplate="%{hovertext}<extra></extra>",
        row=1,
        col=1,
    )


_SUMMARY_COLUMNS = (
    Column("method", kind="token"),
    Column("prompts", kind="token"),
    *SCORE_COLUMNS,
    Column("pictures"),
)
_DIFFERENCE_COLUMNS = (
    Column("first", kind="token"),
    Column("less", kind="token"),
    Column("prompts", kind="token"),
    *SCORE_COLUMNS,
    Column("pairs"),
)


def _summary_rows(result: Evaluation) -> list[list[Value]]:
    return [
        [
            summary.method,
            summary.group,
            *score_cells(summary.subject, summary.text),
            summary.images,
        ]
        for summary in result.summaries
    ]


def _difference_rows(result: Evaluation) -> list[list[Value]]:
    return [
        [
            difference.first,
            difference.second,
            difference.group,
            *score_cells(difference.subject, difference.text),
            difference.cells,
        ]
        for difference in result.differences
    ]


def _methods(result: Evaluation) -> list[str]:
    return list(dict.fromkeys(summary.method for summary in result.summaries))


def _prompt_columns(result: Evaluation) -> list[Column]:
    columns = [Column("prompt", kind="text"), Column("asks for", kind="token")]
    for method in _methods(result):
        columns += [
            Column(f"{method}, subject", digits=3),
            Column(f"{method}, text", digits=3),
        ]
    return columns


def _prompt_rows(result: Evaluation) -> list[list[Value]]:
    """Return a row for each prompt, with the scores of all methods."""
    by_prompt: dict[str, dict[str, PromptScore]] = defaultdict(dict)
    for scores in result.by_prompt:
        by_prompt[scores.prompt][scores.method] = scores
    rows: list[list[Value]] = []
    for prompt, by_method in by_prompt.items():
        row: list[Value] = [prompt, next(iter(by_method.values())).group]
        for method in _methods(result):
            if method in by_method:
                row += [by_method[method].subject, by_method[method].text]
            else:
                row += [None, None]
        rows.append(row)
    return rows


_CAPTION = (
    "Diamonds: means over subjects, with their intervals. Faint: one subject in one prompt, mean "
    "over seeds; point at one to see its first picture."
)


def _measured(result: Evaluation) -> str:
    settings = result.settings
    seeds = ", ".join(map(str, result.seeds))
    several = len({score.subject for score in result.images}) > 1
    over = "subjects and seeds" if several else "the seeds of the one subject"
    return (
        f"{number(len(result.images))} pictures: prompts {quoted(result.prompts)}, seeds {seeds}, "
        f"{settings.steps} steps, guidance {settings.guidance:g}, {settings.size} px. Subject: "
        f"mean cosine to the reference images, by {quoted(result.image_encoder)}. Text: "
        f"{result.text_unit}, by {quoted(result.text_encoder)}, of the prompt with the class word "
        f"in the token’s place. Intervals: 95 %, by bootstrap over {over}."
    )


def _left_out(result: Evaluation) -> list[Note]:
    if not result.left_out:
        return []
    files = [
        f"{quoted(short_path(lost.file))} ({shown(lost.reason, 120)})" for lost in result.left_out
    ]
    return [Note(f"Left out, not counted: {'; '.join(files)}.")]


def _pictures_section(result: Evaluation) -> Section:
    return Section(
        title="What they paint",
        blocks=[
            Finding(example_finding(result)),
            Note(
                f"The first picture of a subject in a prompt, seed {result.seeds[0]}. The pictures "
                "of a row start from the same noise. Below each: its likeness to the reference "
                f"images, and its fit to the prompt ({result.text_unit})."
            ),
            _pictures(result),
            Limits(
                "How often a method paints so: this is one picture for each, the first and not the "
                "best. The scores count all pictures."
            ),
        ],
    )


def _pictures(result: Evaluation) -> Pictures:
    """Return a grid: a row for each subject in each prompt, a column for each method."""
    scores = _picture_scores(result)
    methods = list(dict.fromkeys(score.method for score in scores))
    by_place: dict[tuple[str, str, str], Picture] = {}
    for key, (score, small) in enumerate(zip(scores, result.pictures, strict=True)):
        by_place[score.subject, score.prompt, score.method] = Picture(
            uri=f"data:image/png;base64,{small.png}",
            alt=f"{shown(score.prompt, 200)}, by {shown(score.method)}",
            caption=f"{score_text(score.subject_score)}, {score_text(score.text_score)}",
            key=key,
        )
    rows = [
        PictureRow(
            f"{prompt}\n{subject}",
            [by_place.get((subject, prompt, method)) for method in methods],
        )
        for subject, prompt in dict.fromkeys((score.subject, score.prompt) for score in scores)
    ]
    return Pictures("Each prompt by each method", methods, rows)


def _picture_scores(result: Evaluation) -> list[ImageScore]:
    """Return the scores of the small pictures, in their order: those of their first seed."""
    first: dict[tuple[str, str, str], ImageScore] = {}
    for score in result.images:
        first.setdefault((score.method, score.subject, score.prompt), score)
    return [first[small.method, small.subject, small.prompt] for small in result.pictures]


def _wins(differences: Sequence[float]) -> str:
    """Count the differences above zero, and those below; ties are what is left over."""
    above = sum(difference > 0 for difference in differences)
    below = sum(difference < 0 for difference in differences)
    return f"{above} and less so in {below}"


def _add_points(figure: "PlotlyFigure", evaluation: Evaluation, method: str, color: str) -> None:
    """Add a faint point for each subject in each prompt: the mean over seeds."""
    keys = {
        (small.subject, small.prompt): place
        for place, small in enumerate(evaluation.pictures)
        if small.method == method
    }
    scores: dict[tuple[str, str], list[ImageScore]] = defaultdict(list)
    for score in evaluation.images:
        if score.method == method:
            scores[score.subject, score.prompt].append(score)
    text = [fmean(score.text_score for score in seeds) for seeds in scores.values()]
    subject = [fmean(score.subject_score for score in seeds) for seeds in scores.values()]
    figure.add_scatter(
        x=text,
        y=subject,
        mode="markers",
        name=plot_text(method),
        showlegend=False,
        marker={"color": color, "size": 7, "opacity": 0.4},
        customdata=[keys.get(place) for place in scores],
        hovertext=[
            hover(
                f"<b>{plot_text(method)}</b>",
                plot_text(name),
                plot_text(prompt, 48),
                f"subject {score_text(subject_mean)}, text {score_text(text_mean)}",
            )
            for (name, prompt), subject_mean, text_mean in zip(scores, subject, text, strict=True)
        ],
        hovertemplate="%{hovertext}<extra></extra>",
        row=1,
        col=1,
    )


def _bars(interval: Interval, color: str) -> dict[str, object] | None:
    """Return the error bars of an interval; none where it has no ends."""
    if interval.low is None or interval.high is None:
        return None
    return {
        "array": [interval.high - interval.mean],
        "arrayminus": [interval.mean - interval.low],
        "color": color,
        "thickness": 1.5,
        "width": 4,
    }


def _difference_finding(difference: Difference) -> str:
    return (
        f"Over {number(difference.cells)} pairs of pictures of the same subject, prompt and seed, "
        f"{shown(difference.first)} less {shown(difference.second)} is "
        f"{_signed(difference.subject)} in subject and {_signed(difference.text)} in text."
    )


def _signed(interval: Interval) -> str:
    sign = "+" if interval.mean > 0 else ""
    if interval.low is None or interval.high is None:
        return sign + score_text(interval.mean)
    excludes_zero = interval.low > 0 or interval.high < 0
    zero = "" if excludes_zero else ", which contains 0"
    return f"{sign}{score_text(interval.mean)} (95 % interval {interval_text(interval)}{zero})"


def _with_interval(interval: Interval) -> str:
    return f"{score_text(interval.mean)} (95 % interval {interval_text(interval)})"
