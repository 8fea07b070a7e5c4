"""`dti-geom inspect`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .inputs import read_embedding_paths
from .output import keep_report, print_error, print_json, print_line, print_table, reading_progress

if TYPE_CHECKING:
    from dti_geom.probes import InspectedFile


def inspect(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE|DIR...", help="Embedding files, or folders of them.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Hold norms against this model instead of published means.")
    ] = None,
    out: options.Out = None,
    json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """What is in these embedding files, and which vectors are inflated, by how much.

    Reads every layout in use: diffusers, web-UI, SDXL, and the original latent-diffusion pickles. Nothing in a file is
    ever executed. Inflation is a vector's norm over the mean token norm of --model, or else over the published mean
    for its width. --out writes inspection.json and index.html.
    """
    from dti_geom.geometry import summarize_norms
    from dti_geom.models import open_encoders
    from dti_geom.probes import inspect_file, measured_reference

    files, failures = read_embedding_paths(paths)
    with reading_progress() as progress:
        references = {
            encoder.token_table.shape[1]: measured_reference(model, encoder.name, summarize_norms(encoder.token_table))
            for encoder in (open_encoders(model, progress=progress) if model else ())
        }
    results = tuple(inspect_file(file, references) for file in files)
    if out is not None and results:
        from dti_geom.reporting import Report

        report = Report(model or "published means", inspected=results)
        keep_report(out, report, "inspection.json", overwrite=overwrite)
    if json:
        print_json(results)
    elif results:
        _print_files(results)
    for failure in failures:
        print_error(str(failure))
    if failures:
        raise typer.Exit(1)


def _print_files(results: "Sequence[InspectedFile]") -> None:
    # The folder that all files share is said once, so that a row fits a line.
    shared = os.path.commonpath([os.path.dirname(result.path) for result in results])
    vectors = [(result, vector) for result in results for vector in result.vectors]
    print_table(
        f"{len(results)} files, {len(vectors)} vectors in {shared or '.'}",
        ["file", "format", "step", "token", "index", "width", "norm", "inflation"],
        [
            (
                os.path.relpath(result.path, shared or "."),
                result.format,
                result.step,
                vector.token,
                vector.index,
                vector.dim,
                vector.norm,
                None if vector.inflation is None else f"×{vector.inflation:.3g}",
            )
            for result, vector in vectors
        ],
    )
    for width in sorted({vector.dim for _, vector in vectors}):
        one = next(vector for _, vector in vectors if vector.dim == width)
        tower = one.tower or "no encoder known here"
        against = f"against the {one.reference}" if one.reference else "unknown, no mean is published: give --model"
        print_line(f"width {width}: {tower}; inflation {against}")
