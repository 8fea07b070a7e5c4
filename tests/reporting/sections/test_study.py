from dataclasses import replace
from typing import Any

import pytest

from dti_geom.reporting.blocks import Section
from dti_geom.reporting.sections.study import (
    plan_section,
    shares_figure,
    study_finding,
    study_section,
)
from dti_geom.study.planning import plan_size
from section_blocks import findings, table_named, titles
from studies import study_score


def rows(section: Section, table: str) -> list[dict[str, Any]]:
    found = table_named(section, table)
    names = [column.title for column in found.columns]
    return [dict(zip(names, row, strict=True)) for row in found.rows]


def test_the_finding_names_the_method_chosen_most_for_each_question() -> None:
    result = study_score()
    for question in ("subject", "text"):
        best = max(
            (share for share in result.shares if share.question == question),
            key=lambda share: share.share.mean,
        )
        finding = study_finding(result, question)
        assert best.method in finding
        assert f"{100 * best.share.mean:.1f} %" in finding
    assert findings(study_section(result)) == [
        study_finding(result, "subject"),
        study_finding(result, "text"),
    ]


def test_shares_are_percentages_beside_the_papers() -> None:
    result = study_score()
    shown = rows(study_section(result), "Chosen; the paper")
    assert [row["chosen"] for row in shown] == [100 * share.share.mean for share in result.shares]
    papers = {(row["question"], row["method"]): row["paper"] for row in shown}
    assert papers["text", "dti"] == pytest.approx(66.77)
    assert papers["text", "ti"] is None


def test_raters_left_out_are_listed_only_where_there_are_any() -> None:
    everyone = replace(study_score(), left_out=())
    assert "Raters left out" not in titles(study_section(everyone))
    result = study_score(spammers=0.2)
    assert len(rows(study_section(result), "Raters left out")) == len(result.left_out) > 0


def test_the_figure_has_a_mark_for_each_method_and_question() -> None:
    figure = shares_figure(study_score())
    assert [len(trace.x) for trace in figure.data] == [3, 3]


def test_a_plan_says_how_many_raters_are_enough() -> None:
    result = plan_size(0.6, methods=2, subjects=10, prompts=4, trials=6, studies=10)
    assert result.enough is not None
    (finding,) = findings(plan_section(result))
    assert finding.startswith(f"{result.enough.raters} raters")
