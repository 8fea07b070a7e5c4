"""Pictures in and out of files: opening, shrinking, and embedding in a page.

    picture = open_rgb("photo.jpg")
    uri = png_uri(thumbnail(picture, 96))

Pillow is loaded when a function runs, so that importing this module costs nothing.
"""

import base64
import io
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

HEIC = (".heic", ".heif")  # read by pillow-heif, where it is installed
SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"),
    *HEIC,
)
BROKEN = (OSError, ValueError, SyntaxError)  # what Pillow raises for a file that is no image

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_PREFIX = "data:image/png;base64,"


def reader_to_install(path: str | Path) -> str | None:
    """Return the command that installs what opens this kind of picture; None where it is here."""
    from PIL import features

    suffix = Path(path).suffix.lower()
    if suffix in HEIC and find_spec("pillow_heif") is None:
        return "pip install 'dti-geom[heic]'"
    if suffix == ".avif" and not features.check("avif"):
        return "pip install 'pillow>=11.3'"
    return None


def open_rgb(path: str | Path) -> "Image":
    """Open an image file in RGB, upright and opaque.

    The orientation that the camera wrote into EXIF is applied. Transparent pixels are laid on
    white. Raises one of `BROKEN` for a file that is missing or is no image.
    """
    from PIL import Image

    picture = open_upright(path)
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB")


def open_upright(path: str | Path) -> "Image":
    """Open an image file in its own mode, with its EXIF orientation applied.

    Grey values of more than 8 bits are scaled to 8. Raises one of `BROKEN` for a file that is
    missing, is no image, or has more pixels than Pillow takes for safe (89 million).
    """
    from PIL import Image, ImageOps

    if not Path(path).exists():
        raise FileNotFoundError("does not exist")
    if not Path(path).is_file():  # a pipe would be waited for
        raise OSError("not a regular file")
    if Path(path).suffix.lower() in HEIC and reader_to_install(path) is None:
        from pillow_heif import register_heif_opener

        register_heif_opener()
    with warnings.catch_warnings():
        # Pillow warns of a large image, and raises for one of twice that size.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as opened:
                picture = ImageOps.exif_transpose(opened)
                picture.load()  # before the file is closed
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ValueError(f"too many pixels: {error}") from error
    return _in_8_bits(picture) if picture.mode.startswith(("I", "F")) else picture


def _in_8_bits(picture: "Image") -> "Image":
    """Return a grey picture of 16 or 32 bits or of floats in 8 bits; Pillow would clip it to white.

    Its white is 65535, or 1 for floats. Where a value is above that, white is the largest value.
    """
    import numpy as np
    from PIL import Image

    values = np.nan_to_num(np.asarray(picture, np.float32))
    white = max(1 if picture.mode == "F" else 65535, values.max())
    return Image.fromarray((values.clip(0) / white * 255).round().astype(np.uint8))


def thumbnail(picture: "Image", side: int) -> "Image":
    """Return a copy that fits into a square of `side` pixels, with its proportions kept.

    A picture that fits already keeps its size.
    """
    small = picture.copy()
    small.thumbnail((side, side))
    return small


def png_bytes(picture: "Image") -> bytes:
    """Return a picture as the bytes of a PNG file."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def png_base64(picture: "Image") -> str:
    """Return a picture as a PNG file in base64, without the prefix of a data URI."""
    return base64.b64encode(png_bytes(picture)).decode()


def png_uri(picture: "Image | bytes") -> str:
    """Return a data URI of a picture, or of the bytes of a PNG file, for `<img src=…>`.

    Raises ValueError for bytes that are no PNG file.
    """
    data = picture if isinstance(picture, bytes) else png_bytes(picture)
    if not data.startswith(_PNG_SIGNATURE):
        raise ValueError("not a PNG file")
    return _PNG_PREFIX + base64.b64encode(data).decode()
