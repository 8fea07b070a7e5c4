"""`dti-geom inspect`."""

import os
from collections import defaultdict
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
    paths: Annotated[
        list[Path], typer.Argument(metavar="FILE|DIR", help="Embedding files, or folders of them.")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="Hold norms against this model instead of published means."
        ),
    ] = None,
    out: options.Out = None,
    json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """What is in embedding files, what is wrong with it, what to do.

    Reads every layout in use: diffusers, web-UI, SDXL, and the original latent-diffusion pickles. Nothing in a file is
    ever executed. Inflation is a vector's norm over the mean token norm of --model, or else over the published mean
    for its width. With --model each vector also gets its percentile among the tokens and the tokens nearest to it.
    Checkpoints of one folder show how far each has turned. --out writes inspection.json and index.html.
    """
    from dti_geom.models import open_encoders
    from dti_geom.probes import inspect_files

    files, failures = read_embedding_paths(paths)
    with reading_progress() as progress:
        results = inspect_files(
            files, open_encoders(model, progress=progress) if model else (), model or ""
        )
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
        ["format", "step", "token", "index", "width", "norm", "inflation"],
        [
            (
                file.format,
                file.step,
                one.token,
                one.index,
                one.dim,
                one.norm,
                None if one.inflation is None else f"×{one.inflation:.3g}",
            )
            for file, one in vectors
        ],
        [os.path.relpath(file.path, shared or ".") for file, _ in vectors],
    )
    if any(one.nearest for _, one in vectors):
        print_table(
            "Among the tokens",
            ["token", "index", "percentile of norm", "nearest", "copy of"],
            [
                (
                    one.token,
                    one.index,
                    one.percentile,
                    " ".join(near.token for near in one.nearest),
                    one.copy_of,
                )
                for _, one in vectors
            ],
        )
    if turned := [(file, one, one.turn) for file, one in vectors if one.turn]:
        print_table(
            "While training",
            ["token", "index", "step", "norm", "° from first", "° from previous"],
            [
                (one.token, one.index, file.step, one.norm, turn.from_first, turn.from_previous)
                for file, one, turn in turned
            ],
        )
    for width in sorted({vector.dim for _, vector in vectors}):
        one = next(vector for _, vector in vectors if vector.dim == width)
        tower = (
            f"text encoder {one.tower}"
            if one.tower in ("1", "2")
            else one.tower or "no encoder known here"
        )
        against = (
            f"against the {one.reference}"
            if one.reference
            else "unknown, no mean is published: give --model"
        )
        print_line(f"width {width}: {tower}; inflation {against}")
    print_line()
    advised = defaultdict(list)
    for result in results:
        advised[result.advice].append(os.path.relpath(result.path, shared or "."))
    for advice, names in advised.items():
        print_line(f"{', '.join(names)}: {advice}")
