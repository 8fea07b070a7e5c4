"""The shipped concepts are complete, and the profile of mini lists them."""

from dataclasses import asdict

from PIL import Image

from dti_geom.mini.concepts import (
    IMAGES_PER_CONCEPT,
    bundled_concepts,
    concepts_folder,
    load_concepts,
)
from dti_geom.mini.domain import THING_NAMES
from dti_geom.models.catalog import known_concepts, profile_of


def test_shipped_concepts_have_five_pictures_each_and_start_from_known_words() -> None:
    concepts = bundled_concepts()
    assert len(concepts) == 16
    assert sum(concept.split == "tuning" for concept in concepts.values()) == 4
    for concept in concepts.values():
        assert len(concept.files) == IMAGES_PER_CONCEPT
        assert concept.init in THING_NAMES
        for file in concept.files:
            assert file.parent == concept.images
            with Image.open(file) as picture:
                assert picture.size == (64, 64)


def test_the_profile_lists_the_concepts_in_their_order() -> None:
    names = [concept.name for concept in load_concepts(concepts_folder())]
    assert list(profile_of("mini").concepts()) == list(known_concepts()) == names
    first, again = profile_of("mini").concepts()[names[0]], known_concepts()[names[0]]
    assert asdict(first) == asdict(again)
