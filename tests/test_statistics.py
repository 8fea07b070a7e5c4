from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from dti_geom.statistics import (
    Interval,
    PairedTest,
    Share,
    bootstrap_interval,
    bootstrap_test,
    holm,
    paired_test,
    paired_tests,
    rank_correlation,
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
    ("sizes", "spreads"),
    [
        ((12, 3, 2), (0.1, 0.1, 0.1)),
        ((12, 3, 2), (0.02, 0.1, 0.2)),  # nearly all of it from runs and seeds
        ((5, 1, 4), (0.1, 0.0, 0.1)),
        ((1, 3, 4), (0.0, 0.1, 0.1)),  # one subject: over its runs
        ((1, 1, 4), (0.0, 0.0, 0.1)),  # one run of it: over its seeds
    ],
)
def test_the_interval_of_three_levels_covers_a_known_truth_at_its_nominal_rate(
    sizes: tuple[int, int, int], spreads: tuple[float, float, float]
) -> None:
    rng = np.random.default_rng(1)
    repeats, covered, rejected = 300, 0, 0
    for repeat in range(repeats):
        values = np.zeros(sizes)
        for level, spread in enumerate(spreads):
            values += rng.normal(0, spread, (*sizes[: level + 1], *[1] * (2 - level)))
        interval, p = bootstrap_test(values.tolist(), seed=repeat)
        low, high = ends(interval)
        covered += low <= 0 <= high
        assert p is not None
        rejected += p < 0.05
    assert 0.92 <= covered / repeats <= 0.97
    assert 0.03 <= rejected / repeats <= 0.08


def test_subjects_with_one_seed_give_the_interval_and_the_p_value_of_students_t() -> None:
    values = np.random.default_rng(0).normal(0.03, 0.1, 40)
    found, p = bootstrap_test([[[value]] for value in values])
    low, high = stats.t.interval(0.95, 39, values.mean(), stats.sem(values))
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.003)
    assert p == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=0.1)


def test_drawing_runs_and_seeds_too_does_not_count_their_noise_again() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.05, (40, 1, 1)) + rng.normal(0, 0.2, (40, 3, 1))
    values = values + rng.normal(0, 0.3, (40, 3, 4))
    low, high = ends(bootstrap_interval(values.tolist()))
    means = values.mean(axis=(1, 2))
    expected = stats.t.interval(0.95, 39, means.mean(), stats.sem(means))
    assert high - low == pytest.approx(expected[1] - expected[0], rel=0.1)


def test_runs_that_differ_widen_the_interval_of_one_subject_though_their_seeds_agree() -> None:
    apart = ends(bootstrap_interval([[[0.1] * 4, [0.5] * 4, [0.9] * 4]]))
    mixed = ends(bootstrap_interval([[[0.1, 0.5, 0.9] * 4]]))
    assert apart[1] - apart[0] > 2 * (mixed[1] - mixed[0])


def test_every_subject_and_every_run_weighs_the_same_however_many_seeds_it_has() -> None:
    assert bootstrap_interval([[[0.0]], [[1.0] * 9]]).mean == 0.5
    uneven = bootstrap_interval([[[0.0], [1.0] * 9], [[0.5]]])
    assert (uneven.mean, uneven.values) == (0.5, 11)
    assert uneven.low == uneven.high == 0.5  # the means of the subjects are all there is


def test_the_interval_keeps_the_scores_limits_and_the_seed_decides_it() -> None:
    high = [[[1.0]], [[0.9]], [[1.0]]]
    found = bootstrap_interval(high, (0.0, 1.0))
    assert found.high == 1.0
    assert ends(bootstrap_interval(high))[1] > 1
    assert bootstrap_interval(high, (0.0, 1.0)) == found


def test_one_value_has_no_interval_and_no_value_is_refused() -> None:
    assert bootstrap_test([[[0.3]]]) == (Interval(0.3, None, None, 1, 1), None)
    nothings: list[list[list[list[float]]]] = [[], [[]], [[[0.1]], [[]]], [[[0.1]], []]]
    for nothing in nothings:
        with pytest.raises(ValueError, match="every subject needs a value"):
            bootstrap_interval(nothing)


def test_equal_values_leave_no_doubt_and_noise_of_sums_is_no_difference() -> None:
    assert bootstrap_test([[[1e-18]], [[-1e-18]], [[2e-18]]])[1] == 1.0
    assert bootstrap_test([[[0.1 + 0.2]], [[0.3]], [[0.3]]])[1] == 0.0


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


def test_the_noise_of_sums_gets_no_rank() -> None:
    clear = [0.2, 0.3, 0.1, 0.25, 0.4, 0.15, 0.35]
    noisy = [*clear, 0.1 + 0.2 - 0.3, -1e-18, 3e-17]  # three differences that are 0
    assert paired_test(noisy).p == paired_test([*clear, 0.0, 0.0, 0.0]).p
    assert paired_test(noisy).positive == 7
    ties = [0.3, 0.1 + 0.2, -0.3, 0.6, 0.5]  # three of the same size
    assert paired_test(ties) == paired_test([0.3, 0.3, -0.3, 0.6, 0.5])


def test_the_rows_of_a_table_are_corrected_together() -> None:
    family = {
        "near": [0.1, -0.2, 0.3, 0.25, -0.15, 0.4],
        "far": [0.1 * number for number in range(1, 9)],
    }
    found = paired_tests(family)
    assert list(found) == ["near", "far"]
    assert found["far"].corrected == 2 * found["far"].p
    assert [test.corrected for test in found.values()] == holm([test.p for test in found.values()])
    assert paired_test(family["far"]).corrected is None


def test_a_rank_correlation_has_an_interval_over_subjects() -> None:
    rng = np.random.default_rng(0)
    groups = [[(x, float(rng.random())) for x in rng.random(10).tolist()] for _ in range(6)]
    pairs = np.concatenate([np.array(group) for group in groups])
    found = rank_correlation(groups)
    assert found is not None
    assert found.mean == pytest.approx(stats.spearmanr(pairs).statistic, abs=1e-3)
    low, high = ends(found)
    assert low < found.mean < high
    assert (found.subjects, found.values) == (6, 60)
    few = rank_correlation(groups[:4])
    assert few is not None
    assert few.low is None
    assert rank_correlation([[(1.0, 0.1), (1.0 + 1e-9, 0.2)]]) is None


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
    interval = bootstrap_interval([[[0.25]], [[0.25]], [[0.25]]])
    assert (interval.low, interval.mean, interval.high) == (0.25, 0.25, 0.25)
