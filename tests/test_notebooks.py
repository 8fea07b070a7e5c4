"""Notebooks have light outputs, and a text precedes each cell; `make test` runs them."""

import importlib.util
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import nbformat
import pytest

from prose import share

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LIGHT = 1_000_000  # bytes of a notebook with its outputs, at most


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request: pytest.FixtureRequest) -> Any:
    return nbformat.read(request.param, as_version=4)  # type: ignore[no-untyped-call]


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def test_a_text_explains_each_cell(notebook: Any) -> None:
    assert notebook.cells[0].cell_type == "markdown"
    for before, cell in pairwise(notebook.cells):
        assert cell.cell_type == "markdown" or before.cell_type == "markdown"


def test_the_outputs_are_those_of_the_code(notebook: Any) -> None:
    place = FOLDER.parent / "docs" / "execute_notebooks.py"
    spec = importlib.util.spec_from_file_location("execute_notebooks", place)
    assert spec is not None
    assert spec.loader is not None
    executor = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(executor)
    assert notebook.metadata.get("executed") == executor.fingerprint(notebook), "make notebooks"


def test_the_outputs_read_on_the_web(notebook: Any) -> None:
    found = outputs(notebook)
    assert found
    assert not any(output.output_type == "error" for output in found)
    drawn = {kind for output in found for kind in output.get("data", {})}
    assert drawn <= {"text/plain", "text/html", "image/png", "image/jpeg", "image/gif"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_light_and_names_no_folder_of_a_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text) < LIGHT
    assert not any(place in text for place in ("/tmp/", "/home/", "/root/", "/work/"))


def test_a_notebook_ends_with_exercises(notebook: Any) -> None:
    assert "## Exercises" in notebook.cells[-1].source


def test_the_likeness_that_shortening_costs_is_that_of_the_published_report() -> None:
    dial = json.loads((FOLDER.parent / "reports" / "dial" / "gain-64.json").read_text())
    variants = dial["gains"][0]["variants"]
    long, short = (
        share(variants[name]["likeness"]["mean"])
        for name in ("TI, decay 0.01", "TI, decay 0.01, at the mean norm")
    )
    text = (FOLDER / "00_why_norms_matter.ipynb").read_text(encoding="utf-8")
    assert f"likeness from {long} to {short} on this variant" in text


def test_make_test_runs_the_notebooks() -> None:
    makefile = (FOLDER.parent / "Makefile").read_text(encoding="utf-8")
    assert NOTEBOOKS
    assert "--nbmake tests notebooks" in makefile


def test_notebooks_leave_nothing_beside_themselves() -> None:
    checkpoints = FOLDER / ".ipynb_checkpoints"  # JupyterLab's own
    assert [path for path in FOLDER.iterdir() if path not in (*NOTEBOOKS, checkpoints)] == []
