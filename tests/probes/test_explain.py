from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from dti_geom.errors import DoesNotApply
from dti_geom.files import EmbeddingFile, from_json, to_json
from dti_geom.models import open_encoders
from dti_geom.probes.explain import ExplainResult, measure_explain
from dti_geom.probes.learned import LearnedVector, learned_vectors

LearnedFile = Callable[..., EmbeddingFile]


@pytest.fixture(scope="module")
def mini() -> Any:
    (encoder,) = open_encoders("mini")
    return encoder


def learned(*vectors: Tensor) -> list[LearnedVector]:
    """Each vector is a token of its own: <x0>, <x1>, …"""
    return [
        LearnedVector(f"<x{place}>", 0, None, Path("x.bin"), vector, f"<x{place}>")
        for place, vector in enumerate(vectors)
    ]


def explained(encoder: Any, vectors: Tensor, **options: Any) -> Any:
    """The explanations of these vectors in the table's space."""
    given = learned(*vectors)
    names = [vector.token for vector in given]
    return measure_explain(encoder, given, tokens=names, **options).spaces[0]


@pytest.mark.parametrize("words", [1, 3, 8])
def test_a_sum_of_words_of_mini_is_recovered_with_order_and_weights(mini: Any, words: int) -> None:
    generator = torch.Generator().manual_seed(words)
    rows = torch.randperm(len(mini.token_table), generator=generator)[:words]
    weights = torch.linspace(2, 1, words)
    vector = weights @ normalize(mini.token_table[rows].float(), dim=1)
    (token,) = explained(mini, vector[None]).tokens
    assert token.kept == words
    assert [word.id for word in token.explanation.words] == rows.tolist()
    found = torch.tensor([word.weight for word in token.explanation.words]) * vector.norm()
    torch.testing.assert_close(found, weights, rtol=0.01, atol=0)
    assert token.explained


def test_at_least_95_of_100_random_directions_are_unexplained(mini: Any) -> None:
    generator = torch.Generator().manual_seed(7)
    vectors = torch.randn(100, mini.token_table.shape[1], generator=generator)
    tokens = explained(mini, vectors).tokens
    assert sum(not token.explained for token in tokens) >= 95


def test_words_are_kept_until_the_next_adds_no_more_than_chance(mini: Any) -> None:
    generator = torch.Generator().manual_seed(3)
    table = normalize(mini.token_table.float(), dim=1)
    vector = table[10] + table[200]
    noise = normalize(torch.randn(len(vector), generator=generator), dim=0)
    (token,) = explained(mini, (vector + 0.5 * vector.norm() * noise)[None]).tokens
    assert {word.id for word in token.explanation.words} == {10, 200}
    assert len(token.sums) == 8


def test_a_word_is_itself_unless_only_others_may_explain_it(mini: Any) -> None:
    (space,) = measure_explain(mini, tokens="fox").spaces
    (fox,) = space.tokens
    ((word,),) = [found.words for found in fox.sums]
    assert (word.token, word.id) == ("fox", fox.id)
    assert word.weight == pytest.approx(1)
    ((other,),) = [
        space.tokens for space in measure_explain(mini, tokens="fox", others=True).spaces
    ]
    assert fox.id not in {word.id for found in other.sums for word in found.words}
    assert other.share < 1


def test_the_norm_of_a_token_changes_nothing(mini: Any) -> None:
    vector = mini.token_table[3:4].float() + mini.token_table[90:91].float()
    short, long = explained(mini, torch.cat([0.01 * vector, 100 * vector])).tokens
    assert [word.id for word in short.explanation.words] == [
        word.id for word in long.explanation.words
    ]
    assert long.norm == pytest.approx(1e4 * short.norm, rel=1e-5)


def test_a_word_is_itself_in_the_encoders_output_too(mini: Any) -> None:
    row = mini.vocabulary.rows("fox")[0]
    given = learned(mini.token_table[row])
    found = measure_explain(mini, given, tokens=["<x0>"], contextual=True, words=2)
    table, contextual = found.spaces
    assert (table.space, contextual.space) == ("table", "contextual")
    assert contextual.rows < table.rows  # whole words only
    (token,) = contextual.tokens
    assert [(word.token, round(word.weight, 4)) for word in token.explanation.words] == [("fox", 1)]


class Shifted:
    """An encoder whose outputs all have the same vector added."""

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoder, name)

    def hidden_states(self, *inputs: Any, **options: Any) -> Any:
        states = self.encoder.hidden_states(*inputs, **options)
        return replace(states, last=states.last + 3)


def test_what_all_outputs_have_in_common_explains_nothing(mini: Any) -> None:
    options: dict[str, Any] = {
        "tokens": ("fox", "red"),
        "contextual": True,
        "others": True,
        "words": 2,
    }
    plain, shifted = (
        measure_explain(encoder, **options).spaces[1] for encoder in (mini, Shifted(mini))
    )
    assert shifted.ordinary == pytest.approx(plain.ordinary, abs=1e-3)
    for one, other in zip(plain.tokens, shifted.tokens, strict=True):
        assert other.share == pytest.approx(one.share, abs=1e-3)


def test_checkpoints_of_a_token_are_told_apart_by_step(
    sd15_folder: Path, learned_file: LearnedFile
) -> None:
    (encoder,) = open_encoders(str(sd15_folder))
    files = [
        learned_file(encoder.token_table[place].float(), name=f"{step}.bin", step=step)
        for place, step in enumerate((100, 200))
    ]
    (space,) = measure_explain(encoder, learned_vectors(files), tokens="<x>", words=2).spaces
    assert [(token.step, token.path) for token in space.tokens] == [
        (100, "100.bin"),
        (200, "200.bin"),
    ]
    assert [token.explanation.words[0].id for token in space.tokens] == [0, 1]


def test_the_same_seed_gives_the_same_result_which_round_trips_through_json(
    fake_encoder: Callable[[Tensor], Any], seeded_table: Tensor
) -> None:
    encoder = fake_encoder(seeded_table)
    found = measure_explain(encoder, tokens=("#3", "#7"), words=3)
    assert measure_explain(encoder, tokens=("#3", "#7"), words=3) == found
    assert from_json(ExplainResult, to_json(found)) == found
    assert found.spaces[0].rows == 1000
    other = measure_explain(encoder, tokens=("#3", "#7"), words=3, seed=1)
    assert other.spaces[0].random != found.spaces[0].random


def test_nothing_to_explain_is_an_error(fake_encoder: Callable[[Tensor], Any]) -> None:
    with pytest.raises(DoesNotApply, match="none of the words"):
        measure_explain(fake_encoder(torch.eye(4)))
