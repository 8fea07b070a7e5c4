"""Does a picture follow a token's direction or its magnitude? (Claim A, in pixels)"""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy
import torch
from torch import Tensor
from torch.nn.functional import normalize

from dti_geom import geometry
from dti_geom.errors import DoesNotApply, UnknownToken
from dti_geom.models.catalog import embedded_folder
from dti_geom.progress import Progress, silent
from dti_geom.statistics import Share

if TYPE_CHECKING:
    from PIL.Image import Image

    from dti_geom.models.pipelines import TextToImage, Tower

Embed = Callable[[Sequence["Image"]], Tensor]  # n pictures to (n, f) features

PROMPT = "a photo of a {}"
STRETCHES = (1.0, 16.0)
SIDE = 96  # pixels of a kept picture
# Things that can be painted; a model is asked for those that it has as one token.
THINGS = (
    "apple ball boat bread cactus car castle cat chair clock crown dog donut duck elephant flower fox frog guitar "
    "horse house lamp lion mushroom octopus owl panda penguin pineapple pizza rocket sailboat shoe strawberry "
    "sunflower teapot tiger tree umbrella whale"
)


@dataclass(frozen=True)
class PaintedPair:
    """Pictures of two tokens, each also at the other's norm; similarities are cosines of features, −1 … 1."""

    first: str
    second: str
    stretch: float  # multiple of its norm at which the second was taken
    ratio: float  # longer / shorter norm, after the stretch, in the first text encoder
    direction: float  # to the picture of the vector whose direction was taken; mean over both swaps and seeds
    magnitude: float  # to the picture of the vector whose norm was taken
    donors: float  # between those two
    pictures: tuple[
        str, ...
    ]  # first, second, first at the second's norm, second at the first's: PNG in base64


@dataclass(frozen=True)
class PaintedSum:
    """All pairs at one stretch."""

    stretch: float
    ratio: float  # median
    direction: float  # mean over pairs
    magnitude: float
    donors: float
    wins: Share  # pairs whose pictures resemble the direction donor's more, with the 95 % interval


@dataclass(frozen=True)
class PaintedSwap:
    """Swaps as a text-to-image model paints them."""

    prompt: str  # {} where the token stands
    seeds: tuple[int, ...]  # every picture of a pair is painted from each
    pairs: tuple[PaintedPair, ...]
    sums: tuple[PaintedSum, ...]


def painted_swap(
    model: "TextToImage",
    embed: Embed,
    pairs: Sequence[tuple[str, str]] | None = None,
    *,
    count: int = 4,
    seeds: Sequence[int] = (0, 1),
    stretches: Sequence[float] = STRETCHES,
    progress: Progress = silent,
) -> PaintedSwap:
    """Pictures of the four vectors of each pair under equal seeds, compared by an image encoder.

    pairs: words of one token in every text encoder. By default up to `count` pairs of THINGS, short ones with long
    ones. embed: the image encoder. The model keeps the placeholders <swap-0> to <swap-3> afterwards.

    Raises DoesNotApply where no two things are one token, UnknownToken for other words.
    """
    pairs = _drawn(model, count) if pairs is None else pairs
    painted: list[PaintedPair] = []
    for done, (first, second) in enumerate(pairs):
        progress("pictures of pairs", done, len(pairs))
        painted += (_painted(model, embed, first, second, stretch, seeds) for stretch in stretches)
    progress("pictures of pairs", len(pairs), len(pairs))
    sums = (_summed([one for one in painted if one.stretch == stretch]) for stretch in stretches)
    return PaintedSwap(PROMPT, tuple(seeds), tuple(painted), tuple(sums))


def scorer_of_mini() -> Embed:
    """The image encoder that ships with the embedded model, for its 64×64 pictures."""
    from dti_geom.mini.scorer import load_scorer

    scorer = load_scorer(embedded_folder() / "scorer")

    def embed(images: Sequence["Image"]) -> Tensor:
        pixels = numpy.stack(
            [numpy.asarray(image.convert("RGB"), dtype=numpy.float32) for image in images]
        )
        return scorer.embed(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1)

    return embed


def _painted(
    model: "TextToImage",
    embed: Embed,
    first: str,
    second: str,
    stretch: float,
    seeds: Sequence[int],
) -> PaintedPair:
    vectors = []  # for each tower: first, second, first at the second's norm, second at the first's
    for tower in model.towers:
        a, b = (tower.token_table[_row(tower, word)].float() for word in (first, second))
        vectors.append(
            torch.stack([a, stretch * b, geometry.swap(a, stretch * b), geometry.swap(b, a)])
        )
    for role in range(4):
        model.place(f"<swap-{role}>", [of_tower[role : role + 1] for of_tower in vectors])
    prompts = [PROMPT.format(f"<swap-{role}>") for role in range(4)]
    pictures = [model.generate(prompts, [seed] * 4) for seed in seeds]
    features = torch.stack(
        [normalize(embed(images).float(), dim=-1) for images in pictures]
    )  # (seeds, 4, f)
    alike = (features @ features.mT).mean(dim=0)
    lengths = geometry.norms(vectors[0])
    return PaintedPair(
        first=first,
        second=second,
        stretch=stretch,
        ratio=float(lengths.max() / lengths.min()),
        direction=float(alike[2, 0] + alike[3, 1]) / 2,
        magnitude=float(alike[2, 1] + alike[3, 0]) / 2,
        donors=float(alike[0, 1]),
        pictures=tuple(map(_png, pictures[0])),
    )


def _summed(pairs: Sequence[PaintedPair]) -> PaintedSum:
    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    return PaintedSum(
        stretch=pairs[0].stretch,
        ratio=sorted(one.ratio for one in pairs)[len(pairs) // 2],
        direction=mean([one.direction for one in pairs]),
        magnitude=mean([one.magnitude for one in pairs]),
        donors=mean([one.donors for one in pairs]),
        wins=Share.count(one.direction > one.magnitude for one in pairs),
    )


def _drawn(model: "TextToImage", count: int) -> list[tuple[str, str]]:
    """Pairs of the shortest and the longest of THINGS, by their norms in the first text encoder."""
    first = model.towers[0]
    known = [
        word for word in THINGS.split() if all(_is_one_token(tower, word) for tower in model.towers)
    ]
    if len(known) < 2:
        raise DoesNotApply(
            f"{model.name} has {len(known)} of the THINGS as one token; name pairs of its words."
        )
    by_norm = sorted(
        known, key=lambda word: float(geometry.norms(first.token_table[_row(first, word)]))
    )
    count = min(count, len(known) // 2)
    return list(zip(by_norm[:count], by_norm[-count:], strict=True))


def _is_one_token(tower: "Tower", word: str) -> bool:
    try:
        return len(tower.vocabulary.rows(word)) == 1
    except UnknownToken:
        return False


def _row(tower: "Tower", word: str) -> int:
    if not _is_one_token(tower, word):
        raise UnknownToken(
            f"'{word}' is not one token in {tower.name}; a swap takes one. Name another word."
        )
    return tower.vocabulary.rows(word)[0]


def _png(picture: "Image") -> str:
    small = picture.copy()
    small.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    small.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
