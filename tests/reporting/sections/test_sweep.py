from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from dti_geom.evaluation.evaluation import paired_differences, summarize
from dti_geom.evaluation.scores import ImageScore
from dti_geom.reporting import Report, render_page
from dti_geom.reporting.sections.sweep import (
    by_group,
    is_clear,
    mean_inflation,
    methods_finding,
    missing,
    norm_score_finding,
    norm_scores_figure,
    rank_correlation,
    scores_figure,
)
from dti_geom.sweeps import CellState, Cost, Course, LearnedNorm, MethodCost, Sweep

SUBJECTS = ("dog", "cat", "fox", "owl")


def scores(method, better):
    """Two groups of prompts and two seeds for each subject; subjects differ, `better` is added to the text score."""
    return [
        ImageScore(method, subject, "", f"a {{}} {group}", group, seed, f"{subject}{group}{seed}.png",
                   0.5 + 0.05 * number, 0.5 + 0.1 * number + 0.01 * seed + better)
        for number, subject in enumerate(SUBJECTS)
        for group in ("colour", "count")
        for seed in (0, 1)
    ]  # fmt: skip


@pytest.fixture
def sweep():
    images = [*scores("dti", 0.05), *scores("ti", 0.0), *scores("<b>&", -0.2)]
    courses = [
        Course(
            label,
            subject,
            0,
            step,
            inflation * (1 + 0.1 * number),
            0.5,
            0.9 - 0.02 * inflation - 0.01 * number,
        )
        for label, inflation in (("dti", 1.0), ("ti", 8.0), ("<b>&", 16.0))
        for number, subject in enumerate(SUBJECTS)
        for step in (100, 400)
    ]
    return Sweep(
        name="tiny",
        model="mini",
        cells=(
            CellState("dti", SUBJECTS, 0, "k0", "r0", "done", None, Cost(80.0, 20.0, 1)),
            CellState("ti", SUBJECTS, 0, "k1", "r1", "failed", "ValueError: no", None),
        ),
        prompts="mine",
        image_encoder="dinov2",
        text_encoder="siglip",
        text_unit="probability",
        summaries=tuple(summarize(images)),
        differences=tuple(paired_differences(images)),
        norms=(
            LearnedNorm("ti", "dog", 0, "text_encoder", 8.0, 0.3),
            LearnedNorm("ti", "cat", 0, "text_encoder", 6.0, 0.3),
        ),
        courses=tuple(courses),
        costs=(MethodCost("dti", 20.0, 5.0),),
        accuracy=(),
    )


def test_every_method_has_a_mean_with_its_interval_in_both_scores(sweep):
    figure = scores_figure(sweep)
    overall = [one for one in sweep.summaries if one.group == "all"]
    assert len(figure.data) == 2 * len(overall)
    for trace, one in zip(
        figure.data, [one.subject for one in overall] + [one.text for one in overall], strict=True
    ):
        assert trace.x == (one.mean,)
        assert trace.x[0] + trace.error_x.array[0] == pytest.approx(one.high)
        assert trace.x[0] - trace.error_x.arrayminus[0] == pytest.approx(one.low)


def test_the_finding_names_who_leads_and_counts_differences_that_are_clear(sweep):
    finding = methods_finding(sweep)
    assert "dti follows prompts best, 0.705" in finding
    assert "of 3 pairs of methods, 0 differ in subject and 3 in text" in finding
    tied = replace(sweep, differences=())
    assert methods_finding(tied).endswith(").")


def test_a_difference_is_clear_when_its_interval_leaves_0_out(sweep):
    text = sweep.differences[0].text
    assert is_clear(replace(text, low=0.1, high=0.2))
    assert is_clear(replace(text, low=-0.2, high=-0.1))
    assert not is_clear(replace(text, low=-0.1, high=0.1))
    assert not is_clear(replace(text, low=None, high=None))


def test_norm_and_score_are_correlated_by_rank_over_all_tokens(sweep):
    found = rank_correlation(sweep.courses)
    held = [(one.inflation, one.text_score) for one in sweep.courses]
    assert found.mean == pytest.approx(spearmanr(held).statistic, abs=1e-6)
    assert found.low <= found.mean <= found.high
    assert f"{abs(found.mean):.3f}" in norm_score_finding(sweep)


def test_the_interval_of_a_correlation_of_noise_holds_0():
    rng = np.random.default_rng(1)
    courses = [
        Course("x", f"subject {number % 12}", 0, 400, 1 + rng.random(), 0.5, rng.random())
        for number in range(120)
    ]
    found = rank_correlation(courses)
    assert found.low < 0 < found.high
    assert found.high - found.low < 0.8


def test_without_a_spread_of_norms_there_is_no_correlation(sweep):
    fixed = tuple(
        replace(one, inflation=1.0 + 1e-8 * place) for place, one in enumerate(sweep.courses)
    )
    assert rank_correlation(fixed) is None
    assert norm_score_finding(replace(sweep, courses=fixed)).startswith(
        "All learned tokens have the same norm"
    )


def test_methods_are_named_in_a_key(sweep):
    texts = {annotation.text for annotation in norm_scores_figure(sweep).layout.annotations}
    assert texts == {"● \u2068dti\u2069", "● \u2068ti\u2069", "● \u2068&lt;b&gt;&amp;\u2069"}


def test_checkpoints_are_fainter_than_the_end(sweep):
    trace = norm_scores_figure(sweep).data[1]
    opacities = dict(
        zip(
            [one.step for one in sweep.courses if one.label == "ti"],
            trace.marker.opacity,
            strict=True,
        )
    )
    assert opacities[100] < opacities[400]


def test_tables_take_groups_apart_and_average_norms(sweep):
    groups, rows = by_group(sweep)
    assert groups == ["colour", "count"]
    assert [method for method, _ in rows] == ["dti", "ti", "<b>&"]
    assert mean_inflation(sweep) == {"ti": 7.0}


def test_what_is_missing_is_said(sweep):
    assert missing(sweep) == "1 of 2 cells are not in these figures: 1 failed."
    assert missing(replace(sweep, cells=sweep.cells[:1])) == ""


def test_the_page_has_the_section_and_labels_are_text(sweep):
    html = render_page(Report("mini", sweep=sweep))
    body = html.split('<section id="sweep"')[1].split("</section>")[0]
    assert "1 of 2 cells are not in these figures" in body
    assert '<td class="t">&lt;b&gt;&amp;</td>' in body
    assert "<b>&" not in body
    assert "differs" in body
