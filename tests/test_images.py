import base64
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dti_geom import images
from dti_geom.images import (
    BROKEN,
    open_rgb,
    open_upright,
    png_base64,
    png_bytes,
    png_uri,
    reader_to_install,
    thumbnail,
)


def test_a_picture_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn right to show"
    lying = Image.new("RGB", (4, 2), "black")
    lying.putpixel((0, 0), (255, 0, 0))
    lying.save(tmp_path / "turned.png", exif=exif)
    upright = open_rgb(tmp_path / "turned.png")
    assert upright.size == (2, 4)
    assert upright.getpixel((1, 0)) == (255, 0, 0)


@pytest.mark.parametrize(("alpha", "grey"), [(0, 255), (255, 0), (51, 204)])
def test_transparency_is_laid_on_white(tmp_path: Path, alpha: int, grey: int) -> None:
    Image.new("RGBA", (2, 2), (0, 0, 0, alpha)).save(tmp_path / "clear.png")
    picture = open_rgb(tmp_path / "clear.png")
    assert picture.mode == "RGB"
    assert picture.getpixel((1, 1)) == (grey, grey, grey)


def test_a_palette_with_a_transparent_colour_is_laid_on_white(tmp_path: Path) -> None:
    Image.new("P", (2, 2), 0).save(tmp_path / "clear.gif", transparency=0)
    assert open_rgb(tmp_path / "clear.gif").getpixel((0, 0)) == (255, 255, 255)


def test_a_file_that_is_no_image_raises_what_is_announced(tmp_path: Path) -> None:
    (tmp_path / "words.png").write_bytes(b"no picture")
    Image.new("RGB", (64, 64)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    for name in ("words.png", "cut.png", "missing.png"):
        with pytest.raises(BROKEN):
            open_rgb(tmp_path / name)


def test_a_thumbnail_keeps_proportions_and_leaves_the_picture_alone() -> None:
    picture = Image.new("RGB", (200, 100))
    assert thumbnail(picture, 96).size == (96, 48)
    assert picture.size == (200, 100)
    assert thumbnail(Image.new("RGB", (8, 8)), 96).size == (8, 8)


def test_a_data_uri_holds_the_same_pixels() -> None:
    picture = Image.effect_noise((5, 3), 40).convert("RGB")
    kind, _, data = png_uri(picture).partition(",")
    assert kind == "data:image/png;base64"
    assert data == png_base64(picture)
    assert Image.open(io.BytesIO(base64.b64decode(data))).tobytes() == picture.tobytes()
    assert png_uri(png_bytes(picture)) == png_uri(picture)
    with pytest.raises(ValueError, match="not a PNG"):
        png_uri(b"GIF89a")


def test_a_picture_without_transparency_is_copied_without_a_white_ground(tmp_path: Path) -> None:
    noise = Image.effect_noise((9, 7), 60)
    for mode in ("L", "RGB", "CMYK"):
        noise.convert(mode).save(tmp_path / "x.tif")
        assert (
            open_rgb(tmp_path / "x.tif").tobytes() == noise.convert(mode).convert("RGB").tobytes()
        )


RAMP = np.linspace(0, 1, 256)


@pytest.mark.parametrize(
    ("values", "suffix"),
    [
        ((RAMP * 65535).astype(np.uint16), "png"),
        ((RAMP * 65535).astype(np.uint16), "tif"),
        ((RAMP * 65535).astype(np.int32), "tif"),
        ((RAMP * 2_000_000_000).astype(np.int32), "tif"),
        (RAMP.astype(np.float32), "tif"),
        ((RAMP * 255).astype(np.float32), "tif"),
    ],
)
def test_grey_values_of_more_than_8_bits_keep_their_range(
    values: "np.ndarray[Any, Any]", suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(values.reshape(16, 16)).save(path)
    for picture in (open_rgb(path), open_upright(path).convert("L").convert("RGB")):
        red = np.asarray(picture)[..., 0].ravel().astype(int)
        assert abs(red - np.arange(256)).max() <= 1


def test_a_float_picture_with_holes_and_negative_values_is_black_there(tmp_path: Path) -> None:
    values = np.array([[np.nan, -5.0, 0.5, 1.0]], np.float32)
    Image.fromarray(values).save(tmp_path / "x.tif")
    assert list(open_upright(tmp_path / "x.tif").tobytes()) == [0, 0, 128, 255]


@pytest.mark.parametrize("side", [9_500, 14_000, 60_000])
def test_a_small_file_of_too_many_pixels_is_refused_before_it_is_unpacked(
    side: int, tmp_path: Path
) -> None:
    # A PNG whose header claims the pixels; 60,000 × 60,000 of them would be 10 GB.
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(bytes(1000)), b"IEND": b""}
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks.items():
        data += struct.pack(">I", len(body)) + kind + body
        data += struct.pack(">I", zlib.crc32(kind + body))
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(ValueError, match=f"too many pixels: .*{side**2} pixels"):
        open_rgb(tmp_path / "bomb.png")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(OSError, match="not a regular file"):
        open_rgb(tmp_path / "pipe.png")


def test_heic_opens_where_its_reader_is_installed(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    picture = Image.new("RGB", (64, 32), (200, 30, 30))
    heif.from_pillow(picture).save(tmp_path / "phone.HEIC")
    assert reader_to_install(tmp_path / "phone.HEIC") is None
    opened = open_rgb(tmp_path / "phone.HEIC")
    assert opened.size == (64, 32)
    pixel = opened.getpixel((30, 15))
    assert isinstance(pixel, tuple)
    assert pixel[0] > 150 > 60 > max(pixel[1:])


def test_a_format_without_its_reader_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import features

    monkeypatch.setattr(images, "find_spec", lambda name: None)
    monkeypatch.setattr(features, "check", lambda name: False)
    assert reader_to_install("phone.HEIC") == "pip install 'dti-geom[heic]'"
    assert reader_to_install("web.avif") == "pip install 'pillow>=11.3'"
    assert reader_to_install("photo.jpg") is None
