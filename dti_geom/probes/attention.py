"""Measure the attention a token gets and gives, and its use of context, by magnitude. (Claim D)

Weights are those of the model's own attention modules (arXiv 2512.13672, section 3).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad
from torch.special import entr

from dti_geom import geometry
from dti_geom.errors import DoesNotApply
from dti_geom.models import HiddenStates, TextEncoder
from dti_geom.probes.learned import LearnedVector, of_width
from dti_geom.probes.material import SCALES, Prompts, carrier_prompts, run_prompts, whole_words
from dti_geom.probes.result import Result
from dti_geom.probes.sinks import Sinks, find_sinks
from dti_geom.progress import Progress, silent

# Other words around the same position: a change of state is due to the words, not to the place.
CONTEXTS = (
    "a photo of {} on the beach",
    "the big red {} in a city",
    "two small blue {} under the stars",
    "my picture of {} at the sea",
    "one nice green {} behind a car",
    "a dark pink {} above the grass",
)
MAPPED = (1.0, 4.0, 32.0)  # scales of the heat maps
SINK_WORDS = 4  # words in the prompts that sinks are looked for in; the word hardly matters


@dataclass(frozen=True)
class HeadAttention:
    """One head's attention to and from the token, at each scale; means over words and prompts."""

    layer: int  # from 1
    head: int  # from 1
    received: tuple[float, ...]  # weight from each other position that may attend to the token
    itself: tuple[float, ...]  # weight the token gives itself; the rest of its row goes to others
    entropy: tuple[float, ...]  # of the token's own row, nats


@dataclass(frozen=True)
class Sensitivity:
    """How much a token's state depends on the words around it, at each scale.

    Compared are its states in prompts that have it at the same place. Any two states of a layer are
    nearly parallel, so `values` are small whatever the context does. `centred` and `share` are
    without the mean state of sampled words of the same norm there.
    """

    layer: int  # the block whose output is taken, from 1; 0: the state that the denoiser reads
    values: tuple[float, ...]  # 1 − mean cosine of the states; 0 … 2
    centred: tuple[float, ...] = ()  # the same without the mean; empty in results of older versions
    # Of the states' variance about that mean, what differs between contexts of one word; 0 … 1.
    share: tuple[float, ...] = ()


@dataclass(frozen=True)
class AttentionCurves:
    """Directions taken through a range of norms."""

    token: str | None  # a learned vector; None: sampled words
    directions: int
    inflation: float | None  # of a learned vector, its own norm / mean norm: one of the scales
    scales: tuple[float, ...]  # norms, in multiples of the mean norm
    heads: tuple[HeadAttention, ...]
    sensitivity: tuple[Sensitivity, ...]


@dataclass(frozen=True)
class HeatMap:
    """Attention weights of one prompt, mean over the heads of a layer."""

    layer: int  # from 1
    scale: float
    weights: tuple[tuple[float, ...], ...]  # row: from, column: to; rows sum to 1


@dataclass(frozen=True)
class AttentionResult(Result):
    """Attention and context in one encoder."""

    name: str
    mean_norm: float  # of the non-zero rows, embedding units
    contexts: tuple[str, ...]  # the prompts, {} where the token stands
    causal: bool  # whether positions attend only to themselves and to what stands before them
    uniform: float  # `received` of a token that gets as much as every other
    most_entropy: float  # of the token's row, nats: attending equally to all it may attend to
    curves: tuple[AttentionCurves, ...]  # of sampled words, then of each learned vector
    mapped: tuple[str, ...]  # tokens of the prompt of the maps, the first of `contexts`
    place: int  # among them, where the sampled word stands
    maps: tuple[HeatMap, ...]  # of first, middle and last layer
    read: str | None = None  # the state of layer 0, as `HiddenStates.read_name` names it
    sinks: Sinks | None = None  # None in results of older versions


@torch.no_grad()
def measure_attention(
    encoder: TextEncoder,
    learned: Sequence[LearnedVector] = (),
    *,
    words: int = 16,
    scales: Sequence[float] = SCALES,
    seed: int = 0,
    progress: Progress = silent,
) -> AttentionResult:
    """Return attention weights and context sensitivity of sampled words and learned vectors.

    words: how many whole words are sampled. scales: their norms, in multiples of the mean norm.
    Learned vectors of the table's width are measured at their own norm as well. Attention sinks and
    massive activations are measured at words of their own norms.

    Which positions may attend to the token is read from the weights: a causal mask leaves exact
    zeros above the diagonal. Padding neither attends nor counts. Modules with a fused kernel use
    their plain one for this measurement.

    The mean that context sensitivity leaves out is that of the sampled words at the same norm, over
    all prompts that have the token at one place.

    Raises DoesNotApply if the encoder gives no weights, or no two prompts have the token at one
    place.
    """
    table = encoder.token_table
    mean = geometry.summarize_norms(table).mean
    rows = whole_words(encoder, words, seed)
    prompts = carrier_prompts(encoder, CONTEXTS)
    directions = geometry.normalize(table[rows.to(table.device)].float())
    at_mean = next(
        run_prompts(
            encoder, prompts, mean * directions[:1], f"mask of {encoder.name}", attention=True
        )
    )
    watch = _Watch(
        encoder=encoder,
        prompts=prompts,
        causal=_is_causal(at_mean.attention, prompts.mask),
        mean=mean,
        words=directions,
        progress=progress,
    )
    curves = [watch.curves(f"attention in {encoder.name}", directions, scales)]
    for token in of_width(learned, table.shape[1]):
        vector = token.vector.to(table.device, torch.float32)[None]
        inflation = float(geometry.norms(vector)) / mean
        curves.append(
            watch.curves(
                what=f"attention of {token.label}",
                directions=geometry.normalize(vector),
                scales=sorted({*scales, inflation}),
                token=token.label,
                inflation=inflation,
            )
        )
    names = encoder.vocabulary.tokens(rows.tolist())
    # The longest of the sampled words is the most likely to mean something.
    longest = max(range(len(names)), key=lambda at: len(names[at]))
    prompt = prompts.ids[0, : int(prompts.ends[0]) + 1].tolist()
    place = int(prompts.places[0])
    prompt[place] = int(rows[longest])
    return AttentionResult(
        name=encoder.name,
        mean_norm=mean,
        contexts=prompts.texts,
        causal=watch.causal,
        uniform=watch.uniform,
        most_entropy=watch.most_entropy,
        curves=tuple(curves),
        mapped=tuple(encoder.vocabulary.tokens(prompt)),
        place=place,
        maps=watch.maps(directions[longest], len(prompt)),
        read=at_mean.read_name,
        sinks=find_sinks(
            encoder, rows[:SINK_WORDS], CONTEXTS, causal=watch.causal, progress=progress
        ),
    )


class _Watch:
    """Reads the token's part of an encoder's attention weights and states."""

    def __init__(
        self,
        encoder: TextEncoder,
        prompts: Prompts,
        causal: bool,
        mean: float,
        words: Tensor,
        progress: Progress,
    ) -> None:
        """words: (n, d), directions of the sampled words."""
        self.encoder, self.prompts, self.progress = encoder, prompts, progress
        self.causal, self.mean, self._words = causal, mean, words
        self._centres: dict[float, Tensor] = {}  # by scale: (1 + layers, P, d)
        self._every = torch.arange(len(prompts.places))
        positions, places = torch.arange(prompts.ids.shape[1]), prompts.places[:, None]
        later = positions > positions[:, None]
        allowed = prompts.mask[:, None, :].bool() & ~(later if causal else torch.zeros_like(later))
        self._attending = (
            prompts.mask.bool() & (positions != places) & allowed[self._every, :, prompts.places]
        )
        self._attended = self._attending.any(dim=1)
        if not self._attended.any():
            raise DoesNotApply(
                f"{encoder.name}: in no prompt may any other position attend to the token."
            )
        self._same_place = (places == places.T) & ~torch.eye(len(places), dtype=torch.bool)
        if not self._same_place.any():
            raise DoesNotApply(
                f"{encoder.name}: no two prompts have the token at one place, so contexts do not "
                "compare."
            )
        # Row c averages over the prompts that have the token where prompt c has it.
        same = (places == places.T).float()
        self._mean_at_place = same / same.sum(dim=1, keepdim=True)
        self._compared = self._same_place.any(dim=1)
        choices = allowed.sum(dim=-1).float()
        self.uniform = float(self._received(1 / choices))
        self.most_entropy = float(choices[self._every, prompts.places].log().mean())

    def curves(
        self,
        what: str,
        directions: Tensor,
        scales: Sequence[float],
        token: str | None = None,
        inflation: float | None = None,
    ) -> AttentionCurves:
        """Measure directions (n, d), unit norm, at each scale; means over directions, prompts."""
        norms = self.mean * torch.tensor(scales, device=directions.device)
        vectors = (norms[:, None, None] * directions).flatten(0, 1)
        attention, at_token = [], []
        for states in run_prompts(
            self.encoder, self.prompts, vectors, what, self.progress, attention=True
        ):
            attention.append(
                torch.stack([self._of_layer(weights) for weights in states.attention], dim=1)
            )
            at_token.append(self._at_token(states))
        shape = (len(scales), len(directions))
        of_heads = torch.unflatten(torch.cat(attention), 0, shape).mean(
            dim=1
        )  # (scales, layers, heads, 3)
        by_scale = torch.unflatten(torch.cat(at_token), 0, shape)
        if token is None:
            self._centres |= {
                scale: self._centre(states)
                for scale, states in zip(scales, by_scale.unbind(), strict=True)
            }
        of_layers = torch.stack(
            [
                self._contexts(states, self._centre_at(scale))
                for scale, states in zip(scales, by_scale.unbind(), strict=True)
            ]
        )  # (scales, 1 + layers, 3)
        return AttentionCurves(
            token=token,
            directions=len(directions),
            inflation=inflation,
            scales=tuple(scales),
            heads=tuple(
                HeadAttention(
                    layer, head, *(tuple(values.tolist()) for values in figures.unbind(dim=-1))
                )
                for layer, heads in enumerate(of_heads.unbind(dim=1), 1)
                for head, figures in enumerate(heads.unbind(dim=1), 1)
            ),
            sensitivity=tuple(
                Sensitivity(layer, *(tuple(values.tolist()) for values in figures.unbind(dim=-1)))
                for layer, figures in enumerate(of_layers.unbind(dim=1))
            ),
        )

    def maps(self, direction: Tensor, length: int) -> tuple[HeatMap, ...]:
        """Return maps of the first prompt's first `length` tokens. direction: (d,), unit norm."""
        vectors = self.mean * torch.tensor(MAPPED, device=direction.device)[:, None] * direction
        maps = [
            torch.stack(
                [
                    self._by_vector(weights)[:, 0, :, :length, :length].mean(dim=1)
                    for weights in states.attention
                ]
            )
            for states in run_prompts(
                self.encoder, self.prompts, vectors, "heat maps", attention=True
            )
        ]
        by_layer = torch.cat(maps, dim=1).tolist()
        chosen = sorted({0, len(by_layer) // 2, len(by_layer) - 1})
        return tuple(
            HeatMap(at + 1, scale, tuple(map(tuple, weights)))
            for at in chosen
            for scale, weights in zip(MAPPED, by_layer[at], strict=True)
        )

    def _by_vector(self, tensor: Tensor) -> Tensor:
        return torch.unflatten(tensor, 0, (-1, len(self._every))).float().cpu()

    def _of_layer(self, weights: Tensor) -> Tensor:
        """Return received, itself, entropy: (k·P, heads, L, L) to (k, heads, 3), prompt means."""
        split = self._by_vector(weights).movedim(2, 1)  # (k, heads, P, L, L)
        places = self.prompts.places
        row = split[:, :, self._every, places]
        # Two index tensors with a slice between them put their dimension in front.
        columns = split[:, :, self._every, :, places].movedim(0, 2)
        itself = row[:, :, self._every, places].mean(dim=-1)
        return torch.stack(
            [self._received(columns), itself, entr(row).sum(dim=-1).mean(dim=-1)], dim=-1
        )

    def _received(self, columns: Tensor) -> Tensor:
        """Return the mean weight from positions that may attend to the token: (…, P, L) to (…)."""
        total = (columns * self._attending).sum(dim=-1) / self._attending.sum(dim=-1).clamp(min=1)
        return total[..., self._attended].mean(dim=-1)

    def _at_token(self, states: HiddenStates) -> Tensor:
        """Return (k, 1 + layers, P, d): the state that is read and every block's, at the token."""
        parts = [
            self._by_vector(state)[:, self._every, self.prompts.places]
            for state in (states.read, *states.states[1:])
        ]
        # What is read may be several blocks joined. Zeros change neither cosine nor variance.
        return torch.stack([pad(x, (0, parts[0].shape[-1] - x.shape[-1])) for x in parts], dim=1)

    def _centre(self, words: Tensor) -> Tensor:
        """Return the mean state at each prompt's place: (n, layers, P, d) to (layers, P, d)."""
        return self._mean_at_place @ words.mean(dim=0)

    def _centre_at(self, scale: float) -> Tensor:
        """Return the mean state of the sampled words at a scale; measure it if it is new."""
        if scale not in self._centres:
            vectors = scale * self.mean * self._words
            parts = run_prompts(self.encoder, self.prompts, vectors, "mean states", self.progress)
            self._centres[scale] = self._centre(torch.cat([self._at_token(part) for part in parts]))
        return self._centres[scale]

    def _contexts(self, states: Tensor, centre: Tensor) -> Tensor:
        """Return a row of `Sensitivity` for each layer: (n, layers, P, d) to (layers, 3)."""
        about = states - centre
        between = (
            (about - self._mean_at_place @ about)[:, :, self._compared].square().sum((0, 2, 3))
        )
        total = about[:, :, self._compared].square().sum((0, 2, 3))
        # Where nothing differs there is nothing that a context could explain.
        share = torch.where(total > 0, between / total.clamp(min=torch.finfo().tiny), 0)
        return torch.stack([self._apart(states), self._apart(about), share], dim=-1)

    def _apart(self, states: Tensor) -> Tensor:
        """Return 1 − mean cosine over prompts with one place: (n, layers, P, d) to (layers,)."""
        unit = normalize(states, dim=-1)
        return 1 - (unit @ unit.mT)[:, :, self._same_place].mean(dim=(0, 2))


def _is_causal(attention: Sequence[Tensor], mask: Tensor) -> bool:
    """Return whether no position attends to a later one.

    attention: (P, heads, L, L) for each layer. mask: (P, L).
    """
    if not attention or any(weights is None for weights in attention):
        raise DoesNotApply("this encoder gives no attention weights; there is nothing to measure.")
    real = (mask[:, None, :, None] * mask[:, None, None, :]).to(attention[0].device)
    return not any((weights * real).triu(diagonal=1).any() for weights in attention)
