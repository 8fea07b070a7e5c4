import json
import math
import re
from itertools import chain
from typing import Any

import pytest

from dti_geom.probes.registry import PROBES
from dti_geom.reporting.plots import DARK, MAX_LANES, SKY, Lane, few, log_axis
from dti_geom.reporting.registry import section_of
from section_blocks import figures


@pytest.mark.parametrize(("low", "high"), [(0.387, 43.9), (0.9, 1.1), (1e-3, 2e4), (5.0, 5.0)])
def test_log_axis_spans_the_values_and_labels_at_least_two_ticks(low: float, high: float) -> None:
    axis: Any = log_axis(low, high, "×")
    start, stop = (10**end for end in axis["range"])
    assert start < low <= high < stop
    inside = [
        text
        for tick, text in zip(axis["tickvals"], axis["ticktext"], strict=True)
        if start <= tick <= stop
    ]
    assert 2 <= len(inside) <= 8
    assert all(text.startswith("×") for text in inside)


def test_too_many_lanes_share_the_last() -> None:
    lanes = [Lane(str(place), (float(place),), ("text",), SKY) for place in range(MAX_LANES + 5)]
    drawn = few(lanes)
    assert len(drawn) == MAX_LANES
    assert drawn[-1].label == "6 more tokens"
    assert [value for lane in drawn for value in lane.values] == [
        float(place) for place in range(MAX_LANES + 5)
    ]


@pytest.fixture(scope="module")
def drawn(report: Any) -> list[Any]:
    """Every figure of the probes' sections and of the inspection."""
    sections = [section_of(report.results[name]) for name in (*PROBES, "inspection")]
    return list(chain.from_iterable(map(figures, sections)))


def test_every_colour_of_a_figure_has_a_dark_counterpart(drawn: list[Any]) -> None:
    for figure in drawn:
        plotted = figure.to_plotly_json()
        if figure.data[0].type == "heatmap":  # has plotly's template, whose colours it overrides
            plotted["layout"].pop("template")
        used = re.findall(r'color": "(#[^"]*)"', json.dumps(plotted))
        assert used
        assert set(used) <= set(DARK)


def test_figures_hold_finite_numbers_only(drawn: list[Any]) -> None:
    for figure in drawn:
        for trace in figure.data:
            values = [value for value in (*trace.x, *trace.y) if value is not None]
            assert all(map(math.isfinite, values))
