import math

from dti_geom.probes import TokenNorm
from dti_geom.reporting import norm_figure, norm_finding


def learned_points(figure):
    return [value for trace in figure.data if trace.marker.color == "#D55E00" for value in trace.x]


def test_bars_are_the_bins_of_the_histogram(make_encoder):
    encoder = make_encoder()
    bars = norm_figure(encoder).data[0]
    assert tuple(bars.y) == encoder.histogram.counts
    for centre, width, low, high in zip(
        bars.x, bars.width, encoder.histogram.edges, encoder.histogram.edges[1:], strict=False
    ):
        assert math.isclose(centre - width / 2, low)
        assert math.isclose(centre + width / 2, high)


def test_hovering_a_bar_names_its_range_count_and_tokens(make_encoder):
    texts = norm_figure(make_encoder()).data[0].hovertext
    assert texts[1] == "norm 0.3500 to 0.3600<br>20 tokens<br>\u2068word1\u2069, \u2068café\u2069"
    assert texts[0].startswith("norm up to 0.3500<br>4 tokens")
    assert texts[-1].startswith("norm from 0.4300<br>16 tokens")


def test_learned_tokens_are_marked_at_their_true_norm(make_encoder, placed):
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


def test_most_of_the_vocabulary_is_a_bar_above_the_marked_tokens(make_encoder, placed):
    drawn = [
        (trace.mode, list(trace.x))
        for trace in norm_figure(make_encoder([placed("<x>", 0.42)])).data[1:]
    ]
    assert drawn == [
        ("lines", [0.345, 0.435]),
        ("markers", [0.45, 0.44, 0.335, 0.34]),
        ("markers", [0.42]),
    ]


def test_tokens_of_different_folders_have_lanes_of_their_own(make_encoder, placed):
    figure = norm_figure(make_encoder([placed("*", 0.42, "a/x.pt"), placed("*", 0.44, "b/x.pt")]))
    assert [list(trace.x) for trace in figure.data if trace.marker.color == "#D55E00"] == [
        [0.44],
        [0.42],
    ]


def test_a_near_token_shares_the_axis_of_the_histogram(make_encoder, placed):
    figure = norm_figure(make_encoder([placed("<x>", 0.46)]))
    assert figure.layout.xaxis2.matches == "x"
    assert figure.layout.xaxis.range[0] < 0.335
    assert figure.layout.xaxis.range[1] > 0.46


def test_a_far_token_gets_a_logarithmic_axis_and_leaves_the_histogram_its_own(make_encoder, placed):
    figure = norm_figure(make_encoder([placed("<x>", 4.1)]))
    assert figure.layout.xaxis2.type == "log"
    assert figure.layout.xaxis2.range[1] > math.log10(4.1)
    assert figure.layout.xaxis.range is None


def test_zero_rows_and_zero_vectors_are_kept_off_the_plot(make_encoder, placed):
    special = (TokenNorm("<pad>", 0, 0.0), TokenNorm("<s>", 1, 0.66))
    figure = norm_figure(make_encoder([placed("<x>", 0.0), placed("<y>", 40.0)], special))
    assert all(value > 0 for trace in figure.data for value in trace.x)
    assert [list(trace.x) for trace in figure.data if trace.marker.color == "#009E73"] == [[0.66]]


def test_finding_places_the_longest_learned_vector(make_encoder, placed):
    assert norm_finding(make_encoder([placed("<x>", 0.42), placed("<y>", 4.1)])) == (
        "1 of 2 learned vectors are longer than every token; the longest, “\u2068<y>\u2069” has norm 4.100, ×10.5 the "
        "mean of 0.3900: at least as long as 99.5 % of the 1,000 tokens."
    )
    assert norm_finding(make_encoder([placed("<y>", 4.1)])).startswith(
        "The learned vector “\u2068<y>\u2069” has norm 4.100"
    )


def test_finding_without_learned_vectors_describes_the_vocabulary(make_encoder):
    assert norm_finding(make_encoder()) == (
        "Half of the 1,000 tokens have norms between 0.3750 and 0.4050, around a mean of 0.3900; the longest, "
        "“\u2068long…\u2069”, is ×1.15 the mean, the shortest, “\u2068short\u2069”, ×0.859."
    )
