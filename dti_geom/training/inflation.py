"""How long a free vector will be at the end of a run, before it starts."""

from collections.abc import Sequence
from dataclasses import dataclass

from dti_geom import geometry
from dti_geom.errors import TrainingError
from dti_geom.geometry.inflation import Walk, rate_within
from dti_geom.models import TextEncoder

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


def predict_inflation(
    model: str,
    encoders: Sequence[TextEncoder],
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


def _word_norm(encoder: TextEncoder, word: str) -> float:
    rows = encoder.vocabulary.rows(word)
    return float(geometry.row_norms(encoder.token_table[rows]).max())


def _predict(tower: str, walk: Walk, steps: int, summary: geometry.NormSummary) -> TowerInflation:
    limit = summary.percentiles[geometry.PERCENTILES.index(99)]
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
