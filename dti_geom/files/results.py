"""Results as JSON: frozen dataclasses out and in again.

A result file is an envelope around the result itself, so that a later version knows what it is reading:
`{"kind": "Norms", "format": 1, "tool": "dti-geom 0.1.0", "result": {…}}`.
"""

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from dti_geom import __version__
from dti_geom.errors import ResultFileError
from dti_geom.files.atomic import write_text

FORMAT = 1  # raised when a result type changes so that older readers would misread it

Result = TypeVar("Result")


def to_json(result: Any) -> Any:
    """A dataclass, or a sequence or dictionary of them, as plain JSON values."""
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return {
            field.name: to_json(getattr(result, field.name)) for field in dataclasses.fields(result)
        }
    if isinstance(result, (list, tuple)):
        return [to_json(item) for item in result]
    if isinstance(result, dict):
        return {key: to_json(value) for key, value in result.items()}
    return result


def dumps(result: Any) -> str:
    """The JSON text of a result. NaN and infinities are refused: JSON has none, and a result should have none.

    Bytes of a file name that are no UTF-8 become question marks.
    """
    text = json.dumps(to_json(result), ensure_ascii=False, allow_nan=False, indent=2)
    return text.encode("utf-8", "replace").decode()


def from_json(cls: type[Result], data: Any) -> Result:
    """The inverse of `to_json`, guided by the dataclass's annotations."""
    return typing.cast(Result, _decode(cls, data))


def save_result(path: Path, result: Any, *, overwrite: bool = False) -> None:
    """Write a result in its envelope, atomically."""
    envelope = {"kind": type(result).__name__, "format": FORMAT, "tool": f"dti-geom {__version__}"}
    write_text(path, dumps(envelope | {"result": result}) + "\n", overwrite=overwrite)


def load_result(path: Path, cls: type[Result]) -> Result:
    """Read what `save_result` wrote. Raises ResultFileError for another kind, a newer format, or broken JSON."""
    try:
        envelope = json.loads(Path(path).read_text(encoding="utf-8"))
        kind, format_, data = envelope["kind"], envelope["format"], envelope["result"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultFileError(f"{path} is not a result file of dti-geom ({error}).") from error
    if kind != cls.__name__:
        raise ResultFileError(f"{path} holds a result of kind {kind}; {cls.__name__} was expected.")
    if format_ > FORMAT:
        raise ResultFileError(
            f"{path} was written by {envelope.get('tool', 'a newer dti-geom')} in format {format_}; this version reads "
            f"up to format {FORMAT}. Upgrade dti-geom, or run the command again."
        )
    try:
        return from_json(cls, data)
    except (KeyError, TypeError, ValueError) as error:
        raise ResultFileError(
            f"{path} lacks or misspells a field of {cls.__name__}: {error}."
        ) from error


def _decode(hint: Any, data: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return hint(**{name: _decode(hints[name], value) for name, value in data.items()})  # type: ignore[operator]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        inner = [arguments[0]] * len(data) if arguments[-1] is Ellipsis else arguments
        return tuple(_decode(each, item) for each, item in zip(inner, data, strict=True))
    if origin is dict:
        return {key: _decode(arguments[1], value) for key, value in data.items()}
    if origin in (typing.Union, types.UnionType):
        if data is None:
            return None
        return _decode(next(each for each in arguments if each is not types.NoneType), data)
    return float(data) if hint is float else data
