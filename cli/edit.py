"""`dti-geom edit`."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from . import options
from .inputs import read_embeddings_or_skip
from .output import print_json, print_line

if TYPE_CHECKING:
    from dti_geom.editing.concepts import Concept


def edit(
    paths: Annotated[
        list[Path], typer.Argument(metavar="FILE|DIR", help="Embedding files, or folders of them.")
    ],
    select: Annotated[
        str | None,
        typer.Option("--select", metavar="INDICES", help="Keep these vectors, from 0, as 0,2."),
    ] = None,
    drop: Annotated[
        str | None, typer.Option("--drop", metavar="INDICES", help="Leave these vectors out.")
    ] = None,
    resize: Annotated[
        int | None,
        typer.Option("--resize", help="Number of vectors; neighbours are averaged or repeated."),
    ] = None,
    average: Annotated[
        bool, typer.Option("--average", help="One vector: the mean direction at the mean norm.")
    ] = False,
    concatenate: Annotated[
        bool, typer.Option("--concatenate", help="Join the vectors of all tokens, in this order.")
    ] = False,
    token: Annotated[str | None, typer.Option("--token", help="A new name for the token.")] = None,
    to: Annotated[
        Literal["same", "diffusers", "webui", "sdxl", "kohya", "comfyui", "onetrainer", "card"],
        typer.Option("--to", help="The layout to write; same: the one of the first file."),
    ] = "same",
    out: Annotated[
        Path,
        typer.Option("--out", "-o", callback=options.writable, help="Folder for the new file."),
    ] = Path("edited"),
    json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Change which vectors a token has.

    Every text encoder of the token changes alike. --concatenate takes several tokens and comes
    first; then --select, --drop, --resize and --average, in this order. Vectors that are kept keep
    their bits.
    """
    from dti_geom.editing import rearranging
    from dti_geom.editing.concepts import concepts_of
    from dti_geom.editing.conversion import output_path, same_layout
    from dti_geom.errors import EditingError
    from dti_geom.files import write_embeddings

    concepts = concepts_of(read_embeddings_or_skip(paths))
    if concatenate:
        name = token or concepts[0].name
        concepts = [rearranging.concatenate(concepts, name)]
    if len(concepts) != 1:
        labels = ", ".join(concept.label for concept in concepts)
        raise EditingError(
            f"found {len(concepts)} tokens ({labels}). Name the files of one, or join them with "
            "--concatenate."
        )
    concept: Concept = concepts[0] if token is None else concepts[0].renamed(token)
    if select is not None:
        concept = rearranging.select(concept, _indices("--select", select))
    if drop is not None:
        concept = rearranging.drop(concept, _indices("--drop", drop))
    if resize is not None:
        concept = rearranging.resize(concept, resize)
    if average:
        concept = rearranging.average(concept)
    layout = same_layout(concept) if to == "same" else to
    path = output_path(concept.files[0], concept.name, layout, out)
    files = write_embeddings(path, concept.tokens, layout, overwrite=overwrite)
    if json:
        counts = [len(part.vectors) for part in concept.tokens]
        print_json(
            {"token": concept.name, "vectors": counts, "files": [str(file) for file in files]}
        )
        return
    counted = " + ".join(str(len(part.vectors)) for part in concept.tokens)
    print_line(f"{concept.name}: {counted} vectors")
    for file in files:
        print_line(str(file))


def _indices(option: str, text: str) -> list[int]:
    from dti_geom.errors import EditingError

    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise EditingError(f"{option} {text}: expected indices of vectors from 0 such as 0,2.")
    return [int(part) for part in text.split(",")]
