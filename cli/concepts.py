"""`dti-geom concepts`."""

from . import options
from .output import print_json, print_line, print_table


def concepts(json: options.Json = False) -> None:
    """The personal concepts that ship with `mini`.

    Looks it was never trained on, five reference images each. Settings are tuned on the tuning concepts and judged on
    the test concepts.
    """
    from dti_geom.mini.concepts import concept_files, load_concepts
    from dti_geom.models.catalog import embedded_folder

    folder = embedded_folder() / "concepts"
    listed = [
        {
            "name": concept.name,
            "initialiser": concept.initialiser,
            "kind": concept.kind,
            "split": concept.split,
            "images": [str(path) for path in concept_files(folder, concept)],
        }
        for concept in load_concepts(folder)
    ]
    if json:
        print_json(listed)
        return
    columns = ("name", "initialiser", "kind", "split")
    print_table("", columns, [[one[column] for column in columns] for one in listed])
    print_line(f"reference images: {folder}/NAME/")
