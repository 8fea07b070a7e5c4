"""Folders of training runs, written without training."""

import json
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

from dti_geom.files import save_result, to_json
from dti_geom.files.run_layout import learned_name, token_folder
from dti_geom.training import AdapterConfig, ConceptConfig, MethodConfig, PreviewConfig, RunConfig
from dti_geom.training.run import PreviewPicture, TrainingResult
from dti_geom.training.trainable import AdapterRecord, LearnedVectorResult, VectorRecord
from dti_geom.training.trainer import StepRecord

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
    adapter: Course | None = None,
) -> TrainingResult:
    """Write what a finished run leaves.

    Each further vector of a token is twice as long as the one before. adapter: the relative norm of
    a LoRA.
    """
    config = RunConfig(
        model=model,
        concepts=tuple(ConceptConfig(token, "images", "dog") for token in tokens),
        method=MethodConfig(method),
        preview=PreviewConfig(steps // 2, tuple(prompts), (0, 1)),
        steps=steps,
        adapter=None if adapter is None else AdapterConfig(rank=4),
    )
    records = [
        StepRecord(
            step=step,
            losses={token: loss(step) for token in tokens},
            learning_rate=0.02,
            vectors=tuple(
                VectorRecord(
                    token=token,
                    tower=tower,
                    index=index,
                    norm=norm(step) * 2**index,
                    angle_to_start=step / 100,
                    cosine_to_prior=1 - step / 100,
                    gradient_norm=0.1 / step,
                    nearest=words(step),
                )
                for token, tower, index in product(tokens, towers, range(vectors))
            ),
            seconds=0.1 + 0.01 * (step % 3),
            peak_memory=1_000_000,
            adapter=None if adapter is None else AdapterRecord(adapter(step), 0.5 / step),
        )
        for step in range(1, steps + 1)
    ]
    tail = [record.losses[tokens[0]] for record in records[-max(1, steps // 10) :]]
    result = TrainingResult(
        config=config,
        versions={"dti-geom": "0"},
        steps=steps,
        seconds_per_step=sorted(record.seconds for record in records)[steps // 2],
        seconds=sum(record.seconds for record in records),
        peak_memory=1_000_000,
        last_losses={token: sum(tail) / len(tail) for token in tokens},
        vectors=tuple(_final(vector) for vector in records[-1].vectors),
        previews=tuple(_previews(folder, config)),
    )
    save_result(folder / "config.json", config)
    save_result(folder / "result.json", result)
    events = [json.dumps(to_json(record)) + "\n" for record in records]
    (folder / "events.jsonl").write_text("".join(events))
    for token in tokens:
        rows = torch.full((vectors, width), norm(steps) / width**0.5)
        save_file({token: rows}, token_folder(folder, token, tokens) / learned_name())
    return result


def _final(vector: VectorRecord) -> LearnedVectorResult:
    return LearnedVectorResult(
        token=vector.token,
        tower=vector.tower,
        index=vector.index,
        norm=vector.norm,
        inflation=vector.norm / MEAN_NORM,
        angle_to_start=vector.angle_to_start,
        cosine_to_prior=vector.cosine_to_prior,
        nearest=("dog", "cat"),
    )


def _previews(folder: Path, config: RunConfig) -> list[PreviewPicture]:
    preview = config.preview
    tokens = [concept.token for concept in config.concepts]
    pictures: list[PreviewPicture] = []
    for token in tokens:
        place = token_folder(folder, token, tokens) / "previews"
        place.mkdir(parents=True)
        for step in (0, preview.every, 2 * preview.every):
            for number, (prompt, seed) in enumerate(product(preview.prompts, preview.seeds)):
                path = place / f"step-{step:06d}-{number:02d}.png"
                Image.new("RGB", (8, 8), (step % 256, number, len(pictures) % 256)).save(path)
                pictures.append(
                    PreviewPicture(
                        file=path.relative_to(folder).as_posix(),
                        token=token,
                        step=step,
                        prompt=prompt.replace("{}", token),
                        seed=seed,
                    )
                )
    return pictures
