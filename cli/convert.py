"""`dti-geom convert`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from . import options
from .inputs import read_embeddings_or_skip
from .output import print_json, print_line, print_section
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
        Literal["diffusers", "webui", "sdxl", "kohya"],
        typer.Option("--to", help="The layout to write."),
    ],
    rescale: Annotated[
        str | None,
        typer.Option(
            "--rescale",
            metavar="MAGNITUDE",
            help="New norm: a number, or with --model mean, median, min, max, token:WORD, 2*mean "
            "and the like.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="The model whose vocabulary --rescale refers to."),
    ] = None,
    token: Annotated[str | None, typer.Option("--token", help="A new name for the token.")] = None,
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
    file. Vectors are copied bit for bit unless rescaled; rescaling keeps their directions. The file
    records the norms before and after.
    """
    from dti_geom.editing import convert as convert_files
    from dti_geom.models import open_encoders

    files = read_embeddings_or_skip(paths)
    with reading_progress() as progress:
        results = convert_files(
            files,
            to,
            out,
            rescale_to=rescale,
            encoders=open_encoders(model, progress=progress) if model and rescale else (),
            token=token,
            overwrite=overwrite,
        )
    if json:
        print_json(results)
        return
    print_section(_norms_section(results))
    for result in results:
        for file in result.files:
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
