import json
import math
import re
from itertools import chain

import pytest
from section_blocks import figures

from dti_geom.probes.inspection import Inspection
from dti_geom.probes.neighbors import NeighborsResult
from dti_geom.reporting.plots import DARK, MAX_LANES, SKY, Lane, few, log_axis
from dti_geom.reporting.sections.angles import angles_section
from dti_geom.reporting.sections.attention import attention_section
from dti_geom.reporting.sections.attenuation import attenuation_section
from dti_geom.reporting.sections.inspection import inspection_section
from dti_geom.reporting.sections.neighbors import neighbors_section
from dti_geom.reporting.sections.norms import norms_section
from dti_geom.reporting.sections.stagnation import stagnation_section
from dti_geom.reporting.sections.swap import swap_section


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


@pytest.fixture
def drawn(
    make_encoder,
    make_swap,
    make_attenuation,
    make_stagnation,
    make_attention,
    make_neighbors,
    make_angles,
    make_file,
    placed,
    run,
):
    """Every figure of the probes' sections."""
    learned = [("<x>", 4.0), ("<y>", 12.0)]
    queries = (make_neighbors("cat"), make_neighbors("dog"))
    files = (*run, make_file("dir/wide.pt", [8.0], "wide", reference=None, dim=1024))
    sections = (
        norms_section(make_encoder([placed("<x>", 4.1)])),
        swap_section(make_swap(learned)),
        attenuation_section(make_attenuation(learned)),
        stagnation_section(make_stagnation(learned)),
        attention_section(make_attention(learned)),
        neighbors_section(NeighborsResult("text_encoder", queries)),
        angles_section(make_angles(30.0, None)),
        inspection_section(Inspection(files)),
    )
    return list(chain.from_iterable(map(figures, sections)))


def test_every_colour_of_a_figure_has_a_dark_counterpart(drawn):
    assert len(drawn) == 11
    for figure in drawn:
        plotted = figure.to_plotly_json()
        if figure.data[0].type == "heatmap":  # has plotly's template, whose colours it overrides
            plotted["layout"].pop("template")
        used = re.findall(r'color": "(#[^"]*)"', json.dumps(plotted))
        assert used
        assert set(used) <= set(DARK)


def test_figures_hold_finite_numbers_only(drawn):
    for figure in drawn:
        for trace in figure.data:
            values = [value for value in (*trace.x, *trace.y) if value is not None]
            assert all(map(math.isfinite, values))
