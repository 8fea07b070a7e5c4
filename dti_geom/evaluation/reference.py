"""The tables of Kim et al. (ICLR 2026, arXiv 2512.13672) and its public code, beside the user's own scores."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dti_geom.errors import EvaluationError
from dti_geom.evaluation.evaluation import ALL, Evaluation, Summary
from dti_geom.models.catalog import MODELS
from dti_geom.statistics import Interval

TABLES = {
    "main": "the paper's main table: 30 DreamBooth subjects, seeds 0 to 3",
    "ablation": "the paper's ablation on SDXL: optimiser, magnitude m, prior κ",
    "code": "the public code's own figures: SANA 1.5 at step 500, its simple prompts",
}


@dataclass(frozen=True)
class ReferenceRow:
    """One published row: DINOv2 similarity to the subject, SigLIP score of the text."""

    table: str
    model: str  # as `dti-geom models` calls it
    method: str  # as `dti-geom evaluate` labels a run
    subject: float | None
    text: float | None


REFERENCES = (
    ReferenceRow("main", "sdxl", "ti", 0.561, 0.292),
    ReferenceRow("main", "sdxl", "ti-rescaled", 0.243, 0.466),
    ReferenceRow("main", "sdxl", "crossinit", 0.545, 0.464),
    ReferenceRow("main", "sdxl", "dti", 0.450, 0.522),
    ReferenceRow("main", "sana-1.6b", "ti", 0.480, 0.621),
    ReferenceRow("main", "sana-1.6b", "dti", 0.479, 0.744),
    ReferenceRow("main", "sana-4.8b", "ti", 0.446, 0.646),
    ReferenceRow("main", "sana-4.8b", "dti", 0.452, 0.757),
    ReferenceRow("main", "sd15", "dti", 0.418, None),
    ReferenceRow("main", "sd21-base", "dti", 0.469, None),
    ReferenceRow("ablation", "sdxl", "adamw-sphere", 0.335, 0.463),
    ReferenceRow("ablation", "sdxl", "dti m=min", 0.030, 0.074),
    ReferenceRow("ablation", "sdxl", "dti m=5", 0.383, 0.373),
    ReferenceRow("ablation", "sdxl", "dti κ=0", 0.507, 0.436),
    ReferenceRow("ablation", "sdxl", "dti κ=0.0005", 0.278, 0.688),
    ReferenceRow("ablation", "sdxl", "dti", 0.450, 0.522),
    ReferenceRow("code", "sana-1.6b", "ti", 0.478, 0.678),
    ReferenceRow("code", "sana-1.6b", "ti-rescaled", 0.246, 0.512),
    ReferenceRow("code", "sana-1.6b", "crossinit", 0.279, 0.656),
    ReferenceRow("code", "sana-1.6b", "dti", 0.519, 0.697),
    ReferenceRow("code", "sana-4.8b", "ti", 0.414, 0.647),
    ReferenceRow("code", "sana-4.8b", "ti-rescaled", 0.260, 0.608),
    ReferenceRow("code", "sana-4.8b", "crossinit", 0.242, 0.589),
    ReferenceRow("code", "sana-4.8b", "dti", 0.512, 0.781),
)
SUBJECTS, SEEDS, ENCODERS = 30, (0, 1, 2, 3), ("dinov2", "siglip")  # of the paper's protocol


@dataclass(frozen=True)
class ComparedRow:
    """A published row, and what the user's scores are beside it; None where there was no run."""

    reference: ReferenceRow
    subject: Interval | None
    text: Interval | None
    subject_difference: Interval | None  # ours less theirs, whose own uncertainty is not published
    text_difference: Interval | None


@dataclass(frozen=True)
class OtherRow:
    """The user's scores that no published row stands beside."""

    model: str
    method: str
    subject: Interval
    text: Interval


@dataclass(frozen=True)
class Comparison:
    """Published tables and the user's scores."""

    rows: tuple[ComparedRow, ...]
    others: tuple[OtherRow, ...]
    notes: tuple[str, ...]  # where a result's protocol is not the paper's


def compare(evaluations: Sequence[Evaluation]) -> Comparison:
    """Every published row beside the user's, matched by model and method.

    Raises EvaluationError if two results hold the same method on the same model.
    """
    ours: dict[tuple[str, str], Summary] = {}
    for evaluation in evaluations:
        for summary in evaluation.summaries:
            key = _short_name(evaluation.model), summary.method
            if summary.group != ALL:
                continue
            if key in ours:
                raise EvaluationError(
                    f"two results hold {key[1]} on {key[0]}. Compare them one at a time, or label the runs of one with "
                    "dti-geom evaluate LABEL=RUN."
                )
            ours[key] = summary
    published = {(row.model, row.method) for row in REFERENCES}
    return Comparison(
        rows=tuple(_compared(row, ours.get((row.model, row.method))) for row in REFERENCES),
        others=tuple(
            OtherRow(*key, one.subject, one.text)
            for key, one in ours.items()
            if key not in published
        ),
        notes=tuple(note for evaluation in evaluations for note in _departures(evaluation)),
    )


def _compared(row: ReferenceRow, ours: Summary | None) -> ComparedRow:
    if ours is None:
        return ComparedRow(row, None, None, None, None)
    return ComparedRow(
        row, ours.subject, ours.text, _less(ours.subject, row.subject), _less(ours.text, row.text)
    )


def _less(interval: Interval, published: float | None) -> Interval | None:
    if published is None:
        return None
    low, high = (None if end is None else end - published for end in (interval.low, interval.high))
    return replace(interval, mean=interval.mean - published, low=low, high=high)


def _departures(evaluation: Evaluation) -> list[str]:
    """What keeps a result from being the paper's experiment, in words."""
    model = _short_name(evaluation.model)
    if all(row.model != model for row in REFERENCES):
        return [f"{model}: not a model of the paper."]
    subjects = len({one.subject for one in evaluation.images})
    found = []
    if (evaluation.image_encoder, evaluation.text_encoder) != ENCODERS:
        found.append(
            f"scored by {evaluation.image_encoder} and {evaluation.text_encoder}, not {' and '.join(ENCODERS)}"
        )
    if subjects != SUBJECTS:
        found.append(f"{subjects} of {SUBJECTS} subjects")
    if evaluation.seeds != SEEDS:
        found.append(f"seeds {', '.join(map(str, evaluation.seeds))}")
    if evaluation.prompts != "paper":
        found.append(f"prompts {evaluation.prompts}")
    return [f"{model}: {'; '.join(found)}."] if found else []


def _short_name(model: str) -> str:
    """A Hub id as the catalogue calls it."""
    return next((known.name for known in MODELS.values() if model in known.repositories), model)
