from collections import Counter
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from dti_geom.models import Vocabulary, open_encoders
from dti_geom.models.row_kinds import KINDS, row_kinds


def vocabulary(words: list[str], size: int, special: tuple[str, ...] = ()) -> Vocabulary:
    model = models.WordLevel({word: row for row, word in enumerate(words)}, unk_token=words[0])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model))
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    return Vocabulary(tokenizer, size)


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("cat", "words"),
        ("café", "words"),
        ("42", "words"),
        ("▁dog", "words"),
        ("猫", "other scripts"),
        ("▁кот", "other scripts"),
        ("<0x0A>", "bytes"),
        ("<unused7>", "reserved"),
        ("[unused12]", "reserved"),
        ("<|reserved_special_token_3|>", "reserved"),
        ("unused", "words"),
        ("<s>", "special"),
    ],
)
def test_a_row_is_named_after_what_its_token_is(word: str, kind: str) -> None:
    assert row_kinds(vocabulary(["a", word], 2, ("<s>",)))[1] == kind


def test_rows_that_no_token_has_are_beyond_the_tokenizer() -> None:
    assert row_kinds(vocabulary(["a", "b"], 5)) == ["words"] * 2 + ["beyond the tokenizer"] * 3


def test_without_a_tokenizer_all_rows_are_words() -> None:
    assert row_kinds(Vocabulary(None, 3)) == ["words"] * 3


def test_bytes_of_a_byte_level_vocabulary_are_told_from_letters_and_whole_characters(
    shared_data: Path,
) -> None:
    (encoder,) = open_encoders(str(shared_data / "mini-prototype"))
    kinds = row_kinds(encoder.vocabulary)
    names = dict(zip(encoder.vocabulary.tokens(range(len(kinds))), kinds, strict=True))
    # 128 of the 256 bytes begin or continue a longer character, inside and at the end of a word.
    assert Counter(kinds) == {"words": 1753, "bytes": 256, "special": 2}
    assert names["cat"] == names["a…"] == "words"
    assert set(kinds) <= set(KINDS)
