"""Folders of training runs, written without training."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

from dti_geom.files import save_result, to_json
from dti_geom.training import (
    ConceptConfig,
    LearnedVectorResult,
    MethodConfig,
    Preview,
    PreviewConfig,
    RunConfig,
    StepRecord,
    TrainingResult,
    VectorRecord,
    token_folder,
)

MEAN_NORM = 0.4  # of the vocabulary these runs pretend to have
Course = Callable[[int], float]  # a value after each update, from 1


def write_run(
    folder: Path,
    *,
    model: str = "mini",
    method: str = "dti",
    tokens: Sequence[str] = ("<x>",),
    towers: Sequence[str] = ("text_encoder",),
    vectors: int = 1,
    steps: int = 40,
    width: int = 32,
    loss: Course = lambda step: 0.2 + 0.1 / step,
    norm: Course = lambda step: 0.4,
    words: Callable[[int], tuple[str, ...]] = lambda step: ("dog", "cat") if step % 10 == 0 else (),
    prompts: Sequence[str] = ("a photo of a {}",),
) -> TrainingResult:
    """What a finished run leaves; each further vector of a token is twice as long as the one before."""
    config = RunConfig(
        model,
        tuple(ConceptConfig(token, "images", "dog") for token in tokens),
        MethodConfig(method),
        preview=PreviewConfig(steps // 2, tuple(prompts), (0, 1)),
        steps=steps,
    )
    named = [
        (token, tower, index) for token in tokens for tower in towers for index in range(vectors)
    ]
    records = [
        StepRecord(
            step,
            {token: loss(step) for token in tokens},
            0.02,
            tuple(
                VectorRecord(
                    *name,
                    norm(step) * 2 ** name[2],
                    step / 100,
                    1 - step / 100,
                    0.1 / step,
                    words(step),
                )
                for name in named
            ),
            0.1 + 0.01 * (step % 3),
            1_000_000,
        )
        for step in range(1, steps + 1)
    ]
    tail = [record.losses[tokens[0]] for record in records[-max(1, steps // 10) :]]
    result = TrainingResult(
        config,
        {"dti-geom": "0"},
        steps,
        sorted(record.seconds for record in records)[steps // 2],
        sum(record.seconds for record in records),
        1_000_000,
        {token: sum(tail) / len(tail) for token in tokens},
        tuple(
            LearnedVectorResult(
                one.token,
                one.tower,
                one.index,
                one.norm,
                one.norm / MEAN_NORM,
                one.angle_to_start,
                one.cosine_to_prior,
                ("dog", "cat"),
            )
            for one in records[-1].vectors
        ),
        tuple(_previews(folder, config)),
    )
    save_result(folder / "config.json", config)
    save_result(folder / "result.json", result)
    (folder / "events.jsonl").write_text(
        "".join(json.dumps(to_json(record)) + "\n" for record in records)
    )
    for token in tokens:
        rows = torch.full((vectors, width), norm(steps) / width**0.5)
        save_file({token: rows}, token_folder(folder, token, tokens) / "learned_embeds.safetensors")
    return result


def _previews(folder: Path, config: RunConfig) -> list[Preview]:
    tokens = [concept.token for concept in config.concepts]
    previews = []
    for token in tokens:
        place = token_folder(folder, token, tokens) / "previews"
        place.mkdir(parents=True)
        for step in (0, config.preview.every, 2 * config.preview.every):
            asked = [
                (prompt, seed) for prompt in config.preview.prompts for seed in config.preview.seeds
            ]
            for number, (prompt, seed) in enumerate(asked):
                path = place / f"step-{step:06d}-{number:02d}.png"
                Image.new("RGB", (8, 8), (step % 256, number, len(previews) % 256)).save(path)
                file = path.relative_to(folder).as_posix()
                previews.append(Preview(file, token, step, prompt.replace("{}", token), seed))
    return previews
