"""Search the prompt of real words that an encoder reads most nearly as it reads a token.

States of two prompts are compared where the denoiser reads them: at the words or the token (their
mean), at the words around them and at the end. Each is taken less its mean over random words in
the same place, since states of all prompts are alike.

The search follows PEZ (Wen et al. 2023): the gradient at the nearest words moves free vectors. Then
single words are exchanged for the better, those first that the gradient recommends, as GCG does
(Zou et al. 2023).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dti_geom import geometry
from dti_geom.errors import DoesNotApply
from dti_geom.models import TextEncoder
from dti_geom.probes.learned import LearnedVector
from dti_geom.probes.material import Prompts, carrier_prompts, in_chunks, whole_words
from dti_geom.probes.neighbors import named_queries
from dti_geom.probes.result import Result
from dti_geom.progress import Progress, silent

FRAMES = ("a photo of {}", "{} on the beach", "a picture of the big {} in the snow")
RANDOM = 256  # random prompts, whose mean is taken from all states
STEP = 0.3  # of a free vector, in multiples of the usual size of a number of a row
EXCHANGED = 3  # prompts that the second search starts from
TRIED = 64  # words for each place in an exchange


@dataclass(frozen=True)
class HardPrompt:
    """A prompt of real words in the place of a token."""

    text: str
    ids: tuple[int, ...]  # rows
    # 1 − ‖s − t‖²/‖t‖², s and t: states of the prompt and of the token, less their means. 1: the
    # same states; 0: no nearer than the mean of random words; below 0: further.
    share: float
    cosine: float  # of s and t, −1 … 1


@dataclass(frozen=True)
class HardenedToken:
    """The best prompt found for a token, and what it is held against."""

    query: str
    id: int | None  # its row; None for a learned token
    path: str | None  # the file of a learned token
    step: int | None
    norm: float  # embedding units
    prompt: HardPrompt
    word: HardPrompt  # the best single word
    nearest: HardPrompt  # its nearest words by direction
    random: float  # the best share of RANDOM random prompts of that length


@dataclass(frozen=True)
class HardenResult(Result):
    """Prompts of real words for tokens of one encoder."""

    name: str
    read: str  # which states are compared
    words: int  # of a prompt
    candidates: int  # words that a prompt may use
    starts: int
    updates: int
    tokens: tuple[HardenedToken, ...]


def measure_harden(
    encoder: TextEncoder,
    learned: Sequence[LearnedVector] = (),
    *,
    tokens: str | Sequence[str] = (),
    words: int = 3,
    starts: int = 8,
    updates: int = 60,
    with_learned: bool = False,
    seed: int = 0,
    progress: Progress = silent,
) -> HardenResult:
    """Return the best prompt found for each token, among the whole words of the vocabulary.

    tokens: as in `measure_neighbors`. words: of the prompt. starts: prompts that the gradient
    search begins with: the nearest words, and random ones. updates: of that search.

    Raises UnknownToken, DoesNotApply for an encoder without room for the prompts.
    """
    queries = named_queries(encoder, learned, tokens, with_learned=with_learned)
    search = Search(encoder, words, seed)
    single = search if words == 1 else Search(encoder, 1, seed)
    found = []
    for number, query in enumerate(queries):
        progress("hard prompts", number, len(queries))
        target = single.states_of(query.vector)
        nearest = search.nearest(query.vector)
        best = search.best(target, nearest, starts, updates)
        word = single.best_word(target)
        if words == 1 and word.share >= best.share:
            best = word
        source = query.learned
        found.append(
            HardenedToken(
                query=query.label,
                id=query.id,
                path=None if source is None else str(source.path),
                step=None if source is None else source.step,
                norm=float(geometry.norms(query.vector.float())),
                prompt=best,
                word=word,
                nearest=search.prompt(nearest, target),
                random=search.random_share(target),
            )
        )
    progress("hard prompts", len(queries), len(queries))
    return HardenResult(
        name=encoder.name,
        read=search.read_name,
        words=words,
        candidates=len(search.candidates),
        starts=starts,
        updates=updates,
        tokens=tuple(found),
    )


class Search:
    """Prompts of so many words in the frames of one encoder, and their states."""

    def __init__(self, encoder: TextEncoder, words: int, seed: int = 0) -> None:
        """Find the candidate words and the mean of random prompts. Raises DoesNotApply."""
        self.encoder, self.words, self.seed = encoder, words, seed
        self.frames = _with_places(encoder, carrier_prompts(encoder, FRAMES), words)
        self.candidates = _typed(encoder)  # (C,)
        self.table = encoder.token_table[self.candidates.to(encoder.token_table.device)].float()
        self.read_name = ""
        draw = torch.Generator().manual_seed(seed)
        self.drawn = torch.randint(len(self.candidates), (RANDOM, words), generator=draw)
        self.mean: Tensor | float = 0.0
        self.random_states = torch.cat(list(self.states(self.table[self.drawn])))
        self.mean = self.random_states.mean(dim=0)
        self.random_states = self.random_states - self.mean

    def states_of(self, vector: Tensor) -> Tensor:
        """Return the centred states of a vector (d,) in the place of a single word, (M, d')."""
        (states,) = self.states(vector.to(self.table)[None, None])
        return states[0]

    def nearest(self, vector: Tensor) -> Tensor:
        """Return the candidates of the largest cosine, nearest first: (words,)."""
        directions = geometry.normalize(self.table)
        cosines = directions @ geometry.normalize(vector.to(self.table))
        return cosines.topk(self.words).indices

    def best_word(self, target: Tensor) -> HardPrompt:
        """Return the best of all candidates, as a prompt of one word."""
        places = torch.arange(len(self.candidates), device=self.table.device)[:, None]
        return self.prompt(places[self._shares(places, target).argmax()], target)

    def random_share(self, target: Tensor) -> float:
        """Return the largest share of the random prompts."""
        return float(_shares(self.random_states, target).max())

    def prompt(self, places: Tensor, target: Tensor) -> HardPrompt:
        """Return the prompt of these candidates, (words,), beside a target."""
        (states,) = self.states(self.table[places][None])
        ids = self.candidates[places.cpu()].tolist()
        text = " ".join(self.encoder.vocabulary.tokens(ids))
        cosine = torch.cosine_similarity(states[0].flatten(), target.flatten(), dim=0)
        return HardPrompt(text, tuple(ids), float(_shares(states, target)[0]), float(cosine))

    def best(self, target: Tensor, nearest: Tensor, starts: int, updates: int) -> HardPrompt:
        """Return the best prompt found. target: (M, d'), centred states. nearest: first start."""
        draw = torch.Generator().manual_seed(self.seed)
        random = torch.randint(len(self.candidates), (starts - 1, self.words), generator=draw)
        first = torch.cat([nearest[None], random.to(nearest)])
        found = self._descended(first, target, updates)
        order = self._shares(found, target).argsort(descending=True, stable=True)
        kept = list(dict.fromkeys(tuple(found[place].tolist()) for place in order))[:EXCHANGED]
        exchanged = [self._exchanged(torch.tensor(rows).to(nearest), target) for rows in kept]
        prompts = [self.prompt(places, target) for places in exchanged]
        return max(prompts, key=lambda prompt: prompt.share)

    def _descended(self, first: Tensor, target: Tensor, updates: int) -> Tensor:
        """Follow the gradient at the nearest words; return each start's best prompt, (S, words)."""
        free = self.table[first].clone().requires_grad_(True)
        usual = float(self.table.square().mean().sqrt())
        optimizer = torch.optim.AdamW([free], lr=STEP * usual, weight_decay=0.0)
        directions = geometry.normalize(self.table)
        best, reached = first.clone(), self._shares(first, target)
        for _ in range(updates):
            with torch.no_grad():
                places = (geometry.normalize(free) @ directions.T).argmax(dim=-1)
            # The value of the words, the gradient of the free vectors.
            rows = self.table[places] + (free - free.detach())
            shares = torch.cat(
                [_shares(states, target) for states in self.states(rows, gradient=True)]
            )
            optimizer.zero_grad()
            (-shares.sum()).backward()
            optimizer.step()
            better = shares.detach() > reached
            best[better], reached[better] = places[better], shares.detach()[better]
        return best

    def _exchanged(self, places: Tensor, target: Tensor) -> Tensor:
        """Exchange single words while that brings the prompt nearer. places: (words,)."""
        share = self._shares(places[None], target)[0]
        while True:
            rows = self.table[places].clone().requires_grad_(True)
            (states,) = self.states(rows[None], gradient=True)
            (gain,) = torch.autograd.grad(_shares(states, target).sum(), rows)
            tried = (gain @ self.table.T).topk(min(TRIED, len(self.candidates))).indices
            others = places.repeat(tried.numel(), 1)
            numbers = torch.arange(tried.numel(), device=others.device)
            others[numbers, numbers // tried.shape[1]] = tried.flatten()
            shares = self._shares(others, target)
            if shares.max() <= share:
                return places
            share, places = shares.max(), others[shares.argmax()]

    def _shares(self, places: Tensor, target: Tensor) -> Tensor:
        """Return the share of prompts of candidates, (n, words): (n,)."""
        return torch.cat([_shares(states, target) for states in self.states(self.table[places])])

    def states(self, rows: Tensor, *, gradient: bool = False) -> Iterator[Tensor]:
        """Yield centred states of prompts, a few at a time: (m, M, d').

        rows: (n, words, d). M counts the compared places of all frames.
        """
        table, frames = self.encoder.token_table, self.frames
        ids, mask = frames.ids.to(rows.device), frames.mask.to(rows.device)
        fixed = table[ids].to(rows)
        numbers = fixed.numel()
        for chunk in in_chunks(len(rows), numbers, "states"):
            count = len(rows[chunk])
            filled = fixed.repeat(count, 1, 1, 1)
            for frame, place in enumerate(frames.places.tolist()):
                filled[:, frame, place : place + self.words] = rows[chunk]
            states = self.encoder.hidden_states(
                ids.repeat(count, 1),
                filled.flatten(0, 1),
                mask.repeat(count, 1),
                gradient=gradient,
            )
            self.read_name = states.read_name
            read = states.read.float().unflatten(0, (count, len(ids)))
            yield torch.cat(list(self._compared(read)), dim=1) - self.mean

    def _compared(self, read: Tensor) -> Iterator[Tensor]:
        """Yield what is compared of each frame: the mean over the words, then every other state."""
        for frame, (place, end) in enumerate(
            zip(self.frames.places.tolist(), self.frames.ends.tolist(), strict=True)
        ):
            behind = place + self.words
            yield read[:, frame, place:behind].mean(dim=1, keepdim=True)
            yield read[:, frame, :place]
            yield read[:, frame, behind : end + 1]


def _typed(encoder: TextEncoder) -> Tensor:
    """Return the whole words that a tokenizer reads as this one row: those that can be typed."""
    words = whole_words(encoder, len(encoder.token_table))
    vocabulary = encoder.vocabulary
    if vocabulary.tokenizer is None:
        return words
    names = vocabulary.tokens(words.tolist())
    typed = [
        row
        for row, name in zip(words.tolist(), names, strict=True)
        if vocabulary.rows(name) == [row]
    ]
    if not typed:
        raise DoesNotApply(f"{encoder.name}: no word of its vocabulary is a single token.")
    return torch.tensor(typed)


def _shares(states: Tensor, target: Tensor) -> Tensor:
    """Return 1 − ‖s − t‖²/‖t‖² of states (n, M, d'): (n,)."""
    missed = (states - target).square().sum(dim=(1, 2))
    return 1 - missed / target.square().sum()


def _with_places(encoder: TextEncoder, prompts: Prompts, words: int) -> Prompts:
    """Return prompts with so many places in the place of one. Raises DoesNotApply."""
    ids, mask = [], []
    for row, seen, place in zip(prompts.ids, prompts.mask, prompts.places.tolist(), strict=True):
        more = row[place].repeat(words - 1)
        ids.append(torch.cat([row[:place], more, row[place:]]))
        mask.append(torch.cat([seen[:place], torch.ones_like(more), seen[place:]]))
    length = len(ids[0])
    longest = length if encoder.position_table is None else len(encoder.position_table)
    if length > longest:
        raise DoesNotApply(
            f"{encoder.name} has {longest} positions; a prompt of {words} words in "
            f"'{max(FRAMES, key=len)}' needs {length}. Name fewer with --words."
        )
    return replace(
        prompts,
        ids=torch.stack(ids),
        mask=torch.stack(mask),
        ends=prompts.ends + words - 1,
    )
