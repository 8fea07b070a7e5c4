from dataclasses import replace

from dti_geom.reporting.blocks import Note, Pictures, blocks_of
from dti_geom.reporting.sections.gallery import gallery_data, gallery_finding, gallery_section
from example_results import gallery_result


def test_a_row_shows_a_prompt_and_a_column_a_seed() -> None:
    ((_, pictures),) = blocks_of(gallery_section(gallery_result()), Pictures)
    assert pictures.columns == ["seed 0", "seed 7"]
    assert [row.label for row in pictures.rows] == ["a <x>", "a dog"]
    shown = [[picture is not None for picture in row.pictures] for row in pictures.rows]
    assert shown == [[True, True], [True, False]]


def test_the_finding_counts_pictures_and_names_tokens() -> None:
    finding = gallery_finding(gallery_result())
    assert finding.startswith("3 pictures of")
    assert "<x>" in finding
    assert gallery_finding(gallery_result(token=None)).startswith("3 pictures. ")


def test_prompts_that_are_left_out_are_told() -> None:
    result = gallery_result()
    ((_, note),) = blocks_of(gallery_section(result), Note)
    assert note.text.startswith("3 prompts are not shown")
    assert not list(blocks_of(gallery_section(replace(result, left_out=0)), Note))


def test_the_data_have_no_pictures() -> None:
    assert all(row.pictures == () for row in gallery_data(gallery_result()).rows)
