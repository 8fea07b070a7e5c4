"""The protocol of Kim et al. (2026) as a sweep, its cost, and the paper's tables beside its scores.

30 subjects of the DreamBooth dataset, 113 prompts for each, noise seeds 0 to 3, DINOv2 for the
subject and SigLIP for the text. A subject's run is a cell, so a stopped protocol resumes, on one
card or on a Ray cluster.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dti_geom.errors import SweepError, nearest_name
from dti_geom.evaluation.reference import SEEDS, Comparison, Scores, compare_scores
from dti_geom.evaluation.scores import mask_file
from dti_geom.progress import notice
from dti_geom.sweeps.estimates import pictures_of_cells
from dti_geom.sweeps.plan import Plan, plan_of
from dti_geom.sweeps.sweep import Finished, Sweep
from dti_geom.training import METHODS, ConceptConfig
from dti_geom.training.data import CLASSES_FILE, class_words, image_files
from dti_geom.training.estimates import estimate_run

PNG_BYTES = 1.1  # of a photograph, per pixel: an assumption
RESCALED = "ti-rescaled"  # Textual Inversion's tokens at the vocabulary's mean norm
PAPERS_METHODS = ("ti", RESCALED, "crossinit", "dti")
DEPARTURES = (
    "25 of the 41 prompts for a kind of subject are the dataset's. The wording of the other 16, of "
    "the 32 that combine things and of the 40 styles is ours: the paper gives their numbers alone.",
    "Tokens are trained by this program, not by the public code. A class of two words starts with "
    "a vector for each.",
    "Each subject has one training run; intervals are over subjects and noise seeds.",
)


def paper_plan(
    model: str,
    data: str | Path,
    methods: Sequence[str] = PAPERS_METHODS,
    *,
    subjects: Sequence[str] | None = None,
    seeds: int = len(SEEDS),
    steps: int | None = None,
    sampling_steps: int | None = None,
    image_encoder: str | None = None,
    text_encoder: str | None = None,
    device: str = "cpu",
    dtype: str | None = None,
) -> Plan:
    """Return the plan of the paper's protocol on a model.

    data: folder of the DreamBooth dataset, with prompts_and_classes.txt and a folder of images for
    each subject. methods: of `METHODS`, and ti-rescaled. subjects: some of the dataset's; None
    takes all that have a folder. seeds: pictures of each prompt. Where each image of a subject has
    a mask, masks/NAME.png, its references are cut out. What is None is the model's own, or the
    paper's scorer. Says which subjects are missing. Raises SweepError, and TrainingError for a
    folder without images.
    """
    data = Path(data).resolve()
    words = class_words(data)
    if not words:
        raise SweepError(
            f"{data} has no {CLASSES_FILE} that lists subjects and their class words. Name the "
            "folder of the DreamBooth dataset (github.com/google/dreambooth, dataset/)."
        )
    known = [name for name in words if (data / name).is_dir()]
    for name in subjects or ():
        if name not in known:
            raise SweepError(
                f"no subject called '{name}'.{nearest_name(name, known)} There are: "
                f"{', '.join(known) or 'none'}."
            )
    missing = [name for name in words if name not in known]
    if missing and subjects is None:
        notice(f"{data} has no images of {len(missing)} subjects: {', '.join(missing)}.")
    chosen = list(subjects or known)
    if not chosen:
        raise SweepError(f"{data} has images of none of the {len(words)} subjects that it lists.")
    content: dict[str, Any] = {
        "model": model,
        "concepts": [{"images": str(data / name), "init": words[name]} for name in chosen],
        "methods": _methods(methods),
        "train": {"steps": steps, "device": device, "dtype": dtype},
        "evaluate": {
            "prompts": "paper",
            "dreambooth": str(data),
            "seeds": seeds,
            "steps": sampling_steps,
            "image_encoder": image_encoder,
            "text_encoder": text_encoder,
        },
    }
    plan = plan_of(content, "paper")
    masked = {name for name in chosen if _has_masks(data / name)}
    if 0 < len(masked) < len(chosen):
        notice(f"{len(masked)} of {len(chosen)} subjects have masks; only theirs are cut out.")
    cells = [
        replace(cell, evaluation=replace(cell.evaluation, masked=cell.subjects[0] in masked))
        for cell in plan.cells
    ]
    return replace(plan, cells=tuple(cells))


def _methods(names: Sequence[str]) -> list[dict[str, Any]]:
    for name in names:
        if name != RESCALED and name not in METHODS:
            known = [*METHODS, RESCALED]
            raise SweepError(
                f"no method called '{name}'.{nearest_name(name, known)} Known: {', '.join(known)}."
            )
    trained = ["ti" if name == RESCALED else name for name in names]
    return [
        {"name": name, "baselines": name == "ti" and RESCALED in names}
        for name in dict.fromkeys(trained)
    ]


def _has_masks(folder: Path) -> bool:
    """Whether a subject has a mask for each image. Raises SweepError where only some have."""
    if not (folder / "masks").is_dir():
        return False
    files = image_files(ConceptConfig("<x>", str(folder), "x"))
    without = [path.name for path in files if not mask_file(path).is_file()]
    if without:
        raise SweepError(
            f"{folder / 'masks'} has no mask for {', '.join(without)}; expected NAME.png for each "
            "image. Add them, or move the folder away to compare with whole images."
        )
    return True


@dataclass(frozen=True)
class ProtocolEstimate:
    """The cost of a protocol on paper: counted operations, at an assumed speed."""

    cells: int
    subjects: int
    updates: int
    pictures: int
    update_flops: int  # of one update
    picture_flops: int
    teraflops: float  # assumed: operations of a card in a second, ÷ 10¹²
    hours: float  # of one card
    by_cards: dict[int, float]  # hours with so many cards
    gib: float  # that training needs on each card, --memory fast
    gib_low: float
    download: int  # bytes of the model
    disk: int  # bytes of the pictures, at `PNG_BYTES` a pixel


def estimate_protocol(
    plan: Plan, teraflops: float, cards: Sequence[int] = (1, 8, 64)
) -> ProtocolEstimate:
    """Estimate time and memory of a plan from the model's configuration; no weights are needed.

    teraflops: what a card does in a second, an assumption. Every cell is taken for equally long and
    runs on one card, so more cards than cells are of no use. Scoring, loading and encoding the
    images are not counted. Raises what `estimate_run` raises.
    """
    runs = list(dict.fromkeys(cell.run for cell in plan.cells))
    found = estimate_run(runs[0])
    fast, low = found.memory
    updates = (found.config.steps or 0) * len(runs)
    pictures = pictures_of_cells(plan.cells)
    steps = plan.cells[0].evaluation.steps or found.sampling_steps
    picture = fast.picture_flops + (steps - found.sampling_steps) * fast.sampler_flops
    seconds = (updates * fast.flops + pictures * picture) / (teraflops * 1e12)
    return ProtocolEstimate(
        cells=len(plan.cells),
        subjects=len({cell.subjects for cell in plan.cells}),
        updates=updates,
        pictures=pictures,
        update_flops=fast.flops,
        picture_flops=picture,
        teraflops=teraflops,
        hours=seconds / 3600,
        by_cards={
            count: seconds / 3600 * math.ceil(len(plan.cells) / count) / len(plan.cells)
            for count in cards
        },
        gib=fast.needed / 2**30,
        gib_low=low.needed / 2**30,
        download=found.bytes,
        disk=int(pictures * found.side**2 * PNG_BYTES),
    )


def beside_the_paper(finished: Finished, sweep: Sweep) -> Comparison:
    """Return the paper's tables with the protocol's scores beside them, and what differs.

    sweep: what `collect` makes of `finished`.
    """
    asked = finished.plan.cells[0].evaluation
    subjects = len({image.subject for _, image in finished.images})
    scores = Scores(
        model=sweep.model,
        prompts=sweep.prompts,
        seeds=tuple(range(asked.seeds)),
        image_encoder=sweep.image_encoder,
        text_encoder=sweep.text_encoder,
        subjects=subjects,
        summaries=sweep.summaries,
        accuracy=sweep.accuracy,
        ceilings=sweep.ceilings,
    )
    masked = {cell.subjects[0] for cell in finished.plan.cells if cell.evaluation.masked}
    cut_out = f"References of {len(masked)} of {subjects} subjects are cut out by masks, on white."
    compared = compare_scores([scores])
    notes = (*compared.notes, *DEPARTURES, cut_out, *_shortened(finished.plan))
    return replace(compared, notes=notes)


def _shortened(plan: Plan) -> Iterator[str]:
    """Say what is shorter than the model's own."""
    run, asked = plan.cells[0].run, plan.cells[0].evaluation
    if run.steps is not None:
        yield f"Tokens were trained for {run.steps} updates, not for the model's own number."
    if asked.steps is not None:
        yield f"Pictures took {asked.steps} steps of the sampler, not the model's own number."
