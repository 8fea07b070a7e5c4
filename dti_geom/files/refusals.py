"""Refusals of files from unknown sources, and the limits that keep reading such files cheap."""

from typing import Any

MAX_BYTES = 64 * 2**20  # of a file; embeddings have some kilobytes
MAX_HEADER = 2**20  # bytes of a safetensors header; 512 tensors need a tenth of it
MAX_PICKLE = 2**17  # bytes of pickle instructions; 512 tensors need half of it
MAX_TENSORS = 512  # of a file; checkpoints have more
MAX_VALUES = 2 * 2**20  # of all vectors of a file: 512 of width 4096
MAX_NAME = 1000  # characters of a tensor's name; the longest of real models have about a hundred
MAX_TEXT = 2**20  # characters of the text beside the tensors

EXPECTED = "Expected a learned embedding: a few float vectors in a .bin, .pt or .safetensors file."
WHOLE = "Expected a whole .bin, .pt or .safetensors file; fetch or save it again."
ONCE = "Expected each token once for each text encoder; remove one of the two."


class Refused(Exception):
    """A file that is not read. `read_embeddings` adds its path to the message."""

    def __init__(self, finding: str, advice: str = EXPECTED) -> None:
        """finding: the end of a sentence that begins with the path. advice: a sentence."""
        self.finding, self.advice = finding, advice


def clean(text: str) -> str:
    """Return the text without lone surrogates, which cannot be encoded as UTF-8."""
    return text.encode("utf-8", "replace").decode()


def shown(text: str, limit: int = 60) -> str:
    """Return text from a file as one printable line, without control codes for the terminal."""
    text = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def plain_values(content: Any) -> dict[str, str]:
    """Return the entries of a dictionary that are text or numbers, as text. Raises Refused."""
    items = content.items() if isinstance(content, dict) else ()
    plain = {
        key: value
        for key, value in items
        if isinstance(key, str) and isinstance(value, str | int | float)
    }
    # Counted before it is copied: a pickle may hold one long text under thousands of keys.
    if sum(len(str(value)) for value in plain.values()) > MAX_TEXT:
        raise Refused(f"holds more than {MAX_TEXT} characters of text beside its tensors")
    return {clean(key): clean(str(value)) for key, value in plain.items()}
