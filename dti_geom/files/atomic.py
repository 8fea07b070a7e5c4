"""Atomic writing, and a lock that keeps a second process out of a folder."""

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dti_geom.errors import FileExists, FolderInUse

LOCK = ".lock"


@contextmanager
def atomic_path(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `path`, which is renamed to `path` if the block succeeds.

    A crash leaves the old file or the new one, never a part. Raises FileExists, before anything is
    written, if `path` exists and `overwrite` is false.
    """
    path = Path(path)
    _refuse_existing([path], overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays the same, because some writers choose the format by it, or append their own.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes a private file; a result has the usual permissions.
        temporary.chmod(0o666 & ~_umask())
        # The data must be on the disk before the name: after a power cut, a renamed file could
        # otherwise be empty.
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Raise OSError if files cannot be written into a folder, which need not exist yet.

    For commands that compute before they write. Nothing is created.
    """
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(nearest))
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(nearest))


def write_files(files: Mapping[Path, bytes], *, overwrite: bool = False) -> None:
    """Write files that belong together, each atomically.

    Raises FileExists, before anything is written, if one exists and `overwrite` is false.
    """
    _refuse_existing(files, overwrite=overwrite)
    for path, data in files.items():
        with atomic_path(path, overwrite=overwrite) as temporary:
            temporary.write_bytes(data)


def write_text(path: Path, text: str, *, overwrite: bool = False) -> None:
    """Write UTF-8 text atomically. Raises FileExists."""
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def alone_in(folder: Path, wait: float = 0) -> Iterator[None]:
    """Keep other processes that call this out of a folder while the block runs.

    wait: seconds to wait for another process. Raises FolderInUse. The lock ends with the process,
    also if that is killed.
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
    # The only way to read the mask is to set it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
