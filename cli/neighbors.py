"""`dti-geom neighbors`."""

from typing import Annotated

import typer

from . import options
from .inputs import read_embeddings_or_skip
from .output import keep_report, print_json, print_line, print_table, reading_progress


def neighbors(
    tokens: Annotated[
        list[str],
        typer.Argument(
            metavar="TOKEN",
            help="A word (each of its tokens is shown), #id, or a token of --embedding.",
        ),
    ],
    model: options.Model = "mini",
    embedding: options.Embeddings = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many neighbours.")] = 10,
    out: options.Out = None,
    json: options.Json = False,
    overwrite: options.Overwrite = False,
    device: options.Device = "cpu",
) -> None:
    """The tokens nearest to a token, by direction and by distance.

    Cosine and true Euclidean distance, side by side. --out writes neighbors.json and index.html.
    """
    from dti_geom.models import open_encoders
    from dti_geom.probes import find_neighbors, learned_vectors, parse_queries

    learned = learned_vectors(read_embeddings_or_skip(embedding))
    with reading_progress() as progress:
        encoders = open_encoders(model, device=device, progress=progress)
        results = tuple(
            found
            for encoder in encoders
            for found in find_neighbors(encoder, parse_queries(encoder, tokens, learned), k)
        )
    if out is not None:
        from dti_geom.reporting import Report

        keep_report(out, Report(model, neighbors=results), "neighbors.json", overwrite=overwrite)
    if json:
        print_json(results)
        return
    for result in results:
        row = "" if result.id is None else f" #{result.id}"
        print_line(f"{result.query}{row} · {result.encoder} · norm {result.norm:.4g}", "bold")
        print_table(
            "",
            ["by direction", "id", "cosine", "by distance", "id", "distance"],
            [
                (similar.token, similar.id, similar.similarity, near.token, near.id, near.distance)
                for similar, near in zip(result.cosine, result.euclidean, strict=True)
            ],
        )
