from collections.abc import Callable

import pytest

from dti_geom.probes.explain import ExplainResult
from dti_geom.reporting.blocks import Section
from dti_geom.reporting.sections.explain import (
    KEPT,
    explain_finding,
    explain_section,
    share_figure,
    sum_text,
)
from section_blocks import blocks_of, column, table_named

Make = Callable[..., ExplainResult]


def test_a_sum_is_written_with_its_weights(make_explain: Make) -> None:
    (space,) = make_explain().spaces
    assert sum_text(space.tokens[0].sums[1]) == "0.60 “\u2068fox\u2069” + 0.30 “\u2068red\u2069”"


def test_the_finding_counts_explained_tokens_beside_random_directions(make_explain: Make) -> None:
    (space,) = make_explain(p=0.5).spaces
    finding = explain_finding(space)
    for part in ("1 of 2 tokens", "at most 8 %", "1.0 “\u2068cat\u2069”", "100 %"):
        assert part in finding


def test_the_tables_give_verdicts_and_mark_the_words_that_are_kept(make_explain: Make) -> None:
    (section,) = blocks_of(explain_section(make_explain(p=0.5)), Section)
    table = table_named(section, "Explanations")
    assert column(table, "verdict") == ["unexplained", "explained"]
    assert column(table, "explained") == pytest.approx([40, 100])
    assert column(table, "all") == pytest.approx([50, 100])
    assert column(table, "step") == [500, None]
    words = table_named(section, "Words")
    assert [row[1:] for row in words.rows] == [
        ["fox", 7, 0.6, KEPT],
        ["red", 9, 0.3, ""],
        ["cat", 3, 1.0, KEPT],
    ]


def test_the_figure_draws_the_shares_by_number_of_words(make_explain: Make) -> None:
    (space,) = make_explain().spaces
    random, ordinary, learned, word = share_figure(space).data
    assert list(random.y) == pytest.approx([5, 8])
    assert list(ordinary.y) == pytest.approx([30, 40])
    assert list(learned.x) == [1, 2]
    assert list(learned.y) == pytest.approx([40, 50])
    assert list(word.y) == [100]
