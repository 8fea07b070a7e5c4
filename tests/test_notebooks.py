"""Notebooks are committed without output, and a text precedes each cell; `make test` runs them."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_output_and_explains_each_cell(notebook: Path) -> None:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    assert cells[0]["cell_type"] == "markdown"
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    for before, cell in pairwise(cells):
        assert cell["cell_type"] == "markdown" or before["cell_type"] == "markdown"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_ends_with_exercises(notebook: Path) -> None:
    last = json.loads(notebook.read_text(encoding="utf-8"))["cells"][-1]
    assert "## Exercises" in "".join(last["source"])


def test_make_test_runs_the_notebooks() -> None:
    makefile = (FOLDER.parent / "Makefile").read_text(encoding="utf-8")
    assert NOTEBOOKS
    assert "--nbmake tests notebooks" in makefile


def test_notebooks_leave_nothing_beside_themselves() -> None:
    checkpoints = FOLDER / ".ipynb_checkpoints"  # JupyterLab's own
    assert [path for path in FOLDER.iterdir() if path not in (*NOTEBOOKS, checkpoints)] == []
