from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dti_geom.errors import DoesNotApply
from dti_geom.models import open_encoders
from dti_geom.probes.harden import Search, measure_harden
from dti_geom.probes.learned import LearnedVector


@pytest.fixture(scope="module")
def mini() -> Any:
    (encoder,) = open_encoders("mini")
    return encoder


def learned(vector: Tensor) -> list[LearnedVector]:
    return [LearnedVector("<x>", 0, None, Path("x.bin"), vector, "<x>")]


def row_of(encoder: Any, word: str) -> Tensor:
    (row,) = encoder.vocabulary.rows(word)
    return encoder.token_table[row].float()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def pairs(mini: Any) -> Search:
    return Search(mini, 2)


@pytest.mark.parametrize("planted", ["red fox", "big teapot"])
def test_a_planted_prompt_of_two_words_is_recovered(mini: Any, pairs: Search, planted: str) -> None:
    ids = [mini.vocabulary.rows(word)[0] for word in planted.split()]
    places = torch.tensor([pairs.candidates.tolist().index(row) for row in ids])
    (states,) = pairs.states(pairs.table[places][None])
    first = pairs.nearest(row_of(mini, "beach"))  # words that have nothing to do with it
    found = pairs.best(states[0], first, starts=4, updates=20)
    assert found.text == planted
    assert found.share == pytest.approx(1, abs=1e-4)
    assert found.cosine == pytest.approx(1, abs=1e-4)


def test_the_row_of_a_word_hardens_to_that_word(mini: Any) -> None:
    vector = row_of(mini, "teapot")
    (token,) = measure_harden(
        mini, learned(vector), tokens="<x>", words=1, starts=2, updates=2
    ).tokens
    assert token.prompt.text == token.word.text == token.nearest.text == "teapot"
    assert token.prompt.share == pytest.approx(1, abs=1e-4)


def test_the_same_seed_finds_the_same_and_no_less_than_its_first_prompts(mini: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    vector = 0.4 * torch.nn.functional.normalize(
        torch.randn(mini.token_table.shape[1], generator=generator), dim=0
    )
    options: dict[str, Any] = {"tokens": "<x>", "words": 2, "starts": 2, "updates": 3}
    (first,), (again,) = (measure_harden(mini, learned(vector), **options).tokens for _ in range(2))
    assert first == again
    assert first.prompt.share >= first.nearest.share
    assert first.word.share < 1


def test_only_words_that_can_be_typed_are_used(mini: Any, pairs: Search) -> None:
    for row in pairs.candidates[::20].tolist():
        (name,) = mini.vocabulary.tokens([row])
        assert mini.vocabulary.rows(name) == [row]
    text = "red fox"
    ids = [mini.vocabulary.rows(word)[0] for word in text.split()]
    assert mini.vocabulary.rows(text) == ids  # what is joined by spaces is read apart


def test_more_words_than_an_encoder_has_places_are_refused(mini: Any) -> None:
    with pytest.raises(DoesNotApply, match="Name fewer with --words"):
        Search(mini, len(mini.position_table))
