"""The base of every result that is shown."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure


class Result:
    """A result that shows itself by the section that the page shows too.

    It prints as one line, and displays its sentences, tables and pictures in a notebook.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Keep the one line: a dataclass writes its own `__repr__` where its class has none."""
        super().__init_subclass__(**options)
        cls.__repr__ = Result.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        """Return the title and the first finding, on one line."""
        line: str = _renderer("objects").result_line(self)
        return line

    def _repr_html_(self) -> str:
        html: str = _renderer("notebook").result_html(self)
        return html

    def figure(self, which: int | str = 0) -> "Figure":
        """Return one of the plots, to show, change or save.

        which: its number from 0, or a part of its caption. Raises DtiGeomError, listing the plots
        that there are.
        """
        return _renderer("objects").result_figure(self, which)

    def table(self, which: int | str = 0) -> "DataFrame":
        """Return one of the tables as a pandas DataFrame, with all digits.

        which: its number from 0, or a part of its title. Raises DtiGeomError, listing the tables
        that there are, and where pandas is not installed.
        """
        return _renderer("objects").result_table(self, which)

    def to_json(self) -> str:
        """Return the result as JSON text, as `--json` prints it."""
        text: str = _renderer("objects").result_json(self)
        return text


def _renderer(name: str) -> Any:
    # Named, not imported: reporting lies above this layer.
    return importlib.import_module(f"dti_geom.reporting.renderers.{name}")
