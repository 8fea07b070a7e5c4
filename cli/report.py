"""`dti-geom report`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .inputs import read_embeddings_or_skip
from .output import keep_report, print_json, print_line, print_notice, reading_progress, working_progress

if TYPE_CHECKING:
    from dti_geom.models import StoredEncoder
    from dti_geom.models.sources import Progress
    from dti_geom.probes import LearnedVector, Query
    from dti_geom.reporting import Report

# Looked around when the user names no word; those that the model has as one token each are shown.
WORDS = ("dog", "cat", "house", "red", "two", "fox", "beach", "happy")
LEARNED_SHOWN = 12  # neighbour tables of learned vectors: more than this is no longer read


def report(
    model: options.Model = "mini",
    embedding: options.Embeddings = None,
    word: Annotated[
        list[str] | None,
        typer.Option("--word", "-w", help="A word to show the neighbours of. May be given several times."),
    ] = None,
    training: Annotated[
        list[Path] | None,
        typer.Option("--run", help="Folder of a finished training run. May be given several times."),
    ] = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="Also run the encoder: swap, attenuation, stagnation and attention."),
    ] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for index.html and report.json.")] = Path("report"),
    json: options.Json = False,
    overwrite: options.Overwrite = False,
    device: options.Device = "cpu",
) -> None:
    """Everything measured here for one model, as one interactive page that opens offline.

    Norms with learned tokens marked, neighbour tables, inspected embeddings, curves and previews of training runs.
    """
    import torch

    from dti_geom.artifacts import read_embeddings
    from dti_geom.models import open_encoders
    from dti_geom.probes import (
        Norms,
        encoder_norms,
        find_neighbors,
        inspect_files,
        learned_vectors,
        model_angles,
        of_width,
    )
    from dti_geom.reporting import Report
    from dti_geom.training import learned_files, read_run

    runs = tuple(read_run(folder) for folder in training or ())
    files = read_embeddings_or_skip(embedding)
    files += [read_embeddings(path) for run in runs for path in learned_files(run.folder, run.result.config)]
    learned = learned_vectors(files)
    with reading_progress() as progress:
        encoders = open_encoders(model, device=device, dtype=torch.float32, progress=progress)
        widths = {encoder.token_table.shape[1] for encoder in encoders}
        strangers = [one for one in learned if one.vector.shape[-1] not in widths]
        fitting = [one for one in learned if one.vector.shape[-1] in widths]
        notes = ()
        if strangers:
            notes = (
                f"{len(strangers)} of {len(learned)} learned vectors have another width than this model's encoders "
                f"({', '.join(map(str, sorted(widths)))}): they are inspected, but not placed among its tokens.",
            )
            print_notice(notes[0])
        measured = tuple(encoder_norms(encoder, learned) for encoder in encoders)
        result = Report(
            model,
            norms=Norms(model, measured),
            neighbors=tuple(
                found
                for encoder in encoders
                for found in find_neighbors(
                    encoder, _queries(encoder, word, of_width(learned, encoder.token_table.shape[1]))
                )
            ),
            inspected=tuple(inspect_files(files, encoders, model)),
            angles=model_angles(model, encoders, fitting) if any(one.init for one in fitting) else None,
            training=runs,
            notes=notes,
        )
    if full:
        with working_progress() as progress:
            result = _with_probes(result, encoders, fitting, progress)
    page = keep_report(out, result, "report.json", overwrite=overwrite)
    if json:
        print_json(result)
    else:
        print_line(str(page))


def _with_probes(
    result: "Report", encoders: "list[StoredEncoder]", learned: "list[LearnedVector]", progress: "Progress"
) -> "Report":
    """The report, with what the probes say that run the encoder."""
    from dataclasses import replace

    from dti_geom.errors import DoesNotApply
    from dti_geom.probes import model_attention, model_attenuation, model_stagnation, model_swap

    probes = {
        "swap": model_swap,
        "attenuation": model_attenuation,
        "stagnation": model_stagnation,
        "attention": model_attention,
    }
    for name, probe in probes.items():
        try:
            measured = probe(result.model, encoders, learned, progress=progress)
        except DoesNotApply as reason:
            result = replace(result, notes=(*result.notes, f"{name} does not apply: {reason}"))
        else:
            result = replace(result, **{name: measured})
    return result


def _queries(encoder: "StoredEncoder", words: list[str] | None, learned: "list[LearnedVector]") -> "list[Query]":
    """The user's words, or the default ones this model has as single tokens; and the first learned vectors."""
    from dti_geom.errors import UnknownToken
    from dti_geom.probes import Query, parse_queries

    queries = parse_queries(encoder, words or (), learned)
    if not words:
        for word in WORDS:
            try:
                found = parse_queries(encoder, [word])
            except UnknownToken:
                continue
            queries += found if len(found) == 1 else []
    shown = {query.label for query in queries}
    return queries + [Query(one.label, one.vector) for one in learned[:LEARNED_SHOWN] if one.label not in shown]
