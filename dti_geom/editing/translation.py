"""The same concept for another text encoder, with how well held-out words are translated."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from dti_geom import __version__
from dti_geom.editing.concepts import Concept
from dti_geom.editing.rescaling import target_norm
from dti_geom.errors import EditingError
from dti_geom.files import LearnedToken, embedding_bytes, write_files
from dti_geom.geometry import alignment
from dti_geom.models import TextEncoder

Method = Literal["procrustes", "ridge", "relative"]
METHODS: tuple[Method, ...] = ("procrustes", "ridge", "relative")
PENALTIES = (1e-3, 1e-2, 0.1, 1.0, 10.0)
NEAREST = 10  # a held-out word is found if the right row is among so many of the whole table
LEAST = 0.5  # share of held-out words that must be found, unless the user says otherwise
FEWEST = 60  # shared words, below which nothing is fitted
MOST_ANCHORS = 20_000  # words to fit on; more add time and little else
MOST_TESTED = 500  # held-out words whose ranks are measured
_CHOOSING = _TESTING = 0.15  # shares of the words that choose a method, and that are reported


@dataclass(frozen=True)
class Quality:
    """How well a map between two encoders translates words that it was not fitted on."""

    source: str
    target: str
    method: Method
    words: int  # shared by both vocabularies
    held_out: int
    rows: int  # of the target's table, among which a rank is counted
    median_rank: float  # of the right row; 1 is best
    found: float  # share of held-out words whose right row is among the NEAREST, 0 … 1
    cosine: float  # mean, with the right row
    chosen: bool = False  # whether the token was translated by it


@dataclass(frozen=True)
class Translated:
    """A token in another model's encoders."""

    token: str
    model: str
    qualities: tuple[Quality, ...]  # of every pair of encoders and method
    norms: tuple[float, ...]  # of the vectors of each encoder, embedding units
    files: tuple[str, ...]


@dataclass(frozen=True)
class _Words:
    """Rows of shared words, apart: to fit on, to choose by, to report on. Each (n, 2)."""

    fitted: Tensor
    choosing: Tensor
    testing: Tensor

    @property
    def count(self) -> int:
        return len(self.fitted) + len(self.choosing) + len(self.testing)


def translate(
    concept: Concept,
    sources: Sequence[TextEncoder],
    targets: Sequence[TextEncoder],
    path: Path,
    *,
    model: str = "",
    method: Method | None = None,
    magnitude: str = "mean",
    least: float = LEAST,
    layout: str = "diffusers",
    seed: int = 0,
    overwrite: bool = False,
) -> Translated:
    """Translate a learned token into the encoders of another model, and write it.

    Anchors are words that both vocabularies have as one token. 70 % of them fit the maps, 15 %
    choose the source encoder, the method and its penalty, and 15 % are reported: no figure comes
    from words that took part before. Directions are translated; the norm is the target's.

    sources, targets: encoders of the model the token was trained for, and of the other one.
    model: the other model's name. method: None chooses the best. magnitude: as for `target_norm`,
    in the target's vocabulary. least: share of held-out words that must be found.

    Raises EditingError, with the quality, where too few are found, where too few words are shared,
    or where the token fits none of the sources.
    """
    qualities: list[Quality] = []
    translated: list[LearnedToken] = []
    for place, target in enumerate(targets, 1):
        measured = _candidates(concept, sources, target, method, seed)
        best = max(measured, key=lambda candidate: candidate.chosen_by)
        qualities += [candidate.quality(candidate is best) for candidate in measured]
        if best.found < least:
            raise EditingError(_refusal(concept, best.quality(True), least))
        norm = target_norm(magnitude, target)
        vectors = norm * best.map(best.learned.vectors)
        tower = str(place) if len(targets) > 1 else None
        translated.append(LearnedToken(concept.name, tower, vectors.float()))
    metadata = {
        "translated_to": model,
        "translated_by": ", ".join(q.method for q in qualities if q.chosen),
        "words_found": ", ".join(f"{q.found:.3f}" for q in qualities if q.chosen),
        "tool": f"dti-geom {__version__}",
    }
    contents = embedding_bytes(path, translated, layout, metadata=metadata)
    write_files(contents, overwrite=overwrite)
    return Translated(
        token=concept.name,
        model=model,
        qualities=tuple(qualities),
        norms=tuple(float(part.vectors.norm(dim=1).mean()) for part in translated),
        files=tuple(map(str, contents)),
    )


def shared_words(first: TextEncoder, second: TextEncoder) -> Tensor:
    """Return the rows of words that both vocabularies have as one token, (n, 2).

    Words of letters alone: pieces of words, numbers, signs and special tokens are left out.
    """
    rows = [_word_rows(encoder) for encoder in (first, second)]
    words = sorted(rows[0].keys() & rows[1].keys())
    pairs = [[rows[0][word], rows[1][word]] for word in words]
    return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)


def _word_rows(encoder: TextEncoder) -> dict[str, int]:
    table, special = encoder.token_table, encoder.vocabulary.special.values()
    names = encoder.vocabulary.tokens(range(len(table)))
    nonzero = (table != 0).any(dim=1).tolist()
    return {
        name: row
        for row, name in enumerate(names)
        if re.fullmatch(r"[^\W\d_]{2,}", name) and nonzero[row] and row not in special
    }


# --- Candidates ---


@dataclass(frozen=True)
class _Candidate:
    """A map from one encoder to another, measured on words it was not fitted on."""

    source: str
    target: str
    method: Method
    learned: LearnedToken
    map: Callable[[Tensor], Tensor]
    words: int
    rows: int
    chosen_by: tuple[float, float]  # found and mean cosine on the words that choose
    ranks: Tensor
    cosines: Tensor

    @property
    def found(self) -> float:
        return float((self.ranks <= NEAREST).double().mean())

    def quality(self, chosen: bool) -> Quality:
        return Quality(
            source=self.source,
            target=self.target,
            method=self.method,
            words=self.words,
            held_out=len(self.ranks),
            rows=self.rows,
            median_rank=float(self.ranks.double().median()),
            found=self.found,
            cosine=float(self.cosines.double().mean()),
            chosen=chosen,
        )


def _candidates(
    concept: Concept,
    sources: Sequence[TextEncoder],
    target: TextEncoder,
    method: Method | None,
    seed: int,
) -> list[_Candidate]:
    """Return a measured map of every method from every encoder that the token has vectors for."""
    candidates: list[_Candidate] = []
    for place, source in enumerate(sources):
        fitting = [part for part in concept.tokens if part.vectors.shape[1] == _width(source)]
        if fitting:
            learned = fitting[min(place, len(fitting) - 1)]
            words = _split(shared_words(source, target), source, target, seed)
            candidates += [
                _measured(learned, source, target, words, name)
                for name in METHODS
                if method in (None, name)
            ]
    if not candidates:
        widths = ", ".join(str(_width(source)) for source in sources)
        raise EditingError(
            f"{concept.name} has vectors of width {', '.join(map(str, concept.widths))}, and the "
            f"encoders it should come from have {widths}. Choose the model it was trained for with "
            "--model."
        )
    return candidates


def _width(encoder: TextEncoder) -> int:
    return encoder.token_table.shape[1]


def _split(pairs: Tensor, source: TextEncoder, target: TextEncoder, seed: int) -> _Words:
    if len(pairs) < FEWEST:
        raise EditingError(
            f"{source.name} and the other model's {target.name} share {len(pairs)} words of one "
            f"token; expected {FEWEST} or more to fit a map on. Choose another model."
        )
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))
    testing, choosing = (round(share * len(pairs)) for share in (_TESTING, _CHOOSING))
    parts = pairs[order].split([testing, choosing, len(pairs) - testing - choosing])
    return _Words(parts[2][:MOST_ANCHORS], parts[1][:MOST_TESTED], parts[0][:MOST_TESTED])


def _measured(
    learned: LearnedToken, source: TextEncoder, target: TextEncoder, words: _Words, method: Method
) -> _Candidate:
    x = source.token_table[words.fitted[:, 0]].cpu()
    y = target.token_table[words.fitted[:, 1]].cpu()
    if method == "procrustes":
        maps = [alignment.procrustes_map(x, y)]
    elif method == "ridge":
        maps = [alignment.ridge_map(x, y, penalty) for penalty in PENALTIES]
    else:
        maps = [alignment.relative_map(x, y, penalty) for penalty in PENALTIES]
    scores = [_score(*_ranks(one, source, target, words.choosing)) for one in maps]
    best = max(range(len(maps)), key=lambda place: scores[place])
    ranks, cosines = _ranks(maps[best], source, target, words.testing)
    return _Candidate(
        source=source.name,
        target=target.name,
        method=method,
        learned=learned,
        map=maps[best],
        words=words.count,
        rows=len(target.token_table),
        chosen_by=scores[best],
        ranks=ranks,
        cosines=cosines,
    )


def _ranks(
    apply: Callable[[Tensor], Tensor], source: TextEncoder, target: TextEncoder, pairs: Tensor
) -> tuple[Tensor, Tensor]:
    found = apply(source.token_table[pairs[:, 0]].cpu())
    return alignment.ranks(found, target.token_table.cpu(), pairs[:, 1])


def _score(ranks: Tensor, cosines: Tensor) -> tuple[float, float]:
    return float((ranks <= NEAREST).double().mean()), float(cosines.mean())


def _refusal(concept: Concept, quality: Quality, least: float) -> str:
    return (
        f"{concept.name} was not translated: of {quality.held_out} words that the map from "
        f"{quality.source} to {quality.target} was not fitted on, {100 * quality.found:.1f} % land "
        f"among the {NEAREST} nearest of {quality.rows} rows (median rank "
        f"{quality.median_rank:.0f}, mean cosine {quality.cosine:.3f}); expected "
        f"{100 * least:.0f} %. Train the token again for this model, or accept less with --least."
    )
