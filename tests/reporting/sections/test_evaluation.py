from dataclasses import replace

from dti_geom.evaluation.reference import compare
from dti_geom.reporting import Report, render_page
from dti_geom.reporting.sections.evaluation import (
    comparison_figure,
    comparison_finding,
    evaluation_finding,
    interval_text,
    prompt_rows,
    score,
    tradeoff_figure,
)


def named(figure):
    return {trace.name: trace for trace in figure.data if trace.name}


def test_every_method_has_its_mean_with_intervals_and_a_point_for_each_subject_and_prompt(
    make_evaluation,
):
    evaluation = make_evaluation()
    drawn = named(tradeoff_figure(evaluation))
    assert list(drawn) == ["\u2068dti\u2069", "\u2068ti\u2069"]
    mean, overall = drawn["\u2068ti\u2069"], evaluation.summaries[1]
    assert (mean.x[0], mean.y[0]) == (overall.text.mean, overall.subject.mean)
    assert mean.y[0] + mean.error_y.array[0] == overall.subject.high
    assert mean.x[0] - mean.error_x.arrayminus[0] == overall.text.low
    faint = [trace for trace in tradeoff_figure(evaluation).data if not trace.showlegend]
    assert [len(trace.x) for trace in faint] == [4, 4]


def test_a_point_names_the_picture_it_shows(make_evaluation):
    evaluation = make_evaluation()
    first, second = (trace for trace in tradeoff_figure(evaluation).data if not trace.showlegend)
    for trace, place in ((first, 0), (second, 1)):
        assert list(trace.customdata) == [None, None, place, None]
        kept = evaluation.pictures[place]
        assert kept.method in trace.hovertext[2]
        assert kept.subject in trace.hovertext[2]


def test_methods_are_named_in_a_key(make_evaluation):
    texts = {
        annotation.text for annotation in tradeoff_figure(make_evaluation()).layout.annotations
    }
    assert {"◆ \u2068dti\u2069", "◆ \u2068ti\u2069"} <= texts
    texts = {annotation.text for annotation in comparison_figure(compare([])).layout.annotations}
    assert {"◆ ti", "◆ dti", "◆ crossinit", "◆ ti-rescaled"} == texts


def test_the_finding_says_by_how_much_and_whether_the_interval_holds_0(make_evaluation):
    assert evaluation_finding(make_evaluation()) == (
        "Over 8 pairs of pictures of the same subject, prompt and seed, dti less ti is +0.100 (95 % interval 0.100 to "
        "0.100) in subject and +0.100 (95 % interval 0.100 to 0.100) in text."
    )
    alone = evaluation_finding(make_evaluation(("dti",)))
    assert alone.startswith("dti scores 0.650 (95 % interval 0.")
    assert alone.endswith("in text, over 8 pictures.")


def test_the_page_names_what_was_left_out_and_the_scorers_accuracy(report, html):
    body = html.split('<section id="evaluation"')[1].split("</section>")[0]
    assert "Left out, not counted" in body
    assert "99.88 %" in body
    assert f"{len(report.evaluation.images)} pictures" in body


def test_one_subject_is_said_to_have_intervals_over_its_seeds_alone(make_evaluation):
    evaluation = make_evaluation()
    one = replace(
        evaluation, images=tuple(each for each in evaluation.images if each.subject == "fox")
    )
    assert "over the seeds of the one subject" in render_page(Report("mini", evaluation=one))
    assert "over subjects and seeds" in render_page(Report("mini", evaluation=evaluation))


def test_prompts_are_rows_with_the_scores_of_all_methods(make_evaluation):
    (first, scores), _ = prompt_rows(make_evaluation())
    assert first.prompt == "a {} in mini"
    assert list(scores) == ["dti", "ti"]
    assert scores["dti"].subject - scores["ti"].subject > 0.09


def test_the_comparison_draws_published_rows_as_rings_and_ours_as_diamonds(make_evaluation):
    comparison = compare([make_evaluation(("dti", "mine"), "sdxl")])
    drawn = named(comparison_figure(comparison))
    assert list(drawn["crossinit"].x) == [0.464, 0.656, 0.589]
    assert drawn["crossinit"].marker.symbol == "circle-open"
    assert drawn["\u2068dti on sdxl\u2069"].marker.symbol == "diamond"
    assert "\u2068mine on sdxl\u2069" in drawn
    assert comparison_finding(comparison) == (
        "2 of 24 published rows have a run of yours beside them; 1 of your methods have no published row."
    )


def test_a_row_without_a_run_says_so_on_the_page(make_evaluation):
    body = render_page(Report("sdxl", comparison=compare([make_evaluation(("dti",), "sdxl")])))
    assert body.count("not run") == 2 * 22
    assert body.count("The paper&#39;s main table") == 1


def test_what_is_unknown_is_a_dash(make_evaluation):
    assert (score(None), score(-0.12345), interval_text(None)) == ("–", "−0.123", "–")
