import json
import math
import re

import pytest

from dti_geom.reporting.blocks import Figure, Section
from dti_geom.reporting.plots import DARK, MAX_LANES, SKY, Lane, few, log_axis
from dti_geom.reporting.registry import section_of


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


def figures_of(section):
    for block in section.blocks:
        if isinstance(block, Section):
            yield from figures_of(block)
        elif isinstance(block, Figure):
            yield block.draw()


@pytest.fixture(scope="module")
def figures(report):
    return {name: [*figures_of(section_of(result))] for name, result in report.results.items()}


def test_every_colour_of_a_figure_has_a_dark_counterpart(figures):
    for name in ("norms", "neighbors", "inspection"):
        for figure in figures[name]:
            used = re.findall(r'color": "(#[^"]*)"', json.dumps(figure.to_plotly_json()))
            assert used
            assert set(used) <= set(DARK)


def test_figures_hold_finite_numbers_only(figures):
    for name in ("norms", "inspection"):
        traces = [trace for figure in figures[name] for trace in figure.data]
        for trace in traces:
            assert all(math.isfinite(value) for value in (*trace.x, *trace.y))
