import pytest

from dti_geom.errors import SweepError
from dti_geom.sweeps.quality import time_to_quality
from dti_geom.sweeps.sweep import Course, MethodCost

STEPS = (100, 200, 300, 400)


def course(label: str, subject: str, seed: int, *scores: tuple[float, float]) -> list[Course]:
    """Subject and text score after 100, 200, … updates."""
    return [
        Course(label, subject, seed, step, 1.0, of_subject, text)
        for step, (of_subject, text) in zip(STEPS, scores, strict=True)
    ]


def slow(label: str, subject: str, seed: int) -> list[Course]:
    """Subject rises to the last update, text falls."""
    return course(label, subject, seed, (0.2, 0.9), (0.3, 0.8), (0.4, 0.7), (0.5, 0.6))


def reached(subject: str, seed: int, at: int) -> list[Course]:
    """As good as `slow` ends from the update `at` on."""
    return course(
        "dti", subject, seed, *((0.5, 0.6) if step >= at else (0.4, 0.9) for step in STEPS)
    )


def test_the_first_checkpoint_with_the_references_subject_and_no_less_text_counts() -> None:
    courses = [*slow("ti", "a", 0), *slow("ti", "b", 0), *reached("a", 0, 200)]
    courses += reached("b", 0, 300)
    ti, dti = time_to_quality(courses, [MethodCost("dti", 40.0, 1.0)])
    assert (ti.label, ti.updates.mean, ti.reached, ti.seconds) == ("ti", 400, 2, None)
    assert (dti.updates.mean, dti.reached, dti.tokens) == (250, 2, 2)
    assert dti.seconds is not None
    assert dti.seconds.mean == 25.0  # 40 s of 400 updates
    assert dti.updates.high == 400  # an interval of two subjects is wide; it ends at the last


def test_more_subject_with_less_text_is_not_as_good_and_a_miss_counts_with_all_updates() -> None:
    worse = course("dti", "a", 0, (0.5, 0.59), (0.6, 0.5), (0.7, 0.5), (0.9, 0.5))
    _, dti = time_to_quality([*slow("ti", "a", 0), *worse])
    assert (dti.reached, dti.updates.mean) == (0, 400)


def test_a_score_is_compared_with_the_same_seed_and_not_with_the_noise_of_sums() -> None:
    lucky = course("ti", "a", 1, (0.1, 0.9), (0.1, 0.9), (0.1, 0.9), (0.1, 0.1))
    even = course("dti", "a", 1, (0.1 - 1e-15, 0.1), *[(0.0, 0.0)] * 3)
    _, dti = time_to_quality([*slow("ti", "a", 0), *lucky, *even])
    assert (dti.tokens, dti.updates.mean) == (1, 100)


def test_runs_of_a_subject_are_a_level_of_the_interval() -> None:
    courses = []
    for number, subject in enumerate("abcdef"):
        for seed in (0, 1):
            courses += [*slow("ti", subject, seed)]
            courses += reached(subject, seed, 100 * (1 + (number + seed) % 3))
    _, dti = time_to_quality(courses)
    assert dti.updates.subjects == 6
    assert dti.updates.values == 12
    assert dti.updates.low is not None
    assert dti.updates.high is not None
    assert 100 < dti.updates.low < dti.updates.mean < dti.updates.high < 300


def test_without_the_reference_nothing_is_said() -> None:
    with pytest.raises(SweepError, match="no course of 'ti'"):
        time_to_quality(reached("a", 0, 100))
    with pytest.raises(SweepError, match="'dti' shares no subject"):
        time_to_quality([*slow("ti", "a", 0), *reached("a", 1, 100)])
