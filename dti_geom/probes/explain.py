"""Explain a token as a sparse, non-negative sum of the directions of other tokens.

Any vector can be written as some sum of many words, so the share that a sum explains means nothing
by itself. Each share stands beside two others, found in the same way: of random directions, and of
ordinary words whose own row is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dti_geom import geometry
from dti_geom.geometry.sparse import EXACT, SparseSum, sparse_sums
from dti_geom.models import TextEncoder
from dti_geom.probes.learned import LearnedVector
from dti_geom.probes.material import carrier_prompts, run_prompts, whole_words
from dti_geom.probes.neighbors import Query, named_queries
from dti_geom.probes.result import Result
from dti_geom.progress import Progress, silent

RANDOM = 49  # random directions: a fiftieth outcome is beyond all of them by chance in 1 of 50
FALSE_POSITIVES = 0.02  # the share of random directions that are called explained
ORDINARY = 32  # words that are explained without their own row
CONTEXT_WORDS = 2048  # words whose states are the rows of the contextual space
CARRIER = ("a photo of {}",)


@dataclass(frozen=True)
class ExplainingWord:
    """A word of a sum."""

    token: str
    id: int
    weight: float  # > 0, of its unit direction, where the explained direction is a unit vector


@dataclass(frozen=True)
class WordSum:
    """The best sum found of so many words."""

    words: tuple[ExplainingWord, ...]  # heaviest first
    share: float  # of the squared norm, 0 … 1


@dataclass(frozen=True)
class ExplainedToken:
    """One vector as sums of 1, 2, … words."""

    query: str
    id: int | None  # its row; None for a learned token
    path: str | None  # the file of a learned token
    step: int | None  # the update after which it was stored, where its file says
    norm: float  # embedding units
    sums: tuple[
        WordSum, ...
    ]  # each explains more than the one before; none if no word lies in its half of the space
    # Words until the next one explains no more of what is left than a random direction's first word
    # does; at least 1. All of an exact sum.
    kept: int
    share: float  # of the longest sum
    p: float  # share of random directions explained as well, itself counted: 0.02 … 1
    above_ordinary: float  # share of ordinary words that are explained less well

    @property
    def explained(self) -> bool:
        """Whether it is explained better than all random directions."""
        return self.p <= FALSE_POSITIVES

    @property
    def explanation(self) -> WordSum:
        """The sum of the words that are kept."""
        return self.sums[self.kept - 1] if self.sums else WordSum((), 0.0)


@dataclass(frozen=True)
class ExplainedSpace:
    """Explanations in one space, and what they are held against."""

    space: str  # "table", or "contextual": the encoder's output at the token
    rows: int  # that a sum may use
    dim: int
    # By number of words, from 1: the largest share among random directions, and the median over
    # ordinary words without their own row.
    random: tuple[float, ...]
    ordinary: tuple[float, ...]
    tokens: tuple[ExplainedToken, ...]


@dataclass(frozen=True)
class ExplainResult(Result):
    """Explanations of tokens in one encoder."""

    name: str
    words: int  # a sum has at most so many
    spaces: tuple[ExplainedSpace, ...]


def measure_explain(
    encoder: TextEncoder,
    learned: Sequence[LearnedVector] = (),
    *,
    tokens: str | Sequence[str] = (),
    words: int = 8,
    contextual: bool = False,
    others: bool = False,
    with_learned: bool = False,
    seed: int = 0,
    progress: Progress = silent,
) -> ExplainResult:
    """Return each token as sparse sums of words, and how good random directions and words are.

    tokens: as in `measure_neighbors`. words: the most words of a sum. contextual: also explain the
    encoder's output at the token by its outputs at sampled words. others: leave a word's own row
    out, which otherwise explains it. with_learned: also measure `learned` beside the named tokens.

    A token counts as explained if its longest sum explains more than that of each of RANDOM random
    directions. Of random directions 2 in 100 are called explained.

    Raises UnknownToken, DoesNotApply where there is nothing to measure.
    """
    queries = named_queries(encoder, learned, tokens, with_learned=with_learned)
    spaces = [_table_space(encoder, queries, seed)]
    if contextual:
        spaces.append(_contextual_space(encoder, queries, seed, progress))
    return ExplainResult(
        name=encoder.name,
        words=words,
        spaces=tuple(
            _explained(encoder, space, queries, words=words, others=others, progress=progress)
            for space in spaces
        ),
    )


@dataclass(frozen=True)
class _Space:
    """Vectors of one space: what explains, what is explained, and what it is held against."""

    name: str
    vectors: Tensor  # (V, d)
    rows: Sequence[int]  # (V,), their rows in the token table
    targets: Tensor  # (n, d)
    random: Tensor  # (RANDOM, d)
    ordinary: Sequence[int]  # places in `vectors` of ordinary words


def _table_space(encoder: TextEncoder, queries: Sequence[Query], seed: int) -> _Space:
    table = encoder.token_table
    return _Space(
        name="table",
        vectors=table,
        rows=range(len(table)),
        targets=torch.stack([query.vector.cpu().float() for query in queries]),
        random=_random_directions(table.shape[1], seed),
        ordinary=whole_words(encoder, ORDINARY, seed).tolist(),
    )


def _contextual_space(
    encoder: TextEncoder, queries: Sequence[Query], seed: int, progress: Progress
) -> _Space:
    """Return outputs of the encoder at a token's place, less their mean over words.

    Random directions enter the encoder at the mean norm of the sampled words.
    """
    table = encoder.token_table
    rows = whole_words(encoder, CONTEXT_WORDS, seed).to(table.device)
    vectors = table[rows].float()
    random = _random_directions(table.shape[1], seed).to(vectors)
    targets = torch.stack([query.vector.to(vectors) for query in queries])
    entering = torch.cat([vectors, random * geometry.norms(vectors).mean(), targets])
    prompts = carrier_prompts(encoder, CARRIER)
    (place,) = prompts.places.tolist()
    states = [
        found.read[:, place].float()
        for found in run_prompts(encoder, prompts, entering, "outputs at the token", progress)
    ]
    outputs = torch.cat(states)
    outputs -= outputs[: len(rows)].mean(dim=0)
    words, random, targets = outputs.split([len(rows), RANDOM, len(queries)])
    shuffled = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return _Space(
        name="contextual",
        vectors=words,
        rows=rows.tolist(),
        targets=targets,
        random=random,
        ordinary=shuffled[:ORDINARY].tolist(),
    )


def _random_directions(dim: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return geometry.normalize(torch.randn(RANDOM, dim, generator=generator))


def _explained(
    encoder: TextEncoder,
    space: _Space,
    queries: Sequence[Query],
    *,
    words: int,
    others: bool,
    progress: Progress,
) -> ExplainedSpace:
    """Explain random directions, ordinary words and the queries in one space."""
    what = f"explanations ({space.name})"
    total = RANDOM + len(space.ordinary) + len(queries)
    progress(what, 0, total)
    random = _shares(sparse_sums(space.random, space.vectors, words), words)
    progress(what, RANDOM, total)
    ordinary = _shares(
        sparse_sums(
            space.vectors[space.ordinary].float(), space.vectors, words, without=space.ordinary
        ),
        words,
    )
    progress(what, RANDOM + len(space.ordinary), total)
    places = {row: place for place, row in enumerate(space.rows)}
    without = [
        places.get(query.id) if others and query.id is not None else None for query in queries
    ]
    sums = sparse_sums(space.targets, space.vectors, words, without=without)
    progress(what, total, total)
    return ExplainedSpace(
        space=space.name,
        rows=int((geometry.row_norms(space.vectors) > 0).sum()),
        dim=space.vectors.shape[1],
        random=tuple(random.max(axis=0).tolist()),
        ordinary=tuple(np.median(ordinary, axis=0).tolist()),
        tokens=tuple(
            _token(encoder, space, query, found, random=random, ordinary=ordinary)
            for query, found in zip(queries, sums, strict=True)
        ),
    )


def _token(
    encoder: TextEncoder,
    space: _Space,
    query: Query,
    sums: Sequence[SparseSum],
    *,
    random: np.ndarray,
    ordinary: np.ndarray,
) -> ExplainedToken:
    share = sums[-1].share if sums else 0.0
    learned = query.learned
    return ExplainedToken(
        query=query.label,
        id=query.id,
        path=None if learned is None else str(learned.path),
        step=None if learned is None else learned.step,
        norm=float(geometry.norms(query.vector.float())),
        sums=tuple(_word_sum(encoder, space, found) for found in sums),
        kept=_kept(sums, random),
        share=share,
        p=float((1 + (random[:, -1] >= share).sum()) / (1 + len(random))),
        above_ordinary=float((ordinary[:, -1] < share).mean()),
    )


def _word_sum(encoder: TextEncoder, space: _Space, found: SparseSum) -> WordSum:
    rows = [space.rows[place] for place in found.rows]
    names = encoder.vocabulary.tokens(rows)
    return WordSum(
        tuple(map(ExplainingWord, names, rows, found.weights)),
        found.share,
    )


def _kept(sums: Sequence[SparseSum], random: np.ndarray) -> int:
    """Return how many sums there are before the first that adds no more than chance does."""
    if sums and sums[-1].share > 1 - EXACT:
        return len(sums)
    chance = random[:, 0].max()
    for count in range(1, len(sums)):
        before, after = sums[count - 1].share, sums[count].share
        if (after - before) / (1 - before) <= chance:
            return count
    return len(sums)


def _shares(found: Sequence[Sequence[SparseSum]], words: int) -> np.ndarray:
    """Return the share that each vector's sums of 1 to `words` words explain: (n, words)."""
    shares = np.zeros((len(found), words))
    for row, sums in zip(shares, found, strict=True):
        for count, one in enumerate(sums[:words]):
            row[count:] = one.share
    return shares
