"""Scores of single pictures: likeness to the subject, and fit to the prompt."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor

from dti_geom.errors import EvaluationError, first_line
from dti_geom.evaluation.ceilings import text_ceiling, undecided
from dti_geom.evaluation.prompts import OTHER, Prompt
from dti_geom.images import BROKEN, open_rgb
from dti_geom.mini.ceilings import ConceptCeiling
from dti_geom.models.image_encoders import ImageEncoder, ImageTextEncoder
from dti_geom.progress import Progress, silent
from dti_geom.statistics import Share

if TYPE_CHECKING:
    from PIL.Image import Image

_AT_ONCE = 64  # pictures held in memory


@dataclass(frozen=True)
class Shot:
    """A picture to score, and what it should show."""

    path: Path
    method: str
    subject: str
    prompt: Prompt
    seed: int
    class_word: str
    other_word: str | None = None  # of the second subject, where the prompt has one
    thing: str = ""  # what the scorer of the embedded model calls what is to be seen
    other_thing: str | None = None
    run: str = ""
    # Of the subject, and of a second subject; None where none are known.
    ceiling: ConceptCeiling | None = None
    other_ceiling: ConceptCeiling | None = None
    baseline: bool = False  # the class word: `thing` is its own, and the ceilings of checks are not

    @property
    def words(self) -> str:
        """The prompt with the class words in the places of the learned tokens."""
        return self.prompt.filled(self.class_word, self.other_word)

    @property
    def undecided(self) -> frozenset[str]:
        """The checks that cannot decide about this subject, or about the second one beside it."""
        second = self.other_ceiling if OTHER in self.prompt.text else None
        return undecided((self.ceiling, second))

    def counts(self, check: str) -> bool:
        """Return whether a check counts in this picture's text score."""
        expected = self.prompt.expected
        return check not in self.undecided and (expected is None or expected.counts(check))


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
    text_score: float  # 0 … 1, or a cosine, −1 … 1; see `Evaluation.text_unit`
    # On `mini`: the checks that were asked. The text score is the share of those that hold, without
    # the `undecided`, and without those that the prompt does not count.
    checks: dict[str, bool] = field(default_factory=dict)
    undecided: tuple[str, ...] = ()  # checks that fail for true pictures of the subject as well
    # What true pictures score, through the model's autoencoder; None where it is not known.
    subject_ceiling: float | None = None
    text_ceiling: float | None = None

    @property
    def decided(self) -> dict[str, bool]:
        """The checks that can decide about this subject."""
        return {name: right for name, right in self.checks.items() if name not in self.undecided}


@dataclass(frozen=True)
class LeftOut:
    """An image without a score."""

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


@runtime_checkable
class PlaceEncoder(Protocol):
    """An image encoder that looks at the two things of a pair apart."""

    def embed_places(self, images: "Sequence[Image]") -> Tensor:
        """Return (n, 2, d), unit norm: the first and the second thing of each picture."""
        ...


def scorer_accuracy(encoder: ImageEncoder) -> tuple[ScorerAccuracy, ...]:
    """Return the accuracy of an image encoder that reads pictures; () for any other."""
    if not isinstance(encoder, PictureReader):
        return ()
    return tuple(ScorerAccuracy(check, *shares) for check, shares in encoder.accuracy().items())


class TextScorer(Protocol):
    """A judge of how well pictures follow their prompts."""

    @property
    def name(self) -> str:
        """The name in tables."""
        ...

    @property
    def unit(self) -> str:
        """The unit of a score, in words."""
        ...

    def score(
        self, pictures: "Sequence[Image]", shots: Sequence[Shot]
    ) -> list[tuple[float | None, dict[str, bool]]]:
        """Return each picture's score, and the checks it comes from, if any.

        The score is None where no check can decide.
        """
        ...


class PromptFit:
    """Score by an image–text encoder, which reads the class word in the token's place."""

    def __init__(self, encoder: ImageTextEncoder) -> None:
        """encoder: clip, siglip or another that compares images with texts."""
        self._encoder = encoder
        self.name, self.unit = encoder.name, encoder.unit

    def score(
        self, pictures: "Sequence[Image]", shots: Sequence[Shot]
    ) -> list[tuple[float | None, dict[str, bool]]]:
        """Return the encoder's scores, without checks."""
        scores = self._encoder.score(pictures, [shot.words for shot in shots])
        return [(value, {}) for value in scores.tolist()]


class SceneChecks:
    """Score by the embedded model's scorer: the share of a prompt's checks that hold.

    A check counts once, where it was asked, if the prompt counts it and if it can decide: a check
    that misses more than a tenth of true pictures of the subject is left out for this subject, for
    every method alike.
    """

    unit = "share of checks that hold"

    def __init__(self, scorer: PictureReader) -> None:
        """scorer: reads what a picture shows."""
        self._scorer = scorer
        self.name = scorer.name

    def score(
        self, pictures: "Sequence[Image]", shots: Sequence[Shot]
    ) -> list[tuple[float | None, dict[str, bool]]]:
        """Return the shares, and all checks that were asked; None where none of them counts.

        Raises EvaluationError for a prompt without a scene.
        """
        scored: list[tuple[float | None, dict[str, bool]]] = []
        for answers, shot in zip(self._scorer.read(pictures), shots, strict=True):
            if shot.prompt.expected is None:
                raise EvaluationError(
                    f"'{shot.prompt.text}' has no scene to check. The embedded model's scorer "
                    "knows the prompt set mini; for other prompts name an image–text encoder with "
                    "--text-encoder."
                )
            checks = shot.prompt.expected.check(answers, shot.thing, shot.other_thing)
            counted = [right for name, right in checks.items() if shot.counts(name)]
            scored.append((sum(counted) / len(counted) if counted else None, checks))
        return scored


@dataclass(frozen=True)
class References:
    """The reference images of a subject, as an image encoder sees them."""

    features: Tensor  # (n, d), unit norm
    thing: str  # what the embedded model's scorer reads in most of them; "" for other encoders


def mask_file(image: str | Path) -> Path:
    """Return where the mask of a reference image lies: masks/NAME.png beside it."""
    image = Path(image)
    return image.parent / "masks" / f"{image.stem}.png"


def read_references(
    files: Sequence[str | Path], encoder: ImageEncoder, *, masked: bool = False
) -> tuple[References, list[LeftOut]]:
    """Embed a subject's images. Those that do not open are returned beside the others.

    masked: paint everything white that the image's mask (`mask_file`) leaves black. Raises
    EvaluationError if none opens.
    """
    images, left_out = [], []
    for file in files:
        image = _masked(Path(file)) if masked else open_image(Path(file))
        if isinstance(image, LeftOut):
            left_out.append(image)
        else:
            images.append(image)
    if not images:
        raise EvaluationError(
            f"none of {len(files)} reference images opens"
            + "".join(f"; {image.file}: {image.reason}" for image in left_out[:3])
            + ". A subject score needs the images that the token was trained on."
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
    """Score every picture that opens. The others are left out, never counted as 0.

    references: by subject. The subject score is the mean cosine of a picture's features with those
    of the subject's references. Where the picture shows two things and the encoder looks at them
    apart, it is the larger of the two cosines: which side the subject is on is a matter of the
    text score.
    """
    scores: list[ImageScore] = []
    left_out: list[LeftOut] = []
    for done in range(0, len(shots), _AT_ONCE):
        progress("scores", done, len(shots))
        batch: list[Shot] = []
        images: list[Image] = []
        for shot in shots[done : done + _AT_ONCE]:
            image = open_image(shot.path)
            if isinstance(image, LeftOut):
                left_out.append(image)
            else:
                batch.append(shot)
                images.append(image)
        if batch:
            for scored in _scored(batch, images, references, encoder, text):
                if isinstance(scored, LeftOut):
                    left_out.append(scored)
                else:
                    scores.append(scored)
    progress("scores", len(shots), len(shots))
    return scores, left_out


def _masked(path: Path) -> "Image | LeftOut":
    """Return an image on white where its mask is black, or why it or its mask does not open."""
    image, mask = open_image(path), open_image(mask_file(path))
    for part in (image, mask):
        if isinstance(part, LeftOut):
            return part
    assert not isinstance(image, LeftOut)
    assert not isinstance(mask, LeftOut)
    if image.size != mask.size:
        return LeftOut(str(path), f"its mask has {mask.size} pixels, the image {image.size}")
    from PIL import Image

    return Image.composite(image, Image.new("RGB", image.size, "white"), mask.convert("L"))


def open_image(path: Path) -> "Image | LeftOut":
    """Return an image in RGB, upright and opaque; or why it does not open."""
    try:
        return open_rgb(path)
    except BROKEN as error:
        missing = isinstance(error, FileNotFoundError)
        return LeftOut(str(path), "it is missing" if missing else first_line(error))


def _scored(
    shots: list[Shot],
    images: "list[Image]",
    references: dict[str, References],
    encoder: ImageEncoder,
    text: TextScorer,
) -> "Iterator[ImageScore | LeftOut]":
    features, fits = _features(shots, images, encoder), text.score(images, shots)
    for shot, places, (text_score, checks) in zip(shots, features, fits, strict=True):
        if text_score is None:
            reason = f"none of its checks can decide about {shot.subject}: {', '.join(checks)}"
            yield LeftOut(str(shot.path), reason)
            continue
        likeness = (references[shot.subject].features @ places.T).mean(dim=0)
        counted = [name for name in checks if shot.counts(name)]
        yield ImageScore(
            method=shot.method,
            subject=shot.subject,
            run=shot.run,
            prompt=shot.prompt.text,
            group=shot.prompt.group,
            seed=shot.seed,
            file=shot.path.name,
            subject_score=float(likeness.max()),
            text_score=text_score,
            checks=checks,
            undecided=tuple(name for name in checks if name in shot.undecided),
            subject_ceiling=shot.ceiling.likeness.reconstructions if shot.ceiling else None,
            text_ceiling=None if shot.baseline else text_ceiling(shot.ceiling, counted),
        )


def _features(shots: list[Shot], images: "list[Image]", encoder: ImageEncoder) -> list[Tensor]:
    """What each picture shows, (places, d): of a pair both things, where they are seen apart."""
    features = [feature[None] for feature in encoder.embed(images)]
    pairs = [place for place, shot in enumerate(shots) if _is_pair(shot)]
    if pairs and isinstance(encoder, PlaceEncoder):
        both = encoder.embed_places([images[place] for place in pairs])
        for place, of_pair in zip(pairs, both, strict=True):
            features[place] = of_pair
    return features


def _is_pair(shot: Shot) -> bool:
    return shot.prompt.expected is not None and shot.prompt.expected.pair
