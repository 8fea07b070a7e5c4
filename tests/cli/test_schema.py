import json

from dti_geom.reporting.registry import SECTIONS
from warm import Run


def test_every_result_is_listed(run: Run) -> None:
    assert run("schema").stdout.split() == list(SECTIONS)


def test_what_a_command_prints_fits_its_schema(run: Run) -> None:
    from jsonschema import validate

    schema = json.loads(run("schema", "neighbors").stdout)
    result = json.loads(run("neighbors", "fox", "--json").stdout)
    validate(result, schema)


def test_an_unknown_result_is_refused(run: Run) -> None:
    refused = run("schema", "norm")
    assert refused.returncode != 0
    assert "norms" in refused.stderr
