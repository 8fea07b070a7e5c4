"""A forked command is a process like one that an interpreter was started for."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

import warm

pytestmark = pytest.mark.skipif(not warm.SUPPORTED, reason="commands are not forked on this system")
TEN_THOUSAND_STEPS = ("train", "--concept", "round-teapot", "--steps", "10000", "--out", "run")


@pytest.mark.parametrize(
    "arguments",
    [("--version",), ("nonsense",), ("norms", "--model", "sd1.5"), ("models", "--json")],
    ids=" ".join,
)
def test_a_fork_prints_and_exits_as_an_interpreter_does(arguments: tuple[str, ...]) -> None:
    env = os.environ | {"NO_COLOR": "1", "COLUMNS": "80"}
    forked, started = (
        warm.run(*arguments, env=env, interpreter=choice) for choice in (False, True)
    )
    assert vars(forked) == vars(started)


def test_each_command_has_its_own_environment_and_directory(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_bytes(b"no embedding")
    wide = warm.run("inspect", "mine.txt", cwd=tmp_path, env=os.environ | {"COLUMNS": "200"})
    assert "mine.txt" in wide.stdout + wide.stderr
    assert warm.run("inspect", "mine.txt").returncode == 1
    widths = []
    for columns in ("60", "100"):
        shown = warm.run("--help", env=os.environ | {"COLUMNS": columns})
        widths.append(max(map(len, shown.stdout.splitlines())))
    assert widths == [60, 100]


def test_a_command_can_be_killed_and_ends_with_its_signal(tmp_path: Path) -> None:
    with warm.Command(*TEN_THOUSAND_STEPS, cwd=tmp_path) as command:
        assert command.pid != os.getpid()
        assert command.poll() is None
        command.kill()
        assert command.wait() == -signal.SIGKILL
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_command_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        warm.run(*TEN_THOUSAND_STEPS, cwd=tmp_path, timeout=0.2)


def test_what_libraries_read_while_they_are_imported_needs_an_interpreter() -> None:
    parent = warm._parent()
    environment = dict(os.environ)
    assert parent.serves(environment | {"NO_COLOR": "1", "COLUMNS": "7"})
    assert parent.serves(environment | {"KMP_INIT_AT_FORK": "FALSE"})  # scikit-learn sets it
    assert parent.serves(environment | {"PYTHONBREAKPOINT": "x", "RAY_NUM_REDIS_GET_RETRIES": "2"})
    assert not parent.serves(environment | {"HF_HOME": "/elsewhere"})
    assert not parent.serves(environment | {"PYTHONHASHSEED": "1"})
