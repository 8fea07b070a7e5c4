import numpy as np
import pytest
from scipy import stats

from dti_geom.statistics import Share, bootstrap_interval


def test_wilson_interval_matches_closed_form_values():
    share = Share.of(9, 10)  # 0.5958 … 0.9821, Wilson's own formula worked by hand
    assert (share.low, share.high) == (
        pytest.approx(0.5958, abs=2e-4),
        pytest.approx(0.9821, abs=2e-4),
    )
    assert Share.of(0, 50).low == 0
    assert Share.of(50, 50).high == 1
    with pytest.raises(ValueError, match="nothing"):
        Share.of(0, 0)


@pytest.mark.parametrize(
    ("subjects", "seeds", "between", "within"),
    [(30, 4, 0.1, 0.1), (5, 4, 0.1, 0.1), (5, 4, 0.01, 0.2), (1, 4, 0.0, 0.1), (10, 1, 0.1, 0.1)],
)
def test_the_interval_covers_a_known_truth_at_its_nominal_rate(subjects, seeds, between, within):
    rng = np.random.default_rng(1)
    repeats, covered = 200, 0
    for repeat in range(repeats):
        values = (
            0.5 + rng.normal(0, between, (subjects, 1)) + rng.normal(0, within, (subjects, seeds))
        )
        found = bootstrap_interval(values.tolist(), seed=repeat)
        covered += found.low <= 0.5 <= found.high
    assert stats.binomtest(covered, repeats, 0.95).pvalue > 0.01, covered / repeats


def test_subjects_with_one_seed_give_the_interval_of_students_t():
    values = np.random.default_rng(0).normal(0.4, 0.1, 40)
    found = bootstrap_interval([[value] for value in values])
    low, high = stats.t.interval(0.95, 39, values.mean(), stats.sem(values))
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.003)


def test_drawing_seeds_too_does_not_count_their_noise_twice():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.05, (40, 1)) + rng.normal(0, 0.2, (40, 4))
    found = bootstrap_interval(values.tolist())
    low, high = stats.t.interval(0.95, 39, values.mean(), stats.sem(values.mean(axis=1)))
    assert found.high - found.low == pytest.approx(high - low, rel=0.1)


def test_every_subject_weighs_the_same_however_many_seeds_it_has():
    assert bootstrap_interval([[0.0], [1.0] * 9]).mean == 0.5


def test_the_interval_keeps_the_scores_limits_and_the_seed_decides_it():
    high = [[1.0], [0.9], [1.0]]
    found = bootstrap_interval(high, (0.0, 1.0))
    assert found.high == 1.0
    assert bootstrap_interval(high).high > 1
    assert bootstrap_interval(high, (0.0, 1.0)) == found


def test_one_value_has_no_interval_and_no_value_is_refused():
    alone = bootstrap_interval([[0.3]])
    assert (alone.mean, alone.low, alone.high, alone.subjects, alone.values) == (
        0.3,
        None,
        None,
        1,
        1,
    )
    for nothing in ([], [[0.1], []]):
        with pytest.raises(ValueError, match="every subject needs a value"):
            bootstrap_interval(nothing)
