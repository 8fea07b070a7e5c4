"""Pictures for prompts × tokens × seeds, kept in a folder that knows what it holds."""

import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dti_geom.errors import EvaluationError
from dti_geom.evaluation.sheets import contact_sheet, save_picture
from dti_geom.files import to_json, write_text
from dti_geom.models.pipelines import TextToImage
from dti_geom.progress import Progress, silent

if TYPE_CHECKING:
    from PIL.Image import Image

INDEX = "index.jsonl"
SHEET = "sheet.png"
_PIXELS, _MOST = (
    1 << 20,
    16,
)  # of a batch, unless told otherwise: about a megapixel, and not more than 16 pictures
_SAMPLE = 64  # numbers of each weight that stand for all of it


@dataclass(frozen=True)
class SamplerSettings:
    """How a picture is painted."""

    steps: int
    guidance: float
    size: int  # pixels of a side
    dtype: str  # of everything but the autoencoder, which decodes in float32


@dataclass(frozen=True)
class Picture:
    """One picture, and what it was painted for."""

    file: str  # relative to the folder
    prompt: str  # the token filled in
    seed: int
    token: str | None  # that was filled in


@dataclass(frozen=True)
class Pictures:
    """The pictures that were asked for: prompts × tokens × seeds, in that order."""

    model: str
    settings: SamplerSettings
    pictures: tuple[Picture, ...]
    painted: int  # the others lay there already
    seconds: float  # for those


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
    batch_size: int | None = None,
    progress: Progress = silent,
) -> Pictures:
    """Paint what is not in the folder `out` yet, as PNG files, and keep `index.jsonl`, one line per picture.

    prompts: `{}` stands for each of `tokens`, which are placed in the model already (`load_tokens`); a prompt without
    it is painted once. steps, guidance, size: the model's own unless given. batch_size: by default as many as make a
    megapixel, at most 16.

    A picture's noise comes from its own seed, so it does not depend on what else is in its batch, but for rounding:
    matrix products of another shape may sum in another order. Two batch sizes differ by at most 2 of 255 on the
    embedded model, in float32 and in bfloat16 (`tests/evaluation/test_pictures.py`); the same batches give the same
    bytes.

    A file is named after a hash of all that decides the picture: weights, sampler, precision, prompt, the vectors of
    the tokens in it, seed, steps, guidance and size, but not the device. So a stopped call goes on where it stopped,
    and what was changed is painted anew. Raises EvaluationError for what cannot be painted.
    """
    folder = Path(out)
    settings = _settings(model, steps, guidance, size)
    batch_size = batch_size or max(1, min(_MOST, _PIXELS // settings.size**2))
    wanted = _named(model, settings, _filled(prompts, tokens), seeds)
    missing = [
        one
        for one in {one.file: one for one in wanted}.values()
        if not (folder / one.file).exists()
    ]
    index = _Index(folder, model.name, settings)
    index.start([one for one in wanted if (folder / one.file).exists()])
    started = time.monotonic()
    for at in range(0, len(missing), batch_size):
        progress("pictures", at, len(missing))
        batch = missing[at : at + batch_size]
        painted = model.generate(
            [one.prompt for one in batch],
            [one.seed for one in batch],
            steps=settings.steps,
            guidance=settings.guidance,
            size=settings.size,
        )
        for one, picture in zip(batch, painted, strict=True):
            save_picture(picture, folder / one.file)
        files = {one.file for one in batch}
        index.add([one for one in dict.fromkeys(wanted) if one.file in files])
    progress("pictures", len(missing), len(missing))
    return Pictures(model.name, settings, tuple(wanted), len(missing), time.monotonic() - started)


def save_sheet(result: Pictures, folder: str | Path) -> Path:
    """Write the contact sheet of painted pictures, a row per prompt and a column per seed. Returns its path."""
    folder, rows = Path(folder), dict[str, list["Image"]]()
    for one in result.pictures:
        rows.setdefault(one.prompt, []).append(open_picture(folder / one.file))
    seeds = dict.fromkeys(one.seed for one in result.pictures)
    save_picture(
        contact_sheet(list(rows.items()), [f"seed {seed}" for seed in seeds]),
        folder / SHEET,
        overwrite=True,
    )
    return folder / SHEET


def open_picture(path: Path) -> "Image":
    """A picture in RGB, its file closed."""
    from PIL import Image

    with Image.open(path) as picture:
        return picture.convert("RGB")


class _Index:
    """`index.jsonl`: a line for each picture of a folder, whatever call painted it."""

    def __init__(self, folder: Path, model: str, settings: SamplerSettings) -> None:
        self.path, self.model, self.settings = folder / INDEX, model, settings

    def start(self, held: Sequence[Picture]) -> None:
        """Forget lines whose picture is gone, and add pictures whose line a crash lost."""
        lines = {(line["file"], line["prompt"]): line for line in self._read()}
        lines |= {(one.file, one.prompt): self._line(one) for one in held}
        kept = [line for line in lines.values() if (self.path.parent / line["file"]).exists()]
        write_text(self.path, "".join(map(_json_line, kept)), overwrite=True)

    def add(self, pictures: Sequence[Picture]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.writelines(_json_line(self._line(one)) for one in pictures)

    def _line(self, picture: Picture) -> dict[str, Any]:
        return {**to_json(picture), "settings": to_json(self.settings), "model": self.model}

    def _read(self) -> Iterator[dict[str, Any]]:
        lines = (
            self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            if self.path.exists()
            else []
        )
        for number, text in enumerate(lines, 1):
            if not text.endswith("\n"):  # a crash tore it
                return
            try:
                line = json.loads(text)
                line["file"], line["prompt"]
            except (ValueError, KeyError, TypeError) as error:
                raise EvaluationError(
                    f"{self.path}, line {number}: not a line of an index of pictures ({error}). Choose another folder."
                ) from error
            yield line


def _json_line(line: Mapping[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"


def _settings(
    model: TextToImage, steps: int | None, guidance: float | None, size: int | None
) -> SamplerSettings:
    side, multiple = (
        model.resolution if size is None else size,
        int(model.pipeline.vae_scale_factor),
    )
    if side <= 0 or side % multiple:
        near = max(1, side // multiple) * multiple
        raise EvaluationError(
            f"size is {side}; {model.name} paints sides that {multiple} divides. Try {near}."
        )
    steps = model.sampling_steps if steps is None else steps
    if steps < 1:
        raise EvaluationError(
            f"steps is {steps}; a picture takes 1 or more. The model's own are {model.sampling_steps}."
        )
    guidance = model.guidance if guidance is None else guidance
    return SamplerSettings(steps, float(guidance), side, str(model.dtype).removeprefix("torch."))


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
                f"'{prompt}' has {{}} for a learned token, and no token was given. Give an embedding file, or write "
                "a word in its place."
            )
        else:
            filled += [(prompt.replace("{}", token), token) for token in tokens]
    return filled


def _named(
    model: TextToImage,
    settings: SamplerSettings,
    filled: Sequence[tuple[str, str | None]],
    seeds: Sequence[int],
) -> list[Picture]:
    if not seeds:
        raise EvaluationError("no seed was given. Give one, such as 0.")
    painter = [_fingerprint(model), to_json(settings)]
    digests = _digests(model)
    names = re.compile("|".join(map(re.escape, digests)) or r"(?!)")
    wanted = []
    for prompt, token in filled:
        meant = names.sub(lambda match: f"\0{digests[match[0]]}\0", prompt)
        for seed in seeds:
            key = hashlib.sha256(json.dumps([painter, meant, seed]).encode()).hexdigest()[:20]
            wanted.append(Picture(f"{key}.png", prompt, seed, token))
    return wanted


def _digests(model: TextToImage) -> dict[str, str]:
    """What each learned token means, longest names first."""
    tokens = sorted(model.towers[0].learned, key=len, reverse=True)
    return {token: _hash([tower.learned[token] for tower in model.towers]) for token in tokens}


def _fingerprint(model: TextToImage) -> str:
    """Weights, by up to _SAMPLE numbers of each tensor, and sampler."""
    modules: list[nn.Module] = [
        model.denoiser,
        model.vae,
        *(tower.module for tower in model.towers),
    ]
    weights = [parameter.flatten() for module in modules for parameter in module.parameters()]
    scheduler = model.pipeline.scheduler
    config = {name: value for name, value in scheduler.config.items() if not name.startswith("_")}
    named = [type(model.pipeline).__name__, type(scheduler).__name__, config]
    sampled = _hash([each[:: max(1, len(each) // _SAMPLE)][:_SAMPLE] for each in weights])
    return sampled + json.dumps(named, sort_keys=True, default=str)


def _hash(tensors: Sequence[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype} ".encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()
