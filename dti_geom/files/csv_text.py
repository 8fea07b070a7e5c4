"""CSV text for spreadsheets, which take some texts for formulas and run them."""

import csv
import io
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")
_SIGNS = "=+-@−"


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV. Every text that a spreadsheet would run gets an apostrophe before it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow([safe_cell(value) for value in row])
    return text.getvalue()


def safe_cell(value: T) -> T | str:
    """Return a text that a spreadsheet does not take for a formula; other values as they are."""
    if isinstance(value, str) and (value.startswith(("\t", "\r")) or _first(value) in _SIGNS):
        return f"'{value}"
    return value


def _first(text: str) -> str:
    """Return the first visible character in its plain form; a blank for a text without one.

    Spreadsheets skip blanks and invisible characters, and read full-width and small signs.
    """
    visible = (char for char in text if char.isprintable() and not char.isspace())
    return unicodedata.normalize("NFKC", next(visible, " "))
