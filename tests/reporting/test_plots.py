import json
import math
import re

import pytest

from dti_geom.reporting.plots import DARK, MAX_LANES, SKY, Lane, few, log_axis
from dti_geom.reporting.sections.inspection import (
    inflation_figure,
    trajectories,
    trajectory_figure,
)
from dti_geom.reporting.sections.neighbors import overlap_figure
from dti_geom.reporting.sections.norms import norm_figure


@pytest.mark.parametrize(("low", "high"), [(0.387, 43.9), (0.9, 1.1), (1e-3, 2e4), (5.0, 5.0)])
def test_log_axis_spans_the_values_and_labels_at_least_two_ticks(low, high):
    axis = log_axis(low, high, "×")
    start, stop = (10**end for end in axis["range"])
    assert start < low <= high < stop
    inside = [
        text
        for tick, text in zip(axis["tickvals"], axis["ticktext"], strict=True)
        if start <= tick <= stop
    ]
    assert 2 <= len(inside) <= 8
    assert all(text.startswith("×") for text in inside)


def test_too_many_lanes_share_the_last():
    lanes = [Lane(str(place), (float(place),), ("text",), SKY) for place in range(MAX_LANES + 5)]
    drawn = few(lanes)
    assert len(drawn) == MAX_LANES
    assert drawn[-1].label == "6 more tokens"
    assert [value for lane in drawn for value in lane.values] == [
        float(place) for place in range(MAX_LANES + 5)
    ]


def test_every_colour_of_a_figure_has_a_dark_counterpart(report):
    figures = [
        norm_figure(report.norms.encoders[0]),
        overlap_figure(report.neighbors),
        inflation_figure(report.inspected),
    ]
    figures += [trajectory_figure(trajectories(report.inspected)[0])]
    for figure in figures:
        used = re.findall(r'color": "(#[^"]*)"', json.dumps(figure.to_plotly_json()))
        assert used
        assert set(used) <= set(DARK)


def test_figures_hold_finite_numbers_only(report):
    for figure in (norm_figure(report.norms.encoders[0]), inflation_figure(report.inspected)):
        for trace in figure.data:
            assert all(math.isfinite(value) for value in (*trace.x, *trace.y))
