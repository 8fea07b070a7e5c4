from collections.abc import Callable
from dataclasses import replace

import numpy
import pytest

from dti_geom.files.packed import unpack
from dti_geom.probes.map import MapResult
from dti_geom.probes.measuring import Measurement
from dti_geom.reporting.blocks import Note, PointMap
from dti_geom.reporting.registry import section_data
from dti_geom.reporting.sections.map import map_data, map_figure, map_finding, map_section
from section_blocks import blocks_of, column, table_named

Make = Callable[..., MapResult]


def test_the_finding_says_what_is_kept_and_where_the_last_vector_lies(make_map: Make) -> None:
    finding = map_finding(make_map())
    for part in ("50 %", "12.5 %", "“\u2068<x>\u2069”, ×2.00", "“\u2068word2\u2069”", "0.250"):
        assert part in finding
    assert "word2" not in map_finding(make_map(learned=()))


def test_checkpoints_of_a_run_are_one_line_and_other_runs_are_others(make_map: Make) -> None:
    result = make_map(learned=("<x>", "<y>"))
    (block,) = blocks_of(map_section(result), PointMap)
    lines = [point.line for point in block.placed]
    assert len(lines) == 4
    assert len(set(lines)) == 2
    assert lines[0] == lines[1]
    assert block.placed[1].note.startswith("after 200 updates, ")
    traces = map_figure(result).data
    assert [len(trace.x) for trace in traces] == [25, 2, 2]
    assert list(traces[1].x) == [2.5, 3.5]
    for path, lines_then in (
        ("runs/a/learned_embeds.safetensors", 2),
        ("runs/a/00-x/learned_embeds.safetensors", 2),
        ("runs/b/checkpoints/step-000100/00-x/learned_embeds.safetensors", 3),
        ("downloads/learned_embeds.safetensors", 3),
    ):
        more = replace(result.learned[0], path=path, step=300)
        figure = map_figure(replace(result, learned=(more, *result.learned)))
        assert len(figure.data) == 1 + lines_then


def test_the_tables_hold_the_figures_and_every_learned_vector(make_map: Make) -> None:
    section = map_section(make_map())
    assert column(table_named(section, "Map"), "kept") == [50]
    table = table_named(section, "Learned vectors")
    assert column(table, "step") == [100, 200]
    assert column(table, "÷ mean") == pytest.approx([2, 2])


def test_a_sample_is_said_to_be_one(make_map: Make) -> None:
    (note,) = blocks_of(map_section(make_map()), Note)
    assert "25 rows shown are a random sample of 40" in note.text
    (whole,) = blocks_of(map_section(replace(make_map(), rows=25)), Note)
    assert "sample" not in whole.text


def test_the_download_leaves_out_what_the_map_itself_holds(make_map: Make) -> None:
    result = make_map()
    short = map_data(result)
    assert short.tokens == ()
    assert short.positions.data == ""
    assert (short.kept, short.learned) == (result.kept, result.learned)
    measured = section_data(Measurement("map", "mini", (result,), ()))
    assert measured == Measurement("map", "mini", (short,), ())


def test_hostile_tokens_are_text_in_the_figure(make_map: Make, hostile: tuple[str, ...]) -> None:
    figure = map_figure(make_map(hostile, hostile[:1]))
    assert not any("<script" in text for trace in figure.data for text in trace.hovertext)
    numpy.testing.assert_array_equal(figure.data[0].x, unpack(make_map().positions)[:, 0])
