"""Print results on standard output, and notices on standard error."""

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from dti_geom.reporting.renderers import terminal
from dti_geom.reporting.renderers.terminal import filled, visible

if TYPE_CHECKING:
    from dti_geom.reporting.blocks import Section

_out = Console(highlight=False)
ERRORS = Console(stderr=True, highlight=False, soft_wrap=True)


def print_error(message: str) -> None:
    """Print one red message on standard error."""
    _print_message(f"error: {message}", "red")


def print_notice(message: str) -> None:
    """Print a notice on standard error; the command continues."""
    _print_message(message, "yellow")


def _print_message(message: str, style: str) -> None:
    # Only a terminal wants lines that fit it; a log keeps each message on one line.
    text = filled(message, ERRORS.width) if ERRORS.is_terminal else visible(message)
    ERRORS.print(Text(text, style=style))


def print_line(message: str = "", style: str = "") -> None:
    """Print a line of the result; tokens in it are text, never markup."""
    terminal.print_line(_out, message, style)


def print_json(result: Any) -> None:
    """Print the result as JSON and nothing else."""
    from dti_geom.files import dumps

    print(dumps(result))


def print_section(section: "Section") -> None:
    """Print a result's sentences and tables."""
    terminal.print_section(_out, section)
    print_line()
