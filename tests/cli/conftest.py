import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def run() -> Run:
    """Runs `dti-geom …` as a process, 80 columns wide, without colour."""

    def run(
        *arguments: str | Path, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dti_geom_cli", *map(str, arguments)]
        env = os.environ | {"NO_COLOR": "1", "COLUMNS": "80"} | environment
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False, cwd=cwd, env=env
        )

    return run


@pytest.fixture(scope="session")
def run_json(run: Run) -> Callable[..., Any]:
    """Runs a command with --json and parses what it printed, which must be JSON and nothing else."""

    def run_json(*arguments: str | Path) -> Any:
        done = run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run_json


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of learned embeddings: one that fits the tiny towers, one that does not."""
    folder = tmp_path_factory.mktemp("learned")
    torch.save({"<mine>": torch.full((32,), 1.0)}, folder / "mine.bin")
    torch.save(
        {"<script>alert(1)</script>": torch.full((768,), 0.5)}, folder / "hostile-step-500.bin"
    )
    return folder


@pytest.fixture(scope="session")
def table_lines() -> Callable[[str], list[str]]:
    """What a command prints, without the lines that hold a path: a path is never broken."""
    return lambda text: [line for line in text.splitlines() if "/" not in line]


@pytest.fixture(scope="session")
def flowing() -> Callable[[str], str]:
    """What a command prints as one line, however it was wrapped."""
    return lambda text: " ".join(text.split())
