import math
from collections.abc import Callable
from typing import Any

import pytest

from dti_geom.probes.attenuation import AttenuationResult
from dti_geom.reporting.blocks import Note
from dti_geom.reporting.sections.attenuation import (
    attenuation_figure,
    attenuation_finding,
    attenuation_section,
)
from section_blocks import blocks_of, column, table_named, titles


def curves(figure: Any, row: Any) -> Any:
    axis = "y" if row == 1 else f"y{row}"
    return {trace.name: trace for trace in figure.data if trace.yaxis == axis}


def test_each_row_draws_what_was_measured_at_each_scale(
    make_attenuation: Callable[..., AttenuationResult],
) -> None:
    encoder = make_attenuation()
    figure = attenuation_figure(encoder)
    shares, accuracies, distances = (curves(figure, row) for row in (1, 2, 3))
    for drawn, values in (
        (shares["variance"], [signal.position_share for signal in encoder.scales]),
        (shares["logits"], [signal.logit_share for signal in encoder.scales]),
        (accuracies["accuracy"], [signal.accuracy for signal in encoder.scales]),
        (accuracies["position 0"], [signal.accuracy_by_position[0] for signal in encoder.scales]),
        (accuracies["chance"], [0.2] * 5),
        (distances["bound"], [signal.bound for signal in encoder.scales]),
        (distances["largest"], [signal.largest_distance for signal in encoder.scales]),
        (distances["mean"], [signal.distance for signal in encoder.scales]),
    ):
        assert list(drawn.x) == [0.25, 1, 4, 16, 64]
        assert list(drawn.y) == values
    assert "learned" not in accuracies


def test_theory_is_drawn_over_the_fitted_scales_alone(
    make_attenuation: Callable[..., AttenuationResult],
) -> None:
    line = curves(attenuation_figure(make_attenuation()), 1)["slope −2"]
    assert list(line.x) == [4, 64]
    assert math.log(line.y[1] / line.y[0]) / math.log(16) == pytest.approx(-2)
    assert "slope −2" not in curves(attenuation_figure(make_attenuation(fitted=None)), 1)


def test_learned_vectors_are_marked_at_their_own_norm(
    make_attenuation: Callable[..., AttenuationResult],
) -> None:
    figure = attenuation_figure(make_attenuation([("<x>", 12.0), ("<y>", 300.0)]))
    for row, value in ((2, 0.4), (3, 0.2)):
        marks = curves(figure, row)["learned"]
        assert (list(marks.x), list(marks.y), marks.mode) == ([12, 300], [value, value], "markers")
        assert "&lt;x&gt;" in marks.hovertext[0]
        assert "×12.0 the mean" in marks.hovertext[0]
    assert figure.layout.xaxis.range[1] > math.log10(300)


def test_missing_logit_shares_leave_the_rest(
    make_attenuation: Callable[..., AttenuationResult],
) -> None:
    import dataclasses

    encoder = make_attenuation()
    without = dataclasses.replace(
        encoder,
        scales=tuple(dataclasses.replace(signal, logit_share=None) for signal in encoder.scales),
    )
    assert set(curves(attenuation_figure(without), 1)) == {"variance", "slope −2"}


def test_the_finding_names_slope_accuracy_and_chance(
    make_attenuation: Callable[..., AttenuationResult],
) -> None:
    finding = attenuation_finding(make_attenuation())
    for part in ("slope −1.97", "99 % of cases, at ×64", "in 36 %", "chance is 20 %"):
        assert part in finding
    finding = attenuation_finding(make_attenuation([("<x>", 12.0), ("<y>", 3.0)], fitted=None))
    assert "slope" not in finding
    for part in ("99 % of cases", "“\u2068<x>\u2069”, ×12.0 the mean norm, in 40 %"):
        assert part in finding


def test_the_tables_hold_every_scale_and_learned_vector(
    make_attenuation: Callable[..., AttenuationResult],
) -> None:
    result = make_attenuation([("<x>", 12.0)])
    section = attenuation_section(result)
    signals = table_named(section, "Positional signal")
    assert column(signals, "norm") == ["own", "×0.25", "×1", "×4", "×16", "×64"]
    assert column(signals, "by position")[1:] == [signal.position_share for signal in result.scales]
    assert column(signals, "by word")[1:] == [signal.word_share for signal in result.scales]
    assert column(signals, "logits")[1:] == [signal.logit_share for signal in result.scales]
    assert column(signals, "accuracy")[1:] == [100 * signal.accuracy for signal in result.scales]
    assert column(signals, "at position 0") == [100.0] * 6
    assert column(signals, "distance")[1:] == [signal.largest_distance for signal in result.scales]
    assert column(signals, "bound")[1:] == [signal.bound for signal in result.scales]
    (learned,) = table_named(section, "Learned vectors").rows
    assert learned == ["<x>", 0, 12.0, 40.0, 0.9, 0.2, 0.5, "dir/<x>.bin"]
    assert titles(attenuation_section(make_attenuation())) == ["Positional signal"]


def test_slopes_and_the_scales_they_are_fitted_on_are_told(
    make_attenuation: Callable[..., AttenuationResult],
) -> None:
    notes = " ".join(note.text for note in blocks_of(attenuation_section(make_attenuation()), Note))
    for part in ("×4 to ×64", "−1.970", "−0.9900", "1.250"):
        assert part in notes
    unfitted = attenuation_section(make_attenuation(fitted=None))
    assert "No slope is fitted" in " ".join(note.text for note in blocks_of(unfitted, Note))
