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
    vectors: Annotated[
        bool, typer.Option("--vectors", help="Also list every vector, and what is near it.")
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", help="List all tokens, not the most inflated alone.")
    ] = False,
    out: options.Out = None,
    json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Show what is in embedding files, what is wrong with them, and what to do.

    Reads every layout in use: diffusers, web-UI, SDXL, ComfyUI, OneTrainer, embedding cards, those
    inside a LoRA, and the original latent-diffusion pickles. Nothing in a file is ever executed.
    Inflation is a vector's norm divided by the mean token norm of --model, or by the published mean
    for its width. Lists one line for each token, the most inflated first, and one for all
    checkpoints of a run, with the learning rate that the growth of their norm amounts to. With
    --model, rows of the vocabulary are told from learned ones. Of a few files it also says what to
    do and what to type in each tool. --out writes inspection.json and index.html.
    """
    from dti_geom.models import open_encoders
    from dti_geom.probes.inspection import batch_command, inspect_files
    from dti_geom.probes.learned import learned_vectors, require_some_fit
    from dti_geom.reporting.folder import write_result_page
    from dti_geom.reporting.sections.inspection import listing_section

    files, failures = read_embedding_paths(paths)
    with reading_progress() as progress:
        encoders = open_encoders(model, progress=progress) if model else ()
        if model:
            widths = [encoder.token_table.shape[1] for encoder in encoders]
            require_some_fit(learned_vectors(files), widths, model)
        result = inspect_files(files, encoders, model or "")
    page = None
    if out is not None and result.files:
        name = model or "published means"
        page = write_result_page(out, "inspection", name, result, overwrite=overwrite)
    if json:
        print_json(result.files)
    elif result.files:
        command = batch_command(map(str, paths), model or "")
        print_section(
            listing_section(result, rows=None if every else 20, vectors=vectors, command=command)
        )
        if page is not None:
            print_line(str(page))
    for failure in failures:
        print_error(str(failure))
    if failures:
        raise typer.Exit(1)
