import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dti_geom.errors import FileExists, FolderInUse
from dti_geom.files import alone_in, atomic_path, write_text
from dti_geom.files.atomic import check_writable


def test_a_file_appears_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "page.html", "é")
    assert (tmp_path / "new" / "page.html").read_bytes() == "é".encode()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]


def test_an_existing_file_is_kept_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_text(path, "old")
    with pytest.raises(FileExists, match="pass --overwrite"):
        write_text(path, "new")
    assert path.read_text() == "old"
    write_text(path, "new", overwrite=True)
    assert path.read_text() == "new"


def test_an_error_while_writing_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_text(path, "old")

    def write_half() -> None:
        with atomic_path(path, overwrite=True) as beside:
            beside.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_killed_halfway_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_text(path, "old")
    code = (
        "import pathlib, sys, time\n"
        "from dti_geom.files.atomic import atomic_path\n"
        "with atomic_path(pathlib.Path(sys.argv[1]), overwrite=True) as beside:\n"
        "    beside.write_text('half')\n"
        "    print('written', flush=True)\n"
        "    time.sleep(60)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"written\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert path.read_text() == "old"


def test_results_are_readable_by_others_as_the_umask_says(tmp_path: Path) -> None:
    write_text(tmp_path / "page.html", "")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "page.html").stat().st_mode & 0o777 == 0o666 & ~mask


HOLD = """
import sys, time
from pathlib import Path
from dti_geom.files import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_one_processs_until_that_ends_however_it_ends(tmp_path: Path) -> None:
    script = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(FolderInUse, match="run: another process is at work there"),
            alone_in(tmp_path / "run"),
        ):
            pytest.fail("two were alone")
        other.kill()
    with alone_in(tmp_path / "run"):
        pass
    with alone_in(tmp_path / "run"):  # and it was given back
        pass


def test_a_folder_that_cannot_be_written_is_known_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_writable(tmp_path / "new" / "deeper")
    with pytest.raises(NotADirectoryError):
        check_writable(tmp_path / "file" / "deeper")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_read_only_folder_is_known_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)  # root may write anywhere
    with pytest.raises(PermissionError) as caught:
        check_writable(tmp_path / "new")
    assert caught.value.filename == str(tmp_path)
