"""Typed Python objects from the plain values of a JSON or YAML file.

cattrs builds the objects from the annotations of dataclasses. This module makes it strict: no
unknown key is skipped and no value is converted, except a whole number to the float it stands for.
It also turns the first mistake into one sentence that says where it is.
"""

import dataclasses
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from dti_geom.errors import DecodingError, DtiGeomError, first_line, nearest_name
from dti_geom.files.refusals import shown

if TYPE_CHECKING:
    from cattrs import Converter

T = TypeVar("T")
Hook = Callable[[Any, Any], Any]  # (value, type) -> typed value


def decode(cls: type[T], data: Any, where: str = "", *, from_yaml: bool = False) -> T:
    """Return `data` as an object of type `cls`.

    cls: a dataclass, also a generic one with its parameter (`Measurement[NormsResult]`), or any
        type built from dataclasses, tuples, lists, dictionaries, Optional and Literal.
    data: what a JSON or YAML reader returns. Objects that already have the type are kept.
    where: the place of `data` in its file, for messages.
    from_yaml: also accept text for a float (YAML reads 1e-4 as text), and a number for a text.

    Raises DecodingError, which names the first wrong key or value, its place, and the nearest
    right key. An error of this package that a dataclass raises in `__post_init__` is passed on.
    """
    try:
        return _converter(from_yaml).structure(data, cls)
    except Exception as error:
        raise _first_mistake(error, where) from error


def check_keys(data: Any, keys: Iterable[str], where: str = "") -> None:
    """Raise DecodingError unless `data` is a mapping whose keys are all among `keys`."""
    keys = tuple(keys)
    if not isinstance(data, Mapping):
        raise DecodingError(_describe(_Mismatch(data, _mapping_of(keys)), where))
    unknown = [key for key in data if key not in keys]
    if unknown:
        raise DecodingError(_describe(_UnknownKey(unknown[0], keys), where))


# --- What can be wrong ---


class _Mistake(Exception):
    """A wrong part of the data; `_describe` adds its place."""


@dataclasses.dataclass
class _Mismatch(_Mistake):
    """A value of another type or length than expected."""

    value: Any
    expected: str


@dataclasses.dataclass
class _UnknownKey(_Mistake):
    """A key that the dataclass has no field for."""

    key: Any
    known: tuple[str, ...]


@dataclasses.dataclass
class _MissingKeys(_Mistake):
    """Fields without a default that the data lack."""

    names: list[str]


def _describe(mistake: Exception, place: str) -> str:
    match mistake:
        case _UnknownKey(key, known):
            near = nearest_name(str(key), known)
            prefix = f"{place}: " if place else ""
            return f"{prefix}no key '{shown(str(key))}'.{near} Known: {', '.join(known)}."
        case _MissingKeys(names):
            return f"{place or 'the file'} lacks {' and '.join(names)}."
        case _Mismatch(value, expected):
            return f"{place or 'the file'} is {shown(repr(value))}; expected {expected}."
    return f"{place or 'the file'}: {first_line(mistake)}"


def _first_mistake(error: Exception, where: str) -> DtiGeomError:
    """Return the error to raise for what cattrs raised."""
    path, mistake = next(_mistakes(error, ""))
    if isinstance(mistake, DtiGeomError):
        return mistake
    return DecodingError(_describe(mistake, ": ".join(filter(None, (where, path)))))


def _mistakes(error: Exception, path: str) -> Iterator[tuple[str, Exception]]:
    """Yield the leaves of nested groups of errors, each with its path, such as `cells[3].run`."""
    from cattrs import ClassValidationError, IterableValidationError

    if isinstance(error, ClassValidationError):
        placed, other = error.group_exceptions()
        for inner, note in placed:
            yield from _mistakes(inner, f"{path}.{note.name}" if path else note.name)
    elif isinstance(error, IterableValidationError):
        items, other = error.group_exceptions()
        for inner, place in items:
            yield from _mistakes(inner, f"{path}[{place.index!r}]")
    else:
        other = [error]
    for inner in other:
        yield path, inner


# --- How values are built ---


@cache
def _converter(from_yaml: bool) -> "Converter":
    from cattrs import Converter  # here, since `dti-geom --help` need not spend its 50 ms

    converter = Converter()
    converter.register_structure_hook_factory(_is_container)(_container_hook)
    converter.register_structure_hook_factory(_is_literal)(_literal_hook)
    converter.register_structure_hook_factory(_is_dataclass)(_dataclass_hook)
    for scalar in (bool, int, str):
        converter.register_structure_hook(scalar, _exact_hook(scalar))
    converter.register_structure_hook(float, _number)
    if from_yaml:
        converter.register_structure_hook(float, _yaml_number)
        converter.register_structure_hook(str, _yaml_text)
    return converter


def _exact_hook(scalar: type) -> Hook:
    def hook(value: Any, _: Any) -> Any:
        # Not isinstance, to which True is an int.
        if type(value) is not scalar:
            raise _Mismatch(value, scalar.__name__)
        return value

    return hook


def _number(value: Any, _: Any) -> float:
    # Other JSON writers drop the fraction of 2.0.
    if type(value) not in (float, int):
        raise _Mismatch(value, "float")
    return float(value)


def _yaml_number(value: Any, _: Any) -> float:
    if type(value) in (float, int, str):
        with suppress(ValueError):
            return float(value)
    raise _Mismatch(value, "float")


def _yaml_text(value: Any, _: Any) -> str:
    if type(value) not in (float, int, str):
        raise _Mismatch(value, "str")
    return str(value)


def _is_literal(cls: Any) -> bool:
    return typing.get_origin(cls) is typing.Literal


def _literal_hook(cls: Any) -> Hook:
    choices = typing.get_args(cls)

    def hook(value: Any, _: Any) -> Any:
        if value not in choices:
            raise _Mismatch(value, " or ".join(map(repr, choices)))
        return value

    return hook


def _is_container(cls: Any) -> bool:
    return _origin(cls) in (tuple, list, dict)


def _container_hook(cls: Any, converter: "Converter") -> Hook:
    """Return the hook of cattrs for a tuple, list or dictionary, behind a check of the value.

    cattrs takes anything that it can iterate over: a text would become a tuple of letters.
    """
    from cattrs import cols

    arguments = typing.get_args(cls)
    if _origin(cls) is dict:
        return _checked(cols.mapping_structure_factory(cls, converter), (dict,), "a mapping")
    if _origin(cls) is list:
        return _checked(cols.list_structure_factory(cls, converter), (list,), "list")
    if not arguments or arguments[-1] is Ellipsis:
        build = cols.homogenous_tuple_structure_factory(cls, converter)
        return _checked(build, (list, tuple), "a list")
    return _checked(_fixed_tuple_hook(arguments, converter), (list, tuple), "a list")


def _checked(build: Hook, accepted: tuple[type, ...], expected: str) -> Hook:
    def hook(value: Any, cls: Any) -> Any:
        if not isinstance(value, accepted):
            raise _Mismatch(value, expected)
        return build(value, cls)

    return hook


def _fixed_tuple_hook(kinds: tuple[Any, ...], converter: "Converter") -> Hook:
    """Return a hook for tuple[A, B, …], for which cattrs has no public factory."""
    from cattrs import IterableValidationError, IterableValidationNote

    hooks = [converter.get_structure_hook(kind) for kind in kinds]

    def hook(values: Any, cls: Any) -> Any:
        if len(values) != len(kinds):
            raise _Mismatch(values, f"{len(kinds)} values")
        items = []
        for index, (build, kind) in enumerate(zip(hooks, kinds, strict=True)):
            try:
                items.append(build(values[index], kind))
            except Exception as error:
                error.add_note(IterableValidationNote("", index, kind))
                raise IterableValidationError("", [error], cls) from error
        return tuple(items)

    return hook


def _is_dataclass(cls: Any) -> bool:
    return isinstance(_origin(cls), type) and dataclasses.is_dataclass(_origin(cls))


def _dataclass_hook(cls: Any, converter: "Converter") -> Hook:
    """Return a hook that looks at the keys of a mapping and lets cattrs build the dataclass."""
    from cattrs.gen import make_dict_structure_fn

    @cache
    def build() -> Hook:
        # Writing this function takes a millisecond for a large dataclass. A report has a hundred
        # dataclasses, of which most files fill a few, so it waits for a first value.
        return make_dict_structure_fn(cls, converter)

    fields = [field for field in dataclasses.fields(_origin(cls)) if field.init]
    known = frozenset(field.name for field in fields)
    required = {
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }

    def hook(value: Any, _: Any) -> Any:
        if isinstance(value, _origin(cls)):
            return value
        if not isinstance(value, dict):
            raise _Mismatch(value, _mapping_of(field.name for field in fields))
        if not value.keys() <= known:
            unknown = next(key for key in value if key not in known)
            raise _UnknownKey(unknown, tuple(field.name for field in fields))
        if not value.keys() >= required:
            names = [field.name for field in fields if field.name in required - value.keys()]
            raise _MissingKeys(names)
        return build()(value, cls)

    return hook


def _mapping_of(keys: Iterable[str]) -> str:
    return f"a mapping with keys of {', '.join(keys)}"


def _origin(cls: Any) -> Any:
    """Return `Measurement` for `Measurement[Norms]`, and any plain type itself."""
    return typing.get_origin(cls) or cls
