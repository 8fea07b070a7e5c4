"""The bytes of strangers' files, as Python values: checked first, never executed.

The bytes decide what a file is, not its suffix. A pickle is first walked as plain data (`_walk`) and then read by torch
with `weights_only`. Torch alone is not enough: it makes a bytearray of any length that a pickle asks for, and
overflows the stack while it hashes deeply nested tuples.
"""

import io
import json
import os
import pickletools
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor

MAX_BYTES = 64 * 2**20  # of a file; embeddings have some kilobytes
MAX_TENSORS = 512  # of a file; checkpoints have more
MAX_PICKLE = 2**20  # bytes of pickle instructions; 512 tensors need a tenth of it

EXPECTED = "Expected a learned embedding: a few float vectors in a .bin, .pt or .safetensors file."
_WHOLE = "Expected a whole .bin, .pt or .safetensors file; fetch or save it again."
ONCE = "Expected each token once for each text encoder; remove one of the two."
_KINDS = {  # by the first bytes, in lower case
    b"version https://git-lfs": ("is a Git LFS pointer", "Fetch the real file with git lfs pull."),
    b"<!doctype html": ("is a web page", "Download the file itself, not the page that shows it."),
    b"<html": ("is a web page", "Download the file itself, not the page that shows it."),
    b"\x89png": ("is an image", EXPECTED),
    b"\xff\xd8\xff": ("is an image", EXPECTED),
    b"riff": ("is an image or a sound", EXPECTED),
}


class Refused(Exception):
    """What was found and what to do; `read_embeddings` adds the path."""

    def __init__(self, found: str, advice: str = EXPECTED) -> None:
        """`found` completes "FILE …"; `advice` is a sentence."""
        self.found, self.advice = found, advice


class ParameterDict:
    """Stands in for torch's class of that name, so that none of its code runs; the pickled attributes land here."""

    _parameters: Any = None


def read_bytes(path: Path) -> bytes:
    """A whole regular file of at most MAX_BYTES. Raises Refused."""
    if path.is_dir():
        raise Refused("is a folder", "Expected one file.")
    if not path.is_file():
        raise Refused("is not a regular file" if path.exists() else "does not exist")
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise Refused(f"has {size / 2**20:.0f} MB, looks like a model checkpoint")
            return file.read(MAX_BYTES)
    except OSError as error:
        raise Refused(f"cannot be opened: {error.strerror}", "Expected a readable file.") from error


def decode(data: bytes) -> tuple[Any, dict[str, str]]:
    """What the bytes hold, and the strings of a safetensors header."""
    if not data:
        raise Refused("is empty (0 bytes)", _WHOLE)
    start = data[:64].lstrip().lower()
    for signature, kind in _KINDS.items():
        if start.startswith(signature):
            raise Refused(*kind)
    try:
        if data[7:9] == b"\0{":  # a header length of eight bytes, then JSON
            return _read_safetensors(data)
        if data.startswith(b"PK\3\4"):
            return _read_torch_zip(data), {}
        if data.startswith(b"\x80"):
            return _read_torch_legacy(data), {}
    except Refused:
        raise
    except Exception as error:  # whatever a reader trips over, the file is at fault
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise Refused(f"is damaged or cut short ({shown(reason)})", _WHOLE) from error
    text = data[:40].decode("utf-8", "ignore")
    if text and all(each.isprintable() or each.isspace() for each in text):
        raise Refused(f"is text, beginning with “{shown(text)}”")
    raise Refused(f"is of no known kind, beginning with the bytes {data[:8].hex(' ')}")


def _read_safetensors(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors = load_safetensors(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")], object_pairs_hook=_without_repeats)
    metadata = plain_values(header.pop("__metadata__", None))
    return {key: tensors[key] for key in header}, metadata  # the reader's own order changes from run to run


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise Refused("names a token twice", ONCE)
    return dict(pairs)


def _read_torch_zip(data: bytes) -> Any:
    """What `torch.save` writes today: a zip of `data.pkl` and a raw file for each storage."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = archive.infolist()
        sizes = {info.filename: info.file_size for info in infos}
        root = next((name.removesuffix("data.pkl") for name in sizes if name.endswith("/data.pkl")), None)
        if root is None:
            raise Refused(f"is a zip archive of other files, such as {shown(next(iter(sizes), 'none'))}")
        if f"{root}constants.pkl" in sizes:
            raise Refused("is a TorchScript program, which is never run here")
        if any(info.compress_type for info in infos) or len(sizes) < len(infos) or sum(sizes.values()) > len(data):
            raise Refused("is a zip archive packed as torch never does, compressed or with files that overlap")
        members = {name.removeprefix(root): archive.read(name) for name in sizes}
    _walk(io.BytesIO(members["data.pkl"]), len(data))
    # Packed anew, so that torch cannot see anything else in an odd archive than what was walked.
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in members:
            if re.fullmatch(r"data\.pkl|version|byteorder|data/\w+", name):
                archive.writestr(f"archive/{name}", members[name])
    return _load(stream)


def _read_torch_legacy(data: bytes) -> Any:
    """What `torch.save` wrote before version 1.6: five pickles, the first a magic number, then the raw storages."""
    # It wrote a module's class with its source code, which torch no longer takes; the name alone will do.
    stream = io.BytesIO(_CLASS_WITH_SOURCE.sub(rb"\1", data))
    _walk(stream, len(data))
    if not data.startswith(b"\x80\2\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."):
        raise Refused("is a pickle, but not one that torch wrote")
    for _ in range(4):
        _walk(stream, len(data))
    return _load(stream)


def _load(stream: io.BytesIO) -> Any:
    stream.seek(0)
    with torch.serialization.safe_globals([(ParameterDict, _PARAMETER_DICT)]):
        return torch.load(stream, weights_only=True, map_location="cpu")


# --- The walk through a pickle ---

_PARAMETER_DICT = "torch.nn.modules.container.ParameterDict"
_CLASS_WITH_SOURCE = re.compile(
    rb"\(X\x06\0\0\0module(?:q.)?(ctorch\.nn\.modules\.container\nParameterDict\n(?:q.)?)X.*?t(?:q.)?Q", re.DOTALL
)
_CONTAINERS = ("collections.OrderedDict", "builtins.set", "__builtin__.set")
_REBUILDS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter", _PARAMETER_DICT)
_STORAGES = {  # bytes per value
    **dict.fromkeys(("torch.ByteStorage", "torch.CharStorage", "torch.BoolStorage"), 1),
    **dict.fromkeys(("torch.HalfStorage", "torch.BFloat16Storage", "torch.ShortStorage"), 2),
    **dict.fromkeys(("torch.FloatStorage", "torch.IntStorage"), 4),
    **dict.fromkeys(("torch.DoubleStorage", "torch.LongStorage"), 8),
}


def _walk(stream: io.BytesIO, size: int) -> None:
    """Check one pickle by following its stack, where nothing is looked up, called or allocated.

    Raises for a name that is not allowed, for storages of more than `size` bytes together, and for a tuple where torch
    would hash it: as a key, in a list, in a set, or as the state or the whole of something.
    """
    stack: list[Any] = []  # text, numbers, names, tuples of these; None for all else
    marks: list[int] = []
    memo: dict[Any, Any] = {}
    storages: dict[str, int] = {}
    protocol = None
    for opcode, argument, _ in pickletools.genops(stream):
        if stream.tell() > MAX_PICKLE:
            raise Refused(f"has more than {MAX_PICKLE} bytes of pickle, looks like a checkpoint")
        before = opcode.stack_before
        marked = pickletools.markobject in before
        start = marks.pop() - before.index(pickletools.markobject) if marked else len(stack) - len(before)
        taken = stack[start:]
        del stack[start:]
        match opcode.name:
            case "PROTO":
                protocol = argument
            case "MARK":
                marks.append(len(stack))
            case "GLOBAL":
                stack.append(_allowed(str(argument).replace(" ", ".")))
            case "STACK_GLOBAL":
                stack.append(_allowed(".".join(taken)))
            case "EMPTY_TUPLE" | "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(taken))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "BINPERSID":
                key, nbytes = _storage(*taken)
                storages.setdefault(key, nbytes)
                if sum(storages.values()) > size or len(storages) > 4 * MAX_TENSORS:
                    raise Refused(f"claims {sum(storages.values())} bytes of values, and has {size} in all", _WHOLE)
                stack.append(None)
            case "REDUCE" | "NEWOBJ":
                _check_call(*taken)
                stack.append(None)
            case name:
                _check_put(name, taken)
                stack += [taken[0] if taken else argument] * len(opcode.stack_after)
    if protocol != 2:
        raise Refused(
            f"is a pickle of protocol {protocol}", "Expected protocol 2, as torch.save writes; save it again."
        )


def _allowed(name: str) -> str:
    if name not in (*_CONTAINERS, *_REBUILDS, *_STORAGES):
        found = f"needs `{shown(name)}`, which is not among the few types an embedding may hold"
        raise Refused(found, "It was not opened further.")
    return name


def _check_call(function: Any, arguments: Any) -> None:
    if function not in (*_CONTAINERS, *_REBUILDS):
        raise ValueError("a call of something else than a function")
    if function in _CONTAINERS:
        _refuse_tuples(arguments)


def _check_put(name: str, taken: list[Any]) -> None:
    """For what is put into something else, `taken` begins with that."""
    if name in ("SETITEM", "SETITEMS"):
        keys = taken[1::2]
        _refuse_tuples(keys)
        if len(set(keys)) < len(keys):
            raise Refused("names a token twice", ONCE)
    else:
        _refuse_tuples(taken if name == "STOP" else taken[1:])


def _refuse_tuples(values: Iterable[Any]) -> None:
    if any(isinstance(each, tuple) for each in values):
        raise ValueError("a tuple where text or a number belongs")


def _storage(reference: Any) -> tuple[str, int]:
    """The key of a storage and its size in bytes."""
    _, kind, key, _, count, *view = reference
    if not all(isinstance(each, str) for each in (kind, key)) or not isinstance(count, int) or count < 0 or any(view):
        raise ValueError("a storage like none of torch's")
    return key, count * _STORAGES[kind]


# --- Text ---


def clean(text: str) -> str:
    """The text without halves of surrogate pairs, which no file or terminal can hold."""
    return text.encode("utf-8", "replace").decode()


def shown(text: str, limit: int = 60) -> str:
    """Text from a stranger, in one line that no terminal acts upon."""
    text = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def plain_values(content: Any) -> dict[str, str]:
    """The text and numbers of a dictionary, as text."""
    items = content.items() if isinstance(content, dict) else ()
    plain = {key: value for key, value in items if isinstance(key, str) and isinstance(value, str | int | float)}
    return {clean(key): clean(str(value)) for key, value in plain.items()}
