import pytest

from dti_geom.errors import first_line


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
