"""`dti-geom sweep`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .output import cell_progress, keep_report, print_json, print_line, print_notice, print_table

if TYPE_CHECKING:
    from dti_geom.sweeps import CellState, Plan, Sweep


class EngineName(StrEnum):
    """Who computes the cells."""

    local = "local"
    ray = "ray"


class Results(StrEnum):
    """How a cluster's results arrive."""

    shared = "shared"
    returned = "returned"


def sweep(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FILE.yaml|status|report", help="A sweep file; or what to do with a folder."
        ),
    ],
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="Of a sweep, for status and report.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for everything. Default: the file's name."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the cells and an estimate of time and disk, and compute nothing.",
        ),
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Also compute cells that failed before.")
    ] = False,
    engine: Annotated[
        EngineName,
        typer.Option(
            "--engine", help="Processes of this machine, or a Ray cluster that is running."
        ),
    ] = EngineName.local,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, help="local: processes. Default: one per GPU, or per core."
        ),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of each worker.")] = 1,
    address: Annotated[str, typer.Option("--address", help="ray: of the cluster.")] = "auto",
    results: Annotated[
        Results,
        typer.Option(
            "--results", help="ray: --out is one folder for all nodes, or files are sent to it."
        ),
    ] = Results.shared,
    json: options.Json = False,
) -> None:
    """Train, paint, score: concepts × methods × seeds × settings.

    Each combination is a cell: it trains, paints and scores. A cell that is done is not computed again, so a sweep that
    was stopped goes on by the same command, and files that share cells share their results in one folder. A cell that
    fails leaves its log and the rest goes on. At the end the folder holds results.csv and index.html.
    """
    from dti_geom.errors import SweepError
    from dti_geom.sweeps import LocalEngine, RayEngine, load_plan, read_plan, read_states, run_sweep

    if what in ("status", "report"):
        if folder is None:
            raise SweepError(f"the folder is missing: dti-geom sweep {what} FOLDER")
        plan = load_plan(folder)
        _show(plan, read_states(plan, folder), folder, json, page=what == "report")
        return
    if folder is not None:
        raise SweepError(
            f"'{what}' and '{folder}' were given; expected one sweep file. Name the folder with --out."
        )
    plan = read_plan(what)
    place = out or Path(plan.name)
    if dry_run:
        _estimate(plan, place, threads, json)
        return
    chosen = LocalEngine(workers, threads)
    if engine is EngineName.ray:
        chosen = RayEngine(address, threads, shared=results is Results.shared)
    with cell_progress() as progress:
        states = run_sweep(plan, place, chosen, retry_failed=retry_failed, progress=progress)
    _show(plan, states, place, json, page=any(state.state == "done" for state in states))
    if any(state.state == "failed" for state in states):
        raise typer.Exit(1)


def _estimate(plan: "Plan", folder: Path, threads: int, json: bool) -> None:
    from dti_geom.sweeps import estimate, read_states

    states = read_states(plan, folder)
    found = estimate(plan, folder, threads)
    if json:
        print_json({"cells": states, "estimate": found})
        return
    _print_cells(states)
    print_line(
        f"{found.cells} of {len(states)} cells are left: {found.trainings} trainings of a concept, about "
        f"{found.pictures} pictures."
    )
    print_line(
        f"About {found.seconds / 3600:.2g} hours of one worker and {found.bytes / 1e9:.2g} GB, by {found.source}."
    )


def _show(plan: "Plan", states: "list[CellState]", folder: Path, json: bool, *, page: bool) -> None:
    """What the folder holds; with `page`, also the table, the results and the page of all finished cells."""
    if not page:
        if json:
            print_json(states)
        else:
            _print_cells(states)
        return
    from dti_geom.reporting import Report
    from dti_geom.sweeps import collect, read_finished, save_table

    finished = read_finished(plan, folder)
    found = collect(finished)
    written = keep_report(folder, Report(plan.model, sweep=found), "sweep.json", overwrite=True)
    save_table(folder / "results.csv", finished)
    if json:
        print_json(found)
        return
    _print(found)
    print_line(str(written))


def _print_cells(states: "list[CellState]") -> None:
    print_table(
        "Cells",
        ["state", "seed", "method", "concepts", "minutes"],
        [
            (
                one.state,
                one.seed,
                one.label,
                " ".join(one.subjects),
                None
                if one.cost is None
                else (one.cost.training_seconds + one.cost.evaluation_seconds) / 60,
            )
            for one in states
        ],
    )
    for one in states:
        if one.error:
            print_notice(
                f"{one.label}, seed {one.seed}, {' '.join(one.subjects)} failed: {one.error}"
            )
            print_notice(f"  log: cells/{one.key}/error.txt; --retry-failed computes it again")


def _print(found: "Sweep") -> None:
    from dti_geom.reporting.sections.sweep import mean_inflation

    from .evaluate import span

    done = sum(one.state == "done" for one in found.cells)
    print_line(
        f"{found.model} · {done} of {len(found.cells)} cells · prompts {found.prompts}", "bold"
    )
    print_line(
        f"subject: cosine by {found.image_encoder} · text: {found.text_unit} by {found.text_encoder}"
    )
    print_line("norm: mean over learned vectors, × the vocabulary's mean\n")
    norms = mean_inflation(found)
    print_table(
        "Scores over all prompts",
        ["method", "norm", "subject", "95 %", "text", "95 %"],
        [
            (
                one.method,
                f"×{norms[one.method]:.3g}" if one.method in norms else None,
                one.subject.mean,
                span(one.subject),
                one.text.mean,
                span(one.text),
            )
            for one in found.summaries
            if one.group == "all"
        ],
    )
    for state in found.cells:
        if state.error:
            print_notice(
                f"{state.label}, seed {state.seed} failed: {state.error} (cells/{state.key}/error.txt)"
            )
