"""Find attention sinks and massive activations, layer by layer.

Many encoders park attention that they do not need on one position, mostly the first, whose state
has a few huge numbers (Xiao et al. 2023, arXiv 2309.17453; Sun et al. 2024, arXiv 2402.17762).
Some pipelines do not mask padding, and then it can draw attention too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dti_geom.models import TextEncoder
from dti_geom.probes.material import Prompts, carrier_prompts, run_prompts
from dti_geom.progress import Progress, silent

PADDED = 77  # positions of a padded prompt, as in CLIP's pipelines; fewer where there are fewer


@dataclass(frozen=True)
class LayerSinks:
    """Where the attention of one layer goes, and the largest number of its output.

    Shares are means over the tokens of the prompts, without the first, and over words.
    """

    layer: int  # from 1
    first: tuple[float, ...]  # of each head: share of attention to the first position, 0 … 1
    # Of each head: share to all padding together, where it is not masked. None: no room for any.
    padding: tuple[float, ...] | None
    largest: float  # largest absolute number of the block's output at the tokens of the prompts
    median: float  # median absolute number there
    token: str  # at which the largest stands
    dimension: int  # in which, from 0


@dataclass(frozen=True)
class Sinks:
    """Attention sinks and massive activations of one encoder."""

    begin: str | None  # the special token that begins every prompt, if there is one
    even_first: float  # what `first` is where a token attends alike to all it may attend to
    even_padding: float | None  # the same of `padding`
    positions: int  # of a padded prompt
    layers: tuple[LayerSinks, ...]


@torch.no_grad()
def find_sinks(
    encoder: TextEncoder,
    rows: Tensor,
    carriers: Sequence[str],
    *,
    causal: bool,
    progress: Progress = silent,
) -> Sinks:
    """Return where attention goes in prompts with these rows of the token table, unchanged.

    rows: (n,). carriers: {} where the row stands. Prompts are run as they are, and once more padded
    to PADDED positions without a mask, which is how padding can be attended to.
    """
    table = encoder.token_table
    vectors = table[rows.to(table.device)].float()
    prompts = carrier_prompts(encoder, carriers)
    is_first = torch.zeros_like(prompts.mask, dtype=torch.bool)
    is_first[:, 0] = True
    first = _shares(encoder, prompts, vectors, prompts.mask.bool(), is_first, progress)
    padded = carrier_prompts(encoder, carriers, least=PADDED)
    real = padded.mask.bool()
    padding = even_padding = None
    if not real.all():
        unmasked = replace(padded, mask=torch.ones_like(padded.mask))
        padding = _shares(encoder, unmasked, vectors, real, ~real, progress)
        even_padding = _even(unmasked.mask.bool(), real, ~real, causal=causal)
    opening = int(prompts.ids[0, 0])
    begins = opening in encoder.vocabulary.special.values() and bool((prompts.places > 0).all())
    return Sinks(
        begin=encoder.vocabulary.tokens([opening])[0] if begins else None,
        even_first=_even(prompts.mask.bool(), prompts.mask.bool(), is_first, causal=causal),
        even_padding=even_padding,
        positions=padded.ids.shape[1],
        layers=tuple(
            LayerSinks(
                layer,
                tuple(heads.tolist()),
                None if padding is None else tuple(padding[layer - 1].tolist()),
                *largest,
            )
            for layer, (heads, largest) in enumerate(
                zip(first, _activations(encoder, prompts, vectors, rows), strict=True), 1
            )
        ),
    )


def _asking(real: Tensor) -> Tensor:
    """Return the tokens whose attention is averaged: all but the first, (P, L)."""
    asking = real.clone()
    asking[:, 0] = False
    return asking


def _even(mask: Tensor, real: Tensor, wanted: Tensor, *, causal: bool) -> float:
    """Return the share of `wanted` where each position attends alike to all it may attend to.

    mask, real, wanted: (P, L); positions that may be attended to, tokens, and those looked for.
    """
    allowed = mask[:, None, :].expand(-1, mask.shape[1], -1)
    if causal:
        allowed = allowed.tril()
    shares = (allowed & wanted[:, None]).sum(dim=-1) / allowed.sum(dim=-1).clamp(min=1)
    return float(shares[_asking(real)].mean())


def _shares(
    encoder: TextEncoder,
    prompts: Prompts,
    vectors: Tensor,
    real: Tensor,
    wanted: Tensor,
    progress: Progress,
) -> list[Tensor]:
    """Return the mean share of attention that tokens give to wanted positions: (heads,) by layer.

    real, wanted: (P, L).
    """
    asking = _asking(real).float()
    sums: list[Tensor] = []
    for states in run_prompts(encoder, prompts, vectors, "sinks", progress, attention=True):
        for layer, weights in enumerate(states.attention):
            by_vector = weights.float().cpu().unflatten(0, (-1, len(prompts.places)))
            total = torch.einsum("npqij,pi,pj->q", by_vector, asking, wanted.float())
            if layer == len(sums):
                sums.append(total)
            else:
                sums[layer] += total
    return [total / (asking.sum() * len(vectors)) for total in sums]


def _activations(
    encoder: TextEncoder, prompts: Prompts, vectors: Tensor, rows: Tensor
) -> list[tuple[float, float, str, int]]:
    """Return largest and median absolute number of every block's output, and where it stands."""
    real = prompts.mask.bool()
    ids = prompts.ids.repeat(len(rows), 1, 1)
    ids[:, torch.arange(len(real)), prompts.places] = rows[:, None]
    states = [found.states[1:] for found in run_prompts(encoder, prompts, vectors, "activations")]
    found = []
    for parts in zip(*states, strict=True):
        sizes = torch.cat(parts).float().cpu().abs().unflatten(0, (-1, len(real)))
        at_tokens = sizes[:, real]  # (n, tokens, d)
        word, token, dimension = torch.unravel_index(at_tokens.argmax(), at_tokens.shape)
        (name,) = encoder.vocabulary.tokens([int(ids[:, real][word, token])])
        found.append((float(at_tokens.max()), float(at_tokens.median()), name, int(dimension)))
    return found
