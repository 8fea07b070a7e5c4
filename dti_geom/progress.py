"""How long work reports how far it is."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # a name for the work, units done, units in all


def silent(_name: str, _done: int, _total: int) -> None:
    """Ignore progress; the default listener."""
