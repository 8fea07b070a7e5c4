from dti_geom.reporting.blocks import Pictures
from dti_geom.reporting.sections.magnitudes import (
    lengths_finding,
    magnitudes_data,
    magnitudes_section,
)
from example_results import PIXEL, magnitudes_result
from section_blocks import blocks_of, table_named


def test_each_prompt_and_seed_of_a_token_is_a_row_with_a_picture_at_each_length() -> None:
    result = magnitudes_result()
    (pictures,) = blocks_of(magnitudes_section(result), Pictures)
    assert pictures.columns == ["×0.5", "×1", "×8"]
    assert pictures.magnitudes == result.multiples
    assert [row.label for row in pictures.rows] == [
        f"{token}\na photo of a …, seed {seed}"
        for token in ("green-fox · TI", "<b>")
        for seed in (0, 1)
    ]
    for row in pictures.rows:
        assert [picture.uri for picture in row.pictures if picture] == [PIXEL] * 3
    last = pictures.rows[-1].pictures[-1]
    assert last is not None
    assert last.alt == "<b>, a photo of a …, seed 1 at ×8"


def test_the_table_says_how_long_each_token_was() -> None:
    rows = table_named(magnitudes_section(magnitudes_result()), "Length").rows
    assert rows == [["green-fox · TI", 1.0], ["<b>", 3.0]]


def test_the_finding_names_the_length_that_each_token_learned() -> None:
    finding = lengths_finding(magnitudes_result())
    for part in ("TI at ×1.00", "<b> at ×3.00", "from ×0.5 to ×8"):
        assert part in finding


def test_the_data_of_the_page_leave_the_pictures_out() -> None:
    data = magnitudes_data(magnitudes_result())
    assert [token.pictures for token in data.tokens] == [(), ()]
    assert data.multiples == (0.5, 1.0, 8.0)
