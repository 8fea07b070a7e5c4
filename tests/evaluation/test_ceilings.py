from pathlib import Path

import pytest

from dti_geom.evaluation.ceilings import ceilings_of, text_ceiling, undecided
from dti_geom.mini.ceilings import Ceiling, ConceptCeiling, Likeness
from dti_geom.models.catalog import known_concepts
from dti_geom.models.image_encoders import ImageEncoder, open_image_encoder
from dti_geom.statistics import Share


def ceiling(concept: str, **right: int) -> ConceptCeiling:
    """So many of 100 reconstructions pass each check; all drawn pictures do."""
    checks = {
        name: Ceiling(Share.of(100, 100), Share.of(count, 100)) for name, count in right.items()
    }
    return ConceptCeiling(concept, checks, Likeness(0.9, 0.8, 0.1))


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> dict[str, ConceptCeiling]:
    ceilings = {"duck": ceiling("duck", both=95)}
    monkeypatch.setattr("dti_geom.mini.ceilings.shipped_ceilings", lambda: ceilings)
    return ceilings


def test_a_subject_has_ceilings_if_its_images_are_a_bundled_concepts_whatever_its_name(
    shipped: dict[str, ConceptCeiling], dinov2: ImageEncoder, tmp_path: Path
) -> None:
    files = tuple(map(str, known_concepts()["duck"].files))
    references = {
        "my-duck": files[::-1],
        "duck": (str(tmp_path / "photo.png"),),  # the user's own
        "part": files[:2],
        "teddy": tuple(map(str, known_concepts()["teddy"].files)),  # never measured
    }
    found = ceilings_of(references, open_image_encoder("mini"))
    assert found == {"my-duck": shipped["duck"]}
    assert ceilings_of(references, dinov2) == {}


def test_a_check_decides_if_nine_tenths_of_true_pictures_pass_it() -> None:
    first, second = ceiling("x", both=89, order=90), ceiling("y", both=99, colour=50)
    assert undecided((first, None)) == {"both"}
    assert undecided((first, second)) == {"both", "colour"}
    assert undecided((None,)) == frozenset()


def test_a_text_score_can_reach_the_mean_of_its_checks_where_all_are_known() -> None:
    known = ceiling("x", both=90, order=100)
    assert text_ceiling(known, ("both", "order")) == pytest.approx(0.95)
    assert text_ceiling(known, ("order",)) == 1.0
    assert text_ceiling(known, ("order", "count")) is None
    assert text_ceiling(None, ("order",)) is None
    assert text_ceiling(known, ()) is None
