"""A finished run read back from its folder, small enough for a page.

Its curves are thinned; previews and nearest words come with it.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dti_geom.errors import TrainingError
from dti_geom.files import LearnedToken, load_result, read_embeddings
from dti_geom.files.run_layout import learned_in, token_folder
from dti_geom.geometry import summarize_norms
from dti_geom.images import png_uri
from dti_geom.models import TextEncoder
from dti_geom.result import Result
from dti_geom.training.config import RunConfig
from dti_geom.training.run import PreviewPicture, TrainingResult, load_events
from dti_geom.training.trainer import StepRecord

POINTS = 400  # the most that a curve has


@dataclass(frozen=True)
class MeanLoss:
    """The mean loss of consecutive updates."""

    updates: int
    mean: float
    error: float | None  # standard error of the mean; None for a single update


@dataclass(frozen=True)
class LossCurve:
    """A token's data loss at `TrainingRun.steps`.

    medians: of the `TrainingRun.window` updates around each step, fewer at the ends.
    """

    token: str
    losses: tuple[float, ...]
    medians: tuple[float, ...]
    first: MeanLoss  # over the first tenth of all updates
    last: MeanLoss  # over the last tenth


@dataclass(frozen=True)
class VectorCurve:
    """One vector after the updates `TrainingRun.steps`; geometry in embedding units and radians."""

    token: str
    tower: str
    index: int  # among the token's vectors
    norms: tuple[float, ...]
    angles_to_start: tuple[float, ...]
    cosines_to_prior: tuple[float, ...]
    gradient_norms: tuple[float, ...]


@dataclass(frozen=True)
class AdapterCurve:
    """The adapter after the updates `TrainingRun.steps`; see `AdapterRecord`."""

    norms: tuple[float, ...]
    gradient_norms: tuple[float, ...]


@dataclass(frozen=True)
class NearestWords:
    """The words nearest to a vector by direction, nearest first, while they stayed the same."""

    token: str
    tower: str
    index: int
    first_step: int
    last_step: int
    words: tuple[str, ...]


@dataclass(frozen=True)
class EmbeddedPreview:
    """A preview and its PNG file as a data URI."""

    preview: PreviewPicture
    uri: str


@dataclass(frozen=True)
class TrainingRun(Result):
    """A run as a page shows it.

    Curves are thinned to at most POINTS evenly spread updates, always with the first and the last.
    Running medians, means and nearest words come from all updates.
    """

    folder: str  # as the user named it
    result: TrainingResult
    steps: tuple[int, ...]  # the updates at which the curves are given
    learning_rates: tuple[float, ...]
    seconds: tuple[float, ...]  # of each of these updates
    window: int  # updates, of the running median
    losses: tuple[LossCurve, ...]  # one for each token
    vectors: tuple[VectorCurve, ...]
    words: tuple[NearestWords, ...]  # vector by vector, in order of steps
    pictures: tuple[EmbeddedPreview, ...]  # the result's previews that are still in the folder
    adapter: AdapterCurve | None = None

    @property
    def learned(self) -> tuple[LearnedToken, ...]:
        """The learned tokens, one for each text encoder. Raises EmbeddingFileError."""
        files = learned_files(self.folder, self.result.config)
        return tuple(token for path in files for token in read_embeddings(path).tokens)

    @property
    def vector(self) -> Tensor:
        """(d,): the learned vector. Raises TrainingError where the run learned several."""
        learned = self.learned
        rows = [row for token in learned for row in token.vectors]
        if len(rows) != 1:
            raise TrainingError(
                f"{self.folder} learned {len(rows)} vectors; .vector is for a single one. Read "
                ".learned[0].vectors, .learned[1].vectors, …"
            )
        vector: Tensor = rows[0]
        return vector


@dataclass(frozen=True)
class VocabularyNorms:
    """Norms of one token table of a model, in embedding units; zero rows are left out."""

    tower: str
    mean: float
    min: float
    max: float
    width: int | None = None  # coordinates of a row; None in results of versions before 0.2


@dataclass(frozen=True)
class TrainingRuns(Result):
    """Finished runs that are shown together."""

    model: str
    runs: tuple[TrainingRun, ...]
    vocabulary: tuple[VocabularyNorms, ...] | None = None  # of the model; None: not measured

    @classmethod
    def of(
        cls, model: str, runs: Iterable[TrainingRun], encoders: Iterable[TextEncoder]
    ) -> "TrainingRuns":
        """Put runs among the token norms of their model's encoders."""
        return cls(model, tuple(runs), tuple(_vocabulary_norms(encoder) for encoder in encoders))


def read_run(folder: str | Path) -> TrainingRun:
    """Read a finished run.

    Raises TrainingError for an unfinished run and for a folder that holds no run.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise TrainingError(
            f"{folder} is not the folder of a run: it has no config.json. Name the folder that was "
            "given as --out."
        )
    if not (folder / "result.json").is_file():
        raise TrainingError(
            f"{folder}: the run is not finished. Continue it with: dti-geom train --resume {folder}"
        )
    result = load_result(folder / "result.json", TrainingResult)
    records = load_events(folder)
    _check_whole(folder, result, records)
    shown = thinned(len(records))
    half = max(2, len(records) // 40)  # of the running median's window
    numbers = range(len(records[0].vectors))
    words: list[NearestWords] = []
    for number in numbers:
        words += _nearest_words(records, number)
    return TrainingRun(
        folder=str(folder),
        result=result,
        steps=tuple(records[place].step for place in shown),
        learning_rates=tuple(records[place].learning_rate for place in shown),
        seconds=tuple(records[place].seconds for place in shown),
        window=2 * half + 1,
        losses=tuple(_loss_curve(token, records, shown, half) for token in records[0].losses),
        vectors=tuple(_vector_curve(records, number, shown) for number in numbers),
        words=tuple(words),
        pictures=_pictures(folder, result.previews),
        adapter=_adapter_curve(records, shown),
    )


def _check_whole(folder: Path, result: TrainingResult, records: Sequence[StepRecord]) -> None:
    """Raise TrainingError for a result and events that no single run wrote."""
    events = folder / "events.jsonl"
    if len(records) != result.steps or not records:
        raise TrainingError(
            f"{events} holds {len(records)} updates, but result.json counts {result.steps}. The "
            "folder mixes two runs; train again with --overwrite."
        )
    tokens = {concept.token for concept in result.config.concepts}
    whole = len(result.vectors) > 0 and result.last_losses.keys() == tokens
    for record in records:
        numbers = [*record.losses.values(), *(vector.norm for vector in record.vectors)]
        whole &= len(record.vectors) == len(result.vectors) and record.losses.keys() == tokens
        whole &= all(map(math.isfinite, numbers))
    if not whole:
        raise TrainingError(
            f"{events} and result.json do not name the same tokens and vectors, or hold numbers "
            "that are not finite. They were changed after the run; train again with --overwrite."
        )


def _vocabulary_norms(encoder: TextEncoder) -> VocabularyNorms:
    summary = summarize_norms(encoder.token_table)
    return VocabularyNorms(
        tower=encoder.name,
        mean=summary.mean,
        min=summary.min,
        max=summary.max,
        width=encoder.token_table.shape[1],
    )


def learned_files(folder: str | Path, config: RunConfig) -> list[Path]:
    """Return the files of learned tokens in a finished run, in the order of its concepts."""
    tokens = [concept.token for concept in config.concepts]
    files: list[Path] = []
    for token in tokens:
        files += learned_in(token_folder(Path(folder), token, tokens))
    return files


def thinned(count: int) -> list[int]:
    """Return the places of at most POINTS evenly spread items out of `count`.

    The first and the last are among them.
    """
    if count <= POINTS:
        return list(range(count))
    return [round(place * (count - 1) / (POINTS - 1)) for place in range(POINTS)]


def _loss_curve(
    token: str, records: Sequence[StepRecord], shown: Sequence[int], half: int
) -> LossCurve:
    losses = [record.losses[token] for record in records]
    medians = [
        statistics.median(losses[max(0, place - half) : place + half + 1]) for place in shown
    ]
    tenth = max(1, len(losses) // 10)
    return LossCurve(
        token=token,
        losses=tuple(losses[place] for place in shown),
        medians=tuple(medians),
        first=_mean_loss(losses[:tenth]),
        last=_mean_loss(losses[-tenth:]),
    )


def _mean_loss(losses: Sequence[float]) -> MeanLoss:
    error = statistics.stdev(losses) / len(losses) ** 0.5 if len(losses) > 1 else None
    return MeanLoss(len(losses), statistics.fmean(losses), error)


def _vector_curve(records: Sequence[StepRecord], number: int, shown: Sequence[int]) -> VectorCurve:
    course = [records[place].vectors[number] for place in shown]
    return VectorCurve(
        token=course[0].token,
        tower=course[0].tower,
        index=course[0].index,
        norms=tuple(vector.norm for vector in course),
        angles_to_start=tuple(vector.angle_to_start for vector in course),
        cosines_to_prior=tuple(vector.cosine_to_prior for vector in course),
        gradient_norms=tuple(vector.gradient_norm for vector in course),
    )


def _adapter_curve(records: Sequence[StepRecord], shown: Sequence[int]) -> AdapterCurve | None:
    adapters = [record.adapter for record in records]
    course = [adapters[place] for place in shown]
    known = [adapter for adapter in course if adapter is not None]
    if len(known) < len(course):
        return None
    return AdapterCurve(
        norms=tuple(adapter.norm for adapter in known),
        gradient_norms=tuple(adapter.gradient_norm for adapter in known),
    )


def _nearest_words(records: Sequence[StepRecord], number: int) -> list[NearestWords]:
    """Return the words of every look-up, look-ups with equal words joined."""
    stretches: list[NearestWords] = []
    for record in records:
        vector = record.vectors[number]
        if not vector.nearest:
            continue
        first = record.step
        if stretches and stretches[-1].words == vector.nearest:
            first = stretches.pop().first_step
        stretches.append(
            NearestWords(
                token=vector.token,
                tower=vector.tower,
                index=vector.index,
                first_step=first,
                last_step=record.step,
                words=vector.nearest,
            )
        )
    return stretches


def _pictures(folder: Path, previews: Sequence[PreviewPicture]) -> tuple[EmbeddedPreview, ...]:
    pictures = []
    for preview in previews:
        path = (folder / preview.file).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise TrainingError(
                f"{folder / 'result.json'}: preview {preview.file} lies outside the run's folder."
            )
        if not path.exists():
            continue
        try:
            # A pipe would be waited for.
            uri = png_uri(path.read_bytes() if path.is_file() else b"")
        except ValueError as error:
            raise TrainingError(
                f"{path} is not a PNG file. Remove it, and the page leaves it out."
            ) from error
        pictures.append(EmbeddedPreview(preview, uri))
    return tuple(pictures)
