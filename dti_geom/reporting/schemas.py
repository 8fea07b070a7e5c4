"""JSON Schema of results, for readers that are not Python."""

from typing import Any

from dti_geom.errors import DtiGeomError, nearest_name
from dti_geom.files.results import FORMAT
from dti_geom.reporting.registry import SECTIONS, result_type

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_of(name: str) -> dict[str, Any]:
    """Return the JSON Schema of a result, as `--json` prints it.

    name: a section of `SECTIONS`. A result file holds the same under its key `result`. Keys that
    the schema does not name are refused, as they are when a result file is read.
    Raises DtiGeomError for another name.
    """
    from pydantic import TypeAdapter
    from pydantic.json_schema import GenerateJsonSchema

    class Strict(GenerateJsonSchema):
        def dataclass_schema(self, schema: Any) -> dict[str, Any]:
            return super().dataclass_schema(schema) | {"additionalProperties": False}

    if name not in SECTIONS:
        near = nearest_name(name, SECTIONS)
        raise DtiGeomError(f"no result called '{name}'.{near} Known: {', '.join(SECTIONS)}.")
    schema = TypeAdapter(result_type(name)).json_schema(schema_generator=Strict)
    return {"$schema": DIALECT, "$comment": f"dti-geom, result format {FORMAT}", **schema}
