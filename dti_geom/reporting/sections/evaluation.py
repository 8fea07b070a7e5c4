"""The evaluation section: subject against text, method by method, with pictures."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

from dti_geom.evaluation.evaluation import (
    ALL,
    CheckSummary,
    Difference,
    Evaluation,
    PromptScore,
    Summary,
)
from dti_geom.evaluation.reference import OtherRow
from dti_geom.evaluation.scores import ImageScore, ScorerAccuracy
from dti_geom.mini.ceilings import LEAST_CEILING, ConceptCeiling
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
    with_known_intervals,
)
from dti_geom.reporting.curves import add_keys
from dti_geom.reporting.methods import method_colors
from dti_geom.reporting.plots import PAPER, hover, rows_of
from dti_geom.reporting.text import number, plot_text, quoted, short_path, shown
from dti_geom.statistics import Interval

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

    from dti_geom.sweeps.sweep import Sweep

INTERVAL = "95 %"  # the heading of every column of intervals
CEILING = "ceiling"  # the heading of what true pictures score
CORRECTED_P = "p, Holm"  # the heading of p-values that are corrected for their number
# Checks of pairs, in a table of their own: what an inflated token loses is told apart there.
_OF_PAIRS = ("presence", "both", "order")
# Mean and interval of both scores, as most tables of scores have them.
SCORE_COLUMNS = (
    Column("subject", digits=3),
    Column(INTERVAL, digits=3),
    Column("text", digits=3),
    Column(INTERVAL, digits=3),
)

_ORDERS = (
    "worst text first",
    "largest difference in text",
    "largest difference in likeness",
    "prompt by prompt",
)


def evaluation_section(result: Evaluation) -> Section:
    """Show the scores of each method, their differences, and a picture of each prompt."""
    finding = evaluation_finding(result)
    blocks: list[Block] = [
        Finding(finding),
        Note(_measured(result)),
        *_left_out(result),
        *ceiling_notes(result),
        Figure(lambda: tradeoff_figure(result), _CAPTION, finding),
        _summary_table(result),
        *check_tables(result.checks),
        *_difference_tables(result),
    ]
    blocks.append(
        Table("Prompt by prompt", _prompt_columns(result), _prompt_rows(result), folded=True)
    )
    if result.pictures:
        blocks.append(_pictures_section(result))
    blocks += [*ceiling_tables(result.ceilings), *accuracy_tables(result.accuracy)]
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
    return replace(result, pictures=(), references={})


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
    return [Table("The scorer's own accuracy", columns, rows, folded=True)]


def ceiling_tables(ceilings: Mapping[str, ConceptCeiling]) -> list[Table]:
    """Return the table of what true pictures of each subject score; none if none is known."""
    if not ceilings:
        return []
    names = dict.fromkeys(name for ceiling in ceilings.values() for name in ceiling.checks)
    columns = [
        Column("subject", kind="token"),
        Column("likeness, drawn", digits=3),
        Column("through the autoencoder", digits=3),
        Column("another concept", digits=3),
        *(Column(name, "%") for name in names),
    ]
    rows: list[list[Value]] = []
    for subject, ceiling in ceilings.items():
        likeness = ceiling.likeness
        row: list[Value] = [subject, likeness.renders, likeness.reconstructions, likeness.other]
        for name in names:
            check = ceiling.checks.get(name)
            row.append(None if check is None else 100 * check.reconstructions.share)
        rows.append(row)
    title = "What true pictures score; checks through the autoencoder"
    return [Table(title, columns, rows, folded=True)]


def ceiling_notes(result: "Evaluation | Sweep") -> list[Note]:
    """Say which checks cannot decide about a subject, and which subjects have no ceilings."""
    notes = []
    blind: list[str] = []
    for subject, ceiling in result.ceilings.items():
        for name in ceiling.undecided:
            share = ceiling.checks[name].reconstructions.share
            blind.append(f"{name} of {shown(subject)} ({share:.0%} of true pictures pass)")
    if blind:
        notes.append(
            Note(
                f"Cannot decide: {'; '.join(blind)}. A check that fewer than {LEAST_CEILING:.0%} "
                "of true pictures pass is left out of its subject's text score, for every method."
            )
        )
    unknown = [name for name in _subjects(result) if name not in result.ceilings]
    if unknown and result.accuracy and (result.ceilings or result.checks):
        notes.append(
            Note(
                f"No ceilings: {', '.join(map(shown, unknown))}. Only concepts that ship with the "
                "model have them. Whether a check can decide about another subject is not known, "
                "and all of them count."
            )
        )
    return notes


def check_tables(checks: Sequence[CheckSummary]) -> list[Table]:
    """Return the shares of pictures that pass each check: of pairs, and all others."""
    groups = {
        "Pairs, check by check": [row for row in checks if row.check in _OF_PAIRS],
        "Other checks": [row for row in checks if row.check not in _OF_PAIRS],
    }
    return [_check_table(title, rows) for title, rows in groups.items() if rows]


def has_ceilings(summaries: Iterable[Summary | OtherRow]) -> bool:
    """Whether any row of scores knows what true pictures score."""
    return any(row.subject_ceiling is not None for row in summaries)


def summary_columns(ceilings: bool) -> list[Column]:
    """Return the columns of both scores; with ceilings, what true pictures score beside each."""
    beside = [Column(CEILING, digits=3)] if ceilings else []
    return [*SCORE_COLUMNS[:2], *beside, *SCORE_COLUMNS[2:], *beside]


def summary_cells(summary: Summary | OtherRow, ceilings: bool) -> list[Value]:
    """Return the cells of `summary_columns`."""
    subject, text = interval_cells(summary.subject), interval_cells(summary.text)
    if not ceilings:
        return [*subject, *text]
    return [*subject, summary.subject_ceiling, *text, summary.text_ceiling]


def has_p(differences: Iterable[Difference]) -> bool:
    """Whether the rows have p-values; those of older versions and of few subjects have none."""
    return any(row.text_p is not None for row in differences)


def difference_columns(tested: bool) -> list[Column]:
    """Return the columns of two differences; tested: with p-values that are corrected."""
    p = [Column(CORRECTED_P, digits=2)] if tested else []
    return [*SCORE_COLUMNS[:2], *p, *SCORE_COLUMNS[2:], *p]


def difference_cells(difference: Difference, tested: bool) -> list[Value]:
    """Return the cells of `difference_columns`."""
    subject, text = interval_cells(difference.subject), interval_cells(difference.text)
    if not tested:
        return [*subject, *text]
    return [*subject, difference.subject_p, *text, difference.text_p]


def p_text(p: float) -> str:
    """Write a corrected p-value, such as "p = 0.012 by Holm"."""
    return "p < 0.001 by Holm" if p < 0.001 else f"p = {p:.3f} by Holm"


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
    colors = method_colors(summary.method for summary in methods)
    for summary in methods:
        _add_points(figure, evaluation, summary.method, colors[summary.method])
    for summary in methods:
        add_mean(
            figure,
            summary.method,
            text=summary.text,
            subject=summary.subject,
            color=colors[summary.method],
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


def _summary_table(result: Evaluation) -> Table:
    ceilings = has_ceilings(result.summaries)
    columns = [
        Column("method", kind="token"),
        Column("prompts", kind="token"),
        *summary_columns(ceilings),
        Column("pictures"),
    ]
    rows = [
        [row.method, row.group, *summary_cells(row, ceilings), row.images]
        for row in result.summaries
    ]
    return with_known_intervals(Table("Scores", columns, rows))


def _difference_tables(result: Evaluation) -> list[Block]:
    """Return the differences over all prompts, and those of each group: two families of tests."""
    overall = [row for row in result.differences if row.group == ALL]
    by_group = [row for row in result.differences if row.group != ALL]
    over = "on the same subjects, prompts and seeds"
    blocks: list[Block] = []
    for title, rows in ((f"Differences {over}", overall), ("The same by prompts", by_group)):
        if rows:
            blocks.append(_difference_table(title, rows))
    if has_p(result.differences):
        blocks.append(Note(CORRECTION))
    return blocks


CORRECTION = (
    "p: that the difference is 0, from the bootstrap of its interval. It is corrected by Holm’s "
    "method for all tests of its table, of both scores; intervals are not corrected."
)


def _difference_table(title: str, differences: Sequence[Difference]) -> Table:
    tested = has_p(differences)
    columns = [
        Column("first", kind="token"),
        Column("less", kind="token"),
        Column("prompts", kind="token"),
        *difference_columns(tested),
        Column("pairs"),
    ]
    rows = [
        [row.first, row.second, row.group, *difference_cells(row, tested), row.cells]
        for row in differences
    ]
    return with_known_intervals(Table(title, columns, rows))


def _check_table(title: str, checks: Sequence[CheckSummary]) -> Table:
    """Return a row for each method, and one for true pictures where their shares are known."""
    names = list(dict.fromkeys(row.check for row in checks))
    by_method: dict[str, dict[str, CheckSummary]] = defaultdict(dict)
    for row in checks:
        by_method[row.method][row.check] = row
    columns = [Column("method", kind="token")]
    for name in names:
        columns += [Column(name, digits=3), Column(INTERVAL, digits=3)]
    rows: list[list[Value]] = []
    for method, of_method in by_method.items():
        cells: list[Value] = [method]
        for name in names:
            cells += interval_cells(of_method[name].share if name in of_method else None)
        rows.append(cells)
    # Methods that show the subjects themselves share their ceilings; the class word has none.
    known = {row.check: row.ceiling for row in reversed(checks) if row.ceiling is not None}
    if known:
        cells = [TRUE_PICTURES]
        for name in names:
            cells += [known.get(name), None]
        rows.append(cells)
    return with_known_intervals(Table(title, columns, rows))


TRUE_PICTURES = "true pictures"


def _subjects(result: "Evaluation | Sweep") -> list[str]:
    if isinstance(result, Evaluation):
        return list(dict.fromkeys(score.subject for score in result.images))
    subjects: dict[str, None] = {}
    for cell in result.cells:
        subjects |= dict.fromkeys(cell.subjects)
    return list(subjects)


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
    of = "subjects, runs and seeds" if several else "runs and seeds of the one subject"
    over = f"Intervals: 95 %, by bootstrap over {of}."
    if not any(_has_interval(row) for row in result.summaries):
        over = "No intervals: there are too few subjects, runs and seeds."
    what = TEXT_BY_CHECKS if result.checks else "." if result.accuracy else TEXT_BY_WORDS
    return (
        f"{number(len(result.images))} pictures: prompts {quoted(result.prompts)}, seeds {seeds}, "
        f"{settings.steps} steps, guidance {settings.guidance:g}, {settings.size} px. Subject: "
        f"mean cosine to the reference images, by {quoted(result.image_encoder)}. Text: "
        f"{result.text_unit}, by {quoted(result.text_encoder)}{what} {over}"
    )


def _has_interval(summary: Summary) -> bool:
    return summary.subject.low is not None


TEXT_BY_WORDS = ", of the prompt with the class word in the token’s place."
TEXT_BY_CHECKS = (
    ": background, colour, accessory, number and thing; of a pair both things and, where the "
    "subject stands beside something, its side. The class word is asked for the thing that it "
    "names. Of a pair, the subject score is that of the thing that is more like the subject."
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
                "of a row start from the same noise. Below each: how like it is to the reference "
                f"images, and its fit to the prompt ({result.text_unit}). The rows that fit their "
                "prompts worst come first."
            ),
            _pictures(result),
            Limits(
                "How often a method paints so: this is one picture for each, the first and not the "
                "best. The scores count all pictures."
            ),
        ],
    )


def _pictures(result: Evaluation) -> Pictures:
    """Return a grid: a row for each subject in each prompt, a column for each method.

    A reference stands in the first column. The rows that follow their prompts worst come first.
    """
    scores = _picture_scores(result)
    methods = list(dict.fromkeys(score.method for score in scores))
    cells: dict[tuple[str, str], dict[str, tuple[ImageScore, Picture]]] = defaultdict(dict)
    for key, (score, small) in enumerate(zip(scores, result.pictures, strict=True)):
        picture = Picture(
            uri=f"data:image/png;base64,{small.png}",
            alt=f"{shown(score.prompt, 200)}, by {shown(score.method)}",
            caption=f"like {score_text(score.subject_score)}, text {score_text(score.text_score)}",
            key=key,
        )
        cells[score.subject, score.prompt][score.method] = score, picture
    references = {
        subject: Picture(f"data:image/png;base64,{png}", f"a reference picture of {shown(subject)}")
        for subject, png in result.references.items()
    }
    rows = []
    for place, ((subject, prompt), by_method) in enumerate(cells.items()):
        pictures = [by_method[method][1] if method in by_method else None for method in methods]
        if references:
            pictures.insert(0, references.get(subject))
        texts = [score.text_score for score, _ in by_method.values()]
        likes = [score.subject_score for score, _ in by_method.values()]
        # Smallest first: the worst text, the largest differences, and the prompts' own order.
        places = (fmean(texts), min(texts) - max(texts), min(likes) - max(likes), place)
        rows.append(PictureRow(f"{prompt}\n{subject}", pictures, places))
    return Pictures(
        "Each prompt by each method",
        ["a reference", *methods] if references else methods,
        sorted(rows, key=lambda row: row.places[0]),
        orders=_ORDERS,
    )


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
        f"{_signed(difference.subject, difference.subject_p)} in subject and "
        f"{_signed(difference.text, difference.text_p)} in text."
    )


def _signed(interval: Interval, p: float | None) -> str:
    sign = "+" if interval.mean > 0 else ""
    if interval.low is None or interval.high is None:
        return sign + score_text(interval.mean)
    tested = "" if p is None else f", {p_text(p)}"
    return f"{sign}{score_text(interval.mean)} (95 % interval {interval_text(interval)}{tested})"


def _with_interval(interval: Interval) -> str:
    return f"{score_text(interval.mean)} (95 % interval {interval_text(interval)})"
