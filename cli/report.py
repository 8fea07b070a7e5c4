"""`dti-geom report`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .inputs import read_embeddings_or_skip
from .output import print_json, print_line, working_progress

if TYPE_CHECKING:
    from dti_geom.progress import Progress
    from dti_geom.reporting import Report, ReportFolder
    from dti_geom.training import TrainingRun

    from .sections import Part


def report(
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="As elsewhere. Default: that of the runs, or mini."),
    ] = None,
    embedding: options.Embeddings = None,
    word: Annotated[
        list[str] | None,
        typer.Option(
            "--word", "-w", help="A word to show the neighbours of. May be given several times."
        ),
    ] = None,
    training: Annotated[
        list[Path] | None,
        typer.Option(
            "--run",
            metavar="DIR",
            help="Folder of a finished training run. May be given several times.",
        ),
    ] = None,
    interpolation: Annotated[
        Path | None,
        typer.Option("--interpolation", metavar="DIR", help="Folder of `dti-geom interpolate`."),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option("--evaluation", metavar="DIR", help="Folder of `dti-geom evaluate`."),
    ] = None,
    comparison: Annotated[
        Path | None,
        typer.Option("--comparison", metavar="DIR", help="Folder of `dti-geom compare`."),
    ] = None,
    sweep: Annotated[
        Path | None, typer.Option("--sweep", metavar="DIR", help="Folder of `dti-geom sweep`.")
    ] = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full/--quick",
            help="Also run the encoder: swap, attenuation, stagnation and attention.",
        ),
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="SECTION",
            help="Make this section anew and leave the others; several times.",
        ),
    ] = None,
    redraw: Annotated[
        bool,
        typer.Option("--redraw", help="Draw the page of --out again from the results kept there."),
    ] = False,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for index.html and results/.")
    ] = Path("report"),
    json: options.Json = False,
    overwrite: options.Overwrite = False,
    device: options.Device = "cpu",
) -> None:
    """Everything known of one model, as one interactive page that opens offline.

    Norms with learned tokens marked, neighbour tables, inspected embeddings; with --full what magnitude does inside;
    curves and previews of training runs; and what other commands left: pictures between tokens, scores.

    Each section's result is kept in the folder and measured again only when what it was made from has changed.
    """
    from dti_geom.reporting import ReportFolder, read_report
    from dti_geom.reporting.results import PAGE

    if redraw:
        result, reused = ReportFolder(out, read_report(out).model).redraw(), []
    else:
        elsewhere = {
            "interpolation": interpolation,
            "evaluation": evaluation,
            "comparison": comparison,
            "sweep": sweep,
        }
        with working_progress() as progress:
            name, parts = _parts(
                model,
                embedding,
                word or [],
                training or [],
                elsewhere,
                full or bool(only),
                device,
                progress,
            )
            folder = ReportFolder(out, name, overwrite=overwrite)
            result, reused = _made(folder, parts, only)
    if json:
        print_json(result)
        return
    if reused:
        print_line(f"as before: {', '.join(reused)}")
    print_line(str(out / PAGE))


def _parts(
    model: str | None,
    embedding: list[Path] | None,
    words: list[str],
    folders: list[Path],
    elsewhere: dict[str, Path | None],
    full: bool,
    device: str,
    progress: "Progress",
) -> "tuple[str, list[Part]]":
    """What the page calls the model, and every section that can be made from what was given."""
    import torch

    from dti_geom.files import read_embeddings
    from dti_geom.models import open_encoders
    from dti_geom.training import learned_files, read_run

    from .sections import Subject, measured_parts, read_part, shown_paths, training_part

    runs = [read_run(folder) for folder in folders]
    of_runs = _model_of(runs)
    model = model or of_runs or "mini"
    files = read_embeddings_or_skip(embedding)
    files += [
        read_embeddings(path)
        for run in runs
        for path in learned_files(run.folder, run.result.config)
    ]
    places = [model, *(run.result.config.model for run in runs)]
    places += [concept.images for run in runs for concept in run.result.config.concepts]
    names = shown_paths([*(file.path for file in files), *folders, *map(Path, places)])
    name = names[Path(model)]
    encoders = open_encoders(model, device=device, dtype=torch.float32, progress=progress)
    subject = Subject(name, encoders, files, names, progress)
    parts = [*measured_parts(subject, words, full=full)]
    if runs:
        parts.append(training_part(name, runs, names))
    parts += [
        read_part(name, section, path) for section, path in elsewhere.items() if path is not None
    ]
    return name, parts


def _made(
    folder: "ReportFolder", parts: "list[Part]", only: list[str] | None
) -> "tuple[Report, list[str]]":
    """The report, written; and the sections that were not made anew."""
    from dti_geom.errors import DtiGeomError

    known = [part.name for part in parts]
    for name in only or ():
        if name not in known:
            raise DtiGeomError(
                f"--only {name}: nothing was given to make such a section from. There could be {', '.join(known)}; "
                "--embedding, --run, --interpolation, --evaluation, --comparison and --sweep bring more."
            )
    sections, reused = {}, []
    if only:
        sections = folder.kept_sections()
        reused = [name for name in sections if name not in only]
    for part in parts:
        if only and part.name not in only:
            continue
        kept = None if only else folder.kept(part.name, part.key)
        if kept is None:
            kept = part.make()
            folder.keep(part.name, part.key, kept)
        else:
            reused.append(part.name)
        sections[part.name] = kept
    return folder.write(sections), reused


def _model_of(runs: "list[TrainingRun]") -> str | None:
    """The one model that the runs are of, if there are runs."""
    from dti_geom.errors import DtiGeomError

    models = dict.fromkeys(run.result.config.model for run in runs)
    if len(models) > 1:
        raise DtiGeomError(
            f"the runs are of {len(models)} models ({', '.join(models)}). A report is of one model."
        )
    return next(iter(models), None)
