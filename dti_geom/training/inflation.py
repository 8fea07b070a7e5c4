"""How long a free vector will be at the end of a run, before it starts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

from torch import Tensor

from dti_geom import geometry
from dti_geom.errors import TrainingError
from dti_geom.geometry.inflation import Walk, rate_within
from dti_geom.models.vocabulary import Vocabulary
from dti_geom.training.config import RunConfig
from dti_geom.training.methods.base import Settings, decide
from dti_geom.training.methods.registry import method_named
from dti_geom.training.schedules import learning_rate_share

POINTS = 60  # intervals of a curve, fewer in a shorter run


@dataclass(frozen=True)
class TowerInflation:
    """The predicted norm of a free vector in one text encoder, in embedding units.

    The law takes gradients of constant size. The slowed walk takes gradients that shrink as the
    inverse of the norm. See `dti_geom.geometry.inflation`.
    """

    tower: str
    width: int
    start_norm: float
    mean_norm: float  # of the vocabulary
    limit: float  # upper end of the vocabulary's range: the 99th percentile of its norms
    updates: tuple[int, ...]  # ascending, from 0 to the end of the run
    norms: tuple[float, ...]  # by the law, at these updates
    slowed_norms: tuple[float, ...]
    leaves: int | None  # first update above the limit by the law, maybe after the run; None: never
    slowed_leaves: int | None  # the same of the slowed walk; None: not within the run
    plateau: float | None  # that weight decay sets; None without it
    rate_within: float | None  # largest rate that ends inside; None: the start is not inside


@dataclass(frozen=True)
class PredictedInflation:
    """Norms that a run of a free method will reach."""

    model: str
    learning_rate: float
    weight_decay: float
    steps: int  # updates
    towers: tuple[TowerInflation, ...]


@dataclass(frozen=True)
class RunInflation:
    """How long the token of a free method will be, in the encoder where it grows most."""

    method: str
    tower: str
    start_norm: float
    norm: float  # after the last update, by the law
    mean_norm: float  # of the vocabulary
    limit: float  # upper end of the vocabulary's range
    leaves: int | None  # first update above it; None: the run stays inside
    rate_within: float | None  # that keeps the run inside; None: it does not start inside


class Words(Protocol):
    """All that a prediction uses of a text encoder, or of a pipeline's tower."""

    name: str

    @property
    def vocabulary(self) -> Vocabulary:
        """The names of the table's rows."""
        ...

    @property
    def token_table(self) -> Tensor:
        """(V, d): one row per token."""
        ...


def leaves_norm_free(settings: Settings) -> bool:
    """Return whether nothing but weight decay acts on the norm of what a method learns."""
    method = settings.method
    held = method.form != "free" or method.after_step is not None
    return method.learns and method.optimizer == "adamw" and not held


def shares_of(settings: Settings, steps: int) -> list[float]:
    """Return the share of the learning rate that each update of a run has."""
    return [learning_rate_share(settings, step, steps) for step in range(steps)]


def predict_run(
    config: RunConfig, encoders: Sequence[Words], starts: Sequence[float] | None = None
) -> RunInflation | None:
    """Return how long the longest token of a run will be, or None if its method holds the norm.

    config: with its defaults filled in. starts: the longest start in each encoder; by default that
    of the init words, and None is returned for a run that starts from anything else.
    """
    settings, steps = decide(method_named(config.method.name), config.method), config.steps or 1
    if not leaves_norm_free(settings):
        return None
    if starts is None:
        kinds = {settings.method.start, *(concept.start for concept in config.concepts)}
        if kinds != {"word"}:
            return None
        words = [concept.init for concept in config.concepts]
        starts = [max(_word_norm(encoder, word) for word in words) for encoder in encoders]
    shares = shares_of(settings, steps)
    towers = [
        _predict_tower(encoder, start, settings, shares)
        for encoder, start in zip(encoders, starts, strict=True)
    ]
    return max(towers, key=lambda tower: tower.norm / tower.mean_norm)


def law_beside(
    config: RunConfig, width: int, steps: Sequence[int], norms: Sequence[float]
) -> tuple[float, ...] | None:
    """Return what the law says of a run whose norms were measured, or None if its method holds it.

    config: of the finished run. steps: updates, ascending. norms: after each of them. The law
    starts from the first of these norms. Returns a norm for each of these updates.
    """
    settings = decide(method_named(config.method.name), config.method)
    if not leaves_norm_free(settings) or not settings.learning_rate:
        return None
    shares = shares_of(settings, config.steps or steps[-1])[steps[0] : steps[-1]]
    walk = Walk(width, norms[0], settings.learning_rate, settings.weight_decay)
    course = walk.scheduled_norms(shares)
    return tuple(course[step - steps[0]] for step in steps)


def _predict_tower(
    encoder: Words, start: float, settings: Settings, shares: Sequence[float]
) -> RunInflation:
    summary = geometry.summarize_norms(encoder.token_table)
    limit, width = _upper_end(summary), encoder.token_table.shape[1]
    rate, decay = settings.learning_rate, settings.weight_decay
    norms = [start] * (len(shares) + 1)
    if rate:
        norms = Walk(width, start, rate, decay).scheduled_norms(shares)
    # A schedule adds as much as a constant rate of its root mean square.
    size = math.sqrt(fmean(share**2 for share in shares))
    inside = rate_within(width, start, limit, len(shares), decay * fmean(shares) / size)
    return RunInflation(
        method=settings.method.name,
        tower=encoder.name,
        start_norm=start,
        norm=norms[-1],
        mean_norm=summary.mean,
        limit=limit,
        leaves=next((step for step, norm in enumerate(norms) if norm > limit), None),
        rate_within=None if inside is None else inside / size,
    )


def inflation_notice(run: RunInflation) -> str | None:
    """Say that a run leaves the vocabulary's range, and what keeps it inside; None if it stays."""
    if run.leaves is None:
        return None
    times = run.norm / run.mean_norm
    said = (
        f"{run.method} leaves the norm free: by the law of inflation the token ends near norm "
        f"{run.norm:.3g} (×{times:.3g} the mean) in {run.tower}, where words end at "
        f"{run.limit:.3g}. "
    )
    hold = "a method that holds the norm, such as dti, stays inside."
    if run.rate_within is None:
        return f"{said}It starts at {run.start_norm:.3g}; {hold}"
    return (
        f"{said}It leaves their range at update {run.leaves}. "
        f"--learning-rate {_rounded_down(run.rate_within):g} keeps it inside; {hold}"
    )


def _rounded_down(rate: float) -> float:
    """Return a rate with two digits, never a larger one: that would leave the range."""
    unit = 10.0 ** (math.floor(math.log10(rate)) - 1)
    return math.floor(rate / unit) * unit


def predict_inflation(
    model: str,
    encoders: Sequence[Words],
    *,
    learning_rate: float,
    steps: int,
    weight_decay: float = 0.01,
    init: str | None = None,
    start_norm: float | None = None,
) -> PredictedInflation:
    """Return the norms that AdamW gives a free vector in each encoder of a model.

    It starts from the longest token of the word `init`, from `start_norm`, or from the mean norm
    of the vocabulary. Raises TrainingError for both or a run without updates, GeometryError for a
    rate, decay or norm out of range, UnknownToken.
    """
    if init is not None and start_norm is not None:
        raise TrainingError(
            f"init '{init}' and start norm {start_norm:g} were given; expected one start. Leave "
            "one of them out."
        )
    if steps < 1:
        raise TrainingError(f"steps is {steps}; expected 1 or more.")
    towers: list[TowerInflation] = []
    for encoder in encoders:
        summary = geometry.summarize_norms(encoder.token_table)
        start = _word_norm(encoder, init) if init is not None else start_norm
        walk = Walk(
            width=encoder.token_table.shape[1],
            start_norm=summary.mean if start is None else start,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
        )
        towers.append(_predict(encoder.name, walk, steps, summary))
    return PredictedInflation(model, learning_rate, weight_decay, steps, tuple(towers))


def _word_norm(encoder: Words, word: str) -> float:
    rows = encoder.vocabulary.rows(word)
    return float(geometry.row_norms(encoder.token_table[rows]).max())


def _upper_end(summary: geometry.NormSummary) -> float:
    return summary.percentiles[geometry.PERCENTILES.index(99)]


def _predict(tower: str, walk: Walk, steps: int, summary: geometry.NormSummary) -> TowerInflation:
    limit = _upper_end(summary)
    slowed = walk.slowed_norms(steps)
    intervals = min(POINTS, steps)
    updates = [steps * point // intervals for point in range(intervals + 1)]
    return TowerInflation(
        tower=tower,
        width=walk.width,
        start_norm=walk.start_norm,
        mean_norm=summary.mean,
        limit=limit,
        updates=tuple(updates),
        norms=tuple(walk.norm(update) for update in updates),
        slowed_norms=tuple(slowed[update] for update in updates),
        leaves=walk.leaves(limit),
        slowed_leaves=next((step for step, norm in enumerate(slowed) if norm > limit), None),
        plateau=walk.plateau,
        rate_within=rate_within(walk.width, walk.start_norm, limit, steps, walk.weight_decay),
    )
