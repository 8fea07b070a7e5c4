"""Writing files so that a crash leaves the old one whole."""

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dti_geom.errors import FileExists


@contextmanager
def atomic_path(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the name `path` when the block ends without an error.

    The data reach the disk before the name does. Raises FileExists, before anything is written, if `path` exists and
    `overwrite` is false.
    """
    path = Path(path)
    _refuse_existing([path], overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is kept, since some writers choose the format, or append an ending, by it.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        beside.chmod(0o666 & ~_umask())  # mkstemp files are private; a result is not
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_files(files: Mapping[Path, bytes], *, overwrite: bool = False) -> None:
    """Write files that belong together, each atomically, and none of them if one exists and `overwrite` is false."""
    _refuse_existing(files, overwrite=overwrite)
    for path, data in files.items():
        with atomic_path(path, overwrite=overwrite) as beside:
            beside.write_bytes(data)


def write_text(path: Path, text: str, *, overwrite: bool = False) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path, overwrite=overwrite) as beside:
        beside.write_text(text, encoding="utf-8")


def _refuse_existing(paths: Iterable[Path], *, overwrite: bool) -> None:
    for path in paths:
        if path.exists() and not overwrite:
            raise FileExists(f"{path} exists already. Choose another place, or pass --overwrite to replace it.")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
