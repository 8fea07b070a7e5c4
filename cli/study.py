"""`dti-geom study build`, `serve`, `score` and `plan`."""

from collections.abc import Callable
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


def score(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="Folder of the study.")],
    answers: Annotated[
        list[Path],
        typer.Argument(
            metavar="ANSWERS",
            help="Files that raters saved, folders of them, and answers.sqlite of `study serve`.",
        ),
    ],
    out: options.Out = None,
    json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Score the answers of a study: what did people prefer?

    Shows how often each method was chosen, with 95 % intervals that are clustered by rater and by
    subject; differences on the same screens, corrected for their number; Bradley–Terry strengths
    with ties; agreement between raters; and the paper's user study beside them. Raters who fail the
    catch trials are left out: those who get no more right than guessing does with a probability of
    5 %. --out keeps study.json and index.html.
    """
    from dti_geom.reporting.folder import write_result_page
    from dti_geom.reporting.sections.study import study_section
    from dti_geom.study import read_answers, read_study, score_study

    key = read_study(study)
    given, refused = read_answers(key, answers)
    for file in refused:
        print_notice(f"left out: {file.file}: {file.reason}")
    result = score_study(key, given, refused)
    page = None
    if out is not None:
        page = write_result_page(out, "study", key.model, result, overwrite=overwrite)
    if json:
        print_json(result)
        return
    print_section(study_section(result))
    if page is not None:
        print_line(str(page))


def plan(
    difference: Annotated[
        float,
        typer.Option(
            "--difference",
            help="Difference of the shares of two methods to find: 0.1 is 10 points.",
        ),
    ] = 0.1,
    power: Annotated[
        float, typer.Option("--power", help="How often it should be found, 0 to 1.")
    ] = 0.8,
    methods: Annotated[int, typer.Option("--methods", min=2, help="Methods to compare.")] = 4,
    shown: Annotated[
        int | None,
        typer.Option("--shown", min=2, help="Pictures of a screen. Default: at most 4."),
    ] = None,
    subjects: Annotated[int, typer.Option("--subjects", min=2, help="Subjects.")] = 30,
    prompts: Annotated[int, typer.Option("--prompts", min=1, help="Prompts of a subject.")] = 20,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Screens of a rater.")] = 20,
    spread: Annotated[
        float,
        typer.Option(
            "--spread",
            min=0,
            help="How much a method's worth differs between subjects, raters and cases, in units "
            "of the noise of a choice.",
        ),
    ] = 0.5,
    studies: Annotated[
        int, typer.Option("--studies", min=10, help="Simulated studies for each number of raters.")
    ] = 50,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the simulation.")] = 0,
    json: options.Json = False,
) -> None:
    """Say how many raters a study needs, by simulation.

    One method leads all others by the difference. Studies of 10, 20, 40, … raters are simulated and
    scored until the lead is found as often as asked, after correction for all pairs and both
    questions.
    """
    from dti_geom.reporting.sections.study import plan_section
    from dti_geom.study.planning import plan_size

    with working_progress() as progress:
        result = plan_size(
            difference,
            power,
            methods=methods,
            shown=shown,
            subjects=subjects,
            prompts=prompts,
            trials=trials,
            spread=spread,
            studies=studies,
            seed=seed,
            progress=progress,
        )
    if json:
        print_json(result)
        return
    print_section(plan_section(result))


def serve(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="Folder of the study.")],
    host: Annotated[
        str,
        typer.Option("--host", help="Address to listen on; 0.0.0.0 opens it to the network."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port.")] = 8000,
    address: Annotated[
        str | None,
        typer.Option("--address", help="Address that raters use, for links. Default: as served."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Serve a study to several raters and keep their answers.

    STUDY/links.csv gets a link with a random token for each rater; the token is all that is known
    of a rater. Each answer is on the disk, in STUDY/answers.sqlite, before the page says that it is
    saved; `dti-geom study score STUDY STUDY/answers.sqlite` reads it, also while the server runs.
    Ctrl-C stops the server, and the same command resumes. Needs `pip install 'dti-geom[study]'`.
    --json prints the links.
    """
    from dti_geom.files import write_text
    from dti_geom.study import read_study
    from dti_geom.study.answers import DATABASE
    from dti_geom.study.server import serve_study
    from dti_geom.study.storage import AnswerStore

    store = AnswerStore(study / DATABASE, read_study(study))
    base = (address or f"http://{host}:{port}/").rstrip("/") + "/"
    links = {rater: f"{base}?token={token}" for rater, token in store.tokens().items()}
    rows = "".join(f"{rater},{link}\n" for rater, link in links.items())
    write_text(study / "links.csv", "rater,link\n" + rows, overwrite=True)
    if json:
        print_json([{"rater": rater, "link": link} for rater, link in links.items()])
    else:
        print_line(f"{len(links)} links: {study / 'links.csv'}")
        print_line(f"Serving at {base} until Ctrl-C.")
    try:
        serve_study(study, store, host=host, port=port)
    finally:
        store.close()


# Subcommands, each with the example that ends its help.
COMMANDS: dict[Callable[..., None], str] = {
    build: "dti-geom study build evaluation --out study",
    score: "dti-geom study score study answers --out preferences",
    serve: "dti-geom study serve study --port 8000",
    plan: "dti-geom study plan --difference 0.1 --power 0.8",
}
