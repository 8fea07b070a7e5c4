"""The section of a sweep: what each method scores, and what the norm has to do with it."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from dti_geom.evaluation.evaluation import ALL, Difference, Summary
from dti_geom.reporting.curves import add_keys
from dti_geom.reporting.plots import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    PAPER,
    VERMILLION,
    Lane,
    add_lanes,
    hover,
    lanes_height,
    log_axis,
    rows_of,
)
from dti_geom.reporting.sections.evaluation import interval_text, score
from dti_geom.reporting.text import number, plot_text, shown, times
from dti_geom.statistics import Interval
from dti_geom.sweeps import Course, Sweep

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_COLORS, _SYMBOLS = (BLUE, VERMILLION, GREEN, INK, MUTED), ("circle", "diamond", "square", "cross")
_DRAWS = 2000


def scores_figure(sweep: Sweep) -> "Figure":
    """Subject score above, text score below: every method's mean over all prompts with its 95 % interval."""
    overall = overall_summaries(sweep)
    height = lanes_height([_lane(one, one.subject) for one in overall])
    figure = rows_of([height, height])
    for row, name in ((1, "subject"), (2, "text")):
        intervals = [getattr(one, name) for one in overall]
        add_lanes(
            figure,
            [_lane(one, interval) for one, interval in zip(overall, intervals, strict=True)],
            row,
        )
        for trace, interval in zip(figure.data[-len(overall) :], intervals, strict=True):
            if interval.low is not None and interval.high is not None:
                ends = {
                    "array": [interval.high - interval.mean],
                    "arrayminus": [interval.mean - interval.low],
                }
                trace.error_x = ends | {"color": BLUE, "thickness": 2, "width": 5}
    figure.update_xaxes(title="subject: cosine to references", row=1, col=1)
    figure.update_xaxes(title=f"text: {plot_text(sweep.text_unit)}", row=2, col=1)
    return figure


def norm_scores_figure(sweep: Sweep) -> "Figure":
    """Every learned token's norm against its text score, at the end of its training and at checkpoints (faint)."""
    figure = rows_of([360], left=56)
    last = {
        (one.label, one.subject, one.seed): one.step
        for one in sorted(sweep.courses, key=lambda one: one.step)
    }
    for place, label in enumerate(dict.fromkeys(one.label for one in sweep.courses)):
        held = [one for one in sweep.courses if one.label == label]
        color = _COLORS[place % len(_COLORS)]
        ended = [one.step == last[one.label, one.subject, one.seed] for one in held]
        figure.add_scatter(
            name=plot_text(label),
            showlegend=True,
            x=[one.inflation for one in held],
            y=[one.text_score for one in held],
            mode="markers",
            line={"color": color},
            marker={
                "color": color,
                "size": [8 if end else 6 for end in ended],
                "opacity": [0.8 if end else 0.35 for end in ended],
                "symbol": _SYMBOLS[place // len(_COLORS) % len(_SYMBOLS)],
                "line": {"color": PAPER, "width": 0.5},
            },
            hovertext=[
                hover(
                    f"<b>{plot_text(one.label)}</b>",
                    f"{plot_text(one.subject)}, seed {one.seed}, after {one.step} updates",
                    f"norm {times(one.inflation)} the mean, text {score(one.text_score)}",
                    f"subject {score(one.subject_score)}",
                )
                for one in held
            ],
            hovertemplate="%{hovertext}<extra></extra>",
            row=1,
            col=1,
        )
    inflations = [one.inflation for one in sweep.courses]
    figure.update_xaxes(
        title="norm ÷ mean norm of the vocabulary",
        **log_axis(min(inflations), max(inflations), "×"),
    )
    figure.update_yaxes(title={"text": f"text: {plot_text(sweep.text_unit)}", "standoff": 4})
    add_keys(figure, (1,))
    return figure


def methods_finding(sweep: Sweep) -> str:
    """One sentence: who leads in each score, and how many differences are more than chance."""
    overall = overall_summaries(sweep)
    subject = max(overall, key=lambda one: one.subject.mean)
    text = max(overall, key=lambda one: one.text.mean)
    sentence = (
        f"{_named(subject)} looks most like its subject, {score(subject.subject.mean)} "
        f"({interval_text(subject.subject)}), and {_named(text)} follows prompts best, {score(text.text.mean)} "
        f"({interval_text(text.text)})"
    )
    pairs = overall_differences(sweep)
    if not pairs:
        return sentence + "."
    clear = [sum(is_clear(getattr(one, name)) for one in pairs) for name in ("subject", "text")]
    return (
        f"{sentence}; of {number(len(pairs))} pairs of methods, {number(clear[0])} differ in subject and "
        f"{number(clear[1])} in text by more than the 95 % interval of their paired difference."
    )


def norm_score_finding(sweep: Sweep) -> str:
    """One sentence: the rank correlation of norm and text score over all learned tokens."""
    found = rank_correlation(sweep.courses)
    if found is None:
        return "All learned tokens have the same norm, so nothing can depend on it."
    return (
        f"Over {number(len(sweep.courses))} learned tokens, norm and text score have a rank correlation of "
        f"{score(found.mean)} (95 % interval over subjects {interval_text(found)})."
    )


def rank_correlation(courses: Sequence[Course]) -> Interval | None:
    """Spearman's correlation of norm and text score, with a percentile bootstrap over subjects; None without a spread.

    Tokens of one subject are alike, so subjects are drawn, not tokens.
    """
    from scipy.stats import spearmanr

    by_subject: dict[str, list[Course]] = defaultdict(list)
    for one in courses:
        by_subject[one.subject].append(one)
    groups = [
        np.array([(one.inflation, one.text_score) for one in held]) for held in by_subject.values()
    ]
    rounded = np.round(np.concatenate(groups), 6)
    if np.ptp(rounded, axis=0).min() == 0:
        return None
    rng = np.random.default_rng(0)
    drawn = [
        spearmanr(
            np.concatenate([groups[place] for place in rng.integers(len(groups), size=len(groups))])
        ).statistic
        for _ in range(_DRAWS if len(groups) > 1 else 0)
    ]
    low, high = (
        (float(end) for end in np.nanquantile(drawn, [0.025, 0.975])) if drawn else (None, None)
    )
    return Interval(float(spearmanr(rounded).statistic), low, high, len(groups), len(courses))


def overall_summaries(sweep: Sweep) -> list[Summary]:
    """Every method's over all prompts."""
    return [one for one in sweep.summaries if one.group == ALL]


def overall_differences(sweep: Sweep) -> list[Difference]:
    """Every two methods' over all prompts."""
    return [one for one in sweep.differences if one.group == ALL]


def is_clear(interval: Interval) -> bool:
    """Whether a difference's interval leaves 0 out."""
    return (
        interval.low is not None
        and interval.high is not None
        and (interval.low > 0 or interval.high < 0)
    )


def by_group(sweep: Sweep) -> tuple[list[str], list[tuple[str, dict[str, Summary]]]]:
    """The groups of prompts, and for each method its summaries by group."""
    rows: dict[str, dict[str, Summary]] = defaultdict(dict)
    for one in sweep.summaries:
        if one.group != ALL:
            rows[one.method][one.group] = one
    return list(dict.fromkeys(one.group for one in sweep.summaries if one.group != ALL)), list(
        rows.items()
    )


def mean_inflation(sweep: Sweep) -> dict[str, float]:
    """Mean over a method's learned vectors of norm / mean norm."""
    held: dict[str, list[float]] = defaultdict(list)
    for one in sweep.norms:
        held[one.label].append(one.inflation)
    return {label: fmean(values) for label, values in held.items()}


def missing(sweep: Sweep) -> str:
    """What the figures lack, in words; empty when every cell is done."""
    states = [one.state for one in sweep.cells if one.state != "done"]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return (
        f"{len(states)} of {len(sweep.cells)} cells are not in these figures: {counts}."
        if states
        else ""
    )


def _lane(one: Summary, interval: Interval) -> Lane:
    name = plot_text(one.method)
    text = hover(
        f"<b>{name}</b>",
        f"{score(interval.mean)}, 95 % {interval_text(interval)}",
        f"{one.images} pictures",
    )
    return Lane(name, (interval.mean,), (text,), BLUE, "diamond")


def _named(one: Summary) -> str:
    return shown(one.method, 40)
