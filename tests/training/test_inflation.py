from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from dti_geom import geometry
from dti_geom.errors import GeometryError, TrainingError, UnknownToken
from dti_geom.files import from_json, to_json
from dti_geom.geometry.inflation import Walk
from dti_geom.models import open_encoders
from dti_geom.training.inflation import POINTS, PredictedInflation, predict_inflation


def predicted(
    rate: float = 2e-3,
    steps: int = 600,
    decay: float = 0.01,
    init: str | None = None,
    start_norm: float | None = None,
) -> PredictedInflation:
    return predict_inflation(
        "mini",
        open_encoders("mini"),
        learning_rate=rate,
        steps=steps,
        weight_decay=decay,
        init=init,
        start_norm=start_norm,
    )


def test_the_prediction_is_the_law_of_the_tables_own_width_and_mean() -> None:
    (encoder,) = open_encoders("mini")
    summary = geometry.summarize_norms(encoder.token_table)
    (tower,) = predicted().towers
    walk = Walk(encoder.token_table.shape[1], summary.mean, 2e-3, 0.01)
    assert (tower.tower, tower.width) == (encoder.name, walk.width)
    assert (tower.mean_norm, tower.start_norm) == (summary.mean, summary.mean)
    assert tower.limit == summary.percentiles[-1]
    assert tower.norms == tuple(map(walk.norm, tower.updates))
    assert tower.slowed_norms[-1] == walk.slowed_norms(600)[-1]
    assert tower.leaves == walk.leaves(tower.limit)
    assert tower.plateau == walk.plateau


@pytest.mark.parametrize("steps", [1, 7, POINTS, 1234])
def test_a_curve_runs_from_the_start_to_the_last_update(steps: int) -> None:
    (tower,) = predicted(steps=steps).towers
    assert (tower.updates[0], tower.updates[-1]) == (0, steps)
    assert all(before < after for before, after in pairwise(tower.updates))
    assert len(tower.updates) == min(POINTS, steps) + 1
    assert tower.norms[0] == pytest.approx(tower.start_norm)


def test_the_rate_that_stays_inside_does_and_a_larger_one_leaves() -> None:
    (tower,) = predicted().towers
    assert tower.rate_within is not None
    (inside,) = predicted(0.999 * tower.rate_within).towers
    (outside,) = predicted(1.001 * tower.rate_within).towers
    assert inside.norms[-1] < tower.limit < outside.norms[-1]
    assert inside.leaves is None or inside.leaves > 600
    assert outside.leaves is not None
    assert outside.leaves <= 600


def test_the_slowed_walk_leaves_later() -> None:
    (tower,) = predicted().towers
    assert tower.leaves is not None
    assert tower.slowed_leaves is not None
    assert tower.leaves < tower.slowed_leaves <= 600
    assert predicted(1e-4).towers[0].slowed_leaves is None


def test_a_run_starts_from_its_word_or_from_a_given_norm() -> None:
    (encoder,) = open_encoders("mini")
    (row,) = encoder.vocabulary.rows("fox")
    expected = float(encoder.token_table[row].float().norm())
    assert predicted(init="fox").towers[0].start_norm == pytest.approx(expected)
    pieces = encoder.token_table[encoder.vocabulary.rows("beach fox")].float()
    longest = float(torch.linalg.vector_norm(pieces, dim=1).max())
    assert predicted(init="beach fox").towers[0].start_norm == pytest.approx(longest)
    assert predicted(start_norm=0.5).towers[0].start_norm == 0.5


def test_a_start_outside_the_range_has_no_rate_that_stays_inside() -> None:
    (tower,) = predicted(start_norm=5.0).towers
    assert (tower.leaves, tower.slowed_leaves, tower.rate_within) == (0, 0, None)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TrainingError, match="one start"):
        predicted(init="fox", start_norm=0.4)
    with pytest.raises(TrainingError, match="steps is 0"):
        predicted(steps=0)
    with pytest.raises(GeometryError, match="learning_rate"):
        predicted(rate=-1)
    with pytest.raises(UnknownToken):
        predicted(init="#99999")


def test_the_result_survives_a_file() -> None:
    for result in (predicted(), replace(predicted(decay=0.0), towers=())):
        assert from_json(PredictedInflation, to_json(result)) == result
