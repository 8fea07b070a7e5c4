import math

import pytest

from dti_geom.probes import Attenuation
from dti_geom.reporting import Report, attenuation_figure, attenuation_finding, render_page


def curves(figure, row):
    axis = "y" if row == 1 else f"y{row}"
    return {trace.name: trace for trace in figure.data if trace.yaxis == axis}


def test_each_row_draws_what_was_measured_at_each_scale(make_attenuation):
    encoder = make_attenuation()
    figure = attenuation_figure(encoder)
    shares, accuracies, distances = (curves(figure, row) for row in (1, 2, 3))
    for drawn, values in (
        (shares["variance"], [one.position_share for one in encoder.scales]),
        (shares["logits"], [one.logit_share for one in encoder.scales]),
        (accuracies["accuracy"], [one.accuracy for one in encoder.scales]),
        (accuracies["position 0"], [one.accuracy_by_position[0] for one in encoder.scales]),
        (accuracies["chance"], [0.2] * 5),
        (distances["bound"], [one.bound for one in encoder.scales]),
        (distances["largest"], [one.largest_distance for one in encoder.scales]),
        (distances["mean"], [one.distance for one in encoder.scales]),
    ):
        assert list(drawn.x) == [0.25, 1, 4, 16, 64]
        assert list(drawn.y) == values
    assert "learned" not in accuracies


def test_theory_is_drawn_over_the_fitted_scales_alone(make_attenuation):
    line = curves(attenuation_figure(make_attenuation()), 1)["slope −2"]
    assert list(line.x) == [4, 64]
    assert math.log(line.y[1] / line.y[0]) / math.log(16) == pytest.approx(-2)
    assert "slope −2" not in curves(attenuation_figure(make_attenuation(fitted=None)), 1)


def test_learned_vectors_are_marked_at_their_own_norm(make_attenuation):
    figure = attenuation_figure(make_attenuation([("<x>", 12.0), ("<y>", 300.0)]))
    for row, value in ((2, 0.4), (3, 0.2)):
        marks = curves(figure, row)["learned"]
        assert (list(marks.x), list(marks.y), marks.mode) == ([12, 300], [value, value], "markers")
        assert "&lt;x&gt;" in marks.hovertext[0]
        assert "×12.0 the mean" in marks.hovertext[0]
    assert figure.layout.xaxis.range[1] > math.log10(300)


def test_missing_logit_shares_leave_the_rest(make_attenuation):
    import dataclasses

    encoder = make_attenuation()
    without = dataclasses.replace(
        encoder, scales=tuple(dataclasses.replace(one, logit_share=None) for one in encoder.scales)
    )
    assert set(curves(attenuation_figure(without), 1)) == {"variance", "slope −2"}


def test_the_finding_names_slope_accuracy_and_chance(make_attenuation):
    assert attenuation_finding(make_attenuation()) == (
        "Position fades with slope −1.97 on log-log axes, where theory says −2. A classifier reads the position of "
        "held-out words in 99 % of cases, at ×64 the mean norm in 36 %; chance is 20 %."
    )
    found = attenuation_finding(make_attenuation([("<x>", 12.0), ("<y>", 3.0)], fitted=None))
    assert found == (
        "A classifier reads the position of held-out words in 99 % of cases, that of the learned vector "
        "“\u2068<x>\u2069”, ×12.0 the mean norm, in 40 %; chance is 20 %."
    )


def test_the_result_draws_itself(make_attenuation):
    encoder = make_attenuation()
    assert encoder.figure() == attenuation_figure(encoder)


def test_encoders_it_does_not_apply_to_are_named_on_the_page():
    page = render_page(
        Report(
            "mini", attenuation=Attenuation("mini", (), ("text_encoder_3 has relative positions.",))
        )
    )
    assert "Does not apply: <bdi>text_encoder_3 has relative positions.</bdi>" in page
