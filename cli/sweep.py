"""`dti-geom sweep`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .output import print_json, print_line, print_notice, print_section
from .progress import cell_progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dti_geom.sweeps.engines import Engine as SweepEngine
    from dti_geom.sweeps.plan import Plan
    from dti_geom.sweeps.sweep import CellState


class EngineName(StrEnum):
    """Who computes the cells."""

    local = "local"
    ray = "ray"


class Results(StrEnum):
    """How a cluster's results arrive."""

    shared = "shared"
    returned = "returned"


Retry = Annotated[
    bool, typer.Option("--retry-failed", help="Also compute cells that failed before.")
]
Engine = Annotated[
    EngineName,
    typer.Option("--engine", help="Processes of this machine, or a running Ray cluster."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Processes of the local engine. Default: one per GPU, or per core.",
    ),
]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Threads of each worker.")]
Address = Annotated[str, typer.Option("--address", help="Address of the Ray cluster, host:port.")]
ResultsOption = Annotated[
    Results,
    typer.Option(
        "--results",
        help="With ray: all nodes share the folder of --out, or return files to it.",
    ),
]


def sweep(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FILE.yaml|status|report",
            help="A sweep file, or what to do with the folder of a sweep.",
        ),
    ],
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[FOLDER]", help="Folder of a sweep, for status and report."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            callback=options.writable,
            help="Folder of the sweep. Default: the file's name.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the cells and an estimate of time and disk, and compute nothing.",
        ),
    ] = False,
    retry_failed: Retry = False,
    engine: Engine = EngineName.local,
    workers: Workers = None,
    threads: Threads = 1,
    address: Address = "auto",
    results: ResultsOption = Results.shared,
    json: options.Json = False,
) -> None:
    """Train, paint and score many combinations: concepts × methods × seeds × settings.

    Each combination is a cell: it trains, paints and scores. Finished cells are not computed again,
    so the same command resumes a sweep that was stopped, and files that share cells share their
    results in one folder. If a cell fails, it leaves its log and the others continue. At the end
    the folder holds results.csv, sweep.json and index.html.
    """
    from dti_geom.errors import SweepError
    from dti_geom.sweeps import load_plan, read_plan, run_sweep
    from dti_geom.sweeps.sweep import read_states

    if what in ("status", "report"):
        if folder is None:
            raise SweepError(f"the folder is missing: dti-geom sweep {what} FOLDER")
        plan = load_plan(folder)
        _show(plan, read_states(plan, folder), folder, json, page=what == "report")
        return
    if folder is not None:
        raise SweepError(
            f"'{what}' and '{folder}' were given; expected one sweep file. Name the folder with "
            "--out."
        )
    plan = read_plan(what)
    place = out or Path(plan.name)
    if dry_run:
        _estimate(plan, place, threads, json)
        return
    chosen = engine_of(engine, workers, threads, address, results)
    with cell_progress() as progress:
        states = run_sweep(plan, place, chosen, retry_failed=retry_failed, progress=progress)
    _show(plan, states, place, json, page=any(state.state == "done" for state in states))
    if any(state.state == "failed" for state in states):
        raise typer.Exit(1)


def engine_of(
    name: EngineName, workers: int | None, threads: int, address: str, results: Results
) -> "SweepEngine":
    """Return who computes the cells."""
    from dti_geom.sweeps import LocalEngine, RayEngine

    if name is EngineName.ray:
        return RayEngine(address, threads, shared=results is Results.shared)
    return LocalEngine(workers, threads)


def _estimate(plan: "Plan", folder: Path, threads: int, json: bool) -> None:
    from dti_geom.reporting.sections.sweep import cells_section
    from dti_geom.sweeps import estimate
    from dti_geom.sweeps.sweep import read_states

    states = read_states(plan, folder)
    needed = estimate(plan, folder, threads)
    if json:
        print_json({"cells": states, "estimate": needed})
        return
    print_section(cells_section(states, needed))
    print_failures(states)


def _show(plan: "Plan", states: "list[CellState]", folder: Path, json: bool, *, page: bool) -> None:
    """Show where the cells stand; with `page`, show and keep the scores of the finished ones."""
    from dti_geom.reporting.folder import write_result_page
    from dti_geom.reporting.sections.sweep import cells_section, sweep_section
    from dti_geom.sweeps import collect, read_finished
    from dti_geom.sweeps.sweep import save_table

    if not page:
        if json:
            print_json(states)
        else:
            print_section(cells_section(states))
            print_failures(states)
        return
    finished = read_finished(plan, folder)
    result = collect(finished)
    written = write_result_page(folder, "sweep", plan.model, result, overwrite=True)
    save_table(folder / "results.csv", finished)
    if json:
        print_json(result)
        return
    print_section(sweep_section(result))
    print_failures(result.cells)
    print_line(str(written))


def print_failures(states: "Sequence[CellState]") -> None:
    """Name every cell that failed, why, and where its log is."""
    for state in states:
        if state.error:
            print_notice(
                f"{state.label}, seed {state.seed}, {' '.join(state.subjects)} failed: "
                f"{state.error}"
            )
            print_notice(f"  log: cells/{state.key}/error.txt; --retry-failed computes it again")
