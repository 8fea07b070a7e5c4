"""The pictures and captions that the stages learn from, painted once and kept on disk."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dti_geom.mini.recipe.artwork import Sprites
from dti_geom.mini.recipe.captions import caption
from dti_geom.mini.recipe.painting import Painter
from dti_geom.mini.recipe.sampling import SceneSampler
from dti_geom.mini.scenes import Item, Scene

CAPTIONS_PER_SCENE = 4


@dataclass(frozen=True)
class Pictures:
    """Painted scenes.

    pixels: (n, 64, 64, 3), memory-mapped. scenes: n. captions: n lists of CAPTIONS_PER_SCENE texts.
    """

    pixels: NDArray[np.uint8]
    scenes: list[Scene]
    captions: list[list[str]]

    def __len__(self) -> int:
        """Number of scenes."""
        return len(self.scenes)


def paint_pictures(sampler: SceneSampler, sprites: Sprites, count: int, seed: int) -> Pictures:
    """Draw and paint `count` scenes, and write their captions."""
    painter = Painter(sprites, seed)
    words = np.random.default_rng(seed)
    scenes = sampler.draw_many(count)
    pixels = np.stack([painter.paint(scene) for scene in scenes])
    return Pictures(
        pixels,
        scenes,
        [[caption(scene, words) for _ in range(CAPTIONS_PER_SCENE)] for scene in scenes],
    )


def save_pictures(pictures: Pictures, folder: Path) -> None:
    """Write `pixels.npy` and `scenes.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "pixels.npy", pictures.pixels)
    with (folder / "scenes.jsonl").open("w") as lines:
        for scene, captions in zip(pictures.scenes, pictures.captions, strict=True):
            lines.write(json.dumps({"scene": asdict(scene), "captions": captions}) + "\n")


def load_pictures(folder: Path) -> Pictures:
    """Read what `save_pictures` wrote."""
    scenes, captions = [], []
    for line in (folder / "scenes.jsonl").read_text().splitlines():
        entry = json.loads(line)
        scenes.append(scene_from(entry["scene"]))
        captions.append(entry["captions"])
    return Pictures(np.load(folder / "pixels.npy", mmap_mode="r"), scenes, captions)


def scene_from(fields: dict[str, Any]) -> Scene:
    """Build a scene from the nested dictionary that `asdict` makes of it."""
    second = Item(**fields["second"]) if fields["second"] else None
    return Scene(**{**fields, "first": Item(**fields["first"]), "second": second})


def as_tensor(pixels: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """Return (n, 64, 64, 3) pixels as (n, 3, 64, 64) floats in [−1, 1]."""
    images = torch.from_numpy(np.ascontiguousarray(pixels)).to(device)
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def as_pixels(images: Tensor) -> NDArray[np.uint8]:
    """Return (n, 3, 64, 64) floats in [−1, 1] as (n, 64, 64, 3) pixels."""
    scaled = (images.detach().float().clamp(-1, 1) + 1) * 127.5
    pixels: NDArray[np.uint8] = scaled.round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return pixels


def save_grid(images: Tensor, columns: int, path: Path) -> None:
    """Write a contact sheet as PNG, pictures doubled in size."""
    pixels = as_pixels(images)
    rows = -(-len(pixels) // columns)  # rounded up
    padded = np.full((rows * columns, *pixels.shape[1:]), 255, np.uint8)
    padded[: len(pixels)] = pixels
    height, width = pixels.shape[1:3]
    # (rows, columns, height, width) → (rows, height, columns, width) → a single picture.
    sheet = (
        padded.reshape(rows, columns, height, width, 3)
        .swapaxes(1, 2)
        .reshape(rows * height, columns * width, 3)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).resize(
        (columns * width * 2, rows * height * 2), Image.Resampling.NEAREST
    ).save(path)
