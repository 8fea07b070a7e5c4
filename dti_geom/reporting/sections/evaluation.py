"""The evaluation section: subject against text, method by method; and the paper's tables beside it."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

from dti_geom.evaluation.evaluation import ALL, Difference, Evaluation, PromptScore
from dti_geom.evaluation.reference import Comparison
from dti_geom.reporting.curves import add_keys
from dti_geom.reporting.plots import BLUE, GREEN, INK, MUTED, PAPER, VERMILLION, hover, rows_of
from dti_geom.reporting.text import number, plot_text, quoted, shown
from dti_geom.statistics import Interval

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_COLORS = (BLUE, VERMILLION, GREEN, INK, MUTED)
_PUBLISHED = {
    "ti": BLUE,
    "ti-rescaled": VERMILLION,
    "crossinit": GREEN,
    "dti": INK,
}  # the others are MUTED


@dataclass(frozen=True)
class Example:
    """A picture that the page shows, with its scores; in the order of `Evaluation.pictures`."""

    method: str
    subject: str
    prompt: str
    seed: int
    subject_score: float
    text_score: float


@dataclass(frozen=True)
class ExampleRow:
    """One subject in one prompt, method by method."""

    subject: str
    prompt: str
    places: tuple[int | None, ...]  # of each method's example; None where it has none


def tradeoff_figure(evaluation: Evaluation) -> "Figure":
    """Every method's mean with its intervals; faint, each subject in each prompt, mean over seeds.

    A faint point's `customdata` is the place of its picture in `Evaluation.pictures`, which the page shows over it.
    """
    figure = rows_of([360], left=56)
    pictures = {
        (one.method, one.subject, one.prompt): place
        for place, one in enumerate(evaluation.pictures)
    }
    points: dict[tuple[str, str, str], list[tuple[float, float]]] = defaultdict(list)
    for one in evaluation.images:
        points[one.method, one.subject, one.prompt].append((one.text_score, one.subject_score))
    overall = [one for one in evaluation.summaries if one.group == ALL]
    for place, summary in enumerate(overall):
        color = _COLORS[place % len(_COLORS)]
        held = {key: values for key, values in points.items() if key[0] == summary.method}
        means = [
            tuple(fmean(column) for column in zip(*values, strict=True)) for values in held.values()
        ]
        figure.add_scatter(
            x=[text for text, _ in means],
            y=[subject for _, subject in means],
            mode="markers",
            name=plot_text(summary.method),
            showlegend=False,
            marker={"color": color, "size": 7, "opacity": 0.4},
            customdata=[pictures.get(key) for key in held],
            hovertext=[
                hover(
                    f"<b>{plot_text(method)}</b>",
                    plot_text(subject),
                    plot_text(prompt, 48),
                    f"subject {score(mean)}, text {score(text)}",
                )
                for (method, subject, prompt), (text, mean) in zip(held, means, strict=True)
            ],
            hovertemplate="%{hovertext}<extra></extra>",
            row=1,
            col=1,
        )
    for place, summary in enumerate(overall):
        _add_mean(
            figure, summary.method, summary.text, summary.subject, _COLORS[place % len(_COLORS)]
        )
    figure.update_xaxes(title=f"text: {plot_text(evaluation.text_unit)}")
    figure.update_yaxes(title={"text": "subject: cosine to references", "standoff": 4})
    add_keys(figure, (1,))
    return figure


def evaluation_finding(evaluation: Evaluation) -> str:
    """One sentence: how the first two methods differ on what both were asked, or what the only one scores."""
    over_all = [one for one in evaluation.differences if one.group == ALL]
    if over_all:
        return _difference_finding(over_all[0])
    (only, *_) = evaluation.summaries
    return (
        f"{shown(only.method)} scores {_with_interval(only.subject)} in subject and {_with_interval(only.text)} in "
        f"text, over {number(only.images)} pictures."
    )


def examples(evaluation: Evaluation | None) -> tuple[Example, ...]:
    """What the small pictures of an evaluation show."""
    if evaluation is None:
        return ()
    first = {(one.method, one.subject, one.prompt): one for one in reversed(evaluation.images)}
    found = [first[one.method, one.subject, one.prompt] for one in evaluation.pictures]
    return tuple(
        Example(one.method, one.subject, one.prompt, one.seed, one.subject_score, one.text_score)
        for one in found
    )


def example_rows(shown: Sequence[Example]) -> list[ExampleRow]:
    """The examples as rows of the same subject in the same prompt."""
    places = {(one.subject, one.prompt, one.method): place for place, one in enumerate(shown)}
    methods = example_methods(shown)
    return [
        ExampleRow(
            subject, prompt, tuple(places.get((subject, prompt, method)) for method in methods)
        )
        for subject, prompt in dict.fromkeys((one.subject, one.prompt) for one in shown)
    ]


def example_methods(shown: Sequence[Example]) -> list[str]:
    """The methods that have examples, in order."""
    return list(dict.fromkeys(one.method for one in shown))


def example_finding(shown: Sequence[Example]) -> str:
    """One sentence: in how many rows the first method's picture scores above the second's."""
    first, *others = example_methods(shown)
    if not others:
        return f"{number(len(shown))} pictures by {quoted(first)}."
    pairs = [
        (shown[row.places[0]], shown[row.places[1]])
        for row in example_rows(shown)
        if row.places[0] is not None and row.places[1] is not None
    ]
    return (
        f"Of {number(len(pairs))} pairs of pictures of {quoted(first)} and {quoted(others[0])}, the first is more like "
        f"its subject in {_wins([one.subject_score - other.subject_score for one, other in pairs])}, and follows the "
        f"prompt better in {_wins([one.text_score - other.text_score for one, other in pairs])}."
    )


def without_small_pictures(evaluation: Evaluation | None) -> Evaluation | None:
    """The scores alone: the page holds each picture once, as an image."""
    return evaluation and replace(evaluation, pictures=())


def comparison_figure(comparison: Comparison) -> "Figure":
    """Published rows as rings, the user's as diamonds with their intervals, in the colours of the methods."""
    figure = rows_of([360], left=56)
    both = [
        row
        for row in comparison.rows
        if row.reference.subject is not None and row.reference.text is not None
    ]
    for method in dict.fromkeys(row.reference.method for row in both):
        held = [row.reference for row in both if row.reference.method == method]
        color = _PUBLISHED.get(method, MUTED)
        figure.add_scatter(
            name=method,
            showlegend=method in _PUBLISHED,
            x=[row.text for row in held],
            y=[row.subject for row in held],
            mode="markers",
            line={"color": color},
            marker={"color": color, "size": 9, "symbol": "circle-open", "line": {"width": 1.5}},
            hovertext=[
                hover(
                    f"<b>{method}</b> on {row.model}",
                    f"published, {row.table} table",
                    f"subject {score(row.subject)}, text {score(row.text)}",
                )
                for row in held
            ],
            hovertemplate="%{hovertext}<extra></extra>",
            row=1,
            col=1,
        )
    ours = {
        (row.reference.model, row.reference.method): (row.subject, row.text)
        for row in comparison.rows
    }
    ours |= {(one.model, one.method): (one.subject, one.text) for one in comparison.others}
    for (model, method), (subject, text) in ours.items():
        if subject is not None and text is not None:
            _add_mean(
                figure,
                f"{method} on {model}",
                text,
                subject,
                _PUBLISHED.get(method, MUTED),
                key=False,
            )
    figure.update_xaxes(title="text score")
    figure.update_yaxes(title={"text": "subject score", "standoff": 4})
    add_keys(figure, (1,))
    return figure


def comparison_finding(comparison: Comparison) -> str:
    """One sentence: how many published rows have a run beside them."""
    held = sum(row.subject is not None for row in comparison.rows)
    more = len(comparison.others)
    return f"{held} of {len(comparison.rows)} published rows have a run of yours beside them" + (
        f"; {more} of your methods have no published row." if more else "."
    )


def prompt_rows(evaluation: Evaluation) -> list[tuple[PromptScore, dict[str, PromptScore]]]:
    """For each prompt, in order, one score to name it by and those of all methods."""
    rows: dict[str, dict[str, PromptScore]] = defaultdict(dict)
    for one in evaluation.by_prompt:
        rows[one.prompt][one.method] = one
    return [(next(iter(scores.values())), scores) for scores in rows.values()]


def overall_methods(evaluation: Evaluation) -> list[str]:
    """The methods, in order."""
    return list(dict.fromkeys(one.method for one in evaluation.summaries))


def interval_text(interval: Interval | None) -> str:
    """The ends of an interval; a dash where it has none."""
    if interval is None or interval.low is None or interval.high is None:
        return "–"
    return f"{score(interval.low)} to {score(interval.high)}"


def score(value: float | None) -> str:
    """Three decimals, so that a column's digits stand under each other; a dash for what was not published."""
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


def _wins(differences: Sequence[float]) -> str:
    """How many are above zero; and how many below, with ties left over."""
    return f"{sum(one > 0 for one in differences)} and less so in {sum(one < 0 for one in differences)}"


def _add_mean(
    figure: "Figure", name: str, text: Interval, subject: Interval, color: str, *, key: bool = True
) -> None:
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
                f"subject {score(subject.mean)}, {interval_text(subject)}",
                f"text {score(text.mean)}, {interval_text(text)}",
                f"{subject.subjects} subjects, {subject.values} subject-seeds",
            )
        ],
        hovertemplate="%{hovertext}<extra></extra>",
        row=1,
        col=1,
    )


def _bars(interval: Interval, color: str) -> dict[str, object] | None:
    if interval.low is None or interval.high is None:
        return None
    return {
        "array": [interval.high - interval.mean],
        "arrayminus": [interval.mean - interval.low],
        "color": color,
        "thickness": 1.5,
        "width": 4,
    }


def _difference_finding(one: Difference) -> str:
    return (
        f"Over {number(one.cells)} pairs of pictures of the same subject, prompt and seed, {shown(one.first)} less "
        f"{shown(one.second)} is {_signed(one.subject)} in subject and {_signed(one.text)} in text."
    )


def _signed(interval: Interval) -> str:
    sign = "+" if interval.mean > 0 else ""
    if interval.low is None or interval.high is None:
        return sign + score(interval.mean)
    certain = "" if interval.low > 0 or interval.high < 0 else ", which holds 0"
    return f"{sign}{score(interval.mean)} (95 % interval {interval_text(interval)}{certain})"


def _with_interval(interval: Interval) -> str:
    return f"{score(interval.mean)} (95 % interval {interval_text(interval)})"
