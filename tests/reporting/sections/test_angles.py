from collections.abc import Callable

import pytest

from dti_geom.probes.angles import AnglesResult
from dti_geom.reporting.sections.angles import angle_figure, angle_finding, angles_section
from section_blocks import column, table_named, titles


def test_bars_count_the_known_angles_in_steps_of_five_degrees(
    make_angles: Callable[..., AnglesResult],
) -> None:
    bars = angle_figure(make_angles(31.0, 34.0, 71.0, None)).data[0]
    assert {x: y for x, y in zip(bars.x, bars.y, strict=True) if y} == {32.5: 2, 72.5: 1}


def test_lanes_show_each_vector_and_what_words_have_among_each_other(
    make_angles: Callable[..., AnglesResult],
) -> None:
    start, nearest, words = angle_figure(make_angles(31.0, None)).data[1:]
    assert list(start.x) == pytest.approx([31])
    assert "31.0° to \u2068dog\u2069" in start.hovertext[0]
    assert list(nearest.x) == pytest.approx([30, 30])
    assert list(words.x) == pytest.approx([80, 97])


def test_without_a_known_initialiser_the_nearest_tokens_are_still_drawn(
    make_angles: Callable[..., AnglesResult],
) -> None:
    encoder = make_angles(None)
    assert len(angle_figure(encoder).data) == 3
    assert "not known for any of the 1 learned vectors" in angle_finding(encoder)


def test_the_finding_gives_median_range_and_what_words_have(
    make_angles: Callable[..., AnglesResult],
) -> None:
    finding = angle_finding(make_angles(20.0, 40.0, 50.0, None))
    for part in (
        "3 learned vectors have turned 40.0°",
        "20.0° to 50.0°",
        "90.0° apart",
        "For 3 of them",
        "initialiser of 1 more",
    ):
        assert part in finding


def test_vectors_without_an_angle_are_listed_with_the_reason(
    make_angles: Callable[..., AnglesResult],
) -> None:
    section = angles_section(make_angles(30.0, None))
    vectors = table_named(section, "Learned vectors")
    assert column(vectors, "started from") == ["dog", None]
    assert column(vectors, "angle") == [pytest.approx(30), None]
    assert vectors.rows[0][5] == pytest.approx(30)
    ((token, index, reason),) = table_named(section, "Initialiser not known").rows
    assert (token, index) == ("<x>", 1)
    assert "names no initialiser" in str(reason)
    assert titles(angles_section(make_angles(30.0))) == ["Learned vectors"]
