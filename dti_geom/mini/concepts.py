"""The personal concepts that ship with the embedded model: looks that no training scene shows.

Held-out artwork in two other styles, held-out colours, patterns, and things without a word.
"""

import json
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from dti_geom.errors import ModelFilesError
from dti_geom.files.decoding import decode
from dti_geom.mini.scenes import Item
from dti_geom.models.catalog import embedded_folder
from dti_geom.models.profiles import BundledConcept

IMAGES_PER_CONCEPT = 5
CONCEPTS_FILE = "concepts.json"


@dataclass(frozen=True)
class Concept:
    """A personal concept, and how it is painted."""

    name: str
    initialiser: str  # the vocabulary word that its token starts from
    split: str  # "tuning" or "test"
    kind: str  # "artwork", "colour", "pattern" or "stranger"
    item: Item


def bundled_concepts() -> dict[str, BundledConcept]:
    """Return the shipped concepts by name, in the order of concepts.json."""
    return {concept.name: concept for concept in _bundled(concepts_folder())}


@cache  # a sweep of thousands of cells asks for them at each cell
def _bundled(folder: Path) -> tuple[BundledConcept, ...]:
    return tuple(
        BundledConcept(
            name=concept.name,
            init=concept.initialiser,
            images=folder / concept.name,
            files=tuple(concept_files(folder, concept)),
            kind=concept.kind,
            split=concept.split,
        )
        for concept in load_concepts(folder)
    )


def concepts_folder() -> Path:
    """Return the folder of the shipped concepts."""
    return embedded_folder() / "concepts"


def load_concepts(folder: Path) -> tuple[Concept, ...]:
    """Read the concepts in `folder`, in the order of concepts.json. Raises ModelFilesError."""
    path = folder / CONCEPTS_FILE
    if not path.exists():
        raise ModelFilesError(
            f"{path} is missing. It ships with the embedded model, so this installation is "
            "incomplete: install dti-geom again."
        )
    return tuple(_concept_from(entry) for entry in json.loads(path.read_text(encoding="utf-8")))


def concept_files(folder: Path, concept: Concept) -> list[Path]:
    """Return the paths of a concept's reference pictures."""
    return [folder / concept.name / f"{number}.png" for number in range(IMAGES_PER_CONCEPT)]


def concept_images(folder: Path, concept: Concept) -> list[Image.Image]:
    """Read a concept's reference pictures, RGB."""
    images = []
    for path in concept_files(folder, concept):
        with Image.open(path) as picture:
            images.append(picture.convert("RGB"))
    return images


def _concept_from(entry: dict[str, Any]) -> Concept:
    # The file also lists the pictures of each concept.
    return decode(Concept, {field.name: entry[field.name] for field in fields(Concept)})
