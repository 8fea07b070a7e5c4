"""Write numbers for people, and make strangers' text harmless for plots and sentences."""

import math
import re
from collections.abc import Sequence
from pathlib import PurePath

_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]"
)


def number(value: float | None, digits: int = 4) -> str:
    """Write a number with significant digits, and an integer in full: 0.3870, 49,408, 1.2×10⁻⁵.

    Trailing zeros are kept so that columns align. None is a dash.
    """
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = int(exponent)
    if -4 <= power < 6:
        return f"{value:,.{max(0, digits - 1 - power)}f}".replace("-", "−")
    return (
        f"{mantissa}×10{str(power).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}".replace(
            "-", "−"
        )
    )


def times(ratio: float) -> str:
    """Write a ratio as ×2.45."""
    return "×" + number(ratio, 3)


def degrees(angle: float) -> str:
    """Write an angle, given in radians, as 36.9°."""
    return f"{number(math.degrees(angle), 3)}°"


def spread(values: Sequence[float], prefix: str = "") -> str:
    """Write one value, or the range and number of several."""
    low, high = (prefix + number(value, 3) for value in (min(values), max(values)))
    span = high if low == high else f"{low} to {high}"
    return span if len(values) == 1 else f"{span}, {len(values)} vectors"


def percent(share: float) -> str:
    """Write a percentage; only exact values become 0 % and 100 %."""
    if 0 < share < 100:
        share = min(max(share, 0.01), 99.99)
    return f"{share:.4g} %"


def sentence(text: str, limit: int = 60) -> str:
    """Return text of our own on one line, as `shown`, without the isolates that `quoted` adds.

    For places that isolate their text themselves, such as <bdi> and attributes.
    """
    return shown(text.replace("\u2068", "").replace("\u2069", ""), limit)


def shown(text: str, limit: int = 60) -> str:
    """Return text on one line, shortened to `limit` characters.

    Characters that hide or reorder others, or are no text, are spelled out, such as \\u202e.
    """
    text = _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def quoted(text: str) -> str:
    """Quote a token in a sentence. A right-to-left token leaves the sentence in order."""
    return f"“\u2068{shown(text)}\u2069”"


def listed(parts: Sequence[str], most: int | None = None) -> str:
    """Write "a, b and c"; of more than `most`, the first and how many more: "a, b and 4 more"."""
    if most is not None and len(parts) > most:
        parts = [*parts[: most - 1], f"{len(parts) - most + 1} more"]
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def plot_text(text: str, limit: int = 40) -> str:
    """Escape text for plotly, which reads pseudo-HTML and, in notebooks, TeX between dollars."""
    text = shown(text, limit)
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("$", "&#36;")):
        text = text.replace(character, entity)
    return f"\u2068{text}\u2069"


def short_path(path: str) -> str:
    """Return the last folder and the file."""
    return "/".join(PurePath(path).parts[-2:])
