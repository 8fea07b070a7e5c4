"""Scores of single pictures: how alike the subject looks, and how well the prompt was followed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor

from dti_geom.errors import EvaluationError
from dti_geom.evaluation.prompts import Prompt
from dti_geom.models.image_encoders import ImageEncoder, ImageTextEncoder
from dti_geom.progress import Progress, silent
from dti_geom.statistics import Share

if TYPE_CHECKING:
    from PIL.Image import Image

_AT_ONCE = 64  # pictures held in memory


@dataclass(frozen=True)
class Shot:
    """A picture to score: where it lies, and what it was to show."""

    path: Path
    method: str
    subject: str
    prompt: Prompt
    seed: int
    class_word: str
    other_word: str | None = None  # of the second subject, where the prompt has one
    thing: str = ""  # what the scorer of the embedded model calls the subject
    other_thing: str | None = None
    run: str = ""

    @property
    def told(self) -> str:
        """The prompt in plain words."""
        return self.prompt.filled(self.class_word, self.other_word)


@dataclass(frozen=True)
class ImageScore:
    """One picture's scores."""

    method: str
    subject: str
    run: str
    prompt: str  # {} for the subject
    group: str
    seed: int
    file: str
    subject_score: float  # mean cosine to the reference images, −1 … 1
    text_score: float  # 0 … 1 but for a cosine; see `Evaluation.text_unit`
    checks: dict[str, bool] = field(
        default_factory=dict
    )  # that the text score is the share of, on `mini`


@dataclass(frozen=True)
class LeftOut:
    """An image that has no score."""

    file: str
    reason: str


@dataclass(frozen=True)
class ScorerAccuracy:
    """How often a scorer is right in one check, where the truth is known."""

    check: str
    renders: Share  # drawn scenes
    reconstructions: Share  # the same through the model's autoencoder


@runtime_checkable
class PictureReader(Protocol):
    """An image encoder that also says in words what a picture shows."""

    @property
    def name(self) -> str:
        """The user's name for it."""
        ...

    def embed(self, images: "Sequence[Image]") -> Tensor:
        """Return (n, d), as any image encoder."""
        ...

    def read(self, images: "Sequence[Image]") -> list[dict[str, str]]:
        """Return the answer to each of its questions, a dictionary per picture."""
        ...

    def subject_of(self, images: "Sequence[Image]") -> str:
        """Return its name of the thing that most of the pictures show."""
        ...

    def accuracy(self) -> dict[str, tuple[Share, Share]]:
        """Return by check how often it is right: on drawn scenes, and on reconstructions."""
        ...


def scorer_accuracy(encoder: ImageEncoder) -> tuple[ScorerAccuracy, ...]:
    """Return the accuracy of an image encoder that reads pictures; () for any other."""
    if not isinstance(encoder, PictureReader):
        return ()
    return tuple(ScorerAccuracy(check, *shares) for check, shares in encoder.accuracy().items())


class TextScorer(Protocol):
    """What says how well pictures follow their prompts."""

    @property
    def name(self) -> str:
        """For tables."""
        ...

    @property
    def unit(self) -> str:
        """What a score is, in words."""
        ...

    def score(
        self, pictures: "Sequence[Image]", shots: Sequence[Shot]
    ) -> list[tuple[float, dict[str, bool]]]:
        """For each picture its score, and the checks behind it, if it has any."""
        ...


class PromptFit:
    """An image–text encoder on each prompt with the class word in the token's place."""

    def __init__(self, encoder: ImageTextEncoder) -> None:
        """Score by this encoder."""
        self._encoder = encoder
        self.name, self.unit = encoder.name, encoder.unit

    def score(
        self, pictures: "Sequence[Image]", shots: Sequence[Shot]
    ) -> list[tuple[float, dict[str, bool]]]:
        """The encoder's scores; there are no checks."""
        return [
            (value, {})
            for value in self._encoder.score(pictures, [shot.told for shot in shots]).tolist()
        ]


class SceneChecks:
    """The scorer of the embedded model: the share of what a prompt asks for that it reads in the picture."""

    unit = "share of checks that hold"

    def __init__(self, scorer: PictureReader) -> None:
        """Score by this scorer."""
        self._scorer = scorer
        self.name = scorer.name

    def score(
        self, pictures: "Sequence[Image]", shots: Sequence[Shot]
    ) -> list[tuple[float, dict[str, bool]]]:
        """Shares, and the checks they count. Raises EvaluationError for a prompt without a scene."""
        scored = []
        for answers, shot in zip(self._scorer.read(pictures), shots, strict=True):
            if shot.prompt.expected is None:
                raise EvaluationError(
                    f"'{shot.prompt.text}' has no scene to check. The embedded model's scorer knows the prompt set "
                    "mini; for other prompts name an image–text encoder with --text-encoder."
                )
            checks = shot.prompt.expected.check(answers, shot.thing, shot.other_thing)
            scored.append((sum(checks.values()) / len(checks), checks))
        return scored


@dataclass(frozen=True)
class References:
    """The images a subject is known by, as an image encoder sees them."""

    features: Tensor  # (n, d), unit norm
    thing: (
        str  # what the scorer of the embedded model reads in most of them; empty for other encoders
    )


def read_references(
    files: Sequence[str | Path], encoder: ImageEncoder
) -> tuple[References, list[LeftOut]]:
    """Embed a subject's images; those that do not open are left out. Raises EvaluationError if none opens."""
    images, left_out = [], []
    for file in files:
        image = open_image(Path(file))
        if isinstance(image, LeftOut):
            left_out.append(image)
        else:
            images.append(image)
    if not images:
        raise EvaluationError(
            f"none of {len(files)} reference images opens"
            + "".join(f"; {one.file}: {one.reason}" for one in left_out[:3])
            + ". A subject score compares with the images that the token was trained on."
        )
    thing = ""
    if isinstance(encoder, PictureReader):
        thing = encoder.subject_of(images)
    return References(encoder.embed(images), thing), left_out


def score_shots(
    shots: Sequence[Shot],
    references: dict[str, References],
    encoder: ImageEncoder,
    text: TextScorer,
    progress: Progress = silent,
) -> tuple[list[ImageScore], list[LeftOut]]:
    """Score every picture that opens; the others are left out, never counted as 0.

    references: by subject. The subject score is the mean cosine of a picture's embedding with the references'.
    """
    scores: list[ImageScore] = []
    left_out: list[LeftOut] = []
    for at in range(0, len(shots), _AT_ONCE):
        progress("scores", at, len(shots))
        opened = [(shot, open_image(shot.path)) for shot in shots[at : at + _AT_ONCE]]
        left_out += [image for _, image in opened if isinstance(image, LeftOut)]
        held = [(shot, image) for shot, image in opened if not isinstance(image, LeftOut)]
        if held:
            scores += _scored(
                [shot for shot, _ in held], [image for _, image in held], references, encoder, text
            )
    progress("scores", len(shots), len(shots))
    return scores, left_out


def open_image(path: Path) -> "Image | LeftOut":
    """An image in RGB, its EXIF orientation applied, transparency laid on white; or why it does not open."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGBA")
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for broken files
        reason = (
            "it is missing" if isinstance(error, FileNotFoundError) else str(error).splitlines()[0]
        )
        return LeftOut(str(path), reason)
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _scored(
    shots: list[Shot],
    images: "list[Image]",
    references: dict[str, References],
    encoder: ImageEncoder,
    text: TextScorer,
) -> Iterator[ImageScore]:
    features = encoder.embed(images)
    for shot, feature, (text_score, checks) in zip(
        shots, features, text.score(images, shots), strict=True
    ):
        yield ImageScore(
            method=shot.method,
            subject=shot.subject,
            run=shot.run,
            prompt=shot.prompt.text,
            group=shot.prompt.group,
            seed=shot.seed,
            file=shot.path.name,
            subject_score=float((references[shot.subject].features @ feature).mean()),
            text_score=text_score,
            checks=checks,
        )
