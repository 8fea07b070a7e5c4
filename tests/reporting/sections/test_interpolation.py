import dataclasses
import math

import pytest

from dti_geom.files import to_json
from dti_geom.reporting import (
    Report,
    interpolation_finding,
    likeness_finding,
    path_figure,
    render_page,
    step_figure,
)
from dti_geom.reporting.sections.interpolation import nearest_along


def curves(figure, axis="y"):
    return {
        trace.name: (list(trace.x), list(trace.y)) for trace in figure.data if trace.yaxis == axis
    }


def test_norms_stand_at_the_points_and_speeds_between_them(make_interpolation):
    figure = path_figure(make_interpolation())
    assert curves(figure)["lerp"] == ([0, 0.5, 1], [0.4, 0.283, 0.4])
    x, y = curves(figure, "y2")["slerp"]
    assert x == [0.25, 0.75]
    assert y == pytest.approx([90, 90])


def test_steps_are_drawn_in_degrees_for_every_seed(make_interpolation):
    figure = step_figure(make_interpolation())
    assert len(figure.data) == 4
    for trace in figure.data:
        assert list(trace.y) == pytest.approx([math.degrees(0.2), math.degrees(0.6)])
    assert [trace.name for trace in figure.data if trace.showlegend] == ["slerp", "lerp"]


def test_the_rows_of_a_square_share_their_methods_name_in_the_key(make_interpolation):
    figure = path_figure(make_interpolation(["<a>", "<b>", "<c>", "<d>"]))
    assert len(figure.data) == 12
    assert [trace.name for trace in figure.data if trace.showlegend and trace.yaxis == "y"] == [
        "slerp",
        "lerp",
    ]
    assert "row 0.5" in figure.data[2].hovertext[0]


def test_the_finding_says_the_angle_the_norms_and_the_evenness(make_interpolation):
    assert interpolation_finding(make_interpolation()) == (
        "“\u2068<a>\u2069” and “\u2068<b>\u2069” are 90.0° apart, with norms 0.4000 and 0.4000; the least norm on the "
        "way is 0.4000 by slerp and 0.2830 by lerp, and the largest picture step over the mean one ×1.50 by slerp and "
        "×1.50 by lerp."
    )
    assert "corners of a square" in interpolation_finding(
        make_interpolation(["<a>", "<b>", "<c>", "<d>"])
    )
    assert interpolation_finding(make_interpolation(encoder=None)).endswith("0.2830 by lerp.")


@pytest.mark.parametrize(("apart", "verdict"), [(0.19, "look alike"), (0.21, "look different")])
def test_methods_are_alike_below_half_a_mean_step_and_the_figures_stand_beside_it(
    make_interpolation, apart, verdict
):
    (likeness,) = make_interpolation(apart=apart).likenesses
    assert likeness_finding(likeness) == (
        f"slerp and lerp {verdict}: at one place their pictures are {math.degrees(apart):.1f}° apart, against 22.9° "
        "from a picture to the next."
    )


def test_nearest_words_are_told_stretch_by_stretch(make_interpolation):
    result = make_interpolation()
    told = nearest_along(result, result.paths[0].vectors[0])
    assert [(one.first, one.last, one.word) for one in told] == [(0, 0.5, "cat"), (1, 1, "dog")]


def test_a_row_has_a_slider_over_all_its_pictures_and_each_tower_a_figure(
    make_interpolation, parse
):
    page = parse(
        render_page(Report("mini", interpolation=make_interpolation(towers=("one", "two"))))
    )
    sliders = [attributes for tag, attributes in page.elements if tag == "input"]
    assert [attributes["max"] for attributes in sliders] == ["2"] * 4
    plots = [attributes for tag, attributes in page.elements if attributes.get("class") == "plot"]
    assert len(plots) == 3


def test_the_saved_data_leave_the_pictures_out(make_interpolation, parse):
    result = make_interpolation()
    page = parse(render_page(Report("mini", interpolation=result)))
    assert page.data("interpolation") == to_json(dataclasses.replace(result, thumbnails={}))


def test_without_pictures_or_an_encoder_there_is_still_a_section(make_interpolation):
    bare = dataclasses.replace(make_interpolation(encoder=None), thumbnails={})
    html = render_page(Report("mini", interpolation=bare))
    assert "Nearest word by direction" in html
    assert "<img" not in html
    assert "largest ÷ mean step" not in html
