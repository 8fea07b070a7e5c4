import pytest

from dti_geom.errors import StudyError
from dti_geom.study.planning import plan_size


def test_a_small_difference_needs_more_raters_than_a_large_one() -> None:
    sizes = [
        plan_size(difference, methods=2, subjects=20, prompts=6, trials=8, studies=10)
        for difference in (0.6, 0.25)
    ]
    large, small = [size.enough for size in sizes]
    assert large is not None
    assert small is not None
    assert large.raters < small.raters
    assert large.found.share >= 0.8
    assert sizes[1].steps[0].found.share < 0.8


def test_shares_are_numbers_between_0_and_1() -> None:
    with pytest.raises(StudyError, match=r"10 points is 0\.1"):
        plan_size(10)
    with pytest.raises(StudyError, match="out of reach"):
        plan_size(0.99, methods=3)
