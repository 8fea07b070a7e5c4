"""`dti-geom translate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from . import options
from .inputs import read_embeddings_or_skip
from .output import print_json, print_line, print_section
from .progress import reading_progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dti_geom.editing.translation import Translated
    from dti_geom.reporting.blocks import Section, Value


def translate(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="FILE|DIR", help="The files of one token: all of its encoders."),
    ],
    target: Annotated[
        str, typer.Option("--target", "-t", help="The model to translate to, as for --model.")
    ],
    model: options.Model = "mini",
    method: Annotated[
        Literal["best", "procrustes", "ridge", "relative"],
        typer.Option("--method", help="best: the one that translates held-out words best."),
    ] = "best",
    rescale: Annotated[
        str,
        typer.Option(
            "--rescale",
            metavar="MAGNITUDE",
            help="Norm in the target's vocabulary: mean, median, token:WORD, 0.4 and the like.",
        ),
    ] = "mean",
    least: Annotated[
        float,
        typer.Option(
            "--least", min=0, max=1, help="Refuse if a smaller share of held-out words is found."
        ),
    ] = 0.5,
    to: options.Layout = "diffusers",
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            callback=options.writable,
            help="The file to write; a folder for diffusers.",
        ),
    ] = Path("translated"),
    json: options.Json = False,
    overwrite: options.Overwrite = False,
    seed: options.Seed = 0,
) -> None:
    """Translate a token into another model's text encoders.

    --model is the model it was trained for. Fits a map between the token tables on words that both
    vocabularies have as one token, by a rotation (Procrustes), ridge regression or relative
    representations. Directions are translated; the norm is one of the target's vocabulary. Always
    shows how well words are translated that the map was not fitted on: the rank of the right row in
    the whole vocabulary, and its cosine. A word counts as found among the 10 nearest rows. Writes
    nothing if too few are found.
    """
    from dti_geom.editing.concepts import concepts_of
    from dti_geom.editing.translation import translate as translate_token
    from dti_geom.errors import EditingError
    from dti_geom.models import open_encoders

    concepts = concepts_of(read_embeddings_or_skip(paths))
    if len(concepts) != 1:
        labels = ", ".join(concept.label for concept in concepts) or "none"
        raise EditingError(f"found {len(concepts)} tokens ({labels}). Name the files of one.")
    with reading_progress() as progress:
        result = translate_token(
            concepts[0],
            open_encoders(model, progress=progress),
            open_encoders(target, progress=progress),
            out,
            model=target,
            method=None if method == "best" else method,
            magnitude=rescale,
            least=least,
            layout=to,
            seed=seed,
            overwrite=overwrite,
        )
    if json:
        print_json(result)
        return
    print_section(_quality_section(result))
    for path in result.files:
        print_line(path)


def _quality_section(result: "Translated") -> "Section":
    """Show how well each map translates words that it was not fitted on."""
    from dti_geom.reporting.blocks import Column, Limits, Section, Table

    columns: Sequence[Column] = (
        Column("method", kind="text"),
        Column("used", kind="text"),
        Column("found", "%", digits=3),
        Column("median rank"),
        Column("cosine", digits=3),
        Column("held out"),
        Column("rows"),
        Column("from", kind="token"),
        Column("to", kind="token"),
    )
    rows: list[list[Value]] = [
        [
            quality.method,
            "yes" if quality.chosen else "",
            100 * quality.found,
            quality.median_rank,
            quality.cosine,
            quality.held_out,
            quality.rows,
            quality.source,
            quality.target,
        ]
        for quality in result.qualities
    ]
    limits = Limits(
        "How a learned token is translated. It lies off the vocabulary, and no word is known that "
        "it should become."
    )
    return Section(
        f"{result.token} for {result.model}", [Table("Held-out words", columns, rows), limits]
    )
