"""`dti-geom report`."""

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .inputs import read_embeddings_or_skip
from .output import print_json, print_line
from .progress import working_progress


def report(
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A name of `dti-geom models`, a Hub id or a folder. Default: the runs' model, or "
            "mini.",
        ),
    ] = None,
    embedding: options.Embeddings = None,
    word: Annotated[
        list[str] | None,
        typer.Option(
            "--word", "-w", help="A word to show the neighbours of. May be given several times."
        ),
    ] = None,
    training: Annotated[
        list[Path] | None,
        typer.Option(
            "--run",
            metavar="DIR",
            help="Folder of a finished training run. May be given several times.",
        ),
    ] = None,
    interpolation: Annotated[
        Path | None,
        typer.Option("--interpolation", metavar="DIR", help="Folder of `dti-geom interpolate`."),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option("--evaluation", metavar="DIR", help="Folder of `dti-geom evaluate`."),
    ] = None,
    comparison: Annotated[
        Path | None,
        typer.Option("--comparison", metavar="DIR", help="Folder of `dti-geom compare`."),
    ] = None,
    sweep: Annotated[
        Path | None, typer.Option("--sweep", metavar="DIR", help="Folder of `dti-geom sweep`.")
    ] = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full/--quick",
            help="Also run the encoder: swap, attenuation, stagnation, effects and attention.",
        ),
    ] = False,
    paint: Annotated[
        int,
        typer.Option(
            "--paint",
            metavar="SEEDS",
            min=0,
            help="Paint what the runs learned at nine lengths, ×0.25 to ×64 of the mean norm, in "
            "two prompts, from so many seeds: 18 pictures per run and seed. The page's slider "
            "moves through them.",
        ),
    ] = 0,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="SECTION",
            help="Measure this section again and keep the others. May be given several times.",
        ),
    ] = None,
    redraw: Annotated[
        bool,
        typer.Option("--redraw", help="Draw the page of --out again from the results kept there."),
    ] = False,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", callback=options.writable, help="Folder for index.html and results/."
        ),
    ] = Path("report"),
    json: options.Json = False,
    overwrite: options.Overwrite = False,
    device: options.Device = "cpu",
) -> None:
    """Show everything known about a model on one interactive page that opens offline.

    Norms with learned tokens marked, neighbour tables and inspected embeddings; with --full, what
    magnitude does inside the encoder; curves and previews of training runs; and results of other
    commands: pictures between tokens, scores, sweeps.

    Each section's result is kept in the folder. It is measured again only when its inputs change.
    """
    from dti_geom.reporting.build import build_report, redraw_report

    if redraw:
        built = redraw_report(out)
    else:
        saved = {
            "interpolation": interpolation,
            "evaluation": evaluation,
            "comparison": comparison,
            "sweep": sweep,
        }
        with working_progress() as progress:
            built = build_report(
                out,
                model=model,
                embeddings=read_embeddings_or_skip(embedding),
                words=word or (),
                runs=training or (),
                saved={name: path for name, path in saved.items() if path is not None},
                full=full,
                paint=paint,
                only=only or (),
                overwrite=overwrite,
                device=device,
                progress=progress,
            )
    if json:
        print_json(built.report)
        return
    if built.reused:
        print_line(f"unchanged: {', '.join(built.reused)}")
    print_line(str(built.page))
