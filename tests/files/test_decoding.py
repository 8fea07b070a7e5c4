"""Typed objects from plain values: what is accepted, and how a mistake is reported."""

from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import pytest

from dti_geom.errors import DecodingError, TrainingError
from dti_geom.files.decoding import check_keys, decode

Value = TypeVar("Value")


@dataclass(frozen=True)
class Sampler:
    steps: int
    guidance: float = 1.0
    noise: Literal["fixed", "fresh"] = "fixed"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise TrainingError(f"steps is {self.steps}; expected 1 or more.")


@dataclass(frozen=True)
class Paint:
    name: str
    sampler: Sampler
    seeds: tuple[int, ...] = ()
    corner: tuple[float, str] | None = None
    by_word: dict[str, Sampler] = field(default_factory=dict)
    flip: bool = False
    notes: Any = None


@dataclass(frozen=True)
class Box(Generic[Value]):
    label: str
    values: tuple[Value, ...]


GOOD = {"name": "a", "sampler": {"steps": 2}}


def message(cls: type[Any], data: Any, where: str = "", *, from_yaml: bool = False) -> str:
    with pytest.raises(DecodingError) as caught:
        decode(cls, data, where, from_yaml=from_yaml)
    return str(caught.value)


def test_every_kind_of_field_is_built_and_defaults_are_filled_in() -> None:
    data = GOOD | {
        "seeds": [1, 2],
        "corner": [1, "x"],
        "by_word": {"red": {"steps": 3, "noise": "fresh"}},
        "notes": [{"any": "thing"}],
    }
    assert decode(Paint, data) == Paint(
        name="a",
        sampler=Sampler(2),
        seeds=(1, 2),
        corner=(1.0, "x"),
        by_word={"red": Sampler(3, noise="fresh")},
        notes=[{"any": "thing"}],
    )
    assert decode(Paint, GOOD | {"corner": None}) == Paint("a", Sampler(2))


def test_a_generic_dataclass_is_built_with_its_parameter() -> None:
    assert decode(Box[Sampler], {"label": "x", "values": [{"steps": 1}]}) == Box("x", (Sampler(1),))
    assert decode(Box[float], {"label": "x", "values": [1]}).values == (1.0,)
    assert "values[0].step" not in message(Box[Sampler], {"label": "x", "values": [{"step": 1}]})
    assert "steps" in message(Box[Sampler], {"label": "x", "values": [{"step": 1}]})


def test_a_whole_number_becomes_the_float_that_a_field_asks_for() -> None:
    guidance = decode(Sampler, {"steps": 1, "guidance": 3}).guidance
    assert guidance == 3
    assert type(guidance) is float


def test_objects_that_have_the_type_already_are_kept() -> None:
    sampler = Sampler(5)
    assert decode(Paint, {"name": "a", "sampler": sampler}).sampler is sampler


@pytest.mark.parametrize(
    ("change", "place", "facts"),
    [
        ({"name": 3}, "name is 3", "str"),
        ({"flip": 1}, "flip is 1", "bool"),
        ({"flip": "no"}, "flip is 'no'", "bool"),
        ({"seeds": [0, True]}, "seeds[1] is True", "int"),
        ({"seeds": ["3"]}, "seeds[0] is '3'", "int"),
        ({"seeds": [2.0]}, "seeds[0] is 2.0", "int"),
        ({"seeds": "123"}, "seeds is '123'", "list"),
        ({"seeds": None}, "seeds is None", "list"),
        ({"seeds": {"1": 1}}, "seeds is {'1': 1}", "list"),
        ({"corner": [1.0]}, "corner is [1.0]", "2 values"),
        ({"corner": ["1", "x"]}, "corner[0] is '1'", "float"),
        ({"sampler": 3}, "sampler is 3", "steps, guidance, noise"),
        ({"sampler": None}, "sampler is None", "steps, guidance, noise"),
        ({"sampler": {"steps": 1, "guidance": "3"}}, "sampler.guidance is '3'", "float"),
        ({"sampler": {"steps": 1, "guidance": True}}, "sampler.guidance is True", "float"),
        ({"sampler": {"steps": 1, "guidance": None}}, "sampler.guidance is None", "float"),
        ({"sampler": {"steps": 1, "noise": "new"}}, "sampler.noise is 'new'", "fixed"),
        ({"by_word": [1]}, "by_word is [1]", "mapping"),
        ({"by_word": {"red": {"steps": "1"}}}, "by_word['red'].steps is '1'", "int"),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_place(
    change: dict[str, Any], place: str, facts: str
) -> None:
    text = message(Paint, GOOD | change)
    assert text.startswith(place)
    assert facts in text


@pytest.mark.parametrize(
    ("data", "facts"),
    [
        (GOOD | {"seed": [1]}, ["'seed'", "Did you mean 'seeds'?", "corner"]),
        (GOOD | {"sampler": {"step": 1}}, ["sampler: ", "'step'", "Did you mean 'steps'?"]),
        (GOOD | {"by_word": {"red": {"steps": 1, "zzz": 1}}}, ["by_word['red']: ", "'zzz'"]),
        (GOOD | {3: 4}, ["'3'", "Known: name"]),
        ({"sampler": {"steps": 1}}, ["lacks name"]),
        ({}, ["lacks name and sampler"]),
        ({"name": "a", "sampler": {}}, ["sampler lacks steps"]),
        ([], ["expected a mapping", "name, sampler"]),
        (None, ["expected a mapping", "name, sampler"]),
    ],
)
def test_a_wrong_or_missing_key_is_named_with_its_place_and_the_nearest_right_one(
    data: Any, facts: list[str]
) -> None:
    text = message(Paint, data, "config.json")
    assert text.startswith("config.json")
    for fact in facts:
        assert fact in text


def test_an_error_that_a_dataclass_raises_itself_is_passed_on() -> None:
    with pytest.raises(TrainingError, match="steps is 0"):
        decode(Paint, {"name": "a", "sampler": {"steps": 0}})


def test_a_long_or_hostile_value_is_shown_in_one_short_line() -> None:
    text = message(Paint, GOOD | {"seeds": "\x1b[31m\n" + "x" * 1000})
    assert len(text) < 120
    assert text.isprintable()


def test_yaml_may_have_text_for_a_float_and_a_number_for_a_text_and_nothing_else() -> None:
    data = {"name": 0.4, "sampler": {"steps": 1, "guidance": "1e-4"}}
    built = decode(Paint, data, from_yaml=True)
    assert (built.name, built.sampler.guidance) == ("0.4", 1e-4)
    for change in ({"name": True}, {"sampler": {"steps": "1"}}, {"seeds": ["1"]}):
        assert "expected" in message(Paint, GOOD | change, from_yaml=True)
    for guidance in ("much", True, None):
        wrong = {"steps": 1, "guidance": guidance}
        assert "expected float" in message(Sampler, wrong, from_yaml=True)
    assert "expected float" in message(Sampler, {"steps": 1, "guidance": "1e-4"})


def test_keys_can_be_checked_alone() -> None:
    check_keys({"a": 1}, ["a", "b"])
    with pytest.raises(DecodingError, match=r"here: no key 'stepz'\. Did you mean 'steps'\?"):
        check_keys({"stepz": 1}, ["steps", "seeds"], "here")
    with pytest.raises(DecodingError, match="expected a mapping with keys of steps"):
        check_keys(["steps"], ["steps"])
