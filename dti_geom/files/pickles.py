"""Pickles of tensors, read as plain data: nothing in one is looked up, imported or called.

A pickle is a program for a small stack machine. This machine knows the instructions that make text, numbers, lists,
dictionaries and tensors, and the few names that torch writes into a file of tensors; it refuses all else.
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
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = (
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING"),
)


@dataclass(frozen=True)
class Storage:
    """Values that stand outside the pickle; zeros until the reader of the file fills them in."""

    values: Tensor  # (count,)


class ParameterDict:
    """Stands in for torch's class of that name; the pickled attributes land here."""

    _parameters: Any = None


@dataclass(frozen=True)
class _Name:
    """A class or function that a pickle names."""

    text: str


def unpickle(stream: io.BytesIO, storages: dict[str, Storage], size: int) -> Any:
    """The value of the pickle that begins here; the stream is left at its end.

    The storages it refers to are added to `storages`; together they may not claim more than `size` bytes. Raises
    Refused, or whatever exception a malformed pickle causes.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}
    begin, tensors = stream.tell(), 0
    for opcode, argument, _ in pickletools.genops(stream):
        if stream.tell() - begin > MAX_PICKLE:
            raise Refused(f"has more than {MAX_PICKLE} bytes of pickle, looks like a checkpoint")
        before = opcode.stack_before
        marked = pickletools.markobject in before
        start = (
            marks.pop() - before.index(pickletools.markobject)
            if marked
            else len(stack) - len(before)
        )
        if start < 0:
            raise ValueError("a pickle that takes more than it has")
        taken = stack[start:]
        del stack[start:]
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return taken[0]
            case "MARK":
                marks.append(len(stack))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = taken[0]
                stack += taken
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "BINPERSID":
                stack.append(_refer(taken[0], storages, size))
            case "REDUCE" | "NEWOBJ":
                stack.append(_call(*taken))
                tensors += isinstance(stack[-1], Tensor)
                if tensors > 4 * MAX_TENSORS:
                    raise Refused(f"holds more than {tensors - 1} tensors, looks like a checkpoint")
            case name:
                stack.append(_make(name, argument, taken))
    raise ValueError("a pickle without an end")


def _make(instruction: str, argument: Any, taken: list[Any]) -> Any:
    """What an instruction leaves on the stack in place of what it took."""
    match instruction:
        case _ if instruction in _CONSTANTS:
            return _CONSTANTS[instruction]
        case _ if instruction in _LITERALS:
            return argument
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
            return _build(*taken)
    found = f"has the pickle instruction {instruction} where no file of tensors has it"
    raise Refused(found, "It was not opened further.")


def _put(target: dict[Any, Any], items: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    for key, value in items:
        if not isinstance(
            key, str | int | float | None
        ):  # a tuple of tuples of … takes for ever to hash
            raise ValueError("a key that is neither text nor a number")
        if key in target:
            raise Refused("names a token twice", ONCE)
        target[key] = value
    return target


def _name(text: str) -> _Name:
    if text not in _CALLED and text not in _DTYPES:
        found = f"needs `{shown(text)}`, which is not among the few types an embedding may hold"
        raise Refused(found, "It was not opened further.")
    return _Name(text)


def _call(function: Any, arguments: Any) -> Any:
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
    raise ValueError("a call of something else than a function")


def _build(target: Any, state: Any) -> Any:
    """Attributes: those of a ParameterDict are kept; an OrderedDict may have some, which hold nothing of interest."""
    if isinstance(target, ParameterDict):
        target._parameters = state["_parameters"]
    elif not isinstance(target, dict):
        raise ValueError("attributes for something that has none")
    return target


def _refer(reference: Any, storages: dict[str, Storage], size: int) -> Storage | _Name:
    if (
        reference[0] == "module"
    ):  # before version 1.6 torch wrote a module's class with its source code
        return reference[1]
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
        claimed = count * dtype.itemsize + sum(each.values.nbytes for each in storages.values())
        if claimed > size or len(storages) >= 4 * MAX_TENSORS:
            raise Refused(f"claims {claimed} bytes of values, and has {size} in all", WHOLE)
        storages[key] = Storage(torch.zeros(count, dtype=dtype))
    elif (storages[key].values.dtype, len(storages[key].values)) != (dtype, count):
        raise ValueError("a storage of two kinds")
    return storages[key]


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Tensor:
    """A view into a storage. Torch raises where it would reach beyond, but lets the product of a shape overflow."""
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    if math.prod(shape) > 2**40 or len(shape) > 8:
        raise Refused(f"holds more than {MAX_VALUES} values, looks like a checkpoint")
    return storage.values.as_strided(shape, stride, offset)
