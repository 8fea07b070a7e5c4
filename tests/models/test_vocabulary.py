from pathlib import Path

import pytest

from dti_geom.errors import UnknownToken
from dti_geom.models import Vocabulary, open_encoders


@pytest.fixture
def clip(sd15_folder: Path) -> Vocabulary:
    return open_encoders(str(sd15_folder))[0].vocabulary


@pytest.fixture
def gemma(sana_folder: Path) -> Vocabulary:
    return open_encoders(str(sana_folder))[0].vocabulary


def test_a_known_word_is_one_row_and_bears_its_own_name(
    clip: Vocabulary, gemma: Vocabulary
) -> None:
    for vocabulary in (clip, gemma):
        rows = vocabulary.rows("cat")
        assert len(rows) == 1
        assert vocabulary.tokens(rows) == ["cat"]


def test_pieces_show_where_the_word_goes_on(clip: Vocabulary, gemma: Vocabulary) -> None:
    assert clip.tokens(clip.rows("catx")) == ["ca…", "t…", "x"]
    assert gemma.tokens(gemma.rows("catx")) == ["cat", "…x"]


def test_bytes_that_are_no_character_keep_the_tokenizers_spelling(clip: Vocabulary) -> None:
    names = clip.tokens(clip.rows("猫"))
    assert all(name.isprintable() and "\ufffd" not in name for name in names)


def test_every_row_has_a_printable_name(clip: Vocabulary, gemma: Vocabulary) -> None:
    for vocabulary in (clip, gemma):
        assert all(
            name and name.isprintable() for name in vocabulary.tokens(range(vocabulary.size))
        )


def test_rows_are_named_by_number_without_a_tokenizer() -> None:
    vocabulary = Vocabulary(None, 10)
    assert vocabulary.tokens([0, 9]) == ["#0", "#9"]
    assert vocabulary.special == {}
    with pytest.raises(UnknownToken, match="without a tokenizer"):
        vocabulary.rows("cat")


def test_rows_past_the_tokenizers_end_are_named_by_number(gemma: Vocabulary) -> None:
    assert gemma.token(gemma.size - 1) == f"#{gemma.size - 1}"


def test_a_row_is_asked_for_by_number_within_the_table() -> None:
    vocabulary = Vocabulary(None, 10)
    assert vocabulary.rows("#9") == [9]
    with pytest.raises(UnknownToken, match="rows #0 to #9"):
        vocabulary.rows("#10")


def test_a_word_the_tokenizer_cannot_spell_is_refused(gemma: Vocabulary, clip: Vocabulary) -> None:
    with pytest.raises(UnknownToken, match="not made of tokens"):
        gemma.rows("猫")
    with pytest.raises(UnknownToken, match="not made of tokens"):
        clip.rows("")


def test_special_tokens_are_named_with_their_rows(clip: Vocabulary) -> None:
    assert clip.special == {"<|startoftext|>": 526, "<|endoftext|>": 527}
    assert clip.token(527) == "<|endoftext|>"


def test_a_word_is_one_token_and_pieces_or_unknown_text_are_none(sd15_folder: Path) -> None:
    (encoder,) = open_encoders(str(sd15_folder))
    answers = {text: encoder.vocabulary.is_word(text) for text in ("dog", "red dog", "#3", "#9999")}
    assert answers == {"dog": True, "red dog": False, "#3": True, "#9999": False}
