"""`dti-geom train`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .output import print_json, print_line, print_notice, print_section
from .progress import training_progress

if TYPE_CHECKING:
    from dti_geom.training import AdapterConfig, ConceptConfig, RunConfig
    from dti_geom.training.run import TrainingResult

Concepts = Annotated[
    list[str] | None,
    typer.Option(
        "--concept",
        "-c",
        help='A concept of `dti-geom concepts`, or "<x>=FOLDER:word"; several share batches.',
    ),
]

TOKEN = "<x>"  # the name of a single token

# What may be said beside --resume; everything else is in the run's config.json already.
RESUMED = ("resume", "steps", "json", "tracker")


def train(
    context: typer.Context,
    model: options.Model = "mini",
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of images, or folder of a dataset.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            help="Name of the new token. Default: <x>; several --concept: their names.",
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            "--init", help="Word of the model for what the images show; the token starts from it."
        ),
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(
            "--subject",
            help="Subfolder of --images. The DreamBooth dataset names its class, for --init.",
        ),
    ] = None,
    concept: Concepts = None,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="dti, dti-tuned, ti, crossinit, a norm policy such as median-projection, or fixed "
            "(the token stays as it starts, and an adapter learns alone).",
        ),
    ] = "dti",
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            help="Number of updates. Default: the model's (SANA 500, others 400); with an adapter "
            "250 for lora, 150 for oft. With --resume: a larger number extends the run.",
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", help="Images per concept and backward pass.")
    ] = 4,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            help="Rate of an update; in radians for dti. It is not multiplied by the batch size: "
            "for the rate of a trainer that does so, give rate × batch × accumulation. Default: "
            "the model's (0.04 for dti, 0.02 for a free vector).",
        ),
    ] = None,
    kappa: Annotated[
        float | None,
        typer.Option(
            "--kappa",
            help="Strength of the prior toward --init. Default: the model's (SANA 5e-5, others "
            "1e-4).",
        ),
    ] = None,
    magnitude: Annotated[
        str | None,
        typer.Option(
            "--magnitude",
            help="Norm of the token: mean, median, min, max, init, token:WORD, 2*mean and the "
            "like, a number, or learned. Default: the method's.",
        ),
    ] = None,
    start: Annotated[
        str,
        typer.Option(
            "--start",
            help="First vectors: word (of --init), output (of the encoder), mean, random, or an "
            "embedding file.",
        ),
    ] = "word",
    vectors: Annotated[
        int | None,
        typer.Option(
            "--vectors", help="Vectors of the token. Default: one for each word of --init."
        ),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            "--optimizer", help="Optimizer on the sphere: sgd or adam. Default: the method's (sgd)."
        ),
    ] = None,
    momentum: Annotated[
        float | None, typer.Option("--momentum", help="Momentum of Riemannian SGD, below 1.")
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option("--beta", help="Decay of Riemannian SGD's second moment, below 1."),
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(
            "--weight-decay",
            help="Weight decay of AdamW. Default: the model's (SANA 0, others 0.01).",
        ),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(
            "--strength",
            help="Hold on the token: crossinit's pull to its start (default 1e-5), norm-decay's "
            "share of the gap over the rate (100), std-retraction's exponent (0.1).",
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            "--schedule",
            help="Schedule of the learning rate: constant, linear or cosine (to 0), or "
            "angular:RADIANS, which falls as the angle by which a growing free vector turns.",
        ),
    ] = None,
    warmup: Annotated[
        int | None,
        typer.Option("--warmup", help="Updates in which the learning rate rises linearly."),
    ] = None,
    average_last: Annotated[
        int | None,
        typer.Option("--average-last", help="Save the average over the last N updates."),
    ] = None,
    accumulate: Annotated[
        int, typer.Option("--accumulate", help="Backward passes per update.")
    ] = 1,
    min_snr: Annotated[
        float | None, typer.Option("--min-snr", help="γ of min-SNR loss weights, e.g. 5.")
    ] = None,
    resolution: Annotated[
        int | None,
        typer.Option(
            "--resolution",
            help="Side in pixels. Default: the model's own; for SDXL 768, as in the paper.",
        ),
    ] = None,
    crops: Annotated[
        int, typer.Option("--crops", help="Fixed views per image; the first is the centre.")
    ] = 1,
    random_crops: Annotated[
        bool,
        typer.Option(
            "--random-crops",
            help="Cut every sample at a random place of its image, as the published training "
            "does; the autoencoder then runs in every update.",
        ),
    ] = False,
    flip: Annotated[bool, typer.Option("--flip", help="Also train on mirror images.")] = False,
    captions: Annotated[
        bool, typer.Option("--captions", help="Take prompts from NAME.txt beside each image.")
    ] = False,
    masks: Annotated[
        Path | None,
        typer.Option("--masks", help="Folder of NAME.png; only white pixels count in the loss."),
    ] = None,
    learn: Annotated[
        str,
        typer.Option(
            "--learn", help="What the token stands for, object or style; chooses the prompts."
        ),
    ] = "object",
    template: Annotated[
        list[str] | None,
        typer.Option("--template", help="Training prompt, with {} for the token; repeatable."),
    ] = None,
    instruction: Annotated[
        bool | None,
        typer.Option(
            "--instruction/--no-instruction",
            help="Put SANA's instruction before each prompt, as its generation does (default), or "
            "leave it out, as the paper's trainer does; previews do the same.",
        ),
    ] = None,
    zero_pad: Annotated[
        bool,
        typer.Option(
            "--zero-pad",
            help="Put 0 to 15 zero vectors before every training prompt, as the published training "
            "on SANA does.",
        ),
    ] = False,
    times: Annotated[
        str | None,
        typer.Option(
            "--times",
            help="How SANA's times are drawn: uniform (default), or logit-normal as SANA was "
            "trained.",
        ),
    ] = None,
    stratified: Annotated[
        bool,
        typer.Option(
            "--stratified/--independent",
            help="Spread the times of an update over their distribution: gradients vary less. "
            "Default: draw each by itself.",
        ),
    ] = False,
    adapter: Annotated[
        str | None,
        typer.Option(
            "--adapter", help="Also train an adapter of the denoiser: lora or oft. Default: none."
        ),
    ] = None,
    rank: Annotated[
        int | None, typer.Option("--rank", help="Rank of the LoRA. Default: 4.")
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            "--alpha", help="α of the LoRA: its update is α / rank · B·A. Default: the rank."
        ),
    ] = None,
    block_size: Annotated[
        int | None,
        typer.Option("--block-size", help="Inputs that one rotation of the OFT mixes. Default: 4."),
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option(
            "--targets",
            help="Layers that the adapter changes, by the ends of their names, with commas. "
            "Default: to_q,to_k,to_v.",
        ),
    ] = None,
    adapter_rate: Annotated[
        float | None,
        typer.Option(
            "--adapter-rate", help="Learning rate of the adapter's own AdamW. Default: 5e-5."
        ),
    ] = None,
    adapter_decay: Annotated[
        float | None,
        typer.Option("--adapter-decay", help="Weight decay of the adapter. Default: 0.01."),
    ] = None,
    adapter_from: Annotated[
        int | None,
        typer.Option(
            "--adapter-from", help="Updates before the adapter begins to learn. Default: 0."
        ),
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(
            "--objective",
            help="What is minimised: denoising, dco, prior-preservation, context, separation. "
            "Repeatable: their sum. Default: denoising.",
        ),
    ] = None,
    dco_beta: Annotated[float, typer.Option("--dco-beta", help="β of dco.")] = 1000.0,
    dco_reference: Annotated[
        str,
        typer.Option(
            "--dco-reference",
            help="Prompt that the model without the adapter reads in dco: same, or class-word.",
        ),
    ] = "same",
    prior_images: Annotated[
        Path | None,
        typer.Option(
            "--prior-images",
            help="Folder of images of the class for prior-preservation. Default: the model paints "
            "them once.",
        ),
    ] = None,
    prior_count: Annotated[
        int, typer.Option("--prior-count", help="Images of each class that the model paints.")
    ] = 50,
    prior_weight: Annotated[
        float, typer.Option("--prior-weight", help="Weight of prior-preservation.")
    ] = 1.0,
    context_weight: Annotated[
        float, typer.Option("--context-weight", help="Weight of context.")
    ] = 0.1,
    separation_weight: Annotated[
        float, typer.Option("--separation-weight", help="Weight of separation.")
    ] = 0.1,
    preview_every: Annotated[
        int, typer.Option("--preview-every", help="Updates between previews; 0: none.")
    ] = 200,
    preview_prompt: Annotated[
        list[str] | None,
        typer.Option("--preview-prompt", help="Prompt of previews, with {} for the token."),
    ] = None,
    preview_steps: Annotated[
        int | None,
        typer.Option(
            "--preview-steps", help="Sampler steps of previews. Default: the model's, 25 at most."
        ),
    ] = None,
    checkpoint_every: Annotated[
        int, typer.Option("--checkpoint-every", help="Updates between checkpoints.")
    ] = 100,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything random.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            callback=options.writable,
            help="Folder of the run. Required without --resume.",
        ),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Continue the stopped run in this folder.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Only estimate the run: files, memory by part, cards that fit, operations. It "
            "loads no weights and needs no --out.",
        ),
    ] = False,
    json: options.Json = False,
    overwrite: options.Overwrite = False,
    device: options.Device = "cpu",
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype",
            help="Number type of the frozen weights: float32, bfloat16 or float16. Default: the "
            "device's best.",
        ),
    ] = None,
    memory: Annotated[
        str,
        typer.Option(
            "--memory",
            help="fast; low, which recomputes what it does not keep and moves idle parts off the "
            "card; or auto: fast if it fits the card by an estimate, else low.",
        ),
    ] = "auto",
    compile: Annotated[bool, typer.Option("--compile", help="Compile the denoiser.")] = False,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="On CUDA, use kernels that repeat their results to the byte; slower. A CPU always "
            "does so.",
        ),
    ] = False,
    tracker: Annotated[
        str | None, typer.Option("--tracker", help="Also log to tensorboard or wandb.")
    ] = None,
) -> None:
    """Learn a token: a folder of images becomes a word.

    With --adapter, a LoRA or an OFT of the denoiser learns beside it. The run's folder holds
    config.json, events.jsonl, previews/, checkpoints/, learned_embeds*.safetensors and
    pytorch_lora_weights.safetensors (diffusers loads them), result.json and index.html. Continue a
    stopped run with --resume RUN; it ends with byte-identical vectors, on a CPU and on CUDA with
    --deterministic. Ctrl-C ends a run after the current update, with a checkpoint.
    """
    from dti_geom.errors import TrainingError
    from dti_geom.training import (
        DataConfig,
        MethodConfig,
        ObjectiveConfig,
        PreviewConfig,
        RunConfig,
    )
    from dti_geom.training import resume as continue_run
    from dti_geom.training import train as train_run

    if resume is not None:
        _refuse_beside_resume(context, resume)
        with _stopping(), training_progress() as (progress, stage, download):
            result = continue_run(
                resume,
                steps=steps,
                progress=progress,
                stage=stage,
                download=download,
                tracker=tracker,
            )
        _show(result, resume, json)
        return
    if out is None and not dry_run:
        raise TrainingError("--out is missing: the folder for the run.")
    if template and learn != "object":
        raise TrainingError("--template and --learn both say how to ask. Give one of them.")
    preview = PreviewConfig(every=preview_every, steps=preview_steps)
    if preview_prompt:
        preview = replace(preview, prompts=tuple(preview_prompt))
    config = RunConfig(
        model=model,
        concepts=_concepts(
            named=concept,
            images=images,
            token=token,
            init=init,
            subject=subject,
            start=start,
            vectors=vectors,
        ),
        method=MethodConfig(
            name=method,
            learning_rate=learning_rate,
            magnitude=magnitude,
            kappa=kappa,
            beta=beta,
            optimizer=optimizer,
            momentum=momentum,
            weight_decay=weight_decay,
            strength=strength,
            schedule=schedule,
            warmup=warmup,
            average_last=average_last,
        ),
        data=DataConfig(
            resolution=resolution,
            crops=crops,
            random_crops=random_crops,
            flip=flip,
            captions=captions,
            masks=str(masks) if masks else None,
            learn=learn,
            templates=tuple(template) if template else None,
            instruction=instruction,
            stratified=stratified,
            zero_pad=zero_pad,
            times=times,
        ),
        preview=preview,
        adapter=_adapter(
            adapter,
            rank=rank,
            alpha=alpha,
            block_size=block_size,
            targets=tuple(targets.split(",")) if targets else None,
            learning_rate=adapter_rate,
            weight_decay=adapter_decay,
            from_step=adapter_from,
        ),
        objective=ObjectiveConfig(
            names=tuple(objective) if objective else None,
            dco_beta=dco_beta,
            dco_reference=dco_reference,
            prior_weight=prior_weight,
            prior_images=str(prior_images) if prior_images else None,
            prior_count=prior_count,
            context_weight=context_weight,
            separation_weight=separation_weight,
        ),
        steps=steps,
        batch_size=batch_size,
        accumulate=accumulate,
        min_snr=min_snr,
        checkpoint_every=checkpoint_every,
        seed=seed,
        device=device,
        dtype=dtype,
        compile=compile,
        deterministic=deterministic,
        memory=memory,
    )
    if dry_run or out is None:
        _show_estimate(config, json)
        return
    with _stopping(), training_progress() as (progress, stage, download):
        result = train_run(
            config,
            out,
            overwrite=overwrite,
            progress=progress,
            stage=stage,
            download=download,
            tracker=tracker,
        )
    _show(result, out, json)


def _adapter(kind: str | None, **asked: Any) -> "AdapterConfig | None":
    """Return the adapter that the options ask for. Raises TrainingError for options without one."""
    from dti_geom.errors import TrainingError
    from dti_geom.training import AdapterConfig

    given = {name: value for name, value in asked.items() if value is not None}
    if kind is not None:
        return AdapterConfig(kind, **given)
    if given:
        raise TrainingError(
            f"{', '.join(given)} given, and no adapter. Add --adapter lora or oft, or leave it out."
        )
    return None


def _show_estimate(config: "RunConfig", json: bool) -> None:
    """Print what a run would download, need and compute."""
    from dti_geom.reporting.sections.estimate import estimate_section
    from dti_geom.training.estimates import estimate_run

    estimate = estimate_run(config)
    if json:
        print_json(estimate)
    else:
        print_section(estimate_section(estimate))
    if not estimate.bytes_to_download:
        _say_inflation(estimate.config)


def _say_inflation(config: "RunConfig") -> None:
    """Print how long the tokens of a free method will be, as the run itself does."""
    from dti_geom.models import open_encoders
    from dti_geom.training.inflation import inflation_notice, predict_run

    predicted = predict_run(config, open_encoders(config.model))
    said = inflation_notice(predicted) if predicted else None
    if said:
        print_notice(said)


@contextmanager
def _stopping() -> Iterator[None]:
    """Print how to resume a run that a signal stopped, and exit as shells expect: 130 or 143."""
    from dti_geom.errors import TrainingStopped

    try:
        yield
    except TrainingStopped as stopped:
        print_notice(str(stopped))
        raise typer.Exit(128 + stopped.signal) from None


def _refuse_beside_resume(context: typer.Context, run: Path) -> None:
    """Raise TrainingError for options that a resumed run would ignore."""
    from dti_geom.errors import TrainingError

    given = []
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name not in RESUMED and source is not None and source.name == "COMMANDLINE":
            given.append(parameter.opts[0])
    if given:
        raise TrainingError(
            f"{', '.join(given)}: a resumed run keeps the settings in {run / 'config.json'}. Leave "
            "them out, or train into another folder. --steps can extend the run."
        )


def _concepts(
    *,
    named: list[str] | None,
    images: Path | None,
    token: str | None,
    init: str | None,
    subject: str | None,
    start: str,
    vectors: int | None,
) -> "tuple[ConceptConfig, ...]":
    """Return what --concept or --images ask to learn. Raises TrainingError for both or neither."""
    from dti_geom.errors import TrainingError
    from dti_geom.training import ConceptConfig
    from dti_geom.training.data import class_words

    if named:
        if images is not None:
            raise TrainingError("--images and --concept both say what to learn. Give one of them.")
        several = sum("=" not in text for text in named) > 1
        if several and (token or init):
            raise TrainingError(
                f"{'--token' if token else '--init'} is of one concept, and {len(named)} are "
                "given. Leave it out: tokens then have the concepts' names. Or describe each as "
                '"<x>=FOLDER:word".'
            )
        concepts = [
            _named_concept(text, f"<{text}>" if several else token or TOKEN, init) for text in named
        ]
    else:
        if images is None:
            raise TrainingError(
                "nothing to learn: pass --images DIR, or --concept NAME of `dti-geom concepts`."
            )
        if init is None and subject is not None:
            init = class_words(images).get(subject)
        if init is None:
            raise TrainingError("--init is missing: a word for what the images show, such as dog.")
        concepts = [ConceptConfig(token or TOKEN, str(images), init, subject)]
    return tuple(replace(concept, start=start, vectors=vectors) for concept in concepts)


def _named_concept(text: str, token: str, init: str | None) -> "ConceptConfig":
    """Return a concept that ships with a model, or the one that `<x>=FOLDER:word` describes."""
    from dti_geom.errors import TrainingError, nearest_name
    from dti_geom.models.catalog import known_concepts
    from dti_geom.training import ConceptConfig

    if "=" in text:
        name, _, rest = text.partition("=")
        folder, _, word = rest.rpartition(":")
        if not (name and folder and word):
            raise TrainingError(f'--concept {text}: expected "<x>=FOLDER:word".')
        return ConceptConfig(name, folder, word)
    known = known_concepts()
    if text not in known:
        raise TrainingError(
            f"no concept called '{text}'.{nearest_name(text, known)} Known: {', '.join(known)}; "
            'or give "<x>=FOLDER:word".'
        )
    return ConceptConfig(token, str(known[text].images), init or known[text].init)


def _show(result: "TrainingResult", out: Path, json: bool) -> None:
    """Write the run's page and print its result; only the first of several processes does."""
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
