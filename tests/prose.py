"""Numbers in prose: a text must show the figures of a result, in whatever words."""

import re


def assert_shown(text: str, *figures: str) -> None:
    """Check that every figure stands in the text, and not as a part of another number."""
    absent = [x for x in figures if not re.search(rf"(?<![\d.]){re.escape(x)}(?![\d])", text)]
    assert not absent, f"{absent} not in: {text}"


def share(value: float) -> str:
    """Write a number below 1 as the tables do: .292."""
    return f"{value:.3f}".removeprefix("0")
