from dti_geom.reporting.blocks import Column, Span, Table, Value, with_known_intervals


def test_columns_of_intervals_that_no_row_has_are_left_out() -> None:
    rows: list[list[Value]] = [
        ["a", 1.0, Span(None, None), 2.0, Span(1.0, 3.0)],
        ["b", None, Span(None, None), None, Span(None, None)],
    ]
    table = with_known_intervals(Table("", list(map(Column, "abcde")), rows))
    assert [column.title for column in table.columns] == ["a", "b", "d", "e"]
    assert table.rows[0] == ["a", 1.0, 2.0, Span(1.0, 3.0)]


def test_a_table_without_rows_keeps_its_columns() -> None:
    assert len(with_known_intervals(Table("", [Column("a")], [])).columns) == 1
