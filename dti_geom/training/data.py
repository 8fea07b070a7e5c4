"""A folder of images as a fixed set of views, and the endless, seeded stream of samples drawn from them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dti_geom.errors import TrainingError
from dti_geom.images import BROKEN, SUFFIXES, open_rgb, open_upright
from dti_geom.models.noising import Noising
from dti_geom.models.pipelines import Latents, TextToImage, View
from dti_geom.training.config import ConceptConfig, DataConfig

if TYPE_CHECKING:
    from PIL.Image import Image

CLASSES_FILE = "prompts_and_classes.txt"  # of the DreamBooth dataset
ENLARGED = 9 / 8  # the short side that random crops are cut from, in resolutions
ENCODED_AT_ONCE = 4  # images; more would only cost memory


@dataclass(frozen=True)
class ImageView:
    """One view of one training image."""

    path: Path
    pixels: Tensor  # (3, h, w) in [−1, 1]
    view: View
    prompt: str | None  # its own caption, with {} for the token
    mask: Tensor | None  # (1, h, w) in [0, 1]


@dataclass(frozen=True)
class Batch:
    """Samples of one concept, before the model sees them."""

    x: Tensor  # (n, c, h, w): clean latents
    noise: Tensor  # the same shape
    times: Tensor  # (n,)
    prompts: tuple[str, ...]
    views: tuple[View, ...]
    mask: Tensor | None  # (n, 1, h, w) in [0, 1]


def image_files(concept: ConceptConfig) -> list[Path]:
    """The images of a concept, by name. Raises TrainingError for a folder that is missing or has none."""
    folder = Path(concept.images)
    if concept.subject:
        folder = folder / concept.subject
    if not folder.is_dir():
        beside = (
            sorted(path.name for path in folder.parent.iterdir() if path.is_dir())
            if folder.parent.is_dir()
            else []
        )
        there = f" There are: {', '.join(beside)}." if concept.subject and beside else ""
        raise TrainingError(f"{folder} is not a folder.{there} --images takes a folder of images.")
    files = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )
    if not files:
        subjects = sorted(path.name for path in folder.iterdir() if path.is_dir())
        advice = (
            f"Choose one of its folders with --subject: {', '.join(subjects)}." if subjects else ""
        )
        raise TrainingError(f"{folder} holds no image ({', '.join(SUFFIXES)}). {advice}".rstrip())
    return files


def class_word(root: Path, subject: str) -> str | None:
    """The class of a subject, as the DreamBooth dataset's own file says; None if it does not."""
    path = root / CLASSES_FILE
    if not path.is_file():
        return None
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        name, comma, word = line.partition(",")
        if comma and name.strip() == subject and word.strip():
            return word.strip()
    return None


def load_views(
    concept: ConceptConfig, config: DataConfig, resolution: int, seed: int
) -> list[ImageView]:
    """Every view of every image, in the order of their names.

    EXIF orientation is applied, transparency is laid on white, the short side is resized to the resolution (bicubic)
    and the centre is cut out; further crops are cut at random places of a slightly larger image, the same at every
    start. Raises TrainingError naming every image that does not open.
    """
    views: list[ImageView] = []
    broken: list[str] = []
    for number, path in enumerate(image_files(concept)):
        rng = np.random.default_rng([seed, number])
        try:
            views += _views_of(path, config, resolution, rng)
        except BROKEN as error:
            broken.append(
                f"{path} ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
            )
    if broken:
        raise TrainingError(
            f"{len(broken)} images do not open: {'; '.join(broken)}. Mend or remove them."
        )
    return views


def _views_of(
    path: Path, config: DataConfig, resolution: int, rng: np.random.Generator
) -> Iterator[ImageView]:
    from PIL import Image

    picture = open_rgb(path)
    mask = _mask_of(path, config, picture.size)
    prompt = _caption_of(path) if config.captions else None
    for crop in range(config.crops):
        side = resolution if crop == 0 else round(ENLARGED * resolution)
        scale = side / min(picture.size)
        width, height = (max(side, round(scale * length)) for length in picture.size)
        spare = (width - resolution, height - resolution)
        left, top = (
            (x // 2 for x in spare) if crop == 0 else (int(rng.integers(x + 1)) for x in spare)
        )
        box = (left, top, left + resolution, top + resolution)
        cut = [
            np.asarray(
                image.resize((width, height), Image.Resampling.BICUBIC).crop(box), np.float32
            )
            / 255
            for image in (picture, mask)
            if image is not None
        ]
        view = View((picture.height, picture.width), (top, left), (resolution, resolution))
        for mirrored in (False, True) if config.flip else (False,):
            turned = [
                torch.from_numpy(np.ascontiguousarray(x[:, ::-1] if mirrored else x)) for x in cut
            ]
            shown = turned[1][None] if mask is not None else None
            yield ImageView(path, turned[0].permute(2, 0, 1) * 2 - 1, view, prompt, shown)


def _mask_of(path: Path, config: DataConfig, size: tuple[int, int]) -> "Image | None":
    """The mask that belongs to an image, or None if masks are not asked for."""
    if config.masks is None:
        return None
    found = Path(config.masks) / f"{path.stem}.png"
    if not found.is_file():
        raise ValueError(f"no mask {found}")
    mask = open_upright(found).convert("L")
    if mask.size != size:
        raise ValueError(f"its mask has {mask.size} pixels, the image {size}")
    return mask


def _caption_of(path: Path) -> str:
    found = path.with_suffix(".txt")
    if not found.is_file():
        raise ValueError(f"no caption {found.name}")
    text = found.read_text(encoding="utf-8").strip()
    if "{}" not in text:
        raise ValueError(f"{found.name} has no {{}} where the token goes")
    return text


class Samples:
    """The samples of one concept: sample k is the same whenever, wherever and beside whatever it is drawn.

    Every pass over the views is a permutation of its own, and passes follow each other without a gap, so every batch
    is full. Sample k's time, noise, template and latent come from a generator of its own: resuming, accumulation and
    several processes need no state.
    """

    def __init__(
        self,
        model: TextToImage,
        views: Sequence[ImageView],
        token: str,
        templates: Sequence[str],
        seed: int,
    ) -> None:
        """Encodes every view once; pixels are no longer needed afterwards."""
        parts = [
            model.encode_images(
                torch.stack([one.pixels for one in views[start : start + ENCODED_AT_ONCE]])
            )
            for start in range(0, len(views), ENCODED_AT_ONCE)
        ]
        stds = [part.std for part in parts if part.std is not None]
        self.latents = Latents(
            torch.cat([part.mean for part in parts]), torch.cat(stds) if stds else None
        )
        self.views = [one.view for one in views]
        self.prompts = [
            [
                template.replace("{}", token)
                for template in ([one.prompt] if one.prompt else templates)
            ]
            for one in views
        ]
        masks = [one.mask for one in views if one.mask is not None]
        size = (self.latents.mean.shape[-2], self.latents.mean.shape[-1])
        self.masks = (
            torch.nn.functional.adaptive_avg_pool2d(torch.stack(masks), size) if masks else None
        )
        self.seed = seed

    def draw(self, numbers: Sequence[int], noising: Noising) -> Batch:
        """The samples of these numbers, on the latents' device."""
        rows = torch.tensor([self._row(number) for number in numbers])
        generators = [_generator(self.seed, 1, number) for number in numbers]
        times = noising.draw_times(generators)
        shape = self.latents.mean.shape[1:]
        device = self.latents.mean.device
        drawn = torch.stack(
            [torch.randn(2, *shape, generator=generator) for generator in generators]
        ).to(device)
        picked = self.latents[rows.to(device)]
        x = picked.mean if picked.std is None else picked.mean + picked.std * drawn[:, 1]
        choices = [int(torch.randint(2**31, (1,), generator=generator)) for generator in generators]
        prompts = tuple(
            self.prompts[row][choice % len(self.prompts[row])]
            for row, choice in zip(rows.tolist(), choices, strict=True)
        )
        mask = None if self.masks is None else self.masks[rows].to(device)
        return Batch(
            x,
            drawn[:, 0],
            times.to(device),
            prompts,
            tuple(self.views[row] for row in rows.tolist()),
            mask,
        )

    def _row(self, number: int) -> int:
        epoch, place = divmod(number, len(self.views))
        order = torch.randperm(len(self.views), generator=_generator(self.seed, 0, epoch))
        return int(order[place])


def join(batches: Sequence[Batch]) -> Batch:
    """Batches of several concepts as one, so that they share the denoiser's work."""
    if len(batches) == 1:
        return batches[0]
    masks = [batch.mask for batch in batches]
    if any(mask is not None for mask in masks):  # a concept without masks counts everywhere
        masks = [
            b.x.new_ones(len(b.x), 1, *b.x.shape[-2:]) if b.mask is None else b.mask
            for b in batches
        ]
    return Batch(
        torch.cat([batch.x for batch in batches]),
        torch.cat([batch.noise for batch in batches]),
        torch.cat([batch.times for batch in batches]),
        tuple(prompt for batch in batches for prompt in batch.prompts),
        tuple(view for batch in batches for view in batch.views),
        None if masks[0] is None else torch.cat([mask for mask in masks if mask is not None]),
    )


def _generator(*key: int) -> torch.Generator:
    """A generator of its own for every key; neighbouring keys give unrelated numbers."""
    return torch.Generator().manual_seed(
        int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
    )
