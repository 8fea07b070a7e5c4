"""One cell of a sweep: its training, pictures and scores. Results in its folder are used again.

FOLDER/runs/RUN_KEY/       the training run; cells that differ only in their evaluation share it
FOLDER/cells/KEY/          pictures/, cell.json, cost.json; error.txt instead, if it failed
"""

import os
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from dti_geom.errors import SweepError
from dti_geom.evaluation.evaluation import Candidate, Evaluation, evaluate, with_baselines
from dti_geom.evaluation.learned import Learned, mean_norms, read_learned
from dti_geom.evaluation.prompts import PromptSet, open_prompt_set
from dti_geom.evaluation.scores import (
    ImageScore,
    LeftOut,
    PictureReader,
    PromptFit,
    SceneChecks,
    TextScorer,
)
from dti_geom.files import load_result, read_embeddings, save_result, write_text
from dti_geom.files.run_layout import checkpoint_folder
from dti_geom.mini.ceilings import ConceptCeiling
from dti_geom.models.catalog import profile_of
from dti_geom.models.image_encoders import (
    ImageEncoder,
    open_image_encoder,
    open_image_text_encoder,
)
from dti_geom.sweeps.plan import Cell, EvaluationConfig
from dti_geom.training.config import RunConfig
from dti_geom.training.data import image_files, located
from dti_geom.training.run import TrainingResult, resume, train
from dti_geom.training.story import learned_files
from dti_geom.training.trainable import LearnedVectorResult

if TYPE_CHECKING:
    from dti_geom.models.pipelines import TextToImage

RESULT, COST, ERROR = "cell.json", "cost.json", "error.txt"
PAPER_IMAGES, PAPER_TEXT = "dinov2", "siglip"  # the scorers of the paper


@dataclass(frozen=True)
class Moment:
    """What a run had learned of one subject after some updates, and its scores."""

    subject: str
    step: int  # updates
    inflation: float  # mean over its vectors of norm / mean norm of the vocabulary
    subject_score: float  # mean over its pictures, as the next
    text_score: float
    images: int


@dataclass(frozen=True)
class CellResult:
    """The result of a cell. On CPUs every engine computes the same bytes for a cell."""

    method: str  # its name; scores of baselines have their own
    seed: int
    prompts: str
    image_encoder: str
    text_encoder: str
    text_unit: str
    vectors: tuple[LearnedVectorResult, ...]
    last_losses: dict[str, float]  # by token
    moments: tuple[Moment, ...]  # checkpoints, then the end
    images: tuple[ImageScore, ...]
    left_out: tuple[LeftOut, ...]
    ceilings: dict[str, ConceptCeiling] = field(default_factory=dict)  # by subject, where known


@dataclass(frozen=True)
class Cost:
    """Time and memory of a cell on the machine that computed it."""

    training_seconds: float  # of the updates
    evaluation_seconds: float  # of pictures and scores
    peak_memory: int  # bytes


def run_cell(cell: Cell, folder: Path) -> CellResult:
    """Train a cell or resume its run, then paint and score. Everything is kept below `folder`.

    A result that is there already is returned. The model and the encoders stay open in this
    process for the next cell. Raises what training and evaluation raise.
    """
    place = folder / "cells" / cell.key
    if (place / RESULT).exists():
        return load_result(place / RESULT, CellResult)
    (place / ERROR).unlink(missing_ok=True)
    run = located(cell.run)
    model = open_model(run.model, run.device, run.dtype)
    model.forget()
    run_folder = folder / "runs" / cell.run_key
    trained = _trained(run, run_folder, model)
    started = time.monotonic()
    painter = _Painter(cell, run, trained.config, run_folder, place, model)
    candidates = painter.candidates()
    scored = painter.evaluate(
        with_baselines(candidates, model) if cell.evaluation.baselines else candidates
    )
    moments = painter.checkpoints(trained.steps)
    moments += _moments(trained.steps, candidates, scored, model)
    result = CellResult(
        method=run.method.name,
        seed=run.seed,
        prompts=scored.prompts,
        image_encoder=scored.image_encoder,
        text_encoder=scored.text_encoder,
        text_unit=scored.text_unit,
        vectors=trained.vectors,
        last_losses=trained.last_losses,
        moments=tuple(moments),
        images=tuple(replace(image, run="") for image in scored.images),
        left_out=scored.left_out,
        ceilings=scored.ceilings,
    )
    cost = Cost(trained.seconds, time.monotonic() - started, trained.peak_memory)
    save_result(place / COST, cost, overwrite=True)
    save_result(place / RESULT, result, overwrite=True)  # last: its presence marks a done cell
    return result


def try_cell(cell: Cell, folder: Path) -> str | None:
    """Run a cell; if it fails, keep its log in error.txt and return the error as one line.

    Returns None for a cell that is done. A failed cell does not stop the others.
    """
    try:
        run_cell(cell, folder)
    except Exception as error:  # any error at all
        write_text(folder / "cells" / cell.key / ERROR, traceback.format_exc(), overwrite=True)
        return f"{type(error).__name__}: {error}"
    return None


def run_candidates(
    label: str,
    folder: Path,
    run: RunConfig,
    model: "TextToImage",
    step: int | None = None,
    *,
    adapter_scale: float = 1.0,
) -> list[Candidate]:
    """Return a candidate for each concept of a run, under the method's label.

    step: updates of a checkpoint; by default the end of the run. Raises SweepError without files.
    """
    learned = learned_by_run(folder, run, model, step, adapter_scale=adapter_scale)
    return [
        Candidate(
            method=label,
            subject=concept.subject or Path(concept.images).name,
            class_word=concept.init,
            references=tuple(str(path) for path in image_files(concept)),
            learned=learned[concept.token],
            run=str(folder),
        )
        for concept in run.concepts
    ]


def learned_by_run(
    folder: Path,
    run: RunConfig,
    model: "TextToImage",
    step: int | None = None,
    *,
    adapter_scale: float = 1.0,
) -> dict[str, Learned]:
    """Return what a run learned, by the token of its concept.

    step: updates of a checkpoint; by default the end of the run. Raises SweepError without files.
    """
    place = folder if step is None else checkpoint_folder(folder, step)
    files = learned_files(place, run)
    if not files:
        raise SweepError(
            f"{place} holds no learned token; the run has no checkpoint after {step} updates."
        )
    read = [read_embeddings(path) for path in files]
    return read_learned(model, read, adapter_scale=adapter_scale)


def use_threads(threads: int) -> None:
    """Set the number of threads that this process computes with."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)


@cache
def open_model(name: str, device: str, dtype: str | None) -> "TextToImage":
    """Open a model, once in this process. dtype: as torch names it; by default the device's best.

    Raises what `open_text_to_image` raises.
    """
    import torch

    from dti_geom.models.pipelines import open_text_to_image

    return open_text_to_image(name, device=device, dtype=getattr(torch, dtype) if dtype else None)


@cache
def open_scorers(
    model: str, image: str | None, text: str | None, device: str
) -> tuple[ImageEncoder, TextScorer]:
    """Open an image encoder and a text scorer, once in this process.

    By default the model's own, or the paper's.
    """
    profile = profile_of(model)
    encoder = open_image_encoder(image or profile.image_encoder or PAPER_IMAGES, device=device)
    name = text or profile.text_scorer or PAPER_TEXT
    if isinstance(encoder, PictureReader) and encoder.name == name:
        return encoder, SceneChecks(encoder)
    return encoder, PromptFit(open_image_text_encoder(name, device=device))


def prompts_of(run: RunConfig, asked: EvaluationConfig) -> PromptSet:
    """Return the prompts for a run's subjects: by default the model's own, or the paper's."""
    name = asked.prompts or profile_of(run.model).prompts or "paper"
    return open_prompt_set(name, asked.dreambooth or run.concepts[0].images)


@dataclass(frozen=True)
class _Painter:
    """Paints and scores what one run learned."""

    cell: Cell
    run: RunConfig  # as the cell asks for it
    trained: RunConfig  # as its folder records it
    run_folder: Path
    place: Path  # of the cell
    model: "TextToImage"

    def candidates(self, step: int | None = None) -> list[Candidate]:
        label = self.run.method.name
        return run_candidates(label, self.run_folder, self.trained, self.model, step)

    def evaluate(self, candidates: Sequence[Candidate]) -> Evaluation:
        asked, run = self.cell.evaluation, self.run
        encoder, text = open_scorers(run.model, asked.image_encoder, asked.text_encoder, run.device)
        return evaluate(
            self.model,
            candidates,
            prompts=prompts_of(run, asked),
            seeds=range(asked.seeds),
            encoder=encoder,
            text=text,
            out=self.place,
            steps=asked.steps,
            guidance=asked.guidance,
            masked=asked.masked,
        )

    def checkpoints(self, last: int) -> list[Moment]:
        """The moments before the last update."""
        moments: list[Moment] = []
        for step in sorted({*self.cell.evaluation.checkpoints} - {last}):
            candidates = self.candidates(step)
            scored = self.evaluate(candidates)
            moments += _moments(step, candidates, scored, self.model)
        return moments


def _trained(run: RunConfig, folder: Path, model: "TextToImage") -> TrainingResult:
    """Train, or resume the run in the folder; a run that is done is read."""
    if (folder / "config.json").exists():
        return resume(folder, model=model)
    return train(run, folder, model=model)


def _moments(
    step: int, candidates: Sequence[Candidate], evaluation: Evaluation, model: "TextToImage"
) -> Iterator[Moment]:
    """What each candidate scores after so many updates, by all its pictures."""
    means = mean_norms(model)
    for candidate in candidates:
        assert candidate.learned is not None
        wanted = candidate.method, candidate.subject
        scores = [score for score in evaluation.images if (score.method, score.subject) == wanted]
        yield Moment(
            subject=candidate.subject,
            step=step,
            inflation=candidate.learned.inflation(means),
            subject_score=fmean(score.subject_score for score in scores),
            text_score=fmean(score.text_score for score in scores),
            images=len(scores),
        )
