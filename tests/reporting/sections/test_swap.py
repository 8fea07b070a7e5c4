import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from dti_geom.probes.swap import SwapResult
from dti_geom.reporting.blocks import Note, Span
from dti_geom.reporting.sections.swap import (
    magnitude_finding,
    swap_figure,
    swap_finding,
    swap_section,
)
from section_blocks import blocks_of, column, table_named, titles


def named(figure: Any) -> Any:
    return {trace.name: trace for trace in figure.data if trace.name}


def test_every_pair_is_a_point_of_each_output_for_either_donor(
    make_swap: Callable[..., SwapResult],
) -> None:
    drawn = named(swap_figure(make_swap()))
    assert list(drawn["like direction donor"].x) == [0.9] * 30
    assert list(drawn["like magnitude donor"].x) == [0.1] * 30
    assert "\u2068cat\u2069" in drawn["like direction donor"].hovertext[0]
    assert "norms 0.3000 and 0.4500" in drawn["like direction donor"].hovertext[0]


def test_outputs_have_lanes_of_their_own_and_learned_vectors_too(
    make_swap: Callable[..., SwapResult],
) -> None:
    figure = swap_figure(make_swap([("<x>", 4.0)]))
    heights = {round(y) for trace in figure.data if trace.yaxis == "y" for y in trace.y}
    assert heights == {0, 1, 2, 3, 4, 5}
    learned = [
        trace for trace in figure.data if trace.yaxis == "y" and trace.marker.color == "#D55E00"
    ]
    assert [list(trace.x) for trace in learned] == [[0.6] * 3]
    assert "&lt;x&gt;" in learned[0].hovertext[0]


def test_the_curves_are_drawn_over_a_logarithmic_norm_with_learned_vectors_at_their_own(
    make_swap: Callable[..., SwapResult],
) -> None:
    figure = swap_figure(make_swap([("<x>", 64.0)]))
    drawn = named(figure)
    assert list(drawn["at the token"].x) == [0.25, 1.0, 32.0]
    assert list(drawn["at the token"].y) == [0.9925, 1.0, 0.69]
    assert (list(drawn["learned"].x), [round(y, 2) for y in drawn["learned"].y]) == ([64.0], [0.37])
    assert figure.layout.xaxis2.type == "log"
    assert 10 ** figure.layout.xaxis2.range[1] > 64


def test_the_finding_gives_both_similarities_the_interval_and_the_ratio(
    make_swap: Callable[..., SwapResult],
) -> None:
    finding = swap_finding(make_swap())
    for part in (
        "9 of 10 swapped pairs",
        "95 % interval 59.6 to 98.2 %",
        "0.900 against 0.100",
        "×1.50",
        "×24.0, 9 of 10",
    ):
        assert part in finding
    assert swap_finding(make_swap([("<x>", 4.0)], words=False)).startswith(
        "1 pairs of a learned vector"
    )


def test_the_magnitude_finding_says_where_an_output_falls_below_one_half(
    make_swap: Callable[..., SwapResult],
) -> None:
    finding = magnitude_finding(make_swap().curves[0])
    for part in ("×32 the mean norm", "16 words", "0.690 at the token, 0.690 at the end"):
        assert part in finding
    assert finding.endswith("stays above half.")
    changed = magnitude_finding(make_swap(leaves=8.0).curves[0])
    assert changed.endswith("falls below one half from ×8 at the token.")


def test_words_that_were_left_out_are_named(make_swap: Callable[..., SwapResult]) -> None:
    assert "“\u2068sea lion\u2069”" in blocks_of(swap_section(make_swap()), Note)[0].text


def test_the_tables_hold_sums_pairs_and_curves(make_swap: Callable[..., SwapResult]) -> None:
    section = swap_section(make_swap([("<x>", 4.0)]))
    sums = table_named(section, "Pairs of words")
    assert sums.rows[0][:8] == ["token", 1.0, 1.5, 0.9, 0.1, 0.05, 9, 10]
    interval = sums.rows[0][8]
    assert isinstance(interval, Span)
    assert interval.low == pytest.approx(59.6, abs=0.05)
    assert interval.high == pytest.approx(98.2, abs=0.05)
    assert column(sums, "stretch") == [1.0] * 3 + [16.0] * 3
    pairs = table_named(section, "Learned vectors and words")
    assert pairs.rows == [["<x>", 4 * 0.39, "dog", 0.45, 0.6, 0.1, 0.05]]
    words = table_named(section, "Similarity to itself at the mean norm, 16 words")
    assert [tuple(row) for row in words.rows] == [
        (0.25, 0.9925, 0.9925),
        (1.0, 1.0, 1.0),
        (32.0, 0.69, 0.69),
    ]
    learned = table_named(section, "Similarity to itself at the mean norm, learned")
    assert learned.rows == [["<x>", 4.0, 0.97, 0.97]]


def test_without_learned_vectors_or_words_their_tables_are_left_out(
    make_swap: Callable[..., SwapResult],
) -> None:
    assert len(titles(swap_section(make_swap()))) == 2
    unpaired = swap_section(make_swap([("<x>", 4.0)], words=False))
    assert not [title for title in titles(unpaired) if title.startswith("Pairs of words")]
    nothing_left_out = dataclasses.replace(make_swap(), left_out=())
    assert "Left out" not in blocks_of(swap_section(nothing_left_out), Note)[0].text
