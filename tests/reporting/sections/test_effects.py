from collections.abc import Callable

import pytest

from dti_geom.probes.effects import EffectsResult
from dti_geom.reporting.blocks import Note, Span
from dti_geom.reporting.sections.effects import (
    effects_figure,
    effects_finding,
    effects_section,
    reading_finding,
)
from section_blocks import blocks_of, column, figures, table_named, titles

Make = Callable[..., EffectsResult]


def test_the_findings_give_both_effects_and_what_can_be_read(make_effects: Make) -> None:
    result = make_effects()
    for part in ("0.400 (0.380 to 0.420)", "0.100 (0.0800 to 0.120)", "0 (−0.0200 to 0.0200)"):
        assert part in effects_finding(result)
    assert "40.0 % neither, 10.0 % I alone, 10.0 % II alone, 10.0 % both" in reading_finding(result)
    assert "6.25 %" in reading_finding(result)


def test_the_tables_hold_every_cell_and_effect(make_effects: Make) -> None:
    section = effects_section(make_effects([("<x>", 5.0)]))
    cells = table_named(section, "Input by input, 8 words")
    assert column(cells, "input") == ["neither", "I alone", "II alone", "both"]
    assert column(cells, "moved") == [0, 0.4, 0.1, 0.5]
    assert column(cells, "at the end") == [0, 0.1, None, 0.125]
    assert column(cells, "place read") == [40, 10, 10, 10]
    effects = table_named(section, "Effects and interaction, 8 words")
    assert column(effects, "effect") == ["Effect I", "Effect II", "interaction"]
    effect, span = effects.rows[0][1:3]
    assert isinstance(span, Span)
    assert (effect, span.low, span.high) == pytest.approx((0.4, 0.38, 0.42))
    learned = table_named(section, "Effects and interaction, learned vectors")
    assert column(learned, "÷ mean") == [5, 5, 5]
    assert column(learned, "moves by") == [0.4, 0.1, 0]
    assert "Input by input, <x>" in titles(section)


def test_the_state_that_is_read_is_named(make_effects: Make) -> None:
    (note,) = blocks_of(effects_section(make_effects()), Note)
    assert "block 1 of 2, before the final norm" in note.text


def test_every_cell_but_the_ordinary_one_is_drawn_with_words_first(make_effects: Make) -> None:
    figure = effects_figure(make_effects([("<x>", 5.0)]))
    assert [list(trace.x) for trace in figure.data] == [[0.4], [0.1], [0.5]] * 2
    assert "&lt;x&gt;" in figure.data[3].hovertext[0]
    assert figure.data[0].marker.color != figure.data[3].marker.color


def test_without_positions_the_page_says_why_effect_one_is_missing(make_effects: Make) -> None:
    section = effects_section(make_effects(positions=False))
    assert "text_encoder has rotary positions." in effects_finding(make_effects(positions=False))
    assert column(table_named(section, "Effects and interaction"), "effect") == ["Effect II"]
    assert [len(figure.data) for figure in figures(section)] == [1]
