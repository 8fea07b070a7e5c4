import pytest

from dti_geom.probes import Angles
from dti_geom.reporting import Report, angle_figure, angle_finding, render_page


def test_bars_count_the_known_angles_in_steps_of_five_degrees(make_angles):
    bars = angle_figure(make_angles(31.0, 34.0, 71.0, None)).data[0]
    assert {x: y for x, y in zip(bars.x, bars.y, strict=True) if y} == {32.5: 2, 72.5: 1}


def test_lanes_show_each_vector_and_what_words_have_among_each_other(make_angles):
    start, nearest, words = angle_figure(make_angles(31.0, None)).data[1:]
    assert list(start.x) == pytest.approx([31])
    assert "31.0° to \u2068dog\u2069" in start.hovertext[0]
    assert list(nearest.x) == pytest.approx([30, 30])
    assert list(words.x) == pytest.approx([80, 97])


def test_without_a_known_initialiser_the_nearest_tokens_are_still_drawn(make_angles):
    encoder = make_angles(None)
    assert len(angle_figure(encoder).data) == 3
    assert angle_finding(encoder) == "Of none of the 1 learned vectors is the initialiser known."


def test_the_finding_gives_median_range_and_what_words_have(make_angles):
    assert angle_finding(make_angles(20.0, 40.0, 50.0, None)) == (
        "3 learned vectors have turned 40.0° (median; 20.0° to 50.0°) from the words they started from, where two "
        "words lie 90.0° apart; for 3 the start is still the nearest token. Of 1 more the initialiser is not known."
    )


def test_the_page_lists_vectors_without_an_angle_and_encoders_without_vectors(make_angles):
    page = render_page(
        Report(
            "mini", angles=Angles("mini", (make_angles(None),), ("other: no vector of width 9.",))
        )
    )
    assert "the file names no initialiser" in page
    assert "Does not apply: <bdi>other: no vector of width 9.</bdi>" in page


def test_the_result_draws_itself(make_angles):
    encoder = make_angles(31.0)
    assert encoder.figure() == angle_figure(encoder)
