from dti_geom.probes import Swap
from dti_geom.reporting import Report, render_page, swap_figure, swap_finding, sweep_finding


def named(figure):
    return {trace.name: trace for trace in figure.data if trace.name}


def test_every_pair_is_a_point_of_each_output_for_either_donor(make_swap):
    drawn = named(swap_figure(make_swap()))
    assert list(drawn["like direction donor"].x) == [0.9] * 30
    assert list(drawn["like magnitude donor"].x) == [0.1] * 30
    assert "\u2068cat\u2069" in drawn["like direction donor"].hovertext[0]
    assert "norms 0.3000 and 0.4500" in drawn["like direction donor"].hovertext[0]


def test_outputs_have_lanes_of_their_own_and_learned_vectors_too(make_swap):
    figure = swap_figure(make_swap([("<x>", 4.0)]))
    heights = {round(y) for trace in figure.data if trace.yaxis == "y" for y in trace.y}
    assert heights == {0, 1, 2, 3, 4, 5}
    learned = [
        trace for trace in figure.data if trace.yaxis == "y" and trace.marker.color == "#D55E00"
    ]
    assert [list(trace.x) for trace in learned] == [[0.6] * 3]
    assert "&lt;x&gt;" in learned[0].hovertext[0]


def test_the_sweep_is_drawn_over_a_logarithmic_norm_with_learned_vectors_at_their_own(make_swap):
    figure = swap_figure(make_swap([("<x>", 64.0)]))
    drawn = named(figure)
    assert list(drawn["at the token"].x) == [0.25, 1.0, 32.0]
    assert list(drawn["at the token"].y) == [0.9925, 1.0, 0.69]
    assert (list(drawn["learned"].x), [round(y, 2) for y in drawn["learned"].y]) == ([64.0], [0.37])
    assert figure.layout.xaxis2.type == "log"
    assert 10 ** figure.layout.xaxis2.range[1] > 64


def test_the_finding_gives_both_similarities_the_interval_and_the_ratio(make_swap):
    assert swap_finding(make_swap()) == (
        "At the token, 9 of 10 swapped pairs resemble the word whose direction they took (95 % interval 59.6 to "
        "98.2 %), by 0.900 against 0.100; their norms differ ×1.50. Where they differ ×24.0, 9 of 10 do, by 0.900 "
        "against 0.100."
    )
    assert swap_finding(make_swap([("<x>", 4.0)], words=False)).startswith(
        "1 pairs of a learned vector"
    )


def test_the_sweep_finding_says_where_an_output_leaves_itself(make_swap):
    assert sweep_finding(make_swap().sweeps[0]) == (
        "As the norm of 16 words grows to ×32 the mean, their similarity to themselves falls to 0.690 at the token, "
        "0.690 at the end; below one half it is nowhere."
    )
    assert sweep_finding(make_swap(leaves=8.0).sweeps[0]).endswith(
        "below one half it is from ×8 at the token."
    )


def test_words_that_were_left_out_stand_on_the_page(make_swap):
    assert "Left out, not one token here: <bdi>sea lion</bdi>." in render_page(
        Report("mini", swap=Swap("mini", (make_swap(),)))
    )


def test_the_result_draws_itself(make_swap):
    encoder = make_swap()
    assert encoder.figure() == swap_figure(encoder)
