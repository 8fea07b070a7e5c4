from collections.abc import Callable
from dataclasses import replace

import pytest

from dti_geom.probes.attention import AttentionResult
from dti_geom.reporting.blocks import Figure, Note
from dti_geom.reporting.sections.attention import (
    attention_figure,
    attention_finding,
    attention_section,
    map_figure,
    sink_finding,
)
from section_blocks import blocks_of, column, table_named, titles


def test_first_middle_and_last_layer_are_drawn_as_means_over_heads(
    make_attention: Callable[..., AttentionResult],
) -> None:
    figure = attention_figure(make_attention())
    rows = {
        axis: [trace for trace in figure.data if trace.yaxis == axis] for axis in ("y", "y2", "y3")
    }
    assert {axis: [trace.name for trace in traces] for axis, traces in rows.items()} == {
        axis: ["layer 1", "layer 3", "layer 4"] for axis in rows
    }
    assert list(rows["y"][1].y) == pytest.approx(
        [scale * 3 * 1.5 / 1000 for scale in (0.25, 1, 32)]
    )
    assert list(rows["y2"][0].y) == pytest.approx([1.2 / (1 + scale) for scale in (0.25, 1, 32)])
    assert list(rows["y3"][0].y) == pytest.approx([0.1 / (1 + scale) for scale in (0.25, 1, 32)])
    assert "2 heads from 0.00300 to 0.00600" in rows["y"][1].hovertext[1]


def test_learned_vectors_are_marked_at_their_own_norm(
    make_attention: Callable[..., AttentionResult],
) -> None:
    figure = attention_figure(make_attention([("<x>", 64.0)]))
    marks = next(trace for trace in figure.data if trace.name == "learned" and trace.yaxis == "y")
    assert list(marks.x) == [64.0] * 3
    assert list(marks.y) == pytest.approx([64 * layer * 1.5 / 1000 for layer in (1, 3, 4)])
    assert "&lt;x&gt;" in marks.hovertext[0]


def test_equal_attention_and_the_largest_entropy_are_dashed_lines_in_view(
    make_attention: Callable[..., AttentionResult],
) -> None:
    figure = attention_figure(make_attention())
    assert [shape.y0 for shape in figure.layout.shapes] == [0.25, 1.1]
    assert figure.layout.yaxis2.range[1] > 1.1


def test_maps_have_layers_below_and_norms_beside_one_another(
    make_attention: Callable[..., AttentionResult],
) -> None:
    figure = map_figure(make_attention())
    assert len(figure.data) == 6
    assert list(figure.data[0].z[2]) == [1 / 3, 1 / 3, 1 / 3]
    assert list(figure.layout.yaxis.ticktext) == [
        "\u2068&lt;start&gt;\u2069",
        "<b>\u2068cat\u2069</b>",
        "\u2068&lt;end&gt;\u2069",
    ]
    assert [annotation.text for annotation in figure.layout.annotations] == ["×1", "×32"]


def test_the_finding_compares_the_mean_norm_with_the_largest(
    make_attention: Callable[..., AttentionResult],
) -> None:
    finding = attention_finding(make_attention())
    for part in (
        "From ×1 to ×32 the mean norm",
        "0.00150 → 0.0480",
        "equal shares: 0.250",
        "0.600 → 0.0364 nats",
        "1.10",
        "0.0500 → 0.00303",
    ):
        assert part in finding


def test_tables_hold_layers_at_the_mean_and_at_the_largest_norm(
    make_attention: Callable[..., AttentionResult],
) -> None:
    section = attention_section(make_attention())
    assert titles(section)[:2] == ["16 words at ×1 the mean norm", "16 words at ×32 the mean norm"]
    usual = table_named(section, "16 words at ×1 ")
    assert column(usual, "layer") == [1, 2, 3, 4]
    assert usual.rows[1][1:5] == pytest.approx([0.003, 0.5, 0.6, 0.05])
    longest = table_named(section, "16 words at ×32")
    assert longest.rows[1][1] == pytest.approx(32 * 0.003)
    assert len(blocks_of(section, Figure)) == 2
    assert "causal" in section.aside


def test_learned_vectors_are_listed_at_their_own_norms(
    make_attention: Callable[..., AttentionResult],
) -> None:
    section = attention_section(make_attention([("<x>", 64.0)]))
    (row,) = table_named(section, "Learned vectors").rows
    assert row[:2] == ["<x>", 64.0]
    assert row[2:6] == pytest.approx([64 * 1.5 / 1000, 0.5, 1.2 / 65, 0.1 / 65])


def test_the_centred_sensitivity_is_shown_where_a_result_has_it(
    make_attention: Callable[..., AttentionResult],
) -> None:
    old = make_attention()
    words = old.curves[0]
    sensitivity = tuple(
        replace(known, centred=(0.9, 0.6, 0.3), share=(0.8, 0.4, 0.2))
        for known in words.sensitivity
    )
    new = replace(old, curves=(replace(words, sensitivity=sensitivity),), read="block 3 of 4")
    table = table_named(attention_section(new), "16 words at ×32")
    assert column(table, "context sensitivity") == [0.3] * 4
    assert column(table, "by context") == [20] * 4
    assert "40.0 % → 20.0 %" in attention_finding(new)
    (note,) = blocks_of(attention_section(new), Note)
    assert "block 3 of 4" in note.text
    table = table_named(attention_section(old), "16 words at ×32")
    assert column(table, "by context") == [None] * 4
    assert column(table, "context sensitivity") == pytest.approx([0.1 / 33] * 4)


def test_sinks_are_found_beside_equal_shares_and_massive_activations_are_named(
    make_attention: Callable[..., AttentionResult],
) -> None:
    result = make_attention()
    assert result.sinks is not None
    finding = sink_finding(result.sinks)
    for part in (
        "“\u2068<start>\u2069” in layer 2: 30 %",
        "equal shares: 20 %",
        "gets 10 % in layer 1 (equal shares: 80 %)",
        "2 of 2 layers",
        "1,200",
    ):
        assert part in finding
    calm = replace(
        result.sinks,
        begin=None,
        even_padding=0.0,
        layers=tuple(replace(layer, median=2.0) for layer in result.sinks.layers),
    )
    assert "the first position in layer 2" in sink_finding(calm)
    assert "padding" not in sink_finding(calm)
    assert "No layer has a massive activation" in sink_finding(calm)
    table = table_named(attention_section(result), "Sinks")
    assert column(table, "one head") == pytest.approx([20, 40])
    assert column(table, "÷ median") == pytest.approx([1200, 2400])


def test_a_result_of_an_older_version_has_no_table_of_sinks(
    make_attention: Callable[..., AttentionResult],
) -> None:
    section = attention_section(replace(make_attention(), sinks=None))
    assert not any(title.startswith("Sinks") for title in titles(section))
