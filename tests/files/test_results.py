import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest

from dti_geom.errors import ResultFileError
from dti_geom.files import dumps, from_json, load_result, save_result, to_json
from dti_geom.files.results import FORMAT


@dataclass(frozen=True)
class Inner:
    name: str
    value: float | None


@dataclass(frozen=True)
class Outer:
    pair: tuple[int, str]
    many: tuple[Inner, ...]
    one: Inner | None
    table: dict[str, Inner]


RESULT = Outer((1, "é"), (Inner("<b>", 0.1), Inner("", None)), None, {"k": Inner("v", 2.0)})


def test_nested_results_round_trip(tmp_path: Path) -> None:
    assert from_json(Outer, json.loads(dumps(RESULT))) == RESULT
    save_result(tmp_path / "outer.json", RESULT)
    assert load_result(tmp_path / "outer.json", Outer) == RESULT


def test_a_float_that_json_wrote_as_a_whole_number_comes_back_as_float() -> None:
    assert isinstance(from_json(Inner, {"name": "x", "value": 2}).value, float)


def test_a_number_that_json_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dumps(Inner("x", float("nan")))


def test_a_file_name_that_is_not_utf8_can_be_written(tmp_path: Path) -> None:
    save_result(tmp_path / "inner.json", Inner("caf\udce9.bin", 1.0))
    assert load_result(tmp_path / "inner.json", Inner).name == "caf?.bin"


def test_the_file_says_what_it_holds_and_who_wrote_it(tmp_path: Path) -> None:
    save_result(tmp_path / "outer.json", RESULT)
    envelope = json.loads((tmp_path / "outer.json").read_text())
    assert (envelope["kind"], envelope["format"]) == ("Outer", FORMAT)
    assert envelope["tool"].startswith("dti-geom ")
    assert envelope["result"] == to_json(RESULT)


Item = TypeVar("Item")


@dataclass(frozen=True)
class Box(Generic[Item]):
    items: tuple[Item, ...]


def test_a_generic_result_is_loaded_with_its_parameter(tmp_path: Path) -> None:
    save_result(tmp_path / "box.json", Box((Inner("x", 1.0),)))
    assert load_result(tmp_path / "box.json", Box[Inner]) == Box((Inner("x", 1.0),))
    with pytest.raises(ResultFileError, match="kind Box; Inner was expected"):
        load_result(tmp_path / "box.json", Inner)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"kind": "Other"}, "holds a result of kind Other; Outer was expected"),
        ({"format": 99}, f"reads up to format {FORMAT}"),
        ({"format": 0}, "Run the command again"),
        ({"format": "1"}, "has the format '1'"),
        ({"result": {"pair": [1, "x"]}}, "lacks many and one and table"),
        ({"result": {"mary": 1}}, "no key 'mary'. Did you mean 'many'"),
    ],
)
def test_another_kind_another_format_or_another_field_is_refused(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    save_result(tmp_path / "outer.json", RESULT)
    envelope = json.loads((tmp_path / "outer.json").read_text())
    (tmp_path / "outer.json").write_text(json.dumps(envelope | change))
    with pytest.raises(ResultFileError, match=re.escape(expected)):
        load_result(tmp_path / "outer.json", Outer)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_file_that_is_no_result_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "outer.json").write_text(text)
    with pytest.raises(ResultFileError, match="is not a result file"):
        load_result(tmp_path / "outer.json", Outer)


def test_a_pipe_in_place_of_a_result_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "outer.json")
    with pytest.raises(ResultFileError, match="is not a regular file"):
        load_result(tmp_path / "outer.json", Outer)
