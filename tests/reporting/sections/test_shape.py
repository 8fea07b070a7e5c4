from collections.abc import Callable

import pytest

from dti_geom.probes.shape import ShapeResult
from dti_geom.reporting.sections.shape import hub_figure, shape_finding, shape_section
from section_blocks import column, table_named

Make = Callable[..., ShapeResult]


def test_the_finding_sets_the_table_beside_random_directions(make_shape: Make) -> None:
    finding = shape_finding(make_shape())
    for part in (
        "isotropy 0.300",
        "random ones have 0.900",
        "“\u2068the\u2069”",
        "44 rows",
        "0.25",
    ):
        assert part in finding
    assert "same norm" in shape_finding(make_shape(norm_by_row=None))


def test_the_tables_hold_every_cloud_and_every_hub(make_shape: Make) -> None:
    section = shape_section(make_shape())
    assert column(table_named(section, "Shape"), "isotropy") == [0.2, 0.3, 0.35, 0.9]
    assert column(table_named(section, "Shape"), "never") == pytest.approx([10] * 4)
    assert column(table_named(section, "Strongest hubs"), "neighbour of") == [44, 30] * 3


def test_the_figure_draws_the_hubs_of_the_table_alone(make_shape: Make) -> None:
    assert [list(trace.x) for trace in hub_figure(make_shape()).data] == [[44, 30]] * 3
