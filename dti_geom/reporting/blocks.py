"""Show a result as blocks: renderers know these types and nothing else.

A section function turns one result into a `Section`. The page, the terminal, the notebook and the
CSV are four renderers of the same blocks, so nothing is written twice.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

    from dti_geom.files.packed import Packed

Kind = Literal["number", "text", "token", "path", "sentence"]


@dataclass(frozen=True)
class Finding:
    """Say in one sentence what was found, with its figure and interval."""

    text: str


@dataclass(frozen=True)
class Note:
    """Say how something was measured, in small print."""

    text: str


@dataclass(frozen=True)
class Limits:
    """Say what a result does not show."""

    text: str


@dataclass(frozen=True)
class Figure:
    """A plot, drawn only by renderers that can show it."""

    draw: "Callable[[], PlotlyFigure]"  # called late: plotly is slow to import
    caption: str  # what is plotted, in small print below
    label: str = ""  # read aloud instead of the plot; default: the caption
    folded: str = ""  # a page shows this title alone until it is clicked


@dataclass(frozen=True)
class PlacedPoint:
    """A point of its own on a point map, drawn larger and labelled."""

    label: str
    x: float
    y: float
    norm: float
    line: str  # points of one line are joined in their order
    note: str  # e.g. the update and the file
    neighbors: Sequence[tuple[str, int, float]]  # label, id and cosine, nearest first


@dataclass(frozen=True)
class PointMap:
    """Many points in two dimensions.

    A page adds search, the neighbours of a point, selection, and a histogram of norms that is
    linked to the map. Its address names what is shown. A notebook shows the plot alone.
    """

    draw: "Callable[[], PlotlyFigure]"
    caption: str
    labels: Sequence[str]  # of the n points
    ids: "Packed"  # (n,)
    positions: "Packed"  # (n, 2)
    norms: "Packed"  # (n,)
    mean_norm: float
    neighbors: "Packed"  # (n, k), places among the points, nearest first
    cosines: "Packed"  # (n, k)
    cosine_unit: float  # of `cosines`
    placed: Sequence[PlacedPoint]


@dataclass(frozen=True)
class Span:
    """An interval in a table: one cell on a page, two columns in a CSV."""

    low: float | None
    high: float | None


Value = str | int | float | bool | Span | None


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    title: str
    unit: str = ""  # "×" stands before the number; "°", "%" and "s" behind it
    digits: int = 4  # significant, of the column's largest number
    # Numbers are right-aligned. Paths and sentences may be moved below a narrow table.
    kind: Kind = "number"


@dataclass(frozen=True)
class Table:
    """Rows of plain values; angles in degrees, None where there is no value."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Value]]
    folded: bool = False  # a page shows the title alone until it is clicked: details, not results


@dataclass(frozen=True)
class Picture:
    """One image, as a data URI."""

    uri: str
    alt: str
    caption: str = ""
    key: int | None = None  # a figure's points name it in `customdata`: hovering shows the picture


@dataclass(frozen=True)
class PictureRow:
    """Pictures beside one another."""

    label: str  # lines are separated by "\n"
    pictures: Sequence[Picture | None]  # None: no picture here
    places: Sequence[float] = ()  # a value for each of the block's `orders`, smallest first


@dataclass(frozen=True)
class Pictures:
    """A grid of pictures."""

    title: str
    columns: Sequence[str]  # a heading for each picture of a row
    rows: Sequence[PictureRow]
    slider: bool = False  # show one large picture per row, with a slider through the others
    # Names of orders that a page offers for the rows, beside a search; the rows stand in the first.
    orders: Sequence[str] = ()
    # Multiples of the mean norm, one for each column: a page shows the pictures of one of them, and
    # its one slider also moves a line through every plot with such an axis.
    magnitudes: Sequence[float] = ()


@dataclass(frozen=True)
class Section:
    """A titled sequence of blocks. Sections nest: a model's section holds one for each encoder."""

    title: str
    blocks: "Sequence[Finding | Note | Limits | Figure | PointMap | Table | Pictures | Section]"
    aside: str = ""  # sizes and settings, set smaller beside the title


Block = Finding | Note | Limits | Figure | PointMap | Table | Pictures | Section


def with_known_intervals(table: Table) -> Table:
    """Return the table without those columns of intervals that have none in any row."""
    unknown = [
        place
        for place in range(len(table.columns))
        if table.rows and all(_is_unknown(row[place]) for row in table.rows)
    ]
    kept = [place for place in range(len(table.columns)) if place not in unknown]
    columns = [table.columns[place] for place in kept]
    return replace(table, columns=columns, rows=[[row[at] for at in kept] for row in table.rows])


def _is_unknown(value: Value) -> bool:
    return isinstance(value, Span) and value.low is None and value.high is None


Kept = TypeVar("Kept", bound=Block)


def tables(section: Section) -> Iterator[tuple[tuple[str, ...], Table]]:
    """Yield every table of a section, with the titles of the subsections it stands in."""
    return blocks_of(section, Table)


def blocks_of(section: Section, kind: type[Kept]) -> Iterator[tuple[tuple[str, ...], Kept]]:
    """Yield every block of a kind, with the titles of the subsections it stands in."""
    for block in section.blocks:
        if isinstance(block, kind):
            yield (), block
        elif isinstance(block, Section):
            for titles, inner in blocks_of(block, kind):
                yield (block.title, *titles), inner
