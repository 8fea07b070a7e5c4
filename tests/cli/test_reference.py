from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from dti_geom_cli.main import COMMANDS, app
from dti_geom_cli.reference import reference

COMMITTED = Path(__file__).parents[2] / "cli" / "README.md"


def test_the_committed_reference_is_that_of_the_app() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == reference(), "make reference"


def test_it_does_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    before = reference()
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert reference() == before
    assert "\x1b" not in before
    assert str(Path.home()) not in before


@pytest.mark.parametrize(
    "command", [command for commands in COMMANDS.values() for command in commands]
)
def test_every_command_has_all_its_options_and_its_example(command: Callable[..., None]) -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    called = group.commands[command.__name__]
    section = reference().split(f"\n## dti-geom {command.__name__}\n")[1].split("\n## ")[0]
    for parameter in called.params:
        for name in parameter.opts if parameter.param_type_name == "option" else ():
            assert name in section
    assert called.epilog is not None
    assert called.epilog.removeprefix("Example: ") in section


def test_what_must_be_given_and_what_may_be_chosen_is_said() -> None:
    section = reference().split("\n## dti-geom convert\n")[1].split("\n## ")[0]
    assert "dti-geom convert [OPTIONS] FILE|DIR…" in section
    assert "| `FILE\\|DIR…` | Embedding files, or folders of them. | required |" in section
    assert "| `--to same\\|diffusers\\|webui\\|" in section
    assert "| `--json` | Print the result as JSON, and nothing else. |  |" in section
    assert "| `--out, -o PATH` | Folder for the new files. | `converted` |" in section


def test_text_is_not_taken_for_markup() -> None:
    section = reference().split("\n## dti-geom train\n")[1].split("\n## ")[0]
    assert '"\\<x>=FOLDER:word"' in section
