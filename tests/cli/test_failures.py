"""What the user's machine does wrong is told in one line, and is called no bug."""

import errno
import os
from pathlib import Path

import pytest

from dti_geom_cli.failures import explain
from warm import Run


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENOENT])
def test_a_system_error_names_the_path_and_what_to_do(number: int) -> None:
    line = explain(OSError(number, os.strerror(number), "/data/run"))
    assert line is not None
    assert line.startswith("/data/run ")
    assert "Errno" not in line
    assert line.count(". ") == 1


@pytest.mark.parametrize("error", [ValueError("x"), OSError("no number"), ZeroDivisionError()])
def test_anything_else_stays_a_bug(error: Exception) -> None:
    assert explain(error) is None


@pytest.mark.parametrize(
    "command",
    [
        "norms",
        "generate --prompt fox",
        "interpolate fox owl",
        "train --concept green-fox",
        "evaluate nothing",
        "report",
        "merge 2*fox",
    ],
)
def test_a_file_in_place_of_the_folder_is_said_before_anything_is_computed(
    run: Run, command: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("kept")
    done = run(*command.split(), "--out", tmp_path / "file")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{tmp_path / 'file'} has a file where a folder is needed" in done.stderr
    assert "bug" not in done.stderr
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("command", ["sweep", "compare", "inspect", "generate --out out --prompts"])
def test_a_path_that_is_not_there_has_no_error_number(
    run: Run, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*command.split(), "missing.yaml")
    assert done.returncode == 1
    assert "missing.yaml" in done.stderr
    assert "Errno" not in done.stderr
