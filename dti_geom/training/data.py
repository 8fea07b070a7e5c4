"""A folder of images as training samples.

Images become views, encoded once, or again for every sample if it is cut at a random place. Samples
are drawn from the views by number, seeded, without end.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor, nn

from dti_geom.errors import TrainingError, first_line
from dti_geom.images import BROKEN, SUFFIXES, open_rgb, open_upright, reader_to_install
from dti_geom.models.catalog import known_concepts
from dti_geom.models.noising import Noising
from dti_geom.models.pipelines import Latents, TextToImage, View
from dti_geom.models.transfer import sent
from dti_geom.progress import notice
from dti_geom.training.config import ConceptConfig, DataConfig, RunConfig

if TYPE_CHECKING:
    from PIL.Image import Image

CLASSES_FILE = "prompts_and_classes.txt"  # in the DreamBooth dataset
TEXT = (".txt", ".md", ".json", ".jsonl", ".csv", ".yaml", ".yml")  # captions and notes
ENLARGED = 9 / 8  # short side that random crops are cut from, as a multiple of the resolution
ZERO_PAD_MEAN, ZERO_PAD_MOST = 2.0, 15  # zero vectors before a prompt, as Kim et al. (2026) draw


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
    """Samples as the model takes them."""

    x: Tensor  # (n, c, h, w): clean latents
    noise: Tensor  # the same shape
    times: Tensor  # (n,)
    prompts: tuple[str, ...]
    views: tuple[View, ...]
    mask: Tensor | None  # (n, 1, h, w) in [0, 1]
    noising: Noising  # the model's, at the resolution of the images
    tokens: tuple[str, ...] = ()  # (n,): the learned token of each sample
    words: tuple[str, ...] = ()  # (n,): the class word or words of each sample
    prior: "Batch | None" = None  # as many images of the classes, without the tokens

    @property
    def class_prompts(self) -> tuple[str, ...]:
        """The prompts with the class word in the token's place."""
        rows = zip(self.prompts, self.tokens, self.words, strict=True)
        return tuple(prompt.replace(token, word) for prompt, token, word in rows)

    def samples_of(self, token: str) -> Tensor:
        """Return 1 for each sample of a token and 0 for the others, (n,), where the latents are."""
        own = torch.tensor([float(other == token) for other in self.tokens])
        return sent(own, self.x.device)


def image_files(concept: ConceptConfig) -> list[Path]:
    """Return the images of a concept, sorted by name.

    Raises TrainingError for a folder that is missing or holds no image, and for images in a format
    that nothing installed here reads.
    """
    folder = _folder_of(concept)
    if not folder.is_dir():
        subjects = _folders_in(folder.parent) if concept.subject else []
        there = f" There are: {', '.join(subjects)}." if subjects else ""
        raise TrainingError(f"{folder} is not a folder.{there} --images takes a folder of images.")
    files = sorted(path for path in folder.iterdir() if _is_readable(path, SUFFIXES))
    for command in dict.fromkeys(map(reader_to_install, files)):
        if command is not None:
            names = ", ".join(path.name for path in files if reader_to_install(path) == command)
            raise TrainingError(
                f"{folder} holds {names}, and nothing installed here reads that format. Run: "
                f"{command}. Or save them as JPEG or PNG."
            )
    if not files:
        subjects = _folders_in(folder)
        advice = (
            f"Choose one of its folders with --subject: {', '.join(subjects)}." if subjects else ""
        )
        raise TrainingError(f"{folder} holds no image ({', '.join(SUFFIXES)}). {advice}".rstrip())
    return files


def located(run: RunConfig) -> RunConfig:
    """Return the run with folders in place of the names of concepts that ship with a model."""
    return replace(run, concepts=tuple(map(located_concept, run.concepts)))


def located_concept(concept: ConceptConfig) -> ConceptConfig:
    """Return the concept with a folder in place of the name of one that ships with a model."""
    bundled = known_concepts()
    if Path(concept.images).exists() or concept.images not in bundled:
        return concept
    return replace(concept, images=str(bundled[concept.images].images))


def ignored_files(concept: ConceptConfig) -> list[str]:
    """Return the names of what lies among the images and is neither image, text nor folder."""
    return sorted(
        path.name
        for path in _folder_of(concept).iterdir()
        if not (_is_readable(path, (*SUFFIXES, *TEXT)) or path.is_dir() or path.name[0] == ".")
    )


def _folder_of(concept: ConceptConfig) -> Path:
    return Path(concept.images, concept.subject or "")


def _is_readable(path: Path, suffixes: Sequence[str]) -> bool:
    """Whether a path is a visible file of one of these kinds; a named pipe is no file."""
    return path.suffix.lower() in suffixes and path.name[0] != "." and path.is_file()


def _folders_in(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted; [] for a missing folder."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def class_words(root: Path) -> dict[str, str]:
    """Return the class of each subject from the DreamBooth dataset's own file, {} without one."""
    path = root / CLASSES_FILE
    if not path.is_file():
        return {}
    words: dict[str, str] = {}
    listing, _, _ = path.read_text(encoding="utf-8", errors="replace").partition("prompt_list")
    for line in listing.splitlines():
        name, comma, word = (part.strip() for part in line.partition(","))
        if comma and word and (name, word) != ("subject_name", "class"):
            words.setdefault(name, word)
    return words


def load_views(
    concept: ConceptConfig, config: DataConfig, resolution: int, seed: int
) -> list[ImageView]:
    """Return every view of every image, in the order of the images' names.

    Images are upright and opaque (see `open_rgb`). The short side is resized to the resolution
    (bicubic) and the centre is cut out; with `random_crops` the whole image is the view. Further
    crops are cut at random places of a slightly larger image; the seed and the image's number
    decide the places. Raises TrainingError naming every image that does not open.
    """
    ignored = ignored_files(concept)
    if ignored:
        notice(f"ignored in {_folder_of(concept)}: {', '.join(ignored)} (no pictures for Pillow)")
    views: list[ImageView] = []
    broken: list[str] = []
    for number, path in enumerate(image_files(concept)):
        rng = np.random.default_rng([seed, number])
        try:
            views += _views_of(path, config, resolution, rng)
        except BROKEN as error:
            broken.append(f"{path} ({first_line(error)})")
    if broken:
        raise TrainingError(
            f"{len(broken)} images do not open: {'; '.join(broken)}. Repair or remove them."
        )
    return views


def _views_of(
    path: Path, config: DataConfig, resolution: int, rng: np.random.Generator
) -> Iterator[ImageView]:
    """Yield the views of one image. Raises ValueError for a missing mask or caption."""
    picture = open_rgb(path)
    mask = _mask_of(path, config, picture.size)
    prompt = _caption_of(path) if config.captions else None
    for crop in range(config.crops):
        centre = crop == 0
        side = resolution if centre else round(ENLARGED * resolution)
        scale = side / min(picture.size)
        width, height = (max(side, round(scale * length)) for length in picture.size)
        whole = ImageView(
            path=path,
            pixels=_resized(picture, (width, height)).permute(2, 0, 1) * 2 - 1,
            view=View((picture.height, picture.width), (0, 0), (height, width)),
            prompt=prompt,
            mask=None if mask is None else _resized(mask, (width, height))[None],
        )
        wholes = [whole, mirrored(whole)] if config.flip else [whole]
        if config.random_crops:
            yield from wholes
            continue
        spare = (width - resolution, height - resolution)
        left, top = (x // 2 if centre else int(rng.integers(x + 1)) for x in spare)
        # The mirror image of a cut is another cut of the mirror image.
        for view, start in zip(wholes, (left, spare[0] - left), strict=False):
            yield cut(view, (top, start), resolution)


def mirrored(whole: ImageView) -> ImageView:
    """Return the mirror image of a view of a whole image."""
    mask = None if whole.mask is None else whole.mask.flip(-1)
    return replace(whole, pixels=whole.pixels.flip(-1), mask=mask)


def cut(whole: ImageView, corner: tuple[int, int], side: int) -> ImageView:
    """Return a square of a view of a whole image. corner: top, left."""
    rows, columns = (slice(start, start + side) for start in corner)
    mask = None if whole.mask is None else whole.mask[:, rows, columns]
    view = replace(whole.view, corner=corner, size=(side, side))
    return replace(whole, pixels=whole.pixels[:, rows, columns], view=view, mask=mask)


def _resized(image: "Image", size: tuple[int, int]) -> Tensor:
    """Return an image resized to `size` (width, height): (h, w) or (h, w, 3), in [0, 1]."""
    from PIL import Image

    resized = image.resize(size, Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(resized, np.float32) / 255)


def _mask_of(path: Path, config: DataConfig, size: tuple[int, int]) -> "Image | None":
    """Return the mask of an image, or None if the run uses no masks."""
    if config.masks is None:
        return None
    file = Path(config.masks) / f"{path.stem}.png"
    if not file.is_file():
        raise ValueError(f"no mask {file}")
    mask = open_upright(file).convert("L")
    if mask.size != size:
        raise ValueError(f"its mask has {mask.size} pixels, the image {size}")
    return mask


def _caption_of(path: Path) -> str:
    """Return the prompt in the text file beside an image."""
    file = path.with_suffix(".txt")
    if not file.is_file():
        raise ValueError(f"no caption {file.name}")
    text = file.read_text(encoding="utf-8").strip()
    if "{}" not in text:
        raise ValueError(f"{file.name} has no {{}} where the token goes")
    return text


@dataclass(frozen=True)
class Encoded:
    """Views of one size as the denoiser sees them."""

    latents: Latents
    views: list[View]
    masks: Tensor | None  # (n, 1, h, w) of the latents

    @classmethod
    def of(cls, model: TextToImage, views: Sequence[ImageView]) -> Self:
        """Encode views; none depends on its neighbours."""
        latents = model.encode_images(torch.stack([view.pixels for view in views]))
        masks = [view.mask for view in views if view.mask is not None]
        size = (latents.mean.shape[-2], latents.mean.shape[-1])
        pooled = nn.functional.adaptive_avg_pool2d(torch.stack(masks), size) if masks else None
        return cls(latents, [view.view for view in views], pooled)

    def rows(self, rows: Sequence[int]) -> "Encoded":
        """Return some of the views."""
        picked = torch.tensor(rows)
        return Encoded(
            self.latents[sent(picked, self.latents.mean.device)],
            [self.views[row] for row in rows],
            None if self.masks is None else self.masks[picked],
        )


class Samples:
    """The samples of one concept; sample k depends on nothing but k and the seed.

    Every pass over the views is a permutation of its own. Passes follow each other without a gap,
    so every batch is full. Sample k's time, noise, template and latent come from a generator of its
    own: resuming, accumulation and several processes need no state.
    """

    def __init__(
        self,
        model: TextToImage,
        views: Sequence[ImageView],
        *,
        token: str,
        templates: Sequence[str],
        seed: int,
        word: str = "",
        random_side: int | None = None,
        zero_pad: bool = False,
        strata: int | None = None,
    ) -> None:
        """Encode every view once and forget its pixels, unless each sample is cut anew.

        word: what objectives that compare the token with its class put in its place.
        random_side: pixels of a side that every sample cuts at a random place of a whole image.
        zero_pad: put zero vectors before prompts. strata: spread the times of every so many
        samples, which are those of an update. Raises TrainingError for a prompt so long that
        its token is cut off.
        """
        self.token, self.word = token, word
        self.model, self.seed, self.zero_pad, self.strata = model, seed, zero_pad, strata
        self.count, self.random_side = len(views), random_side
        self.whole = views if random_side else ()
        self.encoded: Encoded | None = None
        if not random_side:
            with model.room_for_vae():
                self.encoded = Encoded.of(model, views)
        self.prompts: list[list[str]] = []  # those that may go with each view
        for view in views:
            allowed = [view.prompt] if view.prompt else templates
            self.prompts.append([template.replace("{}", token) for template in allowed])
        self.room: dict[str, int] = {}  # zero vectors that fit before each prompt
        for prompts in self.prompts:
            for prompt in prompts:
                self.room[prompt] = _room_before(model, prompt, token)

    def draw(self, numbers: Sequence[int], noising: Noising) -> Batch:
        """Return the samples of these numbers, on the latents' device."""
        rows = [self._row(number) for number in numbers]
        picked = self._picked(rows, numbers)
        generators = [_generator(self.seed, 1, number) for number in numbers]
        times = self._times(numbers, generators, noising)
        mean, std = picked.latents.mean, picked.latents.std
        # For each sample: the noise, and the draw from the latent's distribution.
        drawn = [torch.randn(2, *mean.shape[1:], generator=generator) for generator in generators]
        noise, spread = sent(torch.stack(drawn), mean.device).unbind(dim=1)
        return Batch(
            x=mean if std is None else mean + std * spread,
            noise=noise,
            times=sent(times, mean.device),
            prompts=tuple(map(self._prompt, rows, generators)),
            views=tuple(picked.views),
            mask=None if picked.masks is None else sent(picked.masks, mean.device),
            noising=noising,
            tokens=(self.token,) * len(rows),
            words=(self.word,) * len(rows),
        )

    def _times(
        self, numbers: Sequence[int], generators: list[torch.Generator], noising: Noising
    ) -> Tensor:
        """Return the time of each sample, (n,): by itself, or one in each part of an update's."""
        if self.strata is None:
            return noising.draw_times(generators)
        quantiles = []
        for number, generator in zip(numbers, generators, strict=True):
            update, place = divmod(number, self.strata)
            order = torch.randperm(self.strata, generator=_generator(self.seed, 3, update))
            quantiles.append((order[place] + torch.rand(1, generator=generator)) / self.strata)
        return noising.times_at(torch.cat(quantiles))

    def _picked(self, rows: Sequence[int], numbers: Sequence[int]) -> Encoded:
        """Return the view of each sample, encoded now if it is cut at a random place."""
        if self.encoded is not None:
            return self.encoded.rows(rows)
        assert self.random_side is not None
        cuts = []
        for row, number in zip(rows, numbers, strict=True):
            whole, generator = self.whole[row], _generator(self.seed, 2, number)
            spare = [length - self.random_side for length in whole.view.size]
            top, left = (int(torch.randint(x + 1, (1,), generator=generator)) for x in spare)
            cuts.append(cut(whole, (top, left), self.random_side))
        return Encoded.of(self.model, cuts)

    def _prompt(self, row: int, generator: torch.Generator) -> str:
        """Return the prompt of a sample, after zero vectors if the run puts them there."""
        choice = int(torch.randint(2**31, (1,), generator=generator))
        prompt = self.prompts[row][choice % len(self.prompts[row])]
        if not self.zero_pad:
            return prompt
        wanted = torch.empty(1).exponential_(1 / ZERO_PAD_MEAN, generator=generator)
        count = int(wanted.clamp(max=ZERO_PAD_MOST))
        return self.model.padded(prompt, min(count, self.room[prompt]))

    def _row(self, number: int) -> int:
        """Return the view of a sample."""
        epoch, place = divmod(number, self.count)
        order = torch.randperm(self.count, generator=_generator(self.seed, 0, epoch))
        return int(order[place])


def _room_before(model: TextToImage, prompt: str, token: str) -> int:
    """Return `model.room_before`. Raises TrainingError where the token itself is cut off."""
    room = model.room_before(prompt, token)
    if room < 0:
        raise TrainingError(
            f"'{prompt}' is too long: the text encoder stops reading {-room} tokens before the end "
            f"of {token}. Shorten the caption or the template."
        )
    return room


def join(batches: Sequence[Batch]) -> Batch:
    """Return the batches of several concepts as one, so that the denoiser runs once for all."""
    if len(batches) == 1:
        return batches[0]
    prompts: list[str] = []
    views: list[View] = []
    tokens: list[str] = []
    words: list[str] = []
    for batch in batches:
        prompts += batch.prompts
        views += batch.views
        tokens += batch.tokens
        words += batch.words
    return Batch(
        x=torch.cat([batch.x for batch in batches]),
        noise=torch.cat([batch.noise for batch in batches]),
        times=torch.cat([batch.times for batch in batches]),
        prompts=tuple(prompts),
        views=tuple(views),
        mask=_joined_masks(batches),
        noising=batches[0].noising,
        tokens=tuple(tokens),
        words=tuple(words),
    )


def _joined_masks(batches: Sequence[Batch]) -> Tensor | None:
    """Return all masks; a concept without masks counts everywhere. None if there are none."""
    if all(batch.mask is None for batch in batches):
        return None
    masks = []
    for batch in batches:
        everywhere = batch.x.new_ones(len(batch.x), 1, *batch.x.shape[-2:])
        masks.append(everywhere if batch.mask is None else batch.mask)
    return torch.cat(masks)


def _generator(*key: int) -> torch.Generator:
    """Return a generator of its own for every key.

    The key is hashed into the seed, so that neighbouring keys give unrelated numbers.
    """
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]) >> 1
    return torch.Generator().manual_seed(seed)
