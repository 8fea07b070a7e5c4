from dti_geom.reporting.methods import COLORS, learned_color, method_colors, method_name
from dti_geom.reporting.plots import BLUE, DARK, VERMILLION


def test_a_known_method_has_one_colour_whatever_stands_beside_it() -> None:
    alone, beside = method_colors(["dti"])["dti"], method_colors(["x", "ti", "dti"])["dti"]
    assert alone == beside == learned_color("dti") != learned_color("ti") == VERMILLION


def test_methods_of_a_figure_differ_in_colour() -> None:
    methods = ["x", "ti", "y", "dti", "z"]
    colors = method_colors(methods)
    assert len({colors[method] for method in methods}) == len(methods)


def test_after_all_colours_they_repeat() -> None:
    colors = method_colors([f"m{number}" for number in range(COLORS + 1)])
    assert colors[f"m{COLORS}"] == colors["m0"] == BLUE


def test_every_colour_of_a_method_has_a_counterpart_in_the_dark() -> None:
    assert set(method_colors(f"m{number}" for number in range(COLORS)).values()) <= set(DARK)


def test_a_vector_of_unknown_origin_is_coloured_as_a_free_one() -> None:
    assert learned_color(None) == VERMILLION
    assert method_name("ti") == "TI"
