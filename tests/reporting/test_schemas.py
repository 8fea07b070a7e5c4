import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from dti_geom.errors import DtiGeomError
from dti_geom.files import dumps
from dti_geom.reporting.registry import SECTIONS
from dti_geom.reporting.report import Report
from dti_geom.reporting.schemas import schema_of

REPORTS = Path(__file__).parents[2] / "reports"
PUBLISHED = {  # by section; contents.json says what a page was made of and is no result
    **{path.stem: path for path in sorted(REPORTS.glob("mini/results/*.json"))},
    "study": REPORTS / "study" / "result.json",
}
del PUBLISHED["contents"]


@pytest.fixture(scope="module")
def validator() -> Callable[[str], Draft202012Validator]:
    made: dict[str, Draft202012Validator] = {}

    def validator(name: str) -> Draft202012Validator:
        return made.setdefault(name, Draft202012Validator(schema_of(name)))

    return validator


def first_mistake(validator: Draft202012Validator, value: Any) -> str | None:
    return next((error.message for error in validator.iter_errors(value)), None)


@pytest.mark.parametrize("name", SECTIONS)
def test_every_result_has_a_valid_schema(name: str) -> None:
    Draft202012Validator.check_schema(schema_of(name))


def test_results_fit_their_schema(
    report: Report, validator: Callable[[str], Draft202012Validator]
) -> None:
    assert set(SECTIONS) - set(report.results) == {"painted"}
    for name, result in report.results.items():
        assert first_mistake(validator(name), json.loads(dumps(result))) is None, name


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_results_fit_their_schema(
    name: str, validator: Callable[[str], Draft202012Validator]
) -> None:
    result = json.loads(PUBLISHED[name].read_text())["result"]
    assert first_mistake(validator(name), result) is None


def test_a_schema_refuses_what_the_reader_refuses(
    report: Report, validator: Callable[[str], Draft202012Validator]
) -> None:
    norms = json.loads(dumps(report.results["norms"]))
    refuse = validator("norms")
    assert "unexpected" in str(first_mistake(refuse, norms | {"extra": 1}))
    assert "required" in str(first_mistake(refuse, {**norms, "encoders": [{}]}))
    norms["encoders"][0]["dim"] = "256"
    assert "is not of type 'integer'" in str(first_mistake(refuse, norms))


def test_an_unknown_result_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(DtiGeomError, match=r"'norm'.*norms"):
        schema_of("norm")
