"""Measures the shipped model: its scorer, its autoencoder, and its pictures of every exam."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dti_geom.mini.checks import Answers, both_right, order_right
from dti_geom.mini.figures import Figures, Row
from dti_geom.mini.recipe import artwork, autoencoder
from dti_geom.mini.recipe.dataset import Pictures, as_tensor, paint_pictures, save_grid
from dti_geom.mini.recipe.exams import Exam, ExamPaper
from dti_geom.mini.recipe.generate import GUIDANCE, STEPS, generate
from dti_geom.mini.recipe.labels import IGNORED, READINGS, labels_of
from dti_geom.mini.recipe.sampling import SceneSampler
from dti_geom.mini.scenes import Scene
from dti_geom.mini.scorer import Scorer
from dti_geom.statistics import Share


def reading_shares(scorer: Scorer, images: Tensor, scenes: list[Scene]) -> Row:
    """Return how often the scorer is right about pictures of known scenes, by reading.

    images: (n, 3, 64, 64). Two more rows are over pairs alone: "relation" is the check of the
    order, "both" that of the two things.
    """
    answers = scorer.read(images)
    truths = [labels_of(scene) for scene in scenes]
    row = {
        name: Share.count(
            classes.index(read[name]) == truth[name]
            for read, truth in zip(answers, truths, strict=True)
            if truth[name] != IGNORED
        )
        for name, classes in READINGS.items()
    }
    pairs = [(scene, read) for scene, read in zip(scenes, answers, strict=True) if scene.second]
    row["relation"] = Share.count(order_right(scene, read) for scene, read in pairs)
    row["both"] = Share.count(both_right(scene, read) for scene, read in pairs)
    return row


def fresh_renders(artwork_folder: Path, count: int, seed: int = 77) -> Pictures:
    """Paint new scenes of the generator's world, held-out ones included."""
    sprites = artwork.load_sprites(artwork_folder)
    sampler = SceneSampler(np.random.default_rng(seed), allow_held_out=True)
    return paint_pictures(sampler, sprites, count, seed)


def scorer_bounds(scorer: Scorer, vae: Any, renders: Pictures) -> tuple[float, dict[str, Row]]:
    """Return what no generated picture can exceed.

    The mean PSNR of reconstructions in dB, and the scorer's shares on renders and on their
    reconstructions.
    """
    true = as_tensor(renders.pixels)
    rebuilt = autoencoder.decode(vae, autoencoder.encode(vae, true))
    decibels = autoencoder.psnr(rebuilt, true).mean().item()
    return decibels, {
        "true renders": reading_shares(scorer, true, renders.scenes),
        "reconstructions": reading_shares(scorer, rebuilt, renders.scenes),
    }


def sit(exam: Exam, pipeline: Any, scorer: Scorer, seed: int, grids: Path | None = None) -> Row:
    """Generate a picture of every scene of an exam, and check each."""
    images = generate(pipeline, exam.prompts, seed)
    if grids:
        save_grid(images[:72], 12, grids / f"{exam.name.replace(' ', '-')}.png")
    return marked(exam, scorer.read(images))


def marked(exam: Exam, answers: Sequence[Answers]) -> Row:
    """Return the shares of an exam, given the scorer's answers."""
    return {
        name: Share.count(
            check(scene, read) for scene, read in zip(exam.scenes, answers, strict=True)
        )
        for name, check in exam.checks.items()
    }


def seconds_for_one(pipeline: Any) -> float:
    """Return the median wall time of a picture with the default sampler, in seconds."""
    times = []
    for seed in range(5):
        start = time.perf_counter()
        generate(pipeline, ["a photo of a fox in the snow"], seed)
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def evaluate(
    pipeline: Any,
    scorer: Scorer,
    renders: Pictures | None,
    per_row: int,
    report: Callable[[str], None] = print,
    grids: Path | None = None,
) -> Figures:
    """Measure every row of the figures. Without renders, the scorer's own rows are left out.

    report: called with each row in words. grids: folder for contact sheets of the exams.
    """
    rows: dict[str, Row] = {}
    decibels = float("nan")
    if renders:
        decibels, rows = scorer_bounds(scorer, pipeline.vae, renders)
        report(f"reconstruction: {decibels:.2f} dB")
    for name, row in rows.items():
        report(_line(name, row))
    for number, exam in enumerate(ExamPaper(per_row).all()):
        rows[exam.name] = sit(exam, pipeline, scorer, 10_000 * (number + 1), grids)
        report(_line(exam.name, rows[exam.name]))
    return Figures(
        sampler=f"{type(pipeline.scheduler).__name__}, {STEPS} steps, guidance {GUIDANCE}",
        psnr=round(decibels, 2),
        rows=rows,
        seconds_one_image=round(seconds_for_one(pipeline), 3),
        hardware=f"{pipeline.device.type}, threads: {torch.get_num_threads()}",
    )


def _line(name: str, row: Row) -> str:
    return f"{name}: " + "; ".join(f"{check} {share}" for check, share in row.items())
