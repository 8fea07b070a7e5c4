from collections.abc import Callable
from dataclasses import replace

from dti_geom.probes.neighbors import NeighborsResult, TokenNeighbors
from dti_geom.reporting.blocks import Figure, Section, tables
from dti_geom.reporting.sections.neighbors import (
    neighbors_finding,
    neighbors_section,
    overlap_figure,
    overlap_finding,
    shared_tokens,
)
from section_blocks import blocks_of, findings


def test_shared_tokens_are_those_in_both_lists(
    make_neighbors: Callable[..., TokenNeighbors],
) -> None:
    assert shared_tokens(make_neighbors(cosine=(3, 4, 5), euclidean=(9, 4, 3))) == {3, 4}


def test_finding_counts_the_overlap_and_names_the_leaders(
    make_neighbors: Callable[..., TokenNeighbors],
) -> None:
    finding = neighbors_finding(make_neighbors())
    for part in (
        "2 of 3 neighbours",
        "“\u2068near3\u2069” at 0.5000",
        "“\u2068near9\u2069” at 0.4000",
        "0.4100",
    ):
        assert part in finding


def test_overlap_bars_are_the_shared_counts(make_neighbors: Callable[..., TokenNeighbors]) -> None:
    queries = (make_neighbors("cat"), make_neighbors("dog", euclidean=(7, 8, 9)))
    listed, shared = overlap_figure(queries).data
    assert list(listed.x) == [3, 3]
    assert list(shared.x) == [2, 0]
    finding = overlap_finding(queries)
    for part in ("2 queries", "2 of 6 neighbours (33.3 %)", "“\u2068dog\u2069” with 0 of 3"):
        assert part in finding


def test_each_query_is_a_section_with_both_lists_side_by_side(
    make_neighbors: Callable[..., TokenNeighbors],
) -> None:
    section = neighbors_section(NeighborsResult("text_encoder", (make_neighbors("cat"),)))
    (query,) = blocks_of(section, Section)
    assert query.title == "“\u2068cat\u2069”"
    ((_, table),) = tables(section)
    assert table.rows[0] == ["near3", 3, 0.5, "●", "near9", 9, 0.4, ""]
    assert table.rows[1][3:6] == ["●", "near4", 4]
    assert [row[3] for row in table.rows] == ["●", "●", ""]
    assert [row[7] for row in table.rows] == ["", "●", "●"]
    assert not findings(section)


def test_several_queries_are_summed_up_first(make_neighbors: Callable[..., TokenNeighbors]) -> None:
    queries = (make_neighbors("cat"), make_neighbors("dog"))
    section = neighbors_section(NeighborsResult("text_encoder", queries))
    assert findings(section) == [overlap_finding(queries)]
    assert len(blocks_of(section, Figure)) == 1
    assert len(blocks_of(section, Section)) == 2


def test_a_learned_query_names_its_method_as_text(
    make_neighbors: Callable[..., TokenNeighbors],
) -> None:
    learned = replace(make_neighbors("<x>"), id=None)
    for method, said in (("ti", "learned by TI"), ("a&b", "learned by a&b"), (None, "learned,")):
        section = neighbors_section(
            NeighborsResult("text_encoder", (replace(learned, method=method),))
        )
        (query,) = [block for block in section.blocks if isinstance(block, Section)]
        assert query.aside.startswith(said)
