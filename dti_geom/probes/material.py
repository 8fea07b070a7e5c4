"""What the probes that run an encoder put into it: words, prompts with a place for a vector, scales, chunks of work."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from dti_geom import geometry
from dti_geom.errors import DoesNotApply, DtiGeomError
from dti_geom.models import HiddenStates, TextEncoder
from dti_geom.progress import Progress, silent

# The word stands first, last, early and late, alone and among others.
CARRIERS = (
    "{}",
    "a photo of {}",
    "{} on the beach",
    "a picture of the big {} in the snow",
    "a photo of a red car on the grass under {}",
)
SCALES = tuple(2.0**power for power in range(-2, 6))  # 0.25 … 32, in multiples of the mean norm
WIDE_SCALES = tuple(
    2.0**power for power in range(-4, 9)
)  # 0.0625 … 256: 3.6 decades, for fitting slopes

Result = TypeVar("Result")

_NUMBERS_AT_ONCE = (
    1 << 21
)  # a batch holds about this many; the model's own temporaries are several times larger


@dataclass(frozen=True)
class Prompts:
    """Carrier prompts as token rows, padded on the right to one length."""

    texts: tuple[str, ...]  # with {} where the word stands
    ids: Tensor  # (P, L), on the CPU; an ordinary word's row at the place
    mask: Tensor  # (P, L), 1 where a token stands and 0 where there is padding
    places: Tensor  # (P,), where the word stands
    ends: Tensor  # (P,), where the last token stands that is not padding: the end of text, if the tokenizer has one

    def embeddings(self, table: Tensor, vectors: Tensor) -> Tensor:
        """Every prompt with every vector at its place.

        table: (V, d); vectors: (n, d), in the table's units. Returns (n, P, L, d), in the dtype of the vectors.
        """
        rows = table[self.ids.to(table.device)].to(vectors)
        filled = rows.expand(len(vectors), *rows.shape).clone()
        filled[:, torch.arange(len(self.places)), self.places] = vectors[:, None]
        return filled


def carrier_prompts(encoder: TextEncoder, carriers: Sequence[str] = CARRIERS) -> Prompts:
    """These prompts for this encoder, each with the start and end tokens its tokenizer adds.

    Padding stands on the right and is masked, so every token has the position it has in a pipeline. A prompt longer
    than the position table is cut on the right, then on the left; the word always stays. Without a tokenizer, each
    word of a carrier becomes some row of the table, the same in every prompt.
    """
    start, end, pad = _frame(encoder)
    longest = len(encoder.position_table) if encoder.position_table is not None else None
    (word,) = whole_words(encoder, 1).tolist()
    rows: list[list[int]] = []
    places: list[int] = []
    for left, right in (_sides(encoder, carrier) for carrier in carriers):
        if longest is not None:
            room = longest - len(start) - len(end) - 1
            if room < 0:
                raise DoesNotApply(
                    f"{encoder.name} has {longest} positions; a word with its start and end tokens needs "
                    f"{longest - room}. Prompts cannot be made for it."
                )
            left = left[-room:] if room else []
            right = right[: room - len(left)]
        places.append(len(start) + len(left))
        rows.append([*start, *left, word, *right, *end])
    length = max(map(len, rows))
    return Prompts(
        texts=tuple(carriers),
        ids=torch.tensor([[*row, *[pad] * (length - len(row))] for row in rows]),
        mask=torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows]),
        places=torch.tensor(places),
        ends=torch.tensor([len(row) - 1 for row in rows]),
    )


def whole_words(encoder: TextEncoder, count: int, seed: int = 0) -> Tensor:
    """A seeded sample of rows that are whole words of letters a to z: no pieces, no special tokens, no zero rows.

    Returns (n,), ascending, on the CPU: `count` rows, or every such row where there are fewer. Without a tokenizer
    any non-zero row is a word. Raises DoesNotApply if there is none.
    """
    table, vocabulary = encoder.token_table, encoder.vocabulary
    special = set(vocabulary.special.values())
    shuffled = torch.randperm(len(table), generator=torch.Generator().manual_seed(seed))
    found: list[int] = []
    for chunk in shuffled.split(
        max(256, 4 * count)
    ):  # naming a row is slow, and vocabularies are large
        nonzero = chunk[(geometry.row_norms(table[chunk.to(table.device)]) > 0).cpu()].tolist()
        found += [
            row
            for row, name in zip(nonzero, vocabulary.tokens(nonzero), strict=True)
            if row not in special
            and (vocabulary.tokenizer is None or (name.isascii() and name.isalpha()))
        ]
        if len(found) >= count:
            break
    if not found:
        raise DoesNotApply(
            f"{encoder.name}: none of its {len(table)} rows is a whole word; nothing can be sampled."
        )
    return torch.tensor(sorted(found[:count]))


def in_chunks(
    total: int, numbers_each: int, what: str, progress: Progress = silent
) -> Iterator[slice]:
    """Slices that cover `total` items, each of `numbers_each` numbers, in batches that fit in little memory.

    `progress` hears how many items are done after each batch, that is when the next slice is asked for.
    """
    size = max(1, _NUMBERS_AT_ONCE // numbers_each)
    for start in range(0, total, size):
        progress(what, start, total)
        yield slice(start, min(start + size, total))
    progress(what, total, total)


def run_prompts(
    encoder: TextEncoder,
    prompts: Prompts,
    vectors: Tensor,
    what: str,
    progress: Progress = silent,
    *,
    attention: bool = False,
) -> Iterator[HiddenStates]:
    """Hidden states of every prompt with every vector at its place, a few vectors at a time.

    vectors: (n, d), in the table's units. Yields states (k·P, L, d), the prompts of a vector one after another.
    Raises DtiGeomError where the encoder's numbers overflow.
    """
    ids, mask = prompts.ids.to(vectors.device), prompts.mask.to(vectors.device)
    for chunk in in_chunks(len(vectors), ids.numel() * vectors.shape[1], what, progress):
        filled = prompts.embeddings(encoder.token_table, vectors[chunk])
        repeats = (len(filled), 1)
        states = encoder.hidden_states(
            ids.repeat(repeats), filled.flatten(0, 1), mask.repeat(repeats), attention=attention
        )
        if not states.last.isfinite().all():
            raise DtiGeomError(
                f"{encoder.name}: outputs in {str(states.last.dtype).removeprefix('torch.')} are not finite. "
                "Use a dtype with a wider range, --dtype float32."
            )
        yield states


def where_it_applies(
    encoders: Iterable[TextEncoder], measure: Callable[[TextEncoder], Result]
) -> tuple[tuple[Result, ...], tuple[str, ...]]:
    """The measurement of each encoder it applies to, and one sentence for each it does not apply to."""
    results: list[Result] = []
    reasons: list[str] = []
    for encoder in encoders:
        try:
            results.append(measure(encoder))
        except DoesNotApply as reason:
            reasons.append(str(reason))
    return tuple(results), tuple(reasons)


def _frame(encoder: TextEncoder) -> tuple[list[int], list[int], int]:
    """What the tokenizer puts before and behind a prompt, and the row it pads with."""
    tokenizer = encoder.vocabulary.tokenizer
    if tokenizer is None:
        return [], [], 0
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    framed = tokenizer("a")["input_ids"]
    at = next(at for at in range(len(framed)) if framed[at : at + len(bare)] == bare)
    pad = tokenizer.pad_token_id
    return framed[:at], framed[at + len(bare) :], framed[-1] if pad is None else pad


def _sides(encoder: TextEncoder, carrier: str) -> tuple[list[int], list[int]]:
    """Rows before and behind the word's place."""
    left, _, right = carrier.partition("{}")
    tokenizer = encoder.vocabulary.tokenizer
    if tokenizer is not None:
        # The space before a word belongs to its token, where tokens have one.
        before, behind = (
            tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in (left.rstrip(), right)
        )
        return before, behind
    rows = whole_words(encoder, 64).tolist()
    before, behind = (
        [rows[sum(map(ord, word)) % len(rows)] for word in text.split()] for text in (left, right)
    )
    return before, behind
