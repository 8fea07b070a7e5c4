from collections.abc import Callable
from dataclasses import replace

import pytest

from dti_geom.reporting.sections.inflation import (
    inflation_figure,
    inflation_finding,
    inflation_section,
)
from dti_geom.training.inflation import PredictedInflation
from section_blocks import column, findings, table_named

Predicted = Callable[..., PredictedInflation]


def test_the_finding_says_where_it_ends_and_what_keeps_it_inside(make_predicted: Predicted) -> None:
    (finding,) = findings(inflation_section(make_predicted()))
    for part in ("4 updates", "0.8000", "×2.00", "0.7000", "×1.75", "at update 2", "0.00100"):
        assert part in finding


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"leaves": None}, "never leaves"),
        ({"leaves": 9}, "after the run, at 9"),
        ({"leaves": 0, "rate_within": None}, "starts at the end"),
    ],
)
def test_a_run_that_stays_or_starts_outside_is_told_so(
    make_predicted: Predicted, changes: dict[str, int | None], part: str
) -> None:
    (tower,) = make_predicted().towers
    finding = inflation_finding(4, replace(tower, **changes))  # type: ignore[arg-type]
    assert part in finding
    assert "keeps it inside" not in finding


def test_the_table_has_the_quarters_of_the_run_for_each_encoder(make_predicted: Predicted) -> None:
    table = table_named(inflation_section(make_predicted("a", "b")), "By update")
    assert column(table, "encoder") == ["a"] * 5 + ["b"] * 5
    assert column(table, "update")[:5] == [0, 1, 2, 3, 4]
    assert column(table, "inflation")[4] == pytest.approx(2)
    assert column(table, "slowed inflation")[4] == pytest.approx(1.75)


def test_the_figure_has_both_curves_and_the_range_of_each_encoder(
    make_predicted: Predicted,
) -> None:
    result = make_predicted("a", "b")
    figure = inflation_figure(result)
    assert [trace.name for trace in figure.data] == ["law", "slowed"] * 2
    for trace in (figure.data[0], figure.data[2]):
        assert tuple(trace.x) == result.towers[0].updates
        assert tuple(trace.y) == result.towers[0].norms
    assert [shape.y0 for shape in figure.layout.shapes] == [0.5, 0.5]
