import csv
import io

import pytest

from dti_geom.reporting.blocks import Column, Note, Section, Span, Table
from dti_geom.reporting.renderers.csv import section_csv


def rows_of(section: Section) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(section_csv(section), newline="")))


def test_all_tables_of_a_section_are_one_with_the_columns_of_each() -> None:
    first = Table("norms", [Column("token", kind="token"), Column("norm")], [("<x>", 1 / 3)])
    second = Table("turns", [Column("turn", "°"), Column("norm")], [(90.0, 2)])
    section = Section("all", [first, Note("…"), Section("text_encoder", [second])])
    assert rows_of(section) == [
        {"table": "norms", "token": "<x>", "norm": str(1 / 3), "turn, °": ""},
        {"table": "text_encoder: turns", "token": "", "norm": "2", "turn, °": "90.0"},
    ]


def test_an_interval_is_two_columns_and_an_absent_one_is_empty() -> None:
    columns = [Column("subject"), Column("95 %"), Column("text"), Column("95 %")]
    rows = [(0.5, Span(0.4, 0.6), 0.1, Span(None, None)), (0.2, None, 0.3, Span(0, 1))]
    first, second = rows_of(Section("", [Table("scores", columns, rows)]))
    assert (first["subject 95 % low"], first["subject 95 % high"]) == ("0.4", "0.6")
    assert (first["text 95 % low"], second["subject 95 % low"]) == ("", "")
    assert second["text 95 % high"] == "1"


def test_a_section_without_tables_has_no_csv() -> None:
    assert section_csv(Section("", [Note("nothing")])) == ""


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "＝1"])
def test_a_token_is_never_a_formula(text: str) -> None:
    table = Table(text, [Column(text, kind="token")], [(text,)])
    lines = list(csv.reader(io.StringIO(section_csv(Section("", [table])), newline="")))
    assert lines == [["table", f"'{text}"], [f"'{text}", f"'{text}"]]
