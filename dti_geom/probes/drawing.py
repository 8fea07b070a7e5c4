"""Results that draw themselves, in a layer that has never heard of a plotting library."""

from collections.abc import Callable
from typing import Any

_PAINTERS: dict[type, Callable[[Any], Any]] = {}


class Drawable:
    """A result with a figure. The figure functions live in `dti_geom.reporting`, which registers them here."""

    def figure(self) -> Any:
        """A plotly figure, the one the report shows. Raises RuntimeError before `dti_geom.reporting` is imported."""
        painter = _PAINTERS.get(type(self))
        if painter is None:
            raise RuntimeError(
                f"nothing is known yet that draws a {type(self).__name__}; run `import dti_geom.reporting` first."
            )
        return painter(self)


def draws(kind: type, painter: Callable[[Any], Any]) -> None:
    """Make this function the one that draws results of that type."""
    _PAINTERS[kind] = painter
