"""Measure how much of a token's position is left after the first normalisation. (Effect I)

In an absolute-position pre-norm encoder the first normalised input is N(m·v + p_i). N is
scale-invariant, so this is N(v + p_i/m): with the magnitude m, position fades as 1/m in amplitude
and 1/m² in variance (arXiv 2512.13672, section 3).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dti_geom import geometry
from dti_geom.errors import DoesNotApply
from dti_geom.models import TextEncoder
from dti_geom.probes.learned import LearnedVector, of_width
from dti_geom.probes.material import WIDE_SCALES, in_chunks, whole_words
from dti_geom.probes.registry import Needs
from dti_geom.probes.result import Result
from dti_geom.progress import Progress, silent

LARGEST_RATIO = 0.25  # ‖p‖/(m‖v‖) up to which the first order of the expansion in it is enough
ROUNDING_MARGIN = 8  # ‖p‖/(m‖v‖) must be this many machine epsilons
EPSILON_MARGIN = 100  # a token's variance must be this many times the epsilon inside N
FEWEST_FITTED = 3


@dataclass(frozen=True)
class PositionalSignal:
    """Position after the first normalisation N, for sampled words at one magnitude.

    Shares are of the variance of N(e + p_i) over words and all positions, from 0 to 1; what neither
    part explains is their interaction.
    """

    scale: float | None  # norm of every e ÷ reference_norm; None: each word at its own norm
    position_share: float  # explained by position
    word_share: float  # explained by the word
    cosine: float  # between two positions of the same word, mean over pairs and words
    logit_share: float | None  # of attention logits, by positions alone; None: no q_proj, k_proj
    accuracy: float  # 0 … 1, of the position classifier on held-out words, mean over positions
    accuracy_by_position: tuple[float, ...]
    distance: float  # ‖N(e + p_i) − N(e)‖, mean over words and positions
    largest_distance: float
    # ‖g‖_∞ √d · 2‖Pp‖/‖Pe‖, largest over words and positions. None: Pe is zero, nothing is bounded.
    bound: float | None


@dataclass(frozen=True)
class LearnedSignal:
    """A learned vector at its own norm, as PositionalSignal has it for sampled words."""

    token: str
    index: int
    path: str
    norm: float  # embedding units
    inflation: float  # norm / reference_norm
    cosine: float
    accuracy: float
    distance: float
    largest_distance: float
    bound: float | None
    method: str | None = None  # the training method, as its file says


@dataclass(frozen=True)
class AttenuationResult(Result):
    """Positional attenuation in one encoder."""

    name: str
    dtype: str  # of the module: what rounding the measurements carry
    words: int  # sampled, half of them to train the classifier at their own norms and half held out
    positions: int  # every row of the position table
    reference_norm: float  # mean norm of the non-zero rows, embedding units
    position_norm: float  # largest ‖p_i‖, embedding units
    gain: float  # ‖g‖_∞ of the first normalisation
    chance: float  # accuracy of a guess: 1 / positions
    natural: PositionalSignal
    scales: tuple[PositionalSignal, ...]
    fitted: tuple[float, float] | None  # ends of the fit; None: theory applies to fewer than three
    share_slope: float | None  # of log position_share on log scale; theory says −2
    distance_slope: float | None  # of log distance on log scale; theory says −1
    learned: tuple[LearnedSignal, ...]


@torch.no_grad()
def measure_attenuation(
    encoder: TextEncoder,
    learned: Sequence[LearnedVector] = (),
    *,
    words: int = 256,
    scales: Sequence[float] = WIDE_SCALES,
    seed: int = 0,
    progress: Progress = silent,
) -> AttenuationResult:
    """Return the positional signal after the encoder's own first normalisation.

    words: how many whole words are sampled. scales: their norms, in multiples of the mean norm of
    the non-zero rows, ascending. Learned vectors of the table's width are measured at their own
    norms.

    Logit share: first-layer logits q·(k − mean k) over all pairs of words and positions, by the
    model's own projections. The mean key adds a constant to a row of logits, which changes no
    attention. The share is what is left of their second moment when words are averaged out, mean
    over heads.

    Slopes are least squares on log-log axes over the scales where theory applies: the largest
    ‖Pp_i‖ is at most a quarter of the token's norm, the root mean square of ‖Pp_i‖ is at least
    eight machine epsilons of it, and the token's variance is at least a hundred times the epsilon
    inside N.

    Raises DoesNotApply for rotary, relative and post-norm encoders, and with fewer than two
    positions or four words.
    """
    Needs.ABSOLUTE_POSITIONS.check(encoder, learned)
    first = _first_layer(encoder)
    rows = whole_words(encoder, words, seed)
    if len(rows) < 4:
        raise DoesNotApply(
            f"{encoder.name} has {len(rows)} whole words; four are needed to train on two and "
            "test two."
        )
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    table = encoder.token_table
    vectors = table[rows.to(table.device)].float()
    directions = geometry.normalize(vectors)
    reference = geometry.summarize_norms(table).mean
    trained = len(rows) // 2
    what, steps = f"positions of {encoder.name}", len(scales) + 2
    progress(what, 0, steps)
    classifier = _fit_classifier(first.normalized(vectors[:trained]))

    def signal(scale: float | None) -> PositionalSignal:
        at = vectors if scale is None else scale * reference * directions
        return _signal(first, classifier, at, scale, trained)

    measured = []
    for done, scale in enumerate([None, *scales], start=1):
        progress(what, done, steps)
        measured.append(signal(scale))
    progress(what, steps, steps)
    natural, *by_scale = measured
    fitted = [
        (scale, measurement)
        for scale, measurement in zip(scales, by_scale, strict=True)
        if measurement.position_share > 0 and first.theory_applies(scale * reference * directions)
    ]
    enough = len(fitted) >= FEWEST_FITTED
    return AttenuationResult(
        name=encoder.name,
        dtype=str(first.dtype).removeprefix("torch."),
        words=len(rows),
        positions=len(first.positions),
        reference_norm=reference,
        position_norm=float(geometry.norms(first.positions).max()),
        gain=first.gain,
        chance=1 / len(first.positions),
        natural=natural,
        scales=tuple(by_scale),
        fitted=(fitted[0][0], fitted[-1][0]) if enough else None,
        share_slope=_slope([(m, at.position_share) for m, at in fitted]) if enough else None,
        distance_slope=_slope([(m, at.distance) for m, at in fitted]) if enough else None,
        learned=_learned(first, classifier, of_width(learned, table.shape[1]), reference),
    )


@dataclass(frozen=True)
class _FirstLayer:
    """The encoder's own modules up to the first attention logits."""

    norm: nn.Module
    centred: bool  # whether N removes the mean
    positions: Tensor  # (L, d), in the module's dtype
    projections: tuple[nn.Module, nn.Module, int] | None  # q, k and the number of heads

    @property
    def dtype(self) -> torch.dtype:
        return self.positions.dtype

    @property
    def gain(self) -> float:
        weight = getattr(self.norm, "weight", None)
        return 1.0 if weight is None else float(weight.abs().max())

    def normalized(self, vectors: Tensor) -> Tensor:
        """N(e + p_i): (n, d) to (n, L, d)."""
        normalized: Tensor = self.norm(vectors.to(self.dtype)[:, None] + self.positions)
        return normalized

    def lengths(self, vectors: Tensor) -> Tensor:
        """Return the norm that N divides by: ‖Px‖ if it removes the mean, else ‖x‖.

        vectors: (..., d). Returns (...).
        """
        vectors = vectors.double()
        return geometry.norms(
            vectors - vectors.mean(dim=-1, keepdim=True) if self.centred else vectors
        )

    def theory_applies(self, vectors: Tensor) -> bool:
        """Return whether N(e + p) is N(e) plus a small multiple of p, well above rounding."""
        token, position = self.lengths(vectors), self.lengths(self.positions)
        epsilon = getattr(self.norm, "eps", None) or 0.0
        return bool(
            position.max() <= LARGEST_RATIO * token.min()
            and position.square().mean().sqrt()
            >= ROUNDING_MARGIN * torch.finfo(self.dtype).eps * token.max()
            and token.min() ** 2 / vectors.shape[-1] >= EPSILON_MARGIN * epsilon
        )


@dataclass(frozen=True)
class _Measured:
    """n vectors at all L positions, in float64, on the CPU."""

    cosine: Tensor  # (n,)
    distance: Tensor  # (n, L)
    correct: Tensor  # (n, L), 0 or 1
    bound: Tensor  # (n,), over all positions


class _StateSums:
    """Sum up the two-way variance of the states over words and positions."""

    def __init__(self) -> None:
        self.by_word: list[Tensor] = []
        self.by_position: Tensor | float = 0.0
        self.square = 0.0

    def add(self, normalized: Tensor) -> None:
        """normalized: (n, L, d)."""
        states = normalized.double()
        self.by_word.append(states.mean(dim=1))
        self.by_position = self.by_position + states.sum(dim=0)
        self.square += float(states.square().sum())

    def shares(self) -> tuple[float, float]:
        """Return the shares of variance explained by position and by the word."""
        by_word = torch.cat(self.by_word)
        by_position = torch.as_tensor(self.by_position) / len(by_word)
        mean = by_word.mean(dim=0)
        variance = self.square / (len(by_word) * len(by_position)) - float(mean.square().sum())
        position, word = (
            float((means - mean).square().sum(dim=-1).mean()) for means in (by_position, by_word)
        )
        return position / variance, word / variance


class _LogitSums:
    """Sum up the second moments of attention logits over all pairs of words and positions.

    A logit is bilinear in query and key, so its moments over pairs follow from those of each side.
    """

    def __init__(self, query: nn.Module, key: nn.Module, heads: int) -> None:
        self.projections = query, key
        self.heads = heads
        self.words = 0
        self.squares: list[Tensor | float] = [0.0, 0.0]  # each (heads, c, c)
        self.by_position: list[Tensor | float] = [0.0, 0.0]  # each (L, heads, c)

    def add(self, normalized: Tensor) -> None:
        """normalized: (n, L, d)."""
        self.words += len(normalized)
        for side, projection in enumerate(self.projections):
            parts = projection(normalized).double().unflatten(-1, (self.heads, -1))
            self.squares[side] = self.squares[side] + torch.einsum("nlhc,nlhe->hce", parts, parts)
            self.by_position[side] = self.by_position[side] + parts.sum(dim=0)

    def share(self) -> float | None:
        """Return the share explained by positions; None where no head has logits that differ."""
        query, key = (torch.as_tensor(total) / self.words for total in self.by_position)
        query_square, key_square = (
            torch.as_tensor(total) / (self.words * len(query)) for total in self.squares
        )
        mean = key.mean(dim=0)
        # E[(q·(k − mean k))²] is the inner product of both second-moment matrices.
        total = (query_square * (key_square - torch.einsum("hc,he->hce", mean, mean))).sum(
            dim=(1, 2)
        )
        explained = (_second_moment(query) * _second_moment(key - mean)).sum(dim=(1, 2))
        shares = (explained / total)[total > 0]
        return float(shares.mean()) if len(shares) else None


def _second_moment(x: Tensor) -> Tensor:
    return torch.einsum("lhc,lhe->hce", x, x) / len(x)


def _first_layer(encoder: TextEncoder) -> _FirstLayer:
    positions = encoder.position_table
    assert positions is not None  # checked by Needs.ABSOLUTE_POSITIONS
    attention = encoder.blocks[0].branches[0]
    function = attention.function
    has_projections = all(hasattr(function, name) for name in ("q_proj", "k_proj", "num_heads"))
    dtype = next((parameter.dtype for parameter in attention.norm.parameters()), positions.dtype)
    return _FirstLayer(
        attention.norm,
        encoder.normalization == "layer_norm",
        positions.to(dtype),
        (function.q_proj, function.k_proj, int(function.num_heads))  # type: ignore[arg-type]
        if has_projections
        else None,
    )


def _fit_classifier(normalized: Tensor) -> Any:
    """Fit a linear classifier of the position i to N(e + p_i). normalized: (n, L, d)."""
    from sklearn.linear_model import LogisticRegression

    words, positions, _ = normalized.shape
    classifier = LogisticRegression(max_iter=1000)
    return classifier.fit(
        normalized.flatten(0, 1).float().cpu().numpy(),
        torch.arange(positions).repeat(words).numpy(),
    )


def _measure(
    first: _FirstLayer,
    classifier: Any,
    vectors: Tensor,
    sums: Sequence[_StateSums | _LogitSums] = (),
) -> _Measured:
    """Measure each of these vectors (n, d); the sums get every chunk of normalised states."""
    positions, dim = first.positions.shape
    labels = torch.arange(positions)
    cosine, distance, correct = [], [], []
    for part in in_chunks(len(vectors), positions * dim, ""):
        normalized = first.normalized(vectors[part])
        for moments in sums:
            moments.add(normalized)
        predicted = classifier.predict(normalized.flatten(0, 1).float().cpu().numpy())
        correct.append(torch.from_numpy(predicted).view(-1, positions) == labels)
        alone = first.norm(vectors[part].to(first.dtype)).double()
        distance.append((normalized.double() - alone[:, None]).norm(dim=-1))
        # |Σ u_i|² = L + Σ_{i≠j} u_i·u_j, so the mean cosine of pairs needs no L × L matrix.
        together = geometry.normalize(normalized.double()).sum(dim=1)
        cosine.append((together.square().sum(dim=-1) - positions) / (positions * (positions - 1)))
    steepest = 2 * first.gain * dim**0.5 * first.lengths(first.positions).max()
    return _Measured(
        cosine=torch.cat(cosine).cpu(),
        distance=torch.cat(distance).cpu(),
        correct=torch.cat(correct).double(),
        bound=(steepest / first.lengths(vectors)).cpu(),
    )


def _signal(
    first: _FirstLayer, classifier: Any, vectors: Tensor, scale: float | None, trained: int
) -> PositionalSignal:
    """Measure words at one scale. vectors: (n, d), the first `trained` of which were fitted."""
    states = _StateSums()
    logits = [_LogitSums(*first.projections)] if first.projections else []
    measured = _measure(first, classifier, vectors, [states, *logits])
    position_share, word_share = states.shares()
    held_out = measured.correct[trained:]
    return PositionalSignal(
        scale=scale,
        position_share=position_share,
        word_share=word_share,
        cosine=float(measured.cosine.mean()),
        logit_share=logits[0].share() if logits else None,
        accuracy=float(held_out.mean()),
        accuracy_by_position=tuple(held_out.mean(dim=0).tolist()),
        distance=float(measured.distance.mean()),
        largest_distance=float(measured.distance.max()),
        bound=_finite(measured.bound.max()),
    )


def _learned(
    first: _FirstLayer, classifier: Any, learned: Sequence[LearnedVector], reference: float
) -> tuple[LearnedSignal, ...]:
    # A zero vector has no direction to measure.
    learned = [vector for vector in learned if vector.vector.any()]
    if not learned:
        return ()
    vectors = torch.stack([vector.vector.float() for vector in learned]).to(first.positions.device)
    measured = _measure(first, classifier, vectors)
    norms = geometry.norms(vectors).tolist()
    return tuple(
        LearnedSignal(
            token=vector.token,
            index=vector.index,
            path=str(vector.path),
            norm=norm,
            inflation=norm / reference,
            cosine=float(measured.cosine[row]),
            accuracy=float(measured.correct[row].mean()),
            distance=float(measured.distance[row].mean()),
            largest_distance=float(measured.distance[row].max()),
            bound=_finite(measured.bound[row]),
            method=vector.method,
        )
        for row, (vector, norm) in enumerate(zip(learned, norms, strict=True))
    )


def _finite(bound: Tensor) -> float | None:
    return float(bound) if bound.isfinite() else None


def _slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the least-squares slope of log value on log scale, from pairs of both."""
    x, y = torch.tensor(points, dtype=torch.float64).log().T
    x = x - x.mean()
    return float((x * y).sum() / x.square().sum())
