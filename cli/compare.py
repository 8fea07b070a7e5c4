"""`dti-geom compare`."""

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .output import print_json, print_line, print_section


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
    """Show the paper's tables beside your scores.

    Each row has the published value, yours with its 95 % interval, and the difference. Rows are
    matched by model and method. A row without a run says "not run"; a result without a published
    row stands in a table of its own. Notes say where a result departs from the paper's experiment.
    """
    from dti_geom.evaluation.reference import compare as beside
    from dti_geom.reporting.folder import read_result, write_result_page
    from dti_geom.reporting.sections.comparison import comparison_section

    evaluations = [read_result(path, "evaluation") for path in results]
    result = beside(evaluations)
    page = None
    if out is not None:
        models = ", ".join(dict.fromkeys(evaluation.model for evaluation in evaluations))
        page = write_result_page(out, "comparison", models, result, overwrite=overwrite)
    if json:
        print_json(result)
        return
    print_section(comparison_section(result))
    if page is not None:
        print_line(str(page))
