"""Many pictures in one file: labelled contact sheets and animations."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dti_geom.files import atomic_path

if TYPE_CHECKING:
    from PIL.Image import Image

CELL = (96, 192)  # pixels of a side: smaller pictures are enlarged, larger ones shrunk
MAX_ROWS = 50
_LABEL, _GAP = 18, 4  # pixels: a line of text, and the space around a picture
_PAPER, _INK = "#fdfcf9", "#1d1d1b"
_FRAME = 120  # milliseconds

Row = tuple[str, Sequence["Image"]]


def contact_sheet(rows: Sequence[Row], columns: Sequence[str] = ()) -> "Image":
    """Return rows of square pictures, each row under its label, with the columns named at the top.

    The first MAX_ROWS rows are shown. If there are more, the last line says how many.
    """
    from PIL import Image

    shown = rows[:MAX_ROWS]
    more = len(rows) - len(shown)
    side = min(max(shown[0][1][0].width, CELL[0]), CELL[1])
    width = _GAP + max(len(pictures) for _, pictures in shown) * (side + _GAP)
    lines = bool(columns) + bool(more)
    height = _LABEL * lines + len(shown) * (_LABEL + side + 2 * _GAP) + _GAP
    sheet = Image.new("RGB", (width, height), _PAPER)
    write = _writer(sheet)
    y = _GAP
    for place, name in enumerate(columns):
        write(name, _GAP + place * (side + _GAP), y, side)
    y += _LABEL * bool(columns)
    for label, pictures in shown:
        write(label, _GAP, y, width - 2 * _GAP)
        y += _LABEL
        for place, picture in enumerate(pictures):
            scaled = picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
            sheet.paste(scaled, (_GAP + place * (side + _GAP), y))
        y += side + 2 * _GAP
    if more:
        write(f"and {more} rows more", _GAP, y, width - 2 * _GAP)
    return sheet


def save_picture(picture: "Image", path: Path, *, overwrite: bool = False) -> None:
    """Write a picture atomically, in the format of its suffix. Raises FileExists."""
    with atomic_path(path, overwrite=overwrite) as beside:
        picture.save(beside)


def save_animation(frames: "Sequence[Image]", path: Path, *, overwrite: bool = False) -> None:
    """Write pictures as an animated WebP that runs to the last and back, in a loop."""
    there_and_back = [*frames, *frames[-2:0:-1]]
    with atomic_path(path, overwrite=overwrite) as beside:
        there_and_back[0].save(
            beside,
            save_all=True,
            append_images=there_and_back[1:],
            duration=_FRAME,
            loop=0,
            quality=85,
        )


def _writer(sheet: "Image") -> Callable[[str, int, int, int], None]:
    """A function that writes text at x, y, shortened to a number of pixels."""
    from PIL import ImageDraw, ImageFont

    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)

    def write(text: str, x: int, y: int, room: int) -> None:
        text = "".join(character if character.isprintable() else "?" for character in text)
        while text and draw.textlength(text, font) > room:
            text = text.removesuffix("…")[:-1] + "…" if len(text) > 1 else ""
        draw.text((x, y), text, _INK, font)

    return write
