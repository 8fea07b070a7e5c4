"""Execute the notebooks and keep light outputs in them, so that they read on the web.

    python docs/execute_notebooks.py [NOTEBOOK …]

Plots become pictures (PNG): interactive ones are drawn when a reader executes the notebook. `make
notebooks` calls this; a test says when a notebook has changed since.
"""

import os
import re
import sys
from hashlib import sha256
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"


def fingerprint(notebook: nbformat.NotebookNode) -> str:
    """Return a hash of the code that was executed."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return sha256("\0".join(code).encode()).hexdigest()[:16]


def execute(path: Path) -> None:
    """Execute a notebook in place."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, resources={"metadata": {"path": str(path.parent)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times, which would differ every time
        if cell.cell_type == "code":
            cell.outputs = [kept for kept in cell.outputs if kept.get("name") != "stderr"]
            for output in cell.outputs:
                if "image/jpeg" in output.get("data", {}):  # PIL gives both
                    del output["data"]["image/png"]
    notebook.metadata["executed"] = fingerprint(notebook)
    text = without_folders(nbformat.writes(notebook))
    path.write_text(text + "\n", encoding="utf-8")


def without_folders(text: str) -> str:
    """Return the text without folders of this machine: temporary ones, and the repository's own."""
    return re.sub(r"/tmp/tmp\w+", "workplace", text.replace(f"{FOLDER.parent}/", ""))


def main() -> None:
    """Execute all notebooks, or those that are named."""
    os.environ["PLOTLY_RENDERER"] = "png"
    for path in [Path(name) for name in sys.argv[1:]] or sorted(FOLDER.glob("*.ipynb")):
        execute(path)
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB", flush=True)


if __name__ == "__main__":
    main()
