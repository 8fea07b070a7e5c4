from typing import Any

from dti_geom.evaluation.reference import TABLES, Comparison, compare
from dti_geom.reporting.blocks import Note, Section, Span, Table
from dti_geom.reporting.sections.comparison import (
    comparison_figure,
    comparison_finding,
    comparison_section,
)
from example_results import evaluation_result


def compared(*methods: str) -> Comparison:
    return compare([evaluation_result(methods, "sdxl")])


def tables(section: Section) -> list[Table]:
    return [block for block in section.blocks if isinstance(block, Table)]


def row_of(table: Table, name: str) -> dict[str, Any]:
    titles = [column.title for column in table.columns]
    return next(dict(zip(titles, row, strict=True)) for row in table.rows if row[0] == name)


def test_published_rows_are_rings_and_the_users_are_diamonds() -> None:
    figure = comparison_figure(compared("dti", "mine"))
    drawn = {trace.name: trace for trace in figure.data}
    assert list(drawn["crossinit"].x) == [0.464, 0.656, 0.589]
    assert drawn["crossinit"].marker.symbol == "circle-open"
    assert drawn["\u2068dti on sdxl\u2069"].marker.symbol == "diamond"
    assert "\u2068mine on sdxl\u2069" in drawn


def test_methods_are_named_in_a_key() -> None:
    texts = {annotation.text for annotation in comparison_figure(compare([])).layout.annotations}
    assert {"◆ ti", "◆ dti", "◆ crossinit", "◆ ti-rescaled"} == texts


def test_the_finding_counts_rows_with_a_run_and_runs_without_a_row() -> None:
    assert "2 of 24 published rows" in comparison_finding(compared("dti", "mine"))
    assert "; 1 of your methods" in comparison_finding(compared("dti", "mine"))
    assert ";" not in comparison_finding(compared("dti"))


def test_a_published_row_stands_beside_the_users_score_and_their_difference() -> None:
    result = compared("dti", "mine")
    main, *_ = tables(comparison_section(result))
    cells = row_of(main, "dti on sdxl")
    ours = next(row for row in result.rows if row.reference.method == "dti")
    assert ours.subject is not None
    assert ours.subject_difference is not None
    assert cells["paper subject"] == 0.45
    assert cells["your subject"] == ours.subject.mean
    assert cells["Δ subject"] == ours.subject_difference.mean == ours.subject.mean - 0.45
    assert ours.text_difference is not None
    assert cells["Δ text"] == ours.text_difference.mean
    spans = [value for value in main.rows[3] if isinstance(value, Span)]
    assert spans[0] == Span(ours.subject.low, ours.subject.high)


def test_a_row_without_a_run_says_so() -> None:
    section = comparison_section(compared("dti"))
    main, ablation, code, *_ = tables(section)
    missing = 0
    for table in (main, ablation, code):
        missing += sum(list(row).count("not run") for row in table.rows)
    assert missing == 2 * 22
    assert [len(table.rows) for table in (main, ablation, code)] == [10, 6, 8]
    assert all(
        table.title.lower() == title.lower()
        for table, title in zip((main, ablation, code), TABLES.values(), strict=True)
    )


def test_a_method_without_a_published_row_stands_in_a_table_of_its_own() -> None:
    *_, others, accuracy = tables(comparison_section(compared("dti", "mine")))
    assert accuracy.title.startswith("The scorer")
    row = row_of(others, "mine on sdxl")
    assert row["subject"] == compared("dti", "mine").others[0].subject.mean
    assert len(tables(comparison_section(compared("dti")))) == len(TABLES) + 1


def test_what_keeps_a_result_from_being_the_papers_experiment_is_a_note() -> None:
    result = compared("dti")
    notes = [block.text for block in comparison_section(result).blocks if isinstance(block, Note)]
    assert notes == list(result.notes)
    assert notes[0].startswith("sdxl: scored by sdxl")
