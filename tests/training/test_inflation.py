import re
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from dti_geom import geometry
from dti_geom.errors import GeometryError, TrainingError, UnknownToken
from dti_geom.files import from_json, to_json
from dti_geom.geometry.inflation import Walk
from dti_geom.models import open_encoders
from dti_geom.models.encoders.stored import StoredEncoder
from dti_geom.training import METHODS, ConceptConfig, MethodConfig, RunConfig
from dti_geom.training.inflation import (
    POINTS,
    PredictedInflation,
    inflation_notice,
    law_beside,
    leaves_norm_free,
    predict_inflation,
    predict_run,
)
from dti_geom.training.methods.base import decide


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


@pytest.fixture(scope="module")
def encoders() -> list[StoredEncoder]:
    return open_encoders("mini")


def run_of(
    name: str = "ti", *, start: str = "word", steps: int = 400, **method: float | str
) -> RunConfig:
    concepts = tuple(
        ConceptConfig(f"<{word}>", "images", word, start=start) for word in ("fox", "car")
    )
    return RunConfig("mini", concepts, MethodConfig(name, **method), steps=steps)  # type: ignore[arg-type]


def test_a_run_is_predicted_from_its_longest_word_by_the_law(encoders: list[StoredEncoder]) -> None:
    (encoder,) = encoders
    words = [encoder.vocabulary.rows(word)[0] for word in ("fox", "car")]
    start = float(geometry.row_norms(encoder.token_table[words]).max())
    found = predict_run(run_of(learning_rate=0.005), encoders)
    assert found is not None
    walk = Walk(encoder.token_table.shape[1], start, 0.005, 0.01)
    assert found.norm == pytest.approx(walk.norm(400))
    assert found.leaves == walk.leaves(found.limit)


def test_the_encoder_that_grows_most_is_named(encoders: list[StoredEncoder]) -> None:
    found = predict_run(run_of(), encoders * 2, starts=[0.4, 0.5])
    assert found is not None
    assert found.start_norm == 0.5


def test_a_rate_that_falls_ends_shorter(encoders: list[StoredEncoder]) -> None:
    constant, falling = (
        predict_run(run_of(schedule=schedule, weight_decay=0.0), encoders)
        for schedule in ("constant", "linear")
    )
    assert constant is not None
    assert falling is not None
    # Rates that fall to 0 have a third of the squares of constant ones.
    growth = [run.norm**2 - run.start_norm**2 for run in (constant, falling)]
    assert growth[1] / growth[0] == pytest.approx(1 / 3, rel=0.03)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_rate_of_the_notice_keeps_a_run_inside(
    schedule: str, encoders: list[StoredEncoder]
) -> None:
    found = predict_run(run_of(schedule=schedule), encoders)
    assert found is not None
    notice = inflation_notice(found)
    assert notice is not None
    rate = float(re.findall(r"--learning-rate (\S+)", notice)[0])
    inside = predict_run(run_of(schedule=schedule, learning_rate=rate), encoders)
    assert inside is not None
    assert inflation_notice(inside) is None
    # The rate is rounded down to two digits.
    outside = predict_run(run_of(schedule=schedule, learning_rate=1.11 * rate), encoders)
    assert outside is not None
    assert outside.leaves is not None


def test_methods_that_hold_the_norm_are_not_predicted(encoders: list[StoredEncoder]) -> None:
    free = {
        name
        for name, method in METHODS.items()
        if leaves_norm_free(decide(method, MethodConfig(name)))
    }
    assert free == {"ti", "crossinit"}
    assert predict_run(run_of("dti"), encoders) is None
    assert law_beside(run_of("dti"), 256, [1, 2], [0.4, 0.4]) is None


def test_a_start_that_no_table_holds_must_be_given(encoders: list[StoredEncoder]) -> None:
    assert predict_run(run_of("crossinit"), encoders) is None
    assert predict_run(run_of(start="random"), encoders) is None
    found = predict_run(run_of("crossinit"), encoders, starts=[19.0])
    assert found is not None
    assert found.leaves == 0
    assert found.rate_within is None


def test_the_law_beside_a_run_starts_from_its_first_norm() -> None:
    course = law_beside(run_of(learning_rate=0.01), 256, [1, 101, 400], [0.5, 1.0, 2.0])
    walk = Walk(256, 0.5, 0.01, 0.01)
    assert course == pytest.approx((0.5, walk.norm(100), walk.norm(399)))
