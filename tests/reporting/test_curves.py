from dti_geom.reporting.curves import add_curve, add_keys
from dti_geom.reporting.plots import BLUE, GREEN, INK, rows_of

POINTS = [(1.0, 2.0, "one"), (2.0, None, "two")]


def test_a_curve_has_points_gaps_and_hover_texts() -> None:
    figure = rows_of([100, 100])
    add_curve(figure, 2, "name", POINTS, BLUE)
    add_curve(figure, 1, "none", [], GREEN)
    (trace,) = figure.data
    assert (trace.x, trace.y, trace.hovertext) == ((1, 2), (2, None), ("one", "two"))
    assert (trace.yaxis, trace.line.color, trace.mode) == ("y2", BLUE, "lines+markers")


def test_a_key_names_each_curve_in_its_colour_above_its_row() -> None:
    figure = rows_of([100, 100])
    add_curve(figure, 1, "first", POINTS, BLUE)
    add_curve(figure, 1, "second", POINTS, INK, dash="dash")
    add_curve(figure, 1, "third", POINTS, GREEN, marks=True)
    add_curve(figure, 1, "left out", POINTS, GREEN, key=False)
    add_curve(figure, 2, "below", POINTS, GREEN)
    add_keys(figure, (1, 2))
    key = {label.text: label for label in figure.layout.annotations}
    assert list(key) == ["● first", "╌╌ second", "◆ third", "● below"]
    assert [label.font.color for label in key.values()] == [BLUE, INK, GREEN, GREEN]
    assert [label.yref for label in key.values()] == ["y domain"] * 3 + ["y2 domain"]
    places = [label.xshift for label in key.values()]
    assert places[0] < places[1] < places[2]
    assert places[3] == places[0]


def test_a_long_key_breaks_into_lines_and_gets_room() -> None:
    figure = rows_of([100])
    for name in ("a name that is quite long", "another one as long as that", "short"):
        add_curve(figure, 1, name, POINTS, BLUE)
    height, top = figure.layout.height, figure.layout.margin.t
    add_keys(figure, (1,))
    first, second, third = figure.layout.annotations
    assert first.xshift == second.xshift
    assert first.yshift > second.yshift == third.yshift
    assert (figure.layout.height - height, figure.layout.margin.t - top) == (17, 17)
