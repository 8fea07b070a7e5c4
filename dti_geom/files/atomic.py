"""Writing files so that neither a crash nor a second writer spoils them."""

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dti_geom.errors import FileExists, FolderInUse

LOCK = ".lock"


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


@contextmanager
def alone_in(folder: Path, wait: float = 0) -> Iterator[None]:
    """Be the only process at work in a folder; the lock goes with the process, however that ends.

    wait: seconds for another to finish. Raises FolderInUse.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=wait)
    except Timeout as error:
        raise FolderInUse(
            f"{folder}: another process is at work there. Wait for it, or choose another --out."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _refuse_existing(paths: Iterable[Path], *, overwrite: bool) -> None:
    for path in paths:
        if path.exists() and not overwrite:
            raise FileExists(
                f"{path} exists already. Choose another place, or pass --overwrite to replace it."
            )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
