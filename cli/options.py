"""Options that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer


def writable(folder: Path | None) -> Path | None:
    """Return the folder of --out. Raises OSError before minutes of work if nothing fits there."""
    if folder is not None:
        from dti_geom.files.atomic import check_writable

        check_writable(folder)
    return folder


Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A name of `dti-geom models`, a Hub id (org/name), a pipeline or encoder folder, or a "
        "checkpoint (.safetensors). A name or id may end in @revision, a checkpoint in @model; "
        "mini in :gain=NUMBER, which multiplies its token and position tables.",
    ),
]
Embeddings = Annotated[
    list[Path] | None,
    typer.Option(
        "--embedding",
        "-e",
        metavar="FILE|DIR",
        help="A learned-embedding file, or a folder of them. May be given several times.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        callback=writable,
        help="Also keep the result, arrays and page in this folder.",
    ),
]
Layout = Annotated[
    Literal["diffusers", "webui", "sdxl", "kohya", "comfyui", "onetrainer", "card"],
    typer.Option("--to", help="The layout to write."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that exist in the output folder.")
]
Device = Annotated[str, typer.Option("--device", help="Where to compute: cpu, cuda, cuda:1, mps.")]


class Numbers(StrEnum):
    """The number types an encoder can compute in."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


Dtype = Annotated[
    Numbers,
    typer.Option(
        "--dtype", metavar="TYPE", help="Number type of the encoder: float32, float16 or bfloat16."
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the sampled words.")]
