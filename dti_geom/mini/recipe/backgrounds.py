"""Twelve drawn backgrounds.

Everything is drawn three times too large and scaled down, which gives soft edges without pixel
noise. An autoencoder with 16×16 latents cannot keep noise, and its signal-to-noise ratio would
measure nothing else.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from dti_geom.mini.domain import BACKGROUND_NAMES

PIXELS = 64
SCALE = 3
SIDE = PIXELS * SCALE

Colour = tuple[int, int, int]
Rng = np.random.Generator


def _blend(a: Colour, b: Colour, share: float) -> Colour:
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


def _shaded(colour: Colour, amount: float) -> Colour:
    """`amount` below 0 is darker, above 0 lighter."""
    return _blend(colour, (255, 255, 255) if amount > 0 else (0, 0, 0), abs(amount))


def _sky(top: Colour, bottom: Colour) -> Image.Image:
    ramp = np.linspace(0, 1, SIDE)[:, None, None]
    rows = np.array(top) * (1 - ramp) + np.array(bottom) * ramp
    return Image.fromarray(np.broadcast_to(rows, (SIDE, SIDE, 3)).round().astype(np.uint8))


def _hill(picture: Image.Image, colour: Colour, height: float, swing: float, rng: Rng) -> None:
    """Fill everything below a wavy line; height and swing in shares of the side."""
    phase, length = rng.uniform(0, 6.28), rng.uniform(0.5, 1.1)
    line = [
        (x, SIDE * (height + swing * np.sin(phase + 6.28 * x / SIDE / length)))
        for x in range(0, SIDE + 8, 8)
    ]
    ImageDraw.Draw(picture).polygon([*line, (SIDE + 8, SIDE), (0, SIDE)], fill=colour)


def _dots(
    picture: Image.Image, count: int, radius: tuple[float, float], colour: Colour, rng: Rng
) -> None:
    draw = ImageDraw.Draw(picture)
    for x, y in rng.uniform(0, SIDE, (count, 2)):
        r = rng.uniform(*radius) * SCALE
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)


def snow(rng: Rng) -> Image.Image:
    """Pale sky, white ground, a few flakes."""
    picture = _sky((170, 200, 230), (215, 230, 245))
    _hill(picture, (243, 247, 253), rng.uniform(0.5, 0.6), 0.03, rng)
    _dots(picture, 14, (0.9, 1.3), (255, 255, 255), rng)
    return picture


def beach(rng: Rng) -> Image.Image:
    """Sky, a strip of sea, sand."""
    picture = _sky((110, 195, 250), (175, 228, 250))
    shore = rng.uniform(0.48, 0.58)
    ImageDraw.Draw(picture).rectangle((0, SIDE * (shore - 0.14), SIDE, SIDE), fill=(35, 135, 200))
    _hill(picture, (240, 217, 160), shore, 0.015, rng)
    return picture


def meadow(rng: Rng) -> Image.Image:
    """Blue sky over two green slopes."""
    picture = _sky((130, 200, 250), (205, 232, 250))
    height = rng.uniform(0.42, 0.52)
    _hill(picture, (120, 195, 85), height, 0.03, rng)
    _hill(picture, (85, 172, 62), height + 0.18, 0.03, rng)
    return picture


def night(rng: Rng) -> Image.Image:
    """Dark sky with stars and sometimes a moon."""
    picture = _sky((10, 12, 42), (38, 38, 92))
    _dots(picture, 16, (0.7, 1.1), (255, 255, 215), rng)
    if rng.random() < 0.5:
        x, y = rng.uniform(0.08, 0.8) * SIDE, rng.uniform(0.05, 0.15) * SIDE
        ImageDraw.Draw(picture).ellipse(
            (x, y, x + 0.14 * SIDE, y + 0.14 * SIDE), fill=(250, 245, 205)
        )
    return picture


def brick(rng: Rng) -> Image.Image:
    """Red bricks in pale mortar; the bond starts at one of a few offsets."""
    picture = Image.new("RGB", (SIDE, SIDE), (205, 185, 172))
    draw = ImageDraw.Draw(picture)
    width, height, gap = 16 * SCALE, 8 * SCALE, SCALE
    start = int(rng.integers(0, 4)) * 4 * SCALE
    for row in range(PIXELS // 8):
        for x in range(-start - (row % 2) * width // 2, SIDE, width):
            shade = _shaded((172, 78, 62), rng.uniform(-0.1, 0.1))
            draw.rectangle(
                (x, row * height, x + width - gap - 1, (row + 1) * height - gap - 1), fill=shade
            )
    return picture


def wood(rng: Rng) -> Image.Image:
    """Wide planks with dark joints."""
    picture = Image.new("RGB", (SIDE, SIDE))
    draw = ImageDraw.Draw(picture)
    top = -int(rng.integers(0, 12)) * SCALE
    while top < SIDE:
        plank = 12 * SCALE
        shade = _shaded((178, 122, 70), rng.uniform(-0.1, 0.1))
        draw.rectangle((0, top, SIDE, top + plank), fill=shade)
        draw.rectangle((0, top, SIDE, top + SCALE), fill=(118, 76, 42))
        top += plank
    return picture


def ocean(rng: Rng) -> Image.Image:
    """Broad swell, darker below."""
    picture = _sky((45, 140, 215), (12, 62, 135))
    for height in np.arange(0.08, 1.0, 0.14):
        base = _blend((70, 165, 230), (18, 75, 150), float(height))
        _hill(picture, base, float(height + rng.uniform(-0.02, 0.02)), 0.02, rng)
        _hill(
            picture,
            _blend((45, 140, 215), (12, 62, 135), float(height)),
            float(height) + 0.05,
            0.02,
            rng,
        )
    return picture


def desert(rng: Rng) -> Image.Image:
    """Orange sky over two dunes."""
    picture = _sky((250, 180, 110), (255, 228, 175))
    height = rng.uniform(0.42, 0.54)
    _hill(picture, (236, 182, 98), height, 0.05, rng)
    _hill(picture, (214, 150, 70), height + 0.18, 0.06, rng)
    return picture


def forest(rng: Rng) -> Image.Image:
    """Rows of firs in the dark."""
    picture = _sky((70, 120, 82), (38, 78, 48))
    draw = ImageDraw.Draw(picture)
    for step, foot in enumerate((0.62, 0.8)):
        for x in np.arange(-0.1, 1.0, 0.22) + rng.uniform(-0.05, 0.05):
            left, width = (x + 0.11 * step) * SIDE, 0.24 * SIDE
            bottom, top = foot * SIDE, (foot - rng.uniform(0.5, 0.62)) * SIDE
            draw.rectangle(
                (left + width * 0.42, bottom, left + width * 0.58, bottom + 0.12 * SIDE),
                fill=(84, 56, 36),
            )
            draw.polygon(
                [(left, bottom), (left + width, bottom), (left + width / 2, top)],
                fill=(24, 78 + 22 * step, 42),
            )
    return picture


def city(rng: Rng) -> Image.Image:
    """Grey towers with lit windows, a street below."""
    picture = _sky((150, 175, 208), (222, 218, 212))
    draw = ImageDraw.Draw(picture)
    left = -int(rng.integers(0, 10)) * SCALE
    while left < SIDE:
        width, top = 12 * SCALE, int(rng.integers(3, 9)) * 4 * SCALE
        grey = int(rng.integers(84, 112))
        draw.rectangle((left, top, left + width, SIDE), fill=(grey, grey, grey + 14))
        for y in range(top + 3 * SCALE, 50 * SCALE, 6 * SCALE):
            for x in (left + 2 * SCALE, left + 7 * SCALE):
                draw.rectangle((x, y, x + 3 * SCALE - 1, y + 3 * SCALE - 1), fill=(245, 220, 130))
        left += width + SCALE
    draw.rectangle((0, 52 * SCALE, SIDE, SIDE), fill=(76, 76, 82))
    return picture


def mountains(rng: Rng) -> Image.Image:
    """Blue-grey peaks with snow caps over a green foot."""
    picture = _sky((150, 205, 240), (225, 238, 245))
    draw = ImageDraw.Draw(picture)
    for centre in np.array((0.12, 0.55, 0.95)) + rng.uniform(-0.08, 0.08, 3):
        top, half = rng.uniform(0.12, 0.3), rng.uniform(0.36, 0.46)
        peak, left, right = (centre, top), (centre - half, 0.8), (centre + half, 0.8)
        draw.polygon([(x * SIDE, y * SIDE) for x, y in (peak, right, left)], fill=(112, 122, 148))
        cap = 0.28
        corners = [
            (peak[0] + cap * (x - peak[0]), peak[1] + cap * (y - peak[1])) for x, y in (right, left)
        ]
        draw.polygon([(x * SIDE, y * SIDE) for x, y in (peak, *corners)], fill=(245, 248, 252))
    _hill(picture, (120, 150, 96), 0.76, 0.02, rng)
    return picture


def white(rng: Rng) -> Image.Image:
    """Plain, almost white."""
    level = int(rng.integers(244, 253))
    return Image.new("RGB", (SIDE, SIDE), (level, level, level))


PAINTERS: dict[str, Callable[[Rng], Image.Image]] = {
    painter.__name__: painter
    for painter in (
        snow,
        beach,
        meadow,
        night,
        brick,
        wood,
        ocean,
        desert,
        forest,
        city,
        mountains,
        white,
    )
}
assert tuple(PAINTERS) == BACKGROUND_NAMES


def paint(name: str, rng: Rng) -> Image.Image:
    """One 64×64 RGB picture of the named background."""
    return PAINTERS[name](rng).resize((PIXELS, PIXELS), Image.Resampling.BOX)
