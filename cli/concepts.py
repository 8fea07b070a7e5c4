"""`dti-geom concepts`."""

from typing import Any

from . import options
from .output import print_json, print_line, print_section


def concepts(json: options.Json = False) -> None:
    """List the personal concepts that ship with `mini`.

    mini was never trained on these looks. Each has five reference images. Settings are tuned on the
    tuning concepts and judged on the test concepts.
    """
    from dti_geom.models.catalog import known_concepts

    bundled = known_concepts().values()
    listed: list[dict[str, Any]] = [
        {
            "name": concept.name,
            "initialiser": concept.init,
            "kind": concept.kind,
            "split": concept.split,
            "images": [str(path) for path in concept.files],
        }
        for concept in bundled
    ]
    if json:
        print_json(listed)
        return
    from dti_geom.reporting.blocks import Column, Section, Table, Value

    names = ("name", "initialiser", "kind", "split")
    columns = [Column(name, kind="text") for name in names]
    rows: list[list[Value]] = [[concept[name] for name in names] for concept in listed]
    print_section(Section("Concepts", [Table("", columns, rows)]))
    for folder in dict.fromkeys(concept.images.parent for concept in bundled):
        print_line(f"reference images: {folder}/NAME/")
