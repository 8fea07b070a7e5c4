"""`dti-geom convert`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from . import options
from .inputs import folders_below, read_embeddings_or_skip
from .output import print_error, print_json, print_line, print_notice, print_section
from .progress import reading_progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dti_geom.editing.conversion import Converted
    from dti_geom.reporting.blocks import Section, Value


def convert(
    paths: Annotated[
        list[Path], typer.Argument(metavar="FILE|DIR", help="Embedding files, or folders of them.")
    ],
    to: Annotated[
        Literal["same", "diffusers", "webui", "sdxl", "kohya", "comfyui", "onetrainer", "card"],
        typer.Option("--to", help="The layout to write; same: the one that each file has."),
    ] = "same",
    rescale: Annotated[
        str | None,
        typer.Option(
            "--rescale",
            metavar="MAGNITUDE",
            help="New norm: published (the published mean), a number, ×0.5 of each vector's own, "
            "or with --model mean, median, min, max, token:WORD, 2*mean and the like. One for each "
            "encoder: clip_l=0.387,clip_g=0.4515.",
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            "--only",
            metavar="VECTORS",
            help="What --rescale changes: inflated, short, or indices of vectors from 0, as 3,5.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="The model whose vocabulary --rescale refers to."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            "--token", help="A new name for the token, or the name of a tensor stored without one."
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", callback=options.writable, help="Folder for the new files."),
    ] = Path("converted"),
    json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Write an embedding in another tool's layout, at another norm if wanted.

    Reads every layout that `inspect` reads. diffusers: a folder with learned_embeds.safetensors,
    and learned_embeds_2.safetensors for a second text encoder. webui: a .pt file. sdxl: clip_l and
    clip_g in one .safetensors file. kohya: emb_params, or clip_l and clip_g, in a .safetensors
    file. comfyui and onetrainer: a .safetensors file with each encoder's key. card: a PNG that a
    web UI loads. Vectors are copied bit for bit unless rescaled; rescaling keeps their directions.
    The file records the norms before and after.

    Files of a folder keep their places below --out. What cannot be written is reported and does not
    stop the others.
    """
    from dti_geom.editing import convert as convert_files
    from dti_geom.models import open_encoders

    files = read_embeddings_or_skip(paths, token)
    with reading_progress() as progress:
        result = convert_files(
            files,
            to,
            out,
            rescale_to=rescale,
            encoders=open_encoders(model, progress=progress) if model and rescale else (),
            only=only,
            token=token,
            folders=folders_below(paths),
            overwrite=overwrite,
        )
    for failure in result.failures:
        print_error(f"{failure.source}: {failure.reason}")
    for converted in result.written:
        if converted.left_out:
            print_notice(
                f"{converted.sources[0]}: left out {', '.join(converted.left_out)}, which is added "
                "behind the encoder and is no token."
            )
    if json:
        print_json(result.written)
        return
    print_section(_norms_section(result.written))
    for converted in result.written:
        for file in converted.files:
            print_line(file)


def _norms_section(results: "Sequence[Converted]") -> "Section":
    from dti_geom.reporting.blocks import Column, Section, Table

    columns = [
        Column("token", kind="token"),
        Column("tower", kind="token"),
        Column("vector"),
        Column("norm before"),
        Column("norm after"),
    ]
    rows: list[list[Value]] = []
    for result in results:
        rows += [
            [result.token, vector.tower, vector.index, vector.norm_before, vector.norm_after]
            for vector in result.vectors
        ]
    return Section("Converted", [Table("", columns, rows)])
