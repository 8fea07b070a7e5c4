"""Does an encoder's output follow a token's direction or its magnitude? (Claim A)

Each of two tokens a and b is given the other's norm, ‖b‖·a/‖a‖ and ‖a‖·b/‖b‖, and the outputs are compared with those
of a and b themselves (arXiv 2512.13672, section 3).

Outputs of any two words in one prompt are nearly parallel. What a word adds is therefore its output less the mean
output of sampled words at the mean norm in the same prompt, and all similarities here are cosines of such differences.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from dti_geom import geometry
from dti_geom.errors import DoesNotApply, UnknownToken
from dti_geom.models import TextEncoder
from dti_geom.probes.drawing import Drawable
from dti_geom.probes.learned import LearnedVector, of_width
from dti_geom.probes.material import CARRIERS, SCALES, carrier_prompts, run_prompts, whole_words
from dti_geom.probes.neighbors import Query, parse_queries
from dti_geom.probes.painted import PaintedSwap
from dti_geom.progress import Progress, silent
from dti_geom.statistics import Share

STRETCHES = (1.0, 4.0, 16.0)
PARTNERS = 8  # words that each learned vector is paired with
CENTRE = 32  # words whose mean output is subtracted
LEFT = 0.5  # similarity to itself below which an output has left what it was

Pair = tuple[Query, Query]
Outputs = dict[str, Tensor]  # name → (n, P, d)


@dataclass(frozen=True)
class Resemblance:
    """Whom an output of the swapped vectors resembles: similarities, −1 … 1, mean over both swaps and all prompts."""

    # token: state at the token that the denoiser reads; pooled: output at the end of the prompt;
    # end: the same before the final norm
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
    """All pairs of words, for one output, the second token of each taken at a multiple of its norm."""

    output: str
    stretch: float  # that multiple; 1: as stored
    ratio: float  # median over pairs of longer / shorter norm, after the stretch
    direction: float  # as in Resemblance, mean over pairs
    magnitude: float
    donors: float
    wins: Share  # pairs where the direction donor is resembled more, with its 95 % interval


@dataclass(frozen=True)
class SweptOutput:
    """Similarity of an output to the same output at the mean vocabulary norm, at each scale."""

    output: str
    similarity: tuple[float, ...]  # mean over words and prompts
    low: tuple[float, ...]  # 10th percentile
    high: tuple[float, ...]  # 90th percentile
    leaves: (
        float | None
    )  # smallest scale above 1 where similarity falls below LEFT, one half; None: nowhere


@dataclass(frozen=True)
class Sweep:
    """Directions taken through a range of norms."""

    token: str | None  # a learned vector; None: sampled words
    directions: int
    inflation: float | None  # of a learned vector, its own norm / mean norm: one of the scales
    scales: tuple[float, ...]  # multiples of the mean norm
    outputs: tuple[SweptOutput, ...]


@dataclass(frozen=True)
class Alike:
    """How nearly parallel an output is for any two words, before the mean is subtracted."""

    output: str
    cosine: float  # mean over pairs of CENTRE sampled words at the mean norm, and prompts


@dataclass(frozen=True)
class EncoderSwap(Drawable):
    """Swaps and sweeps in one encoder."""

    name: str
    mean_norm: float  # of the non-zero rows, embedding units
    carriers: tuple[str, ...]  # the prompts, {} where the token stands
    alike: tuple[Alike, ...]
    left_out: tuple[str, ...]  # words of the category that are not one token here
    pairs: tuple[SwappedPair, ...]  # as stored, without stretch
    sums: tuple[SwapSum, ...]
    sweeps: tuple[Sweep, ...]  # of sampled words, then of each learned vector


@dataclass(frozen=True)
class Swap:
    """Swaps and sweeps in every text encoder of a model."""

    model: str
    encoders: tuple[EncoderSwap, ...]
    painted: PaintedSwap | None = None  # where pictures were asked for


def model_swap(
    model: str,
    encoders: Iterable[TextEncoder],
    learned: Sequence[LearnedVector] = (),
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    category: Sequence[str] | None = None,
    count: int = 32,
    seed: int = 0,
    progress: Progress = silent,
) -> Swap:
    """`encoder_swap` of each encoder."""
    return Swap(
        model,
        tuple(
            encoder_swap(
                encoder,
                learned,
                pairs=pairs,
                category=category,
                count=count,
                seed=seed,
                progress=progress,
            )
            for encoder in encoders
        ),
    )


@torch.no_grad()
def encoder_swap(
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
) -> EncoderSwap:
    """Swaps over pairs of words, and a sweep through the norms of sampled words and of learned vectors.

    pairs: what to swap, as names that `parse_queries` knows, each of one token. By default `count` pairs are drawn, of
    the words of `category` or of a sample of whole words four times as large: each joins one of the shortest to one of
    the longest, since a swap of equal norms says nothing. Norms of a vocabulary differ so little that all swaps are
    repeated with the second token of each pair at multiples of its norm (`stretches`), as a learned token has them.

    scales: norms of the sweep, in multiples of the mean norm. Learned vectors of the table's width are paired with up
    to PARTNERS words each and swept; sums count pairs of words alone. Where a prompt ends in the token itself, pooled
    and end would be its own state, so they leave that prompt out.

    Raises UnknownToken for a pair that has no single tokens, DoesNotApply where there are no two words to pair.
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
        chosen += [(Query(one.label, one.vector), word) for one in fitting for word in partners]
    mean = geometry.summarize_norms(table).mean
    rows = whole_words(encoder, max(CENTRE, words), seed)
    sampled = mean * geometry.normalize(table[rows.to(table.device)].float())
    measure = _Outputs(encoder, sampled, progress)
    by_stretch = _swapped(measure, chosen, stretches)
    some = torch.randperm(len(sampled), generator=torch.Generator().manual_seed(seed))[:words]
    return EncoderSwap(
        name=encoder.name,
        mean_norm=mean,
        carriers=measure.prompts.texts,
        alike=measure.alike,
        left_out=left_out,
        pairs=tuple(_pair(pair, by_stretch[0], place) for place, pair in enumerate(chosen)),
        sums=_sums(chosen, stretches, by_stretch),
        sweeps=(
            _sweep(measure, sampled[some], None, scales),
            *(_learned_sweep(measure, one, mean, scales) for one in fitting),
        ),
    )


class _Outputs:
    """What vectors standing in the carriers add to an encoder's outputs."""

    def __init__(self, encoder: TextEncoder, words: Tensor, progress: Progress) -> None:
        """words: (n, d), those whose mean output is subtracted from all others."""
        self.encoder, self.progress = encoder, progress
        self.prompts = carrier_prompts(encoder, CARRIERS)
        self._elsewhere = self.prompts.ends != self.prompts.places
        outputs = self._measured(f"mean output of {encoder.name}", words)
        self._centre = {name: output.mean(dim=0) for name, output in outputs.items()}
        self.alike = tuple(Alike(name, _mean_cosine(output)) for name, output in outputs.items())

    def __call__(self, what: str, vectors: Tensor) -> Outputs:
        """vectors: (n, d). Returns (n, P, d) for each output, unit vectors; P is smaller where a prompt is left out."""
        measured = self._measured(what, vectors)
        return {
            name: normalize(output - self._centre[name], dim=-1)
            for name, output in measured.items()
        }

    def _measured(self, what: str, vectors: Tensor) -> Outputs:
        prompts, every = self.prompts, torch.arange(len(self.prompts.places))
        found: dict[str, list[Tensor]] = {"token": [], "pooled": [], "end": []}
        for states in run_prompts(self.encoder, prompts, vectors, what, self.progress):
            read, last, stream = (
                state.unflatten(0, (-1, len(every))).float().cpu()
                for state in (states.read, states.last, states.states[-1])
            )
            found["token"].append(read[:, every, prompts.places])
            found["pooled"].append(last[:, every, prompts.ends][:, self._elsewhere])
            found["end"].append(stream[:, every, prompts.ends][:, self._elsewhere])
        outputs = {name: torch.cat(parts) for name, parts in found.items()}
        return {name: output for name, output in outputs.items() if output.shape[1]}


def _mean_cosine(output: Tensor) -> float:
    """Mean over prompts and pairs of different vectors: (n, P, d) to a number."""
    count = len(output)
    total = (
        normalize(output, dim=-1).sum(dim=0).square().sum(dim=-1).mean()
    )  # all ordered pairs, and each with itself
    return float((total - count) / (count * (count - 1)))


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    """Mean over prompts of the cosine: (n, P, d) and (n, P, d) to (n,)."""
    return (x * y).sum(dim=-1).mean(dim=-1)


def _swapped(
    measure: _Outputs, pairs: Sequence[Pair], stretches: Sequence[float]
) -> list[dict[str, Tensor]]:
    """For each stretch and output (n, 3): the cosines that Resemblance names, in its order."""
    table = measure.encoder.token_table
    first, second = (
        torch.stack([vector.to(table.device, torch.float32) for vector in vectors])
        for vectors in zip(*((one.vector, other.vector) for one, other in pairs), strict=True)
    )
    stretched = [stretch * second for stretch in stretches]
    vectors = [first, geometry.swap(second, first)]
    vectors += [one for far in stretched for one in (far, geometry.swap(first, far))]
    outputs = measure(f"swaps in {measure.encoder.name}", torch.cat(vectors))
    split = {
        name: output.unflatten(0, (len(vectors), len(pairs))) for name, output in outputs.items()
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


def _pair(pair: Pair, found: dict[str, Tensor], place: int) -> SwappedPair:
    first, second = pair
    return SwappedPair(
        first=first.label,
        second=second.label,
        learned=first.id is None or second.id is None,
        norms=(float(geometry.norms(first.vector)), float(geometry.norms(second.vector))),
        resemblances=tuple(
            Resemblance(name, *values[place].tolist()) for name, values in found.items()
        ),
    )


def _sums(
    pairs: Sequence[Pair], stretches: Sequence[float], by_stretch: Sequence[dict[str, Tensor]]
) -> tuple[SwapSum, ...]:
    places = [place for place, pair in enumerate(pairs) if all(one.id is not None for one in pair)]
    if not places:
        return ()
    norms = torch.tensor(
        [[float(geometry.norms(one.vector)) for one in pairs[place]] for place in places]
    )
    sums = []
    for stretch, found in zip(stretches, by_stretch, strict=True):
        ratio = (stretch * norms[:, 1] / norms[:, 0]).log().abs().exp()
        for name, values in found.items():
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


def _sweep(
    measure: _Outputs, vectors: Tensor, learned: tuple[str, float] | None, scales: Sequence[float]
) -> Sweep:
    """vectors: (n, d), all of the mean norm. learned: label and inflation of the one vector, if it is a learned one."""
    label, inflation = learned or (None, None)
    what = f"magnitudes in {measure.encoder.name}" if label is None else f"magnitudes of {label}"
    factors = torch.tensor([1.0, *scales], device=vectors.device)
    swept = measure(what, (factors[:, None, None] * vectors).flatten(0, 1))
    outputs = tuple(
        _swept_output(name, output.unflatten(0, (len(factors), len(vectors))), scales)
        for name, output in swept.items()
    )
    return Sweep(label, len(vectors), inflation, tuple(scales), outputs)


def _learned_sweep(
    measure: _Outputs, learned: LearnedVector, mean: float, scales: Sequence[float]
) -> Sweep:
    vector = learned.vector.to(measure.encoder.token_table.device, torch.float32)[None]
    inflation = float(geometry.norms(vector)) / mean
    return _sweep(
        measure,
        mean * geometry.normalize(vector),
        (learned.label, inflation),
        sorted({*scales, inflation}),
    )


def _swept_output(name: str, output: Tensor, scales: Sequence[float]) -> SweptOutput:
    """output: (1 + scales, n, P, d), first at the mean norm."""
    cosines = (output[1:] * output[0]).sum(dim=-1).flatten(1)
    low, high = torch.quantile(cosines, torch.tensor([0.1, 0.9]), dim=1).tolist()
    similarity = cosines.mean(dim=1).tolist()
    left = (
        scale for scale, value in zip(scales, similarity, strict=True) if scale > 1 and value < LEFT
    )
    return SweptOutput(name, tuple(similarity), tuple(low), tuple(high), next(left, None))


def _drawn(
    encoder: TextEncoder, among: Sequence[Query] | None, count: int, seed: int
) -> list[Pair]:
    """Up to `count` pairs of one of the shortest and one of the longest words, joined at random."""
    if among is None:
        rows = whole_words(encoder, 4 * count, seed).tolist()
        names = encoder.vocabulary.tokens(rows)
        among = [
            Query(name, encoder.token_table[row], row)
            for name, row in zip(names, rows, strict=True)
        ]
    if len(among) < 2:
        raise DoesNotApply(
            f"{encoder.name}: {len(among)} word of one token is not enough to swap; give two or more."
        )
    by_norm = sorted(among, key=lambda one: float(geometry.norms(one.vector)))
    count = min(count, len(among) // 2)
    longest = by_norm[-count:]
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    return [(short, longest[place]) for short, place in zip(by_norm, order, strict=False)]


def _single_tokens(
    encoder: TextEncoder, words: Sequence[str]
) -> tuple[list[Query], tuple[str, ...]]:
    """The words that are one token, and those that are not."""
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
    found = []
    for word in pair:
        queries = parse_queries(encoder, [word], learned)
        if len(queries) != 1:
            raise UnknownToken(
                f"'{word}' is {len(queries)} tokens in {encoder.name} ({' '.join(one.label for one in queries)}); "
                "a swap takes one. Name another word, or one row as #id."
            )
        found += queries
    if pair[0] == pair[1]:
        raise UnknownToken(f"a pair names '{pair[0]}' twice; a swap takes two different tokens.")
    return found[0], found[1]
