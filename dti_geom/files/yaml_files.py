"""YAML files as plain values, measured before anything is built from them.

An alias makes a short file stand for gigabytes, which nobody may print, merge or copy.
"""

from pathlib import Path
from typing import Any

from dti_geom.errors import DecodingError
from dti_geom.files.refusals import shown

MAX_FILE = 2**18  # bytes; a sweep file has about a thousand
MAX_UNFOLDED = 2**20  # characters, with every alias replaced by what it stands for
MAX_SCALAR = 2000  # characters of one text or number


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file.

    Raises DecodingError for a file that is missing, damaged, or stands for too much.
    """
    import yaml

    try:
        loader = yaml.SafeLoader(_text(path))
        node = loader.get_single_node()
        if node is None:
            return None
        if _unfolded(node, {}) > MAX_UNFOLDED:
            raise ValueError(f"it stands for more than {MAX_UNFOLDED} characters")
        return loader.construct_document(node)
    except RecursionError:
        raise DecodingError(
            f"{path} is not a readable YAML file: it is nested too deeply"
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = shown(" ".join(str(error).split()), 400)
        raise DecodingError(f"{path} is not a readable YAML file: {reason}") from error


def _text(path: Path) -> str:
    if not path.is_file():  # a pipe would be waited for
        raise ValueError("it is not a regular file" if path.exists() else "there is no such file")
    size = path.stat().st_size
    if size > MAX_FILE:
        raise ValueError(f"it has {size} bytes; expected at most {MAX_FILE}")
    return path.read_text(encoding="utf-8")


def _unfolded(node: Any, known: dict[Any, int | None]) -> int:
    """Return the characters that a node of PyYAML stands for. known: those of nodes seen before."""
    if node in known:
        size = known[node]
        if size is None:
            raise ValueError("it has a part that holds itself")
        return size
    known[node] = None  # until its parts are counted
    if isinstance(node.value, str):
        size = len(node.value)
        if size > MAX_SCALAR:
            raise ValueError(f"it has a value of {size} characters; expected at most {MAX_SCALAR}")
    else:
        size = 0
        for part in node.value:
            items = part if isinstance(part, tuple) else (part,)
            size += sum(_unfolded(item, known) for item in items)
    known[node] = 1 + size
    return 1 + size
