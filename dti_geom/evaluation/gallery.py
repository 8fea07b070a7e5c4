"""Painted pictures as a result that shows itself: a row for each prompt, a column for each seed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dti_geom.evaluation.pictures import Pictures, SamplerSettings
from dti_geom.images import open_rgb, png_uri, thumbnail
from dti_geom.result import Result

SIDE = 192  # pixels of a kept picture, at most
MOST_BYTES = 6_000_000  # of all kept pictures: a page stays below 8 MB


@dataclass(frozen=True)
class GalleryRow:
    """The pictures of one prompt."""

    prompt: str  # the token filled in
    token: str | None  # the token that was filled in, if any
    pictures: tuple[str | None, ...]  # data URIs, one for each seed


@dataclass(frozen=True)
class Gallery(Result):
    """Small copies of painted pictures."""

    model: str
    settings: SamplerSettings
    seeds: tuple[int, ...]
    rows: tuple[GalleryRow, ...]
    left_out: int  # prompts beyond what a page holds


def gallery_of(result: Pictures, folder: str | Path) -> Gallery:
    """Return small copies of the pictures in a folder; prompts beyond MOST_BYTES are left out."""
    seeds = tuple(dict.fromkeys(picture.seed for picture in result.pictures))
    prompts = dict.fromkeys(picture.prompt for picture in result.pictures)
    rows = tuple(_rows(result, Path(folder), seeds))
    return Gallery(result.model, result.settings, seeds, rows, len(prompts) - len(rows))


def _rows(result: Pictures, folder: Path, seeds: tuple[int, ...]) -> Iterator[GalleryRow]:
    """Yield prompts in their order until the page is full; the first is always there."""
    kept = 0
    files: dict[str, dict[int, str]] = {}
    for picture in result.pictures:
        files.setdefault(picture.prompt, {})[picture.seed] = picture.file
    tokens = {picture.prompt: picture.token for picture in result.pictures}
    for prompt, by_seed in files.items():
        pictures = tuple(
            png_uri(thumbnail(open_rgb(folder / by_seed[seed]), SIDE)) if seed in by_seed else None
            for seed in seeds
        )
        size = sum(map(len, filter(None, pictures)))
        if kept and kept + size > MOST_BYTES:
            return
        kept += size
        yield GalleryRow(prompt, tokens[prompt], pictures)
