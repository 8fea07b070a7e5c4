"""`dti-geom schema`."""

from typing import Annotated

import typer

from .output import print_json


def schema(
    result: Annotated[
        str | None,
        typer.Argument(metavar="RESULT", help="Which result; without it, all are listed."),
    ] = None,
) -> None:
    """Print the JSON Schema of a result.

    It describes what --json prints. A file that --out writes holds the same under its key `result`,
    beside `kind`, `format` and `tool`.
    """
    from dti_geom.reporting.registry import SECTIONS
    from dti_geom.reporting.schemas import schema_of

    if result is None:
        print("\n".join(SECTIONS))
    else:
        print_json(schema_of(result))
