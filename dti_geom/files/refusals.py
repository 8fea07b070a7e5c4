"""Why a stranger's file is not read, in words; and the limits that keep reading it cheap."""

from typing import Any

MAX_BYTES = 64 * 2**20  # of a file; embeddings have some kilobytes
MAX_HEADER = 2**20  # bytes of a safetensors header; 512 tensors need a tenth of it
MAX_PICKLE = 2**17  # bytes of pickle instructions; 512 tensors need half of it
MAX_TENSORS = 512  # of a file; checkpoints have more
MAX_VALUES = 2 * 2**20  # of all vectors of a file: 512 of width 4096

EXPECTED = "Expected a learned embedding: a few float vectors in a .bin, .pt or .safetensors file."
WHOLE = "Expected a whole .bin, .pt or .safetensors file; fetch or save it again."
ONCE = "Expected each token once for each text encoder; remove one of the two."


class Refused(Exception):
    """What was found and what to do; `read_embeddings` adds the path."""

    def __init__(self, found: str, advice: str = EXPECTED) -> None:
        """`found` completes "FILE …"; `advice` is a sentence."""
        self.found, self.advice = found, advice


def clean(text: str) -> str:
    """The text without halves of surrogate pairs, which no file or terminal can hold."""
    return text.encode("utf-8", "replace").decode()


def shown(text: str, limit: int = 60) -> str:
    """Text from a stranger, in one line that no terminal acts upon."""
    text = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def plain_values(content: Any) -> dict[str, str]:
    """The text and numbers of a dictionary, as text."""
    items = content.items() if isinstance(content, dict) else ()
    plain = {
        key: value
        for key, value in items
        if isinstance(key, str) and isinstance(value, str | int | float)
    }
    return {clean(key): clean(str(value)) for key, value in plain.items()}
