"""Small results of an interpolation, an evaluation and a sweep, made without a model."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from dti_geom.editing.concepts import concepts_of
from dti_geom.editing.similarity import Similarity, likeness
from dti_geom.evaluation.evaluation import (
    Evaluation,
    SmallPicture,
    paired_differences,
    prompt_scores,
    summarize,
)
from dti_geom.evaluation.gallery import Gallery, GalleryRow
from dti_geom.evaluation.interpolation import (
    Interpolation,
    Likeness,
    Strip,
    TokenPath,
    VectorPath,
)
from dti_geom.evaluation.magnitudes import PaintedMagnitudes, TokenPictures
from dti_geom.evaluation.pictures import SamplerSettings
from dti_geom.evaluation.scores import ImageScore, LeftOut, scorer_accuracy
from dti_geom.files import EmbeddingFile, LearnedToken
from dti_geom.models.image_encoders import open_image_encoder
from dti_geom.sweeps.sweep import CellState, Course, LearnedNorm, MethodCost, Sweep


def similarity_result(labels: Sequence[str]) -> Similarity:
    """Tokens of a plane, each turned by a third of a half turn from the one before."""
    turns = [math.pi / 3 * place for place in range(len(labels))]
    files = [
        EmbeddingFile(
            Path(label),
            "diffusers",
            (LearnedToken(label, None, torch.tensor([[math.cos(turn), math.sin(turn)]])),),
            None,
            {},
        )
        for label, turn in zip(labels, turns, strict=True)
    ]
    return likeness(concepts_of(files))


PNG = (  # one pixel, base64
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PIXEL = f"data:image/png;base64,{PNG}"


def gallery_result(prompt: str = "a <x>", token: str | None = "<x>") -> Gallery:
    """Pictures of a prompt from two seeds, and of another that has one of them."""
    rows = (GalleryRow(prompt, token, (PIXEL, PIXEL)), GalleryRow("a dog", None, (PIXEL, None)))
    return Gallery("mini", SamplerSettings(25, 3.0, 64, "float32"), (0, 7), rows, left_out=3)


def magnitudes_result(labels: Sequence[str] = ("green-fox · TI", "<b>")) -> PaintedMagnitudes:
    """Tokens at three lengths, in one prompt from two seeds; every picture is the same pixel."""
    multiples = (0.5, 1.0, 8.0)
    tokens = tuple(
        TokenPictures(label, 1.0 + 2 * place, ((PIXEL,) * 3,) * 2)
        for place, label in enumerate(labels)
    )
    return PaintedMagnitudes("mini", ("a photo of a {}",), (0, 1), multiples, tokens)


def interpolation_result(
    ends: Sequence[str] = ("<a>", "<b>"),
    words: Sequence[str] = ("cat", "cat", "dog"),
    encoder: str | None = "mini",
    towers: Sequence[str] = ("text_encoder",),
    apart: float = 0.1,
) -> Interpolation:
    """A quarter turn in three points by slerp and lerp, whose pictures are one pixel each."""
    courses = {
        "slerp": ((0.4, 0.4, 0.4), (math.pi / 2, math.pi / 2)),
        "lerp": ((0.4, 0.283, 0.4), (1.5, 1.65)),
    }
    nearest = tuple((word, "red") for word in words)
    steps, unevenness = ((0.2, 0.6), 1.5) if encoder else ((), None)
    paths = []
    for method, (norms, speeds) in courses.items():
        files = ("left.png", f"{method}.png", "right.png")
        strips = tuple(Strip(seed, files, steps, unevenness) for seed in (0, 1))
        vectors = tuple(
            VectorPath(tower, 0, norms, math.pi / 2, speeds, nearest) for tower in towers
        )
        rows = (0.0, 0.5, 1.0) if len(ends) == 4 else (0.0,)
        paths += [TokenPath(method, row, vectors, strips) for row in rows]
    return Interpolation(
        model="mini",
        prompt="a photo of a {}",
        ends=tuple(ends),
        points=(0.0, 0.5, 1.0),
        seeds=(0, 1),
        settings=SamplerSettings(25, 5.0, 64, "float32"),
        encoder=encoder,
        paths=tuple(paths),
        likenesses=(Likeness(("slerp", "lerp"), apart, 0.4),) if encoder else (),
        thumbnails=dict.fromkeys(("left.png", "slerp.png", "lerp.png", "right.png"), PIXEL),
    )


def evaluation_result(
    methods: Sequence[str] = ("dti", "ti"), model: str = "mini", *left_out: LeftOut
) -> Evaluation:
    """Two subjects, prompts and seeds for each method.

    Every method scores a tenth less than the one before.
    """
    prompts = (("place", f"a {{}} in {model}"), ("pairs", "a {} and a {other}"))
    scores: list[ImageScore] = []
    for place, method in enumerate(methods):
        for subject in (model, "fox"):
            for group, prompt in prompts:
                scores += [
                    ImageScore(
                        method=method,
                        subject=subject,
                        run=f"runs/{method}",
                        prompt=prompt,
                        group=group,
                        seed=seed,
                        file=f"{place}-{seed}.png",
                        subject_score=0.6
                        - 0.1 * place
                        + 0.02 * seed
                        + 0.04 * (subject == "fox")
                        + 0.04 * (group == "pairs"),
                        text_score=0.9 - 0.1 * place - 0.04 * seed,
                        checks={"background": True},
                    )
                    for seed in (0, 1)
                ]
    return Evaluation(
        model=model,
        prompts=model,
        seeds=(0, 1),
        settings=SamplerSettings(25, 5.0, 64, "float32"),
        image_encoder=model,
        text_encoder=model,
        text_unit="share of checks that hold",
        images=tuple(scores),
        left_out=left_out,
        summaries=tuple(summarize(scores)),
        differences=tuple(paired_differences(scores)),
        by_prompt=tuple(prompt_scores(scores)),
        accuracy=scorer_accuracy(open_image_encoder("mini")),
        pictures=tuple(SmallPicture(method, "fox", scores[0].prompt, PNG) for method in methods),
    )


def with_every_picture(result: Evaluation) -> Evaluation:
    """The same with more prompts, a picture of every subject in each, and a reference of each."""
    images = tuple(
        replace(image, prompt=f"{image.prompt}{' again' * times}")
        for times in range(4)
        for image in result.images
    )
    places = dict.fromkeys((image.method, image.subject, image.prompt) for image in images)
    return replace(
        result,
        images=images,
        pictures=tuple(SmallPicture(*place, PNG) for place in places),
        references=dict.fromkeys((image.subject for image in result.images), PNG),
    )


def sweep_result(methods: Sequence[str] = ("dti", "ti")) -> Sweep:
    """One seed of each method, at two checkpoints.

    The tokens of every method are longer than those of the one before.
    """
    scored = evaluation_result(methods)
    subjects = ("mini", "fox")
    cells, norms, courses = [], [], []
    for place, label in enumerate(methods):
        cells.append(CellState(label, subjects, 0, f"c{place}", f"r{place}", "failed", label, None))
        for subject in subjects:
            norms.append(LearnedNorm(label, subject, 0, "text_encoder", 1.0 + place, 0.3))
            courses += [
                Course(
                    label=label,
                    subject=subject,
                    seed=0,
                    step=step,
                    inflation=1.0 + place + step / 400,
                    subject_score=0.5,
                    text_score=0.9 - 0.1 * place - step / 4000,
                )
                for step in (100, 400)
            ]
    return Sweep(
        name="tiny",
        model="mini",
        cells=tuple(cells),
        prompts="mini",
        image_encoder="mini",
        text_encoder="mini",
        text_unit="share of checks that hold",
        summaries=scored.summaries,
        differences=scored.differences,
        norms=tuple(norms),
        courses=tuple(courses),
        costs=tuple(MethodCost(label, 20.0, 5.0) for label in methods),
        accuracy=scored.accuracy,
    )
