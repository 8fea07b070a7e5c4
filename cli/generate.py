"""`dti-geom generate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .inputs import read_lines
from .output import print_json, print_line, print_notice
from .progress import reading_progress, working_progress

if TYPE_CHECKING:
    from dti_geom.models.pipelines import TextToImage

Tokens = Annotated[
    list[str] | None,
    typer.Option(
        "--embedding",
        "-e",
        help="A learned-embedding file, a folder of them or of a run; '<name>=PATH' renames its "
        "token. May be given several times.",
    ),
]
AdapterScale = Annotated[
    float,
    typer.Option(
        "--adapter-scale",
        help="What multiplies the effect of the runs' adapters; 0 leaves them out.",
    ),
]
Seeds = Annotated[
    list[int] | None,
    typer.Option("--seed", "-s", help="Seed of the noise. May be given several times. Default: 0."),
]
Count = Annotated[
    int | None,
    typer.Option("--seeds", min=1, metavar="COUNT", help="Use the seeds 0 to COUNT − 1."),
]
Steps = Annotated[
    int | None, typer.Option("--steps", help="Sampler steps. Default: the model's own.")
]
Guidance = Annotated[
    float | None, typer.Option("--guidance", help="Guidance scale. Default: the model's own.")
]
Size = Annotated[
    int | None,
    typer.Option("--size", help="Pixels of a side. Default: the side the model was trained at."),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        min=1,
        help="Pictures painted at once. Default: about 1 megapixel in total, at most 16.",
    ),
]
Dtype = Annotated[
    options.Numbers | None,
    typer.Option(
        "--dtype",
        metavar="TYPE",
        help="Number type: float32, float16 or bfloat16. Default: the device's best.",
    ),
]


def generate(
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            callback=options.writable,
            help="Folder of the pictures. A stopped call resumes there.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A name of `dti-geom models`, a Hub id or a pipeline folder. Default: mini.",
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt",
            "-p",
            help="Prompt; {} stands for each learned token. May be given several times.",
        ),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", help="A file with one prompt per line.")
    ] = None,
    embedding: Tokens = None,
    adapter_scale: AdapterScale = 1.0,
    preview: Annotated[
        str | None,
        typer.Option("--preview", help="Token file of a run: paint that run's previews again."),
    ] = None,
    seed: Seeds = None,
    seeds: Count = None,
    steps: Steps = None,
    guidance: Guidance = None,
    size: Size = None,
    reward: Annotated[
        float | None,
        typer.Option(
            "--reward",
            help="Reward guidance r for adapters: ε∅ + w(ε_c − ε∅) + r(ε_adapter − ε_c), with ε∅ "
            "and ε_c of the frozen model and w of --guidance. Every step computes twice.",
        ),
    ] = None,
    batch_size: BatchSize = None,
    json: options.Json = False,
    device: options.Device = "cpu",
    dtype: Dtype = None,
) -> None:
    """Paint pictures for prompts × learned tokens × seeds.

    Writes PNG files named after a hash of their settings, index.jsonl with a line for each,
    sheet.png, and the page pictures.html. Pictures that exist already are not painted again; other
    settings make other files.
    """
    from dti_geom.errors import EvaluationError
    from dti_geom.evaluation import load_tokens, paint_pictures, save_sheet
    from dti_geom.evaluation.learned import token_files
    from dti_geom.evaluation.previews import read_preview
    from dti_geom.reporting.folder import save_gallery

    asked: dict[str, Any] = {
        "steps": steps,
        "guidance": guidance,
        "size": size,
        "reward": reward,
        "batch_size": batch_size,
    }
    wanted = list(prompt or ())
    if prompts:
        wanted += [line for _, line in read_lines(prompts)]
    drawn = chosen_seeds(seed, seeds)
    files = token_files(embedding or ())
    number = dtype.value if dtype else None
    recorded = None
    if preview is not None:
        if wanted or files or seed or seeds:
            raise EvaluationError(
                "--preview brings its own prompts, seeds and token. Leave the others out."
            )
        files = token_files([preview])
        recorded = read_preview(files[0])
        wanted, drawn = list(recorded.prompts), list(recorded.seeds)
        model, number = model or recorded.model, number or recorded.dtype
        # In one batch, as the trainer painted them, the files are byte-identical on a CPU.
        own = {
            "steps": recorded.steps,
            "guidance": recorded.guidance,
            "size": recorded.size,
            "reward": None,
            "batch_size": len(wanted) * len(drawn),
        }
        asked = {name: own[name] if value is None else value for name, value in asked.items()}
    painter = open_painter(model or "mini", device, number)
    if recorded is not None:
        painter.follow_instruction(recorded.instruction)
    tokens = load_tokens(painter, files, adapter_scale=adapter_scale)
    if recorded is not None and len(tokens) != 1:
        raise EvaluationError(
            f"{preview} holds {len(tokens)} tokens ({', '.join(tokens)}). Name the file of one "
            "of them."
        )
    _tell_of_prompts_without(wanted, tokens)
    with working_progress() as progress:
        result = paint_pictures(
            painter, wanted, drawn, out, tokens=tokens, progress=progress, **asked
        )
    sheet, page = save_sheet(result, out), save_gallery(result, out)
    if json:
        print_json(result)
        return
    print_line(
        f"{result.model} · {len(result.pictures)} pictures, {result.painted} of them painted now "
        f"in {result.seconds:.1f} s · {result.settings.steps} steps, guidance "
        f"{result.settings.guidance:g}, {result.settings.size} px, {result.settings.dtype}"
    )
    print_line(str(sheet))
    print_line(str(page))


def _tell_of_prompts_without(prompts: list[str], tokens: tuple[str, ...]) -> None:
    """Say which prompts show none of the tokens. Raises EvaluationError if none shows any."""
    from dti_geom.errors import EvaluationError
    from dti_geom.evaluation.pictures import prompts_without

    without = prompts_without(prompts, tokens) if tokens else []
    if not without:
        return
    names = ", ".join(tokens)
    if len(without) == len(prompts):
        raise EvaluationError(
            f"no prompt shows {names}. Write {{}} where a token should stand: 'a photo of a {{}}'."
        )
    print_notice(f"painted without {names}: {'; '.join(without)}")


def chosen_seeds(named: list[int] | None, count: int | None) -> list[int]:
    """Return the seeds of --seed, or as many as --seeds says, or seed 0. Raises EvaluationError."""
    from dti_geom.errors import EvaluationError

    if named and count:
        raise EvaluationError("--seed and --seeds both set the noise. Give one of them.")
    return list(named or range(count or 1))


def open_painter(model: str, device: str, dtype: str | None) -> "TextToImage":
    """Open a text-to-image model. dtype: as torch names it; by default the device's best."""
    import torch

    from dti_geom.models.pipelines import open_text_to_image

    number = getattr(torch, dtype) if dtype else None
    with reading_progress() as progress:
        return open_text_to_image(model, device=device, dtype=number, progress=progress)
