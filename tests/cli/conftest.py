import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import warm
from warm import Completed, Run, RunJson


@pytest.fixture(scope="session")
def run() -> Run:
    """Run `dti-geom …` as a process, 80 columns wide, without colour (see tests/warm.py)."""

    def run(
        *arguments: object, cwd: Path | None = None, timeout: float = 300, **environment: str
    ) -> Completed:
        env = os.environ | {"NO_COLOR": "1", "COLUMNS": "80"} | environment
        return warm.run(*arguments, cwd=cwd, env=env, timeout=timeout)

    return run


@pytest.fixture(scope="session")
def run_json(run: Run) -> RunJson:
    """Run a command with --json and parse its standard output, which must be only JSON."""

    def run_json(*arguments: object) -> Any:
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
    """Return the printed lines without those that hold a path, which is never broken over lines."""
    return lambda text: [line for line in text.splitlines() if "/" not in line]


@pytest.fixture(scope="session")
def flowing() -> Callable[[str], str]:
    """Join what a command printed into one line, however it was wrapped."""
    return lambda text: " ".join(text.split())
