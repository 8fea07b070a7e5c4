from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dti_geom.errors import DoesNotApply
from dti_geom.models import open_encoders
from dti_geom.probes.material import (
    CARRIERS,
    carrier_prompts,
    in_chunks,
    place_prompts,
    run_prompts,
    whole_words,
)


@pytest.fixture(scope="module")
def mini() -> Any:
    (encoder,) = open_encoders("mini", dtype=torch.float32)
    return encoder


def test_words_are_neither_pieces_nor_special_nor_zero(
    mini: Any, fake_encoder: Callable[[Tensor], Any], seeded_table: Tensor
) -> None:
    rows = whole_words(mini, 10_000)
    names = mini.vocabulary.tokens(rows.tolist())
    assert {"fox", "beach"} <= set(names)
    assert not [name for name in names if not name.isalpha()]
    assert not set(rows.tolist()) & set(mini.vocabulary.special.values())
    others = set(range(386)) - set(rows.tolist())
    assert all(not name.isalpha() for name in mini.vocabulary.tokens(others))
    assert whole_words(fake_encoder(seeded_table), 2000).tolist() == list(
        range(1000)
    )  # the last three are zero


def test_a_sample_is_seeded_ascending_and_of_the_asked_size(
    fake_encoder: Callable[[Tensor], Any], seeded_table: Tensor
) -> None:
    encoder = fake_encoder(seeded_table)
    first = whole_words(encoder, 50, seed=3)
    assert torch.equal(first, whole_words(encoder, 50, seed=3))
    assert not torch.equal(first, whole_words(encoder, 50, seed=4))
    assert first.tolist() == sorted(set(first.tolist()))
    assert len(first) == 50
    assert first[-1] > 500  # from the whole table, not from its start


def test_a_vocabulary_without_words_is_told_so(fake_encoder: Callable[[Tensor], Any]) -> None:
    with pytest.raises(DoesNotApply, match="none of its 4 rows is a whole word"):
        whole_words(fake_encoder(torch.zeros(4, 4)), 2)


def test_a_prompt_reads_as_its_text_with_a_word_at_the_place(mini: Any) -> None:
    prompts = carrier_prompts(mini)
    for text, ids, mask, place, end in zip(
        prompts.texts, prompts.ids, prompts.mask, prompts.places, prompts.ends, strict=True
    ):
        word = mini.vocabulary.token(int(ids[place]))
        assert ids[mask.bool()].tolist() == mini.tokenizer(text.replace("{}", word))["input_ids"]
        assert ids[end] == mini.tokenizer.eos_token_id
        assert mask.tolist() == [1] * (int(end) + 1) + [0] * (len(ids) - int(end) - 1)
    assert len(set(prompts.places.tolist())) > 2


def test_without_a_tokenizer_equal_words_become_equal_rows(
    tiny_encoder: Callable[..., Any], seeded_table: Tensor
) -> None:
    prompts = carrier_prompts(
        tiny_encoder(seeded_table, torch.zeros(9, 16), []), ("a red {}", "{} on a red")
    )
    (first, second) = prompts.ids.tolist()
    assert prompts.places.tolist() == [2, 0]
    assert first[:2] == second[2:]
    assert len({*first, *second}) == 5  # a, red, on, the word, padding


def test_a_tokenizer_with_spaces_before_words_keeps_them(sana_folder: Path) -> None:
    (encoder,) = open_encoders(str(sana_folder))
    prompts = carrier_prompts(encoder, ("{} red house",))
    assert encoder.vocabulary.tokens(prompts.ids[0, prompts.places[0] + 1 :].tolist())[:2] == [
        "red",
        "house",
    ]


def test_a_prompt_that_is_too_long_keeps_its_word_and_its_end(sd15_folder: Path) -> None:
    (encoder,) = open_encoders(str(sd15_folder))
    prompts = carrier_prompts(encoder)
    assert prompts.ids.shape == (len(CARRIERS), 12)
    start, end = (
        encoder.vocabulary.rows("<|startoftext|>")[0],
        encoder.vocabulary.rows("<|endoftext|>")[0],
    )
    assert (prompts.ids[:, 0] == start).all()
    assert (prompts.ids.gather(1, prompts.ends[:, None]) == end).all()
    assert ((prompts.places > 0) & (prompts.places < prompts.ends)).all()


def test_too_few_positions_for_a_word_are_told(
    tiny_encoder: Callable[..., Any], sd15_folder: Path
) -> None:
    (encoder,) = open_encoders(str(sd15_folder))
    short = tiny_encoder(encoder.token_table, torch.zeros(2, 32), [])
    short.vocabulary = encoder.vocabulary
    with pytest.raises(
        DoesNotApply, match="tiny has 2 positions; a word with its start and end tokens needs 3"
    ):
        carrier_prompts(short)


def test_vectors_stand_at_the_place_and_nowhere_else(mini: Any) -> None:
    prompts, vectors = (
        carrier_prompts(mini),
        torch.randn(3, 256, generator=torch.Generator().manual_seed(0)),
    )
    filled = prompts.embeddings(mini.token_table, vectors)
    plain = mini.token_table[prompts.ids].float()
    assert filled.shape == (3, *plain.shape)
    for number, place in enumerate(prompts.places.tolist()):
        assert torch.equal(filled[:, number, place], vectors)
        filled[:, number, place] = plain[number, place]
    assert torch.equal(filled, plain.expand_as(filled))


@pytest.mark.parametrize("folder", ["t5", "llama", "clip"])
def test_padding_changes_no_state_of_a_word(single_encoders: dict[str, Path], folder: Any) -> None:
    (encoder,) = open_encoders(str(single_encoders[folder]), dtype=torch.float32)
    carriers = ("a {} on the beach", "{}")
    vectors = encoder.token_table[:2].float()
    (together,) = run_prompts(encoder, carrier_prompts(encoder, carriers), vectors, "")
    for number, carrier in enumerate(carriers):
        alone = carrier_prompts(encoder, (carrier,))
        (single,) = run_prompts(encoder, alone, vectors, "")
        place = int(alone.places[0])
        torch.testing.assert_close(
            torch.unflatten(together.last, 0, (2, 2))[:, number, place],
            single.last[:, place],
            atol=1e-5,
            rtol=1e-4,
        )


def test_chunks_cover_everything_once_and_tell_how_far_they_are() -> None:
    heard = []
    parts = list(in_chunks(7, 1_000_000, "work", lambda *told: heard.append(told)))
    assert [item for part in parts for item in range(7)[part]] == list(range(7))
    assert len(parts) == 4
    assert heard == [("work", done, 7) for done in (0, 2, 4, 6, 7)]


def test_a_word_may_stand_at_each_place_among_other_words(mini: Any) -> None:
    prompts = place_prompts(mini, 6)
    assert prompts.places.tolist() == [1, 2, 3, 4, 5, 6]  # behind the start token
    assert prompts.ids.shape == (6, 8)
    assert prompts.ends.tolist() == [7] * 6
    assert len({tuple(row) for row in prompts.ids.tolist()}) == 6
    assert not torch.equal(prompts.ids, place_prompts(mini, 6, seed=1).ids)


def test_there_are_no_more_places_than_positions(
    mini: Any, tiny_encoder: Callable[..., Any]
) -> None:
    assert len(place_prompts(mini, 100).places) == 22  # of 24; the start and end token have two
    with pytest.raises(DoesNotApply, match="room for 1 words"):
        place_prompts(tiny_encoder(torch.eye(4), torch.zeros(1, 4), []), 5)


def test_each_prompt_may_have_a_vector_of_its_own(mini: Any) -> None:
    prompts = carrier_prompts(mini)
    vectors = torch.arange(2 * len(prompts.places), dtype=torch.float32).view(2, -1, 1)
    filled = prompts.embeddings(mini.token_table, vectors.expand(-1, -1, 256))
    at_word = filled[:, torch.arange(len(prompts.places)), prompts.places]
    assert torch.equal(at_word[..., 0], vectors[..., 0])
