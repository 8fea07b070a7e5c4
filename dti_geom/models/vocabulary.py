"""The names of token table rows."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dti_geom.errors import UnknownToken


@dataclass(frozen=True)
class Vocabulary:
    """The names of a token table's rows. Without a tokenizer, row 7 is called `#7`."""

    tokenizer: Any | None  # a transformers tokenizer
    size: int  # rows of the token table that can be words

    def __repr__(self) -> str:
        """Return the size and the kind of tokenizer on one line."""
        kind = "no tokenizer" if self.tokenizer is None else type(self.tokenizer).__name__
        return f"<Vocabulary {self.size} tokens, {kind}>"

    def token(self, row: int) -> str:
        """Return the name of a row; see `tokens`."""
        return self.tokens([row])[0]

    def tokens(self, rows: Iterable[int]) -> list[str]:
        """Return names to read: `cat` for a whole word, `cat…` or `…cat` for a piece of a word.

        Rows that are not printable text of their own (bytes of a longer character, control
        characters, padding rows past the tokenizer's end) keep the tokenizer's spelling, or `#row`.
        """
        return [self._name(int(row)) for row in rows]

    def rows(self, text: str) -> list[int]:
        """Return the rows of a word at the start of a prompt, or the row of `#id`.

        Raises UnknownToken.
        """
        if match := re.fullmatch(r"#(\d+)", text):
            row = int(match[1])
            if row >= self.size:
                raise UnknownToken(f"{text}: the token table has rows #0 to #{self.size - 1}.")
            return [row]
        if self.tokenizer is None:
            raise UnknownToken(
                f"'{text}': this model came without a tokenizer. "
                "Name rows as #id, for example #320."
            )
        rows = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        unknown = self.tokenizer.unk_token_id
        if (
            not rows
            or max(rows) >= self.size
            or (unknown in rows and text != self.tokenizer.unk_token)
        ):
            raise UnknownToken(
                f"'{text}' is not made of tokens this model knows. "
                "Try another word, or a row as #id."
            )
        return list(rows)

    def is_word(self, text: str) -> bool:
        """Return whether a text is one token of this vocabulary."""
        try:
            return len(self.rows(text)) == 1
        except UnknownToken:
            return False

    @property
    def special(self) -> dict[str, int]:
        """Special tokens (start, end, padding, …) and their rows; empty without a tokenizer."""
        if self.tokenizer is None:
            return {}
        pairs = zip(self.tokenizer.all_special_tokens, self.tokenizer.all_special_ids, strict=True)
        return {token: row for token, row in pairs if row is not None and row < self.size}

    def _name(self, row: int) -> str:
        if self.tokenizer is None or row >= self.size:
            return f"#{row}"
        if (raw := self.tokenizer.convert_ids_to_tokens(row)) is None:
            return f"#{row}"
        if row in self.tokenizer.all_special_ids:
            return str(raw)
        text = self.tokenizer.decode([row], clean_up_tokenization_spaces=False)
        if not text.strip() or "\ufffd" in text or not text.isprintable():
            return str(raw)
        return _mark_piece(text, raw, self._marks)

    @property
    def _marks(self) -> str:
        """How this tokenizer marks words: `</w>` at the end, `##` inside, `▁`/`Ġ` at the start."""
        model = getattr(getattr(self.tokenizer, "backend_tokenizer", None), "model", None)
        if getattr(model, "end_of_word_suffix", None) == "</w>":
            return "</w>"
        return "##" if type(model).__name__ == "WordPiece" else "▁"


def _mark_piece(text: str, raw: str, marks: str) -> str:
    if marks == "</w>":
        return text.strip() if raw.endswith("</w>") else text + "…"
    if marks == "##":
        return "…" + text.removeprefix("##") if raw.startswith("##") else text
    return text.strip() if raw[:1] in "▁Ġ" else "…" + text
