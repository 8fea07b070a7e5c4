"""Measure how far an encoder turns a token's state, by the token's magnitude. (Effect II)

A pre-norm branch adds f(N(x)) to the state x. N hides magnitude: the state of a longer token grows,
but its updates keep their length. It is turned less and picks up less context (arXiv 2512.13672,
section 3).
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dti_geom import geometry
from dti_geom.models import TextEncoder
from dti_geom.models.encoders.base import read_blocks
from dti_geom.probes.learned import LearnedVector, of_width
from dti_geom.probes.material import (
    CARRIERS,
    SCALES,
    Prompts,
    carrier_prompts,
    run_prompts,
    whole_words,
)
from dti_geom.probes.result import Result
from dti_geom.progress import Progress, silent

# Far enough for ‖x_0‖ to pass the sum of the longest updates.
FAR_SCALES = (*SCALES, 128.0, 512.0, 2048.0, 8192.0)


@dataclass(frozen=True)
class BranchTurn:
    """What one branch does to the state at the word's place; angles in radians."""

    block: int  # from 0
    kind: Literal["attention", "mlp"]
    turn: float  # angle between the state before and after, mean over words and prompts
    relative_update: float  # ‖f‖/‖x‖, mean
    update: float  # ‖f‖, mean; state units
    largest_update: float
    angle: float  # from x_0 to the state after this branch, mean; the last branch's: the whole turn
    largest_angle: float
    # arcsin(S/‖x_0‖) for the shortest x_0, with S the sum of B up to here. None: S ≥ ‖x_0‖.
    bound: float | None
    tightness: float | None  # largest of angle / arcsin(S/‖x_0‖), from 0 to 1


@dataclass(frozen=True)
class Passage:
    """Words on their way through the encoder, all at one magnitude."""

    scale: float | None  # norm of every word, in multiples of reference_norm; None: each at its own
    start_norm: float  # ‖x_0‖, mean; with the position and the embedding scale the encoder adds
    smallest_start_norm: float
    branches: tuple[BranchTurn, ...]
    # How much of x_L is x_0; means over words and prompts. None in results of older versions.
    added: float | None = None  # ‖x_L − x_0‖/‖x_0‖: the length of all updates together
    start_share: float | None = None  # ‖x_0‖/‖x_L‖
    along_start: float | None = None  # length of x_L's projection on x_0, over ‖x_L‖; 0 … 1


@dataclass(frozen=True)
class LearnedPassage:
    """A learned vector on its way through the encoder."""

    token: str
    index: int
    path: str
    norm: float  # embedding units
    inflation: float  # norm / reference_norm
    natural: Passage  # at its own norm
    angles: tuple[float, ...]  # whole turn at each of the scales, mean over prompts
    method: str | None = None  # the training method, as its file says


@dataclass(frozen=True)
class BranchBound:
    """B of one branch: its longest update over words, learned vectors, prompts and magnitudes."""

    block: int
    kind: Literal["attention", "mlp"]
    largest_update: float  # state units


@dataclass(frozen=True)
class StagnationResult(Result):
    """Residual stagnation in one encoder."""

    name: str
    dtype: str  # of the states: what rounding the measurements carry
    words: int  # sampled
    prompts: tuple[str, ...]  # {} where the word stands
    reference_norm: float  # mean norm of the non-zero rows, embedding units
    bounds: tuple[BranchBound, ...]
    total_bound: float  # S, their sum: beyond this ‖x_0‖ the whole turn is bounded
    natural: Passage
    scales: tuple[Passage, ...]
    learned: tuple[LearnedPassage, ...]
    read: str | None = None  # x_L, as `HiddenStates.read_name` names it; None: an older version


@torch.no_grad()
def measure_stagnation(
    encoder: TextEncoder,
    learned: Sequence[LearnedVector] = (),
    *,
    words: int = 32,
    carriers: Sequence[str] = CARRIERS,
    scales: Sequence[float] = FAR_SCALES,
    seed: int = 0,
    progress: Progress = silent,
) -> StagnationResult:
    """Return how far each branch turns the state at the word's place.

    words: how many whole words are sampled. carriers: the prompts, {} where the word stands.
    scales: norms of the words, in multiples of the mean norm of the non-zero rows, ascending.
    Learned vectors of the table's width are measured at their own norms and at the scales; zero
    vectors are left out.

    If no update of branch l is longer than B_l, then ‖x_L − x_0‖ ≤ S = Σ B_l, and the state turns
    by at most arcsin(S/‖x_0‖) where S < ‖x_0‖. B_l is the longest update seen here at the word's
    place, so the bound holds for what was measured. Start tokens often get far longer updates.

    The turn saturates at 90°: directions in many dimensions are nearly orthogonal. How much of x_L
    is x_0 tells further norms apart, and ‖x_L − x_0‖/‖x_0‖ has no such end.

    Only the blocks up to the last one that the denoiser reads are measured. States and updates are
    read by hooks from the encoder's own modules. Raises DoesNotApply for a post-norm encoder.
    """
    table = encoder.token_table
    reference = geometry.summarize_norms(table).mean
    prompts = carrier_prompts(encoder, carriers)
    rows = whole_words(encoder, words, seed).to(table.device)
    fitting = [token for token in of_width(learned, table.shape[1]) if token.vector.any()]
    vectors = torch.stack(
        [*table[rows].float(), *(token.vector.float().to(table.device) for token in fitting)]
    )
    directions = geometry.normalize(vectors)
    magnitudes = [None, *scales]
    what = f"states of {encoder.name}"
    ways = []
    for done, scale in enumerate(magnitudes):
        progress(what, done, len(magnitudes))
        ways.append(
            _follow(encoder, prompts, vectors if scale is None else scale * reference * directions)
        )
    progress(what, len(magnitudes), len(magnitudes))
    # B of each branch: its longest update over all magnitudes, vectors and prompts.
    longest = torch.stack([way.update.amax(dim=(1, 2)) for way in ways]).amax(dim=0)
    branches = [
        (number, branch.kind)
        for number, block in enumerate(read_blocks(encoder))
        for branch in block.branches
    ]

    def passage(way: _Way, scale: float | None) -> Passage:
        return _passage(way, scale, branches, longest)

    of_words = [way.of(slice(len(rows))) for way in ways]
    natural, *by_scale = (
        passage(way, scale) for way, scale in zip(of_words, magnitudes, strict=True)
    )
    return StagnationResult(
        name=encoder.name,
        dtype=str(ways[0].dtype).removeprefix("torch."),
        read=ways[0].read,
        words=len(rows),
        prompts=prompts.texts,
        reference_norm=reference,
        bounds=tuple(
            BranchBound(block, kind, length)
            for (block, kind), length in zip(branches, longest.tolist(), strict=True)
        ),
        total_bound=float(longest.sum()),
        natural=natural,
        scales=tuple(by_scale),
        learned=tuple(
            LearnedPassage(
                token=token.token,
                index=token.index,
                path=str(token.path),
                norm=(norm := float(geometry.norms(token.vector))),
                inflation=norm / reference,
                natural=passage(ways[0].of(slice(place, place + 1)), None),
                angles=tuple(float(way.angle[-1, place].mean()) for way in ways[1:]),
                method=token.method,
            )
            for place, token in enumerate(fitting, start=len(rows))
        ),
    )


@dataclass(frozen=True)
class _Way:
    """n vectors in P prompts through b branches, in float64 on the CPU."""

    dtype: torch.dtype  # of the states
    read: str  # what x_L is
    start: Tensor  # (n, P), ‖x_0‖
    end: Tensor  # (n, P), ‖x_L‖
    added: Tensor  # (n, P), ‖x_L − x_0‖
    turn: Tensor  # (b, n, P)
    relative_update: Tensor  # (b, n, P)
    update: Tensor  # (b, n, P), ‖f‖
    angle: Tensor  # (b, n, P), to x_0

    def of(self, part: slice) -> "_Way":
        """Return the same for some of the vectors."""
        return _Way(
            dtype=self.dtype,
            read=self.read,
            start=self.start[part],
            end=self.end[part],
            added=self.added[part],
            turn=self.turn[:, part],
            relative_update=self.relative_update[:, part],
            update=self.update[:, part],
            angle=self.angle[:, part],
        )


def _follow(encoder: TextEncoder, prompts: Prompts, vectors: Tensor) -> _Way:
    """Send vectors (n, d) through the encoder at their place in each prompt."""
    chunks = []
    with _captured(encoder, prompts.places) as (before, updates):
        for states in run_prompts(encoder, prompts, vectors, ""):
            dtype, read = states.last.dtype, states.read_name
            end = _at_places(states.states[-1 - encoder.tap.unread], prompts.places)
            x = torch.stack([*before, end]).double()
            f = torch.stack(updates).double()
            before.clear()
            updates.clear()
            lengths, directions = geometry.norms(x), geometry.normalize(x)
            update = geometry.norms(f)
            turn = geometry.angle(directions[:-1], directions[1:])
            angle = geometry.angle(directions[:1], directions[1:])
            added = geometry.norms(x[-1:] - x[:1])
            ends = (lengths[:1], lengths[-1:], added)
            chunks.append([*ends, turn, update / lengths[:-1], update, angle])
    start, end, added, *rest = (
        torch.cat(parts, dim=1).cpu() for parts in zip(*chunks, strict=True)
    )
    return _Way(dtype, read, start[0], end[0], added[0], *rest)


@contextmanager
def _captured(encoder: TextEncoder, places: Tensor) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Yield two lists that a run fills with the state before each branch and the branch's update.

    Both are taken at the places: (k, P, d).
    """
    before: list[Tensor] = []
    updates: list[Tensor] = []

    def keep_state(_norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        before.append(_at_places(inputs[0], places))

    def keep_update(_output: nn.Module, _inputs: Any, output: Any) -> None:
        updates.append(_at_places(output[0] if isinstance(output, tuple) else output, places))

    with ExitStack() as hooks:
        for block in read_blocks(encoder):
            for branch in block.branches:
                hooks.enter_context(branch.norm.register_forward_pre_hook(keep_state))
                hooks.enter_context(branch.output.register_forward_hook(keep_update))
        yield before, updates


def _at_places(states: Tensor, places: Tensor) -> Tensor:
    """(k·P, L, d) to (k, P, d)."""
    return torch.unflatten(states, 0, (-1, len(places)))[:, torch.arange(len(places)), places]


def _passage(
    way: _Way,
    scale: float | None,
    branches: Sequence[tuple[int, Literal["attention", "mlp"]]],
    longest: Tensor,
) -> Passage:
    turns = []
    for place, (block, kind) in enumerate(branches):
        share = longest[: place + 1].sum() / way.start
        bounded = bool(share.max() < 1)
        turns.append(
            BranchTurn(
                block=block,
                kind=kind,
                turn=float(way.turn[place].mean()),
                relative_update=float(way.relative_update[place].mean()),
                update=float(way.update[place].mean()),
                largest_update=float(way.update[place].max()),
                angle=float(way.angle[place].mean()),
                largest_angle=float(way.angle[place].max()),
                bound=float(share.max().asin()) if bounded else None,
                # Where nothing was ever added the bound is zero, and there is nothing to compare.
                tightness=float((way.angle[place] / share.asin()).max())
                if bounded and share.max() > 0
                else None,
            )
        )
    return Passage(
        scale=scale,
        start_norm=float(way.start.mean()),
        smallest_start_norm=float(way.start.min()),
        branches=tuple(turns),
        added=float((way.added / way.start).mean()),
        start_share=float((way.start / way.end).mean()),
        along_start=float(way.angle[-1].cos().abs().mean()),
    )
