import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from dti_geom.evaluation.evaluation import paired_differences, summarize
from dti_geom.evaluation.scores import ImageScore
from dti_geom.mini.ceilings import Ceiling, ConceptCeiling, Likeness
from dti_geom.reporting.blocks import Finding, Note, Section, Span, Table
from dti_geom.reporting.sections.sweep import (
    by_group,
    cells_section,
    is_clear,
    mean_inflation,
    methods_finding,
    missing,
    norm_score_finding,
    norm_scores_figure,
    norm_text_correlation,
    scores_figure,
    sweep_section,
)
from dti_geom.statistics import Share
from dti_geom.sweeps.cells import Cost
from dti_geom.sweeps.estimates import Estimate
from dti_geom.sweeps.sweep import (
    CellState,
    Course,
    LearnedNorm,
    MethodCost,
    Sweep,
    _difference_without_few,
    _without_few,
)

SUBJECTS = ("dog", "cat", "fox", "owl", "bee")


def scores(method: str, better: float) -> list[ImageScore]:
    """Two groups of prompts and two seeds for each subject.

    Subjects differ; `better` is added to the text score.
    """
    places = itertools.product(enumerate(SUBJECTS), ("colour", "count"), (0, 1))
    return [
        ImageScore(
            method=method,
            subject=subject,
            run="",
            prompt=f"a {{}} {group}",
            group=group,
            seed=seed,
            file=f"{subject}{group}{seed}.png",
            subject_score=0.5 + 0.05 * number,
            text_score=0.5 + 0.1 * number + 0.01 * seed + better,
        )
        for (number, subject), group, seed in places
    ]


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    images = [*scores("dti", 0.05), *scores("ti", 0.0), *scores("<b>&", -0.2)]
    methods = (("dti", 1.0), ("ti", 8.0), ("<b>&", 16.0))
    places = itertools.product(methods, enumerate(SUBJECTS), (100, 400))
    courses = [
        Course(
            label=label,
            subject=subject,
            seed=0,
            step=step,
            inflation=inflation * (1 + 0.1 * number),
            subject_score=0.5,
            text_score=0.9 - 0.02 * inflation - 0.01 * number,
        )
        for (label, inflation), (number, subject), step in places
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


def test_every_method_has_a_mean_with_its_interval_in_both_scores(sweep: Sweep) -> None:
    figure = scores_figure(sweep)
    overall = [summary for summary in sweep.summaries if summary.group == "all"]
    assert len(figure.data) == 2 * len(overall)
    intervals = [summary.subject for summary in overall]
    intervals += [summary.text for summary in overall]
    for trace, interval in zip(figure.data, intervals, strict=True):
        assert trace.x == (interval.mean,)
        assert trace.x[0] + trace.error_x.array[0] == pytest.approx(interval.high)
        assert trace.x[0] - trace.error_x.arrayminus[0] == pytest.approx(interval.low)


def test_the_finding_names_who_leads_and_counts_differences_that_are_clear(sweep: Sweep) -> None:
    finding = methods_finding(sweep)
    assert "dti follows prompts best, 0.755" in finding
    assert "of 3 pairs of methods, 0 differ in subject and 3 in text" in finding
    assert "correction for 6 tests" in finding
    tied = replace(sweep, differences=())
    assert methods_finding(tied).endswith(").")


def few(sweep: Sweep, count: int) -> Sweep:
    """The sweep over its first subjects alone, as `collect` returns it."""
    images: list[ImageScore] = []
    for method, better in (("dti", 0.05), ("ti", 0.0)):
        images += [score for score in scores(method, better) if score.subject in SUBJECTS[:count]]
    courses = [course for course in sweep.courses if course.subject in SUBJECTS[:count]]
    return replace(
        sweep,
        summaries=tuple(map(_without_few, summarize(images))),
        differences=tuple(map(_difference_without_few, paired_differences(images))),
        courses=tuple(courses),
    )


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_few_subjects_have_points_and_neither_intervals_nor_verdicts(
    sweep: Sweep, count: int
) -> None:
    section = sweep_section(few(sweep, count))
    for name in ("Scores over all", "Text score by", "Paired differences"):
        spans = [cell for row in table(section, name).rows for cell in row if type(cell) is Span]
        assert spans
        assert set(spans) == {Span(None, None)}
    assert table(section, "Paired differences").columns[-1].title == "95 %"
    (warning,) = [block.text for block in blocks(section, Note) if "too few" in block.text]
    assert warning.startswith(f"Subjects: {count}.")
    (part,) = blocks(section, Section)
    for finding in (*blocks(section, Finding), *blocks(part, Finding)):
        assert "differ" not in finding.text
        assert "interval" not in finding.text
        assert "–" not in finding.text


def test_five_subjects_have_intervals_and_verdicts(sweep: Sweep) -> None:
    section = sweep_section(few(sweep, 5))
    assert table(section, "Paired differences").rows[0][-1] == "text"
    assert not any("too few" in block.text for block in blocks(section, Note))
    correlation = norm_text_correlation(sweep.courses)
    assert correlation is not None
    assert correlation.low is not None


def test_a_difference_is_clear_by_its_corrected_p_value() -> None:
    assert is_clear(0.04)
    assert not is_clear(0.06)
    assert not is_clear(None)


def test_norm_and_score_are_correlated_by_rank_over_all_tokens(sweep: Sweep) -> None:
    correlation = norm_text_correlation(sweep.courses)
    values = [(course.inflation, course.text_score) for course in sweep.courses]
    assert correlation is not None
    assert correlation.mean == pytest.approx(spearmanr(values).statistic, abs=1e-6)
    assert correlation.low is not None
    assert correlation.high is not None
    assert correlation.low <= correlation.mean <= correlation.high
    assert f"{abs(correlation.mean):.3f}" in norm_score_finding(sweep)


def test_the_interval_of_a_correlation_of_noise_contains_0() -> None:
    rng = np.random.default_rng(1)
    courses = [
        Course("x", f"subject {number % 12}", 0, 400, 1 + rng.random(), 0.5, rng.random())
        for number in range(120)
    ]
    correlation = norm_text_correlation(courses)
    assert correlation is not None
    assert correlation.low is not None
    assert correlation.high is not None
    assert correlation.low < 0 < correlation.high
    assert correlation.high - correlation.low < 0.8


def test_without_a_spread_of_norms_there_is_no_correlation(sweep: Sweep) -> None:
    fixed = tuple(
        replace(course, inflation=1.0 + 1e-8 * place) for place, course in enumerate(sweep.courses)
    )
    assert norm_text_correlation(fixed) is None
    assert "same norm" in norm_score_finding(replace(sweep, courses=fixed))


def test_methods_are_named_in_a_key(sweep: Sweep) -> None:
    texts = {annotation.text for annotation in norm_scores_figure(sweep).layout.annotations}
    assert texts == {"● \u2068dti\u2069", "● \u2068ti\u2069", "● \u2068&lt;b&gt;&amp;\u2069"}


def test_checkpoints_are_fainter_than_the_end(sweep: Sweep, section: Section) -> None:
    trace = norm_scores_figure(sweep).data[1]
    opacities = dict(
        zip(
            [course.step for course in sweep.courses if course.label == "ti"],
            trace.marker.opacity,
            strict=True,
        )
    )
    assert opacities[100] < opacities[400]


@pytest.fixture(scope="module")
def section(sweep: Sweep) -> Section:
    return sweep_section(sweep)


def blocks(section: Section, kind: type) -> list[Any]:
    return [block for block in section.blocks if isinstance(block, kind)]


def table(section: Section, title: str) -> Table:
    tables: list[Table] = blocks(section, Table)
    return next(table for table in tables if table.title.startswith(title))


def test_groups_stand_apart_and_norms_are_averaged(sweep: Sweep) -> None:
    groups, rows = by_group(sweep)
    assert groups == ["colour", "count"]
    assert [method for method, _ in rows] == ["dti", "ti", "<b>&"]
    assert mean_inflation(sweep) == {"ti": 7.0}


def test_what_is_missing_is_counted(sweep: Sweep, section: Section) -> None:
    assert missing(sweep).startswith("1 of 2 cells")
    assert "1 failed" in missing(sweep)
    assert missing(replace(sweep, cells=sweep.cells[:1])) == ""
    assert missing(sweep) in blocks(section, Note)[0].text


def test_every_method_is_a_row_with_its_norm_scores_and_pictures(
    sweep: Sweep, section: Section
) -> None:
    rows = table(section, "Scores over all prompts").rows
    overall = [summary for summary in sweep.summaries if summary.group == "all"]
    assert [row[0] for row in rows] == ["dti", "ti", "<b>&"]
    assert [row[1] for row in rows] == [None, 7.0, None]
    for row, summary in zip(rows, overall, strict=True):
        assert row[2:4] == [summary.subject.mean, Span(summary.subject.low, summary.subject.high)]
        assert row[4:] == [
            summary.text.mean,
            Span(summary.text.low, summary.text.high),
            summary.images,
        ]


def test_text_scores_of_each_kind_of_prompt_stand_in_columns(
    sweep: Sweep, section: Section
) -> None:
    groups = table(section, "Text score by")
    assert [column.title for column in groups.columns] == [
        "method",
        "colour",
        "95 %",
        "count",
        "95 %",
    ]
    summary = next(
        summary for summary in sweep.summaries if (summary.method, summary.group) == ("ti", "count")
    )
    assert groups.rows[1][3] == summary.text.mean


def test_paired_differences_say_what_they_differ_in_by_corrected_p_values(
    sweep: Sweep, section: Section
) -> None:
    rows = table(section, "Paired differences").rows
    overall = [difference for difference in sweep.differences if difference.group == "all"]
    assert len(rows) == len(overall) == 3
    for row, difference in zip(rows, overall, strict=True):
        assert row[:2] == [difference.first, difference.second]
        assert row[2] == difference.subject.mean
        assert (row[4], row[7]) == (difference.subject_p, difference.text_p)
    assert [row[-1] for row in rows] == ["text"] * 3
    same = replace(overall[0], text_p=0.06)
    unclear = sweep_section(replace(sweep, differences=(same,), courses=()))
    assert table(unclear, "Paired differences").rows[0][-1] == "neither"


def test_a_sweep_of_an_older_version_has_neither_p_values_nor_verdicts(sweep: Sweep) -> None:
    older = [replace(row, subject_p=None, text_p=None) for row in sweep.differences]
    section = sweep_section(replace(sweep, differences=tuple(older)))
    titles = [column.title for column in table(section, "Paired differences").columns]
    assert titles == ["first", "less", "subject", "95 %", "text", "95 %"]
    assert " differ in " not in blocks(section, Finding)[0].text


def test_ceilings_stand_beside_scores_and_what_cannot_decide_is_named(sweep: Sweep) -> None:
    known = tuple(replace(row, subject_ceiling=0.8, text_ceiling=0.9) for row in sweep.summaries)
    checks = {"both": Ceiling(Share.of(10, 10), Share.of(3, 10))}
    ceilings = {"dog": ConceptCeiling("x", checks, Likeness(0.9, 0.8, 0.1))}
    section = sweep_section(replace(sweep, summaries=known, ceilings=ceilings))
    scores = table(section, "Scores over all")
    titles = [column.title for column in scores.columns]
    assert titles[2:8] == ["subject", "95 %", "ceiling", "text", "95 %", "ceiling"]
    assert scores.rows[0][4] == 0.8
    assert scores.rows[0][7] == 0.9
    assert any("both of dog (30% " in note.text for note in blocks(section, Note))


def test_the_norm_has_a_part_of_its_own_where_tokens_were_learned(
    sweep: Sweep, section: Section
) -> None:
    (part,) = blocks(section, Section)
    assert blocks(part, Finding)[0].text == norm_score_finding(sweep)
    assert not blocks(sweep_section(replace(sweep, courses=())), Section)


def test_costs_are_seconds_of_each_method(section: Section) -> None:
    assert table(section, "Cost").rows == [["dti", 20.0, 5.0]]


def test_cells_are_rows_with_their_state_and_minutes(sweep: Sweep) -> None:
    section = cells_section(sweep.cells)
    assert table(section, "").rows == [
        ["done", 0, "dti", "dog cat fox owl bee", 100 / 60],
        ["failed", 0, "ti", "dog cat fox owl bee", None],
    ]
    assert not blocks(section, Finding)


def test_of_thousands_of_cells_the_first_are_rows_and_the_others_are_counted(
    sweep: Sweep,
) -> None:
    section = cells_section(sweep.cells * 300)
    assert len(table(section, "").rows) == 200
    (note,) = blocks(section, Note)
    assert note.text.startswith("And 400 more: 200 done, 200 failed.")


def test_an_estimate_says_what_is_left_how_long_it_takes_and_how_large_it_gets(
    sweep: Sweep,
) -> None:
    estimate = Estimate(1, 4, 80, 5400.0, 2_500_000_000, "finished cells")
    text = " ".join(block.text for block in blocks(cells_section(sweep.cells, estimate), Finding))
    for fact in ("1 of 2 cells", "4 trainings", "80 pictures", "1.5 hours", "2.5 GB"):
        assert fact in text
