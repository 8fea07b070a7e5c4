"""`dti-geom interpolate`."""

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .generate import (
    AdapterScale,
    BatchSize,
    Count,
    Dtype,
    Guidance,
    Seeds,
    Size,
    Steps,
    Tokens,
    chosen_seeds,
    open_painter,
)
from .output import print_json, print_line, print_section
from .progress import working_progress

RESULT, GRID, FILM, PAGE = (
    "interpolation.json",
    "interpolation.png",
    "interpolation.webp",
    "index.html",
)


def interpolate(
    ends: Annotated[
        list[str],
        typer.Argument(help="Two tokens, or the four corners of a square.", metavar="A B [C D]"),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            callback=options.writable,
            help="Folder for result, pictures, animation and page.",
        ),
    ],
    model: options.Model = "mini",
    embedding: Tokens = None,
    adapter_scale: AdapterScale = 1.0,
    prompt: Annotated[
        str, typer.Option("--prompt", "-p", help="Prompt; {} stands for the points of the path.")
    ] = "a photo of a {}",
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method", help="slerp, lerp or nlerp. May be given several times. Default: all."
        ),
    ] = None,
    points: Annotated[
        int | None,
        typer.Option(
            "--points",
            min=2,
            help="Points of a path, ends included. Default: 9, or 5 × 5 in a square.",
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            "--encoder",
            help="Model that compares the pictures: mini, dinov2, clip, siglip, Hub id or folder.",
        ),
    ] = None,
    seed: Seeds = None,
    seeds: Count = None,
    steps: Steps = None,
    guidance: Guidance = None,
    size: Size = None,
    batch_size: BatchSize = None,
    json: options.Json = False,
    overwrite: options.Overwrite = False,
    device: options.Device = "cpu",
    dtype: Dtype = None,
) -> None:
    """Paint what lies between two tokens, or in a square of four.

    Shows pictures, norms, turning speed and smoothness by slerp, lerp and nlerp. A token is one of
    --embedding or a word. Writes interpolation.json, the page index.html with a slider for each
    row, interpolation.png (all rows), interpolation.webp (animated) and the pictures. Without
    --encoder, pictures of mini are compared by its own scorer; those of other models are not
    compared.
    """
    from dti_geom.errors import FileExists
    from dti_geom.evaluation import interpolate as walk
    from dti_geom.evaluation import load_tokens, save_film, save_grid
    from dti_geom.evaluation.interpolation import PATHS, with_thumbnails
    from dti_geom.evaluation.learned import token_files
    from dti_geom.models.catalog import profile_of
    from dti_geom.models.image_encoders import open_image_encoder
    from dti_geom.reporting.folder import write_result_page
    from dti_geom.reporting.sections.interpolation import interpolation_section

    for kept in (RESULT, GRID, FILM, PAGE):  # check before minutes of painting
        if (out / kept).exists() and not overwrite:
            raise FileExists(
                f"{out / kept} exists already. Choose another --out, or pass --overwrite to "
                "replace it."
            )
    drawn, files = chosen_seeds(seed, seeds), token_files(embedding or ())
    compared = encoder or profile_of(model).image_encoder
    painter = open_painter(model, device, dtype.value if dtype else None)
    load_tokens(painter, files, adapter_scale=adapter_scale)
    with working_progress() as progress:
        result = walk(
            painter,
            ends,
            out / "pictures",
            methods=method or list(PATHS),
            points=points or (9 if len(ends) == 2 else 5),
            prompt=prompt,
            seeds=drawn,
            encoder=open_image_encoder(compared, device=device) if compared else None,
            steps=steps,
            guidance=guidance,
            size=size,
            batch_size=batch_size,
            progress=progress,
        )
    save_grid(result, out / "pictures", out / GRID, overwrite=overwrite)
    save_film(result, out / "pictures", out / FILM, overwrite=overwrite)
    shown = with_thumbnails(result, out / "pictures")
    page = write_result_page(out, "interpolation", model, shown, overwrite=overwrite)
    if json:
        print_json(result)
        return
    print_section(interpolation_section(shown))
    print_line(str(page))
