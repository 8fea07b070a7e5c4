"""`dti-geom merge`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from . import options
from .inputs import read_embeddings_or_skip
from .output import print_json, print_line, print_section
from .progress import reading_progress

if TYPE_CHECKING:
    from dti_geom.editing.merging import Merged
    from dti_geom.reporting.blocks import Section, Value


def merge(
    expression: Annotated[
        str,
        typer.Argument(
            metavar="EXPRESSION",
            help='Weighted names: a word, "several words", #id, a token of --embedding, or '
            "path:token where several files have it.",
        ),
    ],
    model: options.Model = "mini",
    embedding: options.Embeddings = None,
    method: Annotated[
        Literal["slerp", "lerp"],
        typer.Option(
            "--method",
            help="slerp: mean direction on the sphere. lerp: direction of the weighted sum.",
        ),
    ] = "slerp",
    token: Annotated[str, typer.Option("--token", help="The name of the blend.")] = "<merged>",
    to: options.Layout = "diffusers",
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            callback=options.writable,
            help="The file to write; a folder for diffusers.",
        ),
    ] = Path("merged"),
    json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Blend tokens into a new one, at an ordinary norm.

    Learned tokens and words of the vocabulary may be mixed. The norm is the weighted mean of the
    terms' norms, each first clamped between the 1st and 99th percentile of the vocabulary, so that
    an inflated token lends its direction and not its length. Prints how similar the blend is to
    each term.
    """
    from dti_geom.editing import merge as merge_tokens
    from dti_geom.models import open_encoders

    files = read_embeddings_or_skip(embedding)
    with reading_progress() as progress:
        encoders = open_encoders(model, progress=progress)
        result = merge_tokens(
            expression.strip(),
            encoders,
            files,
            out,
            method=method,
            token=token,
            layout=to,
            overwrite=overwrite,
        )
    if json:
        print_json(result)
        return
    print_section(_blend_section(result))
    for path in result.files:
        print_line(path)


def _blend_section(result: "Merged") -> "Section":
    """Show how similar the blend is to each of its terms."""
    from dti_geom.reporting.blocks import Column, Section, Table

    columns = [
        Column("term", kind="token"),
        Column("weight"),
        Column("term's norm"),
        Column("cosine"),
        Column("encoder", kind="token"),
        Column("vector"),
        Column("blend's norm"),
    ]
    rows: list[list[Value]] = []
    for blend in result.vectors:
        rows += [
            [term.name, term.weight, norm, similarity, blend.encoder, blend.index, blend.norm]
            for term, norm, similarity in zip(
                result.terms, blend.term_norms, blend.similarities, strict=True
            )
        ]
    title = f"{result.token} = {result.expression}, by {result.method}"
    return Section(title, [Table("", columns, rows)])
