"""`dti-geom study build`, `score`, `plan` and `serve`."""

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .output import print_json, print_line, print_notice, print_section
from .progress import working_progress


def build(
    evaluations: Annotated[
        list[Path],
        typer.Argument(metavar="EVALUATION", help="Folders of `dti-geom evaluate`, of one model."),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", callback=options.writable, help="Folder of the study."),
    ] = Path("study"),
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--method", help="A method to compare. May be given several times. Default: all."
        ),
    ] = None,
    references: Annotated[
        Path | None,
        typer.Option(
            "--references",
            help="Folder with a folder of pictures for each subject. Default: those of the runs.",
        ),
    ] = None,
    raters: Annotated[int, typer.Option("--raters", min=1, help="Raters to plan for.")] = 100,
    trials: Annotated[
        int, typer.Option("--trials", min=1, help="Screens of a rater, besides catch trials.")
    ] = 20,
    shown: Annotated[
        int | None,
        typer.Option(
            "--shown",
            min=2,
            help="Pictures of a screen. Default: one of each method, at most 4.",
        ),
    ] = None,
    catch: Annotated[
        int | None,
        typer.Option(
            "--catch",
            min=0,
            help="Catch trials of a rater. Default: as many as let a rater who guesses pass less "
            "than 1 time in 20, with one mistake forgiven.",
        ),
    ] = None,
    cases: Annotated[
        int | None,
        typer.Option(
            "--cases",
            min=1,
            help="Combinations of subject, prompt and seed. Default: so many that 3 raters see "
            "each.",
        ),
    ] = None,
    ties: Annotated[
        bool, typer.Option("--ties/--no-ties", help="Let raters answer “no difference”.")
    ] = True,
    one_file: Annotated[
        bool, typer.Option("--one-file", help="Put the pictures into the page.")
    ] = False,
    post: Annotated[
        str | None, typer.Option("--post", help="Address that the page sends the answers to.")
    ] = None,
    address: Annotated[
        str,
        typer.Option("--address", help="Address of the page, for the raters' links."),
    ] = "index.html",
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            min=0,
            help="Seed of names, sides and catch trials. Keep it from raters. Default: drawn.",
        ),
    ] = None,
    json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Make a blind study from evaluations: which picture do people prefer?

    Every screen shows reference pictures, a prompt, and a picture of each method from the same
    noise. Which pictures a rater sees, and on which side, is drawn from a seed and balanced over
    methods, subjects and prompts. Catch trials with a known answer tell careless raters. --out
    keeps public/, which any static host serves and any browser opens offline; raters.csv with a
    link for each rater, for Mechanical Turk or Prolific; and key.json, which says what every
    picture is and stays with you.
    """
    import secrets

    from dti_geom.reporting.sections.study import built_section
    from dti_geom.study import build_study, read_material

    material = read_material(evaluations, methods=methods or (), references=references)
    with working_progress() as progress:
        result = build_study(
            material,
            out,
            seed=secrets.randbits(48) if seed is None else seed,
            raters=raters,
            trials=trials,
            shown=shown,
            catch=catch,
            kept=cases,
            ties=ties,
            one_file=one_file,
            post=post,
            address=address,
            overwrite=overwrite,
            progress=progress,
        )
    for note in result.notes:
        print_notice(note)
    if json:
        print_json(result)
        return
    print_section(built_section(result))
    print_line(result.page)


# Subcommands, each with the example that ends its help.
COMMANDS = {
    build: "dti-geom study build evaluation --out study",
}
