"""`dti-geom similarity`."""

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .inputs import read_embeddings_or_skip
from .output import print_json, print_line, print_section


def similarity(
    paths: Annotated[
        list[Path], typer.Argument(metavar="FILE|DIR", help="Embedding files, or folders of them.")
    ],
    out: options.Out = None,
    json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Show how alike learned tokens are.

    Compares the mean vectors of tokens by direction: the nearest others of each, the matrix of
    cosines of up to 12 tokens, how near each lies to the mean direction of all, and how much of
    their spread the first principal directions hold. --json has the whole matrix, and --out writes
    similarity.json and index.html, which draws it.
    """
    from dti_geom.editing.concepts import concepts_of
    from dti_geom.editing.similarity import likeness
    from dti_geom.reporting.folder import write_result_page
    from dti_geom.reporting.registry import section_of

    result = likeness(concepts_of(read_embeddings_or_skip(paths)))
    page = None
    if out is not None:
        page = write_result_page(out, "similarity", "learned tokens", result, overwrite=overwrite)
    if json:
        print_json(result)
        return
    print_section(section_of(result))
    if page is not None:
        print_line(str(page))
