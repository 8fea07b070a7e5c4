"""Everything the README shows is run, and prints what the README says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONSOLE = re.findall(r"```console\n\$ (dti-geom [^\n]*)\n(.*?)```", README, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


@pytest.mark.parametrize(("command", "expected"), CONSOLE, ids=[command for command, _ in CONSOLE])
def test_a_command_prints_what_the_readme_shows(command, expected, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    arguments = [sys.executable, "-m", "dti_geom_cli", *command.split()[1:]]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=120)
    assert lines(done.stdout) == lines(expected)


@pytest.mark.parametrize(("code", "expected"), PYTHON)
def test_a_snippet_prints_what_the_readme_shows(code, expected):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert lines(done.stdout) == lines(expected)


def test_there_is_something_to_run_and_every_command_is_listed():
    from dti_geom_cli.main import COMMANDS

    assert CONSOLE
    assert PYTHON
    for command in COMMANDS:
        assert f"| `dti-geom {command.__name__}" in README


def test_files_the_readme_names_exist():
    for name in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (ROOT / name).exists(), name
