"""Print results on standard output, and notices on standard error."""

import codecs
import io
import json
import re
import sys
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.text import Text

from dti_geom.reporting.renderers import terminal
from dti_geom.reporting.renderers.terminal import filled, visible

if TYPE_CHECKING:
    from dti_geom.reporting.blocks import Section

# One character for one, so that columns stay aligned where the output has no Unicode.
_PLAIN = {"×": "x", "÷": "/", "–": "-", "—": "-", "−": "-", "…": ".", "“": '"', "”": '"', "’": "'"}
_PLAIN |= {"·": ".", "→": ">", "│": "|", "─": "-"}
_PLAIN |= dict.fromkeys("╭╮╰╯┌┐└┘├┤┬┴┼━╸╺", "-")

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

    print(escaped_json(dumps(result), sys.stdout.encoding or "utf-8"))


def escaped_json(text: str, encoding: str) -> str:
    """Return JSON of the same value, without characters that steer a terminal.

    Characters that the encoding lacks are escaped too.
    """
    return re.sub(r"[^\n -~]", lambda match: _escaped(match[0], encoding), text)


def _escaped(character: str, encoding: str) -> str:
    if character.isprintable() and character.encode(encoding, "ignore"):
        return character
    return json.dumps(character)[1:-1]


def accept_any_text(stream: TextIO) -> None:
    """Let a stream write what its encoding lacks in plain characters, or escaped."""
    if isinstance(stream, io.TextIOWrapper):
        codecs.register_error("plain", _in_plain)
        stream.reconfigure(errors="plain")


def _in_plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    parts = [
        _PLAIN.get(character, character.encode("ascii", "backslashreplace").decode())
        for character in error.object[error.start : error.end]
    ]
    return "".join(parts), error.end


def print_section(section: "Section") -> None:
    """Print a result's sentences and tables."""
    terminal.print_section(_out, section)
    print_line()
