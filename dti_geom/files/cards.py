"""Embedding cards: PNG pictures that carry a web UI's embedding.

A card holds the embedding twice. The text chunk `sd-ti-embedding` is base64 of JSON, where a tensor
is {"TORCHTENSOR": nested lists}. Older cards have the pixels alone: the same JSON, compressed by
zlib, in two blocks of pixels beside the picture. The low four bits of each value count. The left
block has the low halves of the bytes and the right block the high halves, both XORed with a fixed
sequence. A black column stands at either side of the picture.
"""

import base64
import binascii
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dti_geom.errors import first_line
from dti_geom.files.refusals import EXPECTED, MAX_TENSORS, WHOLE, Refused, shown

PNG = b"\x89PNG\r\n\x1a\n"
TEXT_KEY = "sd-ti-embedding"
CARD_START = 1024  # first bytes of a file, in which the text chunk begins
MAX_PIXELS = 2 * 2**20  # of a card that is decoded; cards of web UIs have a third of it
MAX_JSON = 8 * 2**20  # bytes of JSON; 75 vectors of width 1280 have 2 MB
MAX_NUMBERS = 2**18  # values of a card: 204 vectors of width 1280
_TENSOR = "TORCHTENSOR"
_CHANNELS = 3
_PICTURE = 512  # pixels of the side of a written card's picture
_NOT_A_CARD = (
    f"Expected an embedding card, with the text {TEXT_KEY} or its two blocks of pixels. A picture "
    "that was edited or saved again has lost them."
)


class Card(dict[str, Any]):
    """The content of a card: that of a web UI's .pt file."""


def has_card_text(start: bytes) -> bool:
    """Return whether the first bytes of a file are those of a PNG with an embedding's text."""
    return start.startswith(PNG) and TEXT_KEY.encode() in start


def read_card(data: bytes) -> Card:
    """Return the content of a web UI's embedding file from the bytes of a PNG. Raises Refused."""
    for kind, chunk in _chunks(data):
        if kind == b"tEXt" and chunk.startswith(TEXT_KEY.encode() + b"\0"):
            return _decoded(_from_base64(chunk[len(TEXT_KEY) + 1 :]))
    return _decoded(_from_pixels(data))


def write_card(content: Mapping[str, Any], title: str) -> bytes:
    """Return a PNG that carries a web UI's embedding as text and as pixels.

    content: as in a web UI's .pt file, of tensors and plain values. title: written on the picture.
    """
    from PIL import Image, ImageDraw
    from PIL.PngImagePlugin import PngInfo

    text = json.dumps(content, default=_listed).encode()
    picture = Image.new("RGB", (_PICTURE, _PICTURE), (232, 232, 224))
    ImageDraw.Draw(picture).text((16, 16), shown(title).encode("ascii", "replace"), (32, 32, 32))
    low, high = _blocks(zlib.compress(text, 9), _PICTURE)
    width = low.shape[1] + 1
    card = Image.new("RGB", (picture.width + 2 * width, _PICTURE))
    card.paste(Image.fromarray(low), (0, 0))
    card.paste(picture, (width, 0))
    card.paste(Image.fromarray(high), (width + picture.width + 1, 0))
    info = PngInfo()
    info.add_text(TEXT_KEY, base64.b64encode(text).decode())
    stream = io.BytesIO()
    card.save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


# --- Text ---


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and content of a PNG's chunks. Raises Refused where one is cut short."""
    place = len(PNG)
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        kind = data[place + 4 : place + 8]
        end = place + 12 + length  # a length, a type, the content and a checksum
        checksum = zlib.crc32(data[place + 4 : end - 4])
        if end > len(data) or checksum != int.from_bytes(data[end - 4 : end], "big"):
            raise Refused("is an image that is damaged or cut short", WHOLE)
        yield kind, data[place + 8 : end - 4]
        if kind == b"IEND":
            return
        place = end


def _from_base64(text: bytes) -> bytes:
    if len(text) > MAX_JSON // 3 * 4:
        raise Refused("is a card with more text than an embedding has")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise Refused(f"is a card whose text is damaged ({first_line(error)})", WHOLE) from error


def _decoded(text: bytes) -> Card:
    # Counted before it is parsed: JSON takes up to thirty times its size in memory.
    brackets = text.count(b"[") + text.count(b"{")
    if len(text) > MAX_JSON or text.count(b",") > MAX_NUMBERS or brackets > 4 * MAX_TENSORS:
        raise Refused("is a card with more numbers than an embedding has")
    try:
        content = json.loads(text, object_hook=_tensor_or_dict)
    except Refused:
        raise
    except Exception as error:  # any exception of the parser means that the text is damaged
        raise Refused(f"is a card that is damaged ({shown(first_line(error))})", WHOLE) from error
    if not isinstance(content, dict):
        raise Refused("is a card without an embedding", EXPECTED)
    return Card(content)


def _tensor_or_dict(values: dict[str, Any]) -> Any:
    if _TENSOR not in values:
        return values
    # In float32, which is what the web UI computes in: JSON has the digits of float64.
    with np.errstate(over="ignore"):  # too large a number becomes infinite, and is refused as that
        return torch.from_numpy(np.array(values[_TENSOR], dtype=np.float32))


def _listed(value: Any) -> Any:
    if not isinstance(value, Tensor):
        raise TypeError(f"a {type(value).__name__} has no place on a card")
    return {_TENSOR: value.tolist()}


# --- Pixels ---


def _from_pixels(data: bytes) -> bytes:
    columns = _pixels(data) & 0x0F
    black = np.flatnonzero(columns.sum(axis=(0, 2), dtype=np.int64) == 0)
    if len(black) < 2:
        raise Refused("is an image without an embedding in it", _NOT_A_CARD)
    low, high = columns[:, : black[0]], columns[:, black[-1] + 1 :]
    if low.shape != high.shape or not low.size:
        raise Refused("is an image without an embedding in it", _NOT_A_CARD)
    sequence = _sequence(low.size).reshape(low.shape)
    packed = ((high ^ sequence) << 4 | (low ^ sequence)).tobytes()
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(packed, MAX_JSON + 1)
    except zlib.error as error:
        raise Refused("is an image without an embedding in it", _NOT_A_CARD) from error
    if not inflater.eof:
        raise Refused("is a card whose pixels are damaged or hold too much", WHOLE)
    return text


def _pixels(data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the pixels inside the black border, (height, width, 3)."""
    from PIL import Image

    width, height = (int.from_bytes(data[place : place + 4], "big") for place in (16, 20))
    if width * height > MAX_PIXELS:
        raise Refused(f"is an image of {width} × {height} pixels, larger than any card")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            pixels = np.asarray(image.convert("RGB"))
    except Exception as error:  # any exception of the decoder means that the image is damaged
        raise Refused("is an image that is damaged or cut short", WHOLE) from error
    bright = np.min(pixels, axis=2)
    rows, columns = (np.flatnonzero(np.max(bright, axis=axis)) for axis in (1, 0))
    if not len(rows):
        raise Refused("is an image without an embedding in it", _NOT_A_CARD)
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _blocks(
    packed: bytes, height: int
) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], np.ndarray[Any, np.dtype[np.uint8]]]:
    """Return the low and the high halves of bytes as two blocks of pixels, (height, w, 3)."""
    values = np.frombuffer(packed, np.uint8)
    width = -(-len(values) // (height * _CHANNELS))
    # The rest of the block repeats the bytes: a decoder stops where the compressed text ends.
    values = np.resize(values, (height, width, _CHANNELS))
    sequence = _sequence(values.size).reshape(values.shape)
    # A high half of 8 keeps every pixel of a block from being black.
    return tuple((half ^ sequence) | 0x80 for half in (values & 0x0F, values >> 4))  # type: ignore[return-value]


def _sequence(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the fixed sequence of four-bit numbers that blocks are XORed with, (count,).

    It comes from a linear congruential generator modulo 2³², as which uint32 wraps around.
    """
    factor, addend = 1664525, 1013904223
    seeds = np.array([addend], np.uint32)
    while len(seeds) < count:
        seeds = np.concatenate([seeds, seeds * np.uint32(factor) + np.uint32(addend)])
        # The same step, taken twice as often.
        factor, addend = factor * factor % 2**32, (factor + 1) * addend % 2**32
    return (seeds[:count] % 255 & 0x0F).astype(np.uint8)
