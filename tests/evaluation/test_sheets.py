from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dti_geom.errors import FileExists
from dti_geom.evaluation.sheets import MAX_ROWS, contact_sheet, save_animation, save_picture


def plain(colour: str, side: int = 96) -> Image.Image:
    return Image.new("RGB", (side, side), colour)


def colours(sheet: Image.Image) -> set[tuple[int, ...]]:
    return {tuple(colour) for colour in np.asarray(sheet).reshape(-1, 3).tolist()}


def test_every_picture_is_on_the_sheet_and_large_ones_are_shrunk() -> None:
    rows = [("first", [plain("red", 512), plain("lime", 512)]), ("second", [plain("blue", 512)])]
    sheet = contact_sheet(rows, ["one", "two"])
    assert {(255, 0, 0), (0, 255, 0), (0, 0, 255)} <= colours(sheet)
    assert sheet.width == 4 + 2 * (192 + 4)


def test_rows_and_columns_are_labelled() -> None:
    bare, named = (
        np.asarray(contact_sheet([(label, [plain("red")])], [label])) for label in ("", "seed")
    )
    changed = (bare != named).any(axis=(1, 2)).nonzero()[0]
    assert (changed < 22).any()
    assert (changed >= 22).any()


def test_a_label_too_long_for_its_room_or_unprintable_stays_within_it() -> None:
    sheet = contact_sheet([("a prompt as long as a novel " * 9 + "\n\x1b", [plain("white")])])
    assert sheet.size == (104, 4 + 18 + 96 + 8)


def test_what_is_left_out_of_a_long_sheet_is_counted() -> None:
    few, many = (
        contact_sheet([("", [plain("red")])] * count) for count in (MAX_ROWS, MAX_ROWS + 7)
    )
    assert many.height == few.height + 18


def test_an_animation_runs_there_and_back(tmp_path: Path) -> None:
    save_animation([plain(colour) for colour in ("red", "lime", "blue")], tmp_path / "a.webp")
    with Image.open(tmp_path / "a.webp") as film:
        assert getattr(film, "n_frames", 1) == 4
        assert film.info["loop"] == 0


def test_a_picture_is_only_overwritten_when_asked(tmp_path: Path) -> None:
    save_picture(plain("red"), tmp_path / "a.png")
    with pytest.raises(FileExists):
        save_picture(plain("blue"), tmp_path / "a.png")
    assert colours(Image.open(tmp_path / "a.png").convert("RGB")) == {(255, 0, 0)}
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
