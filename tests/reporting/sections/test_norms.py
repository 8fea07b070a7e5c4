import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dti_geom.probes.norms import NormsResult, PlacedToken, RowGroup, TokenNorm
from dti_geom.reporting.sections.norms import norm_figure, norm_finding, norms_section
from section_blocks import column, findings, table_named, titles


def learned_points(figure: Any) -> Any:
    return [value for trace in figure.data if trace.marker.color == "#D55E00" for value in trace.x]


def test_bars_are_the_bins_of_the_histogram(make_encoder: Callable[..., NormsResult]) -> None:
    encoder = make_encoder()
    bars = norm_figure(encoder).data[0]
    assert tuple(bars.y) == encoder.histogram.counts
    for centre, width, low, high in zip(
        bars.x, bars.width, encoder.histogram.edges, encoder.histogram.edges[1:], strict=False
    ):
        assert math.isclose(centre - width / 2, low)
        assert math.isclose(centre + width / 2, high)


def test_hovering_a_bar_names_its_range_count_and_tokens(
    make_encoder: Callable[..., NormsResult],
) -> None:
    texts = norm_figure(make_encoder()).data[0].hovertext
    assert texts[1] == "norm 0.3500 to 0.3600<br>20 tokens<br>\u2068word1\u2069, \u2068café\u2069"
    assert texts[0].startswith("norm up to 0.3500<br>4 tokens")
    assert texts[-1].startswith("norm from 0.4300<br>16 tokens")


def test_learned_tokens_are_marked_at_their_true_norm(
    make_encoder: Callable[..., NormsResult], placed: Callable[..., PlacedToken]
) -> None:
    figure = norm_figure(
        make_encoder([placed("<x>", 0.42), placed("<x>", 0.44, index=1), placed("<y>", 4.1)])
    )
    assert sorted(learned_points(figure)) == [0.42, 0.44, 4.1]
    labels = [annotation.text for annotation in figure.layout.annotations]
    assert "\u2068&lt;x&gt;\u2069 ×1.08 to ×1.13, 2 vectors" in labels
    assert "\u2068&lt;y&gt;\u2069 ×10.5" in labels
    hover = next(trace.hovertext[0] for trace in figure.data if 4.1 in trace.x)
    for part in ("&lt;y&gt;", "norm 4.100", "×10.5 the mean", "z-score 185.5", "percentile 99.5 %"):
        assert part in hover


def test_most_of_the_vocabulary_is_a_bar_above_the_marked_tokens(
    make_encoder: Callable[..., NormsResult], placed: Callable[..., PlacedToken]
) -> None:
    drawn = [
        (trace.mode, list(trace.x))
        for trace in norm_figure(make_encoder([placed("<x>", 0.42)])).data[1:]
    ]
    assert drawn == [
        ("lines", [0.345, 0.435]),
        ("markers", [0.45, 0.44, 0.335, 0.34]),
        ("markers", [0.42]),
    ]


def test_tokens_of_different_folders_have_lanes_of_their_own(
    make_encoder: Callable[..., NormsResult], placed: Callable[..., PlacedToken]
) -> None:
    figure = norm_figure(make_encoder([placed("*", 0.42, "a/x.pt"), placed("*", 0.44, "b/x.pt")]))
    assert [list(trace.x) for trace in figure.data if trace.marker.color == "#D55E00"] == [
        [0.44],
        [0.42],
    ]


def test_a_near_token_shares_the_axis_of_the_histogram(
    make_encoder: Callable[..., NormsResult], placed: Callable[..., PlacedToken]
) -> None:
    figure = norm_figure(make_encoder([placed("<x>", 0.46)]))
    assert figure.layout.xaxis2.matches == "x"
    assert figure.layout.xaxis.range[0] < 0.335
    assert figure.layout.xaxis.range[1] > 0.46


def test_a_far_token_gets_a_logarithmic_axis_and_leaves_the_histogram_its_own(
    make_encoder: Callable[..., NormsResult], placed: Callable[..., PlacedToken]
) -> None:
    figure = norm_figure(make_encoder([placed("<x>", 4.1)]))
    assert figure.layout.xaxis2.type == "log"
    assert figure.layout.xaxis2.range[1] > math.log10(4.1)
    assert figure.layout.xaxis.range is None


def test_zero_rows_and_zero_vectors_are_kept_off_the_plot(
    make_encoder: Callable[..., NormsResult], placed: Callable[..., PlacedToken]
) -> None:
    special = (TokenNorm("<pad>", 0, 0.0), TokenNorm("<s>", 1, 0.66))
    figure = norm_figure(make_encoder([placed("<x>", 0.0), placed("<y>", 40.0)], special))
    assert all(value > 0 for trace in figure.data for value in trace.x)
    diamonds = [trace for trace in figure.data[1:] if trace.marker.symbol == "diamond"]
    assert [list(trace.x) for trace in diamonds] == [[0.66]]


def test_finding_places_the_longest_learned_vector(
    make_encoder: Callable[..., NormsResult], placed: Callable[..., PlacedToken]
) -> None:
    finding = norm_finding(make_encoder([placed("<x>", 0.42), placed("<y>", 4.1)]))
    assert finding.startswith("1 of 2 learned vectors are longer than every token")
    for part in ("<y>", "norm 4.100", "×10.5 the mean of 0.3900", "99.5 %", "1,000 tokens"):
        assert part in finding
    assert norm_finding(make_encoder([placed("<y>", 4.1)])).startswith(
        "The learned vector “\u2068<y>\u2069” has norm 4.100"
    )


def test_finding_without_learned_vectors_describes_the_vocabulary(
    make_encoder: Callable[..., NormsResult],
) -> None:
    finding = norm_finding(make_encoder())
    for part in ("Half of the 1,000 tokens", "0.3750 and 0.4050", "0.3900", "long…", "×1.15"):
        assert part in finding
    assert finding.endswith("“\u2068short\u2069”, ×0.859.")


def test_the_section_holds_the_summary_and_every_marked_token(
    make_encoder: Callable[..., NormsResult], placed: Callable[..., PlacedToken]
) -> None:
    special = (TokenNorm("<s>", 1, 0.78),)
    section = norms_section(make_encoder([placed("<x>", 4.1, "runs/a.bin")], special))
    assert section.aside == "1,003 tokens × 768 dimensions"
    assert table_named(section, "Norms").rows == [[1000, 3, 0.39, 0.02, 0.335, 0.45]]
    percentiles = table_named(section, "Percentiles")
    assert column(percentiles, "median") == [0.391]
    assert column(percentiles, "99 %") == [0.435]
    (learned,) = table_named(section, "Learned vectors").rows
    assert learned[:3] == ["<x>", 0, 4.1]
    assert learned[-1] == "runs/a.bin"
    assert table_named(section, "Longest").rows[0] == ["long…", 7, 0.45, 0.45 / 0.39]
    assert column(table_named(section, "Shortest"), "token") == ["short", "shorter…"]
    assert column(table_named(section, "Special"), "÷ mean") == [0.78 / 0.39]
    assert findings(section)[0].startswith("The learned vector")


def test_tables_of_what_there_is_not_are_left_out(make_encoder: Callable[..., NormsResult]) -> None:
    assert not {"Learned vectors", "Special tokens"} & {*titles(norms_section(make_encoder()))}


def test_kinds_of_rows_are_compared_with_the_mean_of_all(
    make_encoder: Callable[..., NormsResult],
) -> None:
    whole = make_encoder()
    short = replace(whole.norms, count=40, mean=0.195)
    groups = (
        RowGroup("words", "all other tokens", 960, whole.norms, ("cat",)),
        RowGroup("reserved", "its name", 40, short, ("<unused1>",)),
        RowGroup("beyond the tokenizer", "no token", 3, None, ()),
    )
    result = replace(whole, groups=groups, trained=whole.norms)
    shown = table_named(norms_section(result), "Kinds of rows")
    assert column(shown, "÷ mean of all") == pytest.approx([1.0, 0.5, None, 1.0])
    assert column(shown, "rows")[-1] == "together, trained"
    assert "Kinds of rows" not in titles(norms_section(whole))
