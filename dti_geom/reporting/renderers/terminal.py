"""Render a section in a terminal: headings, sentences and tables; pictures and plots are named."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dti_geom.reporting.blocks import (
    Column,
    Figure,
    Finding,
    Limits,
    Note,
    Pictures,
    PointMap,
    Section,
    Table,
)
from dti_geom.reporting.cells import cell_texts

if TYPE_CHECKING:
    from rich.console import Console

GAP = 2  # blanks between two columns


def print_section(console: "Console", section: Section) -> None:
    """Print the blocks of a section in their order; tables fit the console's width."""
    title = f"{section.title} · {section.aside}" if section.aside else section.title
    print_line(console, title, "bold")
    after_table = False
    for block in section.blocks:
        if after_table and not isinstance(block, (Table, Section, Figure, PointMap)):
            print_line(console)
        after_table = isinstance(block, Table) or (
            after_table and isinstance(block, (Figure, PointMap))
        )
        match block:
            case Finding(text):
                print_line(console, text)
            case Note(text):
                print_line(console, text, "dim")
            case Limits(text):
                print_line(console, f"What this does not show: {text}", "dim")
            case Table():
                print_line(console)
                print_table(console, block)
            case Pictures():
                count = sum(picture is not None for row in block.rows for picture in row.pictures)
                print_line(console, f"{block.title}: {count} pictures on the page", "dim")
            case Section():
                print_line(console)
                print_section(console, block)
            case Figure() | PointMap():
                pass  # its numbers stand in the tables


def print_line(console: "Console", text: str = "", style: str = "") -> None:
    """Print a line broken between words only, so that a path or a command stays in one piece."""
    from rich.text import Text

    console.print(Text(filled(text, console.width), style=style), soft_wrap=True)


def print_table(console: "Console", table: Table) -> None:
    """Print a table, in several parts if it is wider than the console.

    Each part repeats the first column. Where a table does not fit, paths and sentences stand below
    it, each in one piece, and their columns hold numbers.
    """
    from rich.cells import cell_len

    columns = list(table.columns)
    texts = [[visible(cell).replace("\n", " ") for cell in column] for column in _transposed(table)]
    widths = [
        max(map(cell_len, (column.title, *cells)), default=0)
        for column, cells in zip(columns, texts, strict=True)
    ]
    below: list[str] = []
    if sum(widths) + GAP * (len(widths) - 1) > console.width:
        for place, column in enumerate(columns):
            if column.kind in ("path", "sentence"):
                numbers = _numbered(texts[place])
                below += [f"{column.title} {number}: {text}" for text, number in numbers.items()]
                texts[place] = [numbers[text] for text in texts[place]]
                widths[place] = max(map(cell_len, (column.title, *texts[place])))
    if table.title:
        print_line(console, table.title)
    for part in _parts(widths, console.width):
        _print_part(console, [columns[place] for place in part], [texts[place] for place in part])
    for line in below:
        print_line(console, line)


def filled(text: str, width: int) -> str:
    """Break text between words only. width: terminal cells, not characters."""
    from rich.cells import cell_len

    lines = []
    for paragraph in visible(text).split("\n"):
        line, *words = paragraph.split(" ")
        for word in words:
            if cell_len(f"{line} {word}") > width:
                lines.append(line)
                line = word
            else:
                line += f" {word}"
        lines.append(line)
    return "\n".join(lines)


def visible(text: str) -> str:
    """Show what would steer a terminal as an escape: tokens and file names come from strangers."""
    text = text.replace("\u2068", "").replace("\u2069", "")  # isolates, which only pages need
    text = text.replace("\u00a0", " ")  # a blank that does not break, which is not printable
    return "".join(
        character
        if character.isprintable() or character == "\n"
        else character.encode("unicode_escape").decode()
        for character in text
    )


def _transposed(table: Table) -> list[list[str]]:
    if not table.rows:
        return [[] for _ in table.columns]
    return [list(column) for column in zip(*cell_texts(table), strict=True)]


def _numbered(texts: Sequence[str]) -> dict[str, str]:
    """Return a number from 1 for every different text, as text."""
    return {text: str(number) for number, text in enumerate(dict.fromkeys(texts), 1)}


def _parts(widths: Sequence[int], width: int) -> list[list[int]]:
    """Columns of each part; every part begins with the first column."""
    parts: list[list[int]] = [[0]]
    for place in range(1, len(widths)):
        used = sum(widths[other] + GAP for other in parts[-1])
        if used + widths[place] > width and len(parts[-1]) > 1:
            parts.append([0])
        parts[-1].append(place)
    return parts


def _print_part(
    console: "Console", columns: Sequence[Column], texts: Sequence[Sequence[str]]
) -> None:
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column.kind == "number"
        grid.add_column(
            Text(column.title), justify="right" if right else "left", overflow="fold", no_wrap=right
        )
    for row in zip(*texts, strict=True):
        grid.add_row(*map(Text, row))
    for segments in console.render_lines(grid, pad=False):
        line = Text.assemble(*((segment.text, segment.style or "") for segment in segments))
        line.rstrip()
        console.print(line, soft_wrap=True)
