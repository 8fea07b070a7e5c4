import dataclasses
import math
from typing import Any

import pytest

from dti_geom.reporting.blocks import Figure, Finding, Pictures, Section, Span, Table
from dti_geom.reporting.sections.interpolation import (
    interpolation_data,
    interpolation_finding,
    interpolation_section,
    likeness_finding,
    nearest_along,
    path_figure,
    step_figure,
)
from example_results import PIXEL, interpolation_result

SQUARE = ("<a>", "<b>", "<c>", "<d>")


def curves(figure: Any, axis: str = "y") -> dict[str, tuple[list[float], list[float]]]:
    return {
        trace.name: (list(trace.x), list(trace.y)) for trace in figure.data if trace.yaxis == axis
    }


def blocks(section: Section, kind: type) -> list[Any]:
    return [block for block in section.blocks if isinstance(block, kind)]


def test_norms_stand_at_the_points_and_speeds_between_them() -> None:
    figure = path_figure(interpolation_result())
    assert curves(figure)["lerp"] == ([0, 0.5, 1], [0.4, 0.283, 0.4])
    x, y = curves(figure, "y2")["slerp"]
    assert x == [0.25, 0.75]
    assert y == pytest.approx([90, 90])


def test_steps_are_drawn_in_degrees_for_every_seed() -> None:
    figure = step_figure(interpolation_result())
    assert len(figure.data) == 4
    for trace in figure.data:
        assert list(trace.y) == pytest.approx([math.degrees(0.2), math.degrees(0.6)])
    assert [trace.name for trace in figure.data if trace.showlegend] == ["slerp", "lerp"]


def test_the_rows_of_a_square_share_their_methods_name_in_the_key() -> None:
    figure = path_figure(interpolation_result(SQUARE))
    assert len(figure.data) == 12
    upper = [trace.name for trace in figure.data if trace.showlegend and trace.yaxis == "y"]
    assert upper == ["slerp", "lerp"]
    assert "row 0.5" in figure.data[2].hovertext[0]


def test_the_finding_says_the_angle_the_norms_and_the_evenness() -> None:
    finding = interpolation_finding(interpolation_result())
    for fact in (
        "“\u2068<a>\u2069” and “\u2068<b>\u2069” are 90.0° apart",
        "norms 0.4000 and 0.4000",
        "0.4000 by slerp and 0.2830 by lerp",
        "×1.50 by slerp and ×1.50 by lerp",
    ):
        assert fact in finding
    assert "corners of a square" in interpolation_finding(interpolation_result(SQUARE))
    assert interpolation_finding(interpolation_result(encoder=None)).endswith("0.2830 by lerp.")


@pytest.mark.parametrize(("apart", "verdict"), [(0.19, "look alike"), (0.21, "look different")])
def test_methods_are_alike_below_half_a_mean_step_and_the_figures_stand_beside_it(
    apart: float, verdict: str
) -> None:
    result = interpolation_result(apart=apart)
    finding = likeness_finding(result.likenesses[0])
    assert finding.startswith(f"slerp and lerp {verdict}")
    assert f"{math.degrees(apart):.1f}°" in finding
    assert "22.9°" in finding
    assert finding in [block.text for block in blocks(interpolation_section(result), Finding)]


def test_nearest_words_are_listed_stretch_by_stretch() -> None:
    result = interpolation_result()
    stretches = nearest_along(result, result.paths[0].vectors[0])
    listed = [(stretch.first, stretch.last, stretch.word) for stretch in stretches]
    assert listed == [(0, 0.5, "cat"), (1, 1, "dog")]


def test_a_path_is_a_row_of_the_table_with_its_norm_speeds_evenness_and_words() -> None:
    result = interpolation_result(towers=("one", "two"))
    (table,) = blocks(interpolation_section(result), Table)
    assert [row[:2] for row in table.rows] == [
        ["slerp", "one"],
        ["slerp", "two"],
        ["lerp", "one"],
        ["lerp", "two"],
    ]
    titles = [column.title for column in table.columns]
    cells = dict(zip(titles, table.rows[2], strict=True))
    assert cells["smallest norm"] == 0.283
    assert cells["turning speed"] == Span(math.degrees(1.5), math.degrees(1.65))
    assert cells["largest ÷ mean step"] == 1.5
    assert cells["nearest word, from t to t"] == "\u2068cat\u2069 0–0.5, \u2068dog\u2069 1"


def test_each_seed_is_a_grid_with_a_slider_over_all_pictures_of_a_path() -> None:
    section = interpolation_section(interpolation_result(SQUARE))
    grids = blocks(section, Pictures)
    assert [grid.title for grid in grids] == ["Seed 0", "Seed 1"]
    for grid in grids:
        assert grid.slider
        assert list(grid.columns) == ["0", "0.5", "1"]
        assert len(grid.rows) == 6
        assert all(picture.uri == PIXEL for picture in grid.rows[0].pictures)
    assert grids[1].rows[1].pictures[2].alt == "slerp, row 0.5, seed 1, at 1"
    assert "1.50" in grids[0].rows[0].label


def test_each_tower_has_a_figure_and_an_encoder_adds_one_of_steps() -> None:
    (paths, steps) = blocks(interpolation_section(interpolation_result()), Figure)
    assert len(paths.draw().data) == len(steps.draw().data) == 4
    several = interpolation_section(interpolation_result(towers=("one", "two")))
    assert [part.title for part in blocks(several, Section)] == ["one", "two"]


def test_without_pictures_or_an_encoder_there_is_still_a_section() -> None:
    bare = dataclasses.replace(interpolation_result(encoder=None), thumbnails={})
    section = interpolation_section(bare)
    assert not blocks(section, Pictures)
    assert len(blocks(section, Figure)) == 1
    (table,) = blocks(section, Table)
    assert "largest ÷ mean step" not in [column.title for column in table.columns]


def test_the_data_leave_the_pictures_out() -> None:
    result = interpolation_result()
    assert interpolation_data(result) == dataclasses.replace(result, thumbnails={})
