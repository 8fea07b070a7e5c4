"""Published tables beside the user's own scores.

The tables are those of Kim et al. (ICLR 2026, arXiv 2512.13672) and of its public code.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from dti_geom.errors import EvaluationError
from dti_geom.evaluation.evaluation import ALL, Evaluation, Summary
from dti_geom.evaluation.scores import ScorerAccuracy
from dti_geom.mini.ceilings import ConceptCeiling
from dti_geom.models.catalog import MODELS
from dti_geom.result import Result
from dti_geom.statistics import Interval

TABLES = {
    "main": "the paper's main table: 30 DreamBooth subjects, seeds 0 to 3",
    "ablation": "the paper's ablation on SDXL: optimiser, magnitude m, prior κ",
    "code": "the public code's own figures: SANA 1.5 at step 500, its simple prompts",
}


@dataclass(frozen=True)
class PublishedRow:
    """One published row: DINOv2 similarity to the subject, SigLIP score of the text."""

    table: str
    model: str  # as `dti-geom models` calls it
    method: str  # as `dti-geom evaluate` labels a run
    subject: float | None
    text: float | None


PUBLISHED = (
    PublishedRow("main", "sdxl", "ti", 0.561, 0.292),
    PublishedRow("main", "sdxl", "ti-rescaled", 0.243, 0.466),
    PublishedRow("main", "sdxl", "crossinit", 0.545, 0.464),
    PublishedRow("main", "sdxl", "dti", 0.450, 0.522),
    PublishedRow("main", "sana-1.6b", "ti", 0.480, 0.621),
    PublishedRow("main", "sana-1.6b", "dti", 0.479, 0.744),
    PublishedRow("main", "sana-4.8b", "ti", 0.446, 0.646),
    PublishedRow("main", "sana-4.8b", "dti", 0.452, 0.757),
    PublishedRow("main", "sd15", "dti", 0.418, None),
    PublishedRow("main", "sd21-base", "dti", 0.469, None),
    PublishedRow("ablation", "sdxl", "adamw-sphere", 0.335, 0.463),
    PublishedRow("ablation", "sdxl", "dti m=min", 0.030, 0.074),
    PublishedRow("ablation", "sdxl", "dti m=5", 0.383, 0.373),
    PublishedRow("ablation", "sdxl", "dti κ=0", 0.507, 0.436),
    PublishedRow("ablation", "sdxl", "dti κ=0.0005", 0.278, 0.688),
    PublishedRow("ablation", "sdxl", "dti", 0.450, 0.522),
    PublishedRow("code", "sana-1.6b", "ti", 0.478, 0.678),
    PublishedRow("code", "sana-1.6b", "ti-rescaled", 0.246, 0.512),
    PublishedRow("code", "sana-1.6b", "crossinit", 0.279, 0.656),
    PublishedRow("code", "sana-1.6b", "dti", 0.519, 0.697),
    PublishedRow("code", "sana-4.8b", "ti", 0.414, 0.647),
    PublishedRow("code", "sana-4.8b", "ti-rescaled", 0.260, 0.608),
    PublishedRow("code", "sana-4.8b", "crossinit", 0.242, 0.589),
    PublishedRow("code", "sana-4.8b", "dti", 0.512, 0.781),
)
SUBJECTS, SEEDS, ENCODERS = 30, (0, 1, 2, 3), ("dinov2", "siglip")  # of the paper's protocol


@dataclass(frozen=True)
class ComparedRow:
    """A published row and the user's scores beside it; None where there was no run."""

    reference: PublishedRow
    subject: Interval | None
    text: Interval | None
    # The user's minus the published score, whose own uncertainty is not published.
    subject_difference: Interval | None
    text_difference: Interval | None


@dataclass(frozen=True)
class OtherRow:
    """The user's scores of a model and method that no published row has."""

    model: str
    method: str
    subject: Interval
    text: Interval
    # What true pictures of the same subjects score; None where it is not known.
    subject_ceiling: float | None = None
    text_ceiling: float | None = None


@dataclass(frozen=True)
class Comparison(Result):
    """Published tables and the user's scores."""

    rows: tuple[ComparedRow, ...]
    others: tuple[OtherRow, ...]
    notes: tuple[str, ...]  # differences between a result's protocol and the paper's
    # How far the embedded model's scorer can be trusted, where it scored.
    accuracy: tuple[ScorerAccuracy, ...] = ()
    ceilings: dict[str, ConceptCeiling] = field(default_factory=dict)  # by subject


@dataclass(frozen=True)
class Scores:
    """What a comparison needs to know of a result."""

    model: str
    prompts: str
    seeds: tuple[int, ...]  # of the pictures' noise
    image_encoder: str
    text_encoder: str
    subjects: int
    summaries: tuple[Summary, ...]
    accuracy: tuple[ScorerAccuracy, ...] = ()
    ceilings: dict[str, ConceptCeiling] = field(default_factory=dict)

    @classmethod
    def of(cls, evaluation: Evaluation) -> "Scores":
        """Return those of an evaluation."""
        return cls(
            model=evaluation.model,
            prompts=evaluation.prompts,
            seeds=evaluation.seeds,
            image_encoder=evaluation.image_encoder,
            text_encoder=evaluation.text_encoder,
            subjects=len({score.subject for score in evaluation.images}),
            summaries=evaluation.summaries,
            accuracy=evaluation.accuracy,
            ceilings=evaluation.ceilings,
        )


def compare(evaluations: Sequence[Evaluation]) -> Comparison:
    """Put the user's scores beside every published row of the same model and method.

    Raises EvaluationError if two results hold the same method on the same model.
    """
    return compare_scores(list(map(Scores.of, evaluations)))


def compare_scores(evaluations: Sequence[Scores]) -> Comparison:
    """Do what `compare` does with results of any kind. Raises EvaluationError as it does."""
    ours = _overall(evaluations)
    published = {(row.model, row.method) for row in PUBLISHED}
    others = []
    for (model, method), summary in ours.items():
        if (model, method) not in published:
            others.append(
                OtherRow(
                    model=model,
                    method=method,
                    subject=summary.subject,
                    text=summary.text,
                    subject_ceiling=summary.subject_ceiling,
                    text_ceiling=summary.text_ceiling,
                )
            )
    notes: list[str] = []
    accuracy: dict[ScorerAccuracy, None] = {}
    ceilings: dict[str, ConceptCeiling] = {}
    for evaluation in evaluations:
        notes += _departures(evaluation)
        accuracy |= dict.fromkeys(evaluation.accuracy)
        ceilings |= evaluation.ceilings
    return Comparison(
        rows=tuple(_compared(row, ours.get((row.model, row.method))) for row in PUBLISHED),
        others=tuple(others),
        notes=tuple(notes),
        accuracy=tuple(accuracy),
        ceilings=ceilings,
    )


def _overall(evaluations: Sequence[Scores]) -> dict[tuple[str, str], Summary]:
    """(model, method) → scores over all prompts."""
    overall: dict[tuple[str, str], Summary] = {}
    for evaluation in evaluations:
        model = _short_name(evaluation.model)
        for summary in evaluation.summaries:
            if summary.group != ALL:
                continue
            if (model, summary.method) in overall:
                raise EvaluationError(
                    f"two results hold {summary.method} on {model}. Compare them one at a time, or "
                    "label the runs of one with dti-geom evaluate LABEL=RUN."
                )
            overall[model, summary.method] = summary
    return overall


def _compared(row: PublishedRow, ours: Summary | None) -> ComparedRow:
    if ours is None:
        return ComparedRow(
            row, subject=None, text=None, subject_difference=None, text_difference=None
        )
    return ComparedRow(
        row,
        subject=ours.subject,
        text=ours.text,
        subject_difference=_minus(ours.subject, row.subject),
        text_difference=_minus(ours.text, row.text),
    )


def _minus(interval: Interval, published: float | None) -> Interval | None:
    if published is None:
        return None
    low, high = (None if end is None else end - published for end in (interval.low, interval.high))
    return replace(interval, mean=interval.mean - published, low=low, high=high)


def _departures(evaluation: Scores) -> list[str]:
    """What differs from the paper's experiment, in words; empty if nothing does."""
    model = _short_name(evaluation.model)
    if all(row.model != model for row in PUBLISHED):
        return [f"{model}: not a model of the paper."]
    departures = []
    if (evaluation.image_encoder, evaluation.text_encoder) != ENCODERS:
        departures.append(
            f"scored by {evaluation.image_encoder} and {evaluation.text_encoder}, "
            f"not {' and '.join(ENCODERS)}"
        )
    if evaluation.subjects != SUBJECTS:
        departures.append(f"{evaluation.subjects} of {SUBJECTS} subjects")
    if evaluation.seeds != SEEDS:
        departures.append(f"seeds {', '.join(map(str, evaluation.seeds))}")
    if evaluation.prompts != "paper":
        departures.append(f"prompts {evaluation.prompts}")
    return [f"{model}: {'; '.join(departures)}."] if departures else []


def _short_name(model: str) -> str:
    """The catalogue's name for a Hub id; other names stay as they are."""
    return next((known.name for known in MODELS.values() if model in known.repositories), model)
