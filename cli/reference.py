"""The command reference, from the app itself: `python -m dti_geom_cli.reference > cli/README.md`."""

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer

from .main import app

INTRODUCTION = """# Commands

Written by `python -m dti_geom_cli.reference > cli/README.md`, which reads the app; a test holds it to that.
Results go to standard output, progress and notices to standard error.
"""
NAMES = {
    str: "TEXT",
    int: "INTEGER",
    float: "NUMBER",
    Path: "PATH",
}  # of values, where an option has no word of its own


def reference() -> str:
    """Every command as Markdown: what it answers, its usage, arguments and options with their defaults, an example."""
    return "\n".join(
        [INTRODUCTION, *(_section(path, one) for path, one in _commands("dti-geom", _root()))]
    )


def _root() -> Any:
    return typer.main.get_command(app)


def _commands(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    """A command and those below it, each with the words that call it."""
    yield path, command
    for name, one in getattr(command, "commands", {}).items():
        yield from _commands(f"{path} {name}", one)


def _section(path: str, command: Any) -> str:
    hints = get_type_hints(command.callback) if command.callback else {}
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option"]
    usage = [path, *(["[OPTIONS]"] if options else []), *map(_argument, arguments)]
    usage += ["COMMAND"] if hasattr(command, "commands") else []
    rows = [(f"`{_argument(one)}`", one) for one in arguments]
    rows += [(f"`{_option(one, hints[one.name])}`", one) for one in options]
    lines = [
        f"## {path}",
        "",
        *(_prose(part) + "\n" for part in (command.help or "").split("\n\n")),
        f"    {' '.join(usage)}",
    ]
    if rows:
        lines += ["", "| | | default |", "|---|---|---|"]
        lines += [
            " | ".join((f"| {_cell(name)}", _cell(_prose(one.help or "")), f"{_default(one)} |"))
            for name, one in rows
        ]
    if command.epilog:
        lines += ["", "```sh", command.epilog.removeprefix("Example: "), "```"]
    return "\n".join([*lines, ""])


def _argument(argument: Any) -> str:
    name = (argument.metavar or argument.name.upper()).rstrip(".…")
    name += (
        "…" if argument.nargs == -1 and " " not in name else ""
    )  # "A B [C D]" says itself how many
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _option(option: Any, hint: Any) -> str:
    return " ".join(filter(None, (", ".join(option.opts), option.metavar or _value(hint))))


def _value(hint: Any) -> str:
    """What stands for an option's value: nothing for a flag."""
    if get_origin(hint) is Literal:
        return "|".join(get_args(hint))
    if inner := [one for one in get_args(hint) if one is not NoneType]:  # X | None, list[X]
        return _value(inner[0])
    if issubclass(hint, Enum):
        return "|".join(one.value for one in hint)
    return "" if hint is bool else NAMES[hint]


def _default(option: Any) -> str:
    if option.required:
        return "required"
    if option.default in (None, False, ""):
        return ""
    return f"`{option.default.value if isinstance(option.default, Enum) else option.default}`"


def _prose(text: str) -> str:
    """On one line, with nothing in it that Markdown would take for markup, save code."""
    parts = " ".join(text.split()).split("`")
    return "`".join(
        part if at % 2 else part.replace("<", "\\<").replace("*", "\\*")
        for at, part in enumerate(parts)
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(reference(), end="")
