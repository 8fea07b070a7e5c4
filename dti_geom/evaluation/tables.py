"""Scores as other programs take them: CSV of every picture, a LaTeX table of the methods."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from dti_geom.evaluation.evaluation import ALL, Evaluation
from dti_geom.evaluation.scores import ImageScore
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
    """A line for each picture; where there are checks, a column of 0 and 1 for each, empty where it was not asked."""
    checks = list(dict.fromkeys(name for one in evaluation.images for name in one.checks))
    return csv_of_scores(
        COLUMNS,
        [([getattr(one, name) for name in COLUMNS], one) for one in evaluation.images],
        checks,
    )


def csv_of_scores(
    columns: Sequence[str], rows: Iterable[tuple[Sequence[Any], ImageScore]], checks: Sequence[str]
) -> str:
    """Rows of values under `columns`, and behind each the checks of its picture."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*columns, *checks])
    for values, one in rows:
        writer.writerow(
            [*values, *(int(one.checks[name]) if name in one.checks else "" for name in checks)]
        )
    return file.getvalue()


def latex_table(evaluation: Evaluation) -> str:
    """Every method's scores over all prompts with their 95 % intervals, for the booktabs package."""
    rows = [
        f"{_escaped(one.method)} & {_cell(one.subject)} & {_cell(one.text)} & {one.images} \\\\"
        for one in evaluation.summaries
        if one.group == ALL
    ]
    caption = (
        f"% {evaluation.model}, prompts {evaluation.prompts}, seeds {', '.join(map(str, evaluation.seeds))}; subject: "
        f"cosine by {evaluation.image_encoder}; text: {evaluation.text_unit} by {evaluation.text_encoder}; 95 % "
        "bootstrap intervals over subjects and seeds"
    )
    head = "method & subject & text & images \\\\"
    lines = [
        caption,
        r"\begin{tabular}{lccr}",
        r"\toprule",
        head,
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _cell(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{interval.mean:.3f}"
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
