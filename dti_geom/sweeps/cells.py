"""One cell of a sweep, from its first update to its scores; what is in the sweep's folder already is not done again.

FOLDER/runs/RUN_KEY/       the training run, shared by all cells that differ in their evaluation alone
FOLDER/cells/KEY/          pictures/, cell.json, cost.json; error.txt instead, if it failed
"""

import os
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from dti_geom.errors import SweepError
from dti_geom.evaluation.evaluation import Candidate, Evaluation, evaluate, with_baselines
from dti_geom.evaluation.prompts import PromptSet, open_prompt_set
from dti_geom.evaluation.scores import (
    ImageScore,
    LeftOut,
    PictureReader,
    PromptFit,
    SceneChecks,
    TextScorer,
)
from dti_geom.evaluation.tokens import joined_towers
from dti_geom.files import load_result, read_embeddings, save_result, write_text
from dti_geom.files.run_layout import checkpoint_folder
from dti_geom.models.catalog import profile_of
from dti_geom.models.image_encoders import (
    ImageEncoder,
    open_image_encoder,
    open_image_text_encoder,
)
from dti_geom.sweeps.plan import Cell, EvaluationConfig, located
from dti_geom.training.config import RunConfig
from dti_geom.training.data import image_files
from dti_geom.training.run import resume, train
from dti_geom.training.story import learned_files
from dti_geom.training.trainable import LearnedVectorResult

if TYPE_CHECKING:
    from dti_geom.models.pipelines import TextToImage

RESULT, COST, ERROR = "cell.json", "cost.json", "error.txt"
PAPER_IMAGES, PAPER_TEXT = "dinov2", "siglip"  # the scorers of the paper


@dataclass(frozen=True)
class Moment:
    """A learned token after some updates, and how it paints: means over the pictures of the first seed."""

    subject: str
    step: int
    inflation: float  # mean over its vectors of norm / mean norm of the vocabulary
    subject_score: float
    text_score: float
    images: int


@dataclass(frozen=True)
class CellResult:
    """What a cell comes to; the same cell comes to the same bytes, whoever computes it."""

    method: str  # its name; scores of baselines carry theirs
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


@dataclass(frozen=True)
class Cost:
    """What a cell took where it was computed."""

    training_seconds: float  # of the updates
    evaluation_seconds: float  # pictures and scores
    peak_memory: int  # bytes


def run_cell(cell: Cell, folder: Path) -> CellResult:
    """Train, or go on, or take the run that is there; then paint and score. Keeps everything below `folder`.

    The model and the encoders stay open in this process for the next cell.
    """
    place = folder / "cells" / cell.key
    if (place / RESULT).exists():
        return load_result(place / RESULT, CellResult)
    (place / ERROR).unlink(missing_ok=True)
    run = located(cell.run)
    model = open_model(run.model, run.device, run.dtype)
    model.forget()
    run_folder = folder / "runs" / cell.run_key
    trained = (
        resume(run_folder, model=model)
        if (run_folder / "config.json").exists()
        else train(run, run_folder, model=model)
    )
    started, asked = time.monotonic(), cell.evaluation

    def after(step: int | None = None) -> list[Candidate]:
        return run_candidates(run.method.name, run_folder, trained.config, model, step)

    def scores(candidates: Sequence[Candidate], seeds: Sequence[int]) -> Evaluation:
        return _scores(candidates, seeds, asked, run, model, place)

    ended = after()
    scored = scores(with_baselines(ended, model) if asked.baselines else ended, range(asked.seeds))
    moments: list[Moment] = []
    for step in sorted({*asked.checkpoints} - {trained.steps}):
        tokens = after(step)
        moments += _moments(step, tokens, scores(tokens, [0]), model)
    moments += _moments(trained.steps, ended, scored, model)
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
    )
    cost = Cost(trained.seconds, time.monotonic() - started, trained.peak_memory)
    save_result(place / COST, cost, overwrite=True)
    save_result(place / RESULT, result, overwrite=True)  # its presence says that the cell is done
    return result


def try_cell(cell: Cell, folder: Path) -> str | None:
    """`run_cell`, its failure kept in error.txt and told in a line: one cell must not end the others."""
    try:
        run_cell(cell, folder)
    except Exception as error:  # whatever it is
        write_text(folder / "cells" / cell.key / ERROR, traceback.format_exc(), overwrite=True)
        return f"{type(error).__name__}: {error}"
    return None


def run_candidates(
    label: str, folder: Path, run: RunConfig, model: "TextToImage", step: int | None = None
) -> list[Candidate]:
    """The tokens of a run as they are to be painted; with `step`, as its checkpoint of then keeps them."""
    place = folder if step is None else checkpoint_folder(folder, step)
    files = learned_files(place, run)
    if not files:
        raise SweepError(
            f"{place} holds no learned token; the run has no checkpoint after {step} updates."
        )
    vectors = joined_towers(model, [read_embeddings(path) for path in files])
    return [
        Candidate(
            method=label,
            subject=concept.subject or Path(concept.images).name,
            class_word=concept.init,
            references=tuple(str(path) for path in image_files(concept)),
            vectors=tuple(vectors[concept.token]),
            run=str(folder),
        )
        for concept in run.concepts
    ]


def use_threads(threads: int) -> None:
    """Compute with this many threads in this process."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)


@cache
def open_model(name: str, device: str, dtype: str | None) -> "TextToImage":
    """The model, opened once in this process."""
    import torch

    from dti_geom.models.pipelines import open_text_to_image

    return open_text_to_image(name, device=device, dtype=getattr(torch, dtype) if dtype else None)


@cache
def open_scorers(
    model: str, image: str | None, text: str | None, device: str
) -> tuple[ImageEncoder, TextScorer]:
    """Open an image encoder and a text scorer, once: by default the model's own, or the paper's."""
    profile = profile_of(model)
    encoder = open_image_encoder(image or profile.image_encoder or PAPER_IMAGES, device=device)
    name = text or profile.text_scorer or PAPER_TEXT
    if isinstance(encoder, PictureReader) and encoder.name == name:
        return encoder, SceneChecks(encoder)
    return encoder, PromptFit(open_image_text_encoder(name, device=device))


def prompts_of(run: RunConfig, asked: EvaluationConfig) -> PromptSet:
    """Return the prompts to paint the tokens in: by default the model's own, or the paper's."""
    name = asked.prompts or profile_of(run.model).prompts or "paper"
    return open_prompt_set(name, asked.dreambooth or run.concepts[0].images)


def _moments(
    step: int, candidates: Sequence[Candidate], evaluation: Evaluation, model: "TextToImage"
) -> Iterator[Moment]:
    """Each token after so many updates, by its pictures of the first seed."""
    from dti_geom import geometry

    means = [geometry.summarize_norms(tower.token_table).mean for tower in model.towers]
    for one in candidates:
        held = [
            score
            for score in evaluation.images
            if (score.method, score.subject, score.seed) == (one.method, one.subject, 0)
        ]
        assert one.vectors is not None
        inflation = fmean(
            float(geometry.norms(rows).mean()) / mean
            for rows, mean in zip(one.vectors, means, strict=True)
        )
        subject, text = fmean(x.subject_score for x in held), fmean(x.text_score for x in held)
        yield Moment(one.subject, step, inflation, subject, text, len(held))


def _scores(
    candidates: Sequence[Candidate],
    seeds: Sequence[int],
    asked: EvaluationConfig,
    run: RunConfig,
    model: "TextToImage",
    place: Path,
) -> Evaluation:
    encoder, text = open_scorers(run.model, asked.image_encoder, asked.text_encoder, run.device)
    prompts = prompts_of(run, asked)
    return evaluate(
        model,
        candidates,
        prompts,
        seeds,
        encoder,
        text,
        place,
        steps=asked.steps,
        guidance=asked.guidance,
    )
