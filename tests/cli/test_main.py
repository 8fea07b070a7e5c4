import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from dti_geom import __version__
from dti_geom_cli import main
from dti_geom_cli.main import COMMANDS, app
from dti_geom_cli.study import COMMANDS as STUDY_COMMANDS
from warm import Run


def test_version_is_printed(run: Run) -> None:
    assert run("--version").stdout == f"dti-geom {__version__}\n"


def test_wrong_usage_exits_with_2_and_errors_with_1(run: Run, sd15_folder: Path) -> None:
    assert run("norms", "--no-such-option").returncode == 2
    assert run("nonsense").returncode == 2
    wrong = run("norms", "--model", "sd1.5")
    assert wrong.returncode == 1
    assert wrong.stdout == ""
    assert "Did you mean 'sd15'?" in wrong.stderr
    assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize("arguments", [("--debug", "norms"), ("norms", "--debug")])
def test_a_traceback_is_shown_only_on_demand(run: Run, arguments: tuple[str, ...]) -> None:
    wrong = run(*arguments, "--model", "sd1.5")
    assert wrong.returncode == 1
    assert "Traceback" in wrong.stderr


EXAMPLES = {
    command: example for commands in COMMANDS.values() for command, example in commands.items()
}


def test_every_command_has_help_with_one_example_that_names_it(run: Run) -> None:
    listed = run("--help").stdout
    assert len(app.registered_commands) == len(EXAMPLES)
    for command, example in EXAMPLES.items():
        assert command.__name__ in listed
        assert example.startswith(f"dti-geom {command.__name__}")
        assert " ".join(run(command.__name__, "--help").stdout.split()).count("Example: ") == 1


@pytest.mark.parametrize("example", EXAMPLES.values())
def test_every_example_has_only_options_that_its_command_knows(example: str) -> None:
    name, *arguments = shlex.split(example)[1:]
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    group.commands[name].make_context(name, arguments)


@pytest.mark.parametrize("example", STUDY_COMMANDS.values())
def test_every_example_of_a_study_has_only_options_that_its_command_knows(example: str) -> None:
    name, subcommand, *arguments = shlex.split(example)[1:]
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    study = group.commands[name]
    assert isinstance(study, typer.core.TyperGroup)
    assert list(study.commands) == [each.__name__ for each in STUDY_COMMANDS]
    study.commands[subcommand].make_context(subcommand, arguments)


def test_help_lists_the_commands_by_purpose_and_none_without_one(run: Run) -> None:
    listed = run("--help").stdout
    for purpose in COMMANDS:
        assert f"─ {purpose} ─" in listed
    assert "─ Commands ─" not in listed


def test_output_into_a_closed_pipe_is_no_error(run: Run, sd15_folder: Path) -> None:
    line = f"{sys.executable} -m dti_geom_cli models | head -n 3"  # up to the names of the columns
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "name" in done.stdout


def test_no_colour_codes_reach_a_file(run: Run) -> None:
    assert "\x1b[" not in run("models").stdout


def test_missing_memory_is_no_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_options: object) -> None:
        raise MemoryError("Unable to allocate 7.45 GiB for an array")

    monkeypatch.setattr(main, "app", fail)
    monkeypatch.setattr(sys, "argv", ["dti-geom", "norms"])
    with pytest.raises(SystemExit, match="1"):
        main.main()
    printed = capsys.readouterr()
    assert "out of memory: 7.45 GiB" in printed.err
    assert "bug" not in printed.err
    assert not printed.out
