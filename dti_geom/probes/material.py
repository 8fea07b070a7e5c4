"""Words, prompts with a place for a vector, scales and batches for probes that run an encoder."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
WIDE_SCALES = tuple(2.0**power for power in range(-4, 9))  # 0.0625 … 256, for fitting slopes

# Numbers in a batch, about. The model's own temporaries are several times larger.
_NUMBERS_AT_ONCE = 1 << 21


@dataclass(frozen=True)
class Prompts:
    """Carrier prompts as token rows, padded on the right to one length."""

    texts: tuple[str, ...]  # with {} where the word stands
    ids: Tensor  # (P, L), on the CPU; an ordinary word's row at the place
    mask: Tensor  # (P, L), 1 where a token stands and 0 where there is padding
    places: Tensor  # (P,), where the word stands
    ends: Tensor  # (P,), where the last token stands that is not padding

    def embeddings(self, table: Tensor, vectors: Tensor) -> Tensor:
        """Return every prompt with every vector at its place: (n, P, L, d), in the vectors' dtype.

        table: (V, d); vectors: (n, d), or (n, P, d) with one for each prompt; in the table's units.
        """
        rows = table[self.ids.to(table.device)].to(vectors)
        filled = rows.expand(len(vectors), *rows.shape).clone()
        by_prompt = vectors if vectors.ndim == 3 else vectors[:, None]
        filled[:, torch.arange(len(self.places)), self.places] = by_prompt
        return filled


def carrier_prompts(
    encoder: TextEncoder, carriers: Sequence[str] = CARRIERS, *, least: int = 0
) -> Prompts:
    """Return these prompts for this encoder, with the start and end tokens its tokenizer adds.

    carriers: {} where the word stands. least: pad to so many positions, if there are so many.
    Padding stands on the right and is masked, so every token has the position it has in a pipeline.
    A prompt longer than the position table is cut on the right, then on the left; the word always
    stays. Without a tokenizer, each word of a carrier becomes some row of the table, the same in
    every prompt.

    Raises DoesNotApply if a word with its start and end tokens does not fit.
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
                    f"{encoder.name} has {longest} positions; a word with its start and end tokens "
                    f"needs {longest - room}. Prompts cannot be made for it."
                )
            left = left[-room:] if room else []
            right = right[: room - len(left)]
        places.append(len(start) + len(left))
        rows.append([*start, *left, word, *right, *end])
    length = max(least if longest is None else min(least, longest), *map(len, rows))
    return Prompts(
        texts=tuple(carriers),
        ids=torch.tensor([[*row, *[pad] * (length - len(row))] for row in rows]),
        mask=torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows]),
        places=torch.tensor(places),
        ends=torch.tensor([len(row) - 1 for row in rows]),
    )


def open_prompt(
    encoder: TextEncoder, carrier: str, *, framed: bool = True
) -> tuple[list[int], int]:
    """Return the rows of a prompt without its end tokens, and where the word stands in it.

    A language model continues such a prompt. carrier: {} where the word stands; some word's row is
    put there. framed: put the tokenizer's start tokens before it.
    """
    start = _frame(encoder)[0] if framed else []
    left, right = _sides(encoder, carrier)
    (word,) = whole_words(encoder, 1).tolist()
    return [*start, *left, word, *right], len(start) + len(left)


def place_prompts(encoder: TextEncoder, places: int, seed: int = 0) -> Prompts:
    """Return a prompt of up to `places` words for each place that a word may have in it.

    The words around the place are sampled anew for each prompt, so that they do not tell it. There
    are fewer places where the encoder has fewer positions. Raises DoesNotApply below two.
    """
    start, end, _ = _frame(encoder)
    if encoder.position_table is not None:
        places = min(places, len(encoder.position_table) - len(start) - len(end))
    if places < 2:
        raise DoesNotApply(
            f"{encoder.name} has room for {max(places, 0)} words beside its start and end tokens; "
            "two are needed to tell places apart."
        )
    words = whole_words(encoder, 256, seed)
    generator = torch.Generator().manual_seed(seed)
    drawn = words[torch.randint(len(words), (places, places), generator=generator)]
    rows = [[*start, *row, *end] for row in drawn.tolist()]
    ids = torch.tensor(rows)
    return Prompts(
        texts=(),
        ids=ids,
        mask=torch.ones_like(ids),
        places=torch.arange(places) + len(start),
        ends=torch.full((places,), ids.shape[1] - 1),
    )


def whole_words(encoder: TextEncoder, count: int, seed: int = 0) -> Tensor:
    """Return a seeded sample of rows that are whole words of letters a to z.

    Pieces of words, special tokens and zero rows are left out. Returns (n,), ascending, on the CPU:
    `count` rows, or every such row where there are fewer. Without a tokenizer any non-zero row is
    a word. Raises DoesNotApply if there is none.
    """
    table, vocabulary = encoder.token_table, encoder.vocabulary
    special = set(vocabulary.special.values())
    shuffled = torch.randperm(len(table), generator=torch.Generator().manual_seed(seed))
    words: list[int] = []
    # Naming a row is slow and vocabularies are large, so stop once there are enough.
    for chunk in torch.split(shuffled, max(256, 4 * count)):
        nonzero = chunk[(geometry.row_norms(table[chunk.to(table.device)]) > 0).cpu()].tolist()
        words += [
            row
            for row, name in zip(nonzero, vocabulary.tokens(nonzero), strict=True)
            if row not in special
            and (vocabulary.tokenizer is None or (name.isascii() and name.isalpha()))
        ]
        if len(words) >= count:
            break
    if not words:
        raise DoesNotApply(
            f"{encoder.name}: none of its {len(table)} rows is a whole word; nothing can be "
            "sampled."
        )
    return torch.tensor(sorted(words[:count]))


def distinct_rows(encoder: TextEncoder, *, special: bool = False) -> tuple[Tensor, int]:
    """Return rows that are not zero and equal no earlier one, ascending, and how many are equal.

    special: also return rows of special tokens. Returns (n,) on the CPU.
    """
    table = encoder.token_table[: encoder.vocabulary.size]
    left_out = set() if special else set(encoder.vocabulary.special.values())
    rows = [row for row in table.any(dim=1).nonzero()[:, 0].tolist() if row not in left_out]
    first: dict[bytes, int] = {}
    for row in rows:
        first.setdefault(table[row].cpu().contiguous().view(torch.uint8).numpy().tobytes(), row)
    return torch.tensor(sorted(first.values()), dtype=torch.int64), len(rows) - len(first)


def in_chunks(
    total: int, numbers_each: int, what: str, progress: Progress = silent
) -> Iterator[slice]:
    """Yield slices that cover `total` items of `numbers_each` numbers, in batches of little memory.

    Progress is reported after each batch: when the next slice is asked for.
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
    """Yield hidden states of every prompt with every vector at its place, a few vectors at a time.

    vectors: (n, d), or (n, P, d) with one for each prompt; in the table's units. States are
    (k·P, L, d): all prompts of a vector, then those of the next. attention: whether attention
    weights are wanted too.

    Raises DtiGeomError where the encoder's numbers overflow.
    """
    ids, mask = prompts.ids.to(vectors.device), prompts.mask.to(vectors.device)
    for chunk in in_chunks(len(vectors), ids.numel() * vectors.shape[-1], what, progress):
        filled = prompts.embeddings(encoder.token_table, vectors[chunk])
        repeats = (len(filled), 1)
        states = encoder.hidden_states(
            ids.repeat(repeats), filled.flatten(0, 1), mask.repeat(repeats), attention=attention
        )
        if not states.last.isfinite().all():
            dtype = str(states.last.dtype).removeprefix("torch.")
            raise DtiGeomError(
                f"{encoder.name}: outputs in {dtype} are not finite. Use a dtype with a wider "
                "range, --dtype float32."
            )
        yield states


def _frame(encoder: TextEncoder) -> tuple[list[int], list[int], int]:
    """Return what the tokenizer puts before and after a prompt, and the row it pads with."""
    tokenizer = encoder.vocabulary.tokenizer
    if tokenizer is None:
        return [], [], 0
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    framed = tokenizer("a")["input_ids"]
    # The frame is what stands around a word that was tokenized without it.
    at = next(at for at in range(len(framed)) if framed[at : at + len(bare)] == bare)
    pad = tokenizer.pad_token_id
    return framed[:at], framed[at + len(bare) :], framed[-1] if pad is None else pad


def _sides(encoder: TextEncoder, carrier: str) -> tuple[list[int], list[int]]:
    """Return the rows before and after the word's place."""
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
    # Any fixed choice serves: the same word becomes the same row in every prompt.
    before = [rows[sum(map(ord, word)) % len(rows)] for word in left.split()]
    behind = [rows[sum(map(ord, word)) % len(rows)] for word in right.split()]
    return before, behind
