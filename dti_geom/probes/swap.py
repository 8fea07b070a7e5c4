"""Measure whether an encoder's output follows a token's direction or its magnitude. (Claim A)

Each of two tokens a and b is given the other's norm, ‖b‖·a/‖a‖ and ‖a‖·b/‖b‖. The outputs are
compared with those of a and b themselves (arXiv 2512.13672, section 3).

Outputs of any two words in one prompt are nearly parallel. What a word adds is therefore its output
minus the mean output of sampled words at the mean norm in the same prompt. All similarities here
are cosines of such differences.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from dti_geom import geometry
from dti_geom.errors import DoesNotApply, UnknownToken
from dti_geom.models import TextEncoder
from dti_geom.probes.learned import LearnedVector, of_width
from dti_geom.probes.material import CARRIERS, SCALES, carrier_prompts, run_prompts, whole_words
from dti_geom.probes.neighbors import Query, parse_queries
from dti_geom.probes.result import Result
from dti_geom.progress import Progress, silent
from dti_geom.statistics import Share

STRETCHES = (1.0, 4.0, 16.0)
PARTNERS = 8  # words that each learned vector is paired with
CENTRE = 32  # words whose mean output is subtracted
LEFT = 0.5  # similarity to itself below which an output counts as changed

Pair = tuple[Query, Query]
Outputs = dict[str, Tensor]  # name → (n, P, d)


@dataclass(frozen=True)
class Resemblance:
    """Which donor an output of the swapped vectors resembles.

    Similarities are −1 … 1, mean over both swaps and all prompts.
    """

    # "token": the state at the token that the denoiser reads; "pooled": final state at the end of
    # the prompt; "end": the same before the final norm.
    output: str
    direction: float  # to the output of the vector whose direction was taken
    magnitude: float  # to the output of the vector whose norm was taken
    donors: float  # between those two


@dataclass(frozen=True)
class SwappedPair:
    """Two tokens, each at the other's norm."""

    first: str
    second: str
    learned: bool  # whether either is a learned vector
    norms: tuple[float, float]  # embedding units, as stored
    resemblances: tuple[Resemblance, ...]


@dataclass(frozen=True)
class SwapSum:
    """All pairs of words, for one output, with the second token at a multiple of its norm."""

    output: str
    stretch: float  # that multiple; 1: as stored
    ratio: float  # median over pairs of longer / shorter norm, after the stretch
    direction: float  # as in Resemblance, mean over pairs
    magnitude: float
    donors: float
    wins: Share  # pairs where the direction donor is resembled more, with its 95 % interval


@dataclass(frozen=True)
class OutputCurve:
    """Similarity of an output to the same output at the mean vocabulary norm, at each scale."""

    output: str
    similarity: tuple[float, ...]  # mean over words and prompts
    low: tuple[float, ...]  # 10th percentile
    high: tuple[float, ...]  # 90th percentile
    leaves: float | None  # smallest scale above 1 with similarity below LEFT; None: nowhere


@dataclass(frozen=True)
class MagnitudeCurve:
    """Directions taken through a range of norms."""

    token: str | None  # a learned vector; None: sampled words
    directions: int
    inflation: float | None  # of a learned vector, its own norm / mean norm: one of the scales
    scales: tuple[float, ...]  # multiples of the mean norm
    outputs: tuple[OutputCurve, ...]


@dataclass(frozen=True)
class Alike:
    """How nearly parallel an output is for any two words, before the mean is subtracted."""

    output: str
    cosine: float  # mean over pairs of CENTRE sampled words at the mean norm, and prompts


@dataclass(frozen=True)
class SwapResult(Result):
    """Swaps and magnitude curves in one encoder."""

    name: str
    mean_norm: float  # of the non-zero rows, embedding units
    carriers: tuple[str, ...]  # the prompts, {} where the token stands
    alike: tuple[Alike, ...]
    left_out: tuple[str, ...]  # words of the category that are not one token here
    pairs: tuple[SwappedPair, ...]  # as stored, without stretch
    sums: tuple[SwapSum, ...]
    curves: tuple[MagnitudeCurve, ...]  # of sampled words, then of each learned vector
    # The state called "token", as `HiddenStates.read_name` names it; None: an older version.
    read: str | None = None


@torch.no_grad()
def measure_swap(
    encoder: TextEncoder,
    learned: Sequence[LearnedVector] = (),
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    category: Sequence[str] | None = None,
    count: int = 32,
    stretches: Sequence[float] = STRETCHES,
    scales: Sequence[float] = SCALES,
    words: int = 16,
    seed: int = 0,
    progress: Progress = silent,
) -> SwapResult:
    """Return what swaps of norms between words do, and what the norm of a word does.

    pairs: what to swap, as names that `parse_queries` knows, each of one token. By default `count`
    pairs are drawn from the words of `category`, or from a sample of whole words four times as
    large. Each joins one of the shortest to one of the longest: a swap of equal norms shows
    nothing. stretches: all swaps are repeated with the second token of each pair at these multiples
    of its norm, because norms of a vocabulary differ far less than those of learned tokens.

    scales: norms of the curves, in multiples of the mean norm. words: how many sampled words are
    scaled. Learned vectors of the table's width are paired with up to PARTNERS words each, and
    scaled; sums count pairs of words only. Where a prompt ends in the token itself, "pooled" and
    "end" would be its own state, so they leave that prompt out.

    Raises UnknownToken for a name that is not a single token, DoesNotApply where there are no two
    words to pair.
    """
    table = encoder.token_table
    fitting = of_width(learned, table.shape[1])
    words_of_category, left_out = (
        _single_tokens(encoder, category) if category is not None else (None, ())
    )
    if pairs is not None:
        chosen = [_parse_pair(encoder, pair, fitting) for pair in pairs]
    else:
        chosen = _drawn(encoder, words_of_category, count, seed)
    if fitting:
        partners = [second for _, second in _drawn(encoder, words_of_category, PARTNERS, seed)]
        chosen += _with_partners(fitting, partners)
    mean = geometry.summarize_norms(table).mean
    rows = whole_words(encoder, max(CENTRE, words), seed)
    sampled = mean * geometry.normalize(table[rows.to(table.device)].float())
    measure = _Outputs(encoder, sampled, progress)
    by_stretch = _swapped(measure, chosen, stretches)
    some = torch.randperm(len(sampled), generator=torch.Generator().manual_seed(seed))[:words]
    return SwapResult(
        name=encoder.name,
        mean_norm=mean,
        carriers=measure.prompts.texts,
        alike=measure.alike,
        left_out=left_out,
        pairs=tuple(_pair(pair, by_stretch[0], place) for place, pair in enumerate(chosen)),
        sums=_sums(chosen, stretches, by_stretch),
        curves=(
            _curve(measure, sampled[some], None, scales),
            *(_learned_curve(measure, vector, mean, scales) for vector in fitting),
        ),
        read=measure.read,
    )


class _Outputs:
    """Measures what vectors in the carrier prompts add to an encoder's outputs."""

    def __init__(self, encoder: TextEncoder, words: Tensor, progress: Progress) -> None:
        """Measure the mean output of words (n, d), which is subtracted from all others."""
        self.encoder, self.progress = encoder, progress
        self.prompts = carrier_prompts(encoder, CARRIERS)
        self.read: str | None = None  # named by the first run
        self._elsewhere = self.prompts.ends != self.prompts.places
        outputs = self._measured(f"mean output of {encoder.name}", words)
        self._centre = {name: output.mean(dim=0) for name, output in outputs.items()}
        self.alike = tuple(Alike(name, _mean_cosine(output)) for name, output in outputs.items())

    def __call__(self, what: str, vectors: Tensor) -> Outputs:
        """Return (n, P, d) unit vectors for each output; vectors: (n, d).

        P is smaller where a prompt is left out.
        """
        measured = self._measured(what, vectors)
        return {
            name: normalize(output - self._centre[name], dim=-1)
            for name, output in measured.items()
        }

    def _measured(self, what: str, vectors: Tensor) -> Outputs:
        prompts, every = self.prompts, torch.arange(len(self.prompts.places))
        chunks: dict[str, list[Tensor]] = {"token": [], "pooled": [], "end": []}
        for states in run_prompts(self.encoder, prompts, vectors, what, self.progress):
            self.read = states.read_name
            read, last, stream = (
                torch.unflatten(state, 0, (-1, len(every))).float().cpu()
                for state in (states.read, states.last, states.states[-1])
            )
            chunks["token"].append(read[:, every, prompts.places])
            chunks["pooled"].append(last[:, every, prompts.ends][:, self._elsewhere])
            chunks["end"].append(stream[:, every, prompts.ends][:, self._elsewhere])
        outputs = {name: torch.cat(parts) for name, parts in chunks.items()}
        return {name: output for name, output in outputs.items() if output.shape[1]}


def _with_partners(learned: Sequence[LearnedVector], partners: Sequence[Query]) -> Iterator[Pair]:
    """Yield every learned vector with every word."""
    for vector in learned:
        for word in partners:
            yield Query(vector.label, vector.vector), word


def _mean_cosine(output: Tensor) -> float:
    """Mean over prompts and pairs of different vectors: (n, P, d) to a number."""
    count = len(output)
    # |Σ u_i|² is the sum of cosines over all ordered pairs, plus one for each vector with itself.
    total = normalize(output, dim=-1).sum(dim=0).square().sum(dim=-1).mean()
    return float((total - count) / (count * (count - 1)))


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    """Mean over prompts of the cosine: (n, P, d) and (n, P, d) to (n,)."""
    return (x * y).sum(dim=-1).mean(dim=-1)


def _swapped(
    measure: _Outputs, pairs: Sequence[Pair], stretches: Sequence[float]
) -> list[dict[str, Tensor]]:
    """Return, for each stretch and output, (n, 3): the cosines of Resemblance, in its order."""
    table = measure.encoder.token_table
    first = torch.stack([query.vector.to(table.device, torch.float32) for query, _ in pairs])
    second = torch.stack([query.vector.to(table.device, torch.float32) for _, query in pairs])
    vectors = [first, geometry.swap(second, first)]
    for stretch in stretches:
        stretched = stretch * second
        vectors += [stretched, geometry.swap(first, stretched)]
    outputs = measure(f"swaps in {measure.encoder.name}", torch.cat(vectors))
    split = {
        name: torch.unflatten(output, 0, (len(vectors), len(pairs)))
        for name, output in outputs.items()
    }
    return [
        {
            name: _compare(output[0], output[1], output[at], output[at + 1])
            for name, output in split.items()
        }
        for at in range(2, len(vectors), 2)
    ]


def _compare(
    first: Tensor, second_at_first: Tensor, second: Tensor, first_at_second: Tensor
) -> Tensor:
    direction = _cosine(first_at_second, first) + _cosine(second_at_first, second)
    magnitude = _cosine(first_at_second, second) + _cosine(second_at_first, first)
    return torch.stack([direction / 2, magnitude / 2, _cosine(first, second)], dim=-1)


def _pair(pair: Pair, cosines: dict[str, Tensor], place: int) -> SwappedPair:
    first, second = pair
    return SwappedPair(
        first=first.label,
        second=second.label,
        learned=first.id is None or second.id is None,
        norms=_norms(pair),
        resemblances=tuple(
            Resemblance(name, *values[place].tolist()) for name, values in cosines.items()
        ),
    )


def _sums(
    pairs: Sequence[Pair], stretches: Sequence[float], by_stretch: Sequence[dict[str, Tensor]]
) -> tuple[SwapSum, ...]:
    places = [
        place
        for place, (first, second) in enumerate(pairs)
        if first.id is not None and second.id is not None
    ]
    if not places:
        return ()
    norms = torch.tensor([_norms(pairs[place]) for place in places])
    sums = []
    for stretch, cosines in zip(stretches, by_stretch, strict=True):
        ratio = (stretch * norms[:, 1] / norms[:, 0]).log().abs().exp()
        for name, values in cosines.items():
            direction, magnitude, donors = values[places].unbind(dim=-1)
            sums.append(
                SwapSum(
                    output=name,
                    stretch=stretch,
                    ratio=float(ratio.median()),
                    direction=float(direction.mean()),
                    magnitude=float(magnitude.mean()),
                    donors=float(donors.mean()),
                    wins=Share.count((direction > magnitude).tolist()),
                )
            )
    return tuple(sums)


def _norms(pair: Pair) -> tuple[float, float]:
    first, second = pair
    return float(geometry.norms(first.vector)), float(geometry.norms(second.vector))


def _curve(
    measure: _Outputs, vectors: Tensor, learned: tuple[str, float] | None, scales: Sequence[float]
) -> MagnitudeCurve:
    """Measure vectors (n, d) of the mean norm at each scale.

    learned: label and inflation of the vector, if there is only one and it is learned.
    """
    label, inflation = learned or (None, None)
    what = f"magnitudes in {measure.encoder.name}" if label is None else f"magnitudes of {label}"
    factors = torch.tensor([1.0, *scales], device=vectors.device)
    scaled = measure(what, (factors[:, None, None] * vectors).flatten(0, 1))
    outputs = tuple(
        _output_curve(name, torch.unflatten(output, 0, (len(factors), len(vectors))), scales)
        for name, output in scaled.items()
    )
    return MagnitudeCurve(label, len(vectors), inflation, tuple(scales), outputs)


def _learned_curve(
    measure: _Outputs, learned: LearnedVector, mean: float, scales: Sequence[float]
) -> MagnitudeCurve:
    vector = learned.vector.to(measure.encoder.token_table.device, torch.float32)[None]
    inflation = float(geometry.norms(vector)) / mean
    return _curve(
        measure,
        mean * geometry.normalize(vector),
        (learned.label, inflation),
        sorted({*scales, inflation}),
    )


def _output_curve(name: str, output: Tensor, scales: Sequence[float]) -> OutputCurve:
    """Compare outputs (1 + scales, n, P, d) with the first, which is at the mean norm."""
    cosines = (output[1:] * output[0]).sum(dim=-1).flatten(1)
    low, high = torch.quantile(cosines, torch.tensor([0.1, 0.9]), dim=1).tolist()
    similarity = cosines.mean(dim=1).tolist()
    left = (
        scale for scale, value in zip(scales, similarity, strict=True) if scale > 1 and value < LEFT
    )
    return OutputCurve(name, tuple(similarity), tuple(low), tuple(high), next(left, None))


def _drawn(
    encoder: TextEncoder, among: Sequence[Query] | None, count: int, seed: int
) -> list[Pair]:
    """Return up to `count` pairs of a short word and a long one, joined at random."""
    if among is None:
        rows = whole_words(encoder, 4 * count, seed).tolist()
        names = encoder.vocabulary.tokens(rows)
        among = [
            Query(name, encoder.token_table[row], row)
            for name, row in zip(names, rows, strict=True)
        ]
    if len(among) < 2:
        raise DoesNotApply(
            f"{encoder.name}: {len(among)} word of one token is not enough to swap; give two or "
            "more."
        )
    by_norm = sorted(among, key=lambda query: float(geometry.norms(query.vector)))
    count = min(count, len(among) // 2)
    longest = by_norm[-count:]
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    return [(short, longest[place]) for short, place in zip(by_norm, order, strict=False)]


def _single_tokens(
    encoder: TextEncoder, words: Sequence[str]
) -> tuple[list[Query], tuple[str, ...]]:
    """Return the words that are one token, and those that are not."""
    single, left_out = {}, []
    for word in words:
        try:
            queries = parse_queries(encoder, [word])
        except UnknownToken:
            queries = []
        if len(queries) == 1:
            single[queries[0].id] = queries[0]
        else:
            left_out.append(word)
    return list(single.values()), tuple(left_out)


def _parse_pair(
    encoder: TextEncoder, pair: tuple[str, str], learned: Sequence[LearnedVector]
) -> Pair:
    parsed = []
    for word in pair:
        queries = parse_queries(encoder, [word], learned)
        if len(queries) != 1:
            raise UnknownToken(
                f"'{word}' is {len(queries)} tokens in {encoder.name} "
                f"({' '.join(query.label for query in queries)}); a swap takes one. Name another "
                "word, or one row as #id."
            )
        parsed += queries
    if pair[0] == pair[1]:
        raise UnknownToken(f"a pair names '{pair[0]}' twice; a swap takes two different tokens.")
    return parsed[0], parsed[1]
