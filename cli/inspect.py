"""`dti-geom inspect`."""

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .inputs import read_embedding_paths
from .output import print_error, print_json, print_line, print_section
from .progress import reading_progress


def inspect(
    paths: Annotated[
        list[Path], typer.Argument(metavar="FILE|DIR", help="Embedding files, or folders of them.")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Compare norms with this model's vocabulary, not with published means.",
        ),
    ] = None,
    out: options.Out = None,
    json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Show what is in embedding files, what is wrong with them, and what to do.

    Reads every layout in use: diffusers, web-UI, SDXL, and the original latent-diffusion pickles.
    Nothing in a file is ever executed. Inflation is a vector's norm divided by the mean token norm
    of --model, or by the published mean for its width. With --model, each vector also gets the
    percentile of its norm and its nearest tokens. Checkpoints of one folder show how far each has
    turned, and the learning rate that the growth of their norm amounts to. --out writes
    inspection.json and index.html.
    """
    from dti_geom.models import open_encoders
    from dti_geom.probes.inspection import inspect_files
    from dti_geom.reporting.folder import write_result_page
    from dti_geom.reporting.registry import section_of

    files, failures = read_embedding_paths(paths)
    with reading_progress() as progress:
        result = inspect_files(
            files, open_encoders(model, progress=progress) if model else (), model or ""
        )
    page = None
    if out is not None and result.files:
        name = model or "published means"
        page = write_result_page(out, "inspection", name, result, overwrite=overwrite)
    if json:
        print_json(result.files)
    elif result.files:
        print_section(section_of(result))
        if page is not None:
            print_line(str(page))
    for failure in failures:
        print_error(str(failure))
    if failures:
        raise typer.Exit(1)
