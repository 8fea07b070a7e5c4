import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dti_geom.files.csv_text import csv_text, safe_cell

FORMULAS = ["=1+1", "+1", "-1", "@x", "\t=1", "\rx", "＝1", "＋1", "－1", "＠x", "−1", "﹣1", " =1"]
FORMULAS += ["\ufeff=1", "\u200b=1", "\n=1", "\u3000＝1", "=", "\x00=1"]


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("text", FORMULAS)
def test_no_text_is_a_formula_in_any_row(text: str) -> None:
    assert safe_cell(text) == f"'{text}"
    assert csv_text([[text], [1]]).startswith(("'", "\"'"))


@pytest.mark.parametrize("value", [-1.5, 0, None, True, "", "  ", "a=b", "<x>", "'x", "runs/-a"])
def test_everything_else_stays_as_it_is(value: object) -> None:
    assert safe_cell(value) is value


@given(st.lists(st.lists(st.text("=+-@,\"'\n a＝", max_size=6), min_size=1), max_size=4))
def test_a_reader_finds_the_same_cells_apart_from_the_apostrophe(rows: list[list[str]]) -> None:
    assert read(csv_text(rows)) == [[safe_cell(cell) for cell in row] for row in rows]
