from collections.abc import Callable

from dti_geom.probes.harden import HardenResult
from dti_geom.reporting.blocks import tables
from dti_geom.reporting.sections.harden import harden_finding, harden_section

Make = Callable[..., HardenResult]


def test_the_finding_names_the_prompt_beside_random_prompts(make_harden: Make) -> None:
    finding = harden_finding(make_harden())
    assert "red fox" in finding
    assert "reach 60 % of its states" in finding
    assert "random prompts 25 %" in finding


def test_the_table_holds_prompt_word_and_nearest_words(make_harden: Make) -> None:
    ((_, table),) = tables(harden_section(make_harden()))
    (row,) = table.rows
    assert row[2:9:2] == ["red fox", 0.8, 40.0, -20.0]
    assert [row[5], row[7]] == ["fox", "fox cat"]
    assert row[-1] == "dir/<x>.bin"
