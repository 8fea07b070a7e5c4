"""Write the command reference from the app itself.

python -m dti_geom_cli.reference > cli/README.md
"""

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer

from .main import app

INTRODUCTION = """# Commands

Results go to standard output, progress and notices to standard error.
This page is generated from the commands by `python -m dti_geom_cli.reference > cli/README.md`;
a test checks that it is current.
"""
# What stands for a value in an option without a metavar.
NAMES = {str: "TEXT", int: "INTEGER", float: "NUMBER", Path: "PATH"}


def reference() -> str:
    """Return every command as Markdown: purpose, usage, arguments, options, defaults, example."""
    sections = [_section(path, command) for path, command in _commands("dti-geom", _root())]
    return "\n".join([INTRODUCTION, *sections])


def _root() -> Any:
    return typer.main.get_command(app)


def _commands(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yield a command and its subcommands, with the words that call them."""
    yield path, command
    for name, subcommand in getattr(command, "commands", {}).items():
        yield from _commands(f"{path} {name}", subcommand)


def _section(path: str, command: Any) -> str:
    hints = get_type_hints(command.callback) if command.callback else {}
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option"]
    usage = [path, *(["[OPTIONS]"] if options else []), *map(_argument, arguments)]
    usage += ["COMMAND"] if hasattr(command, "commands") else []
    rows = [(f"`{_argument(argument)}`", argument) for argument in arguments]
    rows += [(f"`{_option(option, hints[option.name])}`", option) for option in options]
    lines = [
        f"## {path}",
        "",
        *(_prose(part) + "\n" for part in (command.help or "").split("\n\n")),
        f"    {' '.join(usage)}",
    ]
    if rows:
        lines += ["", "| | | default |", "|---|---|---|"]
        lines += [
            f"| {_cell(name)} | {_cell(_prose(param.help or ''))} | {_default(param)} |"
            for name, param in rows
        ]
    if command.epilog:
        lines += ["", "```sh", command.epilog.removeprefix("Example: "), "```"]
    return "\n".join([*lines, ""])


def _argument(argument: Any) -> str:
    name = (argument.metavar or argument.name.upper()).rstrip(".…")
    # A metavar with spaces, such as "A B [C D]", shows the number of values itself.
    name += "…" if argument.nargs == -1 and " " not in name else ""
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _option(option: Any, hint: Any) -> str:
    return " ".join(filter(None, (", ".join(option.opts), option.metavar or _value(hint))))


def _value(hint: Any) -> str:
    """Return what stands for an option's value; nothing for a flag."""
    if get_origin(hint) is Literal:
        return "|".join(get_args(hint))
    if inner := [part for part in get_args(hint) if part is not NoneType]:  # X | None, list[X]
        return _value(inner[0])
    if issubclass(hint, Enum):
        return "|".join(member.value for member in hint)
    return "" if hint is bool else NAMES[hint]


def _default(option: Any) -> str:
    if option.required:
        return "required"
    if option.default in (None, False, ""):
        return ""
    return f"`{option.default.value if isinstance(option.default, Enum) else option.default}`"


def _prose(text: str) -> str:
    """Return the text on one line, with characters of Markdown escaped outside code."""
    parts = " ".join(text.split()).split("`")
    return "`".join(
        part if at % 2 else part.replace("<", "\\<").replace("*", "\\*")
        for at, part in enumerate(parts)
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(reference(), end="")
