"""Pictures for prompts × tokens × seeds, in a folder with an index of what they show."""

import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dti_geom.errors import EvaluationError
from dti_geom.evaluation.sheets import Row, contact_sheet, save_picture
from dti_geom.files import to_json, write_text
from dti_geom.images import open_rgb
from dti_geom.models.pipelines import TextToImage
from dti_geom.progress import Progress, silent

INDEX = "index.jsonl"
SHEET = "sheet.png"
_BATCH_PIXELS, _BATCH_PICTURES = 1 << 20, 16  # of a batch at most, by default
_BRACKETED = re.compile(r"<[^<>\s|]+>")  # how the names of learned tokens are written
_SAMPLE = 64  # numbers of each weight that enter the fingerprint of a model


@dataclass(frozen=True)
class SamplerSettings:
    """Sampler settings of a picture."""

    steps: int
    guidance: float
    size: int  # pixels of a side
    dtype: str  # of everything but the autoencoder, which decodes in float32
    reward: float | None = None  # r of reward guidance, for adapters


@dataclass(frozen=True)
class Picture:
    """One picture, and what was asked for."""

    file: str  # relative to the folder
    prompt: str  # the token filled in
    seed: int
    token: str | None  # the token that was filled in, if any


@dataclass(frozen=True)
class Pictures:
    """The pictures of prompts × tokens × seeds, in that order."""

    model: str
    settings: SamplerSettings
    pictures: tuple[Picture, ...]
    painted: int  # by this call; the others were there already
    seconds: float  # for the painted ones


def paint_pictures(
    model: TextToImage,
    prompts: Sequence[str],
    seeds: Sequence[int],
    out: str | Path,
    *,
    tokens: Sequence[str] = (),
    steps: int | None = None,
    guidance: float | None = None,
    size: int | None = None,
    reward: float | None = None,
    batch_size: int | None = None,
    progress: Progress = silent,
) -> Pictures:
    """Paint the pictures that are not in the folder `out` yet, as PNG files.

    prompts: `{}` stands for each of `tokens`, which are in the model already (`load_tokens`). A
    prompt without it is painted once. steps, guidance, size: the model's own by default. reward: r
    of reward guidance, for tokens with adapters.
    batch_size: by default as many pictures as make a megapixel, at most 16. The folder also holds
    `index.jsonl`, with a line for each picture.

    A picture's noise comes from its own seed, so a picture does not depend on the others in its
    batch, except for rounding: matrix products of another shape may sum in another order. Two
    batch sizes differ by at most 2 of 255 on the embedded model, in float32 and in bfloat16
    (`tests/evaluation/test_pictures.py`). The same batches give the same bytes on a CPU.

    A file is named after a hash of everything that decides the picture: weights, sampler,
    precision, SANA's instruction, prompt, the vectors of the tokens in it, seed, steps, guidance
    and size, but not the device. So a stopped call resumes where it stopped, and changed settings
    paint new files.

    Raises EvaluationError for what cannot be painted, before anything is written.
    """
    folder = Path(out)
    settings = replace(_settings(model, steps, guidance, size), reward=reward)
    if reward is not None and not model.adapters:
        raise EvaluationError(
            "reward guidance weighs an adapter, and no token here has one. Name a run with an "
            "adapter, or leave --reward out."
        )
    batch_size = batch_size or _batch_size(settings)
    filled = _filled(prompts, tokens)
    _refuse_unknown_tokens(model, filled)
    wanted = _named(model, settings, filled, seeds)
    present = [picture for picture in wanted if (folder / picture.file).exists()]
    # Two prompts may share a file: tokens of the same vectors have the same picture.
    by_file = {picture.file: picture for picture in wanted}
    missing = [by_file[file] for file in by_file if not (folder / file).exists()]
    index = _Index(folder, model.name, settings)
    index.start(present)
    started = time.monotonic()
    for done in range(0, len(missing), batch_size):
        progress("pictures", done, len(missing))
        batch = missing[done : done + batch_size]
        _paint(model, batch, settings, folder)
        files = {picture.file for picture in batch}
        index.add([picture for picture in dict.fromkeys(wanted) if picture.file in files])
    progress("pictures", len(missing), len(missing))
    return Pictures(
        model=model.name,
        settings=settings,
        pictures=tuple(wanted),
        painted=len(missing),
        seconds=time.monotonic() - started,
    )


def save_sheet(result: Pictures, folder: str | Path) -> Path:
    """Write the contact sheet of painted pictures, a row per prompt, a column per seed.

    `folder` holds the pictures. Returns the path of the sheet.
    """
    folder = Path(folder)
    files: dict[str, list[Path]] = {}
    for picture in result.pictures:
        files.setdefault(picture.prompt, []).append(folder / picture.file)
    rows: list[Row] = [(prompt, list(map(open_rgb, paths))) for prompt, paths in files.items()]
    seeds = dict.fromkeys(picture.seed for picture in result.pictures)
    sheet = contact_sheet(rows, [f"seed {seed}" for seed in seeds])
    save_picture(sheet, folder / SHEET, overwrite=True)
    return folder / SHEET


def _paint(
    model: TextToImage, batch: Sequence[Picture], settings: SamplerSettings, folder: Path
) -> None:
    """Paint one batch into the folder."""
    painted = model.generate(
        [picture.prompt for picture in batch],
        [picture.seed for picture in batch],
        steps=settings.steps,
        guidance=settings.guidance,
        size=settings.size,
        reward=settings.reward,
    )
    for picture, image in zip(batch, painted, strict=True):
        save_picture(image, folder / picture.file)


class _Index:
    """`index.jsonl`: a line for each picture of a folder, from every call that painted there."""

    def __init__(self, folder: Path, model: str, settings: SamplerSettings) -> None:
        self.path, self.model, self.settings = folder / INDEX, model, settings

    def start(self, present: Sequence[Picture]) -> None:
        """Drop lines whose picture is gone, and add pictures whose line a crash lost."""
        lines = {(line["file"], line["prompt"]): line for line in self._read()}
        lines |= {(picture.file, picture.prompt): self._line(picture) for picture in present}
        kept = [line for line in lines.values() if (self.path.parent / line["file"]).exists()]
        write_text(self.path, "".join(map(_json_line, kept)), overwrite=True)

    def add(self, pictures: Sequence[Picture]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.writelines(_json_line(self._line(picture)) for picture in pictures)

    def _line(self, picture: Picture) -> dict[str, Any]:
        return {**to_json(picture), "settings": to_json(self.settings), "model": self.model}

    def _read(self) -> Iterator[dict[str, Any]]:
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        for number, row in enumerate(text.splitlines(keepends=True), 1):
            if not row.endswith("\n"):  # a crash cut it off
                return
            try:
                line = json.loads(row)
                line["file"], line["prompt"]
            except (ValueError, KeyError, TypeError) as error:
                raise EvaluationError(
                    f"{self.path}, line {number}: not a line of an index of pictures ({error}). "
                    "Choose another folder."
                ) from error
            yield line


def _json_line(line: Mapping[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"


def _settings(
    model: TextToImage, steps: int | None, guidance: float | None, size: int | None
) -> SamplerSettings:
    side = model.resolution if size is None else size
    multiple = int(model.pipeline.vae_scale_factor)
    if side <= 0 or side % multiple:
        near = max(1, side // multiple) * multiple
        raise EvaluationError(
            f"size is {side}; {model.name} paints sides that are multiples of {multiple}. "
            f"Try {near}."
        )
    steps = model.sampling_steps if steps is None else steps
    if steps < 1:
        raise EvaluationError(
            f"steps is {steps}; a picture takes 1 or more. The model's own number is "
            f"{model.sampling_steps}."
        )
    guidance = model.guidance if guidance is None else guidance
    return SamplerSettings(steps, float(guidance), side, str(model.dtype).removeprefix("torch."))


def _batch_size(settings: SamplerSettings) -> int:
    return max(1, min(_BATCH_PICTURES, _BATCH_PIXELS // settings.size**2))


def _filled(prompts: Sequence[str], tokens: Sequence[str]) -> list[tuple[str, str | None]]:
    """(prompt, token) of prompts × tokens, in that order."""
    if not prompts:
        raise EvaluationError("no prompt was given. Give one, such as 'a photo of a {}'.")
    filled: list[tuple[str, str | None]] = []
    for prompt in prompts:
        if "{}" not in prompt:
            filled.append((prompt, None))
        elif not tokens:
            raise EvaluationError(
                f"'{prompt}' has {{}} for a learned token, and no token was given. Give an "
                "embedding file, or write a word in its place."
            )
        else:
            filled += [(prompt.replace("{}", token), token) for token in tokens]
    return filled


def prompts_without(prompts: Sequence[str], tokens: Sequence[str]) -> list[str]:
    """Return the prompts that show none of these tokens: no {}, and no token by name."""
    return [
        prompt
        for prompt in prompts
        if "{}" not in prompt and not any(token in prompt for token in tokens)
    ]


def _refuse_unknown_tokens(model: TextToImage, filled: Sequence[tuple[str, str | None]]) -> None:
    """Raise EvaluationError for a prompt with a <name> that the model would paint letter by letter.

    Names without angle brackets cannot be told from words.
    """
    tower = model.towers[0]
    for prompt, _ in filled:
        for name in _BRACKETED.findall(prompt):
            if name in tower.learned or tower.vocabulary.is_word(name):
                continue
            there = ", ".join(tower.learned) or "none; name its file with --embedding"
            raise EvaluationError(
                f"'{prompt}' names {name}, which is no token here. Tokens here: {there}."
            )


def _named(
    model: TextToImage,
    settings: SamplerSettings,
    filled: Sequence[tuple[str, str | None]],
    seeds: Sequence[int],
) -> list[Picture]:
    if not seeds:
        raise EvaluationError("no seed was given. Give one, such as 0.")
    # Without a reward, names are those of versions that knew none.
    asked = {name: x for name, x in to_json(settings).items() if (name, x) != ("reward", None)}
    painter = [_fingerprint(model), asked]
    digests = _digests(model)
    names = re.compile("|".join(map(re.escape, digests)) or r"(?!)")
    wanted = []
    for prompt, token in filled:
        # The vectors decide the picture, not the token's name.
        meaning = names.sub(lambda match: f"\0{digests[match[0]]}\0", prompt)
        for seed in seeds:
            key = hashlib.sha256(json.dumps([painter, meaning, seed]).encode()).hexdigest()[:20]
            wanted.append(Picture(f"{key}.png", prompt, seed, token))
    return wanted


def _digests(model: TextToImage) -> dict[str, str]:
    """The hash of what each token learned, longest names first: one may begin with another."""
    tokens = sorted(model.towers[0].learned, key=len, reverse=True)
    digests = {token: _hash([tower.learned[token] for tower in model.towers]) for token in tokens}
    for token, adapters in model.adapters.items():
        for adapter, scale in adapters:
            weights = [adapter.weights[name] for name in sorted(adapter.weights)]
            digests[token] += f" {adapter.shape} {scale} {_hash(weights)}"
    return digests


def _fingerprint(model: TextToImage) -> str:
    """The hash of up to _SAMPLE numbers of each weight, and the sampler's configuration."""
    modules: list[nn.Module] = [
        model.denoiser,
        model.vae,
        *(tower.module for tower in model.towers),
    ]
    weights = [parameter.flatten() for module in modules for parameter in module.parameters()]
    scheduler = model.pipeline.scheduler
    config = {name: value for name, value in scheduler.config.items() if not name.startswith("_")}
    named: list[Any] = [type(model.pipeline).__name__, type(scheduler).__name__, config]
    if model.instruction is False:
        named.append("no instruction")
    sampled = _hash([weight[:: max(1, len(weight) // _SAMPLE)][:_SAMPLE] for weight in weights])
    return sampled + json.dumps(named, sort_keys=True, default=str)


def _hash(tensors: Sequence[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype} ".encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()
