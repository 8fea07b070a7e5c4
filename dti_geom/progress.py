"""How long work reports how far it is, and what users should know meanwhile."""

import logging
from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # a name for the work, units done, units in all


def silent(_name: str, _done: int, _total: int) -> None:
    """Ignore progress; the default listener."""


def notice(message: str) -> None:
    """Tell the user something that is no error; the command line prints it in yellow.

    It goes to the logger `dti_geom`. Without a handler Python prints it on standard error.
    """
    logging.getLogger("dti_geom").warning(message)
