from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from dti_geom.statistics import (
    Interval,
    PairedTest,
    Share,
    bootstrap_interval,
    holm,
    paired_test,
    student_interval,
)


def ends(interval: Interval) -> tuple[float, float]:
    """The ends of an interval that has some."""
    assert interval.low is not None
    assert interval.high is not None
    return interval.low, interval.high


def test_wilson_interval_matches_closed_form_values() -> None:
    share = Share.of(9, 10)  # 0.5958 … 0.9821, Wilson's own formula worked by hand
    assert (share.low, share.high) == pytest.approx((0.5958, 0.9821), abs=2e-4)
    assert Share.of(0, 50).low == 0
    assert Share.of(50, 50).high == 1
    with pytest.raises(ValueError, match="nothing"):
        Share.of(0, 0)


@pytest.mark.parametrize(
    ("subjects", "seeds", "between", "within"),
    [(30, 4, 0.1, 0.1), (5, 4, 0.1, 0.1), (5, 4, 0.01, 0.2), (1, 4, 0.0, 0.1), (10, 1, 0.1, 0.1)],
)
def test_the_interval_covers_a_known_truth_at_its_nominal_rate(
    subjects: int, seeds: int, between: float, within: float
) -> None:
    rng = np.random.default_rng(1)
    repeats, covered = 200, 0
    for repeat in range(repeats):
        values = (
            0.5 + rng.normal(0, between, (subjects, 1)) + rng.normal(0, within, (subjects, seeds))
        )
        low, high = ends(bootstrap_interval(values.tolist(), seed=repeat))
        covered += low <= 0.5 <= high
    assert stats.binomtest(covered, repeats, 0.95).pvalue > 0.01, covered / repeats


def test_subjects_with_one_seed_give_the_interval_of_students_t() -> None:
    values = np.random.default_rng(0).normal(0.4, 0.1, 40)
    found = bootstrap_interval([[value] for value in values])
    low, high = stats.t.interval(0.95, 39, values.mean(), stats.sem(values))
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.003)


def test_drawing_seeds_too_does_not_count_their_noise_twice() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.05, (40, 1)) + rng.normal(0, 0.2, (40, 4))
    low, high = ends(bootstrap_interval(values.tolist()))
    expected = stats.t.interval(0.95, 39, values.mean(), stats.sem(values.mean(axis=1)))
    assert high - low == pytest.approx(expected[1] - expected[0], rel=0.1)


def test_every_subject_weighs_the_same_however_many_seeds_it_has() -> None:
    assert bootstrap_interval([[0.0], [1.0] * 9]).mean == 0.5


def test_the_interval_keeps_the_scores_limits_and_the_seed_decides_it() -> None:
    high = [[1.0], [0.9], [1.0]]
    found = bootstrap_interval(high, (0.0, 1.0))
    assert found.high == 1.0
    assert ends(bootstrap_interval(high))[1] > 1
    assert bootstrap_interval(high, (0.0, 1.0)) == found


def test_one_value_has_no_interval_and_no_value_is_refused() -> None:
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


def test_a_paired_test_is_wilcoxons_signed_rank_test() -> None:
    differences = np.random.default_rng(3).normal(0.3, 1, 14)
    tested = paired_test(differences.tolist())
    assert tested.p == pytest.approx(stats.wilcoxon(differences).pvalue)
    assert tested.mean == pytest.approx(differences.mean())
    assert (tested.positive, tested.pairs) == ((differences > 0).sum(), 14)
    assert paired_test([0.1 * number for number in range(1, 9)]).p == 2 / 2**8  # all above 0


def test_pairs_that_never_differ_have_no_evidence_against_0() -> None:
    assert paired_test([0.0] * 5) == PairedTest(mean=0.0, positive=0, pairs=5, p=1.0)
    with pytest.raises(ValueError, match="needs differences"):
        paired_test([])


def test_students_interval_agrees_with_scipys_confidence_interval_of_a_mean() -> None:
    values = np.random.default_rng(4).normal(2, 3, 9)
    interval = student_interval(values.tolist())
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert interval.mean == pytest.approx(values.mean())
    assert interval.subjects == 9
    assert student_interval([0.3]) == Interval(0.3, low=None, high=None, subjects=1, values=1)


def test_holms_correction_of_a_worked_example() -> None:
    # 4 · 0.01, 3 · 0.015, 2 · 0.02 raised to the one before it, 1 · 0.9
    assert holm([0.02, 0.01, 0.9, 0.015]) == pytest.approx([0.045, 0.04, 0.9, 0.045])
    assert holm([]) == []


@pytest.mark.parametrize("seed", range(5))
def test_holms_correction_is_the_closed_test_of_bonferroni(seed: int) -> None:
    """A hypothesis is as significant as the least significant set of hypotheses it belongs to."""
    p_values = (np.random.default_rng(seed).random(6) ** 3).tolist()
    corrected = holm(p_values)
    for index in range(6):
        sets: list[tuple[int, ...]] = []
        for size in range(1, 7):
            sets += combinations(range(6), size)
        bonferroni = [
            min(1.0, len(chosen) * min(p_values[member] for member in chosen))
            for chosen in sets
            if index in chosen
        ]
        assert corrected[index] == pytest.approx(max(bonferroni))


def test_equal_values_have_an_interval_without_width() -> None:
    interval = student_interval([0.25, 0.25, 0.25])
    assert (interval.low, interval.mean, interval.high) == (0.25, 0.25, 0.25)
