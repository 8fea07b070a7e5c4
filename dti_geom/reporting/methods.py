"""What a training method is called, and its colour, the same on every plot of every page."""

from collections.abc import Iterable

from dti_geom.reporting.plots import BLUE, GREEN, INK, MUTED, OLIVE, PURPLE, VERMILLION
from dti_geom.reporting.text import shown

LEARNED = "learned"  # what a vector is called whose file does not say how it was learned
# Methods that people compare most, and what stands for no method. BLUE stays for the vocabulary.
_COLORS = {
    "ti": VERMILLION,
    "dti": GREEN,
    "ti-rescaled": PURPLE,
    "crossinit": OLIVE,
    "class word": MUTED,
}
_OTHERS = (BLUE, INK, OLIVE, PURPLE, MUTED, GREEN, VERMILLION)
COLORS = len(_OTHERS)
_NAMES = {"ti": "TI", "dti": "DTI"}


def method_name(method: str) -> str:
    """Return what a page calls a method, such as “TI” for ti. Any file may name any method."""
    return _NAMES.get(method, shown(method))


def method_colors(methods: Iterable[str]) -> dict[str, str]:
    """Return the colour of every method or label of one figure.

    A known method has its own colour everywhere. Others take those that are left, in their order;
    after `COLORS` they repeat.
    """
    methods = list(dict.fromkeys(methods))
    taken = {_COLORS[method] for method in methods if method in _COLORS}
    left = [color for color in _OTHERS if color not in taken] or list(_OTHERS)
    others = [method for method in methods if method not in _COLORS]
    return _COLORS | {method: left[at % len(left)] for at, method in enumerate(others)}


def learned_color(method: str | None) -> str:
    """Return the colour of a learned vector. method: as its file says; None where it does not."""
    return VERMILLION if method is None else method_colors([method])[method]
