"""Scores for other programs: a CSV of every picture, a LaTeX table of the methods."""

from collections.abc import Iterable, Sequence
from typing import Any

from dti_geom.evaluation.evaluation import ALL, Evaluation
from dti_geom.evaluation.scores import ImageScore
from dti_geom.files.csv_text import csv_text
from dti_geom.statistics import Interval

COLUMNS = (
    "method",
    "subject",
    "run",
    "prompt",
    "group",
    "seed",
    "file",
    "subject_score",
    "text_score",
)
_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "κ": r"$\kappa$",
}


def csv_of_images(evaluation: Evaluation) -> str:
    """Return a CSV with a line for each picture, and a column of 0 and 1 for each check.

    A check that a picture was not asked for, or that cannot decide about its subject, is empty.
    """
    checks: dict[str, None] = {}  # in the order of their first appearance
    for score in evaluation.images:
        checks |= dict.fromkeys(score.checks)
    rows = [([getattr(score, name) for name in COLUMNS], score) for score in evaluation.images]
    return csv_of_scores(COLUMNS, rows, list(checks))


def csv_of_scores(
    columns: Sequence[str], rows: Iterable[tuple[Sequence[Any], ImageScore]], checks: Sequence[str]
) -> str:
    """Return a CSV of rows of values under `columns`, followed by the checks of their pictures."""
    lines: list[list[Any]] = [[*columns, *checks]]
    for values, score in rows:
        decided = score.decided
        results = (int(decided[name]) if name in decided else "" for name in checks)
        lines.append([*values, *results])
    return csv_text(lines)


def latex_table(evaluation: Evaluation) -> str:
    """Return every method's scores over all prompts with 95 % intervals, for LaTeX's booktabs."""
    rows = []
    for summary in evaluation.summaries:
        if summary.group == ALL:
            cells = _escaped(summary.method), _cell(summary.subject), _cell(summary.text)
            rows.append(" & ".join(cells) + f" & {summary.images} \\\\")
    caption = (
        f"% {evaluation.model}, prompts {evaluation.prompts}, "
        f"seeds {', '.join(map(str, evaluation.seeds))}; "
        f"subject: cosine by {evaluation.image_encoder}; "
        f"text: {evaluation.text_unit} by {evaluation.text_encoder}; "
        "95 % bootstrap intervals over subjects, training runs and seeds"
    )
    lines = [
        caption,
        *_ceiling_lines(evaluation),
        r"\begin{tabular}{lccr}",
        r"\toprule",
        r"method & subject & text & images \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _ceiling_lines(evaluation: Evaluation) -> list[str]:
    """A comment with what true pictures score; none where it is not known."""
    for summary in evaluation.summaries:
        if summary.group == ALL and summary.subject_ceiling is not None:
            text = "" if summary.text_ceiling is None else f", text {summary.text_ceiling:.3f}"
            return [f"% true pictures: subject {summary.subject_ceiling:.3f}{text}"]
    return []


def _cell(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{interval.mean:.3f}"
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
