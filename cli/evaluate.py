"""`dti-geom evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .generate import AdapterScale, open_painter
from .output import print_json, print_line, print_notice, print_section
from .progress import working_progress

if TYPE_CHECKING:
    from dti_geom.evaluation.evaluation import Candidate
    from dti_geom.training import RunConfig


def evaluate(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="[LABEL=]RUN…",
            help="Folders of finished runs. A label replaces the method's name.",
        ),
    ],
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts",
            help="Prompt set: mini, dreambooth, compositional, styles, paper, or a file with one "
            "prompt per line.",
        ),
    ] = None,
    dreambooth: Annotated[
        Path | None,
        typer.Option("--dreambooth", help="Folder of the DreamBooth dataset, for its prompts."),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option("--seeds", min=1, help="Pictures of each prompt, from noise seeds 0, 1, …"),
    ] = 4,
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines",
            help="Also score the class word, and each token at the vocabulary's mean norm.",
        ),
    ] = False,
    image_encoder: Annotated[
        str | None,
        typer.Option(
            "--image-encoder",
            help="Model that compares pictures with the subject's: dinov2, clip, siglip, mini, a "
            "Hub id or a folder.",
        ),
    ] = None,
    text_encoder: Annotated[
        str | None,
        typer.Option(
            "--text-encoder",
            help="Model that scores the fit to the prompt: siglip, clip, mini, a Hub id or folder.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Sampler steps. Default: the model's.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option("--guidance", help="Guidance scale. Default: the model's.")
    ] = None,
    adapter_scale: AdapterScale = 1.0,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            callback=options.writable,
            help="Folder for pictures, scores, tables and page.",
        ),
    ] = Path("evaluation"),
    json: options.Json = False,
    overwrite: options.Overwrite = False,
    device: options.Device = "cpu",
    dtype: Annotated[
        options.Numbers | None,
        typer.Option("--dtype", help="Number type of the model. Default: the device's best."),
    ] = None,
) -> None:
    """Score learned tokens: likeness to the subject and fit to the prompt.

    Paints the tokens of every run in every prompt and scores the pictures, with 95 % intervals.
    Subject: likeness to the images a token was trained on. Text: fit to the prompt with the class
    word in the token's place. Defaults are the paper's protocol (DINOv2, SigLIP, seeds 0 to 3, the
    pipeline's own steps and guidance); on mini, its own scorer and prompts. --out keeps pictures/,
    evaluation.json, scores.csv, table.tex and index.html. A call that was stopped keeps its
    pictures, and the same call resumes.
    """
    from dti_geom.errors import EvaluationError, FileExists
    from dti_geom.evaluation import evaluate as score
    from dti_geom.evaluation import with_baselines
    from dti_geom.evaluation.tables import csv_of_images, latex_table
    from dti_geom.files import write_text
    from dti_geom.reporting.folder import write_result_page
    from dti_geom.reporting.sections.evaluation import evaluation_section
    from dti_geom.sweeps.cells import open_scorers, prompts_of, run_candidates
    from dti_geom.sweeps.plan import EvaluationConfig

    # Check before minutes of painting.
    if (out / "evaluation.json").exists() and not overwrite:
        raise FileExists(
            f"{out / 'evaluation.json'} exists already. Choose another --out, or pass --overwrite."
        )
    named = [_read(run) for run in runs]
    models = dict.fromkeys(config.model for _, _, config in named)
    if len(models) > 1:
        raise EvaluationError(
            f"the runs are of {len(models)} models ({', '.join(models)}). Evaluate one at a time."
        )
    (name,) = models
    chosen = prompts_of(
        named[0][2],
        EvaluationConfig(
            prompts=prompts, dreambooth=None if dreambooth is None else str(dreambooth)
        ),
    )
    encoder, text = open_scorers(name, image_encoder, text_encoder, device)
    model = open_painter(name, device, dtype.value if dtype else None)
    candidates: list[Candidate] = []
    for label, folder, config in named:
        candidates += run_candidates(
            label or method_label(config, model.training.kappa),
            folder,
            config,
            model,
            adapter_scale=adapter_scale,
        )
    if baselines:
        candidates = with_baselines(candidates, model)
    with working_progress() as progress:
        result = score(
            model,
            candidates,
            prompts=chosen,
            seeds=range(seeds),
            encoder=encoder,
            text=text,
            out=out,
            steps=steps,
            guidance=guidance,
            progress=progress,
        )
    for picture in result.left_out:
        print_notice(f"left out: {picture.file}: {picture.reason}")
    page = write_result_page(out, "evaluation", name, result, overwrite=overwrite)
    write_text(out / "scores.csv", csv_of_images(result), overwrite=overwrite)
    write_text(out / "table.tex", latex_table(result), overwrite=overwrite)
    if json:
        print_json(result)
        return
    print_section(evaluation_section(result))
    print_line(str(page))


def _read(run: str) -> "tuple[str | None, Path, RunConfig]":
    """Label, folder and configuration of a finished run."""
    from dti_geom.training import read_run

    label, sign, place = run.partition("=")
    if not sign or Path(run).exists():
        label, place = "", run
    return label or None, Path(place), read_run(place).result.config


def method_label(config: "RunConfig", kappa: float) -> str:
    """Name a method as the paper's tables do: with magnitude and prior that are not its own.

    kappa: the prior of methods without one of their own, from the model.
    """
    from dti_geom.training import METHODS

    method, own = config.method, METHODS[config.method.name]
    magnitude = (
        "" if method.magnitude in (None, own.magnitude) else f" m={_plain(method.magnitude)}"
    )
    usual = (None, kappa if own.kappa is None else own.kappa)
    prior = "" if method.kappa in usual else f" κ={method.kappa:g}"
    adapter = "" if config.adapter is None else f" + {config.adapter.kind}"
    objectives = [name for name in config.objective.names or () if name not in own.objectives]
    others = f" ({', '.join(objectives)})" if objectives else ""
    return method.name + magnitude + prior + adapter + others


def _plain(magnitude: str) -> str:
    """Write 5.0 and 5 alike: they are the same magnitude."""
    try:
        return f"{float(magnitude):g}"
    except ValueError:
        return magnitude
