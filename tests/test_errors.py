import pytest

from dti_geom.errors import first_line, nearest_name


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("short"), "short"),
        (ValueError("first\nsecond\nthird"), "first"),
        (ValueError("\n  indented\r\nsecond"), "indented"),
        (ValueError("  \n "), "ValueError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_the_first_line_of_an_error_is_never_empty(error: BaseException, expected: str) -> None:
    assert first_line(error) == expected


def test_the_nearest_name_is_found_in_any_case_and_no_far_one_is_proposed() -> None:
    assert nearest_name("DIT", ["ti", "dti"]) == " Did you mean 'dti'?"
    assert nearest_name("sdxl", ["mini", "SDXL"]) == " Did you mean 'SDXL'?"
    assert nearest_name("qqq", ["steps", "seeds"]) == ""
