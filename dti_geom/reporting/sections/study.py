"""The study section: what people preferred, method by method."""

from typing import TYPE_CHECKING

from dti_geom.reporting.blocks import (
    Block,
    Column,
    Figure,
    Finding,
    Limits,
    Note,
    Section,
    Span,
    Table,
    Value,
)
from dti_geom.reporting.plots import BLUE, VERMILLION, hover, rows_of
from dti_geom.reporting.text import number, plot_text, quoted, shown
from dti_geom.statistics import Interval
from dti_geom.study.build import BuiltStudy
from dti_geom.study.planning import StudyPlan
from dti_geom.study.scoring import PUBLISHED_RATERS, MethodShare, StudyScore

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

_ASKED = {"subject": "Like the subject", "text": "True to the text"}
_COLORS = {"subject": BLUE, "text": VERMILLION}
_INTERVAL, _CORRECTED = "95 %", "p, Holm"
_QUESTION = Column("question", kind="text")


def study_section(result: StudyScore) -> Section:
    """Show the share of each method, their differences, and how raters agreed."""
    finding = study_finding(result)
    blocks: list[Block] = [
        *(Finding(study_finding(result, question)) for question in _questions(result)),
        Note(_counted(result)),
        Figure(lambda: shares_figure(result), _CAPTION, finding),
        _shares(result),
        _differences(result),
        _strengths(result),
        _agreement(result),
        _sides(result),
    ]
    if result.left_out:
        blocks.append(_left_out(result))
    if result.refused:
        rows: list[list[Value]] = [[file.file, file.reason] for file in result.refused]
        columns = [Column("file", kind="path"), Column("reason", kind="sentence")]
        blocks.append(Table("Files without usable answers", columns, rows))
    blocks.append(
        Limits(
            "What other people, subjects or prompts would give beyond the spread seen here. A "
            "picture may betray its method by what it shows. The paper's study had other "
            "pictures, other methods beside DTI, and publishes no interval."
        )
    )
    return Section(
        "What people preferred",
        blocks,
        aside=f"{number(result.raters)} raters, {number(result.answers)} answers, {result.model}",
    )


def study_finding(result: StudyScore, question: str = "") -> str:
    """Say which method was chosen most for a question, and whether it leads all others."""
    question = question or _questions(result)[0]
    shares = [share for share in result.shares if share.question == question]
    best = max(shares, key=lambda share: share.share.mean)
    beaten = [
        pair
        for pair in result.differences
        if pair.question == question
        and best.method in (pair.first, pair.second)
        and pair.p is not None
        and pair.p < 0.05
    ]
    return (
        f"{_ASKED[question]}: {quoted(best.method)} was chosen most, on {_percent(best.share)} of "
        f"screens; chance is {100 / result.shown:.1f} %. It differs from {len(beaten)} of "
        f"{len(shares) - 1} others (p < 0.05)."
    )


def shares_figure(result: StudyScore) -> "PlotlyFigure":
    """Draw each method's share for both questions, with intervals."""
    figure = rows_of([90 + 56 * len(result.methods)], left=110)
    lanes = [(method, question) for method in result.methods for question in _questions(result)]
    places = {lane: place for place, lane in enumerate(lanes)}
    for question in _questions(result):
        shares = [share for share in result.shares if share.question == question]
        ends = [_ends(share.share) for share in shares]
        figure.add_scatter(
            name=_ASKED[question],
            x=[100 * share.share.mean for share in shares],
            y=[places[share.method, question] for share in shares],
            mode="markers",
            marker={"color": _COLORS[question], "size": 9},
            line={"color": _COLORS[question]},
            error_x={
                "type": "data",
                "array": [
                    high - 100 * share.share.mean
                    for share, (_, high) in zip(shares, ends, strict=True)
                ],
                "arrayminus": [
                    100 * share.share.mean - low
                    for share, (low, _) in zip(shares, ends, strict=True)
                ],
            },
            hovertext=[
                hover(f"<b>{plot_text(share.method)}</b>", question, _percent(share.share))
                for share in shares
            ],
            hovertemplate="%{hovertext}<extra></extra>",
            showlegend=False,
            row=1,
            col=1,
        )
    figure.update_xaxes(title="chosen, %", rangemode="tozero")
    figure.update_yaxes(
        range=[len(lanes) - 0.5, -0.5],
        tickvals=list(places.values()),
        ticktext=[f"{plot_text(method, 14)}<br>{question}" for method, question in lanes],
    )
    return figure


def built_section(result: BuiltStudy) -> Section:
    """Show what a new study holds, and what to do with its files."""
    return Section(
        "Study",
        [
            Finding(
                f"{number(result.raters)} raters see {result.screens} screens each, "
                f"{result.catch_trials} of them catch trials, with {result.shown} of "
                f"{len(result.methods)} methods: {', '.join(map(shown, result.methods))}."
            ),
            Table(
                "Size",
                [Column("cases"), Column("pictures"), Column("MB", digits=3), Column("seed")],
                [[result.cases, result.pictures, result.bytes / 1e6, str(result.seed)]],
            ),
            Note(
                "Serve or send public/ only. key.json says what every picture is; keep it until "
                "you score."
            ),
        ],
    )


def plan_section(result: StudyPlan) -> Section:
    """Show how often a difference is found by how many raters."""
    rows: list[list[Value]] = [
        [step.raters, step.answers, 100 * step.found.share, _span(step.found.low, step.found.high)]
        for step in result.steps
    ]
    enough = result.enough
    finding = (
        f"{number(enough.raters)} raters find a difference of {100 * result.difference:.3g} points "
        f"between two methods in {enough.found.share:.0%} of simulated studies."
        if enough is not None
        else f"No number of raters that was tried finds a difference of "
        f"{100 * result.difference:.3g} points often enough. More subjects may: their spread stays "
        "however many raters there are."
    )
    columns = [Column("raters"), Column("answers"), Column("found", "%"), Column(_INTERVAL, "%")]
    return Section(
        "Size of a study",
        [
            Finding(finding),
            Table("By raters", columns, rows),
            Note(
                f"{result.studies} simulated studies a row. Found: p < 0.05 after Holm's "
                f"correction over all pairs and both questions. Methods differ from subject to "
                f"subject, rater to rater and case to case by {result.spread:g} of the noise of a "
                "choice, each."
            ),
        ],
        aside=(
            f"{result.methods} methods, {result.shown} a screen, {result.subjects} subjects, "
            f"{result.trials} trials a rater"
        ),
    )


_CAPTION = (
    "Share of screens on which a method's picture was chosen; “no difference” counts for all "
    "pictures of a screen in equal parts. 95 % intervals, clustered by rater and by subject."
)


def _questions(result: StudyScore) -> list[str]:
    return list(dict.fromkeys(share.question for share in result.shares))


def _counted(result: StudyScore) -> str:
    left = len(result.left_out)
    caught = "no catch trials" if result.catches is None else f"catch trials {result.catches}"
    return (
        f"{number(result.raters)} raters count; {left} left out, who got no more catch trials "
        "right than a rater who guesses does with a probability of 5 %. Those who count: "
        f"{caught}. {number(result.ties)} of {number(result.answers)} answers are “no "
        f"difference”. Median time {result.seconds:.1f} s."
    )


def _shares(result: StudyScore) -> Table:
    rows: list[list[Value]] = [
        [share.question, share.method, share.screens, *_cells(share.share), _published(share)]
        for share in result.shares
    ]
    columns = [
        _QUESTION,
        Column("method", kind="text"),
        Column("screens"),
        Column("chosen", "%", digits=3),
        Column(_INTERVAL, "%", digits=3),
        Column("paper", "%"),
    ]
    return Table(f"Chosen; the paper's study had {PUBLISHED_RATERS} raters", columns, rows)


def _differences(result: StudyScore) -> Table:
    rows: list[list[Value]] = [
        [
            pair.question,
            f"{pair.first} − {pair.second}",
            pair.screens,
            *_cells(pair.difference),
            pair.p,
        ]
        for pair in result.differences
    ]
    columns = [
        _QUESTION,
        Column("methods", kind="text"),
        Column("screens"),
        Column("points", digits=3),
        Column(_INTERVAL, digits=3),
        Column(_CORRECTED, digits=2),
    ]
    return Table("Differences on the same screens", columns, rows)


def _strengths(result: StudyScore) -> Table:
    rows: list[list[Value]] = [
        [
            strength.question,
            strength.method,
            strength.log_strength.mean,
            _span(strength.log_strength.low, strength.log_strength.high),
        ]
        for strength in result.strengths
    ]
    columns = [
        _QUESTION,
        Column("method", kind="text"),
        Column("log strength", digits=3),
        Column(_INTERVAL, digits=3),
    ]
    return Table("Bradley–Terry with ties", columns, rows)


def _agreement(result: StudyScore) -> Table:
    rows: list[list[Value]] = [
        [found.question, found.alpha, found.trials, found.answers] for found in result.agreement
    ]
    columns = [
        _QUESTION,
        Column("Krippendorff's α", digits=3),
        Column("trials with several raters"),
        Column("answers"),
    ]
    return Table("Agreement of raters", columns, rows)


def _sides(result: StudyScore) -> Table:
    rows: list[list[Value]] = [
        [side.question, side.side, *_cells(side.share)] for side in result.sides
    ]
    columns = [
        _QUESTION,
        Column("place"),
        Column("chosen", "%", digits=3),
        Column(_INTERVAL, "%", digits=3),
    ]
    return Table("Chosen by place", columns, rows)


def _left_out(result: StudyScore) -> Table:
    rows: list[list[Value]] = [
        [rater.rater, rater.session, rater.right, rater.asked, rater.needed]
        for rater in result.left_out
    ]
    columns = [
        Column("rater"),
        Column("session", kind="text"),
        Column("right"),
        Column("asked"),
        Column("needed"),
    ]
    return Table("Raters left out", columns, rows)


def _published(share: MethodShare) -> float | None:
    return None if share.published is None else 100 * share.published


def _cells(interval: Interval) -> list[Value]:
    """Mean and interval of a share, in percent or points."""
    return [100 * interval.mean, _span(interval.low, interval.high, 100)]


def _span(low: float | None, high: float | None, scale: float = 1) -> Span:
    return Span(
        None if low is None else round(scale * low, 4),
        None if high is None else round(scale * high, 4),
    )


def _ends(interval: Interval) -> tuple[float, float]:
    low = interval.mean if interval.low is None else interval.low
    high = interval.mean if interval.high is None else interval.high
    return 100 * low, 100 * high


def _percent(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{100 * interval.mean:.1f} %"
    ends = f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"
    return f"{100 * interval.mean:.1f} % (95 %: {ends})"
