"""`dti-geom train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .output import print_json, print_line, print_section, training_progress

if TYPE_CHECKING:
    from dti_geom.training import ConceptConfig, TrainingResult

Concepts = Annotated[
    list[str] | None,
    typer.Option(
        "--concept",
        "-c",
        help='A concept of `dti-geom concepts`, or "<x>=FOLDER:word". Given several times, they '
        "share batches.",
    ),
]


def train(
    model: options.Model = "mini",
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of images, or a dataset root.")
    ] = None,
    token: Annotated[str, typer.Option("--token", help="The new token.")] = "<x>",
    init: Annotated[
        str | None, typer.Option("--init", help="Class word: where the token starts, what it is.")
    ] = None,
    subject: Annotated[
        str | None, typer.Option("--subject", help="Folder below --images; its class gives --init.")
    ] = None,
    concept: Concepts = None,
    method: Annotated[
        str, typer.Option("--method", help="dti, dti-tuned, ti, crossinit, or a norm policy.")
    ] = "dti",
    steps: Annotated[
        int | None, typer.Option("--steps", help="Updates. Default: the model's; mini and SD: 400.")
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", help="Images per concept and backward pass.")
    ] = 4,
    learning_rate: Annotated[
        float | None,
        typer.Option("--learning-rate", help="Per update; dti: radians. Default: the method's."),
    ] = None,
    kappa: Annotated[
        float | None, typer.Option("--kappa", help="Strength of the prior; dti: 1e-4.")
    ] = None,
    magnitude: Annotated[
        str | None,
        typer.Option(
            "--magnitude",
            help="mean, median, min, max, init, token:WORD, 2*mean, a number, learned.",
        ),
    ] = None,
    start: Annotated[
        str, typer.Option("--start", help="word, output, mean, random, or an embedding file.")
    ] = "word",
    vectors: Annotated[int | None, typer.Option("--vectors", help="Vectors of the token.")] = None,
    optimizer: Annotated[
        str, typer.Option("--optimizer", help="On the sphere: sgd or adam.")
    ] = "sgd",
    momentum: Annotated[float, typer.Option("--momentum", help="Of Riemannian SGD.")] = 0.0,
    beta: Annotated[float, typer.Option("--beta", help="Of Riemannian SGD's second moment.")] = 0.0,
    weight_decay: Annotated[
        float | None, typer.Option("--weight-decay", help="Of AdamW; 0.01.")
    ] = None,
    schedule: Annotated[
        str, typer.Option("--schedule", help="constant, linear or cosine.")
    ] = "constant",
    warmup: Annotated[int, typer.Option("--warmup", help="Updates of rising learning rate.")] = 0,
    average_last: Annotated[
        int, typer.Option("--average-last", help="Average the last N updates' vectors.")
    ] = 0,
    accumulate: Annotated[
        int, typer.Option("--accumulate", help="Backward passes per update.")
    ] = 1,
    min_snr: Annotated[
        float | None, typer.Option("--min-snr", help="γ of min-SNR loss weights.")
    ] = None,
    resolution: Annotated[
        int | None, typer.Option("--resolution", help="Pixels of a side. Default: the model's.")
    ] = None,
    crops: Annotated[
        int, typer.Option("--crops", help="Fixed views per image; the first is the centre.")
    ] = 1,
    flip: Annotated[bool, typer.Option("--flip", help="Also train on mirror images.")] = False,
    captions: Annotated[
        bool, typer.Option("--captions", help="Prompts from NAME.txt beside each image.")
    ] = False,
    masks: Annotated[
        Path | None, typer.Option("--masks", help="Folder of NAME.png: white counts.")
    ] = None,
    template: Annotated[
        list[str] | None, typer.Option("--template", help="A prompt with {} for the token.")
    ] = None,
    preview_every: Annotated[
        int, typer.Option("--preview-every", help="Updates between previews; 0: none.")
    ] = 200,
    preview_prompt: Annotated[
        list[str] | None, typer.Option("--preview-prompt", help="With {} for the token.")
    ] = None,
    preview_steps: Annotated[
        int | None, typer.Option("--preview-steps", help="Sampler steps.")
    ] = None,
    checkpoint_every: Annotated[
        int, typer.Option("--checkpoint-every", help="Updates between checkpoints.")
    ] = 100,
    seed: Annotated[int, typer.Option("--seed", help="Of everything random.")] = 0,
    out: options.Out = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Go on with the run in this folder.")
    ] = None,
    json: options.Json = False,
    overwrite: options.Overwrite = False,
    device: options.Device = "cpu",
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="Of the frozen parts. Default: the device's best.")
    ] = None,
    compile: Annotated[bool, typer.Option("--compile", help="Compile the denoiser.")] = False,
    tracker: Annotated[str | None, typer.Option("--tracker", help="tensorboard or wandb.")] = None,
) -> None:
    """Learn a token: a folder of images becomes a word.

    The run's folder holds config.json, events.jsonl, previews/, checkpoints/,
    learned_embeds*.safetensors (diffusers can load them), result.json and index.html. --resume RUN
    resumes a run that was stopped; its files are byte-identical to those of a run without a stop.
    """
    from dti_geom.errors import TrainingError
    from dti_geom.training import DataConfig, MethodConfig, PreviewConfig, RunConfig
    from dti_geom.training import resume as go_on
    from dti_geom.training import train as learn

    if resume is not None:
        with training_progress() as progress:
            result = go_on(resume, progress=progress, tracker=tracker)
        _show(result, resume, json)
        return
    if out is None:
        raise TrainingError("--out is missing: the folder that shall hold the run.")
    preview = PreviewConfig(every=preview_every, steps=preview_steps)
    if preview_prompt:
        preview = PreviewConfig(preview_every, tuple(preview_prompt), steps=preview_steps)
    config = RunConfig(
        model=model,
        concepts=_concepts(concept, images, token, init, subject, start, vectors),
        method=MethodConfig(
            method,
            learning_rate,
            magnitude,
            kappa,
            beta,
            optimizer,
            momentum,
            weight_decay,
            schedule,
            warmup,
            average_last,
        ),
        data=DataConfig(
            resolution,
            crops,
            flip,
            captions,
            str(masks) if masks else None,
            tuple(template) if template else None,
        ),
        preview=preview,
        steps=steps,
        batch_size=batch_size,
        accumulate=accumulate,
        min_snr=min_snr,
        checkpoint_every=checkpoint_every,
        seed=seed,
        device=device,
        dtype=dtype,
        compile=compile,
    )
    with training_progress() as progress:
        result = learn(config, out, overwrite=overwrite, progress=progress, tracker=tracker)
    _show(result, out, json)


def _concepts(
    named: list[str] | None,
    images: Path | None,
    token: str,
    init: str | None,
    subject: str | None,
    start: str,
    vectors: int | None,
) -> "tuple[ConceptConfig, ...]":
    from dti_geom.errors import TrainingError
    from dti_geom.training import ConceptConfig, class_word

    if named:
        if images is not None:
            raise TrainingError("--images and --concept both say what to learn. Give one of them.")
        return tuple(_named_concept(one, token, init, start, vectors) for one in named)
    if images is None:
        raise TrainingError(
            "nothing to learn: pass --images DIR, or --concept NAME of `dti-geom concepts`."
        )
    if init is None and subject is not None:
        init = class_word(images, subject)
    if init is None:
        raise TrainingError("--init is missing: a word for what the images show, such as dog.")
    return (ConceptConfig(token, str(images), init, subject, start, vectors),)


def _named_concept(
    text: str, token: str, init: str | None, start: str, vectors: int | None
) -> "ConceptConfig":
    """A concept that ships with a model, or `<x>=FOLDER:word`."""
    from dti_geom.errors import TrainingError
    from dti_geom.models.catalog import known_concepts
    from dti_geom.training import ConceptConfig

    if "=" in text:
        name, _, rest = text.partition("=")
        folder, _, word = rest.rpartition(":")
        if not (name and folder and word):
            raise TrainingError(f'--concept {text}: expected "<x>=FOLDER:word".')
        return ConceptConfig(name, folder, word, None, start, vectors)
    known = known_concepts()
    if text not in known:
        raise TrainingError(
            f"no concept called '{text}'. Known: {', '.join(known)}; or give \"<x>=FOLDER:word\"."
        )
    return ConceptConfig(
        token, str(known[text].images), init or known[text].init, None, start, vectors
    )


def _show(result: "TrainingResult", out: Path, json: bool) -> None:
    from dti_geom.training.processes import Processes

    if not Processes().is_main:
        return
    from dti_geom.models import open_encoders
    from dti_geom.reporting.run_page import write_run_page
    from dti_geom.reporting.sections.training import training_section
    from dti_geom.training.story import TrainingRuns, read_run

    model = result.config.model
    encoders = open_encoders(model)
    runs = TrainingRuns.of(model, [read_run(out)], encoders)
    page = write_run_page(out, runs, encoders)
    if json:
        print_json(result)
        return
    print_section(training_section(runs))
    print_line(str(page))
