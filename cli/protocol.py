"""`dti-geom protocol paper`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from . import options
from .output import print_json, print_line, print_notice, print_section
from .progress import cell_progress
from .sweep import (
    Address,
    Engine,
    EngineName,
    Results,
    ResultsOption,
    Retry,
    Threads,
    Workers,
    engine_of,
    print_failures,
)

TERAFLOPS = 200.0


def paper(
    model: Annotated[
        str, typer.Option("--model", "-m", help="A model that paints: a name, a Hub id, a folder.")
    ],
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            help="Folder of the DreamBooth dataset: prompts_and_classes.txt, and a folder of "
            "images for each subject.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", callback=options.writable, help="Folder of the results.")
    ] = Path("protocol"),
    methods: Annotated[
        str, typer.Option("--methods", help="Names with commas between; ti-rescaled is one.")
    ] = "ti,ti-rescaled,crossinit,dti",
    subjects: Annotated[
        list[str] | None,
        typer.Option("--subject", help="Only this subject. May be given several times."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Pictures of each prompt.")] = 4,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Updates. Default: the model's own.")
    ] = None,
    sampling_steps: Annotated[
        int | None,
        typer.Option("--sampling-steps", min=1, help="Of a picture. Default: the model's own."),
    ] = None,
    image_encoder: Annotated[
        str | None, typer.Option("--image-encoder", help="Default: the paper's, dinov2.")
    ] = None,
    text_encoder: Annotated[
        str | None, typer.Option("--text-encoder", help="Default: the paper's, siglip.")
    ] = None,
    device: options.Device = "cpu",
    dtype: Annotated[
        options.Numbers | None,
        typer.Option(
            "--dtype",
            metavar="TYPE",
            help="float32, float16 or bfloat16. Default: the device's best.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what it will cost, and compute nothing.")
    ] = False,
    teraflops: Annotated[
        float,
        typer.Option(
            "--teraflops",
            min=0.001,
            help="10¹² operations that a card does in a second, for the estimate: an assumption.",
        ),
    ] = TERAFLOPS,
    retry_failed: Retry = False,
    engine: Engine = EngineName.local,
    workers: Workers = None,
    threads: Threads = 1,
    address: Address = "auto",
    results: ResultsOption = Results.shared,
    json: options.Json = False,
) -> None:
    """Run the paper's experiment: train, paint and score every subject with every method.

    30 subjects, 41 + 16 + 16 + 40 prompts for each, noise seeds 0 to 3, the model's own settings,
    DINOv2 for the subject and SigLIP for the text. What it will cost is printed before it starts.
    It is a sweep: the same command resumes one that was stopped, and `dti-geom sweep status` tells
    where it stands. At the end the folder holds the paper's tables beside yours, with what differs
    from the paper's experiment.
    """
    from dti_geom.reporting.folder import write_results_page
    from dti_geom.reporting.sections.comparison import comparison_section
    from dti_geom.reporting.sections.protocol import protocol_finding, protocol_section
    from dti_geom.sweeps import collect, read_finished, run_sweep
    from dti_geom.sweeps.protocol import beside_the_paper, estimate_protocol, paper_plan
    from dti_geom.sweeps.sweep import DONE, FAILED, read_states, save_table

    plan = paper_plan(
        model,
        data,
        [name.strip() for name in methods.split(",")],
        subjects=subjects,
        seeds=seeds,
        steps=steps,
        sampling_steps=sampling_steps,
        image_encoder=image_encoder,
        text_encoder=text_encoder,
        device=device,
        dtype=dtype and dtype.value,
    )
    left = [
        cell
        for cell, state in zip(plan.cells, read_states(plan, out), strict=True)
        if state.state != DONE
    ]
    if left:
        cost = estimate_protocol(replace(plan, cells=tuple(left)), teraflops)
        if dry_run:
            print_json(cost) if json else print_section(protocol_section(cost))
            return
        print_notice(protocol_finding(cost))
    elif dry_run:
        if json:
            print_json({"cells": 0})
        else:
            print_line(f"all {len(plan.cells)} cells are done: nothing is left to pay for.")
        return
    with cell_progress() as progress:
        states = run_sweep(
            plan,
            out,
            engine_of(engine, workers, threads, address, results),
            retry_failed=retry_failed,
            progress=progress,
        )
    print_failures(states)
    if any(state.state == DONE for state in states):
        finished = read_finished(plan, out)
        sweep = collect(finished)
        compared = beside_the_paper(finished, sweep)
        found: dict[str, object] = {"comparison": compared, "sweep": sweep}
        page = write_results_page(out, plan.model, found, overwrite=True)
        save_table(out / "results.csv", finished)
        if json:
            print_json(compared)
        else:
            print_section(comparison_section(compared))
            print_line(str(page))
    if any(state.state == FAILED for state in states):
        raise typer.Exit(1)


# Each with the example that ends its help.
COMMANDS: dict[Callable[..., None], str] = {
    paper: "dti-geom protocol paper --model sdxl --data dreambooth --out paper --dry-run"
}
