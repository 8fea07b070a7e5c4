from dataclasses import replace
from pathlib import Path

import pytest

from dti_geom.errors import DtiGeomError, TrainingError, UnknownModel, UnknownToken
from dti_geom.models import open_encoders
from dti_geom.models.catalog import known_concepts
from dti_geom.models.vocabulary import Vocabulary
from dti_geom.training import ConceptConfig, MethodConfig, RunConfig, train
from dti_geom.training.checks import check_before_loading, init_rows

FOX = ConceptConfig("<x>", str(known_concepts()["green-fox"].images), "fox")


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    (encoder,) = open_encoders("mini")
    return encoder.vocabulary


def test_words_have_a_row_each(vocabulary: Vocabulary) -> None:
    for init, count in (("fox", 1), ("red fox", 2), ("d o g", 3)):
        rows = init_rows(vocabulary, replace(FOX, init=init), "mini")
        assert rows == vocabulary.rows(init)
        assert len(rows) == count


@pytest.mark.parametrize("init", ["dog", "red dog"])
def test_a_word_in_pieces_is_refused_with_its_pieces_and_two_ways_on(
    vocabulary: Vocabulary, init: str
) -> None:
    count = len(vocabulary.rows(init))
    with pytest.raises(TrainingError) as caught:
        init_rows(vocabulary, replace(FOX, init=init), "mini")
    assert "d…, o…, g" in str(caught.value)
    assert f"--vectors {count}" in str(caught.value)
    assert 'd o g"' in str(caught.value)


def test_a_word_in_pieces_is_taken_where_that_many_vectors_are_asked_for(
    vocabulary: Vocabulary,
) -> None:
    rows = init_rows(vocabulary, replace(FOX, init="dog", vectors=3), "mini")
    assert rows == vocabulary.rows("dog")


def test_a_word_that_is_one_token_after_a_space_alone_gets_that_row(sana_pipeline: Path) -> None:
    (encoder,) = open_encoders(str(sana_pipeline))
    assert len(encoder.vocabulary.rows("dog")) > 1
    (row,) = init_rows(encoder.vocabulary, replace(FOX, init="dog"), "sana")
    assert encoder.vocabulary.token(row) == "dog"
    assert encoder.tokenizer is not None
    assert row in encoder.tokenizer("a photo of a dog").input_ids


def test_words_of_like_spelling_are_named(vocabulary: Vocabulary) -> None:
    with pytest.raises(TrainingError, match=r"Words spelled like it: .*\bfrog\b"):
        init_rows(vocabulary, replace(FOX, init="frogg"), "mini")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"method": MethodConfig("DTI")}, TrainingError, "Did you mean 'dti'"),
        ({"method": MethodConfig("ti", kappa=0.1)}, TrainingError, "kappa has no effect"),
        ({"concepts": (replace(FOX, images="/nowhere"),)}, TrainingError, "not a folder"),
        ({"concepts": (replace(FOX, init="dog"),)}, TrainingError, "splits into"),
        ({"concepts": (replace(FOX, init="狐"),)}, UnknownToken, "not made of tokens"),
        ({"model": "sd1.6"}, UnknownModel, "no model called"),
        ({"device": "gpu"}, DtiGeomError, r"'gpu' cannot be used here\. Here: cpu"),
    ],
)
def test_what_no_run_could_do_is_refused_before_a_model_is_opened(
    change: dict[str, object],
    error: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("dti_geom.training.run.open_text_to_image", None)
    config = replace(RunConfig("mini", (FOX,)), **change)  # type: ignore[arg-type]
    with pytest.raises(error, match=message):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_can_be_trained_passes() -> None:
    check_before_loading(RunConfig("mini", (FOX,)))
