"""`dti-geom similarity`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .inputs import read_embeddings_or_skip
from .output import print_json, print_section

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dti_geom.editing.similarity import Likeness
    from dti_geom.reporting.blocks import Section, Value

_MATRIX = 12  # tokens whose matrix a terminal has room for


def similarity(
    paths: Annotated[
        list[Path], typer.Argument(metavar="FILE|DIR", help="Embedding files, or folders of them.")
    ],
    json: options.Json = False,
) -> None:
    """Show how alike learned tokens are.

    Compares the mean vectors of tokens by direction: the nearest others of each, the matrix of
    cosines of up to 12 tokens, how near each lies to the mean direction of all, and how much of
    their spread the first principal directions hold. --json has the whole matrix.
    """
    from dti_geom.editing.concepts import concepts_of
    from dti_geom.editing.similarity import likeness

    groups = likeness(concepts_of(read_embeddings_or_skip(paths)))
    if json:
        print_json(groups)
        return
    for group in groups:
        print_section(_section(group))


def _section(group: "Likeness") -> "Section":
    from dti_geom.reporting.blocks import Column, Finding, Section, Table

    shares = ", ".join(f"{100 * share:.1f} %" for share in group.principal)
    rows: list[list[Value]] = [
        [
            label,
            with_mean,
            nearest[0].label,
            nearest[0].cosine,
        ]
        for label, with_mean, nearest in zip(
            group.labels, group.with_mean or [None] * len(group.labels), group.nearest, strict=True
        )
    ]
    columns: Sequence[Column] = (
        Column("token", kind="path"),
        Column("with the mean", digits=3),
        Column("nearest", kind="path"),
        Column("cosine", digits=3),
    )
    blocks: list[Finding | Table] = [
        Finding(f"Principal directions hold {shares} of the spread around the mean direction."),
        Table("Nearest", columns, rows),
    ]
    if len(group.labels) <= _MATRIX:
        numbers = [Column(str(place)) for place in range(len(group.labels))]
        cells: list[list[Value]] = [
            [label, *cosines] for label, cosines in zip(group.labels, group.cosines, strict=True)
        ]
        blocks.append(Table("Cosines", [Column("token", kind="path"), *numbers], cells))
    return Section("Similarity", blocks, aside=f"{len(group.labels)} tokens of width {group.width}")
