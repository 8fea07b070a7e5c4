"""Kinds of rows in a token table, told from the tokenizer's own spelling of each row.

A large language model's table mixes rows that learned much with rows that learned nothing. Each row
has one kind, the first of KINDS that fits.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from dti_geom.models.vocabulary import Vocabulary

KINDS: dict[str, str] = {
    "beyond the tokenizer": "no token has this row",
    "reserved": "the name says so: <unused7>, [unused7], <|reserved_special_token_7|>",
    "special": "the tokenizer lists it as special",
    "bytes": "bytes that are no whole character: <0x0A>, or an incomplete UTF-8 sequence",
    "other scripts": "a letter that is not Latin",
    "words": "all other tokens: Latin words and pieces, digits, marks",
}
NEVER_READ = ("beyond the tokenizer", "reserved")  # kinds that no ordinary text has

_RESERVED = re.compile(
    r"[<\[]\|?(unused|reserved|dummy|placeholder|extra_\d)\w*\|?[>\]]", re.IGNORECASE
)
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def row_kinds(vocabulary: Vocabulary) -> list[str]:
    """Return the kind of each row of the table, keys of KINDS.

    Without a tokenizer nothing can be told: every row is of the kind "words".
    """
    tokenizer = vocabulary.tokenizer
    if tokenizer is None:
        return ["words"] * vocabulary.size
    spelled = {row: name for name, row in tokenizer.get_vocab().items()}
    special = set(vocabulary.special.values())
    special |= {row for row, token in tokenizer.added_tokens_decoder.items() if token.special}
    decode = _byte_decoder(tokenizer)
    kinds: list[str] = []
    for row in range(vocabulary.size):
        name = spelled.get(row)
        if name is None:
            kinds.append("beyond the tokenizer")
        elif _RESERVED.fullmatch(name):
            kinds.append("reserved")
        elif row in special:
            kinds.append("special")
        else:
            kinds.append(_kind_of_text(name, decode(name) if decode else name))
    return kinds


def _byte_decoder(tokenizer: Any) -> Callable[[str], str] | None:
    """Return what turns the spelling of a byte-level token into text; None for other tokenizers."""
    from tokenizers.decoders import ByteLevel

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or "ByteLevel" not in f"{backend.pre_tokenizer!r} {backend.decoder!r}":
        return None
    decoder = ByteLevel()
    return lambda name: decoder.decode([name.removesuffix("</w>")])


def _kind_of_text(name: str, text: str) -> str:
    if "\ufffd" in text or _BYTE.fullmatch(name):
        return "bytes"
    if not text.isascii() and any(_is_foreign(letter) for letter in text):
        return "other scripts"
    return "words"


@lru_cache(maxsize=65536)
def _is_foreign(letter: str) -> bool:
    return letter.isalpha() and not unicodedata.name(letter, "").startswith("LATIN")
