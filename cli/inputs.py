"""Read embedding files as users name them: single files, and folders that may hold bad ones."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .output import print_notice

if TYPE_CHECKING:
    from dti_geom.errors import EmbeddingFileError
    from dti_geom.files import EmbeddingFile


def read_embedding_paths(
    paths: Iterable[Path] | None, bare_token: str | None = None
) -> "tuple[list[EmbeddingFile], list[EmbeddingFileError]]":
    """Read every embedding under these paths; also return the errors of those that did not open.

    A file that is named itself must open: its error is raised. Errors of files in a named folder
    are returned. bare_token: the name of a tensor that is stored without one.
    """
    from dti_geom.errors import EmbeddingFileError
    from dti_geom.files import find_embedding_files, read_embeddings

    files, failures = [], []
    for path in paths or ():
        for file in find_embedding_files(path):
            try:
                files.append(read_embeddings(file, bare_token))
            except EmbeddingFileError as error:
                if not path.is_dir():
                    raise
                failures.append(error)
    return files, failures


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines of a text file that are not blank, with their numbers."""
    from dti_geom.errors import DtiGeomError, first_line

    try:
        lines = [
            (number, line.strip())
            for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise DtiGeomError(
            f"{path} is not a readable text file ({first_line(error)}). Write one entry per line, "
            "in UTF-8."
        ) from error
    lines = [(number, line) for number, line in lines if line]
    if not lines:
        raise DtiGeomError(f"{path} is empty. Write one entry per line.")
    return lines


def folders_below(paths: Iterable[Path]) -> dict[Path, Path]:
    """Return, for each embedding file in a folder among these paths, its place below that folder.

    The place of a `learned_embeds` file is one of its own, since the folder has its name.
    """
    from dti_geom.files import find_embedding_files

    return {
        file: file.relative_to(path).parent
        for path in paths
        if path.is_dir()
        for file in find_embedding_files(path)
    }


def read_embeddings_or_skip(
    paths: Iterable[Path] | None, bare_token: str | None = None
) -> "list[EmbeddingFile]":
    """Read every embedding under these paths; report those left out on standard error."""
    files, failures = read_embedding_paths(paths, bare_token)
    for failure in failures:
        print_notice(f"left out: {failure}")
    return files
