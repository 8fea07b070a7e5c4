"""Paint learned tokens at many lengths: what a picture loses when only the length changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from dti_geom.errors import EvaluationError
from dti_geom.evaluation.learned import Learned, mean_norms
from dti_geom.images import png_uri, thumbnail
from dti_geom.models.pipelines import TextToImage
from dti_geom.progress import Progress, silent
from dti_geom.result import Result

MULTIPLES = tuple(2.0**power for power in range(-2, 7))  # of the mean norm: ×0.25 … ×64
PROMPTS = ("a photo of a {}", "a painting of a {}")
SIDE = 128  # pixels of a kept picture, at most


@dataclass(frozen=True)
class TokenPictures:
    """One learned token, painted at every length."""

    label: str
    inflation: float  # mean norm / mean norm of the vocabulary, as it was learned
    # Data URIs: for each prompt and seed, prompt by prompt, one picture at each multiple.
    pictures: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class PaintedMagnitudes(Result):
    """Learned tokens in one direction each, painted at multiples of the vocabulary's mean norm."""

    model: str
    prompts: tuple[str, ...]  # {} where the token stands
    seeds: tuple[int, ...]  # of the noise
    multiples: tuple[float, ...]
    tokens: tuple[TokenPictures, ...]


def paint_magnitudes(
    model: TextToImage,
    learned: Mapping[str, Learned],
    *,
    prompts: Sequence[str] = PROMPTS,
    seeds: Sequence[int] = (0, 1),
    multiples: Sequence[float] = MULTIPLES,
    steps: int | None = None,
    progress: Progress = silent,
) -> PaintedMagnitudes:
    """Paint every token at every multiple of the vocabulary's mean norm, from the same noise.

    learned: by the label that is shown. prompts: with {} for the token. seeds: of the noise.
    multiples: of the mean norm, above 0. steps: of the sampler; default: the model's own. The model
    keeps placeholders of its own, so that learned tokens of one name do not meet.

    Raises EvaluationError for a multiple that is not above 0.
    """
    if not all(multiple > 0 for multiple in multiples):
        raise EvaluationError(
            f"multiples are {', '.join(f'{multiple:g}' for multiple in multiples)}; expected "
            "numbers above 0, such as 0.25 and 64."
        )
    means = mean_norms(model)
    places = list(product(prompts, seeds))
    asked = [(label, multiple) for label in learned for multiple in multiples]
    painted: dict[str, list[list[str]]] = {label: [] for label in learned}
    for done, (label, multiple) in enumerate(asked):
        progress("pictures by magnitude", done, len(asked))
        resized = learned[label].at_multiple(means, multiple).as_placeholder("magnitude")
        resized.place(model)
        pictures = model.generate(
            [prompt.replace("{}", resized.name) for prompt, _ in places],
            [seed for _, seed in places],
            steps=steps,
        )
        painted[label].append([png_uri(thumbnail(picture, SIDE)) for picture in pictures])
    progress("pictures by magnitude", len(asked), len(asked))
    return PaintedMagnitudes(
        model=model.name,
        prompts=tuple(prompts),
        seeds=tuple(seeds),
        multiples=tuple(multiples),
        tokens=tuple(
            TokenPictures(
                label=label,
                inflation=learned[label].inflation(means),
                pictures=tuple(zip(*by_multiple, strict=True)),
            )
            for label, by_multiple in painted.items()
        ),
    )
