import dataclasses
import json
import re

import pytest
from plotly.offline import get_plotlyjs

from dti_geom.probes.measuring import Measurement
from dti_geom.reporting import Report, render_page
from dti_geom.reporting.plots import DARK
from dti_geom.reporting.sections.training import (
    course_figure,
    duration,
    pace_figure,
    strips,
    training_finding,
)
from runs import MEAN_NORM


@pytest.fixture(scope="module")
def pair(trained):
    """A run that keeps its norm, and one that grows out of the vocabulary."""
    return trained("dti"), trained("ti", norm=lambda step: 0.4 + 0.1 * step)


@pytest.fixture(scope="module")
def mini_norms(make_encoder):
    return Measurement("norms", "mini", (make_encoder(),), ())


def drawn(figure, axis):
    return [trace for trace in figure.data if trace.yaxis == axis]


def shapes(figure, axis):
    return [shape for shape in figure.layout.shapes if shape.yref.split()[0] == axis]


def test_each_row_holds_the_curves_of_all_runs(pair):
    figure = course_figure(pair)
    raw, median, *_ = drawn(figure, "y")
    assert (raw.y, median.y) == (pair[0].losses[0].losses, pair[0].losses[0].medians)
    assert raw.opacity < median.opacity
    assert [trace.y for trace in drawn(figure, "y2")] == [run.vectors[0].norms for run in pair]
    assert drawn(figure, "y3")[0].y[-1] == pytest.approx(22.918, rel=1e-4)  # 0.4 rad
    assert [trace.y for trace in drawn(figure, "y4")] == [
        run.vectors[0].cosines_to_prior for run in pair
    ]
    for axis in ("y", "y2", "y3", "y4"):
        assert [trace.name for trace in drawn(figure, axis) if trace.opacity == 1] == [
            "\u2068dti\u2069",
            "\u2068ti\u2069",
        ]
        assert len({trace.line.color for trace in drawn(figure, axis)}) == 2
        assert all(trace.x == pair[0].steps for trace in drawn(figure, axis))


def test_the_pace_holds_rate_gradient_and_milliseconds(pair):
    figure = pace_figure(pair)
    assert [trace.y for trace in drawn(figure, "y")] == [run.learning_rates for run in pair]
    assert [trace.y for trace in drawn(figure, "y2")] == [
        run.vectors[0].gradient_norms for run in pair
    ]
    assert drawn(figure, "y3")[1].y == tuple(1000 * each for each in pair[1].seconds)


def test_norms_lie_over_the_vocabulary_they_joined(pair, mini_norms):
    vocabulary = mini_norms.encoders[0].norms
    band, mean = shapes(course_figure(pair, mini_norms), "y2")
    assert (band.y0, band.y1, mean.y0) == (vocabulary.min, vocabulary.max, vocabulary.mean)


def test_of_another_models_vocabulary_only_the_mean_that_the_run_held_on_to_is_drawn(
    pair, mini_norms
):
    for norms in (None, dataclasses.replace(mini_norms, model="sd15")):
        (mean,) = shapes(course_figure(pair, norms), "y2")
        assert mean.y0 == pytest.approx(MEAN_NORM)


def test_a_norm_that_grows_manifold_gets_a_logarithmic_axis(pair):
    assert course_figure(pair).layout.yaxis2.type == "log"
    assert course_figure(pair[:1]).layout.yaxis2.type != "log"


def test_every_token_table_has_a_norm_row_of_its_own(trained):
    run = trained(tokens=("<a>", "<b>"), towers=("text_encoder", "text_encoder_2"), vectors=2)
    figure = course_figure([run])
    for axis, tower in (("y2", "text_encoder"), ("y3", "text_encoder_2")):
        assert tower in figure.layout[f"yaxis{axis[1:]}"].title.text
        expected = [one.norms for one in run.vectors if one.tower == tower]
        assert [trace.y for trace in drawn(figure, axis)] == expected
    assert len(drawn(figure, "y")) == 4  # a loss is a token's, whatever number of vectors it has
    assert len(drawn(figure, "y4")) == len(drawn(figure, "y5")) == 8
    looks = {(trace.name, trace.line.color, trace.line.dash) for trace in drawn(figure, "y4")}
    assert len(looks) == len({name for name, _, _ in looks}) == 8


def test_runs_of_one_method_are_told_apart_by_folder(trained):
    runs = [trained(), trained()]
    names = {trace.name for trace in course_figure(runs).data}
    assert len(names) == 2
    assert all(re.search(r"runs\d+/dti", name) for name in names)


@pytest.mark.parametrize("tokens", [1, 3])
def test_the_key_names_every_curve_on_rows_that_fit_a_telephone(trained, tokens):
    run = trained(
        tokens=[f"<token-{place}>" for place in range(tokens)],
        towers=("text_encoder", "text_encoder_2"),
    )
    figure = course_figure([run])
    key = [note for note in figure.layout.annotations if note.yref == "paper"]
    assert len(key) == 2 * tokens
    assert len({(note.xshift, note.yshift) for note in key}) == len(key)
    assert all(note.xshift + 6.8 * len(note.text) <= 311 for note in key)
    assert max(note.yshift for note in key) + 18 <= figure.layout.margin.t


def test_every_colour_has_a_dark_counterpart_and_every_text_is_harmless(report, hostile):
    for figure in (course_figure(report.training, report.norms), pace_figure(report.training)):
        text = json.dumps(figure.to_plotly_json(), ensure_ascii=False)
        assert set(re.findall(r'color": "(#[^"]*)"', text)) <= set(DARK)
        assert "<script" not in text
        assert "<img" not in text


def test_the_finding_is_computed_from_the_run(trained):
    noisy = trained(
        "ti",
        steps=100,
        norm=lambda step: 0.02 * step,
        loss=lambda step: 0.2 + step / 1e5 + 0.01 * (-1) ** step,
    )
    folder = f"{noisy.folder.split('/')[-2]}/ti"
    assert training_finding(noisy) == (
        f"“\u2068{folder}\u2069”, ti on “\u2068mini\u2069”: after 100 updates “\u2068<x>\u2069” has norm 2.000, "
        "×5.00 the mean token, and has turned 57.3° from its start. The loss does not move beyond its noise: "
        "0.2001 ± 0.0033 in the first tenth of the updates, 0.2010 ± 0.0033 in the last. An update takes "
        "110\u00a0ms (median), all of them 11.0\u00a0s."
    )


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (lambda step: 1 - 0.005 * step, "The loss falls from 0.9725 ± 0.0048 in the first tenth"),
        (lambda step: 1 + 0.005 * step, "to 1.4775 ± 0.0048 in the last"),
        (lambda step: 1 + 0.005 * step, "The loss rises from"),
        (lambda step: 1.0, "The loss does not move beyond its noise: 1.000 in the first"),
    ],
)
def test_the_finding_says_what_the_loss_did(trained, loss, sentence):
    assert sentence in training_finding(trained(steps=100, loss=loss))


def test_the_finding_on_several_vectors_names_the_longest_and_each_tokens_loss(trained):
    sentence = training_finding(trained(tokens=("<a>", "<b>"), vectors=2))
    assert (
        "the longest of 4 vectors, one of “\u2068<a>\u2069”, has norm 0.8000, ×2.00 the mean token"
        in sentence
    )
    assert "The loss of “\u2068<a>\u2069” falls" in sentence
    assert "The loss of “\u2068<b>\u2069” falls" in sentence


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0954, "95.4 ms"), (1.0, "1.00 s"), (119.0, "119 s"), (423.0, "7.05 min")],
)
def test_durations_have_three_digits_and_a_fitting_unit(seconds, text):
    assert duration(seconds) == text.replace(" ", "\u00a0")


def test_a_strip_has_a_row_for_each_seed_and_a_column_for_each_step(trained):
    run = trained(tokens=("<a>", "<b>"), prompts=("a {}", "{} there"))
    found = strips(run)
    assert [strip.prompt for strip in found] == ["a <a>", "<a> there", "a <b>", "<b> there"]
    for strip in found:
        assert strip.steps == (0, 20, 40)
        assert [seed for seed, _ in strip.rows] == [0, 1]
    shown = [one for strip in found for _, pictures in strip.rows for one in pictures]
    assert sorted(one.uri for one in shown) == sorted(one.uri for one in run.pictures)
    for strip in found:
        for seed, pictures in strip.rows:
            asked = [(one.preview.prompt, one.preview.seed, one.preview.step) for one in pictures]
            assert asked == [(strip.prompt, seed, step) for step in strip.steps]


def test_a_picture_that_is_gone_leaves_its_place_empty_and_is_counted(trained):
    run = trained()
    run = dataclasses.replace(run, pictures=run.pictures[:1] + run.pictures[2:])
    assert strips(run)[0].rows[1][1][0] is None
    assert "1 of 6 previews are no longer in the run’s folder." in render_page(
        Report("mini", training=(run,))
    )


def test_each_picture_is_in_the_page_once_and_says_what_it_shows(pair, parse):
    html = render_page(Report("mini", training=pair))
    assert html.replace(get_plotlyjs(), "").count('src="data:image/png;base64,') == 12
    texts = [attributes["alt"] for tag, attributes in parse(html).elements if tag == "img"]
    assert texts[:2] == [
        "a photo of a <x>, seed 0, after 0 updates",
        "a photo of a <x>, seed 0, after 20 updates",
    ]


def test_the_page_says_how_many_updates_of_a_long_run_are_drawn(trained):
    html = render_page(Report("mini", training=(trained(steps=1000),)))
    assert re.search(
        r"1,000 updates of <bdi>runs\d+/dti</bdi>, 400 evenly spread ones are drawn", html
    )
    assert "evenly spread" not in render_page(Report("mini", training=(trained(),)))


@pytest.mark.browser
@pytest.mark.parametrize("width", [375, 1280])
def test_previews_are_painted_and_scroll_within_the_page(open_page, report, width):
    page = open_page(width=width)
    images = page.locator("#training img")
    assert images.count() == sum(len(run.pictures) for run in report.training)
    assert images.evaluate_all("images => images.every(image => image.naturalWidth === 8)")
    assert images.first.evaluate("image => image.clientWidth") >= 96
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    strip = page.locator("#training .strip").first
    assert strip.evaluate("strip => getComputedStyle(strip).overflowX") == "auto"
    assert strip.get_attribute("tabindex") == "0"
