"""`dti-geom compare`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .evaluate import print_accuracy, span
from .output import keep_report, print_json, print_line, print_table

if TYPE_CHECKING:
    from dti_geom.statistics import Interval


def compare(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULT", help="evaluation.json files, or folders of `dti-geom evaluate`."
        ),
    ],
    out: options.Out = None,
    json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """The paper's tables beside your scores.

    The same rows, the difference, and its interval. Rows are matched by model and method. A row without a run says so,
    a result that the paper has no row for stands below, and so does what keeps a result from being the paper's
    experiment.
    """
    from dti_geom.evaluation.reference import TABLES
    from dti_geom.evaluation.reference import compare as beside
    from dti_geom.reporting import Report, read_section

    evaluations = [read_section(path, "evaluation") for path in results]
    result = beside(evaluations)
    if out is not None:
        models = ", ".join(dict.fromkeys(one.model for one in evaluations))
        keep_report(out, Report(models, comparison=result), "comparison.json", overwrite=overwrite)
    if json:
        print_json(result)
        return
    for table, title in TABLES.items():
        print_table(
            title[0].upper() + title[1:],
            ["model", "method", "subject", "yours", "text", "yours"],
            [
                (
                    row.reference.model,
                    row.reference.method,
                    row.reference.subject,
                    "not run" if row.subject is None else row.subject.mean,
                    row.reference.text,
                    "not run" if row.text is None else row.text.mean,
                )
                for row in result.rows
                if row.reference.table == table
            ],
        )
    differences = [row for row in result.rows if row.subject_difference]
    if differences:
        print_table(
            "Yours less the paper's",
            ["model", "method", "subject", "95 %", "text", "95 %"],
            [
                (
                    row.reference.model,
                    row.reference.method,
                    *_pair(row.subject_difference),
                    *_pair(row.text_difference),
                )
                for row in differences
            ],
        )
    if result.others:
        print_table(
            "Without a row in the paper",
            ["model", "method", "subject", "95 %", "text", "95 %"],
            [
                (one.model, one.method, *_pair(one.subject), *_pair(one.text))
                for one in result.others
            ],
        )
    for note in result.notes:
        print_line(note)
    for evaluation in evaluations:
        print_accuracy(evaluation)
    if out is not None:
        print_line(str(out / "index.html"))


def _pair(interval: "Interval | None") -> tuple[float | None, str]:
    return (None, "") if interval is None else (interval.mean, span(interval))
