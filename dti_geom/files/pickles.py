"""Pickles of tensors, read as plain data. No name in a pickle is looked up, imported or called.

A pickle is a program for a small stack machine. The machine here knows the instructions that make
text, numbers, lists, dictionaries and tensors, and the few names that torch writes into a file of
tensors. It refuses everything else.
"""

import io
import math
import pickletools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dti_geom.files.refusals import MAX_PICKLE, MAX_TENSORS, MAX_VALUES, ONCE, WHOLE, Refused, shown

_DTYPES = {
    "torch.ByteStorage": torch.uint8,
    "torch.CharStorage": torch.int8,
    "torch.BoolStorage": torch.bool,
    "torch.ShortStorage": torch.int16,
    "torch.IntStorage": torch.int32,
    "torch.LongStorage": torch.int64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
}
_SETS = ("builtins.set", "__builtin__.set")
_PARAMETER_DICT = "torch.nn.modules.container.ParameterDict"
_CALLED = (
    "collections.OrderedDict",
    *_SETS,
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    _PARAMETER_DICT,
)
_MAX_BITS = 128  # of an integer; the longest that torch writes, a magic number, has 77
_MAX_DIMENSIONS = 8
_MAX_ITEMS = 2**16  # of dictionaries made from lists; a pickle of this length has fewer
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = (
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING"),
)


@dataclass(frozen=True)
class Storage:
    """Values that are stored outside the pickle: zeros until the reader of the file fills them."""

    values: Tensor  # (count,)


class ParameterDict:
    """Replaces torch's class of that name, and receives its pickled attributes."""

    _parameters: Any = None


@dataclass(frozen=True)
class _Name:
    """A class or function that a pickle names."""

    text: str


def unpickle(stream: io.BytesIO, storages: dict[str, Storage], size: int) -> Any:
    """Return the value of the pickle that begins at the position of the stream, and move past it.

    storages: receives the storages that the pickle refers to, by key.
    size: bytes that all storages together may have, which is the size of the file.
    Raises Refused, or any other exception for a malformed pickle.
    """
    machine = _Machine(storages, size)
    begin = stream.tell()
    for opcode, argument, _ in pickletools.genops(stream):
        if stream.tell() - begin > MAX_PICKLE:
            raise Refused(f"has more than {MAX_PICKLE} bytes of pickle, looks like a checkpoint")
        taken = machine.take(opcode)
        if opcode.name == "STOP":
            return taken[0]
        machine.execute(opcode.name, argument, taken)
    raise ValueError("a pickle without an end")


class _Machine:
    """The stack, marks and memo of a pickle that is being read."""

    def __init__(self, storages: dict[str, Storage], size: int) -> None:
        self.storages, self.size = storages, size
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[Any, Any] = {}
        self.tensors = self.items = 0

    def take(self, opcode: pickletools.OpcodeInfo) -> list[Any]:
        """Remove from the stack what an instruction consumes, and return it.

        That is a fixed number of values, or all values down to the last mark and a fixed number
        below it.
        """
        before = opcode.stack_before
        if pickletools.markobject in before:
            start = self.marks.pop() - before.index(pickletools.markobject)
        else:
            start = len(self.stack) - len(before)
        if start < 0:
            raise ValueError("a pickle that takes more than it has")
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def execute(self, instruction: str, argument: Any, taken: list[Any]) -> None:
        match instruction:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self.marks.append(len(self.stack))
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = taken[0]
                self.stack += taken
            case "BINGET" | "LONG_BINGET":
                self.stack.append(self.memo[argument])
            case "BINPERSID":
                self.stack.append(_storage(taken[0], self.storages, self.size))
            case "REDUCE" | "NEWOBJ":
                self.stack.append(_call(*taken))
                self._count(self.stack[-1])
            case name:
                self.stack.append(_value(name, argument, taken))

    def _count(self, value: Any) -> None:
        # A few bytes of pickle make a tensor, so a small file could make millions of them.
        self.tensors += isinstance(value, Tensor)
        if self.tensors > 4 * MAX_TENSORS:
            raise Refused(f"holds more than {4 * MAX_TENSORS} tensors, looks like a checkpoint")
        # One list of a pickle may be made into thousands of dictionaries.
        self.items += len(value) if isinstance(value, dict) else 0
        if self.items > _MAX_ITEMS:
            raise Refused(f"holds more than {_MAX_ITEMS} entries, looks like a checkpoint")


def _value(instruction: str, argument: Any, taken: list[Any]) -> Any:
    """Return the value that an instruction puts on the stack in place of what it took."""
    match instruction:
        case _ if instruction in _CONSTANTS:
            return _CONSTANTS[instruction]
        case _ if instruction in _LITERALS:
            return _short(argument)
        case "EMPTY_DICT":
            return {}
        case "EMPTY_LIST":
            return []
        case "EMPTY_SET" | "ADDITEMS":
            return None  # no layout keeps anything in a set
        case "EMPTY_TUPLE" | "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
            return tuple(taken)
        case "APPEND" | "APPENDS" if isinstance(taken[0], list):
            taken[0].extend(taken[1:])
            return taken[0]
        case "SETITEM" | "SETITEMS" if isinstance(taken[0], dict):
            return _put(taken[0], zip(taken[1::2], taken[2::2], strict=True))
        case "GLOBAL":
            return _name(argument.replace(" ", "."))
        case "STACK_GLOBAL":
            return _name(".".join(taken))
        case "BUILD":
            return _set_attributes(*taken)
    raise Refused(
        f"has the pickle instruction {instruction} where no file of tensors has it",
        "It was not opened further.",
    )


def _short(literal: Any) -> Any:
    """Return a literal. Raises ValueError for an integer that torch cannot have written."""
    if isinstance(literal, int) and literal.bit_length() > _MAX_BITS:
        raise ValueError(f"an integer of {literal.bit_length()} bits")
    return literal


def _put(target: dict[Any, Any], items: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Add items to a dictionary, and return it."""
    for key, value in items:
        # Hashing deeply nested tuples that share their parts takes exponential time.
        if not isinstance(key, str | int | float | None):
            raise ValueError("a key that is neither text nor a number")
        if key in target:
            raise Refused("names a token twice", ONCE)
        target[key] = value
    return target


def _name(text: str) -> _Name:
    if text not in _CALLED and text not in _DTYPES:
        raise Refused(
            f"needs `{shown(text)}`, which is not among the few types an embedding may hold",
            "It was not opened further.",
        )
    return _Name(text)


def _call(function: Any, arguments: Any) -> Any:
    """Return what one of the few known functions would return. No function is called by name."""
    match function:
        case _Name("collections.OrderedDict"):
            return _put({}, arguments[0] if arguments else ())
        case _Name("torch._utils._rebuild_tensor_v2"):
            return _tensor(*arguments)
        case _Name("torch._utils._rebuild_parameter"):
            return arguments[0]
        case _Name(text) if text == _PARAMETER_DICT:
            return ParameterDict()
        case _Name(text) if text in _SETS:
            return None
    raise ValueError("a call of a value that is not a function")


def _set_attributes(target: Any, state: Any) -> Any:
    """Keep the parameters of a ParameterDict, and ignore the attributes of an OrderedDict."""
    if isinstance(target, ParameterDict):
        target._parameters = state["_parameters"]
    elif not isinstance(target, dict):
        raise ValueError("attributes for something that has none")
    return target


def _storage(reference: Any, storages: dict[str, Storage], size: int) -> Storage | _Name:
    """Return the storage that a persistent reference of torch names, in zeros at first."""
    # Before version 1.6, torch wrote the class of a module together with its source code.
    if len(reference) > 6:
        raise ValueError("a storage like none of torch's")
    if reference[0] == "module":
        name: _Name = reference[1]
        return name
    kind, key, _, count, *view = reference[1:]
    if not (
        isinstance(kind, _Name)
        and isinstance(key, str)
        and type(count) is int
        and count >= 0
        and not any(view)
    ):
        raise ValueError("a storage like none of torch's")
    dtype = _DTYPES[kind.text]
    if key not in storages:
        _check_claim(count * dtype.itemsize, storages, size)
        storages[key] = Storage(torch.zeros(count, dtype=dtype))
    elif (storages[key].values.dtype, len(storages[key].values)) != (dtype, count):
        raise ValueError("a storage of two kinds")
    return storages[key]


def _check_claim(new_bytes: int, storages: dict[str, Storage], size: int) -> None:
    """Refuse storages larger than the file before any memory is allocated for them."""
    claimed = new_bytes + sum(storage.values.nbytes for storage in storages.values())
    if claimed > size or len(storages) >= 4 * MAX_TENSORS:
        raise Refused(f"claims {claimed} bytes of values, and has {size} in all", WHOLE)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Tensor:
    """Return a view into a storage."""
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    # Checked before anything is multiplied: the product of many integers, or of an integer and a
    # text, may have gigabytes.
    if not len(shape) == len(stride) <= _MAX_DIMENSIONS:
        raise ValueError(f"a tensor of {len(shape)} dimensions")
    if not all(type(number) is int for number in (*shape, *stride, offset)):
        raise ValueError("a tensor whose shape is not of whole numbers")
    # torch refuses a view that reaches beyond its storage, but the product of the shape may
    # overflow before.
    if math.prod(shape) > 2**40:
        raise Refused(f"holds more than {MAX_VALUES} values, looks like a checkpoint")
    return storage.values.as_strided(shape, stride, offset)
