import io
from collections.abc import Sequence

import pytest
from rich.cells import cell_len
from rich.console import Console

from dti_geom.reporting.blocks import (
    Column,
    Figure,
    Finding,
    Limits,
    Note,
    Picture,
    PictureRow,
    Pictures,
    Section,
    Table,
    Value,
)
from dti_geom.reporting.renderers.terminal import print_line, print_section, print_table


def console(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, highlight=False)


def printed_table(
    columns: Sequence[Column], rows: Sequence[Sequence[Value]], width: int = 80, title: str = ""
) -> list[str]:
    screen = console(width)
    print_table(screen, Table(title, columns, rows))
    return lines_of(screen)


def lines_of(screen: Console) -> list[str]:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue().splitlines()


def test_numbers_stand_under_each_other_and_no_line_ends_in_blanks() -> None:
    columns = [Column("name", kind="text"), Column("x"), Column("n")]
    assert printed_table(columns, [("a", 0.5, 1), ("b", 0.12344, 20)], title="Title") == [
        "Title",
        "name       x   n",
        "a     0.5000   1",
        "b     0.1234  20",
    ]


def test_a_table_that_is_too_wide_comes_in_parts_that_repeat_the_first_column() -> None:
    columns = [Column("method", kind="text"), *(Column(f"score {i}") for i in range(6))]
    lines = printed_table(columns, [("dti", *[0.25] * 6)], width=40)
    assert max(map(cell_len, lines)) <= 40
    assert sum("method" in line for line in lines) == 2
    assert sum(line.count("0.25") for line in lines) == 6


def test_paths_stand_in_the_table_where_they_fit_and_below_it_whole_where_not() -> None:
    columns = [Column("token", kind="token"), Column("file", kind="path")]
    short = printed_table(columns, [("<x>", "run/x.bin")])
    assert short == ["token  file", "<x>    run/x.bin"]
    long = f"runs/{'a' * 90}.bin"
    lines = printed_table(columns, [("<x>", long), ("<y>", "y.bin"), ("<z>", long)])
    assert [line.split()[-1] for line in lines[1:4]] == ["1", "2", "1"]
    assert "".join(lines[4:]).replace("file 1:", "").strip().startswith(long)


@pytest.mark.parametrize(
    "hostile", ["\x1b[31mred", "a\nb", "a\tb", "\u202egnp", "\x07", "\x9b2J", "x[/nope]"]
)
def test_a_token_cannot_steer_the_terminal(hostile: str) -> None:
    lines = printed_table([Column("token", kind="token"), Column("n")], [(hostile, 1)])
    assert len(lines) == 2
    assert lines[1].isprintable()
    screen = console()
    print_line(screen, f"token {hostile}")
    assert all(line.isprintable() for line in lines_of(screen))


def test_lines_break_between_words_by_cells_not_characters() -> None:
    screen = console()
    print_line(screen, "日本 " * 40)
    path = "/".join(["a-folder-with-a-name"] * 6)
    print_line(screen, f"kept in {path} now")
    *wide, before, alone, after = lines_of(screen)
    assert max(map(cell_len, wide)) <= 80
    assert (before, alone, after) == ("kept in", path, "now")


def test_a_section_prints_every_block_but_draws_no_figure() -> None:
    def refuse() -> None:
        raise AssertionError("a terminal draws nothing")

    section = Section(
        "Turn against magnitude",
        [
            Finding("The token “\u2068<x>\u2069” is turned by 90°."),
            Figure(refuse, "a plot"),
            Pictures("Pictures", ["a"], [PictureRow("row", [Picture("data:,", "alt"), None])]),
            Section("text_encoder", [Table("Whole turn", [Column("turn", "°")], [(90.0,)])]),
            Note("How it was measured."),
            Limits("Everything else."),
        ],
        aside="mini",
    )
    screen = console()
    print_section(screen, section)
    text = "\n".join(lines_of(screen))
    assert text.startswith("Turn against magnitude · mini\n")
    for part in ("“<x>” is turned", "Pictures: 1 pictures", "text_encoder", "90°", "not show: Ev"):
        assert part in text
    assert "a plot" not in text
