"""Notebooks run from top to bottom, and are committed without output."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(notebook, tmp_path):
    jupyter_execute = Path(sys.executable).parent / "jupyter-execute"
    command = [jupyter_execute, "--timeout=120", f"--output={tmp_path / 'run.ipynb'}", notebook]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_output_and_explains_each_cell(notebook):
    cells = json.loads(notebook.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    for before, cell in pairwise(cells):
        assert cell["cell_type"] == "markdown" or before["cell_type"] == "markdown"


def test_there_are_notebooks():
    assert NOTEBOOKS
