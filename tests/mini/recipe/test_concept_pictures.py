"""Personal concepts are new to the model, and their pictures show what is new."""

from pathlib import Path

import pytest
from PIL import Image

from dti_geom.errors import ModelFilesError
from dti_geom.mini.concepts import IMAGES_PER_CONCEPT, concept_images, load_concepts
from dti_geom.mini.domain import HELD_OUT_COLOURS, THING_NAMES
from dti_geom.mini.recipe.artwork import Sprites
from dti_geom.mini.recipe.concept_pictures import (
    CONCEPTS,
    patterned,
    save_concepts,
    with_concepts,
)


def test_concepts_are_never_trained() -> None:
    assert len({concept.name for concept in CONCEPTS}) == len(CONCEPTS) >= 12
    assert sum(concept.split == "tuning" for concept in CONCEPTS) == 4
    for concept in CONCEPTS:
        assert concept.initialiser in THING_NAMES
        item = concept.item
        is_new = (
            item.style != "drawn"
            or item.thing not in THING_NAMES
            or (item.colour, item.thing) in HELD_OUT_COLOURS
        )
        assert is_new, concept.name


def test_patterns_show_both_colours(sprites: Sprites) -> None:
    picture = patterned(Image.new("RGBA", (64, 64), (200, 200, 200, 255)), "striped")
    colours = picture.getcolors(5000)
    assert colours is not None
    assert len(colours) >= 2
    assert ("spotted", "car") in with_concepts(sprites)


@pytest.mark.slow
def test_shipped_concepts_read_back_as_they_were_written(sprites: Sprites, tmp_path: Path) -> None:
    save_concepts(tmp_path, sprites, seed=0)
    assert load_concepts(tmp_path) == CONCEPTS
    pictures = concept_images(tmp_path, CONCEPTS[0])
    assert [picture.size for picture in pictures] == [(64, 64)] * IMAGES_PER_CONCEPT
    with pytest.raises(ModelFilesError, match=r"concepts\.json"):
        load_concepts(tmp_path / "nowhere")
