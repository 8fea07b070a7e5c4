"""Measure whether a picture follows a token's direction or its magnitude. (Claim A, in pixels)"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import normalize

from dti_geom import geometry
from dti_geom.errors import DoesNotApply, DtiGeomError, UnknownToken
from dti_geom.images import png_base64, thumbnail
from dti_geom.probes.result import Result
from dti_geom.progress import Progress, silent
from dti_geom.statistics import Share

if TYPE_CHECKING:
    from PIL.Image import Image

    from dti_geom.models.pipelines import TextToImage, Tower

Embed = Callable[[Sequence["Image"]], Tensor]  # n pictures to (n, f) features

PROMPT = "a photo of a {}"
STRETCHES = (1.0, 16.0)
SIDE = 96  # pixels of a kept picture
# Things that can be painted. Those that a model has as one token are used.
THINGS = (
    "apple ball boat bread cactus car castle cat chair clock crown dog donut duck elephant flower "
    "fox frog guitar horse house lamp lion mushroom octopus owl panda penguin pineapple pizza "
    "rocket sailboat shoe strawberry sunflower teapot tiger tree umbrella whale"
)


@dataclass(frozen=True)
class PaintedPair:
    """Pictures of two tokens, each also at the other's norm.

    Similarities are cosines of an image encoder's features, −1 … 1, mean over both swaps and seeds.
    """

    first: str
    second: str
    stretch: float  # multiple of its norm at which the second was taken
    ratio: float  # longer / shorter norm, after the stretch, in the first text encoder
    direction: float  # to the picture of the vector whose direction was taken
    magnitude: float  # to the picture of the vector whose norm was taken
    donors: float  # between those two
    # PNG in base64: first, second, first at the second's norm, second at the first's.
    pictures: tuple[str, ...]


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
class PaintedSwap(Result):
    """Swaps as a text-to-image model paints them."""

    prompt: str  # {} where the token stands
    seeds: tuple[int, ...]  # every picture of a pair is painted from each
    pairs: tuple[PaintedPair, ...]
    sums: tuple[PaintedSum, ...]


def measure_painted(
    model: str,
    *,
    count: int = 4,
    pairs: Sequence[tuple[str, str]] | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> PaintedSwap:
    """Open a text-to-image model and paint swaps with it, compared by its own image encoder.

    model: as for `open_text_to_image`. count: how many pairs; the first of `pairs`, if given.
    Raises DtiGeomError for a model whose profile names no image encoder, and as `painted_swap`.
    """
    from dti_geom.models.catalog import profile_of
    from dti_geom.models.image_encoders import open_image_encoder
    from dti_geom.models.pipelines import open_text_to_image

    encoder = profile_of(model).image_encoder
    if encoder is None:
        raise DtiGeomError(
            f"{model} brings no image encoder to compare pictures with; mini does. Leave --images "
            "out, or give dti_geom.probes.painted.painted_swap an encoder of your own."
        )
    return painted_swap(
        open_text_to_image(model, device=device),
        open_image_encoder(encoder, device=device).embed,
        None if pairs is None else pairs[:count],
        count=count,
        progress=progress,
    )


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
    """Paint the four vectors of each pair from the same noise, and compare the pictures.

    embed: an image encoder, from n pictures to (n, f) features, such as
    `open_image_encoder(name).embed`. pairs: words of one token in every text encoder. By default
    up to `count` pairs of THINGS, short ones with long ones. stretches: multiples of its norm at
    which the second of a pair is taken. The model keeps the placeholders <swap-0> to <swap-3>.

    Raises DoesNotApply where no two things are one token, UnknownToken for other words.
    """
    pairs = _drawn(model, count) if pairs is None else pairs
    painted: list[PaintedPair] = []
    for done, (first, second) in enumerate(pairs):
        progress("pictures of pairs", done, len(pairs))
        for stretch in stretches:
            painted.append(
                _painted(
                    model,
                    embed,
                    first=first,
                    second=second,
                    stretch=stretch,
                    seeds=seeds,
                )
            )
    progress("pictures of pairs", len(pairs), len(pairs))
    return PaintedSwap(
        prompt=PROMPT,
        seeds=tuple(seeds),
        pairs=tuple(painted),
        sums=tuple(_summed(painted, stretch) for stretch in stretches),
    )


def _painted(
    model: "TextToImage",
    embed: Embed,
    *,
    first: str,
    second: str,
    stretch: float,
    seeds: Sequence[int],
) -> PaintedPair:
    vectors = []  # for each tower: first, second, first at the second's norm, second at the first's
    for tower in model.towers:
        a = tower.token_table[_row(tower, first)].float()
        b = tower.token_table[_row(tower, second)].float()
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
        pictures=tuple(png_base64(thumbnail(picture, SIDE)) for picture in pictures[0]),
    )


def _summed(painted: Sequence[PaintedPair], stretch: float) -> PaintedSum:
    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    pairs = [pair for pair in painted if pair.stretch == stretch]
    return PaintedSum(
        stretch=stretch,
        ratio=sorted(pair.ratio for pair in pairs)[len(pairs) // 2],
        direction=mean([pair.direction for pair in pairs]),
        magnitude=mean([pair.magnitude for pair in pairs]),
        donors=mean([pair.donors for pair in pairs]),
        wins=Share.count(pair.direction > pair.magnitude for pair in pairs),
    )


def _drawn(model: "TextToImage", count: int) -> list[tuple[str, str]]:
    """Return pairs of the shortest and the longest of THINGS, by norm in the first text encoder."""
    first = model.towers[0]
    known = THINGS.split()
    for tower in model.towers:
        known = [word for word in known if _is_one_token(tower, word)]
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
