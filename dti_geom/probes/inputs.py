"""Read what the probes' options name: files of words and of pairs."""

from pathlib import Path

from dti_geom.errors import DtiGeomError, first_line


def read_words(path: Path) -> tuple[str, ...]:
    """Return the lines of a UTF-8 text file that are not blank. Raises DtiGeomError."""
    return tuple(line for _, line in numbered_lines(path))


def read_pairs(path: Path) -> tuple[tuple[str, str], ...]:
    """Return two tokens for each line that is not blank. Raises DtiGeomError."""
    pairs = []
    for number, line in numbered_lines(path):
        words = line.split()
        if len(words) != 2:
            raise DtiGeomError(
                f"{path}, line {number}: {len(words)} words; two tokens were expected, such as: "
                "cat dog. Name a token with spaces in it as #id."
            )
        pairs.append((words[0], words[1]))
    return tuple(pairs)


def numbered_lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines of a text file that are not blank, with their numbers from 1."""
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DtiGeomError(
            f"{path} is not a readable text file ({first_line(error)}). Write one entry a line, in "
            "UTF-8."
        ) from error
    found = [(number, line) for number, line in enumerate(lines, 1) if line]
    if not found:
        raise DtiGeomError(f"{path} is empty. Write one entry a line.")
    return found
