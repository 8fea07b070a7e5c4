"""Result files: frozen dataclasses as JSON, and back.

A result file is an envelope around the result, which says what the file is:
`{"kind": "Norms", "format": 1, "tool": "dti-geom 0.1.0", "result": {…}}`.
"""

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any, TypeVar

from dti_geom import __version__
from dti_geom.errors import DecodingError, ResultFileError, first_line
from dti_geom.files.atomic import write_text
from dti_geom.files.decoding import decode

# The format written today. Raise it when a result type changes so that older readers would
# misread it; raise OLDEST_FORMAT too if this version cannot read the older files any more.
FORMAT = 2
OLDEST_FORMAT = 1

Result = TypeVar("Result")


def to_json(result: Any) -> Any:
    """Return a dataclass, or a sequence or dictionary of them, as plain JSON values."""
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return {
            field.name: to_json(getattr(result, field.name)) for field in dataclasses.fields(result)
        }
    if isinstance(result, (list, tuple)):
        return [to_json(item) for item in result]
    if isinstance(result, dict):
        return {key: to_json(value) for key, value in result.items()}
    return result


def from_json(cls: type[Result], data: Any) -> Result:
    """Return what `to_json` made from an object of type `cls` as such an object again.

    Raises DecodingError (a ValueError), which names the first wrong key or value.
    """
    return decode(cls, data)


def dumps(result: Any) -> str:
    """Return the JSON text of a result.

    Raises ValueError for NaN and infinities: JSON has none, and a result should have none.
    Bytes of a file name that are not UTF-8 become question marks.
    """
    text = json.dumps(to_json(result), ensure_ascii=False, allow_nan=False, indent=2)
    return text.encode("utf-8", "replace").decode()


def save_result(path: Path, result: Any, *, overwrite: bool = False) -> None:
    """Write a result in its envelope, atomically. Raises FileExists."""
    envelope = {"kind": type(result).__name__, "format": FORMAT, "tool": f"dti-geom {__version__}"}
    write_text(path, dumps(envelope | {"result": result}) + "\n", overwrite=overwrite)


def load_result(path: Path, cls: type[Result]) -> Result:
    """Return the result in a file that `save_result` wrote.

    cls: the type of the result; a generic one with its parameter, such as `Measurement[Norms]`.
    Raises ResultFileError for broken JSON, another kind, another format, or fields that do not fit.
    """
    envelope = _read_envelope(Path(path))
    expected = (typing.get_origin(cls) or cls).__name__
    if envelope["kind"] != expected:
        raise ResultFileError(
            f"{path} holds a result of kind {envelope['kind']}; {expected} was expected."
        )
    _check_format(path, envelope)
    try:
        return decode(cls, envelope["result"])
    except DecodingError as error:
        raise ResultFileError(
            f"{path} does not fit {expected}: {error} Run the command again that wrote it."
        ) from error


def _read_envelope(path: Path) -> dict[str, Any]:
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ResultFileError(f"{path} is not a regular file; expected a result of dti-geom.")
    try:
        envelope = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ResultFileError(
            f"{path} is not a result file of dti-geom ({first_line(error)})."
        ) from error
    if not isinstance(envelope, dict) or not envelope.keys() >= {"kind", "format", "result"}:
        raise ResultFileError(
            f"{path} is not a result file of dti-geom: expected kind, format and result in it."
        )
    return envelope


def _check_format(path: Path, envelope: dict[str, Any]) -> None:
    written, tool = envelope["format"], envelope.get("tool", "another dti-geom")
    if type(written) is not int:
        raise ResultFileError(f"{path} has the format {written!r}; expected a whole number.")
    if written > FORMAT:
        raise ResultFileError(
            f"{path} was written by {tool} in format {written}; this version reads up to format "
            f"{FORMAT}. Upgrade dti-geom, or run the command again."
        )
    if written < OLDEST_FORMAT:
        raise ResultFileError(
            f"{path} was written by {tool} in format {written}; this version reads from format "
            f"{OLDEST_FORMAT}. Run the command again that wrote it."
        )
