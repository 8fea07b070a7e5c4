from typing import Any

import pytest

from dti_geom.reporting.text import (
    listed,
    number,
    percent,
    plot_text,
    quoted,
    short_path,
    shown,
    spread,
    times,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.387, "0.3870"),
        (-0.0312345, "−0.03123"),
        (12345.6, "12,346"),
        (9.99996, "10.00"),
        (0.0, "0"),
        (1.234e-7, "1.234×10⁻⁷"),
        (-2.5e9, "−2.500×10⁹"),
        (49408, "49,408"),
        (-3, "−3"),
        (None, "–"),
    ],
)
def test_numbers_have_four_significant_digits_and_integers_all(value: Any, expected: Any) -> None:
    assert number(value) == expected


def test_ratios_and_ranges_carry_their_sign_and_count() -> None:
    assert times(2.449) == "×2.45"
    assert spread([1.5], "×") == "×1.50"
    assert spread([1.5, 3.0], "×") == "×1.50 to ×3.00, 2 vectors"
    assert spread([1.5, 1.5001]) == "1.50, 2 vectors"


@pytest.mark.parametrize(
    ("share", "expected"),
    [(100.0, "100 %"), (99.9999, "99.99 %"), (0.0, "0 %"), (0.0001, "0.01 %"), (80.25, "80.25 %")],
)
def test_percentages_never_round_to_all_or_nothing(share: Any, expected: Any) -> None:
    assert percent(share) == expected


def test_plot_text_holds_no_markup_for_plotly() -> None:
    assert plot_text("<b>a</b> & $x$") == "\u2068&lt;b&gt;a&lt;/b&gt; &amp; &#36;x&#36;\u2069"


def test_unseen_characters_are_spelled_out() -> None:
    assert shown("a\u202eb\nc\x00\udcff") == "a\\u202eb\\u000ac\\u0000\\udcff"
    assert quoted("\u2069x") == "“\u2068\\u2069x\u2069”"


def test_arabic_and_emoji_stay_as_they_are() -> None:
    assert shown("عربي 👩\u200d🎨 naïve") == "عربي 👩\u200d🎨 naïve"


def test_long_text_is_shortened() -> None:
    assert shown("a" * 100, limit=10) == "a" * 9 + "…"
    assert len(plot_text("&" * 100, limit=10)) == 2 + 9 * len("&amp;") + 1


def test_short_path_keeps_folder_and_file() -> None:
    assert short_path("/a/b/c.bin") == "b/c.bin"
    assert short_path("c.bin") == "c.bin"


def test_a_list_is_cut_to_what_a_line_holds() -> None:
    parts = ["a", "b", "c", "d"]
    assert [listed(parts[:count]) for count in (1, 2, 3)] == ["a", "a and b", "a, b and c"]
    assert [listed(parts, most) for most in (4, 3, 2)] == [
        "a, b, c and d",
        "a, b and 2 more",
        "a and 3 more",
    ]
