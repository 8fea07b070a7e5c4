"""Everything the README shows is run, and prints what the README says."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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


def test_the_effects_it_names_are_those_of_the_published_report():
    published = json.loads((ROOT / "reports" / "effects" / "result.json").read_text())["variants"]
    shares = {name: f"{100 * row['order']['share']:.1f} %" for name, row in published.items()}
    assert f"{shares['TI']} (TI), {shares['TI at the mean norm']} (rescaled), {shares['DTI']} (DTI)" in README
    assert f"TI {published['TI']['norm over mean']:.0f} times the mean norm" in README


def test_the_slopes_it_names_are_those_of_the_probe():
    from dti_geom.models import open_encoders
    from dti_geom.probes import encoder_attenuation

    measured = encoder_attenuation(open_encoders("mini", dtype=torch.float32)[0])
    slopes = (measured.share_slope, measured.distance_slope)
    assert "slopes −{:.3f} (variance) and −{:.3f} (distance)".format(*(abs(slope) for slope in slopes)) in README
