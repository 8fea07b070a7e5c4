import pytest

from dti_geom.reporting.blocks import Figure, Section, Table
from dti_geom.reporting.sections.similarity import (
    DRAWN,
    MATRIX,
    similarity_figure,
    similarity_finding,
    similarity_section,
)
from example_results import similarity_result


def group_of(count: int) -> Section:
    section = similarity_section(similarity_result([f"<{place}>" for place in range(count)]))
    group = section.blocks[0]
    assert isinstance(group, Section)
    return group


def test_the_finding_names_the_two_most_similar_tokens() -> None:
    (group,) = similarity_result(["<a>", "<b>", "<c>"]).groups
    finding = similarity_finding(group)
    assert "<a>" in finding
    assert "<b>" in finding
    assert "cosine 0.5" in finding


def test_the_figure_holds_the_matrix_of_cosines() -> None:
    (group,) = similarity_result(["<a>", "<b>", "<c>"]).groups
    (drawn,) = similarity_figure(group).data
    for row, expected in zip(drawn.z, [[1, 0.5, -0.5], [0.5, 1, 0.5], [-0.5, 0.5, 1]], strict=True):
        assert list(row) == pytest.approx(expected)
    assert "cosine -0.5" in drawn.text[0][2].replace("−", "-")


@pytest.mark.parametrize(
    ("count", "figures", "tables"), [(3, 1, 2), (MATRIX + 1, 1, 1), (DRAWN + 1, 0, 1)]
)
def test_a_matrix_is_shown_where_there_is_room_for_it(
    count: int, figures: int, tables: int
) -> None:
    blocks = group_of(count).blocks
    assert sum(isinstance(block, Figure) for block in blocks) == figures
    assert sum(isinstance(block, Table) for block in blocks) == tables
